"""What a compiled network is made of: native segments, and nodes that PyTorch runs."""

from __future__ import annotations

import copy
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .layers import Layer
from .program import Program
from .segment import Segment

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "relu": torch.relu_,
    "relu6": lambda x: x.clamp_(0, 6),
    "hardswish": lambda x: F.hardswish(x, inplace=True),
}


class Native:
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
                    seconds.append(min(seconds_of(partial(program, addresses, times)) for _ in range(3)))
                self._wide_wins = seconds[1] < seconds[0]
                if self._wide_wins:
                    self._wide = wide
                else:
                    self.segment.weights.drop_pairs()
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
            seconds = statistics.median(seconds_of(run) for _ in range(5)) / 10
            taken[step.layer] = taken.get(step.layer, 0.0) + seconds * batch / program.unit
        return taken


class InTorch:
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


def seconds_of(run: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
