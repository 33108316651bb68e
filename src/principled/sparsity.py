r"""Continuous Sparsification (Chapter 4): a deterministic approximation of the l0 penalty.

The discrete problem (4.5) asks for a binary mask ``m``. Write ``m = H(s)`` with a real ``s`` and replace the step ``H``
by a smooth curve that becomes the step as :math:`\beta \to \infty` (4.11). Training minimises (4.13) while
:math:`\beta` grows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .relax import Where, is_spatial_convolution, select
from .reweighted import Weights
from .variables import OwnVariables, variable_dtype

Curve = Literal["sigmoid", "erf", "algebraic", "arctan"]

CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,  # (4.15)
    "erf": lambda z: 0.5 * (1 + torch.erf(z)),
    "algebraic": lambda z: 0.5 * (1 + z * torch.rsqrt(1 + z * z)),
    # printed with pi/2, which has no step as its limit: 2/pi is meant
    "arctan": lambda z: 0.5 + torch.atan(z) / math.pi,
}
"""Shapes of the smooth steps named in 4.2.4, as functions of z: see :func:`smooth_step`. Each is 1/2 at 0."""


def smooth_step(s: Tensor, beta: float | Tensor, curve: Curve = "sigmoid") -> Tensor:
    r"""The thesis's :math:`b_\beta(s)`, which tends to :math:`1\{s \ge 0\}` as :math:`\beta \to \infty` (except at 0,
    where it is 1/2).

    The shape is taken at :math:`z = \beta s`, for ``"algebraic"`` at :math:`\sqrt\beta s`: its family is
    :math:`\frac{1}{2}(1 + s / \sqrt{1/\beta + s^2})`, the thesis's at k = 2.
    """
    return CURVES[curve]((beta**0.5 if curve == "algebraic" else beta) * s)


def temperature(progress: float | Tensor, final: float | Tensor) -> Tensor:
    r""":math:`\beta = \beta_\mathrm{final}^{\,\mathrm{progress}}`: 1 at the start, ``final`` at the end (Algorithm 1,
    line 5)."""
    if not isinstance(final, Tensor) and not (final > 0 and math.isfinite(final)):
        raise ValueError(f"beta_final must be a finite number above 0, not {final}; the thesis uses 200")
    if not isinstance(progress, Tensor) and not 0 <= progress <= 1:
        raise ValueError(f"progress runs from 0 to 1, not {progress}")
    return torch.as_tensor(final, dtype=torch.float64) ** progress


class RemovedLayerWarning(UserWarning):
    """A tensor of which hardening leaves nothing."""


def warn_of_removed_layers(
    mask: Weights,
    what: str = "the mask removes every weight of",
    remedy: str = "prune less (a higher s_init, a lower rate or target), or leave the layer out with `where`",
) -> list[str]:
    """Names of the weights of which ``mask`` leaves nothing; each is a warning."""
    removed = [name for name, m in mask.items() if not m.any()]
    for name in removed:
        warnings.warn(
            f"{what} {name}: nothing but biases and normalisation passes that layer; {remedy}",
            RemovedLayerWarning,
            stacklevel=4,
        )
    return removed


def masked(weights: Weights, masks: Weights) -> Weights:
    """Weights times their masks, in the weights' dtype."""
    # weight first: the product takes its memory layout, so a channels_last kernel stays one
    return {name: (weights[name] * mask).to(weights[name].dtype) for name, mask in masks.items()}


