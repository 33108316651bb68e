"""Weights on given grids that go on learning: how BSQ fine-tunes what it has found."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from principled.relax import Relaxation, Weights, select

from .quantizers import round_through


class FixedGrid(Relaxation):
    """Each tensor's weights are whole multiples of its unit, at most 2**bits - 1 of them; straight-through estimates.

    Args:
        grid: ``{name: (unit, bits)}``; with 0 bits a tensor is zero for good.
    """

    unit: Tensor
    bits: Tensor

    def __init__(self, grid: Mapping[str, tuple[float, int]]) -> None:
        super().__init__()
        self._grid = dict(grid)

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self.names = tuple(select(net, list(self._grid)))
        like = weights[self.names[0]]
        self.register_buffer("unit", torch.tensor([self._grid[n][0] for n in self.names]).to(like))
        self.register_buffer("bits", torch.tensor([self._grid[n][1] for n in self.names], device=like.device))

    def grid(self) -> dict[str, tuple[float, int]]:
        """Unit and bits of each tensor."""
        return dict(zip(self.names, zip(self.unit.tolist(), self.bits.tolist(), strict=True), strict=True))

    def forward(self, weights: Weights) -> Weights:
        found = {}
        for name, unit, most in zip(self.names, self.unit, 2.0**self.bits - 1, strict=True):
            steps = round_through(weights[name] / unit)
            found[name] = torch.maximum(torch.minimum(steps, most), -most) * unit
        return found
