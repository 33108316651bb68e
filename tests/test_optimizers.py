"""The registry of optimizers: each against its paper's update written out in NumPy, and against a
stop in mid-training.
"""

import copy
import io
import math

import numpy as np
import pytest
import torch

from lab.baselines.optimizers import CHOICES, TABLE, build
from lab.utils.errors import LabError

LR, EPS, DECAY, STEPS = 0.02, 1e-3, 0.01, 30
B1, B2 = 0.9, 0.999


def problem():
    """Two tensors and, for each step, two gradients: float64, so that a formula is met to rounding."""
    source = np.random.default_rng(0)
    shapes = [(3, 4), (5,)]
    return [source.normal(size=s) for s in shapes], [[source.normal(size=s) for s in shapes] for _ in range(STEPS)]


def by_library(name, **options):
    start, gradients = problem()
    params = [torch.nn.Parameter(torch.tensor(w)) for w in start]
    optimizer = build(name, params, **options)
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
    return [p.detach().numpy() for p in params]


def by_hand(rule, decay=DECAY, decoupled=False):
    """``rule(gradient, state, t, whole)`` gives a tensor's step; weight decay is added to the gradient unless
    decoupled.
    """
    weights, gradients = problem()
    weights, states = [w.copy() for w in weights], [{"m": 0 * w, "v": 0 * w} for w in weights]
    for t, step in enumerate(gradients, start=1):
        for w, g, state in zip(weights, step, states, strict=True):
            if decoupled:
                w *= 1 - LR * decay
            move = rule(g if decoupled else g + decay * w, state, t)
            w -= move
    return weights


def moments(g, s):
    s["m"] = B1 * s["m"] + (1 - B1) * g
    s["v"] = B2 * s["v"] + (1 - B2) * g * g


def sgd(g, s, t):
    s["m"] = g + 0.9 * s["m"]
    return LR * (g + 0.9 * s["m"])


def adam(g, s, t):
    moments(g, s)
    return LR * s["m"] / (1 - B1**t) / (np.sqrt(s["v"] / (1 - B2**t)) + EPS)


def amsgrad(g, s, t):  # Reddi et al., with the bias corrections that torch keeps
    moments(g, s)
    s["most"] = np.maximum(s.get("most", 0), s["v"])
    return LR * s["m"] / (1 - B1**t) / (np.sqrt(s["most"] / (1 - B2**t)) + EPS)


def adabound(g, s, t):  # Luo et al., 2019: rates clipped between bounds that meet at 0.1
    moments(g, s)
    rate = LR * math.sqrt(1 - B2**t) / (1 - B1**t) / (np.sqrt(s["v"]) + EPS)
    low, high = 0.1 * (1 - 1 / (1e-3 * t + 1)), 0.1 * (1 + 1 / (1e-3 * t))
    return np.clip(rate, low, high) * s["m"]


def adashift(
    g, s, t
):  # Zhou et al., 2019: m over the last n gradients, v from the largest square of the one before them
    n, kept = 10, s.setdefault("kept", [])
    kept.append(g)
    if t <= n:
        return np.zeros_like(g)
    weights = np.array([B1**i for i in range(n)])
    m = sum(w * x for w, x in zip(weights, kept[::-1], strict=False)) / weights.sum()
    s["v"] = B2 * s["v"] + (1 - B2) * np.square(kept[t - n - 1]).max()
    return LR * m / (np.sqrt(s["v"] / (1 - B2 ** (t - n))) + EPS)


def radam(g, s, t):  # Liu et al., 2020
    moments(g, s)
    most = 2 / (1 - B2) - 1
    length = most - 2 * t * B2**t / (1 - B2**t)
    mean = s["m"] / (1 - B1**t)
    if length <= 5:
        return LR * mean
    part = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    return LR * mean * math.sqrt(part) * math.sqrt(1 - B2**t) / (np.sqrt(s["v"]) + EPS)


def adabelief(
    g, s, t
):  # Zhuang et al., 2020: the square's place is taken by the surprise, with epsilon added in each step
    s["m"] = B1 * s["m"] + (1 - B1) * g
    s["v"] = B2 * s["v"] + (1 - B2) * (g - s["m"]) ** 2 + EPS
    return LR * s["m"] / (1 - B1**t) / (np.sqrt(s["v"] / (1 - B2**t)) + EPS)


