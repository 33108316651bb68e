"""Iterative Magnitude Pruning (IMP; Frankle and Carbin, 2019; Algorithm 3): a mask that is pruned each round."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from principled.relax import Where
from principled.reweighted import Weights

from .magnitude import MagnitudeMask


class IterativeMagnitude(MagnitudeMask):
    """Each round removes the smallest magnitudes among the weights that are left.

    Use it with :func:`principled.tickets.ticket_search`: ``rewind=True`` is IMP, ``rewind=False`` IMP-C ("continued").

    Args:
        rate: share of what is left that a round removes, in (0, 1): one number, then all masked layers are ranked
            together (4.3.3: 0.2); or a number for each type of layer, then every layer is ranked by itself
            (4.5.4: ``{nn.Conv2d: 0.15, nn.Linear: 0.2}``).
        where: which weights are masked, as for :class:`principled.ContinuousMask`.

    Raises:
        ValueError: a rate outside (0, 1), or a masked layer whose type has none.
    """

    def __init__(self, rate: float | Mapping[type[nn.Module], float] = 0.2, where: Where | None = None) -> None:
        super().__init__(where)
        for value in rate.values() if isinstance(rate, Mapping) else [rate]:
            if not 0 < value < 1:
                raise ValueError(
                    f"rate must lie between 0 and 1, not {value}: the thesis removes 0.2 of the rest a round"
                )
        self.rate = rate

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Read the zeros, and each layer's rate."""
        super().bind(net, weights)
        if isinstance(self.rate, Mapping):
            owners = {name: net.get_submodule(name.rpartition(".")[0]) for name in self.names}
            self._rates = {}
            for name, owner in owners.items():
                rates = [rate for kind, rate in self.rate.items() if isinstance(owner, kind)]
                if not rates:
                    raise ValueError(f"rate: none is given for {name}, a {type(owner).__name__}")
                self._rates[name] = rates[0]

    @torch.no_grad()
    def end_round(self, weights: Weights) -> None:
        """Algorithm 3, line 9. ``weights`` are the effective ones of the end of the round."""
        flat = torch.cat([weights[name].flatten() for name in self.names]).abs()
        sizes = [math.prod(self._shapes[name]) for name in self.names]
        groups = [(flat, self.mask, self.rate)]
        if isinstance(self.rate, Mapping):
            rates = [self._rates[name] for name in self.names]
            groups = list(zip(flat.split(sizes), self.mask.split(sizes), rates, strict=True))
        for magnitude, mask, rate in groups:
            left = torch.nonzero(mask).flatten()
            smallest = magnitude[left].argsort(stable=True)[: round(rate * len(left))]  # tau of those that remain
            mask[left[smallest]] = 0.0  # `split` gives views: this writes into the one vector
