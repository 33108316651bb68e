"""A network that runs on other weights than its own, and stays the network that it was.

:class:`Reweighted` is the base of :class:`principled.Relaxed` and :class:`principled.Folded`: it calls any unmodified
``nn.Module`` through :func:`torch.func.functional_call`, passes attributes and methods on, and gives activation
checkpointing the weights that the forward pass had.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

Weights = dict[str, Tensor]
"""Parameter name, as ``net.named_parameters()`` gives it, to tensor."""


def places(net: nn.Module) -> dict[str, list[str]]:
    """Each distinct parameter's first name, to a name for every place it has: a module and an attribute of it.

    A tied parameter has several places. A module under several names is one module, whose attributes are one place
    each.
    """
    names: dict[int, list[str]] = {}
    for prefix, module in net.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            names.setdefault(id(parameter), []).append(f"{prefix}.{leaf}" if prefix else leaf)
    return {each[0]: each for each in names.values()}


def owned_parameters(net: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield ``(name, owner, parameter)`` for each distinct parameter; a tied one appears once, under its first name."""
    for name in places(net):
        yield name, holder_of(net, name)[0], net.get_parameter(name)


def holder_of(net: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and its attribute there."""
    path, _, leaf = name.rpartition(".")
    return net.get_submodule(path), leaf


INTERNAL = frozenset(vars(nn.Module()))
"""Attributes that every module has."""


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """The tensors in ``value``: in containers, dataclasses and other plain objects, ``depth`` levels down."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, nn.Module | type | str | bytes) and not callable(value):
        if isinstance(value, Mapping):
            inside: Iterable[Any] = value.values()
        else:
            inside = value if isinstance(value, list | tuple | set) else getattr(value, "__dict__", {}).values()
        for each in inside:
            yield from _tensors(each, depth - 1)


def _plain_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in vars(module).items() if key not in INTERNAL)


def _if_nothing(value: Any) -> Any:
    """None and a copy of an empty container; ``...`` for anything else."""
    return copy.copy(value) if value is None or (isinstance(value, list | dict | set) and not value) else ...


def _without_history(net: nn.Module, memo: dict[int, Any]) -> None:
    """Prepare a deepcopy's ``memo`` for tensors that a forward pass left on modules: with history, deepcopy refuses
    them.
    """
    for module in net.modules():
        for tensor in _tensors([dict(_plain_attributes(module)), module._buffers]):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
                memo.setdefault(id(memo), []).append(tensor)  # keeps it alive: deepcopy goes by its id


def copied(net: nn.Module) -> nn.Module:
    """A deep copy of ``net``, also where old ``weight_norm``, ``prune`` or a cache left tensors that have a history."""
    memo: dict[int, Any] = {}
    _without_history(net, memo)
    return copy.deepcopy(net, memo)


def _keeps_computed(net: nn.Module) -> bool:
    """Whether a module does more in ``train()`` and ``eval()`` than to set a flag: some drop or compute what follows
    from weights.
    """
    return any(type(module).train not in (nn.Module.train, Reweighted.train) for module in net.modules())


def recompute(net: nn.Module) -> None:
    """Bring up to date what modules keep of their weights: caches of ``train()`` and ``eval()``, and the weights of
    prune and old norms.
    """
    modes = [(module, module.training) for module in net.modules()]
    if _keeps_computed(net):
        net.train(not net.training)
        net.train(not net.training)
    for module, _ in modes:
        module.training = False  # spectral_norm: no power iteration
        for hook in module._forward_pre_hooks.values():
            if any(base.__module__.startswith("torch.nn.utils.") for base in type(hook).__mro__):
                hook(module, ())
    for module, mode in modes:
        module.training = mode


def _graph(starts: Iterable[Any], ends: set[Any]) -> set[Any]:
    """The nodes of an autograd graph from ``starts`` on, up to ``ends`` and to leaves, without both."""
    nodes, ahead = set(), list(starts)
    while ahead:
        node = ahead.pop()
        if node not in ends and node not in nodes and node.next_functions:
            nodes.add(node)
            ahead += [following for following, _ in node.next_functions]
    return nodes


def _fx_proxies(args: Any, kwargs: Any) -> bool:
    """Whether torch.fx is tracing: it passes proxies for arguments, or for all of them at once."""
    whole = not isinstance(args, tuple) or not isinstance(kwargs, dict)
    return whole or any(isinstance(each, torch.fx.Proxy) for each in (*args, *kwargs.values()))


class _Method(nn.Module):
    """Calls a method of a network, so that :func:`functional_call` can run it."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network's method returns."""
        return getattr(self.net, self.name)(*args, **kwargs)


class _BoundForward:
    """``net.forward`` of a wrapper, with the signature of the network inside."""

    def __init__(self, wrapper: Reweighted, function: Callable[..., Any]) -> None:
        self.wrapper, self.function = wrapper, function

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)  # what every function has, such as __name__ and __code__

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.wrapper.net.forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.wrapper, *args, **kwargs)


