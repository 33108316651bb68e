"""Soft sharing outside convolutions: a Transformer encoder whose layers draw on shared templates (the thesis's 3.6.2
suggests it).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from principled import Relaxed, SoftSharing


def encoder(layers: int = 6, width: int = 64, heads: int = 4, dropout: float = 0.1) -> nn.TransformerEncoder:
    """PyTorch's encoder, normalising first; sequences (N, T, width) to the same shape."""
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def shared_encoder(
    layers: int = 6, width: int = 64, heads: int = 4, templates: int | None = 2, dropout: float = 0.1
) -> Relaxed:
    """The same with four groups, found by shape: attention's two projections and the two of the feed-forward part.

    Biases and LayerNorm stay each layer's own.
    """
    net = encoder(layers, width, heads, dropout)
    return Relaxed(net, SoftSharing(templates=templates, where=lambda name, module, weight: weight.ndim > 1))


class PatchReader(nn.Module):
    """A classifier of images of 16x16 pixels, which ``body`` reads as a sequence of 16 patches of 4x4; images to 10
    scores.

    Args:
        body: sequences (N, 16, width) to the same shape, plain or relaxed.
        width: of the body.
    """

    def __init__(self, body: nn.Module, width: int = 64) -> None:
        super().__init__()
        self.patch, self.body, self.head = nn.Linear(48, width), body, nn.Linear(width, 10)
        self.place = nn.Parameter(torch.randn(16, width) / 8)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(F.unfold(x, 4, stride=4).mT)
        scores: Tensor = self.head(self.body(patches + self.place).mean(1))
        return scores
