"""From the sections of a file back to tensors: one function a form of ``docs/file-format.md``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .coder import Reader
from .shapes import FIRST, FULL, ITEM_SIZE, LOW_BITS, WORDS, Array, classes, packed_size, planes, unpack_bits
from .tables import Table

Args = Mapping[str, Any]
Shape = tuple[int, ...]


class Source:
    """Sections and tables, from which the forms are read in order."""

    def __init__(self, reader: Reader, tables: Sequence[Table]) -> None:
        self.reader, self.tables = reader, tables
        self.precision: NDArray[np.int32] | None = None
        """Of the tensor that was read last, where it has one; and the bits that it took, where they are measured."""
        self.precision_bits = 0.0

    def table(self, number: Any) -> Table:
        """The header's table of this number."""
        if type(number) is not int or not 0 <= number < len(self.tables):
            raise ValueError(f"a table {number!r} that there is not")
        return self.tables[number]

    def array(self, coded: Args, shape: Shape) -> NDArray[np.int32]:
        """A coded array, flat."""
        numbers, count = coded["t"], math.prod(shape)
        if len(numbers) == 1:
            return self.reader.decode(count, self.table(numbers[0]))
        if len(shape) < 2 or len(coded["r"]) != shape[0] or len(coded["c"]) != shape[1]:
            raise ValueError("classes that do not fit the shape")
        rows, columns = (np.array([ord(letter) - FIRST for letter in coded[key]], np.int64) for key in "rc")
        if count and not (min(rows.min(), columns.min()) >= 0 and rows.max() + columns.max() < len(numbers)):
            raise ValueError("a class that there is not")
        each = classes(rows, columns, shape)
        symbols = np.empty(count, np.int32)
        for chosen, number in enumerate(numbers):
            own = np.flatnonzero(each == chosen)
            symbols[own] = self.reader.decode(len(own), self.table(number))
        return symbols

    def plane(self, number: Any, width: int, count: int) -> Array:
        """Numbers of ``width`` bits, uint8, coded or raw."""
        if number == -1:
            return unpack_bits(self.reader.raw(packed_size(width, count)), width, count)
        return self.reader.decode(count, self.table(number)).astype(np.uint8)


def read_float(source: Source, args: Args, dtype: str, shape: Shape) -> Array:
    """Zeros, exponents and the mantissas' beginnings; then what follows in the numbers that are not 0."""
    low, size = LOW_BITS[dtype], {"float64": 8, "float32": 4}.get(dtype, 2)
    word, symbols = WORDS[size], source.array(args["s"], shape)
    here = symbols != 0
    every = bool(here.all())
    own = symbols if every else symbols[here]
    turned = (own + (np.int64(args["base"]) - 1)).astype(word) << word(low)
    place = low
    if len(args["m"]) != len(planes(dtype)):
        raise ValueError("as many planes as the type has")
    for number, width in zip(args["m"], planes(dtype), strict=True):
        place -= width
        turned |= source.plane(number, width, len(own)).astype(word) << word(place)
    words: Array = (turned >> word(1)) | (turned << word(8 * size - 1))
    if every:
        return words
    whole = np.zeros(len(symbols), word)
    whole[here] = words
    return whole


def read_palette(source: Source, args: Args, dtype: str, shape: Shape) -> Array:
    """Few different values, and for each number which one it is."""
    size = ITEM_SIZE[dtype]
    values = source.reader.raw(size * args["n"]).reshape(args["n"], size)
    symbols = source.array(args["s"], shape)
    if len(symbols) and symbols.max() >= len(values):
        raise ValueError("a value that the palette has not")
    if size in WORDS:
        values = values.copy().view(WORDS[size])[:, 0]
    chosen: Array = values[symbols]
    return chosen


def read_scaled(source: Source, args: Args, dtype: str, shape: Shape) -> Array:
    """Whole numbers times a scale, which the first axis may have one of for each of its slices."""
    if args["n"] != 1 and (not shape or args["n"] != shape[0]):
        raise ValueError("scales that do not fit the shape")
    scales = source.reader.raw(4 * args["n"]).view("<f4").astype(np.float32)
    whole: Array = (source.array(args["s"], shape).astype(np.int64) + args["first"]).astype(np.float32)
    if len(whole):
        with np.errstate(all="ignore"):
            whole = (whole.reshape(args["n"], -1) * scales[:, None]).ravel()
    return whole


def read_precision(source: Source, args: Args, shape: Shape) -> NDArray[np.int32]:
    """The bits of each weight, flat."""
    block, count = args["block"], math.prod(shape)
    if type(block) is not int or block < 1:
        raise ValueError("blocks that hold nothing")
    if block == 1:
        bits = source.array(args["p"], shape)
    else:
        bits = np.repeat(source.array(args["p"], (-(-count // block),)), min(block, max(count, 1)))[:count]
    if len(bits) and not 0 <= bits.min() <= bits.max() <= 24:
        raise ValueError("a precision that is none of 0 to 24 bits")
    return bits


def read_levels(source: Source, args: Args, dtype: str, shape: Shape) -> Array:
    """Quantised weights of p bits each: precisions, then level numbers."""
    before = source.reader.bits or 0.0
    bits = source.precision = read_precision(source, args, shape)
    source.precision_bits = (source.reader.bits or 0.0) - before
    values = np.zeros(len(bits), np.float64)
    if {str(p) for p in np.unique(bits[bits > 0]).tolist()} != set(args["l"]):
        raise ValueError("level numbers of precisions that do not occur")
    for text, number in sorted(args["l"].items(), key=lambda item: int(item[0])):
        p = int(text)
        own = np.flatnonzero(bits == p)
        low = max(0, p - FULL)
        codes = source.reader.decode(len(own), source.table(number)).astype(np.int64) << low
        if low:
            width = 1 if low <= 8 else 2
            codes |= source.reader.raw(width * len(own)).view(f"<u{width}").astype(np.int64) & ((1 << low) - 1)
        values[own] = (2 * codes + 1 - (1 << p)) * 2.0 ** (1 - p)
    with np.errstate(all="ignore"):
        scaled: Array = values.astype(np.float32) * np.float32(args["scale"])
    return scaled


FORMS: dict[str, Callable[[Source, Args, str, Shape], Array]] = {
    "float": read_float,
    "palette": read_palette,
    "scaled": read_scaled,
    "levels": read_levels,
}
