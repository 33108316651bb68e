"""A layer as the runtime sees it: a walk over lists, whatever PyTorch calls it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx

from .capture import Shape

SHORT = 32
"""Weights of an output channel up to which a full layer is walked as a list: depthwise convolutions and first layers.
What leaving and entering the runtime's layout costs is more than what a dense kernel gains there."""

FEW = 8192
"""Products of an image up to which a full layer is walked as a list: a last layer of ten classes, a squeezed image's
convolutions. A call of PyTorch takes longer (20 µs) than the walk (up to 5 µs), for batches of 1 to 64."""


class Unknown(Exception):
    """The runtime leaves this node to PyTorch."""


@dataclass(eq=False)
class Layer:
    """One walk over lists.

    Args:
        title: the module's or function's name, for people.
        sources: nodes that are read; several only where channels are joined.
        inputs, outputs: ``(channels, height, width)`` of the (joined) source and of the result.
        shape: of the result in PyTorch, without the batch.
        tokens: whether PyTorch's order has the channels last.
        weight: ``(outputs, inputs of a group, rows, columns)``; ``(1, 1, rows, columns)`` where all channels share it.
        bias: ``(outputs,)``, or None for zeros.
        stride, padding, dilation: rows, columns.
        shared: every channel is by itself, with the same weights.
        largest: the largest of the window, not the weighted sum.
        native: whether a sparse kernel computes it, or PyTorch's dense one.
        residual: a node that is added before the activation.
    """

    title: str
    kind: str
    sources: tuple[fx.Node, ...]
    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    shape: Shape
    tokens: bool
    weight: Tensor
    bias: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    shared: bool = False
    largest: bool = False
    native: bool = True
    residual: fx.Node | None = None
    activation: str = ""
    zeros: float | None = None
    weight_size: tuple[int, int] = (1, 1)

    @property
    def open(self) -> bool:
        """Whether a sum can still be taken in."""
        return not (self.activation or self.residual is not None or self.largest)
