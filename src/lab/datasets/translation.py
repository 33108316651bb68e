"""German-English sentence pairs: emoji names that come with the book; Multi30k and IWSLT'14 if you have them.

The thesis translates IWSLT'14. Its files cannot be shipped; Multi30k stands in for it where they are not at hand, and
for a first build the short names of emoji in the Unicode CLDR do: real, translated by people, permissively licensed,
tiny.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.utils.errors import LabError

from .files import scratch
from .images import data_root, shown

SPLITS = ("train", "valid", "test")
Pair = tuple[str, str]
"""German, English."""

EMOJI = {
    "train": "a4b3fbddd4bcbba5775cc4b45da29ae8f96f70937aa6d5e43f27162017dc6f32",
    "valid": "fa5ecb31257a18809c16ab5bfc69b03454f5d1a75feedaf885218057f337f061",
    "test": "87763fddb3a2d347ce695aafecb8b486e4c70e1f69d9678097463ac7ce3687c9",
}
MULTI30K = {
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
}
"""SHA-256 of the uncompressed files."""

IWSLT14 = {"train": 160_239, "valid": 7_283, "test": 6_750}
"""Pairs of each split as fairseq prepares them (the thesis's 5.3.1 states the last two). Its tokenizer's releases
differ in some bytes, so the counts are verified and no checksum."""

CORPORA = ("emoji-names", "multi30k", "iwslt14")
REMEDY = {
    "emoji-names": "run `git checkout data/emoji-names`",
    "multi30k": "run `python -m lab data multi30k --from FOLDER` with train, val and test_2016_flickr as .de and "
    ".en, plain or .gz",
    "iwslt14": "run `python -m lab data iwslt14 --from FOLDER` with the folder that fairseq's prepare-iwslt14.sh made",
}


@dataclass(frozen=True)
class Corpus:
    """Pairs (German, English) of each split. ``tokenized``: words are subwords already, joined again at ``@@ ``."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    name: str
    checksum: str
    tokenized: bool = False


def load_parallel(name: str, root: str | os.PathLike[str] | None = None) -> Corpus:
    """One of :data:`CORPORA`, verified; else LabError. ``root``: as for :func:`lab.datasets.load`."""
    _known(name)
    folder = data_root(root) / name
    return Corpus(**_read(name, folder), name=name, checksum=checksum(name), tokenized=name == "iwslt14")


def checksum(name: str) -> str:
    """Identity of the corpus, known without its files."""
    _known(name)
    checksums = {"emoji-names": EMOJI, "multi30k": MULTI30K, "iwslt14": IWSLT14}[name]
    return hashlib.sha256("\n".join(f"{name} {value} {part}" for part, value in checksums.items()).encode()).hexdigest()


def fetch(name: str, root: str | os.PathLike[str] | None, folder: str | os.PathLike[str] | None) -> Path:
    """Copy a corpus from ``folder`` into the data folder, verified, whole or not at all; the folder that it is in
    then."""
    _known(name)
    target = data_root(root) / name
    if name == "emoji-names" or target.is_dir():
        load_parallel(name, root)
        return target
    if folder is None:
        raise LabError(f"nothing is downloaded for {name}: {REMEDY[name]}")
    source = Path(folder)
    _read(name, source)
    names = MULTI30K if name == "multi30k" else [f"{split}.{side}" for split in SPLITS for side in ("de", "en")]
    with scratch(target) as work:
        fresh = work / "fresh"
        fresh.mkdir()
        for file in names:
            original = next(path for path in (source / file, source / f"{file}.gz") if path.is_file())
            shutil.copyfile(original, fresh / original.name)
        fresh.rename(target)
    return target


def _read(name: str, folder: Path) -> dict[str, list[Pair]]:
    if name == "emoji-names":
        texts = {split: _text(folder / f"{split}.tsv", name, EMOJI[split]) for split in SPLITS}
        return {split: [tuple(line.split("\t")) for line in text.splitlines()] for split, text in texts.items()}  # type: ignore[misc]
    if name == "multi30k":
        files = dict(zip(SPLITS, ("train", "val", "test_2016_flickr"), strict=True))
    else:
        files = dict(zip(SPLITS, SPLITS, strict=True))
    corpus = {}
    for split, file in files.items():
        sides = [
            _text(folder / f"{file}.{side}", name, MULTI30K.get(f"{file}.{side}") if name == "multi30k" else None)
            for side in ("de", "en")
        ]
        pairs = list(zip(*(text.strip("\n").split("\n") for text in sides), strict=False))
        lengths = [text.strip("\n").count("\n") + 1 for text in sides]
        if lengths[0] != lengths[1] or (name == "iwslt14" and lengths[0] != IWSLT14[split]):
            wanted = f", not {IWSLT14[split]:,} each" if name == "iwslt14" else ""
            raise LabError(
                f"{shown(folder)} has {lengths[0]:,} German and {lengths[1]:,} English lines in "
                f"{split}{wanted}: {REMEDY[name]}"
            )
        corpus[split] = [(a.strip(), b.strip()) for a, b in pairs]
    return corpus


def _text(path: Path, name: str, digest: str | None) -> str:
    packed = path.with_name(f"{path.name}.gz")
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes()
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise LabError(f"{shown(path)} is missing: {REMEDY[name]}") from None
    except (OSError, EOFError, ValueError) as error:
        raise LabError(f"{shown(path)} cannot be read ({error}): {REMEDY[name]}") from None
    text = text.replace("\r\n", "\n")
    if digest is not None and hashlib.sha256(text.encode()).hexdigest() != digest:
        raise LabError(f"{shown(path)} is not the text that it should be (SHA-256 differs): {REMEDY[name]}")
    return text


def _known(name: str) -> None:
    if name not in CORPORA:
        raise LabError(f"unknown corpus {name!r}: choose one of {', '.join(CORPORA)}")
