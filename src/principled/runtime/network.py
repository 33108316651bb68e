"""The compiled network: native segments and what PyTorch runs, in turn."""

from __future__ import annotations

import copy
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .capture import Shape, shapes, traced
from .lowering import Layer, Lowering
from .machine import Target
from .program import Program, Segment
from .thresholds import threshold_of

TOLERANCE = 1e-4
"""How far an output may be from PyTorch's, relative to the largest: sums in another order, and no more."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "relu": torch.relu_,
    "relu6": lambda x: x.clamp_(0, 6),
    "hardswish": lambda x: F.hardswish(x, inplace=True),
}


@dataclass(frozen=True)
class Row:
    """A line of a report.

    Args:
        layer: name of the module or function, or ``(entering and leaving)`` for moving activations in and out.
        zeros: share of zero weights; None without weights.
        kernel: ``sparse``, ``dense`` or ``PyTorch``.
        microseconds: for one batch.
        share: of the sum of all lines.
    """

    layer: str
    zeros: float | None
    kernel: str
    microseconds: float
    share: float


class Report(list[Row]):
    """Rows that print as a table."""

    def __str__(self) -> str:
        width = max([len(row.layer) for row in self] + [5])
        lines = [f"{'layer':{width}}   zeros  kernel        µs  share"]
        for row in self:
            zeros = "" if row.zeros is None else f"{row.zeros:.1%}"
            lines.append(f"{row.layer:{width}}  {zeros:>6}  {row.kernel:7} {row.microseconds:8.1f}  {row.share:5.1%}")
        return "\n".join(lines)


class _Native:
    """A segment as a function of PyTorch's tensors."""

    def __init__(self, segment: Segment, threads: int, pool: ThreadPoolExecutor | None) -> None:
        self.segment, self._threads, self._pool = segment, threads, pool
        self.reads, self.makes = list(segment.inputs), segment.outputs
        self._single = Program(segment, 1)
        self._wide: Program | None = None
        self._wide_wins: bool | None = None
        self._deciding = threading.Lock()
        linear = all(layer.kind in ("linear", "activation", "sum") and not layer.tokens for layer in segment.layers)
        lanes = segment.target.lanes
        self._unit = lanes * (8 if linear else 1)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        batch = inputs[0].shape[0]
        outputs = [torch.empty(batch, *shape) for shape in self.segment.shapes]
        inputs = [tensor.contiguous() for tensor in inputs]
        addresses = [tensor.data_ptr() for tensor in (*inputs, *outputs)]
        done = 0
        if batch >= self._unit and self.prefers_wide(addresses):
            assert self._wide is not None
            groups = batch // self._unit
            self._spread(self._wide, addresses, groups)
            done = groups * self._unit
        if done < batch:
            self._spread(self._single, self._moved(addresses, done), batch - done)
        return outputs

    def _moved(self, addresses: list[int], images: int) -> list[int]:
        """Addresses of so many images further on."""
        if not images:
            return addresses
        return [at + images * size for at, size in zip(addresses, self.segment.image_bytes, strict=True)]

    def _spread(self, program: Program, addresses: list[int], times: int) -> None:
        """All repetitions, on as many threads as there are."""
        if self._pool is None or times < 2:
            program(addresses, times)
            return
        parts = min(self._threads, times)
        cuts = [times * i // parts for i in range(parts + 1)]
        waiting = [
            self._pool.submit(program, self._moved(addresses, begin * program.unit), end - begin)
            for begin, end in pairwise(cuts)
        ]
        for part in waiting:
            part.result()

    def prefers_wide(self, addresses: list[int]) -> bool:
        """Whether images across vectors are faster than one by one: measured once, on the first batch large enough."""
        with self._deciding:
            if self._wide_wins is None:
                wide = Program(self.segment, self._unit)
                seconds = []
                for program, times in ((self._single, self._unit), (wide, 1)):
                    program(addresses, times)
                    seconds.append(min(_seconds(partial(program, addresses, times)) for _ in range(3)))
                self._wide_wins = seconds[1] < seconds[0]
                self._wide = wide if self._wide_wins else None
        return self._wide_wins

    @property
    def memory(self) -> int:
        """Bytes of the weights' lists and of the activations of one call."""
        programs = [self._single, *([self._wide] if self._wide is not None else [])]
        return self.segment.weights.bytes() + sum(program.bytes() for program in programs)

    def measured(self, inputs: Sequence[Tensor]) -> dict[int, float]:
        """Seconds that each layer takes for a batch, by its index; -1 is entering and leaving."""
        batch = len(inputs[0])
        tensors = [*inputs, *self(inputs)]  # which have to stay while steps write into them
        addresses = [tensor.data_ptr() for tensor in tensors]
        wide = batch >= self._unit and self.prefers_wide(addresses)
        program = self._wide if wide and self._wide is not None else self._single
        taken: dict[int, float] = {}
        for number, step in enumerate(program.steps):
            run = partial(program.only, number, 1, addresses, 10)
            seconds = statistics.median(_seconds(run) for _ in range(5)) / 10
            taken[step.layer] = taken.get(step.layer, 0.0) + seconds * batch / program.unit
        return taken


class _Torch:
    """A node that PyTorch runs, or a layer on its dense kernel."""

    def __init__(self, node: fx.Node, layer: Layer | None, module: fx.GraphModule) -> None:
        self.node, self.layer = node, layer
        self.makes = [node]
        self.reads = list(node.all_input_nodes)
        if layer is not None:
            self.reads = [*layer.sources, *([layer.residual] if layer.residual is not None else [])]
            layer.weight = layer.weight.clone()
            layer.bias = None if layer.bias is None else layer.bias.detach().clone()
        elif node.op == "call_module":
            self._call = copy.deepcopy(module.get_submodule(str(node.target)))
        elif node.op == "get_attr":
            held: Any = module
            for name in str(node.target).split("."):
                held = getattr(held, name)
            self._held = copy.deepcopy(held)

    def __call__(self, values: Mapping[fx.Node, Any]) -> Any:
        if self.layer is not None:
            return _dense(self.layer, *(values[node] for node in self.reads))
        node = self.node
        if node.op == "get_attr":
            return self._held
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda other: values[other])
        if node.op == "call_module":
            return self._call(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _dense(layer: Layer, x: Tensor, residual: Tensor | None = None) -> Tensor:
    if layer.kind == "linear":
        y = F.linear(x, layer.weight.flatten(1), layer.bias)
    elif len(layer.shape) < 3:
        weight = layer.weight.squeeze(2)
        y = F.conv1d(x, weight, layer.bias, layer.stride[1], layer.padding[1], layer.dilation[1], layer.groups)
    else:
        y = F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    if residual is not None:
        y += residual
    return ACTIVATIONS[layer.activation](y)


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
        self._shapes = [tuple(tensor.shape[1:]) for tensor in example]
        self._net: nn.Module | None = None
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        module = traced(net)
        if module is None:
            self._leave(net, f"the forward of {type(net).__name__} branches on data or writes in place")
            return
        with torch.no_grad():
            known, expected = shapes(module, [tensor.clone() for tensor in example])
            lowering = Lowering(module, known, threshold_of(threshold, target))
            self._plan(module, lowering, known)
            if not _close(self._run(self._example), expected):
                self._leave(net, "its compiled outputs differ from PyTorch's")

    def _leave(self, net: nn.Module, why: str) -> None:
        """Let PyTorch run all of it, and say so once."""
        warnings.warn(f"principled.runtime: {why}; all of it runs in PyTorch", stacklevel=4)
        self._net = copy.deepcopy(net)
        self._items: list[_Native | _Torch] = []

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
                self._items += [_Torch(node, layers.get(node), module) for node in rest]
                native = rest
            ready |= set(native)
            left = [node for node in left if node not in ready]
        self._all_native = all(isinstance(item, _Native) for item in self._items)
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
    ) -> _Native:
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
        return _Native(segment, self.threads, self._pool)

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
        for tensor, shape in zip(inputs, self._shapes, strict=True):
            if tuple(tensor.shape[1:]) != shape or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
                raise ValueError(
                    f"compiled for float32 of shape (any, {', '.join(map(str, shape))}) on the CPU, got "
                    f"{str(tensor.dtype).removeprefix('torch.')} of {tuple(tensor.shape)} on {tensor.device}: compile "
                    "the network again with such an example"
                )
        if self._all_native:
            return self._run(inputs)
        with torch.no_grad():
            return self._run(inputs)

    def _run(self, inputs: Sequence[Tensor]) -> Any:
        values: dict[fx.Node, Any] = dict(zip(self._placeholders, inputs, strict=True))
        for index, item in enumerate(self._items):
            if isinstance(item, _Native):
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
                taken.append((type(self._net).__name__, None, "PyTorch", _seconds(lambda: self(*self._example))))
            values: dict[fx.Node, Any] = dict(zip(self._placeholders, self._example, strict=True)) if not taken else {}
            for item in self._items:
                if isinstance(item, _Native):
                    inputs = [values[node].contiguous() for node in item.reads]
                    values.update(zip(item.makes, item(inputs), strict=True))
                    for index, seconds in sorted(item.measured(inputs).items()):
                        if index < 0:
                            taken.append(("(entering and leaving)", None, "sparse", seconds))
                        else:
                            layer = item.segment.layers[index]
                            taken.append((layer.title, layer.zeros, "sparse", seconds))
                else:
                    seconds = statistics.median(_seconds(partial(item, values)) for _ in range(5))
                    values[item.node] = item(values)
                    if item.layer is not None:
                        taken.append((item.layer.title, item.layer.zeros, "dense", seconds))
                    elif item.node.op != "get_attr":
                        taken.append((str(item.node.name), None, "PyTorch", seconds))
        total = sum(seconds for *_, seconds in taken) or 1.0
        return Report(Row(name, zeros, kernel, 1e6 * s, s / total) for name, zeros, kernel, s in taken)

    @property
    def memory(self) -> int:
        """Bytes of what it holds: lists of non-zeros, activations of one call, and the weights of what PyTorch runs."""
        if self._net is not None:
            return sum(t.numel() * t.element_size() for t in (*self._net.parameters(), *self._net.buffers()))
        total = 0
        for item in self._items:
            if isinstance(item, _Native):
                total += item.memory
            elif item.layer is not None:
                total += 4 * (item.layer.weight.numel() + (0 if item.layer.bias is None else item.layer.bias.numel()))
            elif item.node.op == "call_module":
                total += sum(t.numel() * t.element_size() for t in item._call.state_dict().values())
        return total


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


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


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
