"""What both sides of the file format know: types, the words of floating-point numbers, classes of coded arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]

ITEM_SIZE = {
    "float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "complex64": 8, "complex128": 16, "bool": 1, "uint8": 1,
    "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint16": 2, "uint32": 4, "uint64": 8, "float8_e4m3fn": 1,
    "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip
"""Bytes of a number."""
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ITEM_SIZE if hasattr(torch, name)}
"""What a tensor in a file can be, by PyTorch's name."""

WORDS: dict[int, type[Any]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
LOW_BITS = {"float32": 22, "bfloat16": 6, "float16": 8, "float64": 51}
"""R of the form ``float``: mantissa bits that say little, and the sign."""
FULL = 10
"""Bits of a level number that have a table; what is below lies in the raw section."""
FIRST = 35
"""Code of the character that stands for 0."""


def planes(dtype: str) -> list[int]:
    """Bits of each plane of the low bits, the highest first."""
    low = LOW_BITS[dtype]
    return ([low % 8] if low % 8 else []) + [8] * (low // 8)


def pack_bits(values: Array, width: int) -> bytes:
    """Numbers (uint8) of ``width`` bits, one after the other, the highest bit first."""
    if width == 8:
        return values.tobytes()
    eights = np.pad(values, (0, -len(values) % 8)).reshape(-1, 8)
    words = np.zeros(len(eights), np.uint64)  # eight numbers are as many bytes as they have bits
    for column in eights.T:
        words = (words << np.uint64(width)) | column
    whole = words.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - width :]
    return whole.tobytes()[: packed_size(width, len(values))]


def unpack_bits(content: Array, width: int, count: int) -> Array:
    """Inverse of :func:`pack_bits`."""
    if width == 8:
        return content
    whole = np.zeros((-(-count // 8), 8), np.uint8)
    whole[:, 8 - width :] = np.pad(content, (0, len(whole) * width - len(content))).reshape(-1, width)
    words = whole.view(">u8")[:, 0].astype(np.uint64)
    values = np.empty((len(words), 8), np.uint8)
    for place in range(8):
        values[:, place] = (words >> np.uint64(width * (7 - place))) & np.uint64(2**width - 1)
    return values.ravel()[:count]


def packed_size(width: int, count: int) -> int:
    """Bytes of ``count`` numbers of ``width`` bits."""
    return -(-width * count // 8)


def classes(rows: Array, columns: Array, shape: tuple[int, ...]) -> Array:
    """``(count,)`` the class of each entry: that of its row plus that of its column."""
    rest = math.prod(shape[2:])
    each = rows[:, None].astype(np.int64) + columns[None, :]
    return np.broadcast_to(each[:, :, None], (*each.shape, rest)).ravel()
