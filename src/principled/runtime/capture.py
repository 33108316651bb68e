"""A network's forward pass as a graph, by torch.fx.

fx and not ``torch.export``: a trace takes milliseconds where an export takes seconds, keeps the batch size open, and
keeps modules whole, so that what it cannot follow can be left to PyTorch, module by module.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..reweighted import Reweighted, holder_of

Shape = tuple[int, ...]

OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    F.relu_: F.relu,
    torch.relu_: torch.relu,
}
"""Functions that write into their argument, and those that give the same and do not."""


def plain(net: nn.Module) -> nn.Module:
    """A network that runs on computed weights (folded, relaxed) as its own class with these weights; others as is."""
    if not isinstance(net, Reweighted):
        return net
    with torch.no_grad():
        bare = net._bare()
        for place, weight in net._feed().items():
            module, leaf = holder_of(bare, place)
            module._buffers.pop(leaf, None)
            setattr(module, leaf, nn.Parameter(weight.detach().clone()))
    return bare.train(net.training)


class _Tracer(fx.Tracer):
    """Follows every module but torch's own and those in ``whole``; remembers in which it failed."""

    def __init__(self, whole: frozenset[str]) -> None:
        super().__init__()
        self._whole = whole
        self._inside: list[str] = []
        self.failed: str | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``m`` stays one node: torch's own layers, and what could not be followed before."""
        return module_qualified_name in self._whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A node, or what is inside; the innermost module that cannot be followed is remembered."""
        self._inside.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed if self.failed is not None else self._inside[-1]
            raise
        finally:
            self._inside.pop()


def traced(net: nn.Module) -> fx.GraphModule | None:
    """The graph of a network; None where its own forward cannot be followed.

    A part that branches on data stays one node that PyTorch runs; only where the outermost forward does so is there
    no graph. Operations that write into their argument become such that do not, and later readers read their result.
    """
    whole: frozenset[str] = frozenset()
    while True:
        tracer = _Tracer(whole)
        try:
            graph = tracer.trace(net)
        except Exception:  # whatever a forward raises when it meets a proxy
            if tracer.failed is None:
                return None
            whole |= {tracer.failed}
            continue
        module = fx.GraphModule(net, graph)
        return module if _without_writing(module) else None


def _without_writing(module: fx.GraphModule) -> bool:
    """Replace what writes into its argument; False where that is not known how."""
    nodes = list(module.graph.nodes)
    for index, node in enumerate(nodes):
        if node.op == "call_function" and node.target in (operator.setitem, torch.Tensor.copy_):
            return False
        writes = node.op == "call_function" and node.target in OUT_OF_PLACE
        if writes:
            node.target = OUT_OF_PLACE[node.target]
        if node.op == "call_function" and node.kwargs.get("inplace"):
            writes = True
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.op == "call_method" and node.target.endswith("_") and not node.target.startswith("__"):
            if not hasattr(torch.Tensor, node.target[:-1]):
                return False
            writes, node.target = True, node.target[:-1]
        if node.op == "call_module":
            called = module.get_submodule(node.target)
            if any(getattr(part, "inplace", False) for part in called.modules()):
                writes = writes or getattr(called, "inplace", False)
                _replace(module, node.target, _pure(called))
        if writes and isinstance(node.args[0], fx.Node):
            node.args[0].replace_all_uses_with(node, delete_user_cb=set(nodes[index + 1 :]).__contains__)
    return True


def _pure(module: nn.Module) -> nn.Module:
    """A copy that shares all tensors and writes into nothing that it is given."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    pure = copy.deepcopy(module, shared)
    for part in pure.modules():
        if getattr(part, "inplace", False):
            setattr(part, "inplace", False)  # noqa: B010
    return pure


def _replace(root: fx.GraphModule, path: str, module: nn.Module) -> None:
    """Put another module at a place of the graph's own tree, which shares no container with the user's network."""
    *containers, leaf = path.split(".")
    parent: nn.Module = root
    for name in containers:
        held = getattr(parent, name)
        if not getattr(held, "_principled_own", False):
            held = copy.copy(held)
            held._modules = dict(held._modules)
            held._principled_own = True
            parent._modules[name] = held
        parent = held
    parent._modules[leaf] = module


class Shapes(fx.Interpreter):
    """Runs a graph on examples and keeps what each node gave.

    ``of`` has the shape of every float32 tensor that has the batch as its first dimension, without the batch.
    """

    def __init__(self, module: fx.GraphModule, batch: int) -> None:
        super().__init__(module)
        self._batch = batch
        self.of: dict[fx.Node, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        """A node's value, as PyTorch computes it; its shape is kept."""
        result = super().run_node(n)
        numbers = isinstance(result, Tensor) and result.dtype == torch.float32 and n.op != "get_attr"
        if numbers and result.dim() > 1 and len(result) == self._batch:
            self.of[n] = tuple(result.shape[1:])
        return result


def shapes(module: fx.GraphModule, inputs: Sequence[Any]) -> tuple[dict[fx.Node, Shape], Any]:
    """Shape by node, and the output for these inputs."""
    interpreter = Shapes(module, len(inputs[0]))
    with torch.no_grad():
        output = interpreter.run(*inputs)
    return interpreter.of, output
