r"""SMOL (Chapter 5): learn how many bits each weight needs, by learning how much noise it bears.

The discrete problem (5.4) asks for a number of bits for each weight. What the missing bits of a weight could be is
uniform noise of size :math:`2^{1-p}`; write that size as :math:`\sigma(s)` with a real ``s`` and train it beside the
weights (5.19). Wide noise is few bits, and the penalty asks for few bits; the loss says where noise hurts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .flat import FlatRelaxation, Granularity, Scale, flat, group_ids
from .quantize import MAX_BITS, bits_held, check_precision, nearest_level, quantize, zero_precision
from .relax import Relaxation, Relaxed, Where, select
from .reweighted import Weights, owned_parameters
from .sparsity import warn_of_removed_layers

Rounding = Literal["floor", "round", "ceil"]


def is_quantisable(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    """The thesis's choice (5.3.3): weights of two or more axes, so no bias and no normalisation, and no shortcut.

    A shortcut is known by its name: a part of it is ``shortcut`` or ``downsample``.
    """
    return parameter.ndim > 1 and not {"shortcut", "downsample"} & set(name.split("."))


def start(p_init: float) -> float:
    r""":math:`s = -\ln(2^{p - 1} - 1)`, so that :math:`\sigma(s) = 2^{1-p}` (Algorithm 5, line 1)."""
    if not 1 < p_init <= MAX_BITS:  # also refuses NaN
        raise ValueError(
            f"p_init must be above 1 (where s is infinite) and at most {MAX_BITS} bits, not {p_init}; the thesis uses 8"
        )
    return -math.log(2 ** (p_init - 1) - 1)


def extra_bits(s: Tensor) -> Tensor:
    r""":math:`\log_2(1 + e^{-s})`, what a precision has beyond its first bit (5.20), without overflow."""
    return F.softplus(-s) / math.log(2)


class Smol(FlatRelaxation):
    r"""Weight noise of learned size, :math:`w + \sigma(s) \odot \epsilon` with :math:`\epsilon \sim U(-1, 1)`; it
    hardens to :math:`Q(w, p)`.

    Training draws new noise for every forward pass from torch's global generator (under ``vmap`` say
    ``randomness="different"``). In ``eval()`` there is none: the network runs on w itself, clipped, the middle of the
    basin that training widens. What the *quantised* weights give is said by :meth:`harden`, as for a mask.

    Args:
        p_init: bits that every weight starts from, above 1; 8 is the thesis's. Fractions are fine.
        granularity: which weights share a precision: ``"weight"`` (none), ``"filter"`` (a slice of the output axis),
            ``"layer"`` (a tensor), an integer n (n weights in a row of a flattened tensor; the last block may be
            shorter), or a partition of your own: index tensors into all weights, or a function of ``{name: weight}``
            that returns them.
        where: which weights are quantised. Default :func:`is_quantisable`; see :data:`principled.relax.Where`.
        count: the penalty counts a group ``"weights"`` times its size, as the bits of (5.3) do, or ``"groups"`` once,
            as Algorithm 5 reads to the letter. For single weights the two agree.
        scale: the weights' range is :math:`\pm 2` times this. 1 is the thesis's; ``"power"`` takes for each tensor the
            smallest power of two (above 0) that its weights now fit in; or a number, or ``{name: number}``.
        zero: Zero Precision Allocation when hardening: True for single weights, ``"group"`` for whole groups.

    Attributes:
        s: ``(groups,)`` Parameter, all of the network as one vector, in the order of :attr:`names`; float32 at least,
            whatever the network's dtype.

    Train ``s`` with Adam, without weight decay, at 1e-3 (5.3.3): from 8 to 2 bits that takes 4,800 steps if the penalty
    dominates, and many more if the loss's noise does; a shorter schedule needs a higher rate and a larger penalty. Call
    :meth:`clip_` after each step (line 6). Stacked on a mask, pass ``zero=True``: no precision of 1 or more has a zero
    for what the mask removed.

    Raises:
        ValueError: a ``p_init`` of 1 or less, weights that are NaN, an option or scale without sense, a partition that
            misses or repeats a weight; a ``state_dict`` of another granularity, count or zero. Its scale acts.

    Weights beyond the range are clipped, and a warning says how many.

    Source: Algorithm 5; Savarese, Yuan, Li and Maire, "Not All Bits Have Equal Value", 2022.
    """

    group: Tensor
    sizes: Tensor

    def __init__(
        self,
        p_init: float = 8.0,
        granularity: Granularity = "weight",
        where: Where | None = None,
        count: Literal["weights", "groups"] = "weights",
        scale: Scale = 1.0,
        zero: bool | Literal["group"] = False,
    ) -> None:
        super().__init__(scale)
        self.s_init = start(p_init)
        if (isinstance(granularity, str) and granularity not in ("weight", "filter", "layer")) or (
            isinstance(granularity, int) and (isinstance(granularity, bool) or granularity < 1)
        ):
            raise ValueError(f"granularity must be weight, filter, layer, a block of 1 or more, not {granularity!r}")
        if count not in ("weights", "groups"):
            raise ValueError(f"count must be weights or groups, not {count!r}")
        if zero not in (True, False, "group"):
            raise ValueError(f"zero must be True, False or 'group', not {zero!r}")
        self.granularity, self.count, self.zero = granularity, count, zero
        self.where: Where = is_quantisable if where is None else where
        self.register_parameter("s", None)
        self.register_buffer("group", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("sizes", torch.zeros(0), persistent=False)

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """One entry of ``s`` for each group of the weights that ``where`` selects."""
        chosen = {name: weights[name] for name in select(net, self.where)}
        self.take(chosen)
        self._warn_of_clipping(chosen)
        like = self.scale
        if self.granularity == "weight":
            self.sizes = torch.ones((), dtype=like.dtype, device=like.device)
            groups = self._total
        else:
            self.group = group_ids(net, self.granularity, chosen).to(like.device)
            self.sizes = torch.bincount(self.group).to(like.dtype)
            groups = self.sizes.numel()
        self.s = nn.Parameter(torch.full((groups,), self.s_init, dtype=like.dtype, device=like.device))

    def _warn_of_clipping(self, weights: Mapping[str, Tensor]) -> None:
        beyond = {name: float((weights[name].abs() > 2 * c).float().mean()) for name, c in self.scales().items()}
        clipped = sorted((name for name in beyond if beyond[name]), key=lambda name: -beyond[name])
        if clipped:
            others = f" (and of {len(clipped) - 1} other tensors, of each less)" if len(clipped) > 1 else ""
            warnings.warn(
                f"Smol clips {beyond[clipped[0]]:.2%} of the weights of {clipped[0]}{others}, beyond the range "
                "of ±2 times scale; "
                'scale="power" gives each tensor a range that it fits in',
                stacklevel=4,
            )

    def options(self) -> dict[str, Any]:
        """Besides the weights: which of them share a precision, how bits are counted and zeros allocated."""
        shared: str | int
        if isinstance(self.granularity, str | int):
            shared = self.granularity
        else:  # a checksum: the partition itself is not saved
            shared = int((self.group * torch.arange(1, 1 + self.group.numel(), device=self.group.device)).sum())
        return super().options() | {"granularity": shared, "count": self.count, "zero": self.zero}

    def _spread(self, per_group: Tensor) -> Tensor:
        return per_group[self.group] if self.group.numel() else per_group

    def forward(self, weights: Weights) -> Weights:
        """Effective weights (5.19): clipped to ±(2 - sigma(s)), plus noise in training."""
        sigma = self._spread(torch.sigmoid(self.s))
        limit = 2 - sigma.detach()  # a projection (line 6), so s does not learn from it; the sum stays within (5.18)
        w = torch.clamp(self.gather(weights), -limit, limit)
        if self.training:
            w = torch.addcmul(w, sigma, 2 * torch.rand_like(sigma) - 1)
        return self.split(self.rescale(w), weights)

    @torch.no_grad()
    def clip_(self, weights: Mapping[str, Tensor]) -> None:
        """Clip the weights themselves, in place (Algorithm 5, line 6): call it after the optimizer's step.

        Without it the effective weights are right all the same, but a weight beyond the range no longer feels the loss.
        """
        limits = self.rescale(2 - self._spread(torch.sigmoid(self.s)))
        lower, upper = self.split(-limits), self.split(limits)
        for name in self.names:
            weight = weights[name]
            # a narrower dtype must not round the limit up
            inside = 1.0 if weight.dtype == limits.dtype else 1 - torch.finfo(weight.dtype).eps / 2
            weight.clamp_(lower[name] * inside, upper[name] * inside)

    def penalty(self) -> Tensor:
        """Bits beyond each weight's first (Algorithm 5, line 4), a 0-d tensor; groups count as ``count`` says."""
        bits = extra_bits(self.s)
        return (bits * self.sizes if self.count == "weights" else bits).sum()

    @torch.no_grad()
    def precision(self, rounding: Rounding = "floor") -> dict[str, Tensor]:
        """Bits of each weight (5.20), int8 in the weight's shape, from 1 to 24; zero precision not yet applied.

        ``"floor"`` is what the thesis's experiments use (5.3.3): fewer bits, and an error of up to twice sigma(s).
        ``"round"`` is Algorithm 5's; ``"ceil"`` keeps the error within sigma(s).
        """
        if rounding not in ("floor", "round", "ceil"):
            raise ValueError(f"rounding must be floor, round or ceil, not {rounding!r}")
        bits = extra_bits(self.s)
        if not bool(torch.isfinite(bits).all()):
            wrong = next(name for name, part in self.split(self._spread(bits)).items() if not part.isfinite().all())
            raise ValueError(f"s of {wrong} holds NaN or infinite values, so no precision; did the training diverge?")
        whole = bits.round()  # a float32 s knows its precision to a millionth of a bit: within that, 14 is 14, not 13
        bits = torch.where((bits - whole).abs() < 4e-6, whole, getattr(torch, rounding)(bits))
        return self.split(self._spread((1 + bits).clamp(max=MAX_BITS).to(torch.int8)))

    @torch.no_grad()
    def allocate(
        self, weights: Mapping[str, Tensor], rounding: Rounding = "floor", zero: bool | Literal["group"] | None = None
    ) -> dict[str, Tensor]:
        """The final precision map: :meth:`precision`, as far as the weights' dtype holds the levels, then Zero
        Precision Allocation (lines 8 and 9).

        Args:
            weights: as the network holds them, by name, not quantised.
            rounding: see :meth:`precision`.
            zero: as in the constructor, whose choice is the default.
        """
        precision = self.precision(rounding)
        for name in self.names:
            if (most := bits_held(weights[name].dtype)) < MAX_BITS:
                precision[name] = precision[name].clamp(max=most)
        zero = self.zero if zero is None else zero
        if not zero:
            return precision
        groups = self.group if zero == "group" and self.group.numel() else None
        return self.split(zero_precision(self.gather(weights), flat(precision, self.names), groups))

    def harden(self, weights: Weights) -> Weights:
        """Quantised weights, Q(w, p), with the precisions rounded down; warns of a tensor without a bit left."""
        precision = self.allocate(weights)
        _warn_without_bits(precision)
        return self.split(self.rescale(quantize(self.finite(weights), flat(precision, self.names))), weights)


