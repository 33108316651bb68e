"""The data of the book, each set whole in one tensor: ``load("cifar10-mini", "train")``."""

from __future__ import annotations

import os

from lab.datasets import full, mini
from lab.datasets.download import fetch
from lab.datasets.full import cifar10
from lab.datasets.images import Images, data_root
from lab.datasets.mini import build_mini, cifar10_mini
from lab.errors import LabError

__all__ = ["NAMES", "Images", "build_mini", "checksum", "cifar10", "cifar10_mini", "data_root", "fetch", "load"]

NAMES = ("cifar10", "cifar10-mini")


def load(name: str, split: str, root: str | os.PathLike[str] | None = None) -> Images:
    """One split, ``"train"`` or ``"test"``, of the set ``name`` (one of ``NAMES``), verified; else LabError.

    ``root`` is the data folder (default: the environment's ``LAB_DATA``, else ``data/`` of this checkout).
    """
    _known(name)
    if split not in ("train", "test"):
        raise LabError(f"unknown split {split!r} of {name}: choose train or test")
    return cifar10(root, split) if name == "cifar10" else cifar10_mini(split, root)


def checksum(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """A hex digest that identifies the set's content, without reading an image: for the full set, without the data."""
    _known(name)
    return full.checksum() if name == "cifar10" else mini.checksum(root)


def _known(name: str) -> None:
    if name not in NAMES:
        raise LabError(f"unknown data set {name!r}: choose {' or '.join(NAMES)}")
