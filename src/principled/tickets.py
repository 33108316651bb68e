r"""Ticket search (4.2.4): sparsify in rounds, and re-train what is left from an early iterate.

A *ticket* is a mask :math:`m` together with the weights :math:`\hat\theta` that training passed through after its first
:math:`k` steps. It wins if :math:`f(m \odot \hat\theta)`, trained in isolation, does as well as the dense network. The
loop below is what Algorithms 2, 3 and 4 have in common; what differs is which mask the network carries, and whether its
weights go back between rounds:

====================================  ====================================  ==========
search                                mask                                  ``rewind``
====================================  ====================================  ==========
Continuous Sparsification (Alg. 2)    :class:`principled.ContinuousMask`    False
Sequential CS (4.5.5)                 :class:`SequentialMask`               False
Iterative Magnitude Pruning (Alg. 3)  ``lab.baselines.IterativeMagnitude``  True; IMP-C: False
Stochastic, iterative (Alg. 4)        ``lab.baselines.StochasticMask``      False
====================================  ====================================  ==========
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .relax import Relaxed
from .reweighted import Weights, copied
from .sparsity import ContinuousMask, KeepZeros, RemovedLayerWarning, warn_of_removed_layers

State = dict[str, Tensor]
"""A plain network's ``state_dict``, copied: parameters, and what BatchNorm keeps."""

Train = Callable[[int, Callable[[int], None]], None]
"""``train(round, passed)`` trains the network for one round and calls ``passed(t)`` after its step ``t``, counted from
1.
"""


@dataclass(frozen=True)
class Ticket:
    """A mask and the weights it belongs on.

    Attributes:
        round: the round that gave it, counted from 1.
        mask: ``{name: factor}`` in the weights' shapes; 0 for what is pruned. Kept weights have 1, or the factor that
            ``variant="reference"`` leaves on them.
        start: the state that training restarts from.
    """

    round: int
    mask: Weights
    start: State

    def sparsity(self) -> float:
        """Share of the masked weights that the ticket prunes, between 0 and 1."""
        kept = sum(int(m.count_nonzero()) for m in self.mask.values())
        return 1 - kept / sum(m.numel() for m in self.mask.values())

    def network(self, net: nn.Module) -> nn.Module:
        r"""A copy of the plain ``net`` that holds :math:`m \odot \hat\theta` (Algorithm 2, line 12)."""
        plain = copied(net)
        plain.load_state_dict(self.start)
        with torch.no_grad():
            for name, mask in self.mask.items():
                plain.get_parameter(name).mul_(mask)
        return plain

    def trainable(self, net: nn.Module) -> Relaxed:
        """The same network, ready to be re-trained: its zeros stay."""
        return Relaxed(self.network(net), KeepZeros(tuple(self.mask)))