def yogi(g, s, t):  # Zaheer et al., 2018, started at 1e-6 and bias-corrected as the package has it
    if t == 1:
        s["m"], s["v"] = np.full_like(g, 1e-6), np.full_like(g, 1e-6)
    s["m"] = B1 * s["m"] + (1 - B1) * g
    s["v"] = s["v"] - (1 - B2) * np.sign(s["v"] - g * g) * g * g
    return LR * s["m"] / (1 - B1**t) / (np.sqrt(s["v"] / (1 - B2**t)) + EPS)


def padam(g, s, t):  # Chen et al., 2018, but v where the paper has AMSGrad's maximum, and epsilon inside the power
    moments(g, s)
    return LR * math.sqrt(1 - B2**t) / (1 - B1**t) * s["m"] / (np.sqrt(s["v"]) + EPS) ** 0.5


RULES = {
    "SGD": sgd, "Adam": adam, "AMSGrad": amsgrad, "AdaBound": adabound, "AdaShift": adashift, "RAdam": radam,
    "AdaBelief": adabelief, "AdamW": adam, "Yogi": yogi, "PAdam": padam,
}  # fmt: skip


@pytest.mark.parametrize("name", list(RULES))
def test_each_is_its_paper_s_update(name):
    eps = {} if name == "SGD" else {"eps": EPS}
    got = by_library(name, lr=LR, weight_decay=DECAY, **eps)
    wanted = by_hand(RULES[name], decoupled=name == "AdamW")
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_tables_rows_are_there_and_avagrad_is_ours():
    from lab.datasets import thesis
    from principled import AvaGrad

    assert set(TABLE) == set(thesis.table("6.1")["row"]) == set(thesis.table("6.2")["row"])
    assert isinstance(build("AvaGrad", [torch.nn.Parameter(torch.ones(2))]), AvaGrad)
    assert build("AvaGradW", [torch.nn.Parameter(torch.ones(2))]).param_groups[0]["decoupled"]


@pytest.mark.parametrize("name", list(CHOICES))
def test_a_saved_state_goes_on_as_if_never_saved(name):
    _, gradients = problem()

    def steps(optimizer, params, some):
        for step in some:
            for p, g in zip(params, step, strict=True):
                p.grad = torch.tensor(g, dtype=torch.float32)
            optimizer.step()

    straight = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(5))]
    stopped = copy.deepcopy(straight)
    steps(build(name, straight, weight_decay=DECAY, clip=1.0), straight, gradients)
    first = build(name, stopped, weight_decay=DECAY, clip=1.0)
    steps(first, stopped, gradients[:13])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = build(name, stopped, weight_decay=DECAY, clip=1.0)
    second.load_state_dict(torch.load(file, weights_only=True))
    steps(second, stopped, gradients[13:])
    assert all(torch.equal(a, b) for a, b in zip(straight, stopped, strict=True))


def test_a_long_gradient_is_clipped_and_a_short_one_left_alone():
    w = torch.nn.Parameter(torch.zeros(2))
    optimizer = build("SGD", [w], lr=1.0, clip=1.0, momentum=0.0, nesterov=False)
    w.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    assert w.tolist() == pytest.approx([-0.6, -0.8], rel=1e-5)
    w.grad = torch.tensor([0.3, 0.4])
    optimizer.step()
    assert w.tolist() == pytest.approx([-0.9, -1.2], rel=1e-5)


def test_adashift_takes_a_closure_and_a_state_without_decay():
    w = [torch.nn.Parameter(torch.zeros(2))]
    optimizer = build("AdaShift", w, weight_decay=0.1)
    assert optimizer.step(lambda: 7.0) == 7.0
    state = optimizer.state_dict()
    del state["param_groups"][0]["weight_decay"]
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


def test_what_is_wrong_is_one_line():
    w = [torch.nn.Parameter(torch.zeros(2))]
    with pytest.raises(LabError, match="unknown optimizer 'Magic': choose one of SGD, Adam"):
        build("Magic", w)
    with pytest.raises(LabError, match="SGD has no epsilon: leave eps out"):
        build("SGD", w, eps=1e-8)