class FixedPrecision(FlatRelaxation):
    r"""Quantised weights at given precisions that go on learning by straight-through estimates (5.2.4).

    The network sees :math:`Q(w, p)`; w receives the gradient of what the network sees (Algorithm 5, lines 11 and 12).

    Args:
        precision: ``{name: integer tensor of the weight's shape}``, in bits, as many as the weight's dtype holds
            (:func:`principled.quantize.bits_held`); 0 is a weight that is 0 for good.
        scale: ``{name: number}`` or one number, as in :class:`Smol`: Q is taken of w over scale.

    Attributes:
        p: ``(d,)`` int8 buffer, all precisions in the order of :attr:`names`.
    """

    p: Tensor

    def __init__(self, precision: Mapping[str, Tensor], scale: Scale = 1.0) -> None:
        super().__init__(scale)
        for name, p in precision.items():
            check_precision(p, name)
        self._precision = dict(precision)
        self.register_buffer("p", torch.zeros(0, dtype=torch.int8))

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Find the weights that the precision map names, in the network's order."""
        chosen = {name: weights[name] for name in select(net, list(self._precision))}
        for name, weight in chosen.items():
            if weight.shape != (shape := self._precision[name].shape):
                raise ValueError(f"{name}: precisions of shape {tuple(shape)} for weights of {tuple(weight.shape)}")
            check_precision(self._precision[name], name, weight.dtype)
        self.take(chosen)
        self.p = flat(self._precision, self.names).to(weights[self.names[0]].device, torch.int8)
        self._precision = {}

    def precision(self) -> dict[str, Tensor]:
        """Bits of each weight, int8 in the weight's shape."""
        return self.split(self.p)

    def forward(self, weights: Weights) -> Weights:
        """Q(w, p), with the gradient of the identity."""
        w = flat(weights, self.names)
        q = self.rescale(nearest_level(self.gather(weights).detach(), self.p))
        return self.split(q + (w - w.detach()), weights)

    def harden(self, weights: Weights) -> Weights:
        """Q(w, p); refuses weights that are not finite, warns of a tensor without a bit."""
        precision = self.precision()
        for name, p in precision.items():
            check_precision(p, name, weights[name].dtype)  # the network may have been cast since
        _warn_without_bits(precision)
        return self.split(self.rescale(quantize(self.finite(weights), self.p)), weights)


