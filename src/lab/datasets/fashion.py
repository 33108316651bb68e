"""4,000 of Fashion-MNIST's photographs, embedded in the repository: the images of Chapter 8, and of no other."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import torch
from PIL import Image

from lab.utils.errors import LabError

from .images import Images, data_root, shown, statistics

CLASSES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
SHA256 = {
    "train": "68aadec2e3f3672ccec48b8f2ac0d995923eb6a2fa888bc5b4c0a74d8a761015",
    "test": "3d7f6d64869a3f2d1afe64ae33ffb9b20670a91b31e3bbf0657e3999ec7b35cf",
    "train labels": "7c78afd5154dd0ba56c47a3c78cdade80648caa2e64abeba358ff15e9114e784",
    "test labels": "6b25654537ff83dd6c40fe0a122c7778d8219b2a88ff02c36dbdd21152fdb075",
}
"""Of the decoded pixels, image by image, and of the labels, a byte each."""
COLUMNS, PIXELS = 50, 28
REMEDY = "run `git checkout data/fashion-mini`"


def load_fashion(split: str, root: str | os.PathLike[str] | None = None) -> Images:
    """One split, ``"train"`` (3,000) or ``"test"`` (1,000): uint8 (N, 1, 28, 28), verified; else LabError."""
    if split not in ("train", "test"):
        raise LabError(f"unknown split {split!r} of fashion-mini: choose train or test")
    train, labels = _read("train", root)
    mean, std = statistics(train)
    images = train
    if split == "test":
        images, labels = _read("test", root)
    return Images(images, labels, CLASSES, mean, std, "fashion-mini", SHA256["train"])


def _read(split: str, root: str | os.PathLike[str] | None) -> tuple[torch.Tensor, torch.Tensor]:
    path = data_root(root) / "fashion-mini" / f"{split}.webp"
    try:
        digits = path.with_suffix(".txt").read_text("ascii").strip()
        labels = np.array([int(digit) for digit in digits], np.uint8)
        with Image.open(path) as picture:
            sheet = np.asarray(picture.convert("L"))
        tiles = sheet.reshape(-1, PIXELS, COLUMNS, PIXELS).transpose(0, 2, 1, 3).reshape(-1, 1, PIXELS, PIXELS)
        images = np.ascontiguousarray(tiles)
    except FileNotFoundError as error:
        raise LabError(f"{shown(path.parent)} lacks {error.filename}: {REMEDY}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LabError(f"{shown(path)} is damaged ({' '.join(str(error).split())}): {REMEDY}") from None
    for what, content in ((split, images), (f"{split} labels", labels)):
        if hashlib.sha256(content).hexdigest() != SHA256[what]:
            raise LabError(f"{shown(path)} is damaged (the {what} differ from what was published): {REMEDY}")
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
