"""Whole filters instead of single weights: Continuous Sparsification on the structured l0 of (4.3), and networks that
become physically smaller by it.

    net = Structured(vgg16(), images[:1], s_init=-0.05)                  # relax and train as any other
    net = Structured(vit, images[:1], s_init=-0.05, mask=UnitMask)       # hidden units, heads, residual streams too
    small = net.harden(shrink=True)                                      # the same function, physically smaller

Which channels hang together, through normalisation, additions and flattening, is worked out by torch-pruning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .channels import Channels, ConvTransposed, Norm, Stream, rows_of, run
from .relax import Relaxed, Where, select
from .reweighted import Weights, copied
from .sparsity import CURVES, ContinuousMask
from .variables import variable_dtype


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


class UnitMask(ContinuousMask):
    """One mask variable for each thing that can leave the network as a whole, so that all that is pruned does.

    A *unit* is a channel with all that writes to it (of a residual stream the filters of all its blocks, of a depthwise
    convolution its kernel and the filter before it), a hidden unit, a head of attention with its queries, keys and
    values; of a grouped convolution the same filter of each group. Normalisation and biases go along.

    Args:
        example: an input of the network, as it takes it: a tensor, a tuple, or a dict of named ones.
        s_init, curve, variant: as for :class:`principled.ContinuousMask`.
        where: which layers' units are masked; a unit is, if any weight of it is selected. Default: convolutions and
            linear layers.

    What can not shrink is left alone: outputs, streams that LayerNorm reads, attention with fewer keys than queries,
    and ``nn.MultiheadAttention``, whose width is its heads'. The penalty is the number of soft units kept.

    Raises:
        ValueError: torch-pruning is not installed; no unit of what ``where`` selects could be taken out.
    """

    ids: Tensor

    def __init__(self, example: Any, s_init: float = 0.0, where: Where | None = None, **options: Any) -> None:
        super().__init__(s_init, (nn.modules.conv._ConvNd, nn.Linear) if where is None else where, "filter", **options)
        self._example = example
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64), persistent=False)

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """A variable a unit, and the unit of each row of each weight, bias and normalisation."""
        chosen = set(select(net, self.where))
        plain = followed(net)
        rows: dict[str, Tensor] = {}
        count = 0
        for stream in Channels(plain, self._example).streams():
            if chosen.isdisjoint(stream.writers):
                continue
            for name, units in stream.writers.items():
                ids = rows.setdefault(name, torch.full_like(units, -1))
                ids[units >= 0] = units[units >= 0] + count
            count += stream.count
        if not rows:
            raise ValueError(f"{type(net).__name__}: nothing of what `where` selects could be taken out as a whole")
        self.names = tuple(name for name in weights if name in rows)
        like = weights[self.names[0]]
        modules = {name: net.get_submodule(name.rpartition(".")[0]) for name in self.names}
        axes = {name: int(isinstance(modules[name], ConvTransposed) and weights[name].ndim > 1) for name in self.names}
        self._shapes = {
            name: tuple(n if i == axes[name] else 1 for i, n in enumerate(weights[name].shape)) for name in self.names
        }
        self._sizes = [len(rows[name]) for name in self.names]
        self._weight_sizes = {name: weights[name].numel() * (weights[name].ndim > 1) for name in self.names}
        self.ids = torch.cat([rows[name] for name in self.names]).to(like.device)
        dtype = variable_dtype(weights[name] for name in self.names)
        self.s = nn.Parameter(torch.full((count,), self.s_init, dtype=dtype, device=like.device))
        self.beta = torch.ones((), dtype=dtype, device=like.device)
        self._start = float(CURVES[self.curve](torch.tensor(self.s_init, dtype=torch.float64, device="cpu")))

    def split(self, flat: Tensor) -> Weights:
        """``(units,)`` to ``{name: mask}``; rows that belong to no unit have 1."""
        return super().split(torch.cat([flat, flat.new_ones(1)])[self.ids])


class Structured(Relaxed):
    """A network under a mask over whole filters or units, whose hard form can be a smaller network.

    Args:
        net: the plain network.
        example: an input as it takes it, such as one image ``(1, 3, 32, 32)``; with ``mask=UnitMask`` also a tuple or
            a dict.
        s_init, **options: of the mask.
        mask: :class:`FilterMask`, a variable a filter of the larger convolutions, or :class:`UnitMask`, a variable for
            all that can only leave together: residual streams, depthwise and grouped convolutions, hidden units, heads.
    """

    def __init__(
        self,
        net: nn.Module,
        example: Any,
        s_init: float = 0.0,
        mask: type[FilterMask] | type[UnitMask] = FilterMask,
        **options: Any,
    ) -> None:
        super().__init__(net, mask(example, s_init, **options))
        self._example = example

    def harden(self, shrink: bool = False) -> nn.Module:
        """The plain network with exact zeros; with ``shrink`` without them, where :func:`without_dead_channels` can
        take them out.
        """
        plain = super().harden()
        return without_dead_channels(plain, self._example) if shrink else plain


def without_dead_channels(net: nn.Module, example: Any) -> nn.Module:
    """A copy of a hardened network with its dead channels, hidden units and heads taken out: the same function, smaller
    and faster.

    A unit is dead if everything that writes to it is zero: filter, bias and normalisation. Where a skip connection adds
    several layers, all of them must be; else the channel stays, with its zeros. One unit of each layer is left. What is
    a unit says :class:`UnitMask`.

    Args:
        net: a plain network, in which :class:`UnitMask`, :class:`FilterMask` or another method has made rows zero.
        example: an input as it takes it: a tensor, a tuple, or a dict of named ones.

    Raises:
        ValueError: torch-pruning is not installed, or cannot follow the network so that it keeps computing the same.
    """
    small = followed(net)
    requires = {name: p.requires_grad for name, p in net.named_parameters()}
    with torch.no_grad():
        channels = Channels(small, example)
        before = run(small, example)
    try:
        for stream, dead in [(stream, _dead(small, stream)) for stream in channels.streams()]:
            channels.remove(stream, dead)  # after all were looked at: rows of a joint normalisation move
        with torch.no_grad():
            after = run(small, example)
        same = all(
            a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4)
            for a, b in zip(_outputs(after), _outputs(before), strict=True)
        )
    except (RuntimeError, IndexError, AssertionError):  # rows that are not there, sizes that do not fit each other
        same = False
    if not same:
        raise ValueError(
            f"{type(net).__name__} computes something else once its dead channels are gone: use harden() without shrink"
        )
    for name, p in small.named_parameters():
        p.requires_grad_(requires[name])
    return small.train(net.training)


def followed(net: nn.Module) -> nn.Module:
    """A copy whose graph torch-pruning can follow: in evaluation, every parameter with a gradient."""
    return copied(net).eval().requires_grad_(True)


def _outputs(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _dead(net: nn.Module, stream: Stream) -> Tensor:
    """``(units,)`` whether nothing that is not zero writes to a unit."""
    alive = torch.zeros(stream.count, dtype=torch.bool)
    for name, units in stream.writers.items():
        layer, _, leaf = name.rpartition(".")
        module = net.get_submodule(layer)
        rows = rows_of(module, module.get_parameter(leaf).detach().cpu())
        written = rows.flatten(1).ne(0).any(1) if rows.ndim > 1 else rows.ne(0)
        alive[units[(units >= 0) & written]] = True
    return ~alive
