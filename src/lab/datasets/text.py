"""Text for character-level language models: a part of Moby-Dick that comes with the book, and the Penn Treebank if you
have it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lab.utils.errors import LabError

from .images import data_root, shown

SPLITS = ("train", "valid", "test")

SHA256 = {
    "moby-dick": {
        "train": "68bb479fc60b033799620c8eab92f8545e56584cb1318f1e969db3b4aad612c3",
        "valid": "e0de9a8fc9a1d3c4ad997a9c3c8d9beed8804b96795d221a3d41c70f2a43db60",
        "test": "cd52345ae2bf7596efb879ca2aade15e7285d8d66c467fc0fb758779e6e40e9e",
    },
    "ptb": {
        "train": "5145926136ee9aef6f359b267ac09cc8a920879cd71725de17c490dd111d2998",
        "valid": "fadf6277290823f881b7bf39b84e88536c87a859cd629dcfd1d2dfdef06097cf",
        "test": "c2f8c16a611595d31da5acdb7a61d50e7d5e95f6b9c05fceda5f5ddc4383e791",
    },
}
"""Of each split as it is read: lines stripped, each ended by one newline, UTF-8."""

FILES = {"moby-dick": "{}.txt", "ptb": "ptb.{}.txt"}

REMEDY = {
    "moby-dick": "run `git checkout data/moby-dick`",
    "ptb": "put Mikolov's ptb.train.txt, ptb.valid.txt and ptb.test.txt there; the book cannot ship them",
}

TEXTS = tuple(SHA256)


@dataclass(frozen=True, eq=False)
class Text:
    """A text as characters: each split int64 (length,), positions in ``alphabet``, which is the training split's,
    sorted.

    The end of a line is a character. Of the Penn Treebank this gives what its character-level benchmark counts:
    5,017,482, 393,042 and 442,423 characters of 50 symbols (the benchmark's files write a space as ``_``).
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    alphabet: str
    name: str
    checksum: str

    def to(self, device: torch.device | str) -> Text:
        """The same text with its tensors on ``device``."""
        return replace(self, **{split: getattr(self, split).to(device) for split in SPLITS})

    def decode(self, codes: Tensor) -> str:
        """The characters of ``codes``."""
        return "".join(self.alphabet[i] for i in codes.tolist())


def load_text(name: str, root: str | os.PathLike[str] | None = None) -> Text:
    """``"moby-dick"``, embedded, or ``"ptb"``, from files of yours below ``ptb/`` of the data folder; verified, else
    LabError.

    ``root`` is the data folder (default: the environment's ``LAB_DATA``, else ``data/`` of this checkout).
    """
    _known(name)
    folder = data_root(root) / name
    splits = {split: _read(folder / FILES[name].format(split), name, split) for split in SPLITS}
    alphabet = "".join(sorted(set(splits["train"])))
    return Text(
        **{k: encode(v, alphabet) for k, v in splits.items()}, alphabet=alphabet, name=name, checksum=checksum(name)
    )


def encode(text: str, alphabet: str) -> Tensor:
    """Positions in ``alphabet``, int64 (length,). LabError for a character that it lacks."""
    number = {character: i for i, character in enumerate(alphabet)}
    if unknown := sorted(set(text) - set(alphabet)):
        raise LabError(f"the text has {unknown[0]!r}, which the training text's alphabet of {len(alphabet)} lacks")
    return torch.tensor([number[character] for character in text])


def checksum(name: str) -> str:
    """Identity of the text, known without the files."""
    _known(name)
    return hashlib.sha256(
        "\n".join(f"{digest}  {split}" for split, digest in SHA256[name].items()).encode()
    ).hexdigest()


def _known(name: str) -> None:
    if name not in TEXTS:
        raise LabError(f"unknown text {name!r}: choose one of {', '.join(TEXTS)}")


def _read(path: Path, name: str, split: str) -> str:
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise LabError(f"{shown(path)} is missing: {REMEDY[name]}") from None
    except (OSError, ValueError) as error:
        raise LabError(f"{shown(path)} cannot be read ({error}): {REMEDY[name]}") from None
    text = "".join(f"{line.strip()}\n" for line in lines)
    if hashlib.sha256(text.encode()).hexdigest() != SHA256[name][split]:
        raise LabError(f"{shown(path)} is not the text that it should be (SHA-256 differs): {REMEDY[name]}")
    return text
