"""Image classification as a :class:`lab.training.interfaces.Task`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.datasets import Images
from lab.datasets.batches import assemble, batches, draws, normalise
from lab.datasets.batches import chance as chance  # experiments look for it here
from lab.utils.errors import LabError

from . import distributed as ranks
from .device import autocast
from .interfaces import Config


@torch.no_grad()
def accuracy(net: nn.Module, data: Images, batch_size: int = 500) -> float:
    """Share of ``data`` that ``net`` classifies rightly, in evaluation mode; the mode it was in is restored."""
    training = net.training
    net.eval()
    right = torch.zeros((), device=data.images.device)
    with autocast(data.images.device):
        for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True):
            right += (net(normalise(images, data)).argmax(1) == labels).sum()
    net.train(training)
    return float(right) / len(data)


class Labelled:
    """Batches of inputs and their labels: a rank's part of a batch, and the loss, which outputs in float32 enter."""

    device: torch.device
    criterion = staticmethod(F.cross_entropy)

    def part(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """This rank's inputs and labels of a joint batch."""
        own = ranks.slice_of(len(batch[1]))
        return batch[0][own], batch[1][own]

    def loss(self, net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """:attr:`criterion` of the network's outputs and the labels."""
        inputs, labels = batch
        with autocast(self.device):
            outputs = net(inputs)
        return self.criterion(outputs.float(), labels)


class Classification(Labelled):
    """Images and labels: augmented batches, cross-entropy, accuracy on the test images (:class:`Task`).

    Args:
        data: training and test images, on the device to train on.
        training: the configuration's ``training`` part: ``batch_size``, and ``cutout``, the side of the square that is
            blanked out in each normalised image (default 0, none).
    """

    metric = "accuracy"

    def __init__(self, data: tuple[Images, Images], training: Config) -> None:
        self.train_data, self.test_data = data
        self.device = self.train_data.images.device
        self.batch_size, self.cutout = training["batch_size"], training.get("cutout", 0)
        self.steps = len(self.train_data) // self.batch_size
        if self.steps == 0:
            raise LabError(
                f"{self.train_data.name} has {len(self.train_data)} training images, fewer than one batch "
                f"of {self.batch_size}: lower batch_size"
            )

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :func:`batches`."""
        return batches(self.train_data, self.batch_size, seed, epoch, start, self.cutout)

    def draws(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        """See :func:`draws`."""
        return draws(self.train_data, self.batch_size, seed, epoch, start, self.cutout)

    def assemble(self, drawn: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """See :func:`assemble`."""
        return assemble(self.train_data, drawn, self.cutout)

    def evaluate(self, net: nn.Module) -> float:
        """Accuracy on the test images."""
        return accuracy(net, self.test_data)
