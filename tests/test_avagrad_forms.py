"""AvaGrad's forms: tensor by tensor, all at once, compiled. They agree, and each says plainly when it cannot run."""

import copy
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from avagrad_tools import EAGER, flat, parameters, run, stream

from principled import avagrad, avagrad_forms
from principled.avagrad import AvaGrad, DelayedAdam

needs_compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler (g++) for torch.compile"
)


@pytest.fixture
def one_pass(monkeypatch):
    """Fused as large tensors have it: small ones go through vectors."""
    monkeypatch.setattr(avagrad, "SMALL", 0)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.01}, {"weight_decay": 0.01, "decoupled": True, "normalize": "tensor"}]
)
def test_single_multi_and_fused_agree(options, dtype, one_pass):
    trajectories = []
    for form in (*EAGER, {"fused": True}):
        params = parameters(dtype=dtype)
        optimizer = AvaGrad(params, lr=0.1, eps=1e-2, **options, **form)
        trajectories.append(run(optimizer, params, stream(params, 40)))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    for other in trajectories[1:]:
        np.testing.assert_allclose(other, trajectories[0], rtol=tolerance, atol=tolerance)


@needs_compiler
@pytest.mark.parametrize("small", [0, avagrad.SMALL])
def test_fused_follows_lr_betas_and_eps_without_compiling_again(small, monkeypatch):
    monkeypatch.setattr(avagrad, "SMALL", small)

    def vary(optimizer, params):
        for lr, betas, eps in (
            (0.1, (0.9, 0.999), 0.1),
            (0.05, (0.8, 0.99), 0.1),
            (0.2, (0.9, 0.9), 0.3),
            (0.0, (0.9, 0.9), 0.3),
        ):
            optimizer.param_groups[0].update(lr=lr, betas=betas, eps=eps)
            run(optimizer, params, stream(params, 2))
        return flat(params)

    one, other = parameters([(7,), (2, 2)]), parameters([(7,), (2, 2)])
    expected = vary(AvaGrad(one, foreach=True), one)
    torch._dynamo.utils.counters.clear()
    np.testing.assert_allclose(vary(AvaGrad(other, fused=True), other), expected, rtol=0, atol=1e-12)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= (2 if small else 1)


@needs_compiler
def test_fused_is_one_loop_for_each_tensor(one_pass):
    from torch._inductor.utils import run_and_get_cpp_code

    params, steps = parameters([(640,), (96, 32)], dtype=torch.float32), []
    optimizer = AvaGrad(params, fused=True)
    avagrad_forms.compiled.cache_clear()
    with torch._inductor.config.patch(force_disable_caches=True):
        _, code = run_and_get_cpp_code(lambda: steps.append(run(optimizer, params, stream(params, 1))))
    assert steps
    assert code.count("for(int64_t x0") == len(params)  # a second loop would read v and g a second time


OPTIONS = [{}, {"weight_decay": 0.01}, {"weight_decay": 0.01, "decoupled": True}, {"normalize": "global"}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS)
def test_small_tensors_are_stepped_as_vectors_to_the_same_end(options, dtype):
    trajectories = []
    for form in ({"foreach": False}, {}):
        params = parameters(dtype=dtype)
        groups = [{"params": params[:2]}, {"params": params[2:], "eps": 0.5}]
        optimizer = AvaGrad(groups, lr=0.1, eps=1e-2, **options, **form)
        trajectories.append(run(optimizer, params, stream(params, 40)))
        assert bool(optimizer._vectors) == (not form)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(trajectories[1], trajectories[0], rtol=tolerance, atol=tolerance)


@needs_compiler
@pytest.mark.parametrize("optimizer_class", [AvaGrad, DelayedAdam])
def test_vectors_compiled(optimizer_class):
    trajectories = []
    for form in ({"foreach": False}, {"fused": True}):
        params = parameters(dtype=torch.float32)
        trajectories.append(run(optimizer_class(params, weight_decay=0.01, **form), params, stream(params, 40)))
    np.testing.assert_allclose(trajectories[1], trajectories[0], rtol=1e-6, atol=1e-6)


