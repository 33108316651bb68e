"""What a relaxed network needs from a training loop besides its gradient step, as one object that any loop can use.

    schedule = Schedule(net, steps=epochs * len(loader), lam=1e-8)
    for x, y in batches:
        (cross_entropy(net(x), y) + schedule.penalty()).backward()
        optimizer.step(), optimizer.zero_grad()
        schedule.step()                                      # temperature up, weights clipped
    sparse = schedule.harden()

``principled.integrations`` does the same from inside Lightning and the Trainer of Hugging Face.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .quantize import average_bits
from .relax import Relaxation, Relaxed
from .sharing import SoftSharing


class Schedule:
    r"""Anneals, prices, clips and hardens a relaxed network, a step at a time.

    Args:
        net: the relaxed network.
        steps: how many times :meth:`step` will be called, a whole number: ``epochs * len(loader)``. If it is called
            once an epoch, the number of epochs; :class:`principled.Smol` then clips once an epoch too.
        lam: :math:`\lambda`, the price of the penalty, at least 0; a sequence has a price for each relaxation of a
            stack, in its order.
        final: the temperature :math:`\beta` at the end; 200 is the thesis's.

    Attributes:
        taken: how many steps have been taken, from 0.

    Raises:
        ValueError: no relaxed network, fewer than one step, a negative price, or not one price a relaxation.
    """

    def __init__(self, net: Relaxed, steps: float, lam: float | Sequence[float] = 0.0, final: float = 200.0) -> None:
        if not isinstance(net, Relaxed):
            raise ValueError(f"Schedule takes Relaxed(net, ContinuousMask()) or the like, not {type(net).__name__}")
        if not 1 <= steps < float("inf"):
            raise ValueError(f"steps must be a finite number of at least 1, not {steps}: the temperature needs an end")
        self.net, self.steps, self.final, self.taken = net, int(steps), final, 0
        self._relaxations = [cast(Relaxation, relaxation) for relaxation in net.relaxations]
        prices = list(lam) if isinstance(lam, Sequence) else [lam] * len(self._relaxations)
        if len(prices) != len(self._relaxations) or not all(0 <= price < float("inf") for price in prices):
            raise ValueError(
                f"lam is a finite price of at least 0, or one for each of the {len(self._relaxations)} relaxations, "
                f"not {lam}"
            )
        self.lam = [float(price) for price in prices]
        net.anneal(0.0, final)

    @property
    def progress(self) -> float:
        """How far training has come, from 0 to 1."""
        return min(self.taken / self.steps, 1.0)

    @property
    def done(self) -> bool:
        """Whether all steps are taken: time to :meth:`harden`."""
        return self.taken >= self.steps

    def penalty(self) -> Tensor:
        """What the loss is to be raised by, a 0-d tensor: each relaxation's penalty times its price."""
        first, *rest = (lam * r.penalty() for lam, r in zip(self.lam, self._relaxations, strict=True))
        return sum(rest, first)

    def add_gradients(self, parameters: Iterable[Tensor] | None = None) -> None:
        """Add the penalty's gradient to ``.grad``, for a loop whose loss is out of reach; before the optimizer's step.

        The same step as with :meth:`penalty` in the loss. It escapes a clipping of gradients that came before, and
        comes once a step, however many batches a step accumulates.

        Args:
            parameters: those that are stepped; default: all.
        """
        stepped = None if parameters is None else {id(p) for p in parameters}
        variables = [p for p in self.net.relaxations.parameters() if p.requires_grad]
        variables = [p for p in variables if stepped is None or id(p) in stepped]
        with torch.enable_grad():
            penalty = self.penalty()
        if not variables or not penalty.requires_grad:
            return  # nothing to learn from it: a price of 0, or all that it depends on is frozen
        gradients = torch.autograd.grad(penalty, variables, allow_unused=True)
        for variable, gradient in zip(variables, gradients, strict=True):
            if gradient is not None:
                variable.grad = gradient if variable.grad is None else variable.grad.add_(gradient)

    def step(self) -> None:
        """To be called after the optimizer's step: clip what has a range, move the temperature on.

        A warning says so when it is called more often than ``steps``; the temperature then stays where it ended.
        """
        own = dict(self.net.net.named_parameters())
        for relaxation in self._relaxations:
            clip = getattr(relaxation, "clip_", None)
            # weights that are mixed from templates are clipped where they are read
            if clip is not None and own.keys() >= set(relaxation.names):
                clip(own)
        self.taken += 1
        if self.taken == self.steps + 1:
            warnings.warn(
                f"Schedule: step() is called more often than the {self.steps} times it was made for, and the "
                "temperature is at its end; was steps= the number of epochs?",
                stacklevel=2,
            )
        self.net.anneal(self.progress, self.final)

    def harden(self) -> nn.Module:
        """The plain network with the discrete weights; a warning says so where the schedule has not come to its end."""
        if not self.done:
            warnings.warn(
                f"Schedule: hardened after {self.taken} of {self.steps} steps, so soft masks are not settled and "
                "accuracy may fall; train to the end, or make the schedule as long as the training",
                stacklevel=2,
            )
        return self.net.harden()

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Where the network is, for a log: ``zeros``, the share of the masked weights that hardening would remove now,
        and ``bits``, the average over the quantised ones, as far as there are such relaxations.
        """
        values: dict[str, float] = {}
        for relaxation in self._relaxations:
            if callable(sparsity := getattr(relaxation, "sparsity", None)):
                values["zeros"] = float(sparsity())
            if callable(precision := getattr(relaxation, "precision", None)):
                values["bits"] = float(average_bits(precision()))
        return values

    def check(self, *optimizers: Any) -> None:
        """Warn of what optimizers do to the relaxations' variables by mistake: leave them out, or decay them."""
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        decays = {id(p): group.get("weight_decay", 0) for group in groups for p in group["params"]}
        names = {id(p): name for name, p in self.net.named_parameters()}
        templates = {id(t) for r in self._relaxations if isinstance(r, SoftSharing) for t in r.templates.values()}
        variables = [p for p in self.net.relaxations.parameters() if p.requires_grad]
        if left_out := [names[id(p)] for p in variables if id(p) not in decays]:
            warnings.warn(f"the optimizer leaves out {left_out[0]}, which will not be trained", stacklevel=2)
        if decayed := [names[id(p)] for p in variables if decays.get(id(p)) and id(p) not in templates]:
            warnings.warn(
                f"the optimizer decays {decayed[0]}, which pulls it to 0 whatever the loss says: pass it "
                "decay_groups(net, weight_decay)",
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """How many steps are taken; the temperature is in the network's own ``state_dict``."""
        return {"taken": self.taken, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another schedule of as many steps was."""
        if state["steps"] != self.steps:
            raise ValueError(f"this schedule has {self.steps} steps, the saved one {state['steps']}: make it as long")
        self.taken = int(state["taken"])
        self.net.anneal(self.progress, self.final)
