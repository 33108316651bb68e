"""Problem (6.13): where Adam walks away from the stationary point, and what makes it come back.

One number w in [0, 1], one rare sample that matters, many common ones that do not. Adam sees the rare gradient divided
by the second moment which that same gradient has just raised, so it hardly moves; the common samples carry it to w = 1
(Theorem 6.1). The thesis states neither the projection nor the step sizes: here a step ends with the projection onto
[0, 1], and ``RULES`` says every step size.

    trace = simulate(RULES, steps=200_000, seeds=20)
    trace.mean_square[0, -1]          # Adam's mean squared gradient after 200,000 steps, one number a seed
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["adam", "amsgrad", "delayed", "plain", "avagrad"]


@dataclass(frozen=True)
class Problem:
    """(6.14): f_s(w) = C w²/2 with probability p = (1 + delta) / (C + 1), and -w otherwise, for w in [0, 1].

    The defaults are (6.13). Raises ValueError unless C > delta > 0: else there is no stationary point inside.
    """

    C: float = 999.0
    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.delta < self.C < math.inf:
            raise ValueError(f"Problem(C={self.C}, delta={self.delta}): give C > delta > 0")

    @property
    def p(self) -> float:
        """Chance of the rare sample."""
        return (1 + self.delta) / (self.C + 1)

    @property
    def stationary(self) -> float:
        """w*, where the expected gradient is zero: (C - delta) / (C (1 + delta))."""
        return (self.C - self.delta) / (self.C * (1 + self.delta))

    def gradient(self, w: Floats) -> Floats:
        """The expected gradient p C w - (1 - p); it is ``delta`` at w = 1."""
        return self.p * self.C * w - (1 - self.p)


THESIS = Problem()
"""(6.13)."""


@dataclass(frozen=True)
class Rule:
    """How a method steps, with beta_1 = 0: w <- w - alpha_t g / (sqrt(v) + eps_t), then projected onto [0, 1].

    Args:
        name: what figures call it.
        kind: which second moment divides. ``"adam"``: v_t, this step's; ``"amsgrad"``: the largest so far;
            ``"delayed"``: v_{t-1} (Algorithm 6); ``"plain"``: none, which is SGD; ``"avagrad"``: v_{t-1}, and the rates
            are divided by their root mean square (Algorithm 7), which for a single number leaves 1 and so gives SGD.
        alpha: the rate; alpha_t = alpha, or alpha eps_t where ``power`` is above 0 (Corollary 6.1) unless ``fixed``.
        eps: eps_t = eps t^power.
        power: 0 for a constant eps.
        beta2: decay of the second moment, in [0, 1).
        fixed: True keeps alpha_t = alpha while eps_t grows; the steps then die out.
    """

    name: str
    kind: Kind
    alpha: float
    eps: float = 1e-8
    power: float = 0.0
    beta2: float = 0.99
    fixed: bool = False

    def __post_init__(self) -> None:
        good = 0 < self.alpha < math.inf and 0 <= self.eps < math.inf and self.power >= 0 and 0 <= self.beta2 < 1
        if not good or self.kind not in get_args(Kind):
            raise ValueError(
                f"{self}: give a kind of {get_args(Kind)}, alpha > 0, eps >= 0, power >= 0 and beta2 in [0, 1)"
            )


RULES = (
    Rule("Adam", "adam", alpha=1e-4),
    Rule("AMSGrad", "amsgrad", alpha=5e-3),
    Rule("Delayed Adam", "delayed", alpha=1e-4),
    Rule("Adam, growing ε", "adam", alpha=5e-5, eps=1.0, power=1.5),  # 6.5.1: eps_t = sqrt(t^3)
    Rule("SGD", "plain", alpha=5e-5),  # AvaGrad too: for a single number its rates are all 1
)
"""What Figure 6.7 compares, and SGD; beta_2 and eps are the thesis's, the step sizes are this book's."""


@dataclass(frozen=True)
class Trace:
    """What :func:`simulate` saw, at the steps ``t``: arrays of shape (rules, times, seeds)."""

    rules: tuple[Rule, ...]
    t: NDArray[np.int64]
    w: Floats
    mean_square: Floats
    """Mean of the squared expected gradient over steps 1 to t: Figure 6.7's curve."""
    at_one: Floats
    """Share of the iterates w_2, ..., w_{t+1} that sit exactly at w = 1."""


