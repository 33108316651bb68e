"""ImageNet (ILSVRC 2012) from a folder of yours, through torchvision: ``imagenet/train/<class>/*.JPEG`` and
``imagenet/val/...``.

It is the one set of the book that does not fit into a tensor, hence a loader with worker processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lab.datasets.batches import chance
from lab.datasets.images import data_root, shown
from lab.utils.errors import LabError

from .classification import Labelled
from .device import autocast
from .interfaces import Config

REMEDY = "unpack ILSVRC 2012 there as train/<class>/*.JPEG and val/<class>/*.JPEG"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# For the lighting noise: eigenvectors (rows: R, G, B) times eigenvalues of the pixels' covariance
# (Krizhevsky et al., 2012)
LIGHT = (
    (-0.5675 * 0.2175, 0.7192 * 0.0188, 0.4009 * 0.0045),
    (-0.5808 * 0.2175, -0.0045 * 0.0188, -0.8140 * 0.0045),
    (-0.5836 * 0.2175, -0.6948 * 0.0188, 0.4203 * 0.0045),
)


def folders(root: str | os.PathLike[str] | None = None, size: int = 224) -> tuple[Any, Any]:
    """Training and validation images as torchvision data sets, augmented as 6.3.1 says (Gross and Wilber, 2016).

    Training: a crop of random size and shape rescaled bicubically to ``size``, brightness, contrast and saturation
    changed by up to 0.4, lighting noise of 0.1, mirrored half of the time. Validation: the shorter side to 256 / 224 of
    ``size``, the centre of it. LabError if the folder is not there or its two halves have different classes.
    """
    from lab.utils.vision import torchvision

    v2 = import_module("torchvision.transforms.v2")  # a submodule that torchvision does not import by itself
    folder = data_root(root) / "imagenet"
    bicubic = torchvision.transforms.InterpolationMode.BICUBIC
    to_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    train = v2.Compose([
        v2.RandomResizedCrop(size, interpolation=bicubic), v2.RandomHorizontalFlip(), *to_float,
        v2.ColorJitter(0.4, 0.4, 0.4), v2.Lambda(_lighting), v2.Normalize(MEAN, STD),
    ])  # fmt: skip
    val = v2.Compose(
        [
            v2.Resize(size * 256 // 224, interpolation=bicubic),
            v2.CenterCrop(size),
            *to_float,
            v2.Normalize(MEAN, STD),
        ]
    )
    try:
        sets = tuple(torchvision.datasets.ImageFolder(folder / name, t) for name, t in (("train", train), ("val", val)))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LabError(f"ImageNet is not in {shown(folder)} ({error}): {REMEDY}") from None
    if sets[0].classes != sets[1].classes:
        raise LabError(f"train and val in {shown(folder)} have different classes: {REMEDY}")
    return sets[0], sets[1]


def _lighting(image: Tensor) -> Tensor:
    """AlexNet's noise: a random shift of the colour along the axes in which pixels vary."""
    return image + (torch.tensor(LIGHT) @ (0.1 * torch.randn(3))).view(3, 1, 1)


class ImageNet(Labelled):
    """ImageNet as a :class:`lab.training.Task`: cross-entropy, top-1 accuracy on the validation images.

    Args:
        device: to train on.
        training: ``batch_size``; ``workers`` (processes that decode, default one a core), ``size`` (pixels, default
            224).
        root: the data folder.

    Order and augmentation come from (seed, epoch, step): a batch is seeded where it is made, in whatever worker.
    """

    metric = "accuracy"

    def __init__(self, device: torch.device, training: Config, root: str | os.PathLike[str] | None = None) -> None:
        self.train_data, self.val_data = folders(root, training.get("size", 224))
        self.device, self.batch_size = device, training["batch_size"]
        self.workers = training.get("workers", os.cpu_count() or 1)
        self.steps = len(self.train_data) // self.batch_size
        if self.steps == 0:
            raise LabError(f"{len(self.train_data)} images are fewer than one batch of {self.batch_size}: lower it")

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled, augmented batches; a last, short one is dropped."""
        order = torch.randperm(len(self.train_data), generator=torch.Generator().manual_seed(chance(seed, epoch)))
        steps = [
            (chance(seed, epoch, step), chosen.tolist())
            for step, chosen in enumerate(order.split(self.batch_size)[: self.steps])
            if step >= start
        ]
        for moment, (images, labels) in zip(
            (m for m, _ in steps), self._loader(_Seeded(self.train_data, steps)), strict=True
        ):
            torch.manual_seed(moment)
            yield self._moved(images), labels.to(self.device, non_blocking=True)

    @torch.no_grad()
    def evaluate(self, net: nn.Module, among: int = 1) -> float:
        """Share of validation images whose class is ``among`` the likeliest (1: top-1 accuracy); the network's mode is
        restored.
        """
        training, right = net.training, torch.zeros((), device=self.device)
        net.eval()
        chosen = torch.arange(len(self.val_data)).split(self.batch_size)
        for images, labels in self._loader(_Seeded(self.val_data, [(0, c.tolist()) for c in chosen])):
            with autocast(self.device):
                outputs = net(self._moved(images))
            right += (outputs.topk(among).indices == labels.to(self.device)[:, None]).sum()
        net.train(training)
        return float(right) / len(self.val_data)

    def _loader(self, batches: Any) -> Any:
        pinned = self.device.type == "cuda"
        return torch.utils.data.DataLoader(batches, batch_size=None, num_workers=self.workers, pin_memory=pinned)

    def _moved(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)


class _Seeded(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Whole batches, each made from a seed of its own, so that no worker's history matters."""

    def __init__(self, data: Any, batches: list[tuple[int, list[int]]]) -> None:
        self.data, self.batches = data, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        moment, chosen = self.batches[number]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(moment)
            items = [self.data[i] for i in chosen]
        return torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])
