"""How fast does the gradient shrink with T? Theorems 6.2 and 6.3, measured where every constant is known.

The ground is a sum of sines: smooth, far from convex, and with the constants of the theorems in closed form. Each
theorem says that the mean squared gradient falls like 1/sqrt(T) if the rate is chosen for T; so each T is a run of its
own, and the slope of the logarithms should be -1/2.

    curves = measure(RULES, problem=skewed())
    print(slope(curves[0]))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lab.figures.nonconvergence.simulator import Floats, Rule

HORIZONS = tuple(2**k for k in range(9, 16))
"""T of :func:`measure`: 512 to 32,768, a factor of 64, so that a slope of -1/2 is a fall to an eighth."""


@dataclass(frozen=True)
class Sines:
    """f_s(w) = sum over i of a[s, i] sin(w[i] + c[s, i]), all samples s equally likely.

    Args:
        a: amplitudes, shape (samples, d).
        c: phases in radians, the same shape.

    Then f is a sine in each coordinate, and the constants of the theorems are exact: ``L``, ``lowest`` (f*), ``G_inf``
    and ``G_2``. Raises ValueError if the shapes differ.
    """

    a: Floats
    c: Floats

    def __post_init__(self) -> None:
        if np.ndim(self.a) != 2 or np.shape(self.a) != np.shape(self.c):
            raise ValueError(f"Sines: a has shape {np.shape(self.a)}, c {np.shape(self.c)}; give both as (samples, d)")

    @cached_property
    def mean(self) -> NDArray[np.complex128]:
        """f(w) = sum of Im(mean exp(i w)): amplitude and phase of f in each coordinate, shape (d,)."""
        return np.asarray((self.a * np.exp(1j * self.c)).mean(0))

    @property
    def L(self) -> float:
        """f's gradient is Lipschitz with this constant (6.2), and with no smaller one."""
        return float(np.abs(self.mean).max())

    @property
    def lowest(self) -> float:
        """f*: the least value of f."""
        return -float(np.abs(self.mean).sum())

    @property
    def G_inf(self) -> float:
        """Bounds each entry of a sample's gradient."""
        return float(np.abs(self.a).max())

    @property
    def G_2(self) -> float:
        """Bounds the norm of a sample's gradient."""
        return float(np.sqrt((self.a**2).sum(1)).max())

    def value(self, w: Floats) -> Floats:
        """f at points of shape (..., d)."""
        return np.asarray((self.mean * np.exp(1j * w)).imag.sum(-1))

    def gradient(self, w: Floats) -> Floats:
        """The gradient of f at points of shape (..., d)."""
        return np.asarray((self.mean * np.exp(1j * w)).real)

    def sample(self, s: NDArray[np.int64], w: Floats) -> Floats:
        """The gradients of f_s; ``s`` of shape (...), ``w`` of shape (..., d)."""
        return np.asarray(self.a[s] * np.cos(w + self.c[s]))


def skewed(samples: int = 50, d: int = 10, weight: float = 1.0, seed: int = 0) -> Sines:
    """One sample in ``samples`` carries most of f, as in (6.13): it counts ``weight`` times as much as all others
    together.

    Adam with a small eps follows the majority, whose minimum is elsewhere.
    """
    rng = np.random.default_rng(seed)
    a, c = np.ones((samples, d)), np.tile(rng.uniform(-math.pi, math.pi, d), (samples, 1))
    a[0], c[0] = weight * samples, rng.uniform(-math.pi, math.pi, d)
    return Sines(a, c)


RULES = (
    Rule("Adam, ε = 1e-8", "adam", alpha=1.0, beta2=0.9),
    Rule("Adam, ε = √t", "adam", alpha=0.3, eps=1.0, power=0.5, beta2=0.9),  # Theorem 6.2, Corollary 6.1
    Rule("Delayed Adam, ε = 1", "delayed", alpha=1.0, eps=1.0, beta2=0.9),  # Theorem 6.3
    Rule("AvaGrad, ε = 1", "avagrad", alpha=0.3, eps=1.0, beta2=0.9),  # Theorem 6.3
    Rule("SGD", "plain", alpha=0.3),
)
"""Methods and their alpha': the rate of a run of T steps is alpha' / sqrt(T), times eps_t where eps grows."""


@dataclass(frozen=True)
class GradientCurve:
    """Mean squared gradient of one rule at several horizons, as :func:`measure` gives it.

    Attributes:
        rule: the method.
        horizons: T of each run.
        mean_square: expectation over t of the squared gradient, shape (horizons, seeds).
        bound: what the theorem guarantees at each horizon; None where no theorem speaks.
    """

    rule: Rule
    horizons: tuple[int, ...]
    mean_square: Floats
    bound: Floats | None


class Slope(NamedTuple):
    """Slope of log mean squared gradient against log T, with a 95 % interval over seeds."""

    slope: float
    low: float
    high: float


