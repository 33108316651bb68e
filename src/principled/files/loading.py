"""``load``, ``sizes`` and the rest that reads a file: a network's tensors, and what each of them takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from principled.folding import Program, Step

from .coder import Reader
from .container import ERRORS, HEAD, Container, Entry, contradiction, inflate, is_ours, read_container
from .read_forms import FORMS, Source
from .shapes import DTYPES, Array

Net = TypeVar("Net", bound=nn.Module)


@overload
def load(path: str | Path) -> dict[str, Tensor]: ...
@overload
def load(path: str | Path, net: Net) -> Net: ...
def load(path: str | Path, net: nn.Module | None = None) -> dict[str, Tensor] | nn.Module:
    """What :func:`save` wrote, bit for bit.

    Args:
        path: a file of :func:`save`, of this version or an earlier one.
        net: a network of your own class, which is filled in place and returned. Before anything is decoded its tensors
            are compared with the file's. Without it the state comes back, as ``load_state_dict`` takes it; a tensor
            that was saved under several names is one tensor.

    Raises:
        ValueError: one line: the file is cut short, altered or contradicts itself; or ``net`` is another network (which
            tensor, of which shape or type).
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not is_ours(path):
        return _load_older(path, net)
    container = read_container(path)
    if net is None:
        return _state(path, container)
    _check_fit(path, container, net)
    net.load_state_dict(_state(path, container))
    return net


def meta(path: str | Path) -> dict[str, str]:
    """What the file says of itself."""
    path = Path(path)
    return dict(read_container(path).meta if is_ours(path) else _older(path).meta(path))


def program(path: str | Path) -> Program:
    """In which order a folded network executes its layers: ``load(path, Folded(my_network(), program(path)))``.

    Raises:
        ValueError: the file holds no folded network, or is refused as by :func:`load`.
    """
    steps = read_container(Path(path)).program
    if not steps:
        raise ValueError(f"{path} holds no folded network, so no program: load it into your own class")
    return Program(tuple(Step(*each) for each in steps))


def precisions(path: str | Path) -> dict[str, Tensor]:
    """``{name: int8 tensor}``: the bits of each weight of the tensors that the file holds as levels of p bits."""
    if not is_ours(Path(path)):
        return dict(_older(Path(path)).precisions(path))
    kept: dict[str, Tensor] = {}
    for entry, _, source, _ in _decoded(Path(path), read_container(Path(path))):
        if source.precision is not None:
            kept[entry.name] = torch.from_numpy(source.precision.astype(np.int8)).reshape(entry.shape)
    return kept


# -- reading -----------------------------------------------------------------------------------------------------------


def _decoded(
    path: Path, container: Container, measure: bool = False
) -> Iterator[tuple[Entry, Array | None, Source, Reader]]:
    """Each tensor's entry with its numbers as words (None where it is the same as another), and where they came from.

    What the file's parts contradict each other in ends in one line, here.
    """
    try:
        reader = Reader(container.words, container.raw)
        reader.bits = 0.0 if measure else None
        source = Source(reader, container.tables)
        total = sum(entry.nbytes for entry in container.entries if entry.form == "bytes")
        blob = inflate(container.blob, total) if container.blob else b""
        at = 0
        for entry in container.entries:
            source.precision = None
            if entry.form == "same":
                yield entry, None, source, reader
            elif entry.form == "bytes":
                yield (
                    entry,
                    np.frombuffer(blob, np.uint8, entry.nbytes, at) if entry.nbytes else _none(),
                    source,
                    reader,
                )
                at += entry.nbytes
            else:
                yield entry, FORMS[entry.form](source, entry.args, entry.dtype, entry.shape), source, reader
        if at != len(blob):
            raise ValueError("a blob that is longer than its tensors")
        reader.close()
    except ERRORS as e:
        raise contradiction(path, e) from None


def _none() -> Array:
    return np.zeros(0, np.uint8)


def _state(path: Path, container: Container) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for entry, words, _, _ in _decoded(path, container):
        if words is None:
            state[entry.name] = state[entry.args["as"]]
            continue
        own = np.require(words, requirements=["C", "W"]).reshape(-1).view(np.uint8)  # a copy, where it lies in the file
        if entry.dtype == "bool":
            own = (own != 0).view(np.uint8)
        if len(own) != entry.nbytes:
            raise contradiction(path, ValueError(f"{entry.name[:40]} has another length than its shape"))
        state[entry.name] = torch.from_numpy(own).view(DTYPES[entry.dtype]).reshape(entry.shape)
    return state


