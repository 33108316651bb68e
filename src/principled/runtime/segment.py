"""Native layers between two tensors of PyTorch: where each activation lies, and the weights as lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from .layers import Layer
from .layout import Pads, Plane, plane, tiles
from .lists import Weights, groups_of, pairs_of
from .machine import Target

NEAR = 24 * 1024
"""Bytes of the inputs of one tile that fit the first-level cache, with room for weights; every core of the last ten
years has at least 32 KiB. Of more inputs, a layer is walked in blocks."""
FAR = 1.3
"""What a multiply-add costs beyond one, where its input comes from the second-level cache."""


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
            if not moves(layer):
                pads[layer.sources[0]] |= reach_of(layer)
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
        if not moves(layer):
            return None
        channels, _, _ = layer.inputs
        out = self.planes[self.names[index]]
        if len(layer.sources) > 1:
            return plane(*layer.inputs, Pads(), self.target.lanes)
        phases = [phases_of(layer, axis) for axis in (0, 1)]
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
        if moves(layer) and len(layer.sources) == 1:
            places = self._phase_places(layer, read, channel, y, x)
        else:
            places = channel * read.plane
            places += (y * layer.dilation[0] - layer.padding[0]) * read.row
            places += x * layer.dilation[1] - layer.padding[1]
        start = float("-inf") if layer.largest else 0.0
        bias = torch.full((layer.outputs[0],), start) if layer.bias is None else layer.bias.detach().float().clone()
        self.weights.bias[index] = bias
        written = self.planes[self.names[index]]
        blocks = self._count_blocks(layer, read, written, len(values))
        if layer.outputs[1] * layer.outputs[2] == 1 and not layer.shared:
            lanes = self.target.lanes
            self.weights.groups[index] = groups_of(out, places, values, bias, read, written, lanes)
        else:
            block = channel * blocks // max(layer.inputs[0], 1)
            for number in range(blocks):
                which = block == number
                lists = pairs_of(out[which], places[which], values[which], layer.weight.shape[0])
                self.weights.kept[index, number] = lists
        if blocks > 1:
            self.weights.zeros[index] = torch.zeros(layer.outputs[0])
        layer.bias = None
        return blocks

    def _phase_places(self, layer: Layer, read: Plane, channel: Tensor, y: Tensor, x: Tensor) -> Tensor:
        phases = [phases_of(layer, axis) for axis in (0, 1)]
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


def moves(layer: Layer) -> bool:
    """Whether a layer's source is laid out anew before it: for strides, padded maxima, joined channels."""
    padded = layer.largest and layer.padding != (0, 0)
    return layer.stride != (1, 1) or padded or len(layer.sources) > 1


def reach_of(layer: Layer) -> Pads:
    """Zeros that a layer reads around its source."""
    sides = []
    for axis in (0, 1):
        reach = layer.dilation[axis] * (layer.weight.shape[2 + axis] - 1)
        behind = layer.outputs[1 + axis] + reach - layer.inputs[1 + axis] - layer.padding[axis]
        sides.append(max(layer.padding[axis], behind, 0))
    return Pads(*sides)


def phases_of(layer: Layer, axis: int) -> list[int]:
    """Which of the pixels modulo the stride a window touches."""
    size, dilation, stride = layer.weight_size[axis], layer.dilation[axis], layer.stride[axis]
    return sorted({place * dilation % stride for place in range(size)})
