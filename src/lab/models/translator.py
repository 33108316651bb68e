"""The encoder-decoder Transformer of Section 5.3.2, in the form and the sizes of fairseq's ``transformer_iwslt_de_en``.

Source: Vaswani et al., "Attention Is All You Need", 2017.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Translator(nn.Module):
    """Six encoder and six decoder layers that normalise after each part; sinusoidal positions, output weights tied to
    the target embedding.

    Args:
        source, target: sizes of the vocabularies. With fairseq's 8,848 and 6,632 it has fairseq's 39,469,056
        parameters. width, heads, inner, layers, dropout: fairseq's for IWSLT'14 by default. As in its recipe
        ``dropout`` acts on
            embeddings and on what each part adds; attention weights and activations are not dropped.
        padding: the symbol that fills short sentences, of both vocabularies.
    """

    def __init__(
        self, source: int, target: int, width: int = 512, heads: int = 4, inner: int = 1024, layers: int = 6,
        dropout: float = 0.3, padding: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width, self.padding, self.dropout = width, padding, dropout
        self.source, self.target = (nn.Embedding(size, width, padding_idx=padding) for size in (source, target))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, heads, inner, dropout, batch_first=True),
            layers,
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, heads, inner, dropout, batch_first=True), layers
        )
        for layer in (*self.encoder.layers, *self.decoder.layers):
            layer.dropout.p = 0.0  # that between the two linear maps
            for part in layer.children():
                if isinstance(part, nn.MultiheadAttention):
                    part.dropout = 0.0
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)  # layers are copies of one: here each gets its own start
        for embedding in (self.source, self.target):
            nn.init.normal_(embedding.weight, 0.0, width**-0.5)
            nn.init.zeros_(embedding.weight[padding].detach())

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Sentences (N, S) of symbols to (N, S, width), and where their padding is, (N, S)."""
        empty = source == self.padding
        return self.encoder(self._embed(source, self.source), src_key_padding_mask=empty), empty

    def decode(self, memory: Tensor, empty: Tensor, target: Tensor) -> Tensor:
        """Logits (N, T, vocabulary) of what follows each of the symbols ``target`` (N, T), from what :meth:`encode`
        gave.
        """
        future = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool, device=target.device).triu(1)
        h = self.decoder(self._embed(target, self.target), memory, tgt_mask=future, memory_key_padding_mask=empty)
        return F.linear(h, self.target.weight)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (N, T, vocabulary) of what follows each of ``target`` (N, T), given ``source`` (N, S)."""
        return self.decode(*self.encode(source), target)

    def _embed(self, symbols: Tensor, embedding: nn.Embedding) -> Tensor:
        x = math.sqrt(self.width) * embedding(symbols) + positions(symbols.shape[1], self.width, symbols.device)
        return F.dropout(x, self.dropout, self.training)


def positions(length: int, width: int, device: torch.device) -> Tensor:
    """Sinusoids (length, width): the first half of the columns sines, the second cosines, as in fairseq."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=device) * -(math.log(10_000.0) / (half - 1)))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def kind(name: str) -> str:
    """What a weight of a :class:`Translator` is for: embeddings, attention or feed-forward."""
    if name.startswith(("source.", "target.")):
        return "embeddings"
    return "attention" if "attn" in name else "feed-forward"
