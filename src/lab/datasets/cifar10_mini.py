"""CIFAR-10 mini: 3,000 of CIFAR-10's images, embedded in the repository, so that a fresh clone trains on real data.

At 32x32 pixels, or at 16x16, where a ResNet-20 trains in under a third of the time: what two cores can afford many
times.
"""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lab.utils.errors import LabError

from . import cifar10 as full
from .files import scratch
from .images import Images, data_root, shown, statistics

HALVED = "cifar10-mini-16"
"""The same images at 16x16 pixels."""

PER_CLASS = {"train": 200, "test": 100}
COLUMNS = 50  # images in a row of a sheet
CHECKSUMS = "checksums.txt"
HEADER = """\
# SHA-256 of what each file holds, not of its bytes: for a sheet the pixels (image by image, each as planes R, G, B),
# for a list the rows of index and label as little-endian int64. A sheet encoded anew keeps its line.
"""
REMEDY = "run `git checkout data/cifar10-mini`, or rebuild it with `python -m lab data cifar10-mini`"


def mini_folder(root: str | os.PathLike[str] | None = None) -> Path:
    return data_root(root) / "cifar10-mini"


def load_cifar10_mini(split: str = "train", root: str | os.PathLike[str] | None = None) -> Images:
    """One split of the embedded set: each class's first 200 training (``"train"``) or 100 test images, in file order.

    What was decoded is checked against ``checksums.txt``, once as long as the files stay as they are. Raises LabError
    with the remedy when a file is missing or damaged.
    """
    folder = mini_folder(root)
    train, labels = read(folder, "train")
    mean, std = statistics(train)
    images = train
    if split == "test":
        images, labels = read(folder, "test")
    return Images(images, labels, full.CLASSES, mean, std, "cifar10-mini", checksum(root))


def load_cifar10_mini_halved(split: str = "train", root: str | os.PathLike[str] | None = None) -> Images:
    """One split of the embedded set at 16x16 pixels, each the mean of four, rounded; errors as
    :func:`cifar10_mini`'s."""
    whole = load_cifar10_mini("train", root)
    mean, std = statistics(halved(whole.images))
    if split == "test":
        whole = load_cifar10_mini("test", root)
    return replace(whole, images=halved(whole.images), mean=mean, std=std, name=HALVED, checksum=checksum(root, HALVED))


def halved(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, C, H, W) to (N, C, H/2, W/2): each pixel the mean of a 2x2 square, in integers, a half rounded up."""
    n, c, h, w = images.shape
    squares = images.view(n, c, h // 2, 2, w // 2, 2).sum((3, 5), dtype=torch.int16)
    return ((squares + 2) // 4).to(torch.uint8)


def checksum(root: str | os.PathLike[str] | None = None, name: str = "cifar10-mini") -> str:
    """Identity of the embedded set, or of its form at 16x16 pixels, from its ``checksums.txt`` alone."""
    lines = sorted(f"{digest}  {file}" for file, digest in _checksums(mini_folder(root)).items())
    if name == HALVED:
        lines.append(HALVED)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not folder.is_dir():
        raise LabError(f"CIFAR-10 mini is not in {shown(folder)}: {REMEDY} (LAB_DATA names another data folder)")
    try:
        lines = [line.split() for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
        digests = {name: digest for digest, name in lines}
    except FileNotFoundError:
        raise LabError(f"{shown(path)} is missing: {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{shown(path)} cannot be read ({error}): {REMEDY}") from None
    if sorted(digests) != sorted(f"{split}.{kind}" for split in PER_CLASS for kind in ("csv", "webp")):
        raise LabError(f"{shown(path)} is damaged (it does not list the four files): {REMEDY}")
    return digests


def read(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The verified images, uint8 (N, 3, 32, 32), and labels, int64 (N,), of one split."""
    files = (folder / CHECKSUMS, folder / f"{split}.webp", folder / f"{split}.csv")
    stamps = tuple((s.st_mtime_ns, s.st_size) for s in (file.stat() for file in files if file.is_file()))
    images, labels = _decoded(folder, split, stamps)
    return images.clone(), labels.clone()  # what a caller does to its own reaches nobody else


