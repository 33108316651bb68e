"""All of Algorithm 5 as one call, for any network, loss and stream of batches: :func:`train_smol`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from .quantize import average_bits
from .relax import Relaxed
from .reweighted import copied
from .smol import FixedPrecision, Rounding, Smol, fix_precision

Phase = Literal["search", "tune"]
RateSchedule = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]
"""``schedule(optimizer, steps)`` makes a learning-rate schedule for one phase of so many steps."""


@dataclass(frozen=True)
class SmolProgress:
    """Where a training by :func:`train_smol` is.

    Attributes:
        phase: ``"search"`` or ``"tune"``.
        step: steps of the phase that are taken, from 1.
        taken: batches taken in all: where a stream for ``resume`` begins.
        net: the network as it trains; evaluate it in ``eval()``: modes and random numbers are put back afterwards. In
            the search it runs on unquantised weights then, and ``net.harden()`` gives the quantised network.
    """

    phase: Phase
    step: int
    taken: int
    net: Relaxed
    _collect: Callable[[], dict[str, Any]]

    def bits(self) -> float:
        """Average bits of a weight now."""
        return average_bits(self.net.relaxations[-1].precision())  # type: ignore[operator]

    def state(self) -> dict[str, Any]:
        """A copy of all that ``train_smol(..., resume=state)`` needs to go on as if it had not stopped, for
        ``torch.save``: numbers, lists and tensors, :attr:`taken` among them.
        """
        return copy.deepcopy(self._collect())


class Quantised(NamedTuple):
    """What Algorithm 5 gives back."""

    net: nn.Module
    """A plain network with the quantised weights."""
    precision: dict[str, Tensor]
    """Bits of each weight, by name."""
    scale: dict[str, float]
    """By name, what the range of ±2 was multiplied by."""


def train_smol(
    net: nn.Module,
    loss: Callable[[nn.Module, Any], Tensor],
    batches: Iterable[Any],
    *,
    lam: float,
    steps: tuple[int, int],
    smol: Smol | None = None,
    rounding: Rounding = "floor",
    lr_s: float = 1e-3,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    schedule: RateSchedule | None = None,
    after: Callable[[SmolProgress], object] | None = None,
    every: int | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Quantised:
    r"""All of Algorithm 5: search for precisions, fix them, fine-tune the quantised weights.

    Args:
        net: starts the training; a copy of it is trained.
        loss: ``loss(net, batch)``, a 0-d tensor.
        batches: gives a batch a step; as many are taken as there are steps, so let it be endless or long enough.
        lam: :math:`\lambda`, at least 0, the price of a bit. The thesis's for ResNet-20 lie between 5e-7 and 1e-6.
        steps: steps of the search (:math:`T_1`) and of fine-tuning (:math:`T_2 - T_1`).
        smol: the relaxation; default ``Smol()``: from 8 bits, a precision for each weight.
        rounding: see :meth:`Smol.precision`.
        lr_s: Adam's rate for s. 1e-3 is the thesis's, for 350 epochs; scale it up, and lam, as the steps shrink.
        optimizer: makes an optimizer for the weights, once for each phase. Default SGD, rate 0.1, momentum 0.9.
        schedule: makes a schedule of that optimizer's rate, once for each phase (:data:`RateSchedule`); it is stepped
            after each step. Default: none.
        after: called with a :class:`SmolProgress` every ``every`` steps and after the last of each phase: to log, to
            evaluate, to save.
        every: steps between calls of ``after``; ``len(loader)`` is an epoch. Default: at the end of each phase alone.
        resume: a :meth:`SmolProgress.state`. ``net`` and all options are those of the first call, and ``batches`` go on
            where it stopped; the result is then the same, to the last bit.

    Raises:
        ValueError: a negative lambda or number of steps, ``every`` below 1, batches that run out, a ``resume`` that is
            no state of these phases.
    """
    if not (lam >= 0 and math.isfinite(lam)):
        raise ValueError(f"lam must be a finite number of at least 0, not {lam}: it is the price of a bit")
    if min(steps) < 0:
        raise ValueError(f"steps must not be negative: {steps}")
    if every is not None and every < 1:
        raise ValueError(f"every is a number of steps between calls of after, at least 1, not {every}")
    make = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
    smol = Smol() if smol is None else smol
    relaxed = Relaxed(copied(net), smol).train()
    training = _Training(relaxed, loss, iter(batches), steps, lam, schedule, after, every, resume)
    weights = [p for p in relaxed.parameters() if p is not smol.s]
    training.descend("search", relaxed, [make(weights), torch.optim.Adam([smol.s], lr=lr_s)])
    fixed = fix_precision(relaxed, rounding)
    training.descend("tune", fixed, [make(list(fixed.parameters()))])
    frozen = cast(FixedPrecision, fixed.relaxations[0])
    return Quantised(fixed.harden(), frozen.precision(), frozen.scales())


@dataclass
class _Training:
    """The two phases of Algorithm 5, and what of them is saved."""

    relaxed: Relaxed
    loss: Callable[[nn.Module, Any], Tensor]
    source: Iterator[Any]
    steps: tuple[int, int]
    lam: float
    schedule: RateSchedule | None
    after: Callable[[SmolProgress], object] | None
    every: int | None
    resume: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        if self.resume is None:
            return
        phase, step = self.resume.get("phase"), self.resume.get("step", -1)
        if phase not in ("search", "tune") or not 0 <= step <= self.steps[phase == "tune"]:
            raise ValueError(f"resume is at step {step} of phase {phase!r}, which steps = {self.steps} does not have")
        self.relaxed.load_state_dict(self.resume["search"])

    def descend(self, phase: Phase, model: Relaxed, optimizers: list[torch.optim.Optimizer]) -> None:
        """One phase: its steps of all ``optimizers``; in the search, bits have a price and weights their range."""
        steps, searching = self.steps[phase == "tune"], phase == "search"
        smol = cast(Smol, self.relaxed.relaxations[-1])
        rates = [] if self.schedule is None else [self.schedule(optimizers[0], steps)]
        for step in range(self._begin(phase, model, [*optimizers, *rates]), steps):
            try:
                batch = next(self.source)
            except StopIteration:
                raise ValueError(f"batches ran out after {step} of {steps} steps: pass an endless iterable") from None
            total = self.loss(model, batch)
            (total + self.lam * model.penalty() if searching else total).backward()  # type: ignore[no-untyped-call]
            for each in optimizers:
                each.step()
                each.zero_grad(set_to_none=True)
            for rate in rates:
                rate.step()
            if searching:
                smol.clip_(dict(model.net.named_parameters()))
            if self.after and (step + 1 == steps or (self.every and (step + 1) % self.every == 0)):
                self._report(self.after, phase, step + 1, model, [*optimizers, *rates])

    def _begin(self, phase: Phase, model: Relaxed, parts: list[Any]) -> int:
        """The step to begin a phase at; where a state is of this phase, all its ``parts`` are put back."""
        if self.resume is None:
            return 0
        if self.resume["phase"] != phase:  # the search is over, and its network loaded
            return self.steps[0]
        if phase == "tune":
            model.load_state_dict(self.resume["tune"])
        for part, state in zip(parts, self.resume["parts"], strict=True):
            part.load_state_dict(state)
        _set_chance(model, self.resume["chance"])
        step, self.resume = self.resume["step"], None
        return cast(int, step)

    def _report(
        self, after: Callable[[SmolProgress], object], phase: Phase, step: int, model: Relaxed, parts: list[Any]
    ) -> None:
        taken = step + (self.steps[0] if phase == "tune" else 0)

        def collect() -> dict[str, Any]:
            """All that moves in training."""
            tuned = model.state_dict() if phase == "tune" else None
            states = [part.state_dict() for part in parts]
            search = self.relaxed.state_dict()
            where = {"phase": phase, "step": step, "taken": taken}
            return where | {"search": search, "tune": tuned, "parts": states, "chance": chance}

        modes, chance = [(module, module.training) for module in model.modules()], _chance(model)
        after(SmolProgress(phase, step, taken, model, collect))
        for module, mode in modes:
            module.training = mode
        _set_chance(model, chance)


def _chance(model: nn.Module) -> list[Tensor]:
    """The states of the generators that the noise comes from."""
    device = next(model.parameters()).device
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _set_chance(model: nn.Module, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    for state in states[1:]:
        torch.cuda.set_rng_state(state.cpu(), next(model.parameters()).device)