def test_vectors_keep_the_memory_order_of_their_parameters():
    params, plain = parameters([(4, 3, 2, 2), (5,)]), parameters([(4, 3, 2, 2), (5,)])
    params[0].data = params[0].data.contiguous(memory_format=torch.channels_last)
    optimizer, gradients = AvaGrad(params), stream(params, 5)
    trajectory = run(optimizer, params, gradients)
    assert optimizer.state[params[0]]["exp_avg"].stride() == params[0].stride()
    np.testing.assert_allclose(trajectory, run(AvaGrad(plain, foreach=False), plain, gradients), rtol=0, atol=1e-12)


def test_vectors_are_made_anew_when_the_state_is_not_theirs_any_more():
    params, plain = parameters(), parameters()
    optimizer, other, gradients = AvaGrad(params), AvaGrad(plain, foreach=False), stream(params, 12)
    expected = run(other, plain, [*gradients[:3], [*gradients[3][:-1], None], *gradients[4:]])
    trajectories = [run(optimizer, params, gradients[:3])]
    trajectories.append(
        run(optimizer, params, [[*gradients[3][:-1], None]])
    )  # a gradient is missing: another form steps in
    optimizer = copy.deepcopy({"p": params, "o": optimizer})
    params, optimizer = optimizer["p"], optimizer["o"]
    trajectories.append(run(optimizer, params, gradients[4:7]))
    for state in optimizer.state.values():  # someone puts tensors of their own there
        state["exp_avg"], state["exp_avg_sq"] = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
    trajectories.append(run(optimizer, params, gradients[7:9]))
    loaded = AvaGrad(params)
    loaded.load_state_dict(optimizer.state_dict())
    trajectories.append(run(loaded, params, gradients[9:]))
    np.testing.assert_allclose(np.concatenate(trajectories), expected, rtol=0, atol=1e-12)


@needs_compiler
def test_late_gradients_and_delayed_adam_fused(one_pass):
    for optimizer_class in (AvaGrad, DelayedAdam):
        trajectories = []
        for form in ({"foreach": False}, {"fused": True}):
            params = parameters([(4,), (3,)])
            gradients = stream(params, 6)
            for step in gradients[:3]:
                step[1] = None
            trajectories.append(run(optimizer_class(params, **form), params, gradients))
        np.testing.assert_allclose(trajectories[1], trajectories[0], rtol=0, atol=1e-12)


def test_the_form_may_change_between_steps():
    params, plain = parameters(), parameters()
    gradients = stream(params, 9)
    optimizer = AvaGrad(params, eps=0.01)
    for i, step in enumerate(gradients):
        optimizer.param_groups[0]["foreach"] = i % 3 == 1
        run(optimizer, params, [step])
    expected = run(AvaGrad(plain, eps=0.01, foreach=False), plain, gradients)
    np.testing.assert_allclose(flat(params), expected[-1], rtol=0, atol=1e-12)


def test_a_sweep_over_networks_meets_no_limit_of_recompilations(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda body, options, **rest: compile_(body, backend="eager", **rest))
    avagrad_forms.compiled.cache_clear()
    for width in range(1, torch._dynamo.config.recompile_limit + 3):
        params, plain = parameters([(width,)]), parameters([(width,)])
        gradients = stream(params, 1)
        run(AvaGrad(params, fused=True), params, gradients)
        expected = run(AvaGrad(plain, foreach=False), plain, gradients)
        np.testing.assert_allclose(flat(params), expected[-1], rtol=1e-6, atol=1e-6)
    avagrad_forms.compiled.cache_clear()


