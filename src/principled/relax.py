r"""One idea, three verbs: relax, train, harden.

Chapters 3 to 5 replace the parameters :math:`\theta` of a network :math:`f(\theta)` by *effective weights* computed
from free variables, penalise those variables, and end by making them discrete. This file is that idea and nothing more:
a :class:`Relaxation` says how effective weights come about, :class:`Relaxed` runs any unmodified ``nn.Module`` with
them.

    net    = Relaxed(resnet20(), ContinuousMask(s_init=-0.05))     # relax
    loss   = cross_entropy(net(x), y) + lam * net.penalty()        # train
    sparse = net.harden()                                          # harden
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

Weights = dict[str, Tensor]
"""Parameter name, as ``net.named_parameters()`` gives it, to tensor."""

Where = (
    Callable[[str, nn.Module, nn.Parameter], bool] | type[nn.Module] | str | Iterable[type[nn.Module]] | Iterable[str]
)
"""Which weights a relaxation acts on: a predicate ``(name, module, parameter) -> bool``, module types (their parameters
of two or more dimensions), or parameter names."""


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
        yield name, _owner(net, name)[0], net.get_parameter(name)


def _owner(net: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return net.get_submodule(path), leaf


def is_spatial_convolution(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    """The thesis's choice (4.3.3): kernels of convolutions larger than 1x1, so neither shortcuts nor the
    linear layer.
    """
    convolution = isinstance(module, nn.modules.conv._ConvNd)
    return convolution and parameter.ndim > 2 and parameter[0, 0].numel() > 1


def select(net: nn.Module, where: Where) -> dict[str, nn.Parameter]:
    """Resolve ``where`` to ``{name: parameter}`` in the order of the network; ``ValueError`` if it matches nothing.

    A warning says so where layer types, or the default, match less than a twentieth of the weights.
    """
    owned = list(owned_parameters(net))
    types: tuple[type[nn.Module], ...] = ()
    if callable(where) and not isinstance(where, type):
        asked = "where=" + getattr(where, "__name__", type(where).__name__)
        chosen = {name: p for name, module, p in owned if where(name, module, p)}
    else:
        wanted = [where] if isinstance(where, type | str) else list(cast("Iterable[Any]", where))
        asked = f"where=({', '.join(w.__name__ if isinstance(w, type) else repr(w) for w in wanted)})"
        types = tuple(w for w in wanted if isinstance(w, type))
        names = {w for w in wanted if isinstance(w, str)}
        if unknown := names - {name for name, _, _ in owned}:
            raise ValueError(f"where: {type(net).__name__} has no parameter named {sorted(unknown)[0]!r}")
        chosen = {n: p for n, module, p in owned if n in names or (isinstance(module, types) and p.ndim > 1)}
    if where is is_spatial_convolution:
        asked = "the default of `where`, convolutions larger than 1x1,"
    if not chosen:
        raise ValueError(f"{type(net).__name__}: {asked} selects no weight; {_layer_types(owned, types)}")
    total = sum(p.numel() for _, _, p in owned if p.ndim > 1)
    share = sum(p.numel() for p in chosen.values()) / max(1, total)
    if share < 0.05 and (types or where is is_spatial_convolution):
        warnings.warn(
            f"{type(net).__name__}: {asked} selects {share:.1%} of the weights; {_layer_types(owned, types)}",
            stacklevel=4,
        )
    return chosen


def _layer_types(owned: Iterable[tuple[str, nn.Module, nn.Parameter]], passed: tuple[type[nn.Module], ...]) -> str:
    """Where the weights of two or more dimensions lie, by layer type, and what to pass that was not."""
    sizes: dict[type[nn.Module], int] = {}
    for _, module, p in owned:
        if p.ndim > 1:
            sizes[type(module)] = sizes.get(type(module), 0) + p.numel()
    kinds = sorted(sizes, key=lambda kind: -sizes[kind])
    if not (others := [kind for kind in kinds if not issubclass(kind, passed)]):
        return "there is no other parameter of two or more dimensions; name parameters, where=[...]"
    package = {kind: kind.__module__.split(".")[0] for kind in kinds}
    shown = [kind.__name__ if package[kind] == "torch" else f"{kind.__name__} ({package[kind]})" for kind in kinds]
    shares = [f"{name} {sizes[kind] / sum(sizes.values()):.1%}" for name, kind in zip(shown, kinds, strict=True)]
    more = f" and {len(kinds) - 5} more types" if len(kinds) > 5 else ""
    return f"they lie in {', '.join(shares[:5])}{more}: pass for instance where={others[0].__name__}"


class Relaxation(nn.Module):
    """How some weights of a network are computed from free variables. Subclass it; :class:`Relaxed` does the rest.

    A relaxation is bound once, to one network. Its ``forward`` maps the current weights to effective ones and must stay
    traceable: what varies in training is a 0-d tensor or an argument, never a Python number.
    """

    names: tuple[str, ...] = ()
    """The weights it acts on, known after :meth:`bind`."""

    replaces: bool = False
    """True if the effective weights do not depend on the network's own (sharing): those are then dropped, not trained.
    """

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Choose the weights (set ``names``) and create the variables. ``weights`` holds what earlier
        relaxations give.
        """
        raise TypeError(f"{type(self).__name__} does not say how to bind(net, weights)")

    def forward(self, weights: Weights) -> Weights:
        """Effective weights for ``names`` only, shapes unchanged."""
        raise TypeError(f"{type(self).__name__} does not say how forward(weights) computes effective weights")

    def penalty(self) -> Tensor:
        """What the objective adds, before its factor lambda. A 0-d tensor; zero unless a method says otherwise."""
        return torch.zeros(())

    def harden(self, weights: Weights) -> Weights:
        """The discrete weights for ``names`` that the relaxation ends in."""
        return self.forward(weights)

    def anneal(self, progress: float | Tensor, final: float | Tensor) -> None:
        """Move towards the discrete problem; ``progress`` runs from 0 to 1. Does nothing unless a method says
        otherwise.
        """


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


