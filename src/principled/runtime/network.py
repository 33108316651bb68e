"""The compiled network: native segments and what PyTorch runs, in turn."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from .capture import Shape, plain, shapes, traced
from .layers import Layer
from .lowering import Lowering
from .machine import Target
from .parts import InTorch, Native, seconds_of
from .report import Report, Row
from .segment import Segment
from .thresholds import threshold_of

TOLERANCE = 1e-4
"""How far an output may be from PyTorch's, relative to the largest: sums in another order, and no more."""


class Compiled:
    """A network that :func:`compile` made fast; call it as the network. ``report()`` says where the time goes.

    Outputs carry no gradient. It may be called from several threads at once. It holds copies of all weights: training
    the network further does not change it.
    """

    def __init__(
        self,
        net: nn.Module,
        example: Sequence[Tensor],
        threads: int,
        threshold: float | None,
        target: Target,
    ) -> None:
        self.threads, self.target = threads, target
        self._example = [tensor.detach().clone() for tensor in example]
        self._takes = [(tensor.dtype, tensor.shape[1:]) for tensor in example]
        self._net: nn.Module | None = None
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        module = traced(plain(net))
        if module is None:
            self._leave(net, f"the forward of {type(net).__name__} branches on data or writes in place")
            return
        with torch.no_grad():
            known, expected = shapes(module, [tensor.clone() for tensor in example])
            lowering = Lowering(module, known, threshold_of(threshold, target))
            self._plan(module, lowering, known)
            try:
                agrees = _close(self._run(self._example), expected)
            except RuntimeError:  # PyTorch refuses what it took from itself: a view of other strides, say
                agrees = False
            if not agrees:
                self._leave(net, "its compiled outputs differ from PyTorch's")

    def _leave(self, net: nn.Module, why: str) -> None:
        """Let PyTorch run all of it, and say so once."""
        warnings.warn(f"principled.runtime: {why}; all of it runs in PyTorch", stacklevel=4)
        self._net = copy.deepcopy(net)
        self._items: list[Native | InTorch] = []

    # -- the plan ------------------------------------------------------------------------------------------------------

    def _plan(self, module: fx.GraphModule, lowering: Lowering, known: Mapping[fx.Node, Shape]) -> None:
        layers = lowering.layers
        nodes = list(module.graph.nodes)
        self._placeholders = [node for node in nodes if node.op == "placeholder"]
        self._result = nodes[-1].args[0]
        needs = {node: _needs(node, layers) for node in nodes}
        live: set[fx.Node] = set()
        waiting = list(nodes[-1].all_input_nodes)
        while waiting:
            node = waiting.pop()
            if node not in live:
                live.add(node)
                waiting += needs[node]
        left = [node for node in nodes if node in live and node.op != "placeholder"]
        ready = set(self._placeholders)
        self._items = []
        while left:
            native = _available(left, ready, needs, lambda node: node in layers and layers[node].native)
            if native:
                self._items.append(self._segment(native, layers, ready, live, needs, nodes[-1]))
            else:
                rest = _available(left, ready, needs, lambda node: not (node in layers and layers[node].native))
                self._items += [InTorch(node, layers.get(node), module) for node in rest]
                native = rest
            ready |= set(native)
            left = [node for node in left if node not in ready]
        self._all_native = all(isinstance(item, Native) for item in self._items)
        self._last = {node: index for index, item in enumerate(self._items) for node in item.reads}
        keep: list[fx.Node] = []
        fx.node.map_arg(self._result, keep.append)
        self._last |= dict.fromkeys(keep, len(self._items))

    def _segment(
        self,
        nodes: list[fx.Node],
        layers: Mapping[fx.Node, Layer],
        ready: set[fx.Node],
        live: set[fx.Node],
        needs: Mapping[fx.Node, list[fx.Node]],
        output: fx.Node,
    ) -> Native:
        inputs: dict[fx.Node, tuple[tuple[int, int, int], bool]] = {}
        for node in nodes:
            layer = layers[node]
            for read in needs[node]:
                if read in ready:
                    size = layer.outputs if read is layer.residual else layer.inputs
                    if len(layer.sources) > 1 and read is not layer.residual:  # a part of what is joined
                        size = layers[read].outputs
                    inputs[read] = size, layer.tokens
        inside = set(nodes)
        outside = {read for node in live - inside for read in needs[node]} | set(output.all_input_nodes)
        makes = [node for node in nodes if node in outside]
        segment = Segment({node: layers[node] for node in nodes}, inputs, makes, self.target)
        return Native(segment, self.threads, self._pool)

    # -- running -------------------------------------------------------------------------------------------------------

    def __call__(self, *inputs: Tensor) -> Any:
        """The network's output.

        Args:
            *inputs: as the example's, with any number of images.

        Raises:
            ValueError: an image of another size or type, or on another device.
        """
        if self._net is not None:
            with torch.no_grad():
                return self._net(*inputs)
        for tensor, (dtype, shape) in zip(inputs, self._takes, strict=True):
            if tensor.shape[1:] != shape or tensor.dtype != dtype or tensor.device.type != "cpu":
                raise ValueError(
                    f"compiled for {_kind(dtype)} of shape (any, {', '.join(map(str, shape))}) on the CPU, got "
                    f"{_kind(tensor.dtype)} of {tuple(tensor.shape)} on {tensor.device}: compile the network again "
                    "with such an example"
                )
        if self._all_native:
            return self._run(inputs)
        with torch.no_grad():
            return self._run(inputs)

    def _run(self, inputs: Sequence[Tensor]) -> Any:
        values: dict[fx.Node, Any] = dict(zip(self._placeholders, inputs, strict=True))
        for index, item in enumerate(self._items):
            if isinstance(item, Native):
                values.update(zip(item.makes, item([values[node] for node in item.reads]), strict=True))
            else:
                values[item.node] = item(values)
            for node in item.reads:
                if self._last[node] == index:
                    values.pop(node, None)
        if isinstance(self._result, fx.Node):
            return values[self._result]
        return fx.node.map_arg(self._result, lambda node: values[node])

    def report(self) -> Report:
        """Where the time of the example's batch goes: zeros, kernel, microseconds and share of each layer."""
        taken: list[tuple[str, float | None, str, float]] = []
        with torch.no_grad():
            if self._net is not None:
                taken.append((type(self._net).__name__, None, "PyTorch", seconds_of(lambda: self(*self._example))))
            values: dict[fx.Node, Any] = dict(zip(self._placeholders, self._example, strict=True)) if not taken else {}
            for item in self._items:
                if isinstance(item, Native):
                    inputs = [values[node].contiguous() for node in item.reads]
                    values.update(zip(item.makes, item(inputs), strict=True))
                    for index, seconds in sorted(item.measured(inputs).items()):
                        if index < 0:
                            taken.append(("(entering and leaving)", None, "sparse", seconds))
                        else:
                            layer = item.segment.layers[index]
                            taken.append((layer.title, layer.zeros, "sparse", seconds))
                else:
                    seconds = statistics.median(seconds_of(partial(item, values)) for _ in range(5))
                    values[item.node] = item(values)
                    if item.layer is not None:
                        taken.append((item.layer.title, item.layer.zeros, "dense", seconds))
                    elif item.node.op != "get_attr":
                        title = item.node.target if item.node.op == "call_module" else item.node.name
                        taken.append((str(title), None, "PyTorch", seconds))
        total = sum(seconds for *_, seconds in taken) or 1.0
        return Report(Row(name, zeros, kernel, 1e6 * s, s / total) for name, zeros, kernel, s in taken)

    @property
    def memory(self) -> int:
        """Bytes of what it holds: lists of non-zeros, activations of one call, and the weights of what PyTorch runs."""
        if self._net is not None:
            return sum(t.numel() * t.element_size() for t in (*self._net.parameters(), *self._net.buffers()))
        total = 0
        for item in self._items:
            if isinstance(item, Native):
                total += item.memory
            elif item.layer is not None:
                total += 4 * (item.layer.weight.numel() + (0 if item.layer.bias is None else item.layer.bias.numel()))
            elif item.node.op == "call_module":
                total += sum(t.numel() * t.element_size() for t in item._call.state_dict().values())
        return total


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _needs(node: fx.Node, layers: Mapping[fx.Node, Layer]) -> list[fx.Node]:
    layer = layers.get(node)
    if layer is None:
        return list(node.all_input_nodes)
    return [*layer.sources, *([layer.residual] if layer.residual is not None else [])]


