"""A precision map in few bytes: which tables to code with is ours, the coder is ``constriction``'s.

What a trained map tells about itself lies in its filters and input channels: some need many bits, some few. So each
tensor first states the mean of each slice of its first two axes, in quarters of a bit. Their sum sorts the weights into
classes, each class gets a table of how often each precision occurs in it, and a range coder writes the precisions with
the tables. Where weights share their precision in blocks (filters and layers are long blocks), a block is written once.
What is regular in another way is short under LZMA: each map takes the shorter of the two.
"""

from __future__ import annotations

import lzma
import math

import constriction
import numpy as np

RESOLUTION = 4  # of a slice's mean: steps in a bit
CLASS_SIZE, CLASSES = 1000, 16  # weights a class shall have at least; classes a tensor has at most
DICTIONARY = 2**28  # bytes: four times what LZMA's highest preset needs to read
TOTAL = 4095  # a table's counts are scaled to about this sum


def encode_map(tensors: list[np.ndarray]) -> bytes:
    """Precisions of all tensors (integers, 0 to 24) as one byte string; its first byte says how."""
    block = _block(tensors)
    if block > 1:
        return b"B" + block.to_bytes(8, "little") + encode_map([p.ravel()[::block] for p in tensors])
    flat = np.concatenate([p.astype(np.uint8).ravel() for p in tensors])
    plain = b"L" + lzma.compress(flat.tobytes(), format=lzma.FORMAT_ALONE, preset=9)
    coded = b"C" + _encode_classes(tensors)
    return min(coded, plain, key=len)


def decode_map(data: bytes, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Inverse of :func:`encode_map`, int64 arrays."""
    counts = [math.prod(shape) for shape in shapes]
    if data[:1] == b"B":
        block = int.from_bytes(data[1:9], "little")
        if block == 0 or data[9:10] == b"B":
            raise ValueError("a precision map whose blocks hold nothing, or blocks: the file was not made by this book")
        once = decode_map(data[9:], [(-(-count // block),) for count in counts])
        each = zip(once, counts, shapes, strict=True)
        return [np.repeat(p, min(block, count))[:count].reshape(shape) for p, count, shape in each]
    if data[:1] == b"C":
        return _decode_classes(data[1:], shapes)
    if data[:1] != b"L":
        raise ValueError(f"a precision map of kind {data[:1]!r}: this version of the book reads kinds B, C and L")
    told = inflate(data[1:], sum(counts) + 1)  # no more than is asked for
    if len(told) != sum(counts):
        raise ValueError(f"a precision map of {len(told)} precisions for {sum(counts)} weights")
    flat = np.frombuffer(told, np.uint8).astype(np.int64)
    return [part.reshape(shape) for part, shape in zip(np.split(flat, np.cumsum(counts)[:-1]), shapes, strict=True)]


def inflate(data: bytes, most: int) -> bytes:
    """At most ``most`` bytes of what was compressed with LZMA. A file may ask for a dictionary of gigabytes: refused
    (LZMAError).
    """
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=DICTIONARY).decompress(data, most)


def _block(tensors: list[np.ndarray]) -> int:
    """The longest block, counted from each tensor's start, within which no precision changes."""
    changes = [np.flatnonzero(np.diff(p.ravel())) + 1 for p in tensors]
    common = int(np.gcd.reduce(np.concatenate(changes))) if sum(map(len, changes)) else 0
    return common or max(p.size for p in tensors)  # no change at all: one entry a tensor


def _slices(p: np.ndarray) -> list[np.ndarray]:
    """Mean precision of each slice of the first and of the second axis, in quarters of a bit."""
    axes = range(2 if p.ndim > 1 else 0)  # along one axis only, the means would be the map itself
    return [np.rint(np.moveaxis(p, a, 0).reshape(p.shape[a], -1).mean(1) * RESOLUTION).astype(np.uint8) for a in axes]


def _classes(slices: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """``(d,)`` the class of each weight: equal shares of them, ranked by the sum of their slices' means."""
    score = np.zeros(shape, np.int64)
    for axis, means in enumerate(slices):
        score += means.astype(np.int64).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    score = score.ravel()
    count = max(1, min(CLASSES, len(score) // CLASS_SIZE))
    edges = np.unique(np.sort(score)[[len(score) * i // count for i in range(1, count)]])
    return np.unique(np.searchsorted(edges, score, side="right"), return_inverse=True)[1]  # none of them empty


def _table(counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, np.maximum(1, counts * TOTAL // counts.sum()), 0)


def _model(table: np.ndarray) -> constriction.stream.model.Categorical:
    # symbols are numbered among those that occur: the coder would spend a little on each of the others
    return constriction.stream.model.Categorical(table[table > 0].astype(np.float64), perfect=False)


def _encode_classes(tensors: list[np.ndarray]) -> bytes:
    symbols = max(int(p.max(initial=0)) for p in tensors) + 1
    coder, side, tables = constriction.stream.queue.RangeEncoder(), [], []
    for p in tensors:
        slices = _slices(p)
        classes, flat = _classes(slices, p.shape), p.ravel()
        side += slices
        for chosen in range(int(classes.max(initial=-1)) + 1):
            found = flat[classes == chosen]
            table = _table(np.bincount(found, minlength=symbols))
            tables.append(table)
            if (table > 0).sum() > 1:
                coder.encode((np.cumsum(table > 0) - 1)[found].astype(np.int32), _model(table))
    head = lzma.compress(
        bytes([symbols]) + b"".join(s.tobytes() for s in side) + np.concatenate(tables).astype("<u2").tobytes(),
        format=lzma.FORMAT_ALONE,
        preset=9,
    )
    compressed: bytes = coder.get_compressed().astype("<u4").tobytes()
    return len(head).to_bytes(4, "little") + head + compressed


def _decode_classes(data: bytes, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    size = int.from_bytes(data[:4], "little")
    most = 1 + sum(sum(shape[:2]) for shape in shapes) + 2 * 256 * CLASSES * len(shapes)
    head = inflate(data[4 : 4 + size], most)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(data[4 + size :], "<u4").astype(np.uint32))
    symbols, first = head[0], 1
    slices = []
    for shape in shapes:
        own = []
        for length in shape[:2] if len(shape) > 1 else ():
            own.append(np.frombuffer(head, np.uint8, length, first))
            first += length
        slices.append(own)
    tables = np.frombuffer(head[first:], "<u2").reshape(-1, symbols).astype(np.int64)
    found, used = [], 0
    for shape, own in zip(shapes, slices, strict=True):
        classes = _classes(own, shape)
        flat = np.zeros(math.prod(shape), np.int64)
        for chosen in range(int(classes.max(initial=-1)) + 1):
            here, table = classes == chosen, tables[used]
            used += 1
            occurring = np.flatnonzero(table)
            if len(occurring) > 1:
                flat[here] = occurring[decoder.decode(_model(table), int(here.sum()))]
            elif len(occurring):
                flat[here] = occurring[0]
        found.append(flat.reshape(shape))
    return found