def test_without_a_compiler(monkeypatch, one_pass):
    def broken(*signature):
        raise RuntimeError("no C++ compiler found\nsecond line")

    monkeypatch.setattr(avagrad_forms, "compiled", lambda *signature: broken)
    monkeypatch.setattr(avagrad_forms, "unavailable", [])
    monkeypatch.setattr(avagrad, "AUTO_FUSED", 1)
    params, plain = parameters(), parameters()
    gradients = stream(params, 3)
    optimizer = AvaGrad(params)
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler found.; install"):
        first = run(optimizer, params, gradients[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rest = run(optimizer, params, gradients[1:])
    expected = run(AvaGrad(plain, fused=False), plain, gradients)
    np.testing.assert_allclose(np.concatenate([first, rest]), expected, rtol=0, atol=1e-12)

    before = flat(params)
    with pytest.raises(ValueError, match=r"fused=True: torch.compile failed here .*g\+\+") as failure:
        run(AvaGrad(params, fused=True), params, gradients[:1])
    assert "\n" not in str(failure.value)
    assert (flat(params) == before).all()


def test_on_a_machine_without_a_compiler(tmp_path):
    program = """
import torch
from principled import avagrad, avagrad_forms
avagrad.AUTO_FUSED = 10
avagrad.SMALL = 0
w = torch.nn.Parameter(torch.ones(4, 5))
w.grad = torch.ones_like(w)
optimizer = avagrad.AvaGrad([w])
optimizer.step(), optimizer.step()
try:
    avagrad.AvaGrad([w], fused=True).step()
except ValueError as error:
    print(error)
"""
    environment = os.environ | {
        "PATH": str(tmp_path),
        "CXX": "no-such-compiler",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("AvaGrad runs uncompiled: torch.compile failed here") == 1
    assert done.stdout.startswith("fused=True: torch.compile failed here")
    assert done.stdout.strip().endswith("install a C++ compiler (g++) or pass fused=False")


def test_large_groups_compile_by_themselves_and_small_ones_do_not(monkeypatch, one_pass):
    calls = []
    monkeypatch.setattr(avagrad_forms, "compiled", lambda *signature: lambda *arguments: calls.append(signature))
    monkeypatch.setattr(avagrad_forms, "unavailable", [])
    monkeypatch.setattr(avagrad, "AUTO_FUSED", 10)
    params = parameters()  # 36 entries
    (gradients,) = stream(params, 1)
    for options, used in (({}, 1), ({"fused": False}, 0), ({"foreach": False}, 0), ({"foreach": True}, 0)):
        calls.clear()
        run(AvaGrad(params, **options), params, [gradients])
        assert len(calls) == used, options
    calls.clear()
    run(AvaGrad(params), params, [[*gradients[:-1], None]])  # not all gradients are there yet
    run(AvaGrad(params, variant="reference"), params, [gradients])
    assert not calls


def test_compiling_the_whole_step_of_an_optimizer():
    params, plain = parameters(dtype=torch.float32), parameters(dtype=torch.float32)
    optimizer, gradients = AvaGrad(params, foreach=True), stream(params, 4)
    compiled = torch.compile(optimizer.step, backend="eager")
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = g.to(p.dtype)
        compiled()
    expected = run(AvaGrad(plain, foreach=True), plain, gradients)
    np.testing.assert_allclose(flat(params), expected[-1], rtol=0, atol=1e-6)


@needs_compiler
def test_save_load_continue_fused_and_between_forms():
    params = parameters([(33,), (5, 7)], dtype=torch.float32)
    optimizer = AvaGrad(params, fused=True, eps=0.01)
    gradients = stream(params, 8)
    run(optimizer, params, gradients[:4])
    weights, state = copy.deepcopy(params), copy.deepcopy(optimizer.state_dict())
    expected = run(optimizer, params, gradients[4:])
    for fused in (True, False):
        others = copy.deepcopy(weights)
        other = AvaGrad(others, fused=True, eps=0.01)
        other.load_state_dict(copy.deepcopy(state))  # torch shares the tensors it is given
        other.param_groups[0]["fused"] = fused
        trajectory = run(other, others, gradients[4:])
        np.testing.assert_allclose(trajectory, expected, rtol=0 if fused else 1e-6, atol=0 if fused else 1e-6)