@lru_cache(maxsize=4)
def _decoded(folder: Path, split: str, stamps: tuple[tuple[int, int], ...]) -> tuple[torch.Tensor, torch.Tensor]:
    # Kept by the files' times and sizes: decoding takes as long as an epoch on a few hundred images.
    expected = _checksums(folder)
    sheet, table = folder / f"{split}.webp", folder / f"{split}.csv"
    path = table
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = np.array([line[:2] for line in csv.reader(file)][1:], np.int64)
        if _digest_rows(rows) != expected[table.name]:
            raise ValueError(f"it differs from {CHECKSUMS}")
        path = sheet
        images = _from_sheet(sheet, len(rows))
        if _digest_images(images) != expected[sheet.name]:
            raise ValueError(f"it differs from {CHECKSUMS}")
    except FileNotFoundError:
        raise LabError(f"{shown(path)} is missing: {REMEDY}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = " ".join(str(error).split())
        raise LabError(f"{shown(path)} is damaged ({why}): {REMEDY}") from None
    return torch.from_numpy(images), torch.from_numpy(rows[:, 1].copy())


def _from_sheet(path: Path, count: int) -> np.ndarray:
    height = -(-count // COLUMNS)
    with Image.open(path) as picture:
        if picture.size != (COLUMNS * 32, height * 32):
            raise ValueError(f"a sheet of {picture.size} pixels for {count} images")
        sheet = np.asarray(picture.convert("RGB"))
    tiles = sheet.reshape(height, 32, COLUMNS, 32, 3).transpose(0, 2, 4, 1, 3)
    return tiles.reshape(-1, 3, 32, 32)[:count].copy()


def _to_sheet(images: np.ndarray, path: Path) -> None:
    height = -(-len(images) // COLUMNS)
    tiles = np.zeros((height * COLUMNS, 3, 32, 32), np.uint8)
    tiles[: len(images)] = images
    sheet = tiles.reshape(height, COLUMNS, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(height * 32, COLUMNS * 32, 3)
    Image.fromarray(sheet).save(path, "WEBP", lossless=True, quality=100, method=6)  # the slowest and smallest


def _digest_images(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()


def _digest_rows(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8")).hexdigest()


def selection(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Positions of the first ``per_class`` images of each class, in file order: int64 (classes · per_class,)."""
    chosen = [np.flatnonzero(labels == c)[:per_class] for c in range(len(full.CLASSES))]
    return np.sort(np.concatenate(chosen))


def build_mini(root: str | os.PathLike[str] | None = None, *, per_class: dict[str, int] | None = None) -> Path:
    """Rebuild the embedded set from the full one; a split that already holds the same content keeps its files.

    ``per_class`` is the number of images of a class in each split (default: 200 and 100). Returns the folder. Raises
    LabError when the full set is not there.
    """
    folder, lines = mini_folder(root), []
    with scratch(folder) as work:
        for split, count in tqdm((per_class or PER_CLASS).items(), "CIFAR-10 mini", unit="split", disable=None):
            images, labels = (t.numpy() for t in full.read(full.batches_folder(root), split))
            index = selection(labels, count)
            images, rows = images[index], np.stack([index, labels[index]], 1)
            digests = {f"{split}.csv": _digest_rows(rows), f"{split}.webp": _digest_images(images)}
            lines += [f"{digest}  {name}\n" for name, digest in digests.items()]
            if _holds(folder, split, digests):
                continue
            _to_sheet(images, work / f"{split}.webp")
            with open(work / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(["index", "label", "class"])
                table.writerows([*row, full.CLASSES[row[1]]] for row in rows.tolist())
        (work / CHECKSUMS).write_text(HEADER + "".join(lines), "utf-8")
        folder.mkdir(exist_ok=True)
        for file in sorted(work.iterdir(), key=lambda f: f.name == CHECKSUMS):  # the checksums last
            os.replace(file, folder / file.name)
    return folder


def _holds(folder: Path, split: str, digests: dict[str, str]) -> bool:
    try:
        read(folder, split)
        return all(_checksums(folder)[name] == digest for name, digest in digests.items())
    except LabError:
        return False
