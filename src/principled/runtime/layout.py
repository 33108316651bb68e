"""Where the numbers of an activation lie, and how a kernel walks over them.

An image is kept as planes, a channel each, with zeros between rows and between planes, so that a padded convolution
reads past the edge of a row and meets zeros; the zeros after a row are those before the next. All distances are
counted in pixels. A pixel is one number, or, where a batch runs across vectors, the numbers of ``unit`` images side by
side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

SLACK = 96  # pixels that a vector may read beyond a plane
SMALL = 12  # vectors that an image may have to be covered by one tile


@dataclass(frozen=True)
class Plane:
    """Places of ``channels`` x ``height`` x ``width`` pixels in memory.

    Args:
        row: pixels from one row to the next.
        plane: pixels from one channel to the next.
        lead: zeros before the first pixel.
        padded: whether anyone reads the zeros, so that they have to be there.
    """

    channels: int
    height: int
    width: int
    row: int
    plane: int
    lead: int
    padded: bool

    @property
    def size(self) -> int:
        """Pixels to reserve."""
        return self.lead + self.channels * self.plane + SLACK

    @property
    def spare(self) -> int:
        """Distance from the first pixel of one that is reserved and belongs to no channel."""
        return self.channels * self.plane + SLACK - 1

    def at(self, channel: int, y: int, x: int) -> int:
        """Distance of a pixel, which may lie in the padding, from the first one."""
        return channel * self.plane + y * self.row + x


@dataclass(frozen=True)
class Pads:
    """Zeros that readers want around an image: above or below, left or right, the larger of both."""

    rows: int = 0
    columns: int = 0

    def __or__(self, other: Pads) -> Pads:
        return Pads(max(self.rows, other.rows), max(self.columns, other.columns))


def plane(channels: int, height: int, width: int, pads: Pads, lanes: int) -> Plane:
    """The places of an image whose rows can be written as whole vectors.

    Small images keep their rows close, so that a vector covers several; the others round a row up to whole vectors.
    """
    if height * width == 1 and pads == Pads():
        return Plane(channels, 1, 1, 1, 1, 0, False)
    row = width + pads.columns
    if width % lanes:
        close = width + max(pads.columns, 1)
        row = close if height * close <= SMALL * lanes else max(row, -(-width // lanes) * lanes)
    size = max((height + pads.rows) * row, -(-height * row // lanes) * lanes)
    return Plane(channels, height, width, row, size, pads.rows * row + pads.columns, bool(pads.rows or pads.columns))


@dataclass(frozen=True)
class Tile:
    """Vectors that are added into registers while a list of weights is walked.

    Args:
        lanes: numbers of a vector.
        read, write: distance of each vector from the tile's beginning, in numbers.
        keep: for each vector the lanes that are pixels; the others are written as zeros. None keeps all.
    """

    lanes: int
    read: tuple[int, ...]
    write: tuple[int, ...]
    keep: tuple[tuple[bool, ...] | None, ...]


Piece = tuple[Tile, list[tuple[int, int]]]
"""A tile, and where its copies begin for reading and for writing, in numbers."""


def _cost(vectors: int) -> float:
    """What a weight costs on a tile: a multiply-add a vector, and the reading of weight and place."""
    return vectors + 1.5


def _splits(total: int, most: int) -> Iterator[tuple[int, int, int]]:
    """``(size, whole, rest)`` of every way to cut ``total`` into pieces of ``size`` and a rest."""
    for size in range(1, min(total, most) + 1):
        yield size, *divmod(total, size)


@lru_cache(1024)
def tiles(read_row: int, out: Plane, unit: int, lanes: int, most: int) -> list[Piece]:
    """Tiles that together write every pixel of a plane once, at the least cost.

    Args:
        read_row: pixels from row to row of what is read.
        out: places of what is written.
        unit: numbers a pixel; 1, or a multiple of ``lanes``.
        lanes: numbers of the machine's vectors.
        most: vectors that a tile may have.
    """
    if unit > 1:
        options = [_rows(read_row, out, unit, lanes, most)]
    else:
        widths = [width for width in (16, 8, 4, 2, 1) if width <= lanes]
        options = [
            _rows(read_row, out, 1, width, most)
            for width in widths
            if -(-out.width // width) * width <= max(out.row, out.width)
        ]
        options += [flat for width in widths[:2] if (flat := _flat(read_row, out, width, most)) is not None]
    return min(options, key=lambda option: sum(_cost(len(tile.read)) * len(begins) for tile, begins in option))


def _flat(read_row: int, out: Plane, lanes: int, most: int) -> list[Piece] | None:
    """One tile over rows and the gaps between them, where both sides have equal rows and the image is small."""
    pixels = (out.height - 1) * out.row + out.width
    vectors = -(-pixels // lanes)
    if read_row != out.row or vectors > most or vectors * lanes > out.plane:
        return None
    begins = tuple(number * lanes for number in range(vectors))
    keep = tuple(
        tuple(at < pixels and at % out.row < out.width for at in range(begin, begin + lanes)) for begin in begins
    )
    return [(Tile(lanes, begins, begins, tuple(None if all(lane) else lane for lane in keep)), [(0, 0)])]


def _rows(read_row: int, out: Plane, unit: int, lanes: int, most: int) -> list[Piece]:
    """Tiles of whole rows, or of parts of one row."""
    numbers = out.width * unit
    a_row = -(-numbers // lanes)
    best: list[tuple[int, list[int], int, list[int]]] = []
    cheapest = float("inf")
    for high, whole_high, rest_high in _splits(out.height, most):
        downs = [(high, [i * high for i in range(whole_high)])]
        downs += [(rest_high, [whole_high * high])] if rest_high else []
        for wide, whole_wide, rest_wide in _splits(a_row, most // high):
            across = [(wide, [i * wide for i in range(whole_wide)])]
            across += [(rest_wide, [whole_wide * wide])] if rest_wide else []
            cost = sum(_cost(h * w) * len(ys) * len(xs) for h, ys in downs for w, xs in across)
            if cost < cheapest:
                cheapest, best = cost, [(h, ys, w, xs) for h, ys in downs for w, xs in across]
    return [piece for part in best for piece in _pieces(read_row * unit, out.row * unit, numbers, lanes, *part)]


def _pieces(
    read_row: int, out_row: int, numbers: int, lanes: int, high: int, ys: list[int], wide: int, xs: list[int]
) -> Iterator[Piece]:
    """Tiles of ``high`` rows and ``wide`` vectors; those at the end of a row apart where it is no whole vector."""
    ragged = numbers % lanes
    last = -(-numbers // lanes)
    ends = [x for x in xs if x + wide == last] if ragged else []
    edge = tuple(lane < ragged for lane in range(lanes))
    for group, at_end in (([x for x in xs if x not in ends], False), (ends, True)):
        if group:
            places = [(y, x) for y in range(high) for x in range(wide)]
            tile = Tile(
                lanes,
                tuple(y * read_row + x * lanes for y, x in places),
                tuple(y * out_row + x * lanes for y, x in places),
                tuple(edge if at_end and x == wide - 1 else None for _, x in places),
            )
            yield tile, [(y * read_row + x * lanes, y * out_row + x * lanes) for y in ys for x in group]
