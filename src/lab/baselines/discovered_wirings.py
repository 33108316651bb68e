"""Discovering Neural Wirings (DNW; Wortsman et al., 2019), for sparse networks of a fixed structure."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from principled.relax import Relaxation, Where, is_spatial_convolution, select
from principled.reweighted import Weights


class DiscoveredWirings(Relaxation):
    """Each layer uses its largest weights only; the others keep learning and come back when they outgrow a used one.

    The gradient reaches every weight as if all were used. So sparsity is the same from the first step to the last, and
    the same in each layer.

    Args:
        sparsity: share of zeros in every layer, in (0, 1); rounded to whole weights.
        where: which weights, as for :class:`principled.ContinuousMask`.
    """

    def __init__(self, sparsity: float, where: Where | None = None) -> None:
        super().__init__()
        if not 0 < sparsity < 1:
            raise ValueError(f"sparsity must lie between 0 and 1, not {sparsity}")
        self.sparsity = sparsity
        self.where: Where = is_spatial_convolution if where is None else where

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Nothing to create: the weights choose themselves."""
        self.names = tuple(select(net, self.where))

    def forward(self, weights: Weights) -> Weights:
        """Largest weights or 0, with the gradient of the weights."""
        return {name: _largest(weights[name], self.sparsity) for name in self.names}


def _largest(weight: Tensor, sparsity: float) -> Tensor:
    magnitude = weight.detach().abs()
    zeros = round(sparsity * magnitude.numel())
    if zeros == 0:
        return weight
    threshold = magnitude.flatten().kthvalue(zeros).values
    used = torch.where(magnitude > threshold, weight, 0).detach()
    return used + (weight - weight.detach())  # the value to the last bit, the gradient straight through
