"""Tiny-ImageNet at 32x32: 200 of ImageNet's classes, 500 training and 50 validation images each, shrunk to CIFAR's
size.

The book's stand-in for ImageNet, and named as one wherever it is used: it asks for a large network and many classes, on
an afternoon's budget. It comes as one archive of JPEG files, which :func:`fetch` decodes once into a tensor a split.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from lab.utils.errors import LabError

from .cifar10 import stamp, write_stamp
from .files import scratch
from .images import Images, data_root, shown, statistics

NAME = "tiny-imagenet-32"
ARCHIVE = "tiny32_jpeg_train_val.tar.xz"
SHA256 = "2f3cf2a8b99dc75d32be6272efdd9183dea103398b67c706a57096f0a1a778bb"
"""Of the archive: what "Tiny-ImageNet at 32x32" means here. The decoded tensors may differ in a last bit between JPEG
libraries."""
COUNTS = {"train": 100_000, "test": 10_000}
"""Images of each split; the archive's ``val`` is the test split, since the published test images have no labels."""
SIDE = 32
MANIFEST = "manifest.json"
REMEDY = f"run `python -m lab data {NAME} --from FOLDER`, where FOLDER holds {ARCHIVE}"


def folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where the decoded set lies."""
    return data_root(root) / NAME


def checksum() -> str:
    """Identity of the set: known without the data, since the archive's SHA-256 is."""
    return SHA256


def load_tiny_imagenet(root: str | os.PathLike[str] | None = None, split: str = "train") -> Images:
    """One split, 100,000 images (``"train"``) or 10,000 (``"test"``), ordered by class and file name.

    Raises LabError with the remedy if a file is missing, cut short or altered.
    """
    path = folder(root) / f"{split}.safetensors"
    tensors = _verified(path)
    classes = tuple(json.loads((path.parent / MANIFEST).read_text())["classes"])
    return Images(
        tensors["images"], tensors["labels"], classes, tensors["mean"], tensors["std"], NAME, checksum()
    )  # fmt: skip


def fetch(root: str | os.PathLike[str] | None = None, source: str | os.PathLike[str] | None = None) -> Path:
    """Decode the archive that lies in the folder ``source`` (or is ``source``) into the data root; the folder that then
    holds the set.

    A set that is there and right is left alone; a new one appears whole or not at all. LabError: no archive, or another
    one.
    """
    target = folder(root)
    if _present(target):
        return target
    if source is None:
        raise LabError(f"Tiny-ImageNet at 32x32 is not in {shown(target)}, and no host is known that has it: {REMEDY}")
    path = Path(source)
    path = path / ARCHIVE if path.is_dir() else path
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LabError(f"{shown(path)} cannot be read ({error.strerror}): {REMEDY}") from None
    if digest != SHA256:
        raise LabError(f"{shown(path)} is not the expected archive (its SHA-256 differs): {REMEDY}")
    with scratch(target) as work:
        made = work / "decoded"
        made.mkdir()
        _decode(path, made)
        if target.exists():  # a set that was found damaged
            target.rename(work / "damaged")
        made.rename(target)
    return target


def _decode(path: Path, target: Path) -> None:
    pictures: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    lists: dict[str, str] = {}
    with (
        tarfile.open(path) as archive,
        tqdm(total=sum(COUNTS.values()), desc="Tiny-ImageNet", unit=" images", disable=None) as bar,
    ):
        for member in archive:
            name = Path(member.name).name
            if not member.isfile() or (content := archive.extractfile(member)) is None:
                continue
            if name.endswith(".JPEG"):
                of = "train" if member.name.startswith("train/") else "test"
                pictures[of].append((name, _pixels(content, member.name)))
                bar.update()
            elif name in ("wnids.txt", "words.txt", "val_annotations.txt"):
                lists[name] = content.read().decode()
    if missing := [name for name in ("wnids.txt", "words.txt", "val_annotations.txt") if name not in lists]:
        raise LabError(f"{shown(path)} has no {missing[0]}: {REMEDY}")
    wnids = sorted(lists["wnids.txt"].split())
    words = dict(line.split("\t", 1) for line in lists["words.txt"].splitlines() if "\t" in line)
    labels = {line.split("\t")[0]: line.split("\t")[1] for line in lists["val_annotations.txt"].splitlines()}
    numbers = {wnid: i for i, wnid in enumerate(wnids)}
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for split, images in pictures.items():
        if len(images) != COUNTS[split]:
            raise LabError(f"{shown(path)} holds {len(images):,} {split} images, not {COUNTS[split]:,}: {REMEDY}")
        chosen = [(numbers[labels[n] if split == "test" else n.split("_")[0]], n, pixels) for n, pixels in images]
        chosen.sort(key=lambda one: one[:2])
        tensors[split] = {
            "images": torch.from_numpy(np.stack([pixels for *_, pixels in chosen])).permute(0, 3, 1, 2).contiguous(),
            "labels": torch.tensor([label for label, *_ in chosen]),
        }
    mean, std = statistics(tensors["train"]["images"])
    digests = {}
    for split, content in tensors.items():
        file = target / f"{split}.safetensors"
        save_file(content | {"mean": mean, "std": std}, file)
        digests[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest = {"archive": SHA256, "files": digests, "classes": [words.get(w, w).split(",")[0] for w in wnids]}
    (target / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _pixels(content: IO[bytes], name: str) -> np.ndarray:
    """uint8 (32, 32, 3); a grey picture has three equal channels."""
    try:
        pixels = np.asarray(Image.open(BytesIO(content.read())).convert("RGB"))
    except OSError as error:
        raise LabError(f"{name} in {ARCHIVE} is no picture ({error}): {REMEDY}") from None
    if pixels.shape != (SIDE, SIDE, 3):
        raise LabError(
            f"{name} in {ARCHIVE} has {pixels.shape[1]}x{pixels.shape[0]} pixels, not {SIDE}x{SIDE}: {REMEDY}"
        )
    return pixels


def _verified(path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors; its digest is computed when its size or time is not the one remembered from the last
    check."""
    if not (path.parent / MANIFEST).is_file():
        raise LabError(
            f"Tiny-ImageNet at 32x32 is not in {shown(path.parent)}: {REMEDY} (LAB_DATA names another data folder)"
        )
    try:
        manifest = json.loads((path.parent / MANIFEST).read_text())
        status, known = path.stat(), stamp(path.parent)
        mark = [status.st_size, status.st_mtime_ns]
        if known.get(path.name) != mark:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != manifest["files"][path.name]:
                raise LabError(f"{shown(path)} is altered or cut short (its SHA-256 differs): {REMEDY}")
            write_stamp(path.parent, known | {path.name: mark})
        return dict(load_file(path))
    except FileNotFoundError:
        raise LabError(f"{shown(path)} is missing: {REMEDY}") from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise LabError(f"{shown(path)} cannot be read ({' '.join(str(error).split())[:80]}): {REMEDY}") from None


def _present(target: Path) -> bool:
    (target / "verified.json").unlink(missing_ok=True)  # a stamp is no proof for someone who asks to fetch
    try:
        for split in COUNTS:
            _verified(target / f"{split}.safetensors")
    except LabError:
        return False
    return True
