"""Rates: the constants of a sum of sines, the fall with T, and bounds that hold."""

import numpy as np
import pytest

from lab.experiments.optimizers import convergence as rates
from lab.figures.nonconvergence.simulator import Rule


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    return rates.Sines(rng.normal(size=(4, 3)), rng.uniform(-3, 3, (4, 3)))


def test_constants_are_exact(problem):
    """Against the samples themselves: the mean, finite differences, a fine search."""
    rng = np.random.default_rng(0)
    w = rng.uniform(-9, 9, (2000, 3))
    each = np.stack([(problem.a[s] * np.sin(w + problem.c[s])).sum(-1) for s in range(4)])
    np.testing.assert_allclose(problem.value(w), each.mean(0), atol=1e-12)
    gradients = np.stack([problem.sample(np.full(2000, s), w) for s in range(4)])
    np.testing.assert_allclose(problem.gradient(w), gradients.mean(0), atol=1e-12)
    step = 1e-6
    for i in range(3):
        ahead = w + step * np.eye(3)[i]
        np.testing.assert_allclose(
            (problem.value(ahead) - problem.value(w)) / step, problem.gradient(w)[:, i], atol=1e-5
        )
    assert np.abs(gradients).max() <= problem.G_inf
    assert np.linalg.norm(gradients, axis=-1).max() <= problem.G_2
    grid = np.linspace(-np.pi, np.pi, 20_001)[:, None] * np.ones(3)
    lowest = (problem.mean * np.exp(1j * grid)).imag.min(0).sum()
    assert problem.lowest <= lowest < problem.lowest + 1e-6
    curvature = np.abs(np.diff(problem.gradient(grid), axis=0)).max() / (grid[1, 0] - grid[0, 0])
    assert problem.L * (1 - 1e-6) <= curvature <= problem.L


def test_one_short_run_by_hand(problem):
    """AvaGrad and a growing eps, three steps, written out."""
    for rule in (Rule("", "avagrad", 0.3, 0.2, beta2=0.7), Rule("", "adam", 0.3, 0.2, power=0.5, beta2=0.7)):
        got = rates.measure([rule], problem=problem, horizons=[3], seeds=1, seed=9)[0].mean_square[0, 0]
        rng, w, v, squares, weights = np.random.default_rng([9, 3]), np.zeros(3), np.zeros(3), [], []
        for t in (1, 2, 3):
            squares.append((problem.gradient(w) ** 2).sum())
            s = rng.integers(4, size=1)[0]
            g = problem.a[s] * np.cos(w + problem.c[s])
            new = 0.7 * v + 0.3 * g**2
            if rule.kind == "avagrad":
                eta = 1 / (np.sqrt(v) + 0.2)
                w = w - 0.3 / 3**0.5 * g * eta / np.sqrt((eta**2).mean())
                weights.append(1.0)
            else:
                eps = 0.2 * t**0.5
                w = w - 0.3 / 3**0.5 * eps * g / (np.sqrt(new) + eps)
                weights.append(0.3 / 3**0.5 * eps / (problem.G_inf + 0.2 * max(t - 1, 1) ** 0.5))
            v = new
        assert got == pytest.approx(np.dot(weights, squares) / sum(weights))


def test_slope_of_known_curves():
    horizons = (4, 16, 64)
    rule = rates.RULES[-1]
    for power in (-0.5, 0.0):
        curve = 3.0 * np.array(horizons, float)[:, None] ** power * np.ones(5)
        fitted = rates.slope(rates.GradientCurve(rule, horizons, curve, None))
        assert fitted == pytest.approx((power,) * 3, abs=1e-9)


def test_the_gradient_falls_like_one_over_root_T():
    """Theorems 6.2 and 6.3 at small T: slopes near -1/2, Adam's near 0, and no bound is broken."""
    falling = rates.measure(problem=rates.skewed(), horizons=[2**k for k in range(10, 14)], seeds=12)
    for measured in falling:
        if measured.bound is None:
            assert measured.rule.name.startswith("Adam, ε = 1e-8")
            assert abs(rates.slope(measured).slope) < 0.1
        else:
            assert -0.75 < rates.slope(measured).slope < -0.35
            assert (measured.mean_square.mean(1) < measured.bound).all()


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"give both as \(samples, d\)"):
        rates.Sines(np.ones((2, 3)), np.ones((3, 2)))