class _Forward:
    """A method whose bound form has a signature of its own: exporters and trainers read the names of a network's inputs
    there.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, wrapper: Reweighted | None, owner: type) -> Callable[..., Any]:
        return self.function if wrapper is None else _BoundForward(wrapper, self.function)


class _BackwardEnd:
    """Takes the weights of a backward pass away again, when it ends or, by being deleted, when it raises."""

    def __init__(self, wrapper: Reweighted) -> None:
        self.wrapper: Reweighted | None = wrapper
        self.before = wrapper._standing

    def __call__(self) -> None:
        if self.wrapper is not None:
            self.wrapper._stand(self.before)
            self.wrapper = None

    __del__ = __call__


class Reweighted(nn.Module):
    """A network that runs on computed weights: what :class:`Relaxed` and :class:`principled.Folded` have in common.

    A call of the network, or of a method reached through the wrapper, swaps the weights in with
    :func:`torch.func.functional_call`, each (module, attribute) once. Activation checkpointing with
    ``use_reentrant=False`` computes layers again during the backward pass and reads the same weights then: from the
    moment the backward pass reaches an output of the call to its end they stand in the modules' ``__dict__``, where
    attribute access finds them before the parameters.
    """

    net: nn.Module

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self._places = places(net)
        self._dropped: dict[str, list[str]] = {}  # name to its places
        self._order: dict[str, list[str]] = {}  # module that lost a parameter to the names it had, in order
        self._standing: tuple[int, Weights] | None = None  # during a backward pass: its number, weights by place
        self._under: Weights = {}  # an outer wrapper's weights that they hide, by place
        self._walked = False  # whether a training pass was looked through for reentrant checkpointing
        # each module's attributes when wrapped: itself if it holds nothing and may be filled, else ...
        self._before = {
            path: {key: _if_nothing(value) for key, value in _plain_attributes(module)}
            for path, module in net.named_modules()
        }

    def _feed(self) -> Weights:
        """The weights to run on, by place."""
        raise TypeError(f"{type(self).__name__} does not say which weights the network runs on")

    def _parameter(self, name: str) -> Tensor:
        """The network's own weight, also while others stand in: the swapped one under functional_call, compile and
        vmap.
        """
        module, leaf = holder_of(self.net, name)
        if self._standing is not None and name in self._standing[1]:
            return self._under.get(name, cast(Tensor, module._parameters[leaf]))
        return cast(Tensor, getattr(module, leaf))

    def _drop(self, name: str) -> None:
        # A dropped weight leaves an empty buffer: functional_call needs the name, nobody needs the numbers.
        weight = self.net.get_parameter(name)
        self._dropped[name] = self._places.pop(name)
        for place in self._dropped[name]:
            module, leaf = holder_of(self.net, place)
            self._order.setdefault(place.rpartition(".")[0], list(module._parameters))
            del module._parameters[leaf]
            module.register_buffer(leaf, weight.detach().new_empty(0), persistent=False)

    # -- running ------------------------------------------------------------------------------------------------------

    @_Forward
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output on the computed weights; arguments, result and signature are the network's own."""
        return self._call("forward", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """The network's own attributes; its methods run on the computed weights. Its modules and tensors are under
        ``net``.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            net = vars(self).get("_modules", {}).get("net")
            value = None if net is None or name.startswith("_") else getattr(net, name, None)
            if value is None or isinstance(value, nn.Module | Tensor):
                raise
        if not (inspect.ismethod(value) and value.__self__ is net):
            return value

        @functools.wraps(value)
        def on_computed_weights(*args: Any, **kwargs: Any) -> Any:
            """The network's method, run on the computed weights."""
            self._walked = False  # such as gradient_checkpointing_enable
            return self._call(name, args, kwargs)

        return on_computed_weights

    def _call(self, method: str, args: Any, kwargs: Any) -> Any:
        eager = not torch.compiler.is_compiling()
        if eager and _fx_proxies(args, kwargs):
            raise RuntimeError(
                f"torch.fx.symbolic_trace records a network's own weights, not those of {type(self).__name__}: "
                "use torch.export.export"
            )
        standing = self._standing
        self._stand(None)
        try:
            weights = self._feed()
            outer = self._within_standing(weights)
            if outer or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # refused by functional_call
                self._stand((-1, weights))
                outputs = getattr(self.net, method)(*args, **kwargs)
            elif method == "forward":
                outputs = functional_call(self.net, weights, args, kwargs, tie_weights=False)
            else:
                swapped = {f"net.{name}": weight for name, weight in weights.items()}
                outputs = functional_call(_Method(self.net, method), swapped, args, kwargs, tie_weights=False)
        finally:
            self._stand(standing)
        if inspect.isgenerator(outputs):
            raise RuntimeError(
                f"{method} is a generator, which would run after the weights are gone: call it on harden()"
            )
        if eager and torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active():
            self._remember((args, kwargs), outputs, weights)
        return outputs

    def _stand(self, standing: tuple[int, Weights] | None) -> None:
        """Let weights stand in the network during a backward pass, in place of those that do so now; None: none.

        Those of a wrapper inside this one go on top.
        """
        if self._standing is standing:
            return
        inside = [m for m in self.net.modules() if isinstance(m, Reweighted) and m._standing is not None]
        on_top = [(inner, inner._standing) for inner in inside]
        for inner, _ in reversed(on_top):
            inner._place(None)
        self._place(standing)
        for inner, theirs in on_top:
            inner._place(theirs)

    def _place(self, standing: tuple[int, Weights] | None) -> None:
        for name in self._standing[1] if self._standing else ():
            module, leaf = holder_of(self.net, name)
            vars(module).pop(leaf, None)
            if name in self._under:
                vars(module)[leaf] = self._under[name]
        self._standing, self._under = standing, {}
        for name, weight in standing[1].items() if standing else ():
            module, leaf = holder_of(self.net, name)
            if leaf in vars(module):
                self._under[name] = vars(module)[leaf]
            vars(module)[leaf] = weight

    def _within_standing(self, weights: Weights) -> bool:
        """Whether an outer wrapper's weights stand where these shall be read: they would hide what functional_call
        swaps in.
        """
        owners = (holder_of(self.net, name) for name in weights)
        return not torch.compiler.is_compiling() and any(leaf in vars(module) for module, leaf in owners)

    def _remember(self, inputs: Any, outputs: Any, weights: Weights) -> None:
        """Let a backward pass that reaches ``outputs`` see ``weights`` in the network."""
        ends = {tensor.grad_fn for tensor in (*weights.values(), *_tensors(inputs))} | {None}
        starts = {tensor.grad_fn for tensor in _tensors(outputs)} - ends
        if not self._walked:
            nodes = _graph(starts, ends)
            if any("CheckpointFunction" in node.name() for node in nodes):
                raise RuntimeError(
                    f"{type(self).__name__} needs activation checkpointing with use_reentrant=False "
                    '(transformers: gradient_checkpointing_kwargs={"use_reentrant": False})'
                )
            self._walked = bool(nodes)
        for node in starts:
            self._watch(node, weights, ends)

    def _watch(self, node: Any, weights: Weights, ends: set[Any], inner: bool = False) -> None:
        held = [weights]

        def enter(_: Any) -> None:
            """Let this pass's weights stand in the network: the backward pass reached one of its outputs."""
            if not held:
                return
            task = torch._C._current_graph_task_id()
            if self._standing is None or self._standing[0] != task:
                torch.autograd.Variable._execution_engine.queue_callback(_BackwardEnd(self))
            self._stand((task, held[0]))
            if torch.is_grad_enabled() and not inner:  # create_graph: a second backward pass may enter anywhere
                for each in _graph({node}, ends) - {node}:
                    self._watch(each, weights, ends, inner=True)
            if not torch._C._autograd._get_current_graph_task_keep_graph():
                held.clear()  # the graph is freed, so its weights are

        node.register_prehook(enter)

    # -- an ordinary module -------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """As every module's; what the network computes from its weights in ``eval()`` it computes from these."""
        super().train(mode)
        if not mode and _keeps_computed(self.net):
            self.net.train()
            with torch.no_grad():
                self._call("train", (False,), {})
        return self

    def _bare(self) -> nn.Module:
        """A copy of the network without the tensors that came onto its modules since it was wrapped: caches, hidden
        states.
        """
        plain = copied(self.net)
        for path, module in plain.named_modules():
            before = self._before.get(path, {})
            for key, value in list(vars(module).items()) if path in self._before else ():
                if key not in INTERNAL and before.get(key) is not ... and any(True for _ in _tensors(value)):
                    del vars(module)[key]
                    if key in before:
                        vars(module)[key] = copy.copy(before[key])
        return plain

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        _without_history(self, memo)
        twin = memo[id(self)] = type(self).__new__(type(self))
        twin.__setstate__(copy.deepcopy(vars(self), memo))  # type: ignore[no-untyped-call]
        return twin

    def _repeated(self) -> Iterator[tuple[str, str]]:
        """Names that the ``state_dict`` leaves out, with the one under which it holds the tensor: none for a dropped
        weight's.
        """
        places = (holder_of(self.net, place) for each in self._dropped.values() for place in each)
        first = {id(getattr(module, leaf)): "" for module, leaf in places}
        tensors = self.net.named_parameters(remove_duplicate=False), self.net.named_buffers(remove_duplicate=False)
        for name, tensor in itertools.chain(*tensors):
            if first.setdefault(id(tensor), name) != name:
                yield name, first[id(tensor)]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As every module's, with each tensor once: a tied one under its first name."""
        state = super().state_dict(*args, **kwargs)
        for name, _ in self._repeated():
            state.pop(f"{kwargs.get('prefix', '')}net.{name}", None)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, first in self._repeated():
            if f"{prefix}net.{first}" in state_dict:
                state_dict.setdefault(f"{prefix}net.{name}", state_dict[f"{prefix}net.{first}"])
        super()._load_from_state_dict(state_dict, prefix, *args)
