"""CIFAR-10 in its binary layout: six files of 10,000 records, each a label byte and 3072 bytes of planes (R, G, B)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from lab.utils.errors import LabError

from .images import Images, data_root, shown, statistics

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHA1 = {  # of the published binary batches: what "CIFAR-10" means here
    "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
}
PER_BATCH = 10_000  # images
RECORD = 1 + 3 * 32 * 32  # bytes
STAMP = "verified.json"  # beside the batches: the size and time of those whose SHA-1 was found right
REMEDY = "run `python -m lab data cifar10`"


def batches_folder(root: str | os.PathLike[str] | None = None) -> Path:
    return data_root(root) / "cifar10" / "cifar-10-batches-bin"


def batches(split: str) -> list[str]:
    return [name for name in SHA1 if (name == "test_batch") == (split == "test")]


def checksum() -> str:
    """Identity of the full set: known without the data, since the batches' SHA-1 are."""
    return hashlib.sha256("\n".join(f"{SHA1[name]}  {name}" for name in SHA1).encode()).hexdigest()


def load_cifar10(root: str | os.PathLike[str] | None = None, split: str = "train") -> Images:
    """One split of the full set, 50,000 images (``"train"``) or 10,000 (``"test"``), in the published order.

    Every batch is checked before it is used: its size on every load, its SHA-1 when its size or time is not the one
    remembered from the last check. Raises LabError with the remedy when a batch is missing, truncated or altered.
    """
    folder = batches_folder(root)
    train, labels = read(folder, "train")
    mean, std = statistics(train)
    images = train
    if split == "test":
        images, labels = read(folder, "test")
    return Images(images, labels, CLASSES, mean, std, "cifar10", checksum())


def read(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The verified images, uint8 (N, 3, 32, 32), and labels, int64 (N,), of the batches of one split."""
    names = batches(split)
    images = np.empty((len(names), PER_BATCH, 3, 32, 32), np.uint8)
    labels = np.empty((len(names), PER_BATCH), np.int64)
    before = stamp(folder)
    known = dict(before)
    for i, name in enumerate(names):
        records = np.frombuffer(_verified(folder / f"{name}.bin", known), np.uint8).reshape(PER_BATCH, RECORD)
        labels[i], images[i] = records[:, 0], records[:, 1:].reshape(PER_BATCH, 3, 32, 32)
    if known != before:
        write_stamp(folder, known)
    return torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.from_numpy(labels.reshape(-1))


def _verified(path: Path, known: dict[str, list[int]]) -> bytes:
    """The batch's bytes; ``known`` gains an entry when the SHA-1 had to be computed."""
    if not path.parent.is_dir():
        raise LabError(f"CIFAR-10 is not in {shown(path.parent)}: {REMEDY} (LAB_DATA names another data folder)")
    try:
        status, content = path.stat(), path.read_bytes()
    except FileNotFoundError:
        raise LabError(f"{shown(path)} is missing: {REMEDY}") from None
    except OSError as error:
        raise LabError(f"{shown(path)} cannot be read ({error.strerror}): mend its rights, or {REMEDY}") from None
    if len(content) != PER_BATCH * RECORD:
        raise LabError(f"{shown(path)} holds {len(content):,} bytes, not {PER_BATCH * RECORD:,}: {REMEDY}")
    mark = [status.st_size, status.st_mtime_ns]
    if known.get(path.name) != mark:
        if hashlib.sha1(content).hexdigest() != SHA1[path.stem]:
            raise LabError(f"{shown(path)} is altered (its SHA-1 is not the published one): {REMEDY}")
        known[path.name] = mark
    return content


def stamp(folder: Path) -> dict[str, list[int]]:
    try:
        content = json.loads((folder / STAMP).read_bytes())
    except (OSError, ValueError):
        return {}  # no stamp, or a damaged one: the batches are simply checked again
    return content if isinstance(content, dict) else {}


def write_stamp(folder: Path, known: dict[str, list[int]]) -> None:
    new = folder / f".{STAMP}-{os.getpid()}"
    try:
        new.write_text(json.dumps(known, indent=1))
        os.replace(new, folder / STAMP)
    except OSError:  # a folder shared read-only is a good place for data; the next load checks again
        new.unlink(missing_ok=True)


def present(root: str | os.PathLike[str] | None = None) -> bool:
    """Whether all six batches are there and right."""
    known: dict[str, list[int]] = {}  # a stamp is no proof for someone who asks to fetch
    try:
        for name in SHA1:
            _verified(batches_folder(root) / f"{name}.bin", known)
    except LabError:
        return False
    return True
