"""Checks of the lemmas and theorems of Sections 6.7 to 6.11 on random instances, in the order in which the page *The
proofs* states them.

Two samples and eight steps make 256 sequences. All of them are run, so every expectation is exact, and so is every E_t:
the mean over the sequences that share a past. A check returns a :class:`Verdict`, whose text says how many cases hold
and how tight they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lab.figures.nonconvergence.simulator import Problem, Rule, adversary, guaranteed_share, simulate
from lab.utils.errors import LabError

from .convergence import Sines, dynamic_bound

Array = NDArray[np.float64]

T, D = 8, 3
"""Steps and parameters of every game."""
SEQUENCES = np.array(list(itertools.product((0, 1), repeat=T)))
"""s_1, ..., s_T, shape (256, T), in the order of s_1, then s_2, ..."""


class Verdict:
    """Cases of an inequality, left <= right; its text gives their number and the ratio of the two sides, 1 being a
    tight bound."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ratios: list[Array] = []

    def see(self, left: Array | float, right: Array | float) -> None:
        """Add cases. Raises LabError at the first that does not hold, beyond rounding (1e-9 of the right side)."""
        left, right = np.broadcast_arrays(np.asarray(left, float), np.asarray(right, float))
        if not (left <= right + 1e-9 * np.maximum(1, np.abs(right))).all():
            raise LabError(f"{self.name} does not hold: the left side is above the right by {(left - right).max():.3g}")
        positive = right > 1e-6  # a ratio says nothing beside zero or a negative bound
        self.ratios.append((left[positive] / right[positive]).ravel())

    def __str__(self) -> str:
        ratios = np.concatenate(self.ratios)
        tightness = f"ratio {np.median(ratios):.2g} (median), {ratios.max():.2g} (largest)"
        return f"{self.name}: {len(ratios):,} cases hold, {tightness}"


@dataclass(frozen=True)
class Game:
    """A method on a problem, along all 256 sequences at once. Arrays are (steps, 256) or (steps, 256, D).

    Attributes:
        problem: the sum of sines.
        alpha, eps, beta1: one entry a step; eps has eps_0 in front.
        delayed: whether eta_t is computed from v_{t-1} (Algorithm 6) or from v_t (Adam).
        rate: alpha_t, divided by the root mean square of eta_t for AvaGrad.
        w, m: w_1, ..., w_{T+1} and m_0, ..., m_T.
        g, v, eta: of steps 1 to T.
    """

    problem: Sines
    alpha: Array
    eps: Array
    beta1: Array
    delayed: bool
    rate: Array
    w: Array
    m: Array
    g: Array
    v: Array
    eta: Array

    @property
    def start(self) -> float:
        """f(w_1) - f*."""
        return float(self.problem.value(self.w[0])[0]) - self.problem.lowest

    @property
    def slope(self) -> Array:
        """The gradient of f at w_1, ..., w_T."""
        return self.problem.gradient(self.w[:-1])

    def inner(self, direction: Array) -> Array:
        """<gradient of f(w_t), direction_t * eta_t>, (T, 256)."""
        return (self.slope * direction * self.eta).sum(-1)

    @property
    def momentum_cost(self) -> Array:
        """beta_1t G_2 ||m_{t-1} * eta_t||, (T, 256)."""
        return self.beta1[:, None] * self.problem.G_2 * norm(self.m[:-1] * self.eta)


def report(*verdicts: Verdict) -> None:
    """Print each verdict on a line of its own."""
    print(*verdicts, sep="\n")


def norm(x: Array) -> Array:
    """Euclidean norm over the last axis."""
    return np.asarray(np.sqrt((x**2).sum(-1)))


