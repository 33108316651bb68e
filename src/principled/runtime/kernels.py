"""The kernels, as a text in LLVM's language: written for shapes, with the weights as data.

A kernel's arguments are the arena (all activations), a row of 64-bit numbers, and the addresses of the caller's
tensors. ``weighted`` is the one that counts: for each tile and each output channel it keeps the tile's vectors in
registers, walks the list of that channel's non-zeros, each a place and a value, and adds ``value * input[place]`` to
all of them. Where a plane is one pixel, ``abreast`` walks the lists of a vector's worth of channels together. The
compiler is given vectors and has nothing to find out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from .layout import Tile
from .writer import Writer

LONE = 8  # sums that a kernel of single pixels keeps apart, so that none waits for the one before


@dataclass(frozen=True)
class Weighted:
    """Sums (or maxima) over lists of places.

    Args:
        tile: what is held in registers; None for single pixels, one number each, whose channels share a list.
        unit: numbers of a pixel.
        activation: ``""``, ``relu``, ``relu6`` or ``hardswish``.
        adds: whether another activation is added before that.
        largest: the largest number instead of the weighted sum.
    """

    tile: Tile | None
    unit: int
    activation: str
    adds: bool
    largest: bool = False


@dataclass(frozen=True)
class Abreast:
    """A product of a sparse matrix with a vector: single pixels, each lane a channel with a list of its own.

    Args:
        lanes: of a vector, and so channels of a group; their lists are equally long.
        bits: of a place, 16 or 32.
        activation: as of :class:`Weighted`.
        adds: whether another activation is added before that.
    """

    lanes: int
    bits: int
    activation: str
    adds: bool


@dataclass(frozen=True)
class Copied:
    """Pixels moved from one place to another, rows of planes.

    Args:
        unit: numbers of a pixel.
        lanes: of a vector, for what lies side by side.
        source, target: ``arena``, or ``tensor``, where the numbers of a pixel lie an image apart.
        stride: 1 or 2, where the pixels of a row are numbers side by side, of which all or every second is taken, and
            are written side by side; 0 for all other rows.
    """

    unit: int
    lanes: int
    source: str
    target: str
    stride: int


@dataclass(frozen=True)
class Border:
    """Zeros (or another number) in the gaps of a plane.

    Args:
        unit: numbers of a pixel.
        lanes: of a vector.
    """

    unit: int
    lanes: int


Kernel = Weighted | Abreast | Copied | Border


def name_of(kernel: Kernel) -> str:
    """Its name in the text."""
    return f"{type(kernel).__name__.lower()}_{hashlib.sha256(repr(kernel).encode()).hexdigest()[:16]}"


WEIGHTED = (
    "read", "write", "added", "tiles", "channels", "begins", "rows", "list", "bias", "row_step", "read_step",
    "write_step",
)  # fmt: skip
ABREAST = ("read", "write", "added", "spare", "groups", "begins", "places", "values", "bias", "targets")
COPIED = (
    "read", "write", "source", "target", "channels", "height", "width", "read_plane", "read_row", "read_pixel",
    "write_plane", "write_row", "write_pixel", "image",
)  # fmt: skip
BORDER = ("write", "lead", "channels", "height", "width", "row", "plane", "bits")
"""Arguments by position; distances in numbers; ``begins``, ``rows``, ``list``, ``bias``, ``places``, ``values`` and
``targets`` are addresses."""


def text_of(kernels: set[Kernel]) -> str:
    """A module with these kernels and ``run``, which calls them in turn for image after image."""
    from llvmlite import ir

    module = ir.Module()
    for kernel in sorted(kernels, key=name_of):
        match kernel:
            case Weighted(tile=None):
                _lone(module, kernel)
            case Weighted():
                _weighted(module, kernel)
            case Abreast():
                _abreast(module, kernel)
            case Copied():
                _copied(module, kernel)
            case Border():
                _border(module, kernel)
    _run(module)
    return str(module)


def _weighted(module: Any, kernel: Weighted) -> None:
    assert kernel.tile is not None
    tile, lanes = kernel.tile, kernel.tile.lanes
    w = Writer(module, name_of(kernel), 3, WEIGHTED)
    a, arena = w.arguments, w.function.args[0]
    read, write, added = (w.at(arena, a[key]) for key in ("read", "write", "added"))
    begins, rows, listed, bias = (w.address(key) for key in ("begins", "rows", "list", "bias"))
    with w.counted(w.number(0), a["tiles"]) as (number, _, _):
        twice = w.b.shl(number, w.number(1))
        read_at = w.load(begins, w.long, twice)
        write_at = w.load(begins, w.long, w.b.add(twice, w.number(1)))
        with w.counted(w.number(0), a["channels"]) as (channel, _, _):
            source = w.at(w.at(read, read_at), w.b.mul(channel, a["read_step"]))
            place = w.b.add(write_at, w.b.mul(channel, a["write_step"]))
            begin, end = _list_of(w, rows, w.b.mul(channel, a["row_step"]))
            start = w.splat(w.load(bias, w.float, channel), lanes)
            with w.counted(begin, end, *[start] * len(tile.read)) as (index, sums, following):
                item = w.b.shl(index, w.number(1))
                far = w.b.sext(w.load(listed, w.int, item), w.long)
                pixel = w.at(source, w.b.mul(far, w.number(kernel.unit)))
                weight = None
                if not kernel.largest:
                    weight = w.splat(w.load(listed, w.float, w.b.add(item, w.number(1))), lanes)
                for total, distance in zip(sums, tile.read, strict=True):
                    value = w.numbers(w.at(pixel, distance), lanes)
                    following.append(w.larger(value, total) if kernel.largest else w.fused(weight, value, total))
            for total, distance, keep in zip(following, tile.write, tile.keep, strict=True):
                value = total
                target = w.b.add(place, w.number(distance))
                if kernel.adds:
                    value = w.b.fadd(value, w.numbers(w.at(added, target), lanes))
                value = w.activated(value, kernel.activation, lanes)
                if keep is not None:
                    mask = w.ir.Constant(w.ir.VectorType(w.ir.IntType(1), lanes), list(keep))
                    value = w.b.select(mask, value, w.constant(0.0, lanes))
                w.store(value, w.at(write, target))
    w.b.ret_void()


def _list_of(w: Writer, rows: Any, row: Any) -> tuple[Any, Any]:
    begin = w.b.sext(w.load(rows, w.int, row), w.long)
    return begin, w.b.sext(w.load(rows, w.int, w.b.add(row, w.number(1))), w.long)


def _lone(module: Any, kernel: Weighted) -> None:
    """One pixel of one number a channel, and one list for all channels: means and maxima of whole planes."""
    w = Writer(module, name_of(kernel), 3, WEIGHTED)
    a, arena = w.arguments, w.function.args[0]
    read, write, added = (w.at(arena, a[key]) for key in ("read", "write", "added"))
    rows, listed, bias = (w.address(key) for key in ("rows", "list", "bias"))

    def step(source: Any, index: Any, total: Any) -> Any:
        """The total after one more weight, or the larger of two values."""
        item = w.b.shl(index, w.number(1))
        value = w.load(source, w.float, w.b.sext(w.load(listed, w.int, item), w.long))
        if kernel.largest:
            return w.larger(value, total)
        return w.fused(w.load(listed, w.float, w.b.add(item, w.number(1))), value, total)

    with w.counted(w.number(0), a["channels"]) as (channel, _, _):
        source = w.at(read, w.b.mul(channel, a["read_step"]))
        begin, end = _list_of(w, rows, w.b.mul(channel, a["row_step"]))
        start = w.load(bias, w.float, channel)
        others = start if kernel.largest else w.constant(0.0, 1)
        whole = w.b.add(begin, w.b.and_(w.b.sub(end, begin), w.number(-LONE)))
        with w.counted(begin, whole, start, *[others] * (LONE - 1), step=LONE) as (index, sums, following):
            for number, total in enumerate(sums):
                following.append(step(source, w.b.add(index, w.number(number)), total))
        while len(following) > 1:
            pairs = zip(following[::2], following[1::2], strict=True)
            following = [w.larger(x, y) if kernel.largest else w.b.fadd(x, y) for x, y in pairs]
        with w.counted(whole, end, following[0]) as (index, (total,), last):
            last.append(step(source, index, total))
        place = w.b.mul(channel, a["write_step"])
        value = last[0]
        if kernel.adds:
            value = w.b.fadd(value, w.load(added, w.float, place))
        w.store(w.activated(value, kernel.activation, 1), w.at(write, place))
    w.b.ret_void()


def _abreast(module: Any, kernel: Abreast) -> None:
    w = Writer(module, name_of(kernel), 3, ABREAST)
    a, arena, lanes = w.arguments, w.function.args[0], kernel.lanes
    read, write, added = (w.at(arena, a[key]) for key in ("read", "write", "added"))
    begins, listed, values, bias, targets = (w.address(key) for key in ABREAST[5:])
    place = w.ir.IntType(kernel.bits)

    def lanes_of(base: Any, kind: Any, first: Any) -> list[Any]:
        """The whole numbers of all lanes from ``first`` on, widened to 64 bits."""
        indices = [w.b.add(first, w.number(lane)) for lane in range(lanes)]
        return [w.b.zext(w.load(base, kind, index, kind.width // 8), w.long) for index in indices]

    w.store(w.constant(0.0, 1), w.at(read, a["spare"]))  # what shorter lists of a group are filled up with
    with w.counted(w.number(0), a["groups"]) as (group, _, _):
        first = w.b.mul(group, w.number(lanes))
        begin, end = _list_of(w, begins, group)
        start = w.numbers(w.at(bias, first), lanes)
        with w.counted(begin, end, start, step=lanes) as (index, (total,), following):
            inputs = w.gathered(read, lanes_of(listed, place, index))
            following.append(w.fused(w.numbers(w.at(values, index), lanes), inputs, total))
        value, outputs = following[0], lanes_of(targets, w.int, first)
        if kernel.adds:
            value = w.b.fadd(value, w.gathered(added, outputs))
        value = w.activated(value, kernel.activation, lanes)
        for lane, output in enumerate(outputs):
            w.store(w.b.extract_element(value, w.ir.Constant(w.int, lane)), w.at(write, output))
    w.b.ret_void()


def _copied(module: Any, kernel: Copied) -> None:
    w = Writer(module, name_of(kernel), 3, COPIED)
    a, (arena, _, tensors) = w.arguments, w.function.args

    def base(side: str, offset: str, index: str) -> Any:
        """Where one side begins: in the arena, or in one of the tensors."""
        if side == "arena":
            return w.at(arena, a[offset])
        return w.at(w.b.inttoptr(w.load(tensors, w.long, a[index]), w.pointer), a[offset])

    read, write = base(kernel.source, "read", "source"), base(kernel.target, "write", "target")
    with w.counted(w.number(0), a["channels"]) as (channel, _, _), w.counted(w.number(0), a["height"]) as (y, _, _):
        source = w.at(w.at(read, w.b.mul(channel, a["read_plane"])), w.b.mul(y, a["read_row"]))
        target = w.at(w.at(write, w.b.mul(channel, a["write_plane"])), w.b.mul(y, a["write_row"]))
        begin = w.number(0)
        if kernel.stride:  # whole vectors, then single numbers
            begin = w.b.and_(a["width"], w.number(-kernel.lanes))
            with w.counted(w.number(0), begin, step=kernel.lanes) as (x, _, _):
                w.store(_every(w, kernel, source, x), w.at(target, x))
        with w.counted(begin, a["width"]) as (x, _, _):
            pixel = w.at(source, w.b.mul(x, a["read_pixel"]))
            place = w.at(target, w.b.mul(x, a["write_pixel"]))
            _pixel(w, kernel, pixel, place, a["image"])
    w.b.ret_void()


def _every(w: Writer, kernel: Copied, source: Any, x: Any) -> Any:
    """A vector of numbers side by side, or of every second."""
    lanes = kernel.lanes
    if kernel.stride == 1:
        return w.numbers(w.at(source, x), lanes)
    first = w.at(source, w.b.shl(x, w.number(1)))
    # the last number of all is not needed, and may lie beyond the memory: the second vector begins one earlier
    pair = w.numbers(first, lanes), w.numbers(w.at(first, lanes - 1), lanes)
    places = [2 * i if 2 * i < lanes else 2 * i + 1 for i in range(lanes)]
    return w.b.shuffle_vector(*pair, w.ir.Constant(w.ir.VectorType(w.int, lanes), places))


def _pixel(w: Writer, kernel: Copied, read: Any, write: Any, image: Any) -> None:
    """The numbers of one pixel: side by side in the arena, an image apart in a tensor."""
    if kernel.source == kernel.target == "arena" and kernel.unit > 1:
        for begin in range(0, kernel.unit, kernel.lanes):
            w.store(w.numbers(w.at(read, begin), kernel.lanes), w.at(write, begin))
        return
    with w.counted(w.number(0), w.number(kernel.unit)) as (number, _, _):
        apart = w.b.mul(number, image)
        value = w.load(read, w.float, apart if kernel.source == "tensor" else number)
        w.store(value, w.at(write, apart if kernel.target == "tensor" else number))


def _border(module: Any, kernel: Border) -> None:
    w = Writer(module, name_of(kernel), 3, BORDER)
    a, arena = w.arguments, w.function.args[0]
    write, unit = w.at(arena, a["write"]), w.number(kernel.unit)
    number = w.b.bitcast(w.b.trunc(a["bits"], w.int), w.float)

    def fill(begin: Any, end: Any) -> None:
        """Write the border's number from pixel ``begin`` to ``end``, in vectors, then singly."""
        many, width = w.b.mul(w.b.sub(end, begin), unit), max(kernel.lanes, kernel.unit)
        place = w.at(write, w.b.mul(begin, unit))
        whole = w.b.and_(many, w.number(-width))
        for lanes, first, last in ((width, w.number(0), whole), (1, whole, many)):
            value = w.splat(number, lanes)
            with w.counted(first, last, step=lanes) as (x, _, _):
                w.store(value, w.at(place, x))

    fill(w.b.neg(a["lead"]), w.number(0))
    with w.counted(w.number(0), a["channels"]) as (channel, _, _):
        first = w.b.mul(channel, a["plane"])
        with w.counted(w.number(0), a["height"]) as (y, _, _):
            row = w.b.add(first, w.b.mul(y, a["row"]))
            fill(w.b.add(row, a["width"]), w.b.add(row, a["row"]))
        fill(w.b.add(first, w.b.mul(a["height"], a["row"])), w.b.add(first, a["plane"]))
    w.b.ret_void()


