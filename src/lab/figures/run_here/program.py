"""What a network does with an image, as a list of steps that the page's engine runs (``engine.js``).

A plain network in evaluation is traced by ``torch.fx``. A step reads the results of earlier ones by their numbers (the
image is number 0, the first step's result number 1) and names its tensors as the network's file does. What follows a
convolution or a linear layer value by value (normalisation, a sum, ReLU) joins it, since one pass over memory does it.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from lab.utils.errors import LabError

Step = dict[str, Any]

ADDS = (operator.add, operator.iadd, torch.add)
RELUS = (F.relu, torch.relu)
SAME = (nn.Identity, nn.Dropout)


def program(net: nn.Module) -> list[Step]:
    """The steps of ``net`` on one image; the last one's result are the classes' scores.

    A step is ``{"do": "conv" | "linear" | "norm" | "relu" | "add" | "mean" | "max" | "average" | "flatten" | "concat" |
    "shuffle", "of": [numbers]}`` with what that kind needs: ``weight``, ``bias``, ``norm`` (prefix of a BatchNorm's
    tensors) and its ``eps``, ``stride``, ``padding``, ``groups``, ``kernel``, and for what has joined it ``add``
    (number) and ``relu``.

    Raises:
        LabError: a step that the engine does not know; the line names it.
    """
    traced = fx.symbolic_trace(net.eval())
    number: dict[fx.Node, int] = {}
    steps: list[Step] = []
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            number[node] = 0
        elif node.op != "output":
            _append(node, traced, steps, number)
    return steps


def _append(node: fx.Node, traced: fx.GraphModule, steps: list[Step], number: dict[fx.Node, int]) -> None:
    module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    step = _of_module(str(node.target), module) if module is not None else _of_function(node)
    inputs = node.args[0] if step and step["do"] == "concat" else node.args
    of = [number[value] for value in inputs if isinstance(value, fx.Node)]  # type: ignore[union-attr]
    if step is None:  # hands on what it was given
        number[node] = of[0]
    elif (host := _host(step, of, node, steps, number)) is not None:
        number[node] = host + 1
    else:
        steps.append(step | {"of": of})
        number[node] = len(steps)


def _of_module(name: str, module: nn.Module) -> Step | None:
    if isinstance(module, SAME):
        return None
    if isinstance(module, nn.Conv2d | nn.Linear):
        step: Step = {"do": "linear", "weight": f"{name}.weight"}
        if isinstance(module, nn.Conv2d):
            if module.padding_mode != "zeros" or module.dilation != (1, 1) or isinstance(module.padding, str):
                raise LabError(f"{name}: the page's engine knows plain convolutions, with zeros around the image")
            step |= {"do": "conv", "stride": module.stride[0], "padding": module.padding[0], "groups": module.groups}
        return step | ({"bias": f"{name}.bias"} if module.bias is not None else {})
    if isinstance(module, nn.BatchNorm2d):
        return {"do": "norm", "norm": name, "eps": module.eps}
    if isinstance(module, nn.ReLU):
        return {"do": "relu"}
    if isinstance(module, nn.MaxPool2d):
        return {"do": "max", "kernel": module.kernel_size, "stride": module.stride, "padding": module.padding}
    raise LabError(f"{name}: the page's engine does not know a {type(module).__name__}")


def _of_function(node: fx.Node) -> Step | None:
    target, options = node.target, node.kwargs
    if target in ADDS:
        return {"do": "add"}
    if target in RELUS or target == "relu":
        return {"do": "relu"}
    if target == "mean" and options.get("dim", node.args[1:] and node.args[1]) in ((2, 3), [2, 3]):
        return {"do": "mean"}
    if target in ("flatten", torch.flatten):
        return {"do": "flatten"}
    if target is torch.cat:
        return {"do": "concat"}
    if target is F.channel_shuffle:
        return {"do": "shuffle", "groups": node.args[1]}
    if target is F.avg_pool2d:
        kernel, stride, padding = node.args[1:4]
        return {"do": "average", "kernel": kernel, "stride": stride, "padding": padding}
    raise LabError(f"{node.name}: the page's engine does not know {target}")


def _host(step: Step, of: list[int], node: fx.Node, steps: list[Step], number: dict[fx.Node, int]) -> int | None:
    """The step that ``step`` joins (its index), with ``step`` written into it; None if there is none.

    A host ends with its norm, then its sum, then its ReLU; whoever else needs its result in between forbids it.
    """
    order = ("norm", "add", "relu")
    if step["do"] not in order:
        return None
    later = order[order.index(step["do"]) :]
    for at in sorted(of, reverse=True):
        host = steps[at - 1] if at else {}
        users = {user for value, n in number.items() if n == at for user in value.users} - set(number)
        if host.get("do") in ("conv", "linear") and not any(key in host for key in later) and users == {node}:
            if step["do"] == "norm":
                host |= {"norm": step["norm"], "eps": step["eps"]}
            elif step["do"] == "relu":
                host["relu"] = True
            elif at == len(steps):  # what is added must be there before
                host["add"] = next(other for other in of if other != at)
            else:
                continue
            return at - 1
    return None
