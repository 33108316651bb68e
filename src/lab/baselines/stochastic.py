r"""Stochastic Sparsification (SS; Zhou et al., 2019) and its iterative form (ISS, Algorithm 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from principled.relax import Where
from principled.reweighted import Weights

from .vector_mask import VectorMask


class StochasticMask(VectorMask):
    r"""A binary mask :math:`m \sim \mathrm{Bernoulli}(\sigma(s))`, drawn anew at each step; its gradient goes straight
    through to :math:`\sigma(s)`.

    In evaluation mode the mask is drawn too: the method has no other network than a random one. SS is one round; ISS is
    :func:`principled.tickets.ticket_search` with this mask. On frozen weights (:func:`principled.tickets.freeze`) it
    looks for a supermask.

    Args:
        s_init: start of every mask variable. The thesis starts ISS at 1 (4.5.4).
        where: which weights carry a mask, as for :class:`principled.ContinuousMask`.

    Attributes:
        s: ``(d,)`` Parameter, all mask variables. It wants a rate of its own, by plain SGD: 100 for supermasks, 20 for
            ISS (4.3.3). A rate like the weights' hardly moves it (4.5.2).

    The penalty is :math:`\|\sigma(s)\|_1`. (Algorithm 4 prints :math:`\sigma(\beta s)`, but has no :math:`\beta`.)
    """

    def __init__(self, s_init: float = 0.0, where: Where | None = None) -> None:
        super().__init__(where)
        if not math.isfinite(s_init):
            raise ValueError(f"s_init must be a finite number, not {s_init}; the thesis starts at 1")
        self.s_init = float(s_init)
        self.register_parameter("s", None)

    def start(self, size: int, like: Tensor) -> None:
        """One entry of ``s`` for each weight."""
        self.s = nn.Parameter(torch.full((size,), self.s_init, dtype=like.dtype, device=like.device))

    def forward(self, weights: Weights) -> Weights:
        """Effective weights of one draw (Algorithm 4, line 5)."""
        chance = torch.sigmoid(self.s)
        drawn = (torch.rand_like(chance) < chance).to(chance.dtype)
        return self.scaled(weights, drawn + (chance - chance.detach()))  # drawn, to the last bit; chance's gradient

    def penalty(self) -> Tensor:
        """Expected number of weights kept, a 0-d tensor."""
        return torch.sigmoid(self.s).sum()

    def harden(self, weights: Weights) -> Weights:
        """One draw, for good (line 10)."""
        chance = torch.sigmoid(self.s.detach())
        return self.scaled(weights, torch.bernoulli(chance))

    def new_round(self) -> None:
        r"""Line 3: what has sunk below its start is removed for good, :math:`s = -\infty`."""
        with torch.no_grad():
            self.s.masked_fill_(self.s < self.s_init, -math.inf)

    def sparsity(self) -> float:
        """Expected share of pruned weights."""
        return 1 - float(torch.sigmoid(self.s.detach()).mean())
