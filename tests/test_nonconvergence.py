"""Problem (6.13): the constants by hand, the simulation against the core's optimizers, and what Theorem 6.1
promises."""

import numpy as np
import pytest
import torch

from lab.figures.nonconvergence import simulator as nc
from principled.avagrad import AvaGrad, DelayedAdam, DynamicAdam


def test_constants_of_the_thesis():
    assert nc.THESIS.p == pytest.approx(1 / 500)
    assert nc.THESIS.stationary == pytest.approx(998 / 1998)
    assert nc.THESIS.gradient(np.array([nc.THESIS.stationary, 1.0])) == pytest.approx([0.0, 1.0], abs=1e-12)


def test_drift_by_hand():
    """(6.23) for C = 3, delta = 1, beta2 = 0, eps = 0: p = 1/2, -1/2 + 1/2 * 1/sqrt(1) = 0."""
    assert nc.drift(nc.Problem(C=3.0), eps=0.0, beta2=0.0) == pytest.approx(0.0)


def test_guaranteed_share_by_hand():
    """beta2 = 0: every step after a common sample has rate 1/(1+eps): (1-p) up, p (1+eps) down, both over 1/(1+eps)."""
    problem = nc.Problem(C=99.0)
    for eps in (0.0, 1.0):
        expected = (1 - problem.p) - (1 + eps) * problem.p
        assert nc.guaranteed_share(problem, eps=eps, beta2=0.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (nc.Rule("", "delayed", alpha=0.02, eps=0.1, beta2=0.9), lambda p: DelayedAdam(p, 0.02, (0.0, 0.9), 0.1)),
        (nc.Rule("", "avagrad", alpha=1e-4, eps=0.1, beta2=0.9), lambda p: AvaGrad(p, 1e-4, (0.0, 0.9), 0.1)),
        (
            nc.Rule("", "adam", alpha=1e-3, eps=1.0, power=1.5, beta2=0.9),
            lambda p: DynamicAdam(p, 1e-3, (0.0, 0.9), 1.0, 1.5),
        ),
        (
            nc.Rule("", "adam", alpha=1e-3, eps=1.0, power=0.5, beta2=0.9, fixed=True),
            lambda p: DynamicAdam(p, 1e-3, (0.0, 0.9), 1.0, 0.5, scale_lr=False),
        ),
        (nc.Rule("", "plain", alpha=1e-4), lambda p: torch.optim.SGD(p, 1e-4)),
    ],
)
def test_agrees_with_the_optimizers(rule, optimizer):
    """The same samples through the core's optimizer with a projection after each step: the same iterates."""
    steps, problem = 600, nc.Problem(C=49.0)
    trace = nc.simulate([rule], steps=steps, seeds=1, seed=3, problem=problem, points=steps * 100)
    rare = np.random.default_rng(3).random((steps, 1)) < problem.p
    w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    one, seen = optimizer([w]), []
    for is_rare in rare[:, 0]:
        w.grad = problem.C * w.detach().clone() if is_rare else -torch.ones_like(w)
        one.step()
        with torch.no_grad():
            w.clamp_(0, 1)
        seen.append(float(w.detach()))
    assert len(trace.t) == steps
    assert 3 < rare.sum() < 100
    np.testing.assert_allclose(trace.w[0, :, 0], seen, rtol=0, atol=1e-10)


def test_adam_and_amsgrad_step_by_step():
    """A transcription of (6.4), (6.6), (6.7), one number at a time."""
    rules = [nc.Rule("", kind, alpha=0.05, eps=0.01, beta2=0.8) for kind in ("adam", "amsgrad")]
    problem = nc.Problem(C=9.0)
    trace = nc.simulate(rules, steps=50, seeds=2, seed=1, start=0.3, problem=problem, points=5000)
    rare = np.random.default_rng(1).random((50, 2)) < problem.p
    for i in range(2):
        for k in range(2):
            w, v, top, squares = 0.3, 0.0, 0.0, 0.0
            for t in range(50):
                squares += (problem.p * problem.C * w - (1 - problem.p)) ** 2
                g = problem.C * w if rare[t, k] else -1.0
                v = 0.8 * v + 0.2 * g * g
                top = max(top, v)
                w = min(1.0, max(0.0, w - 0.05 * g / ((v, top)[i] ** 0.5 + 0.01)))
                assert trace.w[i, t, k] == pytest.approx(w, abs=1e-12)
            assert trace.mean_square[i, -1, k] == pytest.approx(squares / 50)


def test_who_converges():
    """Figure 6.7 at 60,000 steps, 10 seeds: Adam stays at the wrong end, the others come down."""
    trace = nc.simulate(steps=60_000, seeds=10)
    end = dict(zip([r.name for r in trace.rules], trace.mean_square[:, -1].mean(-1), strict=True))
    adam = end.pop("Adam")
    assert adam > 0.98
    assert len(end) == 4
    assert max(end.values()) < 0.3


def test_a_growing_eps_with_a_fixed_small_rate_does_not_move():
    rule = nc.Rule("", "adam", alpha=1e-4, eps=1.0, power=1.5, fixed=True)
    trace = nc.simulate([rule], steps=2000, seeds=4)
    assert trace.w.min() > 0.99


@pytest.mark.parametrize(("eps", "beta2", "alpha"), [(1e-8, 0.9, 0.05), (0.0, 0.9, 2.0), (1.0, 0.9, 0.5)])
def test_theorem_holds_on_its_own_problem(eps, beta2, alpha):
    """Any rate: Adam sits at w = 1 at least the guaranteed share of the time (less what the start may cost)."""
    problem = nc.adversary(eps=eps, beta2=beta2)
    share = nc.guaranteed_share(problem, eps=eps, beta2=beta2)
    assert share >= 0.5
    steps = 20_000
    trace = nc.simulate(
        [nc.Rule("", "adam", alpha, eps, beta2=beta2)], steps=steps, seeds=20, start=0.0, problem=problem
    )
    measured = trace.at_one[0, -1]
    assert measured.mean() > share - (1 + eps) / (alpha * steps) - 3 * measured.std() / 20**0.5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: nc.Problem(C=1.0, delta=1.0),
        lambda: nc.Rule("", "adam", alpha=0.0),
        lambda: nc.Rule("", "nadam", alpha=0.1),  # type: ignore[arg-type]
        lambda: nc.Rule("", "adam", alpha=0.1, beta2=1.0),
        lambda: nc.simulate([]),
        lambda: nc.simulate(start=1.5),
        lambda: nc.adversary(eps=0.1, beta2=0.9, share=1.0),
    ],
)
def test_bad_input_is_one_line(wrong):
    with pytest.raises(ValueError, match="give") as error:
        wrong()
    assert "\n" not in str(error.value)
