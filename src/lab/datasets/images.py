"""What a data set is here: all its images in one uint8 tensor, and where the data folder lies."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lab.utils.files import folder, nowhere


@dataclass(frozen=True, eq=False)
class Images:
    """One split of a set of colour images, whole and undecorated, so that it can live on the device it is used on.

    ``images`` is uint8 (N, 3, H, W), 32x32 pixels but for ``cifar10-mini-16``, and ``labels`` int64 (N,);
    ``classes[label]`` is a label's name. ``mean`` and ``std`` are float32 (3,), a channel's mean and standard deviation
    over all pixels of the *training* split of this same set, on the scale where a raw value of 255 is 1: the test split
    carries them too, and the mini set has its own. They are sums of integers, divided once, hence the same bits on
    every machine. ``checksum`` identifies the set's content (both splits), wherever its files lie and however they are
    encoded.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    name: str
    checksum: str

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Images:
        """The same split with its tensors on ``device``."""
        moved = {key: getattr(self, key).to(device) for key in ("images", "labels", "mean", "std")}
        return replace(self, **moved)


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each channel of uint8 (N, 3, H, W), float32 (3,), on the 0..1 scale."""
    values = torch.arange(256)
    mean, std = [], []
    for channel in images.unbind(1):
        counts = torch.bincount(
            channel.flatten(), minlength=256
        )  # integers, so no order of summation changes the result
        n, total, squares = channel.numel(), int((counts * values).sum()), int((counts * values**2).sum())
        mean.append(total / n / 255)
        std.append(math.sqrt(n * squares - total * total) / n / 255)
    return torch.tensor(mean), torch.tensor(std)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds the data sets: ``root``, else the variable ``LAB_DATA``, else this checkout's ``data/``."""
    return folder("LAB_DATA") if root is None else Path(root)


def shown(path: Path) -> str:
    """``path`` as an error prints it: relative to the current folder where it lies below it, and with a link that leads
    nowhere."""
    if lost := nowhere(path):
        return f"{path} ({lost})"
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
