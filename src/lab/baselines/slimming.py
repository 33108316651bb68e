"""Network Slimming (Liu et al., 2017) with a scale for each weight instead of each channel, as in 4.4.1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from principled.relax import Where
from principled.reweighted import Weights

from .vector_mask import VectorMask


class ScaledWeights(VectorMask):
    """Each weight has a factor that an l1 penalty draws towards 0; :meth:`prune` removes the smallest.

    The factors start at 1, so that training starts from the plain network, and get no weight decay: together with the
    l1 penalty it does worse (4.4.1). The thesis's penalty strengths are 1e-5 for ResNet-20, 1e-6 for VGG-16.

    Attributes:
        scale: ``(d,)`` Parameter, all factors.
        kept: ``(d,)`` buffer, 0 for what is pruned.
    """

    kept: Tensor

    def __init__(self, where: Where | None = None) -> None:
        super().__init__(where)
        self.register_parameter("scale", None)
        self.register_buffer("kept", torch.ones(0))

    def start(self, size: int, like: Tensor) -> None:
        """All factors 1."""
        self.scale = nn.Parameter(torch.ones(size, dtype=like.dtype, device=like.device))
        self.kept = torch.ones_like(self.scale, requires_grad=False)

    def forward(self, weights: Weights) -> Weights:
        """Factors times weights; pruned ones are exact zeros."""
        return self.scaled(weights, self.scale * self.kept)

    def penalty(self) -> Tensor:
        """The l1 norm of the factors, a 0-d tensor."""
        return self.scale.abs().sum()

    @torch.no_grad()
    def prune(self, sparsity: float) -> None:
        """Remove the share ``sparsity``, in [0, 1), of all masked weights: those of the smallest factors."""
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, not {sparsity}")
        smallest = self.scale.abs().argsort(stable=True)[: round(sparsity * len(self.scale))]
        self.kept.fill_(1.0)
        self.kept[smallest] = 0.0
