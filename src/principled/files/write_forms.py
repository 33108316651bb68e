"""From tensors to the parts of a file: for each tensor the forms that it could take, with what they cost.

A :class:`Plan` is a tensor in one form: arguments for the header, and parts for the sections, in reading order. Which
table a part is coded with is decided when the parts of all tensors are known.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .shapes import FIRST, FULL, LOW_BITS, WORDS, Array, classes, pack_bits, planes
from .tables import bits, table_bits

PALETTE = 4096
"""Different values that a palette may have."""
SAMPLE = 2**13
CLASSES = 64
"""Classes that a coded array may have."""


@dataclass
class Part:
    """Something for the sections: arrays of symbols, one a context, or raw bytes."""

    kind: tuple[Any, ...]
    """Parts of one kind may share tables."""
    arrays: list[Array]
    put: Callable[[list[int]], None]
    """Takes the numbers of the tables, one an array."""
    width: int | None = None
    """Bits of a symbol that may stay raw; None: it must be coded."""
    raw: bytes = b""

    def bits(self) -> float:
        """About what it takes, a table of its own included where it must have one."""
        if not self.arrays:
            return 8.0 * len(self.raw)
        total = 0.0
        for array in self.arrays:
            counts = np.bincount(array) if len(array) else np.zeros(1, np.int64)
            coded = bits(counts) + (0.3 * table_bits(counts) if counts.any() else 0.0)
            total += coded if self.width is None else min(coded, float(self.width) * len(array))
        return total


@dataclass
class Plan:
    """A tensor in one form."""

    form: str
    args: dict[str, Any]
    parts: list[Part] = field(default_factory=list)

    def bits(self) -> float:
        """About what it takes."""
        return sum(part.bits() for part in self.parts)


def _raw(content: bytes) -> Part:
    return Part(("raw",), [], lambda numbers: None, raw=content)


def _into(args: dict[str, Any]) -> Callable[[list[int]], None]:
    def put(numbers: list[int]) -> None:
        """The tables of a coded array."""
        args["t"] = numbers

    return put


# -- coded arrays ------------------------------------------------------------------------------------------------------


def coded(kind: tuple[Any, ...], symbols: Array, shape: tuple[int, ...], feature: Array | None = None) -> Plan:
    """A coded array; with ``feature`` (one number a symbol, of about unit steps) in classes, if they pay.

    What is regular in trained tensors is how their filters and input channels differ: a class is the sum of what the
    row and the column are on average.
    """
    args: dict[str, Any] = {}
    best = Plan("", args, [Part(kind, [symbols], _into(args))])
    if feature is None or len(shape) < 2 or len(symbols) < 512:
        return best
    least = best.bits()
    grid = feature.reshape(shape[0], shape[1], -1).astype(np.float64)
    middle = grid.mean()
    rows, columns = (
        (grid.sum(axis) + middle) / (grid.size // len_ + 1) - middle
        for axis, len_ in (((1, 2), shape[0]), ((0, 2), shape[1]))
    )
    for steps in (1, 2, 3):
        r, c = (np.rint(mean * steps).astype(np.int64) for mean in (rows, columns))
        r, c = np.minimum(r - r.min(), CLASSES // 2), np.minimum(c - c.min(), CLASSES // 2 - 1)
        each = classes(r, c, shape)
        order = np.argsort(each.astype(np.uint8), kind="stable")
        sizes = np.bincount(each)
        arrays = np.split(symbols[order], np.cumsum(sizes)[:-1])
        own: dict[str, Any] = {}
        part = Part(kind, arrays, _into(own))
        cost = part.bits() + bits(np.bincount(r)) + bits(np.bincount(c)) + 8 * len(sizes)
        if len(sizes) > 1 and cost < least:
            own |= {key: "".join(chr(FIRST + v) for v in code.tolist()) for key, code in (("r", r), ("c", c))}
            best, least = Plan("", own, [part]), cost
    return best


# -- the forms ---------------------------------------------------------------------------------------------------------


def float_plan(words: Array, dtype: str, bases: dict[str, int]) -> Plan:
    """Zero or exponent and the mantissa's beginning, coded; the mantissa's rest and the sign, mostly raw."""
    word, low, size = words.dtype.type, LOW_BITS[dtype], 8 * words.dtype.itemsize
    turned = (words << word(1)) | (words >> word(size - 1))
    here = turned > 1  # neither of the two zeros
    every = bool(here.all())
    own = turned if every else turned[here]
    symbols = (turned >> word(low)).astype(np.int32)
    symbols -= np.int32(bases[dtype] - 1)
    if not every:
        symbols[~here] = 0
    args: dict[str, Any] = {"base": bases[dtype], "s": {}, "m": []}
    parts = [Part((dtype,), [symbols], _into(args["s"]))]
    place = low
    for number, width in enumerate(planes(dtype)):
        place -= width
        plane = ((own >> word(place)) & word(2**width - 1)).astype(np.uint8)
        args["m"].append(-1)
        if _looks_random(plane, width):
            parts.append(_raw(pack_bits(plane, width)))
        else:
            parts.append(Part((dtype, number), [plane], _at(args["m"], number), width))
    return Plan("float", args, parts)


def _at(numbers: list[int], place: int) -> Callable[[list[int]], None]:
    def put(chosen: list[int]) -> None:
        """The table of one plane."""
        (numbers[place],) = chosen

    return put


def _looks_random(plane: Array, width: int) -> bool:
    """Whether a large plane has nothing to gain from a table, by a sample of it."""
    if len(plane) < 2**15:
        return False
    sample = plane[:: len(plane) // 2**14]
    return bits(np.bincount(sample, minlength=2**width)) > (width - 0.05) * len(sample)


def base(words: Array, dtype: str) -> int:
    """The lowest exponent (with the mantissa's beginning) of numbers that are not 0."""
    word, low, size = words.dtype.type, LOW_BITS[dtype], 8 * words.dtype.itemsize
    turned = (words << word(1)) | (words >> word(size - 1))
    turned = turned[turned > 1]
    return int(turned.min() >> word(low)) if len(turned) else 2**31 - 2


def palette_plan(words: Array, shape: tuple[int, ...], size: Array | None) -> Plan | None:
    """Few different values; ``size`` is the magnitude of each number, where it has one."""
    values = _distinct(words)
    if values is None:
        return None
    symbols = np.searchsorted(values, words).astype(np.int32)
    feature = None
    if size is not None and len(shape) > 1 and len(values) > 1:
        first = np.zeros(len(values))
        first[symbols] = size
        rank = np.unique(first, return_inverse=True)[1]
        top = int(rank.max())  # 0: all of one size
        feature = (rank * (4.0 if top == 1 else 8.0 / top))[symbols] if top else None
    args: dict[str, Any] = {"n": len(values)}
    array = coded(("palette", len(values)), symbols, shape, feature)
    args["s"] = array.args
    return Plan("palette", args, [_raw(values.tobytes()), *array.parts])


def _distinct(words: Array) -> Array | None:
    """All different values in order, or None if there are too many."""
    sample = np.unique(words[:: max(1, len(words) // SAMPLE)])
    if len(sample) > PALETTE:
        return None
    values = sample if len(words) <= SAMPLE else np.unique(words)
    return values if len(values) <= min(PALETTE, max(16, len(words) // 4)) else None


def scaled_plan(values: NDArray[np.float32], shape: tuple[int, ...]) -> Plan | None:
    """Whole numbers times a scale for each slice of the first axis, where the values are that."""
    if len(shape) < 2 or not len(values):
        return None
    rows = values.reshape(shape[0], -1)
    if not np.isfinite(_scales(rows[:: max(1, len(rows) // 8)])).any():
        return None  # ordinary numbers
    scale = _scales(rows)
    if not np.isfinite(scale).all():
        return None
    return whole_plan(np.rint(rows / scale[:, None]).astype(np.int64).ravel(), scale, shape)


def _scales(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each row the scale that its numbers are whole multiples of, or infinity; 1 for a row of zeros."""
    size = np.abs(rows)
    least = np.where(size > 0, size, np.inf).min(1).astype(np.float32)
    scale = np.where(np.isfinite(least), np.float32(np.inf), np.float32(1))
    for part in (1, 2, 3, 5):  # the smallest number of a row is 1 step, or a few
        tried = least / np.float32(part)
        fits = np.isinf(scale) & np.isfinite(tried)
        fits[fits] = _fits(rows[fits], tried[fits])
        scale = np.where(fits, tried, scale)
    return scale


def _fits(rows: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        whole = np.rint(rows / scale[:, None])
        good: NDArray[np.bool_] = ((whole * scale[:, None] == rows) & (np.abs(whole) <= 2047)).all(1)
    return good


def whole_plan(whole: NDArray[np.int64], scale: NDArray[np.float32], shape: tuple[int, ...]) -> Plan:
    """Whole numbers and their scales in the form ``scaled``."""
    first = int(whole.min())
    args: dict[str, Any] = {"first": first, "n": len(scale)}
    array = coded(("scaled", first), (whole - first).astype(np.int32), shape, np.log2(1 + np.abs(whole)) * 2)
    args["s"] = array.args
    return Plan("scaled", args, [_raw(scale.astype("<f4").tobytes()), *array.parts])


def dyadic(values: NDArray[np.float32]) -> tuple[NDArray[np.int64], float] | None:
    """Precisions (0 for zeros) and the scale of values that are all levels of p bits of it, or None."""
    nonzero = values[values != 0]
    if not len(nonzero) or not np.isfinite(nonzero).all():
        return None
    step = _step(values if len(values) <= SAMPLE else nonzero[:SAMPLE])
    peak = int(np.frexp(np.abs(nonzero).max())[1])  # |values| < 2**peak
    power = max(0, peak - 1)
    if power - step.min() > 23 or (len(values) > SAMPLE and power - (step := _step(values)).min() > 23):
        return None
    p: NDArray[np.int64] = np.where(values != 0, 1 - step + power, 0)
    return p, 2.0**power


def _step(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """The exponent of the lowest bit that is set."""
    mantissa, exponent = np.frexp(values)
    whole = np.abs(mantissa * 2.0**24).astype(np.int64)
    lowest = whole & -whole
    return np.where(whole > 0, exponent - 24 + np.log2(np.maximum(lowest, 1)).astype(np.int64), 127)


def levels_plan(values: NDArray[np.float32], p: NDArray[np.int64], scale: float, shape: tuple[int, ...]) -> Plan:
    """Quantised weights: their precisions, and their levels' numbers."""
    factor = np.float32(scale)
    block = _block(p)
    args: dict[str, Any] = {"scale": float(factor), "block": block}
    bare = p[::block].astype(np.int32)
    array = coded(("precision",), bare, shape if block == 1 else (len(bare),), bare if block == 1 else None)
    args |= {"p": array.args, "l": {}}
    parts = list(array.parts)
    for bits_ in np.unique(p[p > 0]).tolist():
        own = values[p == bits_].astype(np.float64) / float(factor)
        codes = ((np.rint(own * 2.0 ** (bits_ - 1)).astype(np.int64) + (1 << bits_)) - 1) // 2
        low = max(0, bits_ - FULL)
        parts.append(Part(("level", bits_), [(codes >> low).astype(np.int32)], _level(args["l"], bits_)))
        if low:
            parts.append(_raw((codes & ((1 << low) - 1)).astype("<u1" if low <= 8 else "<u2").tobytes()))
    return Plan("levels", args, parts)


def _level(tables: dict[str, int], p: int) -> Callable[[list[int]], None]:
    def put(numbers: list[int]) -> None:
        """The table of one precision's levels."""
        (tables[str(p)],) = numbers

    return put


def _block(p: NDArray[np.int64]) -> int:
    """The longest block, counted from the start, within which no precision changes."""
    changes = np.flatnonzero(np.diff(p)) + 1
    return int(np.gcd.reduce(changes)) if len(changes) else max(1, len(p))


def bytes_bits(content: Array) -> float:
    """About what ``content`` takes in the blob; of a large one by a sample."""
    sample = content[: 2**16]
    return 8.0 * len(zlib.compress(sample.tobytes(), 6)) * len(content) / max(1, len(sample))


def float_values(words: Array, dtype: str) -> NDArray[np.float32]:
    """The numbers that float32 or bfloat16 words are."""
    if dtype == "bfloat16":
        words = words.astype(np.uint32) << np.uint32(16)
    values: NDArray[np.float32] = words.view(np.float32)
    return values


def plans(words: Array, dtype: str, shape: tuple[int, ...], bases: dict[str, int]) -> Iterator[Plan]:
    """Every form that the numbers could take; the blob is last."""
    if dtype in LOW_BITS and len(words):
        yield float_plan(words, dtype, bases)
    if words.dtype.itemsize in WORDS and len(words) > 1:
        size = np.abs(float_values(words, dtype)) if dtype in ("float32", "bfloat16") else None
        if (palette := palette_plan(words, shape, size)) is not None:
            yield palette
    if dtype == "float32" and len(words) >= 64:
        values = float_values(words, dtype)
        if (scaled := scaled_plan(values, shape)) is not None:
            yield scaled
        if len(shape) > 1 and (found := dyadic(values)) is not None:
            yield levels_plan(values, *found, shape)