def simulate(
    rules: Sequence[Rule] = RULES,
    *,
    steps: int = 200_000,
    seeds: int = 20,
    seed: int = 0,
    start: float = 1.0,
    problem: Problem = THESIS,
    points: int = 200,
) -> Trace:
    """Run all ``rules`` on the same samples, all seeds at once.

    Args:
        rules: the methods.
        steps: T. 200,000 are 400 rare samples of (6.13), enough for every curve of ``RULES`` to show where it goes.
        seeds: independent sample sequences.
        seed: of the sequences.
        start: w_1. 1.0, the far end: a method has to walk to w*.
        problem: the problem.
        points: how many moments are kept, spread evenly in log t.

    Raises:
        ValueError: no rules, no steps, no seeds, or ``start`` outside [0, 1].
    """
    if not rules or min(steps, seeds, points) < 1 or not 0 <= start <= 1:
        raise ValueError("simulate: give at least one rule, step, seed and point, and a start in [0, 1]")
    kept = np.unique(np.geomspace(1, steps, points).round().astype(np.int64))
    rng = np.random.default_rng(seed)

    def column(values: list[float]) -> Floats:
        return np.array(values, dtype=float)[:, None]

    alpha, eps = column([r.alpha for r in rules]), column([r.eps for r in rules])
    power, beta2 = column([r.power for r in rules]), column([r.beta2 for r in rules])
    largest = column([r.kind == "amsgrad" for r in rules])
    delayed = column([r.kind == "delayed" for r in rules]) > 0
    adaptive = column([r.kind not in ("plain", "avagrad") for r in rules])
    eps = np.where(adaptive > 0, eps, 1.0)  # eta = 1 / (0 sqrt(v) + 1)
    scaled = np.array([[r.power > 0 and not r.fixed] for r in rules])

    w = np.full((len(rules), seeds), float(start))
    v, divisor, total, ones = (np.zeros_like(w) for _ in range(4))
    moments: list[tuple[Floats, ...]] = []
    chunk = 4096
    for begin in range(0, steps, chunk):
        times = np.arange(begin + 1, min(begin + chunk, steps) + 1)
        rare = rng.random((len(times), seeds)) < problem.p
        eps_t = eps * times[:, None, None].astype(float) ** power
        alpha_t = np.where(scaled, alpha * eps_t, alpha)
        for i, t in enumerate(times):
            total += problem.gradient(w) ** 2
            g = np.where(rare[i], problem.C * w, -1.0)
            before = v
            v = beta2 * v + (1 - beta2) * g * g  # (6.7)
            divisor = np.maximum(largest * divisor, v)
            root = np.sqrt(np.where(delayed, before, divisor)) * adaptive + eps_t[i]  # 1 / eta, (6.6)
            step = alpha_t[i] * np.divide(g, root, out=np.zeros_like(g), where=root > 0)  # 0/0 only for g = 0
            w = np.clip(w - step, 0.0, 1.0)  # (6.4), projected
            ones += w == 1.0
            if t == kept[len(moments)]:
                moments.append((w.copy(), total / t, ones / t))
    curves = (np.stack(values, axis=1) for values in zip(*moments, strict=True))
    return Trace(tuple(rules), kept, *curves)


def drift(problem: Problem, *, eps: float, beta2: float) -> float:
    """(6.23): least expected step of Adam over alpha, before the projection. Positive: w moves towards 1 on average."""
    p, second = problem.p, beta2 * (1 + problem.delta) * problem.C + 1 - beta2
    return -p / math.sqrt(1 - beta2) + (1 - p) / (math.sqrt(second) + eps)


def guaranteed_share(problem: Problem, *, eps: float, beta2: float) -> float:
    """Share of its time that Adam must spend exactly at w = 1 in the long run, whatever alpha and w_1 (Theorem 6.1
    here).

    Below 0 the theorem says nothing. The mean squared gradient is at least ``delta``² times this share.
    """
    p, C = problem.p, problem.C
    at_rare = beta2 * (1 + problem.delta) * C + (1 - beta2) * C**2  # bounds E[v_t] given a rare sample
    last = math.ceil(40 / p)  # (1-p)^last < e^-40; leaving out what follows only lowers the share
    j = np.arange(1, min(last, 10_000_000) + 1)  # common samples since the last rare one
    gain = 1 / (np.sqrt(1 + np.exp(j * math.log(beta2)) * at_rare if beta2 else np.ones_like(j, float)) + eps)
    up = float(np.sum(p * np.exp(j * math.log1p(-p)) * gain))
    return (1 + eps) * (up - p / math.sqrt(1 - beta2))


def adversary(*, eps: float, beta2: float, share: float = 0.5) -> Problem:
    """A problem on which Adam with these settings spends at least ``share`` of its time at the wrong end.

    The smallest C = 999, 1998, ... (doubling), delta = 1. Raises ValueError unless 0 < share < 1.
    """
    if not 0 < share < 1 or not 0 <= beta2 < 1 or not 0 <= eps < math.inf:
        raise ValueError(
            f"adversary(eps={eps}, beta2={beta2}, share={share}): give 0 < share < 1, beta2 in [0, 1), eps >= 0"
        )
    problem = THESIS
    while guaranteed_share(problem, eps=eps, beta2=beta2) < share:
        problem = Problem(C=2 * problem.C)
    return problem
