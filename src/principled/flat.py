"""All chosen weights of a network as one vector: a dozen kernels a step, however many layers; and how
they are grouped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .quantize import check_finite
from .reweighted import Weights
from .variables import OwnVariables, variable_dtype

Groups = Sequence[Tensor]
"""A partition of the weights: each entry the flat indices of one group, into all weights in the order of the network.
"""
Granularity = str | int | Groups | Callable[[Weights], Groups]
"""``"weight"``, ``"filter"``, ``"layer"``, the length of a block, or a partition."""
Scale = float | str | Mapping[str, float]
"""A number, ``"power"``, or ``{name: number}``: what the range of the weights, ±2, is multiplied by."""


class FlatRelaxation(OwnVariables):
    """A relaxation that works on the concatenation of its weights, in float32 or wider, each divided by its tensor's
    scale.
    """

    scale: Tensor
    _counts: Tensor

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self._scale = scale
        self._scaled = scale != 1  # without a scale no kernel is spent on it
        self.register_buffer("scale", torch.ones(0))  # a buffer: "power" depends on the weights at the start
        self.register_buffer("_counts", torch.zeros(0, dtype=torch.int64), persistent=False)

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Remember names, shapes and scales of ``weights``: the ones to act on."""
        self.names = tuple(weights)
        self._shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        for name, weight in weights.items():
            check_finite(weight, name)
        like = weights[self.names[0]]
        self._counts = torch.tensor([w.numel() for w in weights.values()], device=like.device)
        self._total = sum(w.numel() for w in weights.values())
        numbers = list(scales(self._scale, weights).values())
        self.scale = torch.tensor(numbers, dtype=variable_dtype(weights.values()), device=like.device)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if not self.scale.is_meta:
            self._scaled = bool((self.scale != 1).any())

    def scales(self) -> dict[str, float]:
        """By name, what the range of ±2 is multiplied by."""
        return dict(zip(self.names, self.scale.tolist(), strict=True))

    def gather(self, weights: Mapping[str, Tensor]) -> Tensor:
        """``(d,)`` weights over their scales, in the dtype of the variables."""
        w = flat(weights, self.names)
        w = w.to(torch.promote_types(w.dtype, self.scale.dtype))
        return w / self.unit() if self._scaled else w

    def finite(self, weights: Mapping[str, Tensor]) -> Tensor:
        """:meth:`gather` of weights that are to be made discrete; ``ValueError`` names a tensor that is not finite."""
        for name in self.names:
            check_finite(weights[name], name)
        return self.gather(weights)

    def rescale(self, w: Tensor) -> Tensor:
        """``(d,)`` back in the weights' own range."""
        return w * self.unit() if self._scaled else w

    def unit(self) -> Tensor:
        """``(d,)`` the scale of each weight."""
        return self.scale.repeat_interleave(self._counts, output_size=self._total)

    def split(self, per_weight: Tensor, like: Mapping[str, Tensor] | None = None) -> Weights:
        """``(d,)``, a number for each weight, to ``{name: tensor of the weight's shape}``, each in the dtype that its
        tensor in ``like`` has; views where that is the dtype already."""
        parts = torch.split(per_weight, [math.prod(shape) for shape in self._shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        return named if like is None else {name: part.to(like[name].dtype) for name, part in named.items()}


def flat(tensors: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    """``(d,)``: the named tensors, row-major, one after the other, in the dtype that holds them all."""
    return torch.cat([tensors[name].reshape(-1) for name in names])


def scales(scale: float | str | Mapping[str, float], weights: Mapping[str, Tensor]) -> dict[str, float]:
    """``{name: number}`` for each of ``weights``: what their range of ±2 is multiplied by."""
    if scale == "power":  # the smallest power of two with |w| <= 2 scale; 1 for a tensor of zeros
        peaks = {name: float(w.abs().max()) for name, w in weights.items()}
        return {name: 2.0 ** math.ceil(math.log2(peak / 2)) if peak else 1.0 for name, peak in peaks.items()}
    if isinstance(scale, str):
        raise ValueError(f"scale must be a number, 'power' or {{name: number}}, not {scale!r}")
    if isinstance(scale, Mapping) and (missing := [name for name in weights if name not in scale]):
        raise ValueError(f"scale: no number for {missing[0]}")
    chosen = {name: float(scale[name] if isinstance(scale, Mapping) else scale) for name in weights}
    for name, c in chosen.items():
        if not (c > 0 and math.isfinite(c)):
            raise ValueError(f"scale of {name} must be a finite number above 0, not {c}")
    return chosen


def group_ids(net: nn.Module, granularity: Granularity, weights: Mapping[str, Tensor]) -> Tensor:
    """``(d,)`` int64: the group of each weight, counted from 0 over the whole network."""
    if not isinstance(granularity, str | int):
        total = sum(w.numel() for w in weights.values())
        return _partition(granularity(dict(weights)) if callable(granularity) else granularity, total)
    ids, first = [], 0
    for name, weight in weights.items():
        position = torch.arange(weight.numel())
        if granularity == "layer":
            own = torch.zeros_like(position)
        elif granularity == "filter":
            owner = net.get_submodule(name.rpartition(".")[0])
            axis = 1 if isinstance(owner, nn.modules.conv._ConvTransposeNd) else 0
            own = position // math.prod(weight.shape[axis + 1 :]) % weight.shape[axis]
        else:
            own = position // cast(int, granularity)
        ids.append(first + own)
        first += int(own.max()) + 1
    return torch.cat(ids)


def _partition(groups: Groups, total: int) -> Tensor:
    if not len(groups) or any(g.dtype != torch.int64 or g.ndim != 1 or not len(g) for g in groups):
        raise ValueError("a grouping is a sequence of 1-D int64 index tensors, none of them empty")
    indices = torch.cat([g.cpu() for g in groups])
    if int(indices.min()) < 0 or int(indices.max()) >= total:
        raise ValueError(f"grouping: there is no weight {int(indices.max() if indices.min() >= 0 else indices.min())}")
    times = torch.bincount(indices, minlength=total)
    for wrong, verb in ((times > 1, "repeats"), (times == 0, "misses")):
        if bool(wrong.any()):
            raise ValueError(
                f"grouping {verb} {int(wrong.sum())} of {total} weights, first weight {int(wrong.nonzero()[0])}"
            )
    ids = torch.empty(total, dtype=torch.int64)
    ids[indices] = torch.repeat_interleave(torch.arange(len(groups)), torch.tensor([len(g) for g in groups]))
    return ids
