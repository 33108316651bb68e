"""4,000 definitions of WordNet and the kind of thing that each defines: the sentences of Chapter 8, and of no other."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.utils.errors import LabError

from .images import data_root, shown

KINDS = ("act", "animal", "artifact", "body", "communication", "food", "person", "plant")
SHA256 = {
    "train": "e38798998a5a15e75b4503479003848fcc2afe42d1c222a7ca3c0cd9bf2b0b05",
    "test": "3a12f871633bbf462b1abe69d42d0b9640296e667ce696cc900fbf8066c051b8",
}
REMEDY = "run `git checkout data/definitions`"
PAD, UNKNOWN = 0, 1


@dataclass(frozen=True)
class Sentences:
    """One split: ``texts[i]`` defines something of kind ``KINDS[labels[i]]``."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


def load_definitions(split: str, root: str | os.PathLike[str] | None = None) -> Sentences:
    """One split, ``"train"`` (3,200) or ``"test"`` (800), verified; else LabError."""
    if split not in SHA256:
        raise LabError(f"unknown split {split!r} of definitions: choose train or test")
    path = data_root(root) / "definitions" / f"{split}.tsv"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabError(f"{shown(path)} cannot be read ({error.strerror}): {REMEDY}") from None
    if hashlib.sha256(content).hexdigest() != SHA256[split]:
        raise LabError(f"{shown(path)} is damaged (it differs from what was published): {REMEDY}")
    rows = [line.split("\t") for line in content.decode().splitlines()]
    return Sentences(tuple(text for _, text in rows), tuple(KINDS.index(kind) for kind, _ in rows))


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.findall(r"[a-z]+", text.lower())


def vocabulary(sentences: Sentences, at_least: int = 3) -> dict[str, int]:
    """The words that occur ``at_least`` times, numbered from 2 in alphabetical order; 1 is any other."""
    counts = Counter(word for text in sentences.texts for word in words(text))
    return {word: number for number, word in enumerate(sorted(w for w, n in counts.items() if n >= at_least), 2)}


def encode(texts: tuple[str, ...], numbers: dict[str, int], length: int = 20) -> Tensor:
    """``(N, length)`` int64: each text's first words by number, padded with 0."""
    rows = [[numbers.get(word, UNKNOWN) for word in words(text)[:length]] for text in texts]
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
