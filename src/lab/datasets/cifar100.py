"""CIFAR-100 through torchvision, which downloads and verifies it; here it becomes one tensor a split, as CIFAR-10
is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from lab.utils.errors import LabError

from .images import Images, data_root, shown, statistics

MD5 = {  # of the three published files: what "CIFAR-100" means here
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
REMEDY = "run `python -m lab data cifar100` on a machine with network, and copy the folder"


def cifar100_folder(root: str | os.PathLike[str] | None = None) -> Path:
    return data_root(root) / "cifar100"


def checksum() -> str:
    """Identity of the set: known without the data, since the files' MD5 are."""
    return hashlib.sha256("\n".join(f"{digest}  {name}" for name, digest in MD5.items()).encode()).hexdigest()


def load_cifar100(root: str | os.PathLike[str] | None = None, split: str = "train") -> Images:
    """One split, 50,000 images (``"train"``) or 10,000 (``"test"``), labelled with the 100 fine classes, in file order.

    The files are torchvision's, below ``cifar100/`` of the data folder; it checks their MD5 on every load. Raises
    LabError with the remedy when one is missing or altered.
    """
    train = _opened(cifar100_folder(root), train=True)
    mean, std = statistics(_images(train))
    chosen = train if split == "train" else _opened(cifar100_folder(root), train=False)
    labels = torch.tensor(chosen.targets, dtype=torch.int64)
    return Images(_images(chosen), labels, tuple(chosen.classes), mean, std, "cifar100", checksum())


def fetch(root: str | os.PathLike[str] | None = None) -> Path:
    """Download what is missing, verified; the folder that holds it. LabError if the host cannot be reached."""
    folder = cifar100_folder(root)
    _opened(folder, train=True, download=True)
    return folder


def _opened(folder: Path, train: bool, download: bool = False) -> Any:
    from lab.utils.vision import torchvision  # here, because its import takes longer than all of ours

    try:
        return torchvision.datasets.CIFAR100(folder, train=train, download=download)
    except OSError as error:
        raise LabError(f"CIFAR-100 could not be fetched into {shown(folder)} ({error}): {REMEDY}") from None
    except RuntimeError:  # torchvision's word for files that are missing or have another MD5
        raise LabError(f"CIFAR-100 is not in {shown(folder)}, or its files are altered: {REMEDY}") from None


def _images(opened: Any) -> torch.Tensor:
    """uint8 (N, 32, 32, 3), as torchvision has them, to (N, 3, 32, 32)."""
    return torch.from_numpy(opened.data).permute(0, 3, 1, 2).contiguous()
