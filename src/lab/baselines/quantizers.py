"""What Chapter 5 compares with: DoReFa, LSQ, DSQ, LQ-Nets and SLB at given bits; BSQ, which finds each tensor's.

Each is a relaxation, so it runs any network in the same loop as SMOL. The first convolution and the last layer stay
whole in most of these papers: choose with ``where``. Not one line is taken from the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lab.utils.errors import LabError
from principled.relax import Relaxation, Where, select
from principled.reweighted import Weights
from principled.smol import is_quantisable


def round_through(x: Tensor) -> Tensor:
    """Nearest integer, with the gradient of the identity (Bengio et al., 2013)."""
    return through(x.round(), x)


def through(value: Tensor, x: Tensor) -> Tensor:
    """``value``, to the last bit, with the gradient of x."""
    return value.detach() + (x - x.detach())


class Quantizer(Relaxation):
    """What all quantisers share: the tensors that ``where`` chooses, as :attr:`names`, and a checked number of bits.

    Args:
        bits: a whole number from ``lowest`` to ``highest``; LabError otherwise.
        where: as for :class:`principled.Smol`.
    """

    lowest, highest = 1, 8

    def __init__(self, bits: int, where: Where | None = None) -> None:
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or not self.lowest <= bits <= self.highest:
            kind, limits = type(self).__name__, f"{self.lowest} to {self.highest}"
            raise LabError(f"{kind}: bits must be a whole number from {limits}, not {bits}")
        self.bits = bits
        self.where: Where = is_quantisable if where is None else where

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self.names = tuple(select(net, self.where))
        chosen = [weights[name] for name in self.names]
        self._shapes = [w.shape for w in chosen]
        self._sizes = [w.numel() for w in chosen]
        self.start(chosen)

    def start(self, weights: list[Tensor]) -> None:
        """Make what the method trains, in the order of ``names``."""

    def split(self, values: Tensor, units: Tensor) -> Weights:
        """``(d,)``, a number a weight, to tensors by name, each times its unit of ``(tensors,)`` units."""
        each = zip(self.names, values.split(self._sizes), self._shapes, units, strict=True)
        return {name: part.view(shape) * unit for name, part, shape, unit in each}


class LayerQuantizer(Quantizer):
    """A quantiser that treats each tensor by itself: subclasses say how in :meth:`quantise`."""

    def quantise(self, index: int, weight: Tensor) -> Tensor:
        """The quantised form of the tensor number ``index``, differentiable in some way."""
        raise TypeError(f"{type(self).__name__} does not say how to quantise")

    def forward(self, weights: Weights) -> Weights:
        return {name: self.quantise(i, weights[name]) for i, name in enumerate(self.names)}


class DoReFa(LayerQuantizer):
    """Zhou et al., 2016: tanh, scaled to [0, 1], rounded to a grid of 2**bits levels, scaled to [-1, 1].

    One bit is the sign times the mean magnitude.
    """

    def quantise(self, index: int, weight: Tensor) -> Tensor:
        if self.bits == 1:
            q = torch.where(weight >= 0, 1.0, -1.0) * weight.abs().mean()
            return through(q, weight)
        squashed = torch.tanh(weight)
        steps = 2**self.bits - 1
        unit = squashed / (2 * squashed.abs().max()) + 0.5
        return 2 * round_through(unit * steps) / steps - 1


class LSQ(LayerQuantizer):
    """Esser et al., 2020: a learned step size for each tensor; levels from -2**(bits - 1) to 2**(bits - 1) - 1 steps.

    The step starts at 2 mean|w| / sqrt(Q_P), and its gradient is divided by sqrt(N Q_P). At one bit Q_P would be 0.

    Attributes:
        step: ``(tensors,)`` Parameter.
    """

    lowest = 2

    def start(self, weights: list[Tensor]) -> None:
        self.below, self.above = 2 ** (self.bits - 1), 2 ** (self.bits - 1) - 1
        self.step = nn.Parameter(torch.stack([2 * w.abs().mean() / math.sqrt(self.above) for w in weights]))

    def quantise(self, index: int, weight: Tensor) -> Tensor:
        share = 1 / math.sqrt(weight.numel() * self.above)
        step = self.step[index]
        step = share * step + ((1 - share) * step).detach()  # the step itself, with a share of its gradient
        return round_through(torch.clamp(weight / step, -self.below, self.above)) * step


class DSQ(LayerQuantizer):
    r"""Gong et al., 2019: levels between learned bounds, with the gradient of tanh steps of learned sharpness.

    Within the cell :math:`i` with middle :math:`m_i` and width :math:`\Delta`,
    :math:`\varphi(x) = \tanh(k(x - m_i)) / (1 - \alpha)` with :math:`k = \ln(2/\alpha - 1) / \Delta`; the forward pass
    takes :math:`\operatorname{sgn}\varphi`, the backward pass :math:`\varphi`.

    Attributes:
        lower, upper, alpha: ``(tensors,)`` Parameters; they start at the tensor's range and at 0.2.
    """

    def start(self, weights: list[Tensor]) -> None:
        self.lower = nn.Parameter(torch.stack([w.min() for w in weights]))
        self.upper = nn.Parameter(torch.stack([w.max() for w in weights]))
        self.alpha = nn.Parameter(torch.full_like(self.lower, 0.2))

    def quantise(self, index: int, weight: Tensor) -> Tensor:
        lower, upper = self.lower[index], self.upper[index]
        alpha = self.alpha[index].clamp(1e-4, 0.4999)
        cells = 2**self.bits - 1
        width = (upper - lower) / cells
        x = torch.minimum(torch.maximum(weight, lower), upper)
        cell = ((x - lower) / width).detach().floor().clamp(0, cells - 1)
        middle = lower + (cell + 0.5) * width
        soft = torch.tanh(torch.log(2 / alpha - 1) / width * (x - middle)) / (1 - alpha)
        phi = through(torch.where(x >= middle, 1.0, -1.0), soft)
        return lower + width * (cell + (phi + 1) / 2)


class LQNets(LayerQuantizer):
    """Zhang et al., 2018: each filter has its own basis; a weight is the nearest sum of its basis with signs.

    Attributes:
        basis: ``(filters of all tensors, bits)`` buffer. It does not learn by gradient: call :meth:`update_` each step.
    """

    basis: Tensor

    def start(self, weights: list[Tensor]) -> None:
        self._filters = [w.shape[0] for w in weights]
        powers = 2.0 ** torch.arange(self.bits, device=weights[0].device)
        spread = torch.cat([w.flatten(1).abs().mean(1) for w in weights])
        self.register_buffer("basis", spread[:, None] * powers / powers.mean() / self.bits)
        for _ in range(5):
            self.update_(dict(zip(self.names, weights, strict=True)), keep=0.0)

    def _signs(self) -> Tensor:
        codes = torch.arange(2**self.bits, device=self.basis.device)
        return ((codes[:, None] >> torch.arange(self.bits, device=codes.device)) & 1).to(self.basis.dtype) * 2 - 1

    def _encode(self, rows: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """Signs ``(filters, weights, bits)`` and level ``(filters, weights)`` nearest to each weight of ``rows``."""
        signs = self._signs()
        levels, order = (basis @ signs.T).sort(1)
        between = (levels[:, 1:] + levels[:, :-1]) / 2
        place = torch.searchsorted(between, rows.contiguous())
        return signs[order.gather(1, place)], levels.gather(1, place)

    def quantise(self, index: int, weight: Tensor) -> Tensor:
        basis = self.basis.split(self._filters)[index]
        _, q = self._encode(weight.detach().flatten(1), basis)
        return through(q.view(weight.shape), weight)

    @torch.no_grad()
    def update_(self, weights: Mapping[str, Tensor], keep: float = 0.9) -> None:
        """One step of the paper's QEM: encode, fit the basis by least squares, average it with the old one."""
        for name, basis in zip(self.names, self.basis.split(self._filters), strict=True):
            rows = weights[name].flatten(1)
            signs, _ = self._encode(rows, basis)
            gram = signs.mT @ signs + 1e-6 * torch.eye(self.bits, device=rows.device, dtype=rows.dtype)
            fitted = torch.linalg.solve_ex(gram, (signs.mT @ rows[..., None])).result  # solve would wait to check
            basis.mul_(keep).add_(fitted.squeeze(-1), alpha=1 - keep)


