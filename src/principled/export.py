"""A network for other programs: an ONNX file with a dynamic batch, its quantised weights as whole numbers.

    print(to_onnx("net.onnx", net, images[:2]))            what the file holds, a line for what stayed in float

``torch.export.export`` takes hardened, folded and fixed-precision networks as they are; it needs nothing from here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .quantize import spacing
from .relax import Relaxed
from .reweighted import holder_of
from .smol import FixedPrecision, Smol, fix_precision
from .smol_training import Quantised

if TYPE_CHECKING:
    from onnx_ir import Graph

MOST_BITS = 8
OPSET = 21
"""From it on, DequantizeLinear takes 4 and 16 bits."""


@dataclass(frozen=True)
class Exported:
    """What became of the weights of a network in an ONNX file."""

    path: str
    whole: dict[str, str]
    """Weights that are whole numbers in the file, and the type of these: int4, int8 or int16."""
    floating: dict[str, str]
    """Weights that have precisions and stayed in float all the same, and why."""

    def __str__(self) -> str:
        kinds = sorted(set(self.whole.values()), key=len)
        counts = [f"{sum(kind == other for other in self.whole.values())} as {kind}" for kind in kinds]
        lines = [f"{self.path}: " + (f"quantised weights {', '.join(counts)}" if counts else "weights in float")]
        return "\n".join([*lines, *(f"{name} stays in float: {why}" for name, why in self.floating.items())])


def to_onnx(
    path: str | PathLike[str],
    net: nn.Module | Quantised,
    example: Any,
    *,
    dynamic: bool = True,
    opset: int = OPSET,
) -> Exported:
    """Write a network as an ONNX file that computes the same.

    Args:
        path: the file, ``NAME.onnx``.
        net: a plain, hardened or folded network; one relaxed with :class:`principled.FixedPrecision`, or what
            :func:`principled.train_smol` returns, whose precisions are then known. Any other relaxed network is
            hardened first. It is exported in ``eval()``.
        example: an input as the network takes it: a tensor, a tuple of arguments, or a dict of keyword arguments. The
            file's inputs have the names that ``forward`` gives them.
        dynamic: the first axis, of all inputs that have as many entries there as the first one, may have any length.
        opset: of the file; at least 21 for whole numbers of 4 and 16 bits.

    A quantised weight becomes whole numbers and a DequantizeLinear node, with one step for each slice of its output
    axis: the finest among the slice's weights. A level of p bits is a whole multiple of every finer step, so all
    precisions up to 8 bits come out exactly, whether a filter's weights share theirs or not. A tensor takes the
    narrowest of int4, int8 and int16 that holds its numbers: up to 3 bits always fit the first, up to 7 the second.
    Weights of more than 8 bits stay in float, and :class:`Exported` says so. Zeros are not
    left out: ONNX has no such weights.

    Raises:
        ValueError: onnx or onnxscript is not installed; a layer that cannot be exported, with its name.
    """
    try:
        import onnx_ir  # noqa: F401  # comes with onnxscript
        import onnxscript  # noqa: F401
    except ImportError:
        raise ValueError("to_onnx needs onnx and onnxscript: pip install 'principled[onnx]'") from None
    plain, precision, scale = _settled(net)
    whole: dict[str, str] = {}
    floating: dict[str, str] = {}
    modes = [(module, module.training) for module in plain.modules()]
    try:
        program = _onnx(plain.eval(), example, dynamic, opset)
    finally:
        for module, mode in modes:
            module.training = mode
    for name, p in precision.items():
        weight = plain.get_parameter(name).detach().cpu()
        kind_of = type(holder_of(plain, name)[0])
        axis = 1 if issubclass(kind_of, nn.modules.conv._ConvTransposeNd) else 0
        if name not in program.model.graph.initializers:
            floating[name] = "the exporter has computed something else from it"
        elif int(p.max()) > MOST_BITS:
            floating[name] = f"its precisions reach {int(p.max())} bits, and whole numbers are used up to {MOST_BITS}"
        else:
            numbers, steps = whole_numbers(weight, p.cpu(), scale.get(name, 1.0), axis)
            whole[name] = _replace(program.model.graph, name, numbers, steps, axis)
    program.optimize()  # after the weights were replaced by name: it merges and renames them
    program.save(str(path))
    return Exported(str(path), whole, floating)


def whole_numbers(weight: Tensor, p: Tensor, scale: float, axis: int) -> tuple[Tensor, Tensor]:
    """``(numbers, steps)`` with ``weight = numbers * steps`` to the bit; ``steps`` ``(n,)`` is one for each slice of
    ``axis``, ``numbers`` int64 has the weight's shape. ValueError where a weight is on no level of its precision.
    """
    finest = p.movedim(axis, 0).flatten(1).amax(1).to(torch.int64)
    steps = torch.where(finest > 0, spacing(finest) * scale, 1.0).to(weight.dtype)
    spread = steps.view(-1, *[1] * (weight.ndim - 1)).movedim(0, axis)
    numbers = (weight.double() / spread.double()).round()
    if not torch.equal(numbers.to(weight.dtype) * spread, weight):
        raise ValueError("weights that are on no level of their precision: export the hardened network")
    return numbers.to(torch.int64), steps


def _settled(net: nn.Module | Quantised) -> tuple[nn.Module, dict[str, Tensor], dict[str, float]]:
    """A network without a relaxation, and precisions and scales where they are known."""
    if isinstance(net, Quantised):
        return net.net, net.precision, net.scale
    if not isinstance(net, Relaxed):
        return net, {}, {}
    *_, last = net.relaxations
    if isinstance(last, Smol):
        return _settled(fix_precision(net))
    if isinstance(last, FixedPrecision):
        return net.harden(), last.precision(), last.scales()
    return net.harden(), {}, {}


# -- the graph ---------------------------------------------------------------------------------------------------------


def _onnx(net: nn.Module, example: Any, dynamic: bool, opset: int) -> Any:
    """The exporter's program, in which each weight is as it is, under its own name."""
    kwargs: dict[str, Any] = dict(example) if isinstance(example, Mapping) else {}
    args: tuple[Any, ...] = () if kwargs else example if isinstance(example, tuple) else (example,)
    shapes: Any = None
    if dynamic:
        (args, kwargs), size = _at_least_two((args, kwargs))
        batch = torch.export.Dim("batch")
        spec = tree_map(lambda x: {0: batch} if _has_batch(x, size) else None, (args, kwargs))
        shapes = spec[1] if kwargs else spec[0]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*isinstance.treespec", FutureWarning)  # torch's, of itself
            exported = torch.export.export(net, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ValueError(
            f"{_layer(net, error)} cannot be exported ({_short(error)}): give it a forward whose Python decisions and "
            "shapes do not depend on the numbers it sees" + (", or pass dynamic=False" if dynamic else "")
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*isinstance.treespec", FutureWarning)
            return torch.onnx.export(exported, opset_version=opset, optimize=False, verbose=False)
    except Exception as error:
        layer, why = _layer_of_operation(net, error), _short(_chain(error)[-1])
        raise ValueError(
            f"{layer} has an operation without a form in ONNX ({why}): write it with others, or keep the "
            "network in torch.export"
        ) from error


def _has_batch(x: Any, size: int) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0 and len(x) == size


def _at_least_two(inputs: Any) -> tuple[Any, int]:
    """The inputs with a batch of two or more, and its size: of a batch of one the exporter makes a constant."""
    tensors = [x for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.ndim]
    size = len(tensors[0]) if tensors else 0
    if size != 1:
        return inputs, size
    return tree_map(lambda x: torch.cat([x, x]) if _has_batch(x, 1) else x, inputs), 2


def _replace(graph: Graph, name: str, numbers: Tensor, steps: Tensor, axis: int) -> str:
    """Put whole numbers and DequantizeLinear in a float weight's place; the type of the numbers."""
    import ml_dtypes
    import onnx_ir

    most = int(numbers.abs().max())
    kind, dtype = next(
        (kind, dtype)
        for kind, dtype, limit in (("int4", ml_dtypes.int4, 7), ("int8", "int8", 127), ("int16", "int16", 255))
        if most <= limit
    )
    weight = graph.initializers[name]
    parts = {f"{name}.numbers": numbers.numpy().astype(dtype), f"{name}.steps": steps.float().numpy()}
    values = []
    for label, array in parts.items():
        tensor = onnx_ir.tensor(array, name=label)
        values.append(onnx_ir.Value(name=label, shape=onnx_ir.Shape(array.shape), type=onnx_ir.TensorType(tensor.dtype),
                                    const_value=tensor))  # fmt: skip
        graph.register_initializer(values[-1])
    node = onnx_ir.Node("", "DequantizeLinear", values, [onnx_ir.AttrInt64("axis", axis)])
    graph.insert_before(graph[0], node)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = f"{name}.levels", weight.shape, weight.type
    onnx_ir.convenience.replace_all_uses_with(weight, node.outputs[0])
    del graph.initializers[name]
    return kind


# -- which layer -------------------------------------------------------------------------------------------------------


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and its causes, the first of which comes last."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _frames(error: BaseException) -> Iterator[TracebackType]:
    """The frames that an error and its causes went through, the innermost last."""
    for each in _chain(error):
        trace = each.__traceback__
        while trace is not None:
            yield trace
            trace = trace.tb_next


def _layer(net: nn.Module, error: BaseException) -> str:
    """The layer in whose forward an error arose, as a user finds it."""
    names = {id(module): name for name, module in net.named_modules()}
    inside = [trace.tb_frame.f_locals.get("self") for trace in _frames(error)]
    layers = [module for module in inside if id(module) in names]
    return _called(net, names[id(layers[-1])] if layers else "")


def _layer_of_operation(net: nn.Module, error: BaseException) -> str:
    """The layer whose operation an exporter stopped at: the last node of a graph that it held."""
    held = (value for trace in _frames(error) for value in trace.tb_frame.f_locals.values())
    stacks = [value.meta.get("nn_module_stack") for value in held if isinstance(value, torch.fx.Node)]
    paths = [list(stack.values())[-1][0] for stack in stacks if stack]
    return _called(net, paths[-1] if paths else "")


def _called(net: nn.Module, name: str) -> str:
    if not name:
        return type(net).__name__
    return f"{name} of {type(net).__name__} ({type(net.get_submodule(name)).__name__})"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
