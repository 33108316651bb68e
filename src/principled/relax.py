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

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from .reweighted import Reweighted, Weights, holder_of, owned_parameters, recompute

Where = (
    Callable[[str, nn.Module, nn.Parameter], bool] | type[nn.Module] | str | Iterable[type[nn.Module]] | Iterable[str]
)
"""Which weights a relaxation acts on: a predicate ``(name, module, parameter) -> bool``, module types (their parameters
of two or more dimensions), or parameter names."""


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
                        module, leaf = holder_of(plain, place)
                        setattr(module, leaf, parameter)  # takes the buffer's place
            for path, order in self._order.items():
                parameters = plain.get_submodule(path)._parameters
                for leaf in dict.fromkeys([*order, *parameters]):
                    parameters[leaf] = parameters.pop(leaf)
            recompute(plain)
        return plain