def ticket_search(
    net: Relaxed,
    train: Train,
    *,
    rounds: int,
    steps: int,
    k: int = 0,
    rewind: bool = False,
    after: Callable[[int, int], object] | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Iterator[Ticket]:
    r"""Search for tickets; yields one at the end of each round, whose network may be trained before the next begins.

    Args:
        net: the network with its mask; trained in place.
        train: trains it for one round (:data:`Train`). Optimizers are its business: momentum carries over between
            rounds if they do. It should end with ``net.anneal(1.0, final)``, since the next round reads :math:`\beta`.
        rounds: R, at least 1. The thesis takes 5 for CS and 30 for IMP.
        steps: T, of one round.
        k: the step of round 1 after which the weights are kept to restart from, 0 for their initialisation. The thesis
            takes the end of epoch 2 for its CIFAR networks (4.4.2) and 0 for Conv-6 (4.5.4).
        rewind: set the weights back to that state when a new round begins (Algorithm 3). CS goes on (Algorithm 2).
        after: called with ``(round, t)`` after each step that ``train`` reports: to log, to evaluate, to move a rate.
            What comes after a round is the body of the loop over the tickets.
        resume: a :func:`search_state`; the search goes on in the round after it. Optimizers are ``train``'s business
            here too.

    Raises:
        ValueError: no round, a negative k or one beyond the schedule; ``train`` did not call ``passed(k)``; a
            ``resume`` of a round that is not among these.

    A ticket that lacks a whole layer is a warning which names the layer.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}: the thesis uses 5 for CS and 30 for IMP")
    if not 0 <= k <= steps:
        raise ValueError(f"k = {k} is no step of a round of {steps}: choose 0 (initialisation) to {steps}")
    done = 0 if resume is None else resume["round"]
    if not 0 <= done < rounds:
        raise ValueError(f"resume is at the end of round {done}, and this search has {rounds}: nothing is left to do")
    return _search(net, train, rounds, k, rewind, after, resume)


def search_state(net: Relaxed, ticket: Ticket) -> dict[str, Any]:
    """A copy of all that ``ticket_search(..., resume=state)`` needs, for ``torch.save``; to be taken when ``ticket`` is
    yielded, before the next round begins.
    """
    return copy.deepcopy({"round": ticket.round, "start": ticket.start, "net": net.state_dict()})


def _search(
    net: Relaxed,
    train: Train,
    rounds: int,
    k: int,
    rewind: bool,
    after: Callable[[int, int], object] | None,
    resume: Mapping[str, Any] | None,
) -> Iterator[Ticket]:
    kept: list[State] = [plain_state(net)] if k == 0 else []
    done = 0
    if resume is not None:
        net.load_state_dict(resume["net"])
        kept, done = [resume["start"]], resume["round"]

    for r in range(done + 1, rounds + 1):

        def passed(step: int, r: int = r) -> None:
            """What ``train`` calls after each step, from 1 on: the k-th of the first round is where tickets start."""
            if step == k and not kept:  # r = 1 and t = k: line 7
                kept.append(plain_state(net))
            if after is not None:
                after(r, step)

        if r > 1:
            begin_round(net, kept[0] if rewind else None)
        train(r, passed)
        if not kept:
            raise ValueError(f"train(1, passed) did not call passed({k}): call passed(t) after each step t, from 1 on")
        end_round(net)
        yield take_ticket(net, r, kept[0])


def plain_state(net: Relaxed) -> State:
    r"""A copy of the weights and buffers below the mask: :math:`\hat\theta`."""
    return {name: value.detach().clone() for name, value in net.net.state_dict().items()}


def begin_round(net: Relaxed, rewound: State | None = None) -> None:
    """What happens between rounds (line 3 of Algorithms 2 to 4): masks that know ``new_round()`` are reset; weights go
    back to ``rewound`` if it is given. Not called before the first round."""
    if rewound is not None:
        net.net.load_state_dict(rewound)
    for relaxation in net.relaxations:
        _call(relaxation, "new_round")


def end_round(net: Relaxed) -> None:
    """What a round ends with (Algorithm 3, line 9): masks that know ``end_round(weights)`` prune."""
    for relaxation in net.relaxations:
        _call(relaxation, "end_round", net.weights())


def _call(relaxation: nn.Module, verb: str, *args: Any) -> None:
    method = getattr(relaxation, verb, None)
    if method is not None:
        with torch.no_grad():
            method(*args)


def take_ticket(net: Relaxed, round: int, start: State) -> Ticket:
    """The mask as it is now, hardened, on the weights ``start``; warns of layers without a weight left."""
    names = [name for relaxation in net.relaxations for name in relaxation.names]  # type: ignore[union-attr]
    with torch.no_grad():
        # what hardening makes of ones is the mask, whatever kind of mask it is
        mask: Weights = {name: torch.ones_like(net.net.get_parameter(name)) for name in dict.fromkeys(names)}
        with warnings.catch_warnings(action="ignore", category=RemovedLayerWarning):  # said below, of any kind of mask
            for relaxation in net.relaxations:
                mask |= relaxation.harden(mask)  # type: ignore[operator]
    warn_of_removed_layers(mask)
    return Ticket(round, mask, start)


def freeze(net: Relaxed) -> Relaxed:
    """Train the mask alone: the weights below it get no gradient. What is found is a *supermask* (4.5.3)."""
    for parameter in net.net.parameters():
        parameter.requires_grad_(False)
    return net


class SequentialMask(ContinuousMask):
    r"""Sequential CS (4.5.5): each round removes a fixed share of what is left, the entries with the lowest ``s``.

    Within a round it is a :class:`ContinuousMask`. At its end the share ``rate`` of the remaining entries with the
    lowest ``s`` is removed for good (:math:`s = -\infty`); all others are kept, whatever their sign, and start the next
    round from ``s_init``. (The thesis does not say where they restart. From :math:`\min(\beta s, s_\mathrm{init})`,
    Algorithm 2's line, they would stay suppressed, and sparsity would not be the share asked for.)

    Args:
        rate: share removed a round, in (0, 1). The thesis takes 0.2.
        s_init: 0 in the thesis.
        **options: as for :class:`ContinuousMask`.
    """

    def __init__(self, rate: float = 0.2, s_init: float = 0.0, **options: Any) -> None:
        super().__init__(s_init, **options)
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie between 0 and 1, not {rate}: the thesis removes 0.2 a round")
        self.rate = rate

    def options(self) -> dict[str, Any]:
        """Those of :class:`ContinuousMask`, and the rate."""
        return super().options() | {"rate": self.rate}

    def hard(self) -> Tensor:
        """``(d,)`` 1 for every entry that no round has removed."""
        mask = (self.s.detach() > -math.inf).to(self.s.dtype)
        return mask / self._start if self.variant == "reference" else mask

    def end_round(self, weights: Weights) -> None:
        """Remove the lowest entries."""
        left = torch.nonzero(self.s.detach() > -math.inf).flatten()
        lowest = self.s.detach()[left].argsort(stable=True)[: round(self.rate * len(left))]
        self.s[left[lowest]] = -math.inf

    def new_round(self) -> None:
        """What is left starts anew."""
        with torch.no_grad():
            self.s.masked_fill_(self.s > -math.inf, self.s_init)
            self.beta.fill_(1.0)