def _warn_without_bits(precision: Weights) -> None:
    warn_of_removed_layers(precision, "no bit is left for any weight of", "give bits a lower price, or pass zero=False")


def fix_precision(
    relaxed: Relaxed,
    rounding: Rounding = "floor",
    zero: bool | Literal["group"] | None = None,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Relaxed:
    """End of the search (Algorithm 5, lines 8 and 9): a copy of the network at fixed precisions, ready to fine-tune.

    Args:
        relaxed: a network whose last relaxation is a :class:`Smol`; those before it are hardened.
        rounding, zero: see :meth:`Smol.allocate`.
        change: applied to each tensor of precisions, e.g. :func:`principled.quantize.restrict`.
    """
    *before, last = relaxed.relaxations
    if not isinstance(last, Smol):
        raise ValueError(f"fix_precision needs Smol as the last relaxation, not {type(last).__name__}")
    with torch.no_grad():
        weights: Weights = {name: p.detach() for name, _, p in owned_parameters(relaxed.net)}
        for relaxation in before:
            weights |= cast(Relaxation, relaxation).harden(weights)
        precision = last.allocate(weights, rounding, zero)
        plain = relaxed.harden()
        for name in last.names:  # what was quantised starts fine-tuning from where the search left it
            plain.get_parameter(name).copy_(weights[name])
    if change is not None:
        precision = {name: change(p) for name, p in precision.items()}
    fixed = Relaxed(plain, FixedPrecision(precision, last.scales()))
    return fixed.train(relaxed.training)
