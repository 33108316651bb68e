"""The data of the book, each set whole in one tensor: ``load("cifar10-mini", "train")``."""

from __future__ import annotations

import hashlib
import os

from lab.utils.errors import LabError

from . import cifar10 as full
from . import cifar10_mini as mini
from . import cifar100 as hundred
from . import shortest_paths as grids
from . import text
from . import tiny_imagenet as tiny
from . import translation as parallel
from .cifar10 import load_cifar10
from .cifar10_mini import build_mini, load_cifar10_mini, load_cifar10_mini_halved
from .cifar100 import load_cifar100
from .download import fetch
from .images import Images, data_root
from .tiny_imagenet import load_tiny_imagenet

__all__ = [
    "CLASSES",
    "NAMES",
    "SIDE",
    "Images",
    "build_mini",
    "checksum",
    "data_root",
    "fetch",
    "load",
    "load_cifar10",
    "load_cifar10_mini",
    "load_cifar100",
    "load_tiny_imagenet",
]

NAMES = ("cifar10", "cifar10-mini", mini.HALVED, "cifar100", tiny.NAME)

CLASSES = {
    "cifar10": 10, "cifar10-mini": 10, mini.HALVED: 10, "cifar100": 100, tiny.NAME: 200, "imagenet": 1000,
}  # fmt: skip
"""How many classes a set of images tells apart: what a network's last layer wants to know before any image is read."""

SIDE = {"cifar10": 32, "cifar10-mini": 32, mini.HALVED: 16, "cifar100": 32, tiny.NAME: 32, "imagenet": 224}
"""Pixels a side of the images that a network sees."""

IMAGENET = hashlib.sha256(b"ILSVRC 2012: 1281167 training images, 50000 validation images, 1000 classes").hexdigest()
"""Identity of ImageNet as its publishers count it: a million files are not hashed. See :mod:`lab.training.imagenet`."""

DRAWN = ("paths",)
"""Sets that are no files: :mod:`lab.datasets.shortest_paths` draws them from a seed."""


def load(name: str, split: str, root: str | os.PathLike[str] | None = None) -> Images:
    """One split, ``"train"`` or ``"test"``, of the set ``name`` (one of ``NAMES``), verified; else LabError.

    ``root`` is the data folder (default: the environment's ``LAB_DATA``, else ``data/`` of this checkout).
    """
    _known(name)
    if split not in ("train", "test"):
        raise LabError(f"unknown split {split!r} of {name}: choose train or test")
    if name == "cifar100":
        return load_cifar100(root, split)
    if name == tiny.NAME:
        return load_tiny_imagenet(root, split)
    if name == mini.HALVED:
        return load_cifar10_mini_halved(split, root)
    return load_cifar10(root, split) if name == "cifar10" else load_cifar10_mini(split, root)


def checksum(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """A hex digest that identifies the set's content, without reading an image: for the full sets, without the data.

    Of the drawn set ``"paths"`` it is what the generator draws. Also of :mod:`lab.datasets.text`,
    :mod:`lab.datasets.translation` and ImageNet.
    """
    if name in DRAWN:
        return grids.checksum()
    if name in text.TEXTS:
        return text.checksum(name)
    if name in parallel.CORPORA:
        return parallel.checksum(name)
    if name == "imagenet":
        return IMAGENET
    _known(name)
    if name == "cifar100":
        return hundred.checksum()
    if name == tiny.NAME:
        return tiny.checksum()
    return full.checksum() if name == "cifar10" else mini.checksum(root, name)


def _known(name: str) -> None:
    if name not in NAMES:
        raise LabError(f"unknown data set {name!r}: choose one of {', '.join(NAMES)}")
