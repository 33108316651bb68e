"""A run of native layers as one call: activations in one arena, steps in a row, no Python between two layers."""

from __future__ import annotations

import ctypes
import math
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from . import kernels
from .kernels import Border, Copied, Kernel, Weighted, name_of
from .layout import Pads, Plane, Tile, plane, tiles
from .lowering import Layer
from .machine import Library, Target

NEAR = 24 * 1024
"""Bytes of the inputs of one tile that fit the first-level cache, with room for weights; every core of the last ten
years has at least 32 KiB. Of more inputs, a layer is walked in blocks."""
FAR = 1.3
"""What a multiply-add costs beyond one, where its input comes from the second-level cache."""
LOWEST = struct.unpack("<i", struct.pack("<f", float("-inf")))[0]


@dataclass(eq=False)
class _Value:
    """An activation: its places, and where it lies in the arena, in pixels."""

    plane: Plane
    at: int = -1

    @property
    def first(self) -> int:
        return self.at + self.plane.lead


@dataclass
class Step:
    """A kernel with its arguments."""

    layer: int  # index of the layer that it works for; -1 for entering and leaving
    kernel: Kernel
    arguments: list[int]


class Weights:
    """Lists of a program's weights, by layer and block; programs of other units share them."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.bias: dict[int, Tensor] = {}
        self.zeros: dict[int, Tensor] = {}

    def bytes(self) -> int:
        """All of them."""
        lists = sum(t.numel() * 4 for pair in self.kept.values() for t in pair)
        return lists + 4 * sum(t.numel() for group in (self.bias, self.zeros) for t in group.values())


class Segment:
    """Native layers between tensors of PyTorch: what comes in, what is computed, what goes out.

    Args:
        layers: by node, in an order in which they can be computed.
        inputs: shapes and order of the tensors that come in: ``{node: ((channels, height, width), tokens)}``.
        outputs: nodes that are read elsewhere.
        target: the processor.
    """

    def __init__(
        self,
        layers: Mapping[fx.Node, Layer],
        inputs: Mapping[fx.Node, tuple[tuple[int, int, int], bool]],
        outputs: Sequence[fx.Node],
        target: Target,
    ) -> None:
        self.names, self.layers = list(layers), list(layers.values())
        self.inputs, self.outputs, self.target = dict(inputs), list(outputs), target
        self.planes = self._planes()
        self.weights = Weights()
        self.blocks = [self._list(index, layer) for index, layer in enumerate(self.layers)]
        for layer in self.layers:
            layer.weight = torch.empty(0)  # from here on only the lists are kept
        self.shapes = [layers[node].shape for node in self.outputs]
        numbers = [math.prod(size) for size, _ in self.inputs.values()] + [math.prod(shape) for shape in self.shapes]
        self.image_bytes = [4 * count for count in numbers]

    # -- places --------------------------------------------------------------------------------------------------------

    def _planes(self) -> dict[fx.Node, Plane]:
        sizes = {node: size for node, (size, _) in self.inputs.items()}
        sizes |= {node: layer.outputs for node, layer in zip(self.names, self.layers, strict=True)}
        pads = dict.fromkeys(sizes, Pads())
        for layer in self.layers:
            if not _moves(layer):
                pads[layer.sources[0]] |= _reach(layer)
        while True:  # what is added lies as what it is added to
            before = dict(pads)
            for node, layer in zip(self.names, self.layers, strict=True):
                if layer.residual is not None:
                    pads[node] = pads[layer.residual] = pads[node] | pads[layer.residual]
            if pads == before:
                break
        return {node: plane(*size, pads[node], self.target.lanes) for node, size in sizes.items()}

    def moved(self, index: int) -> Plane | None:
        """Where a layer reads a copy of its source with pixels rearranged: for strides, maxima, joined channels."""
        layer = self.layers[index]
        if not _moves(layer):
            return None
        channels, _, _ = layer.inputs
        out = self.planes[self.names[index]]
        if len(layer.sources) > 1:
            return plane(*layer.inputs, Pads(), self.target.lanes)
        phases = [_phases(layer, axis) for axis in (0, 1)]
        high, wide = (
            layer.outputs[1 + axis] + layer.dilation[axis] * (layer.weight_size[axis] - 1) // layer.stride[axis]
            for axis in (0, 1)
        )
        row = max(wide, out.row)
        return Plane(channels * len(phases[0]) * len(phases[1]), high, wide, row, high * row, 0, False)

    # -- weights -------------------------------------------------------------------------------------------------------

    def _list(self, index: int, layer: Layer) -> int:
        """Keep a layer's non-zeros as places and values, in blocks of input channels; returns how many blocks."""
        layer.weight_size = (layer.weight.shape[2], layer.weight.shape[3])
        read = self.moved(index) or self.planes[layer.sources[0]]
        out, _, y, x = where = layer.weight.nonzero(as_tuple=True)
        values = layer.weight[where]
        group = layer.weight.shape[1]
        channel = where[1]
        if not layer.shared:
            channel = channel + out.div(layer.outputs[0] // layer.groups, rounding_mode="floor") * group
        if _moves(layer) and len(layer.sources) == 1:
            places = self._phase_places(layer, read, channel, y, x)
        else:
            places = channel * read.plane
            places += (y * layer.dilation[0] - layer.padding[0]) * read.row
            places += x * layer.dilation[1] - layer.padding[1]
        rows = layer.weight.shape[0]
        blocks = self._count_blocks(layer, read, self.planes[self.names[index]], len(values))
        block = channel * blocks // max(layer.inputs[0], 1)
        for number in range(blocks):
            chosen = block == number
            counts = torch.bincount(out[chosen], minlength=rows).cumsum(0)
            pairs = torch.stack([places[chosen].int(), values[chosen].view(torch.int32)], 1).contiguous()
            self.weights.kept[index, number] = pairs, torch.cat([torch.zeros(1, dtype=counts.dtype), counts]).int()
        start = float("-inf") if layer.largest else 0.0
        bias = torch.full((layer.outputs[0],), start) if layer.bias is None else layer.bias.detach().float().clone()
        self.weights.bias[index] = bias
        if blocks > 1:
            self.weights.zeros[index] = torch.zeros(layer.outputs[0])
        layer.bias = None
        return blocks

    def _phase_places(self, layer: Layer, read: Plane, channel: Tensor, y: Tensor, x: Tensor) -> Tensor:
        phases = [_phases(layer, axis) for axis in (0, 1)]
        number, distance = [], []
        for axis, at in enumerate((y, x)):
            far = at * layer.dilation[axis]
            table = torch.tensor([phases[axis].index(i) if i in phases[axis] else 0 for i in range(layer.stride[axis])])
            number.append(table[far % layer.stride[axis]])
            distance.append(far // layer.stride[axis])
        which = (channel * len(phases[0]) + number[0]) * len(phases[1]) + number[1]
        return which * read.plane + distance[0] * read.row + distance[1]

    def _count_blocks(self, layer: Layer, read: Plane, out: Plane, kept: int) -> int:
        """Blocks of input channels whose part under a tile stays near; one where a block's lists would be too short."""
        if layer.shared or layer.groups > 1 or layer.outputs[1] * layer.outputs[2] == 1 or kept == 0:
            return 1
        tile = tiles(read.row, out, 1, self.target.lanes, self.target.accumulators)[0][0]
        rows = {position // max(read.row, 1) for position in tile.read}
        high = len(rows) + (layer.weight_size[0] - 1) * layer.dilation[0]
        wide = max(position % read.row for position in tile.read) + tile.lanes + layer.weight_size[1]
        near = max(NEAR // (4 * high * min(wide, read.row) * layer.stride[0] * layer.stride[1]), 1)
        blocks = -(-layer.inputs[0] // near)
        each, vectors = kept / layer.outputs[0], len(tile.read)
        extra = (blocks - 1) * (2.5 * vectors + 12)
        return blocks if extra < each * vectors * FAR else 1


def _moves(layer: Layer) -> bool:
    padded = layer.largest and layer.padding != (0, 0)
    return layer.stride != (1, 1) or padded or len(layer.sources) > 1


def _reach(layer: Layer) -> Pads:
    """Zeros that a layer reads around its source."""
    sides = []
    for axis in (0, 1):
        reach = layer.dilation[axis] * (layer.weight.shape[2 + axis] - 1)
        behind = layer.outputs[1 + axis] + reach - layer.inputs[1 + axis] - layer.padding[axis]
        sides.append(max(layer.padding[axis], behind, 0))
    return Pads(*sides)


def _phases(layer: Layer, axis: int) -> list[int]:
    """Which of the pixels modulo the stride a window touches."""
    size, dilation, stride = layer.weight_size[axis], layer.dilation[axis], layer.stride[axis]
    return sorted({place * dilation % stride for place in range(size)})


class Program:
    """The steps of a segment for one unit, with their arena laid out.

    Args:
        segment: layers, places and lists.
        unit: images side by side in a pixel.
    """

    def __init__(self, segment: Segment, unit: int) -> None:
        self.segment, self.unit = segment, unit
        self.values = {node: _Value(place) for node, place in segment.planes.items()}
        self._copies: dict[int, _Value] = {}
        self.steps: list[Step] = []
        self._held: list[Tensor] = []
        self.pixels = self._lay_out()
        written = self._write({})  # what each place holds at the end of a run
        self.steps, self._held = [], []
        self._write(written)
        kinds = {step.kernel for step in self.steps}
        self._library = Library(kernels.text_of(kinds), [*(name_of(kind) for kind in kinds), "run"], segment.target)
        address = self._library.address
        self._arguments = [torch.tensor(step.arguments, dtype=torch.int64) for step in self.steps]
        pairs = [
            (address[name_of(step.kernel)], row.data_ptr())
            for step, row in zip(self.steps, self._arguments, strict=True)
        ]
        self._table = torch.tensor(pairs, dtype=torch.int64)
        self._run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(address["run"])
        self._table_at = self._table.data_ptr()
        self._arenas: deque[Tensor] = deque()
        self._strides = [len(segment.image_bytes), *(size * unit for size in segment.image_bytes)]
        tensors = len(segment.image_bytes)
        self._addresses, self._counts = ctypes.c_int64 * tensors, ctypes.c_int64 * (3 + tensors)

    # -- the arena -----------------------------------------------------------------------------------------------------

    def _lay_out(self) -> int:
        """Give every value a place that is free while it is needed; returns the pixels of all."""
        segment = self.segment
        last = dict.fromkeys(segment.inputs, -1)
        for index, (node, layer) in enumerate(zip(segment.names, segment.layers, strict=True)):
            last[node] = index
            for read in (*layer.sources, *([layer.residual] if layer.residual is not None else [])):
                last[read] = index
        for node in segment.outputs:
            last[node] = len(segment.layers)
        taken: list[tuple[int, int, fx.Node | int]] = []
        total = 0

        def reserve(size: int, owner: fx.Node | int) -> int:
            nonlocal total
            size = -(-size // 16) * 16
            begin = 0
            for first, end, _ in sorted(taken, key=lambda place: place[0]):
                if begin + size <= first:
                    break
                begin = max(begin, end)
            taken.append((begin, begin + size, owner))
            total = max(total, begin + size)
            return begin

        for node in segment.inputs:
            self.values[node].at = reserve(self.values[node].plane.size, node)
        for index, (node, layer) in enumerate(zip(segment.names, segment.layers, strict=True)):
            value, rest = self.values[node], layer.residual
            if (moved := segment.moved(index)) is not None:
                self._copies[index] = _Value(moved, reserve(moved.size, index))
            if rest is not None and last[rest] == index and rest not in layer.sources:
                value.at = self.values[rest].at  # added in place
                taken[:] = [(a, b, node if owner is rest else owner) for a, b, owner in taken]
            else:
                value.at = reserve(value.plane.size, node)
            taken[:] = [place for place in taken if place[2] != index and not _over(place[2], last, index)]
        return total

    def bytes(self) -> int:
        """Of one arena."""
        return 4 * self.pixels * self.unit

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _write(self, holds: Mapping[tuple[int, int], Any]) -> dict[tuple[int, int], Any]:
        """Write all steps; ``holds`` says whose gaps are in which range of the arena when a run begins."""
        self._holds = dict(holds)
        segment = self.segment
        for number, (node, (size, tokens)) in enumerate(segment.inputs.items()):
            self._border(-1, self.values[node])
            self._transfer(number, self.values[node], size, tokens, entering=True)
        for index, node in enumerate(segment.names):
            self._layer(index, node)
        for number, node in enumerate(segment.outputs, len(segment.inputs)):
            layer = segment.layers[segment.names.index(node)]
            self._transfer(number, self.values[node], layer.outputs, layer.tokens, entering=False)
        return self._holds

    def _add(self, index: int, kernel: Kernel, names: Sequence[str], **arguments: int) -> None:
        self.steps.append(Step(index, kernel, [arguments[name] for name in names]))

    def _border(self, index: int, value: _Value) -> None:
        """Zeros into the gaps of a value, unless they are there from the last value in its place."""
        place, p = (value.at, value.at + value.plane.size), value.plane
        fits = self._holds.get(place) == p
        for other in [other for other in self._holds if other[0] < place[1] and place[0] < other[1]]:
            del self._holds[other]
        self._holds[place] = p
        if p.padded and not fits:
            self._gaps(index, value, p, 0)

    def _gaps(self, index: int, value: _Value, p: Plane, bits: int) -> None:
        """A number, given by its bits, into all that is no pixel of a plane."""
        self._add(
            index, Border(self.unit, self.segment.target.lanes), kernels.BORDER, write=value.first * self.unit,
            lead=p.lead, channels=p.channels, height=p.height, width=p.width, row=p.row, plane=p.plane, bits=bits,
        )  # fmt: skip

    def _transfer(self, number: int, value: _Value, size: tuple[int, int, int], tokens: bool, entering: bool) -> None:
        """A tensor of PyTorch into the arena, or back; a pixel's numbers lie an image apart there."""
        channels, height, width = size
        outside = (1, width * channels, channels) if tokens else (height * width, width, 1)
        p, unit = value.plane, self.unit
        inside = (p.plane * unit, p.row * unit, unit)
        first = value.first * unit
        read, write = (outside, inside) if entering else (inside, outside)
        kernel = Copied(
            unit, self.segment.target.lanes, *(("tensor", "arena") if entering else ("arena", "tensor")),
            stride=int(unit == 1 and not tokens),
        )  # fmt: skip
        self._add(
            -1, kernel, kernels.COPIED, read=0 if entering else first, write=first if entering else 0, source=number,
            target=number, channels=channels, height=height, width=width, read_plane=read[0], read_row=read[1],
            read_pixel=read[2], write_plane=write[0], write_row=write[1], write_pixel=write[2],
            image=channels * height * width,
        )  # fmt: skip

    def _layer(self, index: int, node: fx.Node) -> None:
        segment, layer, unit = self.segment, self.segment.layers[index], self.unit
        value, read = self.values[node], self.values[layer.sources[0]]
        if index in self._copies:
            read = self._copies[index]
            self._rearrange(index, layer, read)
        self._border(index, value)
        blocks = segment.blocks[index]
        _, height, width = layer.outputs
        pieces: list[tuple[Tile | None, list[tuple[int, int]]]] = [(None, [(0, 0)])]
        if unit > 1 or height * width > 1:
            lanes, most = segment.target.lanes, segment.target.accumulators
            pieces = list(tiles(read.plane.row, value.plane, unit, min(lanes, unit) if unit > 1 else lanes, most))
        residual = self.values[layer.residual] if layer.residual is not None else None
        step = read.plane.plane * (read.plane.channels // layer.inputs[0]) * unit if layer.shared else 0
        for block in range(blocks):
            listed, rows = segment.weights.kept[index, block]
            bias = segment.weights.bias[index] if block == 0 else segment.weights.zeros[index]
            added = residual if block == 0 else value
            ends = block == blocks - 1
            for tile, begins in pieces:
                where = torch.tensor(begins, dtype=torch.int64)
                self._held.append(where)
                kernel = Weighted(tile, unit, layer.activation if ends else "", added is not None, layer.largest)
                self._add(
                    index, kernel, kernels.WEIGHTED, read=read.first * unit, write=value.first * unit,
                    added=(added or value).first * unit, tiles=len(begins), channels=layer.outputs[0],
                    begins=where.data_ptr(), rows=rows.data_ptr(), list=listed.data_ptr(), bias=bias.data_ptr(),
                    row_step=0 if layer.shared else 1, read_step=step, write_step=value.plane.plane * unit,
                )  # fmt: skip

    def _rearrange(self, index: int, layer: Layer, copy: _Value) -> None:
        """A layer's source as it wants to read it: channels joined, or pixels sorted by their remainder."""
        self._border(index, copy)
        channel = 0
        if len(layer.sources) > 1:
            for part in layer.sources:
                p = self.values[part].plane
                self._move(index, self.values[part], 0, copy, copy.plane.at(channel, 0, 0), (p.height, p.width),
                           (1, 1), 1, p.channels)  # fmt: skip
                channel += p.channels
            return
        source = self.values[layer.sources[0]]
        rows, columns = _phases(layer, 0), _phases(layer, 1)
        everything = Plane(1, 0, 0, 0, copy.plane.channels * copy.plane.plane, 0, True)
        self._gaps(index, copy, everything, LOWEST if layer.largest else 0)
        for number, (row, column) in enumerate((row, column) for row in rows for column in columns):
            (y, to_y, high), (x, to_x, wide) = (
                _overlap(phase, layer.stride[axis], layer.padding[axis], layer.inputs[1 + axis], size)
                for axis, phase, size in ((0, row, copy.plane.height), (1, column, copy.plane.width))
            )
            if high > 0 and wide > 0:
                self._move(index, source, source.plane.at(0, y, x), copy, copy.plane.at(number, to_y, to_x),
                           (high, wide), layer.stride, len(rows) * len(columns), layer.inputs[0])  # fmt: skip

    def _move(
        self, index: int, source: _Value, at: int, copy: _Value, to: int, size: tuple[int, int],
        stride: tuple[int, int], planes: int, channels: int,
    ) -> None:  # fmt: skip
        unit, p, q = self.unit, source.plane, copy.plane
        beside = stride[1] if unit == 1 and stride[1] < 3 else 0
        kernel = Copied(unit, self.segment.target.lanes, "arena", "arena", beside)
        self._add(
            index, kernel, kernels.COPIED, read=(source.first + at) * unit, write=(copy.first + to) * unit, source=0,
            target=0, channels=channels, height=size[0], width=size[1], read_plane=p.plane * unit,
            read_row=p.row * stride[0] * unit, read_pixel=stride[1] * unit, write_plane=q.plane * planes * unit,
            write_row=q.row * unit, write_pixel=unit, image=0,
        )  # fmt: skip

    # -- running -------------------------------------------------------------------------------------------------------

    def __call__(self, addresses: Sequence[int], times: int) -> None:
        """Compute.

        Args:
            addresses: of the first image of each input, then of each output.
            times: images, or groups of ``unit`` images.
        """
        self._call(self._table_at, self._counts(len(self.steps), times, *self._strides), addresses)

    def only(self, first: int, many: int, addresses: Sequence[int], times: int) -> None:
        """Repeat some steps on the same image, to see how long they take."""
        self._call(self._table_at + 16 * first, self._counts(many, times, len(addresses)), addresses)

    def _call(self, table: int, counts: Any, addresses: Sequence[int]) -> None:
        try:
            arena = self._arenas.pop()  # memory that no other call uses
        except IndexError:
            arena = torch.zeros(self.pixels * self.unit)
        self._run(arena.data_ptr(), table, self._addresses(*addresses), counts)
        self._arenas.append(arena)


def _over(owner: Any, last: Mapping[fx.Node, int], index: int) -> bool:
    return isinstance(owner, fx.Node) and last[owner] <= index


def _overlap(phase: int, stride: int, padding: int, size: int, places: int) -> tuple[int, int, int]:
    """Along one axis: the first pixel of the image that a phase holds, its place there, and how many follow."""
    first = max(-(-(padding - phase) // stride), 0)
    begin = first * stride + phase - padding
    return begin, first, min(-(-(size - begin) // stride), places - first)