def _recompute(net: nn.Module) -> None:
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
        module, leaf = _owner(self.net, name)
        if self._standing is not None and name in self._standing[1]:
            return self._under.get(name, cast(Tensor, module._parameters[leaf]))
        return cast(Tensor, getattr(module, leaf))

    def _drop(self, name: str) -> None:
        # A dropped weight leaves an empty buffer: functional_call needs the name, nobody needs the numbers.
        weight = self.net.get_parameter(name)
        self._dropped[name] = self._places.pop(name)
        for place in self._dropped[name]:
            module, leaf = _owner(self.net, place)
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
            module, leaf = _owner(self.net, name)
            vars(module).pop(leaf, None)
            if name in self._under:
                vars(module)[leaf] = self._under[name]
        self._standing, self._under = standing, {}
        for name, weight in standing[1].items() if standing else ():
            module, leaf = _owner(self.net, name)
            if leaf in vars(module):
                self._under[name] = vars(module)[leaf]
            vars(module)[leaf] = weight

    def _within_standing(self, weights: Weights) -> bool:
        """Whether an outer wrapper's weights stand where these shall be read: they would hide what functional_call
        swaps in.
        """
        owners = (_owner(self.net, name) for name in weights)
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
        places = (_owner(self.net, place) for each in self._dropped.values() for place in each)
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