def _check_fit(path: Path, container: Container, net: nn.Module) -> None:
    """ValueError unless the network has the file's tensors, no others, of equal shapes and types."""
    own = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    kind = type(net).__name__
    for entry in container.entries:
        if entry.name not in own:
            raise ValueError(f"{path} holds another network than this {kind}: that has no tensor {entry.name[:80]!r}")
        tensor = own.pop(entry.name)
        if tuple(tensor.shape) != entry.shape:
            raise ValueError(
                f"{path} does not fit this {kind}: {entry.name[:80]} has shape {list(entry.shape)} in the file and "
                f"{list(tensor.shape)} in the network"
            )
        if tensor.dtype != DTYPES[entry.dtype]:
            raise ValueError(
                f"{path} does not fit this {kind}: {entry.name[:80]} is {entry.dtype} in the file and {tensor.dtype} "
                "in the network, which would round or widen it; convert the network first"
            )
    if own:
        raise ValueError(f"{path} holds another network than this {kind}: the file has no tensor {next(iter(own))!r}")


def _older(path: Path) -> Any:
    """The module that reads a file of an earlier version, which is a safetensors file."""
    try:
        from . import quantized, sparse
    except ModuleNotFoundError as e:
        raise ValueError(
            f"{path} is no file that principled.files.save wrote; to read one of earlier versions, pip install {e.name}"
        ) from None
    return quantized if quantized.is_packed(path) else sparse


def _load_older(path: Path, net: nn.Module | None) -> dict[str, Tensor] | nn.Module:
    state: dict[str, Tensor] = _older(path).state(path)
    if net is None:
        return state
    try:
        net.load_state_dict(state)
    except RuntimeError as e:
        raise ValueError(f"{path} does not fit this {type(net).__name__}: {' '.join(str(e).split())[:200]}") from None
    return net


# -- what a file spends ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One tensor, and the bytes that it takes."""

    name: str
    form: str
    numbers: int
    nonzero: int
    coded: float
    """Of the entropy coder, but for the precisions."""
    precisions: float
    raw: float
    plain: int
    """In memory."""


@dataclass(frozen=True)
class Sizes:
    """Bytes of a file: ``file`` = ``header`` (``tables`` among it) + what the rows take + at most a few."""

    file: int
    header: int
    """With the 48 bytes before it."""
    tables: int
    """What the header would be shorter by without its tables."""
    plain: int
    """The same tensors in memory, one that is the same as another not counted."""
    rows: tuple[Row, ...]

    @property
    def share(self) -> float:
        """The file over what its tensors take in memory."""
        return self.file / self.plain if self.plain else 1.0

    def parts(self) -> dict[str, float]:
        """Bytes of the file as the book's records have them: of levels, of their precisions, of all else."""
        quantised = [row for row in self.rows if row.form == "levels"]
        payload, precisions = sum(row.coded + row.raw for row in quantised), sum(row.precisions for row in quantised)
        return {
            "file_bytes": float(self.file),
            "payload_bytes": payload,
            "map_bytes": precisions,
            "rest_bytes": self.file - payload - precisions,
        }

    def __str__(self) -> str:
        head = ("tensor", "form", "numbers", "nonzero", "coded", "precisions", "raw", "of plain")
        lines = [head] + [
            (r.name, r.form, f"{r.numbers:,}", f"{r.nonzero:,}", f"{r.coded:,.0f}", f"{r.precisions:,.0f}",
             f"{r.raw:,.0f}", f"{(r.coded + r.precisions + r.raw) / r.plain:.1%}" if r.plain else "")
            for r in self.rows
        ]  # fmt: skip
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(f"{cell:{'<' if i < 2 else '>'}{wide[i]}}" for i, cell in enumerate(line)).rstrip()
            for line in lines
        ]
        spent = [sum(getattr(row, key) for row in self.rows) for key in ("coded", "precisions", "raw")]
        text.append(
            f"file {self.file:,} bytes: header {self.header:,} (tables {self.tables:,}), coded {spent[0]:,.0f}, "
            f"precisions {spent[1]:,.0f}, raw {spent[2]:,.0f}; {self.share:.1%} of {self.plain:,} bytes in memory"
        )
        return "\n".join(text)


def sizes(path: str | Path) -> Sizes:
    """Which tensor spends what on what; the file is read in full, and refused as by :func:`load`."""
    path = Path(path)
    container = read_container(path)
    rows: list[Row] = []
    blob_total = sum(entry.nbytes for entry in container.entries if entry.form == "bytes") or 1
    bits, raw = 0.0, 0
    for entry, words, source, reader in _decoded(path, container, measure=True):
        coded, taken = (reader.bits or 0.0) - bits, reader.raw_bytes - raw
        bits, raw = reader.bits or 0.0, reader.raw_bytes
        own = source.precision_bits if source.precision is not None else 0.0
        spent = len(container.blob) * entry.nbytes / blob_total if entry.form == "bytes" else float(taken)
        nonzero, plain = 0, 0
        if words is not None:
            nonzero = int((words.reshape(entry.count, -1) != 0).any(1).sum()) if entry.count else 0
            plain = entry.nbytes
        rows.append(Row(entry.name, entry.form, entry.count, nonzero, (coded - own) / 8, own / 8, spent, plain))
    return Sizes(
        container.size,
        HEAD + container.header_size,
        container.tables_size,
        sum(row.plain for row in rows),
        tuple(rows),
    )
