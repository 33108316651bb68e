"""AvaGrad and its relatives: Algorithms 6 and 7 in NumPy, the author's public code, and what must
hold for any network.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from avagrad_tools import EAGER, flat, parameters, run, stream, transcription
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from principled.avagrad import AvaGrad, AvaGradW, DelayedAdam, DynamicAdam

FIXTURE = json.loads((Path(__file__).parent / "fixtures/avagrad.json").read_text())


# -- Algorithms 6 and 7 -----------------------------------------------------------------------------------------------


def test_two_steps_by_hand():
    w = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimizer = AvaGrad([w], lr=1.0, betas=(0.5, 0.75), eps=1.0)
    w.grad = torch.tensor([2.0, 0.0], dtype=torch.float64)
    optimizer.step()  # m = (1, 0), eta = (1, 1): an SGD step. Then v = (1, 0), eta = (1/2, 1), its mean square 5/8
    assert w.tolist() == [0.0, 1.0]
    w.grad = torch.tensor([0.0, 2.0], dtype=torch.float64)
    optimizer.step()  # m = (1/2, 1)
    root = math.sqrt(5 / 8)
    assert w.tolist() == pytest.approx([-0.25 / root, 1 - 1 / root], abs=1e-15)


def quadratic(dtype=torch.float64):
    problem = FIXTURE["problem"]
    a, c, w = (
        [torch.tensor(x, dtype=dtype).view(s) for x, s in zip(problem[key], problem["shapes"], strict=True)]
        for key in ("a", "c", "w0")
    )
    return [nn.Parameter(x) for x in w], lambda params: [
        x * (p.detach() - y) for x, p, y in zip(a, params, c, strict=True)
    ]


@pytest.mark.parametrize("form", EAGER)
@pytest.mark.parametrize("case", FIXTURE["thesis"], ids=lambda c: f"algorithm {c['alg']}, eps {c['eps']}")
def test_recorded_transcription(case, form):
    assert not case["eps_inside_sqrt"]
    params, gradient = quadratic()
    optimizer_class = {6: DelayedAdam, 7: AvaGrad}[case["alg"]]
    optimizer = optimizer_class(params, lr=case["lr"], eps=case["eps"], betas=(case["beta1"], case["beta2"]), **form)
    for recorded in case["trajectory"]:
        run(optimizer, params, [gradient(params)])
        assert_close(torch.from_numpy(flat(params)), torch.tensor(recorded, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", EAGER)
@pytest.mark.parametrize("decay", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled": True}])
@pytest.mark.parametrize("optimizer_class", [AvaGrad, DelayedAdam])
def test_transcription(optimizer_class, decay, form):
    params = parameters()
    gradients = stream(params, 30)
    kwargs = {"l2" if "decoupled" not in decay else "decoupled": decay.get("weight_decay", 0.0)}
    expected = transcription(
        flat(params), [flat(g) for g in gradients], 0.1, 0.01, normalize=optimizer_class is AvaGrad, **kwargs
    )
    trajectory = run(optimizer_class(params, lr=0.1, eps=0.01, **decay, **form), params, gradients)
    np.testing.assert_allclose(trajectory, expected, rtol=0, atol=1e-12)


def test_avagradw_is_avagrad_with_decoupled_decay():
    one, other = parameters(), parameters()
    gradients = stream(one, 5)
    trajectory = run(AvaGradW(one, weight_decay=0.3), one, gradients)
    assert (trajectory == run(AvaGrad(other, weight_decay=0.3, decoupled=True), other, gradients)).all()


@pytest.mark.parametrize("scale_lr", [True, False])
def test_dynamic_adam(scale_lr):
    params = parameters()
    gradients = [flat(g) for g in stream(params, 30)]
    w, m, v, expected = flat(params), 0.0, 0.0, []
    for t, g in enumerate(gradients, start=1):
        m, v, eps = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2, 0.5 * t**1.5
        w = w - 0.1 * (eps if scale_lr else 1) * m / (np.sqrt(v) + eps)
        expected.append(w)
    optimizer = DynamicAdam(params, lr=0.1, betas=(0.9, 0.99), eps=0.5, power=1.5, scale_lr=scale_lr)
    np.testing.assert_allclose(run(optimizer, params, stream(params, 30)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "case", FIXTURE["public_code"], ids=lambda c: f"{c['cls']}, lr {c['lr']}, eps {c['eps']}, {c['groups']}"
)
def test_reference_variant_is_the_public_code(case):
    params, gradient = quadratic()
    groups = params
    if case["groups"] == 2:
        groups = [{"params": [p], "lr": lr} for p, lr in zip(params, case["lr_groups"], strict=True)]
    optimizer_class = {"AvaGrad": AvaGrad, "AvaGradW": AvaGradW}[case["cls"]]
    options = {"lr": case["lr"], "eps": case["eps"], "weight_decay": case["wd"], "betas": tuple(case["betas"])}
    optimizer = optimizer_class(groups, variant="reference", **options)
    for step, recorded in enumerate(case["trajectory"], start=1):
        if step == case.get("lr_drop"):
            optimizer.param_groups[0]["lr"] /= case["lr_drop_factor"]
        run(optimizer, params, [gradient(params)])
        expected = np.concatenate([np.array(x).ravel() for x in recorded])
        np.testing.assert_allclose(flat(params), expected, rtol=0, atol=1e-10)


# -- what the norm runs over ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", EAGER)
@pytest.mark.parametrize("normalize", ["group", "global", "tensor"])
def test_normalize(normalize, form):
    params = parameters()
    gradients = stream(params, 10)
    groups = [{"params": params[:3]}, {"params": params[3:]}]
    trajectory = run(AvaGrad(groups, eps=0.01, normalize=normalize, **form), params, gradients)
    pools = {"group": [[0, 1, 2], [3]], "global": [[0, 1, 2, 3]], "tensor": [[0], [1], [2], [3]]}[normalize]
    fresh = parameters()
    expected = [
        transcription(flat([fresh[i] for i in pool]), [flat([g[i] for i in pool]) for g in gradients], 0.1, 0.01)
        for pool in pools
    ]
    np.testing.assert_allclose(trajectory, np.concatenate(expected, axis=1), rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5), st.booleans()
)
def test_how_a_vector_is_cut_into_tensors_and_groups_does_not_matter(sizes, borders, foreach):
    whole = parameters([(sum(sizes),)])
    parts = [nn.Parameter(x.detach().clone()) for x in whole[0].split(sizes)]
    groups = [{"params": [parts[0]]}]
    for part, border in zip(parts[1:], borders, strict=False):
        groups.append({"params": [part]}) if border else groups[-1]["params"].append(part)
    gradients = stream(whole, 6)
    expected = run(AvaGrad(whole, eps=1e-4), whole, gradients)
    cut = AvaGrad(groups, eps=1e-4, normalize="global", foreach=foreach)
    np.testing.assert_allclose(
        run(cut, parts, [list(g[0].split(sizes)) for g in gradients]), expected, rtol=0, atol=1e-12
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(1e-6, 1.0), st.floats(0, 0.99), st.floats(0, 0.999))
def test_scaling_loss_and_eps_together_scales_the_step(factor, eps, beta1, beta2):
    one, other = parameters(), parameters()
    gradients = stream(one, 4)
    start = flat(one)
    moved = run(AvaGrad(one, eps=eps, betas=(beta1, beta2)), one, gradients) - start
    scaled = [[factor * g for g in step] for step in gradients]
    again = run(AvaGrad(other, eps=factor * eps, betas=(beta1, beta2)), other, scaled) - start
    np.testing.assert_allclose(again, factor * moved, rtol=1e-9, atol=1e-9 * factor)


@pytest.mark.parametrize("optimizer_class", [AvaGrad, DynamicAdam])
def test_a_large_eps_is_sgd(optimizer_class):
    params = parameters()
    gradients = [flat(g) for g in stream(params, 20)]
    w, m, expected = flat(params), 0.0, []
    for g in gradients:
        m = 0.9 * m + 0.1 * g
        w = w - 0.1 * m
        expected.append(w)
    np.testing.assert_allclose(
        run(optimizer_class(params, lr=0.1, eps=1e9), params, stream(params, 20)), expected, atol=1e-7
    )


def test_the_first_step_is_sgd_and_the_reference_variant_stands_still():
    for eps in (1e-8, 1e2):
        params = parameters()
        start, (gradient,) = flat(params), stream(params, 1)
        np.testing.assert_allclose(
            run(AvaGrad(params, lr=0.5, eps=eps), params, [gradient])[0], start - 0.05 * flat(gradient)
        )
        before = flat(params)
        run(AvaGrad(params, eps=eps, variant="reference"), params, [gradient])
        assert (flat(params) == before).all()


def test_dead_coordinates_freeze_the_rest_when_eps_is_tiny():
    def moved(eps, dead, normalize="group"):
        params = [nn.Parameter(torch.ones(10)), nn.Parameter(torch.ones(10))]
        step = [torch.full((10,), 1.0), torch.zeros(10) if dead else torch.full((10,), 1.0)]
        run(AvaGrad(params, eps=eps, normalize=normalize), params, [step] * 2)
        before = params[0].detach().clone()
        optimizer = AvaGrad(params, eps=eps, normalize=normalize)
        run(optimizer, params, [step] * 20)
        return (params[0].detach() - before).abs().mean().item()

    assert moved(1e-8, dead=True) < 0.02 * moved(1e-8, dead=False)  # only the first, SGD-like step is left
    assert moved(1.0, dead=True) > 0.8 * moved(1.0, dead=False)
    assert moved(1e-8, dead=True, normalize="tensor") == pytest.approx(moved(1e-8, dead=False), rel=1e-5)
