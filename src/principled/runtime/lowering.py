"""Layers that the runtime computes itself, read off a graph, with what follows them taken in.

BatchNorm goes into the weights before it, a sum of two branches and ReLU into the layer that ends there. Everything
that the kernels do is one thing, a list of places and values for each output channel: a convolution, a linear layer, an
average, a normalisation by itself; the largest of a window is the same walk with another operation.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .capture import Shape
from .layers import FEW, SHORT, Layer, Unknown
from .thresholds import SMALL


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple | list) else value)


def _two(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple | list) and len(value) == 2 else (value, value)
    if isinstance(first, tuple | list):
        raise Unknown
    return int(first), int(second)


class Lowering:
    """Walks a graph once; ``layers`` then holds what the runtime computes, by the node that it stands for.

    Args:
        module: the graph, which is changed: what does nothing in evaluation is taken out.
        shapes: of its nodes.
        threshold: ``(of a layer's kind) -> the share of non-zeros`` up to which it runs on a sparse kernel.
    """

    def __init__(
        self, module: fx.GraphModule, shapes: Mapping[fx.Node, Shape], threshold: Callable[[str], float]
    ) -> None:
        self.module, self.shapes, self._threshold = module, shapes, threshold
        self.layers: dict[fx.Node, Layer] = {}
        self._node: fx.Node
        for node in list(module.graph.nodes):
            self._node = node
            try:
                self._lower(node)
            except Unknown:
                continue

    def _lower(self, node: fx.Node) -> None:
        title = str(node.target)
        if node.op == "call_module":
            called = self.module.get_submodule(title)
            kind = _plain_kind(called)
            if node.kwargs or kind is None:
                raise Unknown
            layer = MODULES[kind](self, called, *node.args)
        elif node.op == "call_function" and node.target in FUNCTIONS:
            title = node.name
            layer = FUNCTIONS[node.target](self, *node.args, **node.kwargs)
        elif node.op == "call_method" and node.target in METHODS:
            title = node.name
            layer = METHODS[node.target](self, *node.args, **node.kwargs)
        else:
            raise Unknown
        if isinstance(layer, fx.Node):  # does nothing
            node.replace_all_uses_with(layer)
            self.module.graph.erase_node(node)
        else:
            layer.title = layer.title or title
            self.layers[node] = layer

    # -- what is asked of nodes ----------------------------------------------------------------------------------------

    def _shape(self, node: Any) -> Shape:
        if not isinstance(node, fx.Node) or node not in self.shapes:
            raise Unknown
        return self.shapes[node]

    def _image(self, node: Any) -> tuple[int, int, int]:
        """``(channels, height, width)`` of a node whose channels come first."""
        shape = self._shape(node)
        if len(shape) > 3 or (node in self.layers and self.layers[node].tokens):
            raise Unknown
        channels, *rest = shape
        return channels, 1 if len(rest) < 2 else rest[0], rest[-1] if rest else 1

    def _constant(self, value: Any) -> Tensor | None:
        if value is None or isinstance(value, Tensor):
            return value
        if isinstance(value, fx.Node) and value.op == "get_attr":
            held: Any = self.module
            for name in str(value.target).split("."):
                held = getattr(held, name)
            if isinstance(held, Tensor):
                return held
        raise Unknown

    def _native(self, node: Any) -> Layer:
        """The layer behind a node, if a kernel of the runtime computes it."""
        layer = self.layers.get(node)
        if layer is None or not layer.native:
            raise Unknown
        return layer

    def _alone(self, node: Any) -> Layer | None:
        """The layer behind a node that nobody else reads, if it can still take something in."""
        layer = self.layers.get(node)
        return layer if layer is not None and len(node.users) == 1 and layer.open else None

    # -- layers with weights -------------------------------------------------------------------------------------------

    def _weighted(self, layer: Layer) -> Layer:
        """Decide who computes it."""
        weight = layer.weight
        kept, pixels = int((weight != 0).sum()), layer.outputs[1] * layer.outputs[2]
        share = kept / max(weight.numel(), 1)
        layer.zeros = 1 - share
        small = layer.kind == "convolution" and weight.numel() * pixels <= SMALL
        many = share > self._threshold("small convolution" if small else layer.kind)
        layer.native = not many or weight[0].numel() <= SHORT or kept * pixels <= FEW
        return layer

    def conv(
        self, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> Layer:  # fmt: skip
        """F.conv1d and F.conv2d."""
        inputs = self._image(input)
        shape = self._shape(self._node)
        kernel = self._constant(weight)
        if kernel is None or kernel.dtype != torch.float32 or len(shape) != len(self._shape(input)):
            raise Unknown
        flat = kernel.dim() == 3
        if flat:
            kernel = kernel.unsqueeze(2)
            stride, dilation = (1, _one(stride)), (1, _one(dilation))
            padding = padding if isinstance(padding, str) else (0, _one(padding))
        stride, dilation = _two(stride), _two(dilation)
        if padding == "valid":
            padding = 0
        uneven = False
        if padding == "same":
            reach = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
            uneven = any(r % 2 for r in reach)
            padding = tuple(r // 2 for r in reach)  # PyTorch puts the larger half behind
        outputs = (shape[0], 1 if len(shape) < 3 else shape[1], shape[-1])
        layer = self._weighted(
            Layer(
                "", "convolution", (input,), inputs, outputs, shape, False, kernel.detach(), self._constant(bias),
                stride, _two(padding), dilation, groups,
            )
        )  # fmt: skip
        if uneven and not layer.native:
            raise Unknown  # F.conv2d pads both sides alike
        return layer

    def linear(self, input: Any, weight: Any, bias: Any = None) -> Layer:
        """F.linear: on one vector an image (flattened planes are read where they are), or on many."""
        matrix, offset, shape = self._constant(weight), self._constant(bias), self._shape(self._node)
        if matrix is None or matrix.dtype != torch.float32 or matrix.dim() != 2:
            raise Unknown
        given = self._shape(input)
        outputs, width = matrix.shape
        matrix = matrix.detach()
        if len(given) > 1:
            if input in self.layers and not self.layers[input].tokens:
                raise Unknown
            pixels = math.prod(given[:-1])
            sizes = (width, 1, pixels), (outputs, 1, pixels)
            kernel, source = matrix.view(outputs, width, 1, 1), input
        else:
            source = self._before_flattening(input)
            inputs = self._image(source) if source is not input else (width, 1, 1)
            sizes = inputs, (outputs, 1, 1)
            kernel = matrix.reshape(outputs, *inputs)
        layer = Layer("", "linear", (source,), *sizes, shape, len(given) > 1, kernel, offset)
        layer = self._weighted(layer)
        if not layer.native and source is not input:  # the dense one wants it flattened
            layer.sources, layer.inputs = (input,), (width, 1, 1)
            layer.weight = matrix.view(outputs, width, 1, 1)
        return layer

    def _before_flattening(self, node: fx.Node) -> fx.Node:
        """The planes that a node holds as one vector, if it does nothing else."""
        if node.op == "call_module":
            flattens = isinstance(self.module.get_submodule(str(node.target)), nn.Flatten)
        else:
            flattens = node.target in (torch.flatten, "flatten", "view", "reshape")
        if flattens and node.args and isinstance(node.args[0], fx.Node):
            source = node.args[0]
            behind = self.layers.get(source)
            planes = behind is not None and behind.native and not behind.tokens
            if planes and math.prod(self._shape(source)) == self._shape(node)[0]:
                return source
        return node

    def batch_norm(
        self, input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
        training: Any = False, momentum: Any = 0.1, eps: float = 1e-5,
    ) -> Layer:  # fmt: skip
        """F.batch_norm in evaluation: into the weights before it, or a product for each channel."""
        mean, variance = self._constant(running_mean), self._constant(running_var)
        if mean is None or variance is None or training is True:
            raise Unknown
        factor = (variance.double() + eps).rsqrt()
        if (gain := self._constant(weight)) is not None:
            factor = factor * gain.detach().double()
        shift = -mean.double() * factor
        if (offset := self._constant(bias)) is not None:
            shift = shift + offset.detach().double()
        before = self._alone(input)
        if before is None or before.shared or before.tokens or before.outputs[0] != len(factor):
            self._native(input)
            inputs = self._image(input)
            kernel = factor.float().view(-1, 1, 1, 1)
            return Layer("", "normalisation", (input,), inputs, inputs, self._shape(self._node), False, kernel,
                         shift.float(), groups=inputs[0])  # fmt: skip
        old = 0.0 if before.bias is None else before.bias.detach().double()
        before.weight = (before.weight.double() * factor.view(-1, 1, 1, 1)).float()
        before.bias = (old * factor + shift).float()
        return self._moved(input)

    def _moved(self, node: fx.Node) -> Layer:
        """The layer of another node, which now stands for this one too."""
        layer = self.layers.pop(node)
        layer.shape = self._shape(self._node)
        return layer

    # -- what follows a layer, or stands alone between two -------------------------------------------------------------

    def _pointwise(self, kind: str, input: Any) -> Layer:
        before = self._native(input)
        ones = torch.ones(1, 1, 1, 1)
        return Layer("", kind, (input,), before.outputs, before.outputs, self._shape(self._node), before.tokens, ones,
                     shared=True)  # fmt: skip

    def activation(self, name: str, input: Any) -> Layer:
        """ReLU and its like."""
        layer = self.layers.get(input)
        if layer is not None and len(input.users) == 1 and not layer.activation and not layer.largest:
            layer = self._moved(input)
        else:
            layer = self._pointwise("activation", input)
        layer.activation = name
        return layer

    def hardtanh(self, input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Layer:
        """Only as ReLU6."""
        if (min_val, max_val) != (0.0, 6.0):
            raise Unknown
        return self.activation("relu6", input)

    def add(self, input: Any, other: Any, *, alpha: float = 1) -> Layer:
        """The sum of two branches, in the layer that ends one of them."""
        if alpha != 1 or input is other or self._shape(input) != self._shape(other):
            raise Unknown
        for branch, rest in ((input, other), (other, input)):
            behind = self.layers.get(rest)
            layer = self._alone(branch)
            if layer is None and branch in self.layers and self.layers[branch].native:
                layer = self._pointwise("sum", branch)
            elif layer is not None and (behind is None or behind.tokens == layer.tokens):
                layer = self._moved(branch)
            else:
                continue
            if behind is not None and behind.tokens != layer.tokens:
                continue
            layer.residual = rest
            return layer
        raise Unknown

    def cat(self, tensors: Any, dim: int = 0) -> Layer:
        """Channels joined."""
        if dim != 1 or not isinstance(tensors, tuple | list):
            raise Unknown
        parts = [self._native(node) for node in tensors]
        shape = self._shape(self._node)
        if any(part.tokens for part in parts) or len(shape) != 3:
            raise Unknown
        outputs = (shape[0], shape[1], shape[2])
        return Layer("", "joined", tuple(tensors), outputs, outputs, shape, False, torch.ones(1, 1, 1, 1), shared=True)

    # -- windows -------------------------------------------------------------------------------------------------------

    def _window(self, kind: str, input: Any, weight: Tensor, **options: Any) -> Layer:
        self._native(input)
        inputs, shape = self._image(input), self._shape(self._node)
        outputs = (shape[0], 1 if len(shape) < 3 else shape[1], 1 if len(shape) < 2 else shape[-1])
        return Layer("", kind, (input,), inputs, outputs, shape, False, weight, shared=True, **options)

    def max_pool2d(
        self, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Layer:  # fmt: skip
        """The largest of each window."""
        if return_indices:
            raise Unknown
        size = _two(kernel_size)
        step = _two(stride if stride not in (None, []) else kernel_size)
        return self._window("maximum", input, torch.ones(1, 1, *size), stride=step, padding=_two(padding),
                            dilation=_two(dilation), largest=True)  # fmt: skip

    def avg_pool2d(
        self, input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: Any = None,
    ) -> Layer:  # fmt: skip
        """The mean of each window."""
        if ceil_mode or divisor_override or (_two(padding) != (0, 0) and not count_include_pad):
            raise Unknown
        size = _two(kernel_size)
        step = _two(stride if stride not in (None, []) else kernel_size)
        mean = torch.full((1, 1, *size), 1 / math.prod(size))
        return self._window("average", input, mean, stride=step, padding=_two(padding))

    def adaptive_avg_pool2d(self, input: Any, output_size: Any) -> Layer:
        """Only to one pixel: the mean of a plane."""
        _, height, width = self._image(input)
        if _two(output_size) != (1, 1):
            raise Unknown
        return self._window("average", input, torch.full((1, 1, height, width), 1 / (height * width)))

    def mean(self, input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Layer:
        """The mean over both dimensions of a plane."""
        _, height, width = self._image(input)
        dims = dim if isinstance(dim, tuple | list) else (dim,)
        if dtype is not None or len(self._shape(input)) != 3 or {d % 4 for d in dims if d is not None} != {2, 3}:
            raise Unknown
        return self._window("average", input, torch.full((1, 1, height, width), 1 / (height * width)))


def _plain_kind(module: nn.Module) -> type[nn.Module] | None:
    """The class of :data:`MODULES` whose forward, unchanged and without hooks, a module runs."""
    for kind in MODULES:
        if isinstance(module, kind):
            changed = type(module).forward is not kind.forward
            hooks = module._forward_hooks or module._forward_pre_hooks
            return None if changed or hooks or getattr(module, "padding_mode", "zeros") != "zeros" else kind
    return None


def _same(_: Lowering, input: Any, *rest: Any, **options: Any) -> fx.Node:
    if not isinstance(input, fx.Node):
        raise Unknown
    return input


def _dropout(g: Lowering, input: Any, p: float = 0.5, training: Any = True, inplace: bool = False) -> fx.Node:
    if training is not False:
        raise Unknown
    return _same(g, input)


def _relu(g: Lowering, input: Any, inplace: bool = False) -> Layer:
    return g.activation("relu", input)


MODULES: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Conv2d: lambda g, m, x: g.conv(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups),
    nn.Conv1d: lambda g, m, x: g.conv(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups),
    nn.Linear: lambda g, m, x: g.linear(x, m.weight, m.bias),
    nn.BatchNorm2d: lambda g, m, x: g.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, eps=m.eps),
    nn.BatchNorm1d: lambda g, m, x: g.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, eps=m.eps),
    nn.ReLU6: lambda g, m, x: g.activation("relu6", x),
    nn.ReLU: lambda g, m, x: g.activation("relu", x),
    nn.Hardswish: lambda g, m, x: g.activation("hardswish", x),
    nn.MaxPool2d: lambda g, m, x: g.max_pool2d(
        x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda g, m, x: g.avg_pool2d(
        x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.AdaptiveAvgPool2d: lambda g, m, x: g.adaptive_avg_pool2d(x, m.output_size),
    nn.Identity: lambda g, m, x: _same(g, x),
    nn.Dropout: lambda g, m, x: _same(g, x),
    nn.Dropout2d: lambda g, m, x: _same(g, x),
}
"""What each kind of module does, in evaluation; a subclass with another forward is left to PyTorch."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    F.conv2d: Lowering.conv,
    F.conv1d: Lowering.conv,
    F.linear: Lowering.linear,
    F.batch_norm: Lowering.batch_norm,
    F.relu: _relu,
    torch.relu: _relu,
    F.relu6: lambda g, input, inplace=False: g.activation("relu6", input),
    F.hardtanh: Lowering.hardtanh,
    F.hardswish: lambda g, input, inplace=False: g.activation("hardswish", input),
    F.dropout: _dropout,
    F.max_pool2d: Lowering.max_pool2d,
    torch.max_pool2d: Lowering.max_pool2d,
    F.avg_pool2d: Lowering.avg_pool2d,
    F.adaptive_avg_pool2d: Lowering.adaptive_avg_pool2d,
    torch.mean: Lowering.mean,
    operator.add: Lowering.add,
    torch.add: Lowering.add,
    torch.cat: Lowering.cat,
    torch.concat: Lowering.cat,
}

METHODS: dict[str, Callable[..., Any]] = {
    "relu": _relu,
    "mean": Lowering.mean,
    "add": Lowering.add,
    "contiguous": lambda g, input, *rest, **options: g._native(input) and _same(g, input),
}