def given_past(x: Array, t: int) -> Array:
    """E_t of x, a row a sequence, with s_1, ..., s_t (counted from 0: t samples) held fixed."""
    groups = x.reshape(2**t, -1, *x.shape[1:])
    return np.repeat(groups.mean(1), len(x) // 2**t, axis=0)


def random_problem(rng: Generator) -> Sines:
    """Two samples, of which one may outweigh the other."""
    scale = 10 ** rng.uniform(-0.5, 0.7, (2, 1))
    return Sines(scale * rng.normal(size=(2, D)), rng.uniform(-np.pi, np.pi, (2, D)))


def play(
    problem: Sines,
    alpha: Array,
    eps: Array,
    beta1: Array,
    beta2: float,
    rng: Generator,
    *,
    delayed: bool,
    avagrad: bool = False,
) -> Game:
    """Run all sequences from one random start: Adam, Delayed Adam, or AvaGrad (``delayed`` and ``avagrad``)."""
    w, m, v = [rng.uniform(-3, 3, D) * np.ones((256, D))], [np.zeros((256, D))], [np.zeros((256, D))]
    gradients, etas, rates = [], [], []
    for t in range(T):
        g = problem.sample(SEQUENCES[:, t], w[t])
        m.append(beta1[t] * m[t] + (1 - beta1[t]) * g)  # (6.5)
        v.append(beta2 * v[t] + (1 - beta2) * g**2)  # (6.7)
        eta = 1 / (np.sqrt(v[t] if delayed else v[t + 1]) + eps[t + 1])  # (6.6)
        rate = alpha[t] / (np.sqrt((eta**2).mean(1)) if avagrad else np.ones(256))  # (6.12)
        w.append(w[t] - rate[:, None] * eta * m[t + 1])  # (6.4)
        gradients.append(g)
        etas.append(eta)
        rates.append(rate)
    arrays = (np.stack(values) for values in (rates, w, m, gradients, v[1:], etas))
    return Game(problem, alpha, eps, beta1, delayed, *arrays)


def random_games(rng: Generator, count: int = 40) -> list[Game]:
    """Games with random problems and schedules (beta_1t falls like 1/sqrt(t), eps_t rises), Delayed Adam and Adam in
    turns."""
    games = []
    for k in range(count):
        problem = random_problem(rng)
        beta1 = rng.uniform(0, 0.99) / np.sqrt(1 + np.arange(T))
        eps = np.maximum.accumulate(10 ** rng.uniform(-3, 0.5, T + 1))
        alpha = 10 ** rng.uniform(-2, 0) * np.ones(T)
        games.append(play(problem, alpha, eps, beta1, rng.uniform(0, 0.999), rng, delayed=k % 2 == 0))
    return games


# -- Theorem 6.1 -------------------------------------------------------------------------------------------------------


def second_moment_bound(rng: Generator) -> Verdict:
    """The mean squared gradient at w = 1 is at most (1 + delta) C, the last line of (6.21)."""
    verdict = Verdict("E[g^2] <= (1 + delta) C")
    for _ in range(1000):
        problem = Problem(C=10 ** rng.uniform(0.5, 5), delta=rng.uniform(0.01, 1.5))
        verdict.see(1 - problem.p + problem.p * problem.C**2, (1 + problem.delta) * problem.C)
    return verdict


def jensen(rng: Generator) -> Verdict:
    """1 / (sqrt(1 + beta^j x) + eps) is convex in x for every eps, also above 0."""
    verdict = Verdict("Jensen: phi(mean) <= mean of phi")
    for _ in range(1000):
        x, power = rng.exponential(size=(2, 50)) * 1e4, rng.uniform(0, 1)
        eps = rng.choice([0, 1e-8, 1.0, 10.0])
        of_mean, of_each = (1 / (np.sqrt(1 + power * y) + eps) for y in (x.mean(1, keepdims=True), x))
        verdict.see(of_mean, of_each.mean(1, keepdims=True))
    return verdict


def time_at_the_wall(steps: int = 10_000, seeds: int = 10) -> None:
    """Prints, for five (eps, beta2) and two rates, the share of time that Adam spends at w = 1 and what Theorem 6.1
    guarantees.

    Raises:
        LabError: a share below the guaranteed one by more than three standard errors.
    """
    print("   eps  beta2       C   kappa  rate   share of time at w = 1 (floor)")
    for eps, beta2 in ((0.0, 0.9), (1e-8, 0.9), (1.0, 0.9), (1e-8, 0.99), (1.0, 0.0)):
        problem = adversary(eps=eps, beta2=beta2)
        kappa = guaranteed_share(problem, eps=eps, beta2=beta2)
        rules = [Rule("Adam", "adam", alpha, eps, beta2=beta2) for alpha in (0.02, 2.0)]
        trace = simulate(rules, steps=steps, seeds=seeds, start=0.0, problem=problem)
        for rule, shares in zip(rules, trace.at_one[:, -1], strict=True):
            floor = kappa - (1 + eps) / (steps * rule.alpha)
            if shares.mean() + 3 * shares.std() / seeds**0.5 < floor:
                raise LabError(f"Theorem 6.1 does not hold: {rule} spends {shares.mean():.3f} of its time at w = 1")
            row = f"{kappa:6.3f}  {rule.alpha:4g}   {shares.mean():.3f} ({floor:.3f})"
            print(f"{eps:6g}  {beta2:5g}  {problem.C:6g}  {row}")


# -- six lemmas --------------------------------------------------------------------------------------------------------


def averages_are_bounded(games: Iterable[Game]) -> list[Verdict]:
    """Lemmas 6.1 and 6.2: m and v stay within the bounds of what they average, in the largest entry and in the norm."""
    names = "|m| (largest entry)", "|m| (norm)", "|v| (largest entry)", "|v| (norm)"
    verdicts = [Verdict(f"{name} <= bound") for name in names]
    for game in games:
        m, v, G_inf, G_2 = game.m[1:], game.v, game.problem.G_inf, game.problem.G_2
        sides = (np.abs(m).max(-1), G_inf), (norm(m), G_2), (v.max(-1), G_inf**2), (norm(v), G_2**2)
        for verdict, (left, right) in zip(verdicts, sides, strict=True):
            verdict.see(left, right)
    return verdicts


def direction_times_rates(games: Iterable[Game]) -> list[Verdict]:
    """Lemma 6.3, for every pair of steps: the norm of m_t' * eta_t is at most G_inf ||eta_t||, and at most G_2 max
    eta_t."""
    first, second = Verdict("Lemma 6.3, first"), Verdict("Lemma 6.3, second")
    for game in games:
        sizes = norm(game.m[None] * game.eta[:, None])  # (T, T + 1, 256)
        first.see(sizes, game.problem.G_inf * norm(game.eta)[:, None])
        second.see(sizes, game.problem.G_2 * game.eta.max(-1)[:, None])
    return [first, second]


def cost_of_momentum(games: Iterable[Game]) -> Verdict:
    """Lemma 6.4: momentum changes the inner product by at most beta_1t G_2 ||m_{t-1} * eta_t||, to either side."""
    verdict = Verdict("Lemma 6.4")
    for game in games:
        change = (1 - game.beta1[:, None]) * game.inner(game.g) - game.inner(game.m[1:])
        verdict.see(np.abs(change), game.momentum_cost)
    return verdict


def _late_sides(game: Game) -> tuple[Array, Array]:
    """Both sides of Lemma 6.5 with the smaller in front, (T, 256)."""
    inner = game.inner(game.m[1:])
    expected = np.stack([given_past(inner[t], t) for t in range(T)])
    least = (1 - game.beta1[0]) * game.eta.min(-1) * (game.slope**2).sum(-1) - game.momentum_cost
    return least, expected


def late_rates(games: Iterable[Game]) -> Verdict:
    """Lemma 6.5, on the games with a delay: with rates from the past, the step is right on average."""
    verdict = Verdict("Lemma 6.5")
    for game in games:
        if game.delayed:
            verdict.see(*_late_sides(game))
    return verdict


def violations_without_delay(games: Iterable[Game]) -> tuple[int, int]:
    """At how many steps, of how many, Adam's rates, which see the sample, break the inequality of Lemma 6.5."""
    broken = []
    for game in games:
        if not game.delayed:
            least, expected = _late_sides(game)
            broken += (least > expected + 1e-9).any(1).tolist()
    return sum(broken), len(broken)


def summed_descent(games: Iterable[Game]) -> Verdict:
    """Lemma 6.6, on the games with a delay."""
    verdict = Verdict("Lemma 6.6")
    for game in games:
        if game.delayed:
            f = game.problem.value(game.w)
            moved = (game.m[1:] ** 2 * game.eta**2).sum(-1)
            expected_f, expected_moved = (
                np.stack([given_past(values[t], t) for t in range(T)]) for values in (f[1:], moved)
            )
            right = f[:-1] - expected_f + game.rate * game.momentum_cost
            right = right + game.problem.L / 2 * game.rate**2 * expected_moved
            left = game.rate * game.eta.min(-1) * (game.slope**2).sum(-1)
            verdict.see((1 - game.beta1[0]) * left.sum(0), right.sum(0))
    return verdict


# -- Theorem 6.2 and its corollary -------------------------------------------------------------------------------------


def growing_epsilon(games: Iterable[Game]) -> list[Verdict]:
    """Theorem 6.2, on Adam's games, and (6.86) within it: how much a rate changes from one step to the next."""
    change, theorem = Verdict("(6.86), change of a rate"), Verdict("Theorem 6.2")
    for game in games:
        if not game.delayed:
            before = np.concatenate([np.full_like(game.eta[:1], 1 / game.eps[0]), game.eta[:-1]])
            most = (game.problem.G_inf + game.eps[1:] - game.eps[:-1]) / game.eps[:-1] ** 2
            change.see(np.abs(game.eta - before), most[:, None, None])
            right, chosen = dynamic_bound(game.problem, game.alpha, game.eps, game.beta1, game.start)
            theorem.see(float(chosen @ (game.slope**2).sum(-1).mean(1)), right)
    return [change, theorem]


def rate_of_sgd(rng: Generator) -> Verdict:
    """Corollary 6.1: its closed form is above the bound of Theorem 6.2, for random horizons, exponents and
    constants."""
    verdict = Verdict("Corollary 6.1")
    for _ in range(2000):
        problem = random_problem(rng)
        horizon, c = int(10 ** rng.uniform(0, 3.5)), 10 ** rng.uniform(-1, 1)
        p2 = rng.choice([0, rng.uniform(0, 0.5), 0.5, 1.5])
        p1 = max(0.0, 0.5 - p2) + rng.choice([0, 0.3])
        beta, gamma, start = rng.uniform(0, 0.95), 10 ** rng.uniform(-2, 1), rng.uniform(0, 5)
        t = np.maximum(np.arange(horizon + 1), 1)
        eps = c * horizon**p1 * t**p2
        alpha = gamma * eps[1:] / np.sqrt(horizon)
        left, _ = dynamic_bound(problem, alpha, eps, beta / np.sqrt(t[1:]), start)
        G_inf, G_2 = problem.G_inf, problem.G_2
        sides = start / gamma + 2 * beta * G_2**2 + gamma * problem.L * G_2**2 / 2
        sides += 4**p2 * G_2**2 * (2 * G_inf / c + p2)
        verdict.see(left, (G_inf + c) / ((1 - beta) * c * np.sqrt(horizon)) * sides)
    return verdict


# -- Theorem 6.3 and AvaGrad -------------------------------------------------------------------------------------------


def one_step_of_delay(rng: Generator) -> list[Verdict]:
    """Theorem 6.3 on Delayed Adam: (i) with its constants, (i) after Young's inequality, (ii) as expectations."""
    first, young, second = (Verdict(name) for name in ("(6.10), constants kept", "after Young", "(ii), expectations"))
    for k in range(60):
        problem = random_problem(rng)
        beta, eps = rng.uniform(0, 0.99), 10 ** rng.uniform(-2, 1)
        beta1 = beta / np.sqrt(1 + np.arange(T)) if k % 2 else np.zeros(T)
        rate = 10 ** rng.uniform(-2, 0)  # alpha'
        game = play(problem, np.full(T, rate / np.sqrt(T)), np.full(T + 1, eps), beta1, 0.9, rng, delayed=True)
        G_inf, G_2, L = problem.G_inf, problem.G_2, problem.L
        low, high = 1 / (G_inf + eps), 1 / eps  # eta^min, eta^max
        squares = (game.slope**2).sum(-1)
        front = 1 / ((1 - beta1[0]) * low * T**0.5)
        kept = game.start / rate + 2 * beta1[0] * G_2**2 * high + rate * L * G_2**2 * high**2 / 2
        merged = (game.start + beta1[0] * G_2**2) / rate + rate * high**2 * G_2**2 * (L + 2 * beta1[0]) / 2
        first.see(squares.mean(), front * kept)
        young.see(front * kept, front * merged)
        if k % 2 == 0:
            noise = rate**2 * (game.eta**2).sum((0, 2)).mean()
            left = (game.rate * game.eta.min(-1) * squares).sum(0).mean()
            second.see(left, game.start + L * G_inf**2 / (2 * T) * noise)
    return [first, young, second]


def constant_z(rng: Generator) -> Verdict:
    """(6.11) where Z is not random: the past chooses alpha_t = c_t / min eta_t, for numbers c_t that are fixed in
    advance."""
    verdict = Verdict("(6.11), Z not random")
    for _ in range(40):
        problem, eps, c = random_problem(rng), 10 ** rng.uniform(-2, 1), rng.uniform(0.1, 1, T)
        w, v = np.ones((256, D)) * rng.uniform(-3, 3, D), np.zeros((256, D))
        start, left, ratio = problem.value(w)[0] - problem.lowest, 0.0, np.zeros(256)
        for t in range(T):
            eta = 1 / (np.sqrt(v) + eps)
            rate = np.sqrt(T) * c[t] / eta.min(-1)  # alpha'_t, fixed by the past
            left += c[t] / c.sum() * (problem.gradient(w) ** 2).sum(-1).mean()
            noise = problem.L * problem.G_inf**2 / 2 * rate**2 * (eta**2).sum(-1)
            ratio = ratio + (start + noise) / (np.sqrt(T) * c.sum())
            g = problem.sample(SEQUENCES[:, t], w)
            w, v = w - (rate / np.sqrt(T))[:, None] * eta * g, 0.9 * v + 0.1 * g**2
        verdict.see(left, ratio.mean() / np.sqrt(T))
    return verdict


def avagrad_bound(rng: Generator) -> list[Verdict]:
    """Corollary 6.2 (AvaGrad), and the bound on its smallest normalised rate r_t."""
    bound, smallest = Verdict("Corollary 6.2 (AvaGrad)"), Verdict("eps / (G + eps) <= r_t")
    for _ in range(60):
        problem, eps, rate = random_problem(rng), 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-2, 0)
        alpha, zero = np.full(T, rate / np.sqrt(T)), np.zeros(T)
        game = play(problem, alpha, np.full(T + 1, eps), zero, 0.9, rng, delayed=True, avagrad=True)
        r = game.eta.min(-1) / np.sqrt((game.eta**2).mean(-1))
        noise = rate * problem.L * D * problem.G_inf**2 / 2
        bound.see((r * (game.slope**2).sum(-1)).mean(), (game.start / rate + noise) / np.sqrt(T))
        smallest.see(eps / (problem.G_inf + eps), r)
    return [bound, smallest]