class ContinuousMask(OwnVariables):
    r"""A soft mask :math:`\sigma(\beta s)` over chosen weights; it hardens to :math:`m = \mathbb{1}\{s \ge 0\}`.

    Args:
        s_init: start of every mask variable. 0 gives masks of 1/2; lower is sparser: it is the knob that sets the final
            sparsity (4.5.1). The thesis's default for pruning lies between 0 and -0.3.
        where: which weights carry a mask. Default: convolutions with a kernel larger than 1x1 (4.3.3). See
            :data:`principled.relax.Where`; ``where=(nn.Conv2d, nn.Linear)`` masks 1x1 kernels and linear layers too.
        shape: ``"weight"`` masks single weights; ``"filter"`` one variable for each output filter, the structured l0
            of (4.3). Transposed convolutions keep their filters on axis 1, and are masked there.
        curve: the smooth step, one of :data:`CURVES`. The thesis trains with ``"sigmoid"``.
        variant: ``"thesis"``, or ``"reference"`` for what the author's public code does: the mask is divided by
            :math:`\sigma(s_\mathrm{init})`, so that training starts from the plain network, the kept weights stay
            scaled by that factor, and the hard mask keeps ``s > 0`` instead of ``s >= 0``.

    Attributes:
        s: ``(d,)`` Parameter, all mask variables of the network as one vector, in the order of :attr:`names`; float32
            at least, whatever the network's dtype.
        beta: 0-d buffer, the temperature; 1 until :meth:`anneal` moves it. It lives in the ``state_dict``.

    The penalty (4.13) is :math:`\|\sigma(\beta s)\|_1`, for filters the number of soft filters kept, as in (4.3). Give
    ``s`` no weight decay (4.3.3), and a higher rate when the schedule is far shorter than the thesis's 60,000 steps: a
    mask that has no time to settle loses accuracy when it hardens.

    Raises:
        ValueError: ``s_init`` not finite, an unknown option, or no weight to mask; a ``state_dict`` of another curve,
            variant or shape.

    Source: Algorithm 1; Savarese, Silva and Maire, "Winning the Lottery with Continuous Sparsification", 2020.
    """

    beta: Tensor

    def __init__(
        self,
        s_init: float = 0.0,
        where: Where | None = None,
        shape: Literal["weight", "filter"] = "weight",
        curve: Curve = "sigmoid",
        variant: Literal["thesis", "reference"] = "thesis",
    ) -> None:
        super().__init__()
        if not math.isfinite(s_init):
            raise ValueError(f"s_init must be a finite number, not {s_init}; try 0 or -0.05")
        for option, value, known in (
            ("shape", shape, ("weight", "filter")),
            ("curve", curve, tuple(CURVES)),
            ("variant", variant, ("thesis", "reference")),
        ):
            if value not in known:
                raise ValueError(f"{option} must be one of {', '.join(known)}, not {value!r}")
        self.s_init, self.shape, self.curve, self.variant = float(s_init), shape, curve, variant
        self.where: Where = is_spatial_convolution if where is None else where
        self.register_parameter("s", None)
        self.register_buffer("beta", torch.ones(()))

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """One entry of ``s`` for each weight, or filter, that ``where`` selects."""
        chosen = select(net, self.where)
        self.names = tuple(chosen)
        self._shapes = {name: self._mask_shape(net, name, weights[name]) for name in self.names}
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]
        self._weight_sizes = {name: weights[name].numel() for name in self.names}
        like, dtype = weights[self.names[0]], variable_dtype(weights[name] for name in self.names)
        self.s = nn.Parameter(torch.full((sum(self._sizes),), self.s_init, dtype=dtype, device=like.device))
        self.beta = torch.ones((), dtype=dtype, device=like.device)
        # sigma(s_init), as the public code divides by; only variant="reference" uses it
        self._start = float(CURVES[self.curve](torch.tensor(self.s_init, dtype=torch.float64, device="cpu")))

    def options(self) -> dict[str, Any]:
        """Besides the weights: shape, curve and variant, and the s_init that the reference variant divides by."""
        started = {"s_init": self.s_init} if self.variant == "reference" else {}
        return super().options() | {"shape": self.shape, "curve": self.curve, "variant": self.variant} | started

    def _mask_shape(self, net: nn.Module, name: str, weight: Tensor) -> tuple[int, ...]:
        if self.shape == "weight":
            return tuple(weight.shape)
        owner = net.get_submodule(name.rpartition(".")[0])
        axis = 1 if isinstance(owner, nn.modules.conv._ConvTransposeNd) else 0
        return tuple(n if i == axis else 1 for i, n in enumerate(weight.shape))

    def soft(self) -> Tensor:
        r"""``(d,)`` the soft mask :math:`\sigma(\beta s)` (4.15), or another :func:`smooth_step`, over
        :math:`\sigma(s_\mathrm{init})` in the reference variant."""
        mask = smooth_step(self.s, self.beta, self.curve)
        return mask / self._start if self.variant == "reference" else mask

    def hard(self) -> Tensor:
        """``(d,)`` the binary mask of Algorithm 1, line 7; the reference variant keeps s > 0 only, and its scale."""
        if self.variant == "reference":
            return (self.s.detach() > 0).to(self.s.dtype) / self._start
        return (self.s.detach() >= 0).to(self.s.dtype)

    def split(self, flat: Tensor) -> Weights:
        """``(d,)`` to ``{name: mask}``, each in a shape that broadcasts over its weight."""
        parts = torch.split(flat, self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def forward(self, weights: Weights) -> Weights:
        """Effective weights: soft mask times weight (4.15)."""
        return masked(weights, self.split(self.soft()))

    def penalty(self) -> Tensor:
        """The l1 norm of the soft mask (4.13), a 0-d tensor."""
        return self.soft().sum()  # soft masks are positive: their sum is their l1 norm

    def harden(self, weights: Weights) -> Weights:
        """Binary mask times weight: pruned entries are exact zeros. Warns of a layer without a weight left, and of NaN
        in s.
        """
        masks = self.split(self.hard())
        for name, wrong in self.split(self.s.detach().isnan()).items():
            if wrong.any():
                warnings.warn(
                    f"{int(wrong.sum())} of {wrong.numel()} entries of s for {name} are NaN, which counts as pruned; "
                    "did the training diverge?",
                    stacklevel=3,
                )
        warn_of_removed_layers(masks)
        return masked(weights, masks)

    def anneal(self, progress: float | Tensor, final: float | Tensor) -> None:
        """Set :attr:`beta` to ``final ** progress`` in place (no new graph, no host synchronisation)."""
        self.beta.fill_(temperature(progress, final))  # not copy_: from the CPU that would wait for a GPU

    def new_round(self) -> None:
        r"""Start the next round of Algorithm 2 (line 3): :math:`s \leftarrow \min(\beta s, s_\mathrm{init})`, then
        :math:`\beta \leftarrow 1`.

        Suppressed weights stay deeply suppressed, all others get a fresh chance. The public code resets the temperature
        before it reads it, hence ``min(s, s_init)`` there.
        """
        with torch.no_grad():
            if self.variant == "thesis":
                self.s.mul_(self.beta)
            self.s.clamp_(max=self.s_init)
            self.beta.fill_(1.0)

    def sparsity(self) -> float:
        """Share of maskable weights that hardening removes, between 0 and 1 (filters count with their size)."""
        kept = total = 0
        for name, mask in self.split(self.hard() != 0).items():
            size = self._weight_sizes[name]
            kept += int(mask.sum()) * (size // mask.numel())
            total += size
        return 1 - kept / total


class KeepZeros(OwnVariables):
    """Freeze the zeros that a network's weights hold now, and train the rest: line 8 of Algorithm 1, fine-tuning.

    ``Relaxed(sparse, KeepZeros())`` for a network that was hardened, pruned, or loaded sparse. Nothing of the zeros
    comes back, whatever the optimizer does to the weight below (weight decay and momentum act on it, the mask hides
    it).

    Args:
        where: which weights are looked at, as for :class:`ContinuousMask`.
    """

    mask: Tensor

    def __init__(self, where: Where | None = None) -> None:
        super().__init__()
        self.where: Where = is_spatial_convolution if where is None else where
        self.register_buffer("mask", torch.ones(0))

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Read the zeros."""
        self.names = tuple(select(net, self.where))
        self._shapes = {name: tuple(weights[name].shape) for name in self.names}
        kept = torch.cat([(weights[name] != 0).flatten() for name in self.names])
        self.mask = kept.to(variable_dtype(weights[name] for name in self.names))

    def forward(self, weights: Weights) -> Weights:
        """Mask times weight."""
        parts = torch.split(self.mask, [math.prod(shape) for shape in self._shapes.values()])
        shapes = self._shapes.items()
        return masked(weights, {name: part.view(shape) for (name, shape), part in zip(shapes, parts, strict=True)})
