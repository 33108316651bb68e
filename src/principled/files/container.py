"""The container of the file format: nothing in it is believed before its digest is right, and little after that."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .shapes import DTYPES, ITEM_SIZE
from .tables import Table

MAGIC = b"PRINCIP1"
HEAD = 48
"""Bytes before the header."""
LONGEST = 2**24
"""Bytes of a header, uncompressed, and the numbers that any file may hold."""


def most_numbers(size: int) -> int:
    """Numbers that a file of so many bytes may hold: an all but empty tensor takes a thousandth of a bit a number."""
    return max(LONGEST, min(4096 * size, 2**28), 64 * size)


FORMS = ("float", "palette", "scaled", "levels", "same", "bytes")


@dataclass(frozen=True)
class Entry:
    """One tensor as the header states it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    form: str
    args: dict[str, Any]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.count * ITEM_SIZE[self.dtype]


@dataclass(frozen=True)
class Container:
    """A file's header, checked, and its sections."""

    meta: dict[str, str]
    program: list[list[Any]]
    tables: list[Table]
    entries: list[Entry]
    words: bytes
    raw: bytes
    blob: bytes
    size: int
    header_size: int
    header: bytes
    """As JSON."""

    @property
    def tables_size(self) -> int:
        """What the compressed header would be shorter by without tables."""
        bare = json.dumps(json.loads(self.header) | {"tables": []}, separators=(",", ":"))
        return self.header_size - len(zlib.compress(bare.encode(), 9))


def seal(text: bytes, words: bytes, raw: bytes) -> bytes:
    """A whole file: compressed header, coded section, raw section with the blob."""
    rest = len(text).to_bytes(4, "little") + (len(words) // 4).to_bytes(4, "little") + text + words + raw
    return MAGIC + hashlib.sha256(rest).digest() + rest


def is_ours(path: str | Path) -> bool:
    """Whether a file is of this format, by its first letters alone."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_container(path: Path) -> Container:
    """A file of this format, its digest right and its header well formed.

    Raises:
        ValueError: one line, with the path: cut short, altered, of another format, or contradicting itself.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    if content[:8] != MAGIC:
        what = "cut short" if MAGIC.startswith(content[:8]) else "no file that principled.files.save wrote"
        raise ValueError(f"{path} is {what}: save it again, or fetch it again")
    if len(content) < HEAD or hashlib.sha256(memoryview(content)[40:]).digest() != content[8:40]:
        raise ValueError(f"{path} was altered or cut short: its digest is another's; save it again, or fetch it again")
    try:
        return _parse(content)
    except ERRORS as e:
        raise contradiction(path, e) from None


ERRORS = (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError, RuntimeError,
          MemoryError, AssertionError, zlib.error)  # fmt: skip
"""What reading parts that contradict each other can end in."""


def contradiction(path: Path, why: Exception) -> ValueError:
    """The line for a file whose digest is right and whose parts do not agree."""
    reason = " ".join(str(why).split())[:120] or type(why).__name__
    return ValueError(f"{path} contradicts itself ({reason}): save it again, or fetch it again")


def inflate(content: bytes, most: int) -> bytes:
    """At most ``most`` bytes of a zlib stream, which must end there."""
    stream = zlib.decompressobj()
    result = stream.decompress(content, most + 1)
    if len(result) > most or not stream.eof or stream.unused_data:
        raise ValueError("a compressed part of another length than stated")
    return result


def _parse(content: bytes) -> Container:
    text, words = (int.from_bytes(content[at : at + 4], "little") for at in (40, 44))
    first, second = HEAD + text, HEAD + text + 4 * words
    if second > len(content):
        raise ValueError("sections longer than the file")
    plain = inflate(content[HEAD:first], LONGEST)
    header = json.loads(plain)
    meta, blob = header["meta"], header["blob"]
    if any(not isinstance(word, str) for pair in meta.items() for word in pair):
        raise ValueError("meta that is not text")
    if type(blob) is not int or not 0 <= blob <= len(content) - second:
        raise ValueError("a blob longer than the file")
    entries: list[Entry] = []
    known: dict[str, Entry] = {}
    for each in header["tensors"]:
        entries.append(_entry(each, known))
        known[entries[-1].name] = entries[-1]
    if sum(entry.count for entry in entries) > most_numbers(len(content)):
        raise ValueError("more numbers than a file of its size may hold")
    end = len(content) - blob
    return Container(
        meta,
        [_step(*each) for each in header.get("program", [])],
        [Table.read(*each) for each in header["tables"]],
        entries,
        content[first:second],
        content[second:end],
        content[end:],
        len(content),
        text,
        plain,
    )


def _step(name: Any, layer: Any, ratio: Any, group: Any) -> list[Any]:
    """One execution of a layer in a folded network's program."""
    if not isinstance(name, str) or not isinstance(layer, str) or not isinstance(group, str | None):
        raise ValueError("a program whose steps have no names")
    return [name, layer, float(ratio), group]


def _entry(each: Any, known: dict[str, Entry]) -> Entry:
    name, dtype, shape, form, args = each
    if not isinstance(name, str) or name in known:
        raise ValueError(f"a tensor named {str(name)[:40]!r} twice, or not by a text")
    if dtype not in DTYPES or form not in FORMS or not isinstance(args, dict):
        raise ValueError(f"{name[:40]} of type {str(dtype)[:20]!r} in form {str(form)[:20]!r}, which there are not")
    if not isinstance(shape, list) or len(shape) > 64 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"{name[:40]} of a shape that is none")
    if math.prod(n for n in shape if n) > 2**62:
        raise ValueError(f"{name[:40]} of a shape that no tensor has")
    entry = Entry(name, dtype, tuple(shape), form, args)
    if form == "same":
        first = known[args["as"]]
        if (first.dtype, first.shape) != (entry.dtype, entry.shape):
            raise ValueError(f"{name[:40]} is the same as a tensor of another type or shape")
    return entry