class SLB(Quantizer):
    r"""Yang et al., 2020: each weight holds a distribution over its levels, which a falling temperature makes certain.

    The levels are 2**bits equal steps in [-1, 1] times the tensor's largest magnitude. Effective weights are the
    expected level, :math:`\sum_i v_i\, e^{a_i/\tau} / \sum_j e^{a_j/\tau}`; hardening takes the likeliest.
    ``anneal(progress, final)`` sets :math:`\tau = \mathrm{final}^{\,\mathrm{progress}}`, with ``final`` below 1. The
    network's own weights only say where to start. It trains 2**bits numbers a weight, hence at most
    4 bits. The paper's second set of BatchNorm statistics, for the discrete network, is left out.

    Attributes:
        a: ``(2**bits, d)`` Parameter.
    """

    highest = 4
    replaces = True
    tau: Tensor
    levels: Tensor

    def start(self, weights: list[Tensor]) -> None:
        peaks = [w.abs().max().clamp(min=1e-8) for w in weights]
        self.register_buffer("tau", torch.ones(()))
        self.register_buffer("peaks", torch.stack(peaks))
        w = torch.cat([(w / peak).flatten() for w, peak in zip(weights, peaks, strict=True)])
        self.register_buffer("levels", torch.linspace(-1, 1, 2**self.bits).to(w))
        self.a = nn.Parameter(-((w - self.levels[:, None]) ** 2) * 2**self.bits)

    def forward(self, weights: Weights) -> Weights:
        return self.split(self.levels @ torch.softmax(self.a / self.tau, 0), self.peaks)

    def harden(self, weights: Weights) -> Weights:
        return self.split(self.levels[self.a.argmax(0)], self.peaks)

    def anneal(self, progress: float | Tensor, final: float | Tensor) -> None:
        if not isinstance(final, Tensor) and not 0 < final <= 1:
            raise LabError(f"SLB's final temperature must lie above 0 and not above 1, it is {final}")
        self.tau.fill_(torch.as_tensor(final, dtype=torch.float64) ** progress)  # copy_ would wait for a GPU


