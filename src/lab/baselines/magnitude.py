"""Magnitude pruning: once (Han et al., 2015), gradually (Zhu and Gupta, 2017), and the step that IMP repeats."""

from __future__ import annotations

import torch

from principled import KeepZeros
from principled.reweighted import Weights


def gradual_sparsity(progress: float, final: float) -> float:
    """Zhu and Gupta's cubic schedule from 0 to ``final``: much while there is much to remove, little at the end."""
    return final * (1 - (1 - min(max(progress, 0.0), 1.0)) ** 3)


class MagnitudeMask(KeepZeros):
    """A binary mask that :meth:`prune` sets from the weights' magnitudes, ranked over all masked layers together."""

    @torch.no_grad()
    def prune(self, weights: Weights, sparsity: float) -> None:
        """Mask the smallest effective magnitudes, so that a share ``sparsity`` of all masked weights is zero.

        Args:
            weights: effective weights by name, ``relaxed.weights()``: what is pruned counts as zero and stays pruned.
            sparsity: wanted share of zeros, in [0, 1).
        """
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, not {sparsity}")
        magnitude = torch.cat([weights[name].flatten() for name in self.names]).abs()
        # by rank, not by a threshold: ties among exact zeros must not remove more than was asked for
        smallest = magnitude.argsort(stable=True)[: round(sparsity * magnitude.numel())]
        self.mask.fill_(1.0)
        self.mask[smallest] = 0.0
