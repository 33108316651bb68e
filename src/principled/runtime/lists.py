"""A layer's non-zeros as lists: channel by channel, or those of as many channels as a vector has lanes side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import Plane

Pairs = tuple[Tensor, Tensor]
"""Places and the bits of values, ``(non-zeros, 2)`` int32, and where each channel's begin."""


def pairs_of(channel: Tensor, places: Tensor, values: Tensor, channels: int) -> Pairs:
    """Lists channel by channel.

    Args:
        channel, places, values: of each non-zero, sorted by channel.
        channels: how many lists.
    """
    ends = torch.bincount(channel, minlength=channels).cumsum(0)
    pairs = torch.stack([places.int(), values.view(torch.int32)], 1).contiguous()
    return pairs, torch.cat([ends.new_zeros(1), ends]).int()


@dataclass(frozen=True, eq=False)
class Groups:
    """Lists of channels side by side, a lane each; channels whose lists are about equally long share a group.

    A list shorter than the group's longest is filled up with zeros whose place is a spare pixel, so that they meet no
    NaN and no infinity.

    Args:
        first: what to add to the places.
        spare: the spare pixel's place.
        begins: of each group, counted in numbers.
        places, values: of the non-zeros.
        bias: of each lane.
        targets: where each lane's channel is written; the spare pixel of what is written where there is no channel.
        channel: of each lane.
    """

    first: int
    spare: int
    begins: Tensor
    places: Tensor
    values: Tensor
    bias: Tensor
    targets: Tensor
    channel: Tensor

    @property
    def bits(self) -> int:
        """Of a place."""
        return 8 * self.places.element_size()

    def bytes(self) -> int:
        """All of them."""
        held = (self.begins, self.places, self.values, self.bias, self.targets, self.channel)
        return sum(t.numel() * t.element_size() for t in held)

    def pairs(self, channels: int) -> Pairs:
        """The same lists channel by channel."""
        lanes = len(self.channel) // (len(self.begins) - 1)
        places = self.places.int()
        at = (places != self.spare).nonzero().flatten()
        group = torch.searchsorted(self.begins[1:].long(), at, right=True)
        channel = self.channel[group * lanes + at % lanes]
        order = channel.argsort(stable=True)
        at = at[order]
        return pairs_of(channel[order], places[at] + self.first, self.values[at], channels)


def groups_of(
    channel: Tensor, places: Tensor, values: Tensor, bias: Tensor, read: Plane, out: Plane, lanes: int
) -> Groups:
    """Lists side by side.

    Args:
        channel, places, values: of each non-zero, sorted by channel.
        bias: ``(channels,)``.
        read, out: where the input and the output lie; a channel of the output is one pixel.
        lanes: of a vector.
    """
    counts = torch.bincount(channel, minlength=len(bias))
    order = counts.argsort(descending=True, stable=True)
    number = -(-len(bias) // lanes)
    longest = counts[order[::lanes]]
    begins = torch.cat([longest.new_zeros(1), longest.cumsum(0)]) * lanes
    lane = torch.empty_like(order)
    lane[order] = torch.arange(len(order))
    nth = torch.arange(len(channel)) - (counts.cumsum(0) - counts)[channel]
    at = begins[lane[channel] // lanes] + nth * lanes + lane[channel] % lanes
    first = min(int(places.min()), 0) if len(places) else 0
    spare = read.spare - first
    kind = torch.uint16 if spare < 2**16 else torch.int32
    size, lanes_in_all = int(begins[-1]), number * lanes
    listed = torch.full((size,), spare)
    listed[at] = places - first
    weights = torch.zeros(size)
    weights[at] = values
    start, targets = torch.zeros(lanes_in_all), torch.full((lanes_in_all,), out.spare, dtype=torch.int32)
    start[: len(order)], targets[: len(order)] = bias[order], (order * out.plane).int()
    held = torch.zeros(lanes_in_all, dtype=torch.int32)
    held[: len(order)] = order.int()
    return Groups(first, spare, begins.int(), listed.to(kind), weights, start, targets, held)


class Weights:
    """Lists of a program's weights, by layer and block; programs of other units share them."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], Pairs] = {}
        self.groups: dict[int, Groups] = {}
        self.bias: dict[int, Tensor] = {}
        self.zeros: dict[int, Tensor] = {}

    def pairs(self, index: int, block: int) -> Pairs:
        """A layer's lists channel by channel; made now where only groups are kept."""
        if (index, block) not in self.kept:
            self.kept[index, block] = self.groups[index].pairs(len(self.bias[index]))
        return self.kept[index, block]

    def drop_pairs(self) -> None:
        """Keep only groups where there are groups: no program walks them channel by channel."""
        self.kept = {at: pairs for at, pairs in self.kept.items() if at[0] not in self.groups}

    def bytes(self) -> int:
        """All of them."""
        lists = sum(t.numel() * 4 for pair in self.kept.values() for t in pair)
        lists += sum(groups.bytes() for groups in self.groups.values())
        return lists + 4 * sum(t.numel() for group in (self.bias, self.zeros) for t in group.values())
