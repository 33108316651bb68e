"""AvaGrad as a citizen of torch.optim: state, groups, dtypes, schedulers, closures, and bad input."""

import copy
import io
import math
import warnings

import numpy as np
import pytest
import torch
from avagrad_tools import EAGER, SHAPES, flat, parameters, run, stream, transcription
from torch import nn
from torch.testing import assert_close

from principled.avagrad import AvaGrad, AvaGradW, DelayedAdam, DynamicAdam

EVERY = [
    (AvaGrad, {"foreach": False}),
    (AvaGrad, {"foreach": True}),
    (AvaGrad, {"foreach": False, "normalize": "tensor"}),
    (AvaGrad, {"foreach": True, "normalize": "global", "weight_decay": 0.1}),
    (AvaGrad, {"variant": "reference"}),
    (AvaGradW, {"variant": "reference"}),
    (AvaGradW, {}),
    (DelayedAdam, {}),
    (DynamicAdam, {}),
    (DynamicAdam, {"weight_decay": 0.1, "scale_lr": False}),
]


@pytest.mark.parametrize(("optimizer_class", "options"), EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_form_waits_for_the_device(optimizer_class, options, dtype):
    # tensors on "meta" have no numbers: whatever asks for one (item, bool, a tensor as a Python scalar) raises
    params = [nn.Parameter(torch.empty(shape, device="meta", dtype=dtype)) for shape in SHAPES]
    optimizer = optimizer_class([{"params": params[:2]}, {"params": params[2:]}], **options)
    for _ in range(3):
        for p in params:
            p.grad = torch.empty_like(p)
        optimizer.step()
    for state in optimizer.state.values():
        assert {t.device.type for t in state.values()} == {"meta"}


@pytest.mark.parametrize(("optimizer_class", "options"), EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_load_continue_is_bit_equal(optimizer_class, options, dtype):
    params = parameters(dtype=dtype)
    optimizer = optimizer_class(params, **options)
    gradients = stream(params, 8)
    run(optimizer, params, gradients[:4])
    file = io.BytesIO()
    torch.save({"w": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    others = [nn.Parameter(w) for w in saved["w"]]
    other = optimizer_class(others, **options)
    other.load_state_dict(saved["optimizer"])
    assert (run(other, others, gradients[4:]) == run(optimizer, params, gradients[4:])).all()


@pytest.mark.parametrize(("optimizer_class", "options"), EVERY)
def test_a_state_without_newer_keys_goes_on(optimizer_class, options):
    params = parameters()
    optimizer = optimizer_class(params, **options)
    gradients = stream(params, 6)
    run(optimizer, params, gradients[:3])
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        for key in ("foreach", "fused", "maximize", "capturable", "differentiable", "eta_eps"):
            group.pop(key, None)
    for state in saved["state"].values():
        if "step" in state:  # as long ago, a number
            state["step"] = float(state["step"])
    others = [nn.Parameter(p.detach().clone()) for p in params]
    other = optimizer_class(others, **options)
    other.load_state_dict(saved)
    assert all(isinstance(state.get("step", torch.ones(())), torch.Tensor) for state in other.state.values())
    assert (run(other, others, gradients[3:]) == run(optimizer, params, gradients[3:])).all()


@pytest.mark.parametrize(("optimizer_class", "options"), [*EVERY, (AvaGrad, {})])
def test_maximize_is_the_step_on_minus_the_gradient(optimizer_class, options):
    params, others = parameters(), parameters()
    gradients = stream(params, 4)
    expected = run(optimizer_class(params, **options), params, [[-g for g in step] for step in gradients])
    trajectory = run(optimizer_class(others, maximize=True, capturable=False, **options), others, gradients)
    assert (trajectory == expected).all()


@pytest.mark.parametrize(
    ("optimizer_class", "options"),
    [
        (AvaGrad, {}),
        (AvaGrad, {"normalize": "tensor", "weight_decay": 0.1}),
        (AvaGradW, {"normalize": "global"}),
        (DelayedAdam, {}),
        (DynamicAdam, {}),
    ],
)
def test_autograd_follows_a_differentiable_step(optimizer_class, options):
    def end(start, lr, differentiable=True):
        w = start.clone() if differentiable else nn.Parameter(start.clone())
        optimizer = optimizer_class([w], lr=lr, eps=0.5, differentiable=differentiable, **options)
        for _ in range(3):
            seen = w.clone() if differentiable else w.detach()  # the step writes into w
            w.grad = 2 * seen**3
            optimizer.step()
        return w

    start = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings(action="ignore"):  # of .grad on a tensor that is no leaf, as with torch's
        assert_close(end(start, rate), end(start.detach(), 0.1, differentiable=False).data, rtol=1e-12, atol=0)
        assert torch.autograd.gradcheck(end, (start, rate))


def test_betas_may_be_tensors():
    optimizer = AvaGrad(parameters(), betas=(torch.tensor(0.5), torch.tensor([0.75])))
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.75)


def test_state_is_no_larger_than_adams():
    sizes = {}
    for name, make in {"Adam": torch.optim.Adam, "AvaGrad": AvaGrad, "DelayedAdam": DelayedAdam}.items():
        params = parameters(dtype=torch.float32)
        optimizer = make(params)
        run(optimizer, params, stream(params, 2))
        sizes[name] = sum(t.numel() * t.element_size() for s in optimizer.state.values() for t in s.values())
    assert sizes["AvaGrad"] <= sizes["Adam"]
    assert sizes["DelayedAdam"] <= sizes["Adam"]


@pytest.mark.parametrize(
    ("make", "state_of"),
    [
        (AvaGrad, lambda p: AvaGrad(p, variant="reference")),
        (lambda p: AvaGrad(p, variant="reference"), AvaGrad),
        (AvaGrad, DelayedAdam),
        (DynamicAdam, DelayedAdam),
        (AvaGrad, AvaGradW),
        (AvaGrad, torch.optim.Adam),
    ],
)
def test_a_state_dict_of_another_variant_is_refused(make, state_of):
    params = parameters()
    optimizer, other = make(params), state_of(parameters())
    run(optimizer, params, stream(params, 1))
    groups, state = (
        copy.deepcopy(optimizer.state_dict()["param_groups"]),
        copy.deepcopy(optimizer.state_dict()["state"]),
    )
    with pytest.raises(ValueError, match=r"the state_dict .*: build it alike") as failure:
        optimizer.load_state_dict(other.state_dict())
    assert "\n" not in str(failure.value)
    assert optimizer.state_dict()["param_groups"] == groups
    assert_close(optimizer.state_dict()["state"], state, rtol=0, atol=0)


@pytest.mark.parametrize("form", EAGER)
def test_late_gradients(form):
    params = parameters([(4,), (3,)])
    gradients = stream(params, 6)
    for step in gradients[:3]:
        step[1] = None
    first, both = params[:1], flat(params)
    trajectory = run(AvaGrad(params, eps=0.01, **form), params, gradients)
    alone = transcription(flat(parameters([(4,), (3,)])[:1]), [flat(g[:1]) for g in gradients[:3]], 0.1, 0.01)
    np.testing.assert_allclose(trajectory[:3, :4], alone, rtol=0, atol=1e-12)  # the other tensor is not yet counted
    assert (trajectory[:3, 4:] == both[4:]).all()
    assert len(first) == 1
    v = np.concatenate([sum(0.001 * 0.999 ** (2 - i) * flat(gradients[i][:1]) ** 2 for i in range(3)), np.zeros(3)])
    eta = 1 / (np.sqrt(v) + 0.01)  # from its first gradient on it is, with the largest rate of all
    m = np.concatenate(
        [sum(0.1 * 0.9 ** (3 - i) * flat(gradients[i][:1]) for i in range(4)), 0.1 * flat(gradients[3][1:])]
    )
    np.testing.assert_allclose(
        trajectory[3], trajectory[2] - 0.1 * eta / np.sqrt((eta**2).mean()) * m, rtol=0, atol=1e-12
    )


def test_a_late_tensor_of_the_reference_variant_counts_from_its_second_step_on():
    params, alone = parameters([(4,), (3,)]), parameters([(4,), (3,)])[:1]
    gradients = stream(params, 6)
    for step in gradients[:3]:
        step[1] = None
    trajectory = run(AvaGrad(params, variant="reference"), params, gradients)
    expected = run(AvaGrad(alone, variant="reference"), alone, [step[:1] for step in gradients])
    np.testing.assert_allclose(trajectory[:4, :4], expected[:4], rtol=0, atol=1e-15)
    assert (trajectory[3, 4:] == trajectory[0, 4:]).all()
    assert np.abs(trajectory[4:, :4] - expected[4:]).max() > 1e-6


def test_a_loaded_state_lies_where_the_parameters_lie():
    for optimizer_class, options in (
        (AvaGrad, {"variant": "reference"}),
        (AvaGrad, {"foreach": False}),
        (DynamicAdam, {}),
    ):
        params = parameters(dtype=torch.float32)
        optimizer = optimizer_class(params, **options)
        run(optimizer, params, stream(params, 1))
        elsewhere = [nn.Parameter(torch.empty(p.shape, device="meta")) for p in params]
        other = optimizer_class(elsewhere, **options)
        other.load_state_dict(optimizer.state_dict())
        assert {t.device.type for state in other.state.values() for t in state.values()} == {"meta"}


def test_a_group_without_any_gradient_waits():
    params = parameters([(4,), (3,)])
    optimizer = AvaGrad([{"params": params[:1]}, {"params": params[1:]}], normalize="global")
    before = params[1].detach().clone()
    run(optimizer, params, [[g, None] for g, _ in stream(params, 3)])
    assert params[1].equal(before)
    assert params[1] not in optimizer.state
    fresh = parameters()
    AvaGrad(fresh).step()  # no gradient anywhere: nothing happens
    assert (flat(fresh) == flat(parameters())).all()


def test_parameter_groups_have_their_own_options():
    params = parameters()
    gradients = stream(params, 5)
    groups = [
        {"params": params[:2], "lr": 0.3, "betas": (0.5, 0.9)},
        {"params": params[2:], "eps": 2.0, "weight_decay": 0.1},
    ]
    trajectory = run(AvaGrad(groups, lr=0.1, eps=0.01), params, gradients)
    fresh = parameters()
    parts = [
        transcription(flat(fresh[:2]), [flat(g[:2]) for g in gradients], 0.3, 0.01, (0.5, 0.9)),
        transcription(flat(fresh[2:]), [flat(g[2:]) for g in gradients], 0.1, 2.0, l2=0.1),
    ]
    np.testing.assert_allclose(trajectory, np.concatenate(parts, axis=1), rtol=0, atol=1e-12)


def test_closure_runs_with_gradients_and_gives_its_loss():
    w = nn.Parameter(torch.tensor([3.0]))
    optimizer = AvaGrad([w], lr=1.0, betas=(0.0, 0.999))

    def closure():
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert w.item() == pytest.approx(-3.0)  # 3 - 1.0 * 6


@pytest.mark.parametrize("form", EAGER)
def test_mixed_dtypes_share_one_norm(form):
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    params = [nn.Parameter(torch.ones(6, dtype=dtype)) for dtype in dtypes]
    optimizer = AvaGrad(params, lr=0.1, eps=0.5, **form)
    gradients = [[torch.full((6,), x, dtype=torch.float64) for x in (1.0, 2.0, 4.0)] for _ in range(5)]
    trajectory = run(optimizer, params, gradients)
    expected = transcription(np.ones(18), [flat(g) for g in gradients], 0.1, 0.5)
    np.testing.assert_allclose(
        trajectory[:, :12], expected[:, :12], rtol=0, atol=1e-3
    )  # bfloat16's own eta is in the norm
    np.testing.assert_allclose(trajectory, expected, rtol=0, atol=2e-2)
    for p in params:
        assert optimizer.state[p]["exp_avg_sq"].dtype == p.dtype


def test_channels_last_parameters_and_other_layouts_of_gradients():
    one, other = parameters([(4, 3, 3, 3)]), parameters([(4, 3, 3, 3)])
    gradients = stream(one, 4)
    expected = run(AvaGrad(one, foreach=False), one, gradients)
    other = [nn.Parameter(p.detach().to(memory_format=torch.channels_last)) for p in other]
    np.testing.assert_allclose(run(AvaGrad(other, foreach=False), other, gradients), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", EAGER)
def test_lr_may_be_a_tensor_and_schedulers_work(form):
    ends = []
    for lr in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        params = parameters()
        optimizer = AvaGrad(params, lr=lr, weight_decay=0.1, decoupled=True, **form)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)  # ends at exactly 0
        for gradients in stream(params, 5):
            run(optimizer, params, [gradients])
            schedule.step()
        ends.append(flat(params))
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-12)
    assert np.isfinite(ends[0]).all()
    params = parameters()
    optimizer = AvaGrad(params, **form)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=5)
    betas = set()
    for gradients in stream(params, 4):
        run(optimizer, params, [gradients])
        schedule.step()
        betas.add(optimizer.param_groups[0]["betas"][0])
    assert len(betas) > 1
    assert np.isfinite(flat(params)).all()


@pytest.mark.parametrize("form", EAGER)
def test_a_changed_eps_counts_at_once(form):
    params = parameters()
    gradients = stream(params, 6)
    optimizer = AvaGrad(params, eps=1e-8, **form)
    run(optimizer, params, gradients[:5])
    v = flat([optimizer.state[p]["exp_avg_sq"] for p in params])
    m = 0.9 * flat([optimizer.state[p]["exp_avg"] for p in params]) + 0.1 * flat(gradients[5])
    optimizer.param_groups[0]["eps"] = 10.0
    eta, before = 1 / (np.sqrt(v) + 10.0), flat(params)
    after = run(optimizer, params, gradients[5:])[0]
    np.testing.assert_allclose(after, before - 0.1 * eta / np.sqrt((eta**2).mean()) * m, rtol=0, atol=1e-12)


def test_the_sum_of_a_large_tensor_is_exact_to_float32():
    size = 4_000_000  # torch.linalg.vector_norm is more than 1e-3 off here
    for form in EAGER:
        p = nn.Parameter(torch.zeros(size))
        p.grad = torch.full((size,), 0.7)
        optimizer = AvaGrad([p], lr=0.1, eps=0.1, betas=(0.0, 0.999), **form)
        optimizer.step()
        optimizer.step()  # all rates are equal: each step is SGD's
        assert_close(p.detach(), torch.full((size,), -0.14), rtol=1e-6, atol=0)


# -- bad input --------------------------------------------------------------------------------------------------------

WEIGHT = [nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize("optimizer_class", [AvaGrad, AvaGradW, DelayedAdam, DynamicAdam])
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"lr": torch.tensor(0.0)}, "lr must be above 0"),
        ({"eps": 0.0}, "eps must be above 0, not 0.0"),
        ({"eps": -1e-8}, "eps must be above 0"),
        ({"eps": math.inf}, "eps must be above 0"),
        ({"betas": (1.0, 0.999)}, r"betas must be two numbers in \[0, 1\), not \(1.0, 0.999\)"),
        ({"betas": (0.9, -0.1)}, "betas must be"),
        ({"betas": (0.9, math.nan)}, "betas must be"),
        ({"betas": (0.9,)}, "betas must be"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or above"),
    ],
)
def test_numbers_out_of_range(optimizer_class, options, what):
    with pytest.raises(ValueError, match=what) as failure:
        optimizer_class(WEIGHT, **options)
    assert "\n" not in str(failure.value)
    assert optimizer_class.__name__ in str(failure.value)
    with pytest.raises(ValueError, match=what):  # a group's own option
        optimizer_class([{"params": WEIGHT, **options}])


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: AvaGrad(WEIGHT, normalize="layer"), "normalize must be one of .*'tensor'.*, not 'layer'"),
        (lambda: AvaGrad(WEIGHT, variant="paper"), "variant must be one of .*'reference'.*, not 'paper'"),
        (lambda: AvaGrad(WEIGHT, variant="reference", normalize="global"), "variant must be 'thesis' with this"),
        (lambda: AvaGrad(WEIGHT, variant="reference", fused=True), "variant must be 'thesis' with this"),
        (lambda: AvaGrad(WEIGHT, foreach=True, fused=True), "at most one of them True"),
        (lambda: AvaGrad(WEIGHT, foreach=True, differentiable=True), "at most one of them True"),
        (lambda: AvaGrad(WEIGHT, fused=True, differentiable=True), "at most one of them True"),
        (lambda: AvaGrad(WEIGHT, variant="reference", differentiable=True), "variant must be 'thesis' with this"),
        (lambda: AvaGrad(WEIGHT, lr=torch.ones(2)), r"lr must be one number, not a tensor of shape \(2,\)"),
        (lambda: DynamicAdam(WEIGHT, power=-0.5), "power must be 0 or above"),
        (lambda: AvaGrad([torch.ones(2, dtype=torch.complex64, requires_grad=True)]), "parameters must be real"),
        (
            lambda: AvaGrad([torch.ones(2, dtype=torch.float16, requires_grad=True)], eps=1e-8),
            "too small for torch.float16",
        ),
        (lambda: AvaGrad(WEIGHT, eps=1e-30), "too small for torch.float32"),
    ],
)
def test_options_that_do_not_go(make, what):
    with pytest.raises(ValueError, match=what) as failure:
        make()
    assert "\n" not in str(failure.value)