def _run(module: Any) -> None:
    """``run(arena, steps, tensors, counts)``: all steps, for each image or group of images.

    ``steps`` holds pairs of a kernel and its arguments; ``counts`` the number of steps, of repetitions and of tensors,
    then for each tensor the bytes from one repetition to the next.
    """
    w = Writer(module, "run", 4)
    arena, steps, tensors, counts = w.function.args
    many, times, given = (w.load(counts, w.long, index) for index in range(3))
    kind = w.ir.FunctionType(w.ir.VoidType(), [w.pointer] * 3)
    with w.counted(w.number(0), times) as (_, _, _):
        with w.counted(w.number(0), many) as (index, _, _):
            pair = w.b.shl(index, w.number(1))
            kernel = w.b.inttoptr(w.load(steps, w.long, pair), kind.as_pointer())
            arguments = w.b.inttoptr(w.load(steps, w.long, w.b.add(pair, w.number(1))), w.pointer)
            w.b.call(kernel, [arena, arguments, tensors])
        with w.counted(w.number(0), given) as (index, _, _):
            moved = w.b.add(w.load(tensors, w.long, index), w.load(counts, w.long, w.b.add(index, w.number(3))))
            w.b.store(moved, w.at(tensors, index, w.long)).align = 8
    w.b.ret_void()
