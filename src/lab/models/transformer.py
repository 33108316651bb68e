"""Soft sharing outside convolutions: a Transformer encoder whose layers draw on shared templates (the thesis's 3.6.2 suggests it)."""

from __future__ import annotations

from torch import nn

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