def test_a_bad_group_is_not_added():
    optimizer = AvaGrad(WEIGHT)
    with pytest.raises(ValueError, match="eps must be above 0"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "eps": -1.0})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("optimizer_class", [AvaGrad, DelayedAdam, DynamicAdam])
def test_sparse_gradients_are_refused_before_anything_moves(optimizer_class):
    table = nn.Embedding(5, 2, sparse=True)
    other = nn.Parameter(torch.ones(2))
    optimizer = optimizer_class([other, table.weight])
    (table(torch.tensor([1])).sum() + other.sum()).backward()
    with pytest.raises(RuntimeError, match="no sparse gradients; build the layer with sparse=False"):
        optimizer.step()
    assert other.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("form", EAGER)
def test_nan_and_infinite_gradients_poison_visibly(form):
    for bad in (math.nan, math.inf, -math.inf):
        params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
        optimizer = AvaGrad(params, **form)
        good = [torch.ones(3), torch.ones(2)]
        run(optimizer, params, [good, [torch.tensor([1.0, bad, 1.0]), torch.ones(2)]])
        assert torch.isfinite(params[0]).tolist() == [True, False, True]
        assert torch.isfinite(params[1]).all()
        run(optimizer, params, [good])
        assert not torch.isfinite(params[0][1])
        if math.isnan(bad):  # the norm is NaN, and nothing under it survives
            assert all(p.isnan().all() for p in params)


def test_a_capture_is_refused_where_a_group_says_it_is_not_capturable(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    with pytest.raises(
        RuntimeError, match="AvaGrad: a CUDA graph is being captured, and a group says capturable=False"
    ):
        AvaGrad([p], foreach=False, capturable=False).step()
    assert torch.equal(p.detach(), torch.ones(2))