class BSQ(Quantizer):
    r"""Yang et al., 2021: every bit of every weight is a variable; a group lasso empties whole bits of whole tensors.

    A weight is :math:`u \cdot \mathrm{round}\big(\sum_b (p_b - n_b)\, 2^b\big)` with planes :math:`p, n` in [0, 2] and
    the tensor's unit :math:`u` (the paper's :math:`s / (2^n - 1)`); rounding passes the gradient on. The penalty weighs
    each tensor's lasso :math:`\sum_b \lVert (p_b, n_b) \rVert_2` by its share of the parameters times its bits. Call
    :meth:`clip_` each step, and :meth:`requantise` every few epochs: it makes bits binary again and drops the highest
    and lowest that are empty. The sign is not counted among the bits. The authors' code trains the unit as well.

    Attributes:
        positive, negative: ``(bits + 1, d)`` Parameters, lowest bit first: a plane in [0, 2] may carry into one more.
        active: ``(tensors,)`` int64 buffer, bits each tensor has now.
        unit: ``(tensors,)`` buffer, worth of a tensor's lowest bit.
    """

    highest = 16
    replaces = True
    active: Tensor
    unit: Tensor

    def __init__(self, bits: int = 8, where: Where | None = None) -> None:
        super().__init__(bits, where)

    def start(self, weights: list[Tensor]) -> None:
        units = [w.abs().max().clamp(min=1e-8) / (2**self.bits - 1) for w in weights]
        self.register_buffer("unit", torch.stack(units))
        self.register_buffer("active", torch.full((len(units),), self.bits, device=self.unit.device))
        integers = torch.cat([(w / u).round().flatten() for w, u in zip(weights, units, strict=True)])
        self.positive, self.negative = (nn.Parameter(planes) for planes in self._planes(integers))

    def _planes(self, integers: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(self.bits + 1, device=integers.device)[:, None]
        digits = (integers.abs().to(torch.int64) >> places & 1).to(integers.dtype)
        return digits * (integers > 0), digits * (integers < 0)

    def _integers(self) -> Tensor:
        powers = 2.0 ** torch.arange(self.bits + 1, device=self.unit.device, dtype=self.unit.dtype)
        return round_through(powers @ (self.positive - self.negative))

    def forward(self, weights: Weights) -> Weights:
        return self.split(self._integers(), self.unit)

    def penalty(self) -> Tensor:
        squares = self.positive.square() + self.negative.square()
        parts = squares.split(self._sizes, 1)
        lasso = torch.stack([torch.sqrt(p.sum(1) + 1e-12).sum() for p in parts])  # a root has no slope at 0
        share = torch.tensor(self._sizes, device=lasso.device) * self.active / sum(self._sizes)
        return (share * lasso).sum()

    @torch.no_grad()
    def clip_(self) -> None:
        """Planes back into [0, 2]; those that were dropped stay empty."""
        places = torch.arange(self.bits + 1, device=self.unit.device)[:, None]
        # the carry plane fills only in requantise
        live = places < self.active.repeat_interleave(torch.tensor(self._sizes, device=self.unit.device))
        for planes in (self.positive, self.negative):
            planes.clamp_(0, 2).mul_(live)

    @torch.no_grad()
    def requantise(self) -> list[int]:
        """Make every bit 0 or 1, drop empty highest and lowest bits of each tensor; returns the bits of each.

        The weights stay what they are, except where a carry needs more than ``bits`` + 1 places, which is cut off.
        """
        fresh = []
        for i, part in enumerate(self._integers().split(self._sizes)):
            part = part.clamp(-(2 ** (self.bits + 1)) + 1, 2 ** (self.bits + 1) - 1)
            magnitude = int(np.bitwise_or.reduce(part.abs().to(torch.int64).cpu().numpy()))
            lowest = (magnitude & -magnitude).bit_length() - 1 if magnitude else 0
            self.active[i] = magnitude.bit_length() - lowest
            self.unit[i] *= 2.0**lowest
            fresh.append(part / 2**lowest)
        for planes, new in zip((self.positive, self.negative), self._planes(torch.cat(fresh)), strict=True):
            planes.copy_(new)
        return [int(bits) for bits in self.active]

    def average_bits(self) -> float:
        """Bits a weight, the sign not counted."""
        return sum(int(bits) * size for bits, size in zip(self.active, self._sizes, strict=True)) / sum(self._sizes)

    def grid(self) -> dict[str, tuple[float, int]]:
        """What each tensor's weights are multiples of, and its bits: how the found precisions are kept afterwards."""
        return dict(zip(self.names, zip(self.unit.tolist(), self.active.tolist(), strict=True), strict=True))


class FixedGrid(Relaxation):
    """Weights on given grids that go on learning, as BSQ fine-tunes: whole multiples of a tensor's unit, at most
    2**bits - 1 of them, with straight-through estimates.

    Args:
        grid: ``{name: (unit, bits)}``; with 0 bits a tensor is zero for good.
    """

    unit: Tensor
    bits: Tensor

    def __init__(self, grid: Mapping[str, tuple[float, int]]) -> None:
        super().__init__()
        self._grid = dict(grid)

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self.names = tuple(select(net, list(self._grid)))
        like = weights[self.names[0]]
        self.register_buffer("unit", torch.tensor([self._grid[n][0] for n in self.names]).to(like))
        self.register_buffer("bits", torch.tensor([self._grid[n][1] for n in self.names], device=like.device))

    def grid(self) -> dict[str, tuple[float, int]]:
        """Unit and bits of each tensor."""
        return dict(zip(self.names, zip(self.unit.tolist(), self.bits.tolist(), strict=True), strict=True))

    def forward(self, weights: Weights) -> Weights:
        on_grid = {}
        for name, unit, most in zip(self.names, self.unit, 2.0**self.bits - 1, strict=True):
            steps = round_through(weights[name] / unit)
            on_grid[name] = torch.maximum(torch.minimum(steps, most), -most) * unit
        return on_grid