class Relaxed(Reweighted):
    """A network that runs on effective weights.

    Args:
        net: any ``nn.Module``; it is used as it is, and its parameters stay trainable under ``net.*``.
        *relaxations: applied in order, each on what the one before gives (share, then mask, then add noise).

    ``forward`` computes the effective weights once and calls the network with them through
    :func:`torch.func.functional_call`; no layer is subclassed, so any layer type works. Compiles to one graph, works
    under ``vmap``, and ``state_dict``/``parameters``/``to`` are those of an ordinary module; a ``state_dict`` holds a
    tied tensor once. The network's other attributes are reached through it, and its methods (``generate``) run on
    effective weights.

    Raises:
        ValueError: no relaxation given, or one that finds no weight to act on.
        RuntimeError: a relaxation that is bound to another network already; when it runs, reentrant activation
            checkpointing (use ``use_reentrant=False``), weights that FSDP has split by layer, or tracing by torch.fx.
    """

    def __init__(self, net: nn.Module, *relaxations: Relaxation) -> None:
        super().__init__(net)
        if not relaxations:
            raise ValueError("Relaxed needs at least one relaxation, for instance Relaxed(net, ContinuousMask())")
        self.relaxations = nn.ModuleList(relaxations)
        for relaxation in relaxations:
            if relaxation.names:
                raise RuntimeError(f"this {type(relaxation).__name__} is bound to a network already; make a new one")
            with torch.no_grad():
                relaxation.bind(net, self.weights())
            first = next(iter(net.parameters()), None)
            if first is not None:
                relaxation.to(device=first.device)
        for relaxation in relaxations:  # when all are bound: later ones select these weights too
            for name in relaxation.names if relaxation.replaces else ():
                if name not in self._dropped:
                    self._drop(name)

    def weights(self) -> Weights:
        """Effective weights by parameter name, every parameter of the network among them."""
        weights = {name: self._parameter(name) for name in self._places}
        for relaxation in self._stack():
            if any(type(weights.get(name)).__name__ == "DTensor" for name in relaxation.names):
                raise RuntimeError(
                    f"{type(relaxation).__name__} needs whole weights, and FSDP or tensor parallelism has split "
                    "them by layer: "
                    "shard the relaxed network as one, fully_shard(relaxed), or use DistributedDataParallel"
                )
            if relaxation.names:
                weights |= relaxation(weights)
        return weights

    def extra_repr(self) -> str:
        """How many weights each relaxation acts on: the default of ``where`` may be fewer than you think (no 1x1, no
        linear).
        """
        with torch.no_grad():
            sizes = {name: weight.numel() for name, weight in self.weights().items()}
        return "\n".join(
            f"{type(r).__name__} on {sum(sizes[name] for name in r.names):,} of {sum(sizes.values()):,} "
            f"weights, in {len(r.names)} tensors"
            for r in self._stack()
        )

    def _stack(self) -> Iterator[Relaxation]:
        return (cast(Relaxation, r) for r in self.relaxations)

    def _feed(self) -> Weights:
        weights = self.weights()
        acted_on = dict.fromkeys(name for relaxation in self._stack() for name in relaxation.names)
        return {place: weights[name] for name in acted_on for place in (self._places | self._dropped)[name]}

    def penalty(self) -> Tensor:
        """Sum of the relaxations' penalties, a 0-d tensor, to be multiplied by lambda in the loss."""
        first, *rest = (r.penalty() for r in self._stack())
        return sum(rest, first)

    def anneal(self, progress: float | Tensor, final: float | Tensor) -> None:
        """Tell every relaxation how far training has come (0 to 1) and where its temperature shall end."""
        for relaxation in self._stack():
            relaxation.anneal(progress, final)

    def harden(self) -> nn.Module:
        """A plain copy of the network with the discrete weights: same class, no trace of the relaxation.

        The relaxed network is left as it is, so training may go on. The copy has no tensors but those of its
        ``state_dict`` and those that were on the modules when they were wrapped: caches and hidden states start anew.
        """
        with torch.no_grad():
            weights: Weights = {name: self._parameter(name).detach() for name in self._places}
            for relaxation in self._stack():
                weights |= relaxation.harden(weights)
            plain = self._bare()
            for name, weight in weights.items():
                if name in self._places:
                    plain.get_parameter(name).copy_(weight)
                else:  # dropped: give the parameter back
                    parameter = nn.Parameter(weight.clone())
                    for place in self._dropped[name]:
                        module, leaf = _owner(plain, place)
                        setattr(module, leaf, parameter)  # takes the buffer's place
            for path, order in self._order.items():
                parameters = plain.get_submodule(path)._parameters
                for leaf in dict.fromkeys([*order, *parameters]):
                    parameters[leaf] = parameters.pop(leaf)
            _recompute(plain)
        return plain
