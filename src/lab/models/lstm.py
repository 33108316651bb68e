"""The character-level language model of Section 6.3.2: Merity et al.'s (2018) three LSTM layers with their dropouts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

State = list[tuple[Tensor, Tensor]]


def locked_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of (T, N, C) with one mask for all T steps, so that a unit is off for the whole window."""
    return x * F.dropout(x.new_ones(1, *x.shape[1:]), p) if training and p else x


class CharLSTM(nn.Module):
    """Characters (T, N), int64, to the logits of each next one (T, N, symbols).

    An embedding of ``embedding`` numbers, ``layers`` LSTMs of ``units``, ``units``, ..., ``embedding``, and a linear
    layer that shares the embedding's weights. With 1000 units and 50 symbols: 13,787,650 parameters, as published.

    Args:
        symbols: size of the alphabet.
        units: hidden units of each layer but the last.
        embedding: numbers a character becomes, and the last layer's units (tied weights). Merity et al. have 200.
        layers: 3 in the thesis.
        dropout: of the embedded input, between layers, of the last output, and of the recurrent weights (DropConnect);
            the published 0.1, 0.25, 0.1 and 0.5. The first three keep their mask over a window.
        init: embeddings start uniform within this, 0.1 as published. A network of few units and steps wants more: three
            narrow layers pass so little of 0.1 on that nothing is learned for hundreds of steps.
        batch: sequences side by side; the state that is carried from one window to the next is a buffer of that size.
    """

    carried: Tensor

    def __init__(
        self, symbols: int, units: int = 300, embedding: int = 200, layers: int = 3,
        dropout: tuple[float, float, float, float] = (0.1, 0.25, 0.1, 0.5), init: float = 0.1, batch: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        self.widths = [units] * (layers - 1) + [embedding]
        self.dropout = dropout
        self.embedding = nn.Embedding(symbols, embedding)
        self.layers = nn.ModuleList(nn.LSTM(i, o) for i, o in zip([embedding, *self.widths], self.widths, strict=False))
        self.bias = nn.Parameter(torch.zeros(symbols))
        nn.init.uniform_(self.embedding.weight, -init, init)
        self.register_buffer("carried", torch.zeros(2, batch, sum(self.widths)))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits, and the state after the last step. Without ``state`` the sequence starts anew."""
        into, between, out, recurrent = self.dropout
        h = locked_dropout(self.embedding(x), into, self.training)
        after: State = []
        for i, layer in enumerate(self.layers):
            weights = {"weight_hh_l0": F.dropout(layer.weight_hh_l0, recurrent, self.training)}
            given = None if state is None else tuple(s[None] for s in state[i])
            h, (last, cell) = functional_call(layer, weights, (h, given))
            after.append((last[0], cell[0]))
            h = locked_dropout(h, out if layer is self.layers[-1] else between, self.training)
        return F.linear(h, self.embedding.weight, self.bias), after

    def carry(self, x: Tensor, fresh: bool) -> Tensor:
        """Logits of a training window, which goes on where the one before ended; ``fresh``: the text begins anew."""
        parts = [
            part.split(self.widths, -1) for part in self.carried.clone()
        ]  # the backward pass needs them as they were
        logits, after = self(x, None if fresh else list(zip(*parts, strict=True)))
        joined = [torch.cat([pair[i] for pair in after], -1) for i in range(2)]
        self.carried.copy_(torch.stack(joined).detach())
        return logits
