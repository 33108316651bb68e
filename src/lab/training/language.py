"""Character-level language modelling as a :class:`lab.training.Task`: windows of a text, cross-entropy, bits per
character.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.datasets.batches import chance
from lab.datasets.text import Text
from lab.models.lstm import CharLSTM, State
from lab.utils.errors import LabError

from .device import autocast
from .interfaces import Config

STRANDS = 10
"""Of a held-out text, as Merity et al. evaluate: each begins with an empty state, so more of them cost a little."""


def strands(text: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``text`` cut into ``count`` equal pieces side by side, (length, count), and what follows each character. The rest
    is dropped.
    """
    length = (len(text) - 1) // count
    inputs, targets = (text[i : i + length * count].view(count, length).t() for i in (0, 1))
    return inputs, targets


class Characters:
    """A text cut into ``batch_size`` strands that are read side by side in windows of ``bptt`` characters.

    The state goes from window to window and gradients do not (truncated back-propagation). Each epoch starts every
    strand at its beginning with an empty state.

    Args:
        text: on the device to train on.
        training: ``batch_size`` and ``bptt``.
        held_out: ``"valid"`` to tune, ``"test"`` to report.
    """

    metric = "bpc"

    def __init__(self, text: Text, training: Config, held_out: str = "valid") -> None:
        self.size, self.bptt, self.device = training["batch_size"], training["bptt"], text.train.device
        self.steps = (len(text.train) - 1) // self.size // self.bptt
        if self.steps == 0:
            raise LabError(
                f"{text.name} has {len(text.train)} characters, too few for {self.size} strands of {self.bptt}: "
                "lower batch_size or bptt"
            )
        self.inputs, self.targets = strands(text.train, self.size)
        self.held_out = getattr(text, held_out)

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
        """Windows (T, N) of inputs and of what follows, in the text's order, and whether the text begins."""
        for step in range(start, self.steps):
            torch.manual_seed(chance(seed, epoch, step))
            window = slice(step * self.bptt, (step + 1) * self.bptt)
            yield self.inputs[window], self.targets[window], step == 0

    def loss(self, net: CharLSTM, batch: tuple[Tensor, Tensor, bool]) -> Tensor:
        """Cross-entropy in nats."""
        inputs, targets, fresh = batch
        with autocast(self.device):
            logits = net.carry(inputs, fresh)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def evaluate(self, net: nn.Module, window: int = 256) -> float:
        """Bits per character of the held-out text in :data:`STRANDS` strands, each read from its beginning; lower is
        better.
        """
        training, total = net.training, torch.zeros((), dtype=torch.float64, device=self.device)
        net.eval()
        state: State | None = None
        for inputs, targets in zip(*(part.split(window) for part in strands(self.held_out, STRANDS)), strict=True):
            with autocast(self.device):
                logits, state = net(inputs, state)
            total += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
        net.train(training)
        return float(total) / ((len(self.held_out) - 1) // STRANDS * STRANDS) / math.log(2)
