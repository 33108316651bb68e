"""A run of native layers as one call: activations in one arena, steps in a row, no Python between two layers."""

from __future__ import annotations

import ctypes
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from . import kernels
from .kernels import Abreast, Border, Copied, Kernel, Weighted, name_of
from .layers import Layer
from .layout import Plane, Tile, tiles
from .machine import Library
from .segment import Segment, phases_of

LOWEST = struct.unpack("<i", struct.pack("<f", float("-inf")))[0]


@dataclass(eq=False)
class _Value:
    """An activation: its places, and where it lies in the arena, in pixels."""

    plane: Plane
    at: int = -1

    @property
    def first(self) -> int:
        """Its first pixel, behind what is kept free before it."""
        return self.at + self.plane.lead


@dataclass
class Step:
    """A kernel with its arguments."""

    layer: int  # index of the layer that it works for; -1 for entering and leaving
    kernel: Kernel
    arguments: list[int]


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
            """The first free place for ``size`` pixels, which is rounded up to 16."""
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
        p, unit = value.plane, self.unit
        if unit == p.plane == 1:  # single pixels lie side by side on both sides: one row
            channels, width, tokens = 1, channels, False
        outside = (1, width * channels, channels) if tokens else (height * width, width, 1)
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
        residual = self.values[layer.residual] if layer.residual is not None else None
        if unit == 1 and index in segment.weights.groups:
            self._abreast(index, layer, read, value, residual)
            return
        blocks = segment.blocks[index]
        _, height, width = layer.outputs
        pieces: list[tuple[Tile | None, list[tuple[int, int]]]] = [(None, [(0, 0)])]
        if unit > 1 or height * width > 1:
            lanes, most = segment.target.lanes, segment.target.accumulators
            pieces = list(tiles(read.plane.row, value.plane, unit, min(lanes, unit) if unit > 1 else lanes, most))
        step = read.plane.plane * (read.plane.channels // layer.inputs[0]) * unit if layer.shared else 0
        for block in range(blocks):
            listed, rows = segment.weights.pairs(index, block)
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

    def _abreast(self, index: int, layer: Layer, read: _Value, value: _Value, residual: _Value | None) -> None:
        """A layer of single pixels: a vector's worth of channels together."""
        g, lanes = self.segment.weights.groups[index], self.segment.target.lanes
        self._add(
            index, Abreast(lanes, g.bits, layer.activation, residual is not None), kernels.ABREAST,
            read=read.first + g.first, write=value.first, added=(residual or value).first, spare=g.spare,
            groups=len(g.begins) - 1, begins=g.begins.data_ptr(), places=g.places.data_ptr(),
            values=g.values.data_ptr(), bias=g.bias.data_ptr(), targets=g.targets.data_ptr(),
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
        rows, columns = phases_of(layer, 0), phases_of(layer, 1)
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
