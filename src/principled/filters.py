"""Whole filters instead of single weights: Continuous Sparsification on the structured l0 of (4.3), and networks that
become physically smaller by it.

    net = Structured(vgg16(), images[:1], s_init=-0.05)     # relax and train as any other
    small = net.harden(shrink=True)                         # the same function with fewer channels

Which channels hang together, through normalisation, additions and flattening, is worked out by torch-pruning.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import ContinuousMask, Relaxed
from .reweighted import Weights

Norm = nn.modules.batchnorm._NormBase


class FilterMask(ContinuousMask):
    """One mask variable an output filter, which also takes along the normalisation that follows and the bias.

    Masking the filter alone would leave a channel that is constant but not zero (BatchNorm's shift), which could not be
    taken out without changing the network.

    Args:
        example: an input of the network, as it takes it, to see which normalisation follows which convolution.
        s_init, where, curve, variant: as for :class:`principled.ContinuousMask`.

    :meth:`sparsity` counts the convolutions' weights; the penalty is the number of soft filters kept.
    """

    def __init__(self, example: Any, s_init: float = 0.0, **options: Any) -> None:
        super().__init__(s_init, shape="filter", **options)
        self._example = example

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """A variable a filter; the names of what goes with it."""
        super().bind(net, weights)
        follows = followers(net, self._example)
        self._with: dict[str, list[str]] = {}
        for name in self.names:
            layer = name.rpartition(".")[0]
            companions = [
                f"{layer}.bias",
                *(f"{norm}.{leaf}" for norm in follows.get(layer, ()) for leaf in ("weight", "bias")),
            ]
            self._with[name] = [companion for companion in companions if companion in weights]
        self.names += tuple(companion for names in self._with.values() for companion in names)
        self._weight_sizes |= dict.fromkeys(self.names[len(self._with) :], 0)  # sparsity counts filters' weights alone

    def split(self, flat: Tensor) -> Weights:
        """``(filters,)`` to ``{name: mask}``, the companions' among them."""
        masks = super().split(flat)
        return masks | {companion: masks[name].flatten() for name, names in self._with.items() for companion in names}


@torch.no_grad()
def followers(net: nn.Module, example: Any) -> dict[str, list[str]]:
    """``{convolution: [normalisations that read its output directly]}``, seen by running ``net`` on ``example``."""
    made: list[tuple[str, Tensor]] = []  # holds the tensors, so that none's memory is used for another
    found: dict[str, list[str]] = {}
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            hooks.append(module.register_forward_hook(lambda m, i, output, name=name: made.append((name, output))))
        elif isinstance(module, Norm):

            def read(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                """Note which layer's output this module reads."""
                for layer, output in made:
                    if inputs[0] is output:
                        found.setdefault(layer, []).append(name)

            hooks.append(module.register_forward_pre_hook(read))
    training = [m for m in net.modules() if m.training]
    try:
        net.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return found


class Structured(Relaxed):
    """A network under a :class:`FilterMask`, whose hard form can be a smaller network.

    Args:
        net: the plain network.
        example: an input as it takes it, such as one image ``(1, 3, 32, 32)``.
        s_init, **options: of the mask.
    """

    def __init__(self, net: nn.Module, example: Any, s_init: float = 0.0, **options: Any) -> None:
        super().__init__(net, FilterMask(example, s_init, **options))
        self._example = example

    def harden(self, shrink: bool = False) -> nn.Module:
        """The plain network with exact zeros; with ``shrink`` without them, where :func:`without_dead_channels` can
        take them out.
        """
        plain = super().harden()
        return without_dead_channels(plain, self._example) if shrink else plain


def without_dead_channels(net: nn.Module, example: Any) -> nn.Module:
    """A copy of a hardened network with its dead channels taken out: the same function, smaller and faster.

    A channel is dead if everything that writes to it is zero: filter, bias and normalisation. Where a skip connection
    adds several layers, all of them must be; else the channel stays, with its zeros. One channel of each layer is left.

    Args:
        net: a plain network, in which :class:`FilterMask` or another method has made filters zero.
        example: an input as it takes it.

    Raises:
        ValueError: torch-pruning is not installed, or cannot follow the network so that it keeps computing the same.
    """
    try:
        import torch_pruning as tp
    except ImportError:
        raise ValueError("taking channels out needs torch-pruning: pip install torch-pruning==1.6.1") from None
    small = copy.deepcopy(net).eval()
    parameters = [p.requires_grad for p in small.parameters()]
    with torch.no_grad():
        before = small(example)
    for p in small.parameters():
        p.requires_grad_(True)  # torch-pruning follows the graph of gradients
    graph = tp.DependencyGraph().build_dependency(small, example_inputs=example)
    done: set[nn.Module] = set()
    for module in [m for m in small.modules() if isinstance(m, nn.modules.conv._ConvNd)]:
        if module in done:
            continue
        prune = graph.get_pruner_of_module(module).prune_out_channels
        group = graph.get_pruning_group(module, prune, idxs=list(range(module.out_channels)))
        done |= {d.target.module for d, _ in group if _writes(graph, d)}
        dead = _dead(graph, group, module.out_channels)
        if len(dead) == module.out_channels:
            dead = dead[1:]
        if dead:
            group = graph.get_pruning_group(module, prune, idxs=dead)
            if graph.check_pruning_group(group):
                group.prune()
    for p, requires in zip(small.parameters(), parameters, strict=True):
        p.requires_grad_(requires)
    with torch.no_grad():
        after = small(example)
    if after.shape != before.shape or not torch.allclose(after, before, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"{type(net).__name__} computes something else once its dead channels are gone: use harden() without shrink"
        )
    return small.train(net.training)


def _writes(graph: Any, dependency: Any) -> bool:
    """Whether a dependency prunes what its layer puts out, and not what it takes in."""
    module = dependency.target.module
    weighted = isinstance(module, nn.modules.conv._ConvNd | nn.Linear | Norm)
    return weighted and dependency.handler == graph.get_pruner_of_module(module).prune_out_channels


def _dead(graph: Any, group: Any, channels: int) -> list[int]:
    alive = torch.zeros(channels, dtype=torch.bool)
    for dependency, indices in group:
        if not _writes(graph, dependency):
            continue
        module = dependency.target.module
        if len(indices) != channels:  # channels and indices do not correspond one to one: leave them all
            return []
        for value in (module.weight, module.bias):
            if value is not None:
                rows = value.detach().cpu()
                rows = (
                    rows.transpose(0, 1)
                    if isinstance(module, nn.modules.conv._ConvTransposeNd) and rows.ndim > 1
                    else rows
                )
                alive |= (rows[indices].flatten(1) if rows.ndim > 1 else rows[indices][:, None]).ne(0).any(1)
    return torch.nonzero(~alive).flatten().tolist()