def measure(
    rules: Sequence[Rule] = RULES, *, problem: Sines, horizons: Sequence[int] = HORIZONS, seeds: int = 16, seed: int = 0
) -> list[GradientCurve]:
    """Run each rule at each horizon T, from w_1 = 0, on the same samples for all rules.

    The expectation over t is the theorems': uniform, or for a growing eps p(t) proportional to
    alpha_t / (G_inf + eps_{t-1}), with eps_0 = eps_1.
    """
    curves = []
    for rule in rules:
        squares = np.stack([_run(rule, problem, T, seeds, seed) for T in horizons])
        curves.append(GradientCurve(rule, tuple(horizons), squares, _bounds(rule, problem, horizons)))
    return curves


def slope(curve: GradientCurve, *, resamples: int = 2000, seed: int = 0) -> Slope:
    """Least squares in log-log on the mean over seeds; the interval is a bootstrap over seeds (2.5 % to 97.5 %)."""
    x = np.log(curve.horizons)
    x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    seeds = curve.mean_square.shape[1]
    draws = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    slopes = x @ np.log(curve.mean_square[:, draws].mean(-1))
    low, high = np.quantile(slopes, (0.025, 0.975))
    return Slope(float(x @ np.log(curve.mean_square.mean(1))), float(low), float(high))


def _eps(rule: Rule, T: int) -> Floats:
    """eps_0, ..., eps_T; eps_0 = eps_1, which Theorem 6.2 needs above 0."""
    return rule.eps * np.maximum(np.arange(T + 1), 1.0) ** rule.power


def _run(rule: Rule, problem: Sines, T: int, seeds: int, seed: int) -> Floats:
    """Expectation over t of the squared gradient, one a seed."""
    eps = _eps(rule, T)
    alpha = np.full(T + 1, rule.alpha / math.sqrt(T)) * (eps if rule.power > 0 and not rule.fixed else 1.0)
    chosen = np.full(T, 1 / T)
    if rule.power > 0:
        _, chosen = dynamic_bound(problem, alpha[1:], eps, np.zeros(1), 0.0)
    rng = np.random.default_rng([seed, T])
    w, total = np.zeros((seeds, problem.a.shape[1])), np.zeros(seeds)
    v = largest = np.zeros_like(w)
    for t in range(1, T + 1):
        total += chosen[t - 1] * (problem.gradient(w) ** 2).sum(-1)
        g = problem.sample(rng.integers(len(problem.a), size=seeds), w)
        before, v = v, rule.beta2 * v + (1 - rule.beta2) * g * g  # (6.7)
        largest = np.maximum(largest, v)
        used = {"adam": v, "amsgrad": largest, "delayed": before, "avagrad": before, "plain": None}[rule.kind]
        eta = np.ones_like(w) if used is None else 1 / (np.sqrt(used) + eps[t])  # (6.6)
        if rule.kind == "avagrad":
            eta = eta / np.sqrt((eta**2).mean(-1, keepdims=True))  # Algorithm 7, line 7
        w = w - alpha[t] * eta * g  # (6.4)
    return total


def _bounds(rule: Rule, problem: Sines, horizons: Sequence[int]) -> Floats | None:
    """The right-hand sides that the proofs end with, every constant kept; None where no theorem speaks."""
    start, d = float(problem.value(np.zeros(problem.a.shape[1]))) - problem.lowest, problem.a.shape[1]
    L, G_inf, G_2 = problem.L, problem.G_inf, problem.G_2
    if rule.kind == "adam" and rule.power > 0 and not rule.fixed:  # Theorem 6.2
        eps = [_eps(rule, T) for T in horizons]
        alphas = [rule.alpha / math.sqrt(T) * e[1:] for T, e in zip(horizons, eps, strict=True)]
        zero = np.zeros(1)
        return np.array([dynamic_bound(problem, a, e, zero, start)[0] for a, e in zip(alphas, eps, strict=True)])
    if rule.power > 0 or rule.kind not in ("delayed", "avagrad", "plain"):
        return None
    least, most = {  # Theorem 6.3: the smallest rate there can be, and what bounds ||m * eta||^2
        "delayed": (1 / (G_inf + rule.eps), G_2**2 / rule.eps**2),
        "avagrad": (rule.eps / (G_inf + rule.eps), d * G_inf**2),
        "plain": (1.0, G_2**2),
    }[rule.kind]
    right = start / rule.alpha + rule.alpha * L * most / 2
    return np.asarray(right / (least * np.sqrt(np.asarray(horizons, dtype=float))))


def dynamic_bound(problem: Sines, alpha: Floats, eps: Floats, beta1: Floats, start: float) -> tuple[float, Floats]:
    """The right side of Theorem 6.2 and the probabilities p(t) that belong to it; eps has eps_0 in front."""
    now, before = eps[1:], eps[:-1]
    G_inf, G_2 = problem.G_inf, problem.G_2
    errors = alpha * beta1 * G_2**2 / now + problem.L * alpha**2 * G_2**2 / (2 * now**2)
    errors = errors + alpha * G_2**2 * (G_inf + now - before) / before**2
    chosen = alpha / (G_inf + before)
    return float((start + errors.sum()) / ((1 - beta1[0]) * chosen.sum())), chosen / chosen.sum()