def _available(
    left: Sequence[fx.Node],
    ready: set[fx.Node],
    needs: Mapping[fx.Node, list[fx.Node]],
    wanted: Callable[[fx.Node], bool],
) -> list[fx.Node]:
    """The nodes of one kind that can be computed now, or after others of that kind, in such an order."""
    chosen: list[fx.Node] = []
    have = set(ready)
    found = True
    while found:
        found = False
        for node in left:
            if node not in have and wanted(node) and all(read in have for read in needs[node]):
                chosen.append(node)
                have.add(node)
                found = True
    return chosen


def _close(got: Any, expected: Any) -> bool:
    """Whether all float tensors of two results agree, relative to their size."""
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor) or got.shape != expected.shape:
            return False
        if not expected.is_floating_point() or not expected.numel():
            return torch.equal(got, expected)
        finite = expected.isfinite()
        if not torch.equal(finite, got.isfinite()):
            return False
        if not finite.any():
            return True
        size = float(expected[finite].abs().max())
        return float((got[finite] - expected[finite]).abs().max()) <= TOLERANCE * max(size, 1e-30)
    if isinstance(expected, Mapping):
        return all(_close(got[key], value) for key, value in expected.items())
    if isinstance(expected, tuple | list):
        return all(_close(a, b) for a, b in zip(got, expected, strict=True))
    return True
