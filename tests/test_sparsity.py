"""Continuous Sparsification: numbers done by hand, the author's public code, and what must hold for any mask."""

import io
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lab.models import ResNet
from principled import ContinuousMask, KeepZeros, Relaxed
from principled.sparsity import CURVES, smooth_step, temperature

PUBLIC = json.loads((Path(__file__).parent / "fixtures/continuous_sparsification.json").read_text())


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def relaxed_line(weights, s, beta=1.0, **options):
    """A bias-free linear layer with one output, float64, and its mask at given s and beta."""
    net = nn.Linear(len(weights), 1, bias=False).double()
    relaxed = Relaxed(net, ContinuousMask(where=nn.Linear, **options))
    mask = relaxed.relaxations[0]
    with torch.no_grad():
        net.weight.copy_(numbers(*weights)[None])
        mask.s.copy_(numbers(*s))
        mask.beta.fill_(beta)
    return relaxed, mask


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_soft_mask_penalty_and_hard_mask_by_hand():
    s = (math.log(3), 0.0, -math.log(4))  # sigma: 3/4, 1/2, 1/5
    relaxed, mask = relaxed_line((4.0, -2.0, 10.0), s)
    assert_close(mask.soft(), numbers(0.75, 0.5, 0.2))
    assert_close(relaxed.weights()["weight"], numbers(3.0, -1.0, 2.0)[None])
    assert_close(relaxed.penalty(), numbers(1.45)[0])
    assert_close(relaxed(numbers(1.0, 1.0, 1.0)), numbers(4.0))
    assert_close(relaxed.harden().weight, numbers(4.0, -2.0, 0.0)[None])  # s = 0 is kept: m = 1{s >= 0}
    assert mask.sparsity() == pytest.approx(1 / 3)


def test_temperature_sharpens_the_mask_by_hand():
    _, mask = relaxed_line((1.0, 1.0), (math.log(3), -math.log(3)), beta=2.0)
    assert_close(mask.soft(), numbers(0.9, 0.1))  # 9/(9+1)


def test_gradients_by_hand():
    relaxed, mask = relaxed_line((4.0,), (0.0,), beta=2.0)
    (relaxed(numbers(3.0)).sum() + 0.1 * relaxed.penalty()).backward()
    assert_close(relaxed.net.weight.grad, numbers(1.5)[None])  # x / 2
    assert_close(mask.s.grad, numbers(0.5 * (12 + 0.1)))  # beta m (1 - m) (theta x + lambda)


def test_the_temperature_is_final_to_the_progress():
    relaxed, mask = relaxed_line((1.0,), (0.0,))
    for progress, beta in ((0.0, 1.0), (0.5, 20.0), (1.0, 400.0), (torch.tensor(0.5), 20.0)):
        relaxed.anneal(progress, 400.0)
        assert mask.beta.item() == pytest.approx(beta)
    assert temperature(0.25, 16) == 2
    assert temperature(1, torch.tensor(7.0)) == 7


def test_annealing_moves_the_buffer_in_place():
    relaxed, mask = relaxed_line((1.0,), (0.0,))
    before = mask.beta
    relaxed.anneal(1.0, 200.0)
    assert mask.beta is before
    assert before == 200


@pytest.mark.parametrize("final", [0.0, -1.0, math.nan, math.inf])
def test_a_senseless_final_temperature_is_refused(final):
    with pytest.raises(ValueError, match="beta_final must be a finite number above 0"):
        temperature(0.5, final)


@pytest.mark.parametrize("progress", [-0.1, 1.01, math.nan])
def test_progress_outside_training_is_refused(progress):
    with pytest.raises(ValueError, match="progress runs from 0 to 1"):
        temperature(progress, 200.0)


def test_a_new_round_by_hand():
    _, mask = relaxed_line((1.0, 1.0, 1.0), (0.5, -0.01, -0.3), beta=100.0, s_init=-0.05)
    mask.new_round()
    assert_close(mask.s.detach(), numbers(-0.05, -1.0, -30.0))  # min(beta s, s_init)
    assert mask.beta == 1
    _, mask = relaxed_line((1.0, 1.0, 1.0), (0.5, -0.01, -0.3), beta=100.0, s_init=-0.05, variant="reference")
    mask.new_round()
    assert_close(mask.s.detach(), numbers(-0.05, -0.05, -0.3))  # min(s, s_init)
    assert mask.beta == 1


def test_the_reference_starts_from_the_plain_network_and_drops_s_at_zero():
    relaxed, mask = relaxed_line((4.0, -2.0), (-0.3, -0.3), s_init=-0.3, variant="reference")
    assert_close(relaxed.weights()["weight"], relaxed.net.weight)
    relaxed, mask = relaxed_line((4.0, -2.0), (0.0, 1.0), s_init=0.0, variant="reference")
    assert_close(relaxed.harden().weight, numbers(0.0, -4.0)[None])  # 1/sigma(0) = 2
    assert mask.sparsity() == 0.5


# -- the author's public code -----------------------------------------------------------------------------------------


def fill(shape, k, scale=1.0):
    """The fixture's inputs: value[i] = scale sin(0.37 i + k + 0.1) cos(0.011 i (k + 1)), row-major."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(0.37 * i + k + 0.1) * torch.cos(0.011 * i * (k + 1))).view(shape)


def public_layer(layer, variant="reference"):
    net = nn.Conv2d(3, 4, 3, layer["stride"], padding=1, bias=False).double()
    relaxed = Relaxed(net, ContinuousMask(layer["s_init"], variant=variant))
    with torch.no_grad():
        net.weight.copy_(fill((4, 3, 3, 3), 1))
        relaxed.relaxations[0].s.copy_(fill((108,), 2, 0.1))
    return relaxed, relaxed.relaxations[0]


LAYERS = pytest.mark.parametrize("layer", PUBLIC["layers"], ids=lambda layer: f"s_init={layer['s_init']}")


def same(got, want, atol=1e-10):
    assert_close(got.detach().flatten(), numbers(*want) if isinstance(want, list) else numbers(want), atol=atol, rtol=0)


@LAYERS
@pytest.mark.parametrize("moment", [0, 1])
def test_the_reference_variant_is_the_public_code(layer, moment):
    want = layer["soft"][moment]
    relaxed, mask = public_layer(layer)
    mask.beta.fill_(want["beta"])
    y = relaxed(fill((2, 3, 6, 6), 3))
    loss = 0.5 * y.square().sum() + 0.01 * relaxed.penalty()
    loss.backward()
    same(mask.soft(), want["mask"])
    same(relaxed.weights()["weight"], want["eff_weight"])
    same(y, want["y"])
    same(loss, want["loss"])
    same(relaxed.net.weight.grad, want["grad_w"])
    same(mask.s.grad, want["grad_s"])


@LAYERS
def test_the_reference_variants_ticket_and_rounds_are_the_public_codes(layer):
    relaxed, mask = public_layer(layer)
    # the public ticket's scale passes through float32: equal to its resolution, its zeros exactly
    same(mask.hard(), layer["ticket_mask"], atol=5e-7)
    assert ((mask.hard() == 0) == (numbers(*layer["ticket_mask"]) == 0)).all()
    assert_close(relaxed.harden().weight.flatten(), mask.hard() * relaxed.net.weight.flatten())
    mask.beta.fill_(200.0)
    mask.new_round()
    same(mask.s, layer["prune_reference"])
    _, mask = public_layer(layer, "thesis")
    mask.beta.fill_(200.0)
    mask.new_round()
    same(mask.s, layer["prune_thesis_beta_200"])


def test_the_public_temperature_is_ours_once_an_epoch():
    for epoch, beta in PUBLIC["temperature_by_epoch_of_85"]:
        assert temperature(epoch / 84, 200).item() == pytest.approx(beta, rel=1e-12)


# -- curves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_is_half_at_zero_rises_and_ends_in_the_step(curve):
    s = torch.linspace(-3, 3, 101, dtype=torch.float64)
    step = CURVES[curve]
    assert step(torch.zeros(())) == 0.5
    assert (step(s).diff() > 0).all()
    assert_close(step(s) + step(-s), torch.ones_like(s))
    away = s[s.abs() > 0.01]
    assert_close(step(1e12 * away), (away > 0).double(), atol=1e-9, rtol=0)


def test_curves_by_hand():
    z = numbers(1.0)
    assert_close(CURVES["sigmoid"](z), numbers(1 / (1 + math.exp(-1))))
    assert_close(CURVES["erf"](z), numbers(0.5 + math.erf(1) / 2))
    assert_close(CURVES["algebraic"](z), numbers(0.5 + 0.5 / math.sqrt(2)))
    assert_close(CURVES["arctan"](z), numbers(0.75))


def test_the_temperature_is_the_thesiss_in_every_family():
    s = numbers(0.05)
    assert_close(smooth_step(s, 200.0), numbers(1 / (1 + math.exp(-10))))
    assert_close(smooth_step(s, 200.0, "arctan"), numbers(0.5 + math.atan(10) / math.pi))
    algebraic = numbers(0.5 * (1 + 0.05 / math.sqrt(1 / 200 + 0.05**2)))  # 0.789
    assert_close(smooth_step(s, 200.0, "algebraic"), algebraic)
    _, mask = relaxed_line([1.0], [0.05], 200.0, curve="algebraic")
    assert_close(mask.soft().detach(), algebraic)


# -- shapes and options -----------------------------------------------------------------------------------------------


def test_a_filter_mask_has_one_variable_an_output_filter():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3), nn.Conv1d(2, 5, 3))
    relaxed = Relaxed(net, ContinuousMask(shape="filter"))
    mask = relaxed.relaxations[0]
    assert mask.s.shape == (4 + 2 + 5,)
    with torch.no_grad():
        mask.s[[1, 4]] = -1.0  # second filter of the first layer, first of the transposed one
    hard = relaxed.harden()
    assert [i for i in range(4) if (hard[0].weight[i] == 0).all()] == [1]
    assert [i for i in range(2) if (hard[1].weight[:, i] == 0).all()] == [0]
    assert (hard[2].weight != 0).all()
    sizes = [108, 72, 30]
    assert mask.sparsity() == pytest.approx((27 + 36) / sum(sizes))
    images = torch.randn(1, 3, 5, 5)
    assert (net[1](hard[0](images)).shape, hard[0](images)[:, 1].std()) == ((1, 2, 5, 5), 0)  # only the bias is left


def test_the_default_masks_what_the_thesis_masks():
    mask = ContinuousMask()
    Relaxed(ResNet(3), mask)
    assert len(mask.names) == 19
    assert mask.s.shape == (267_696,)
    assert not any("shortcut" in name or "linear" in name for name in mask.names)


@pytest.mark.parametrize("s_init", [math.nan, math.inf, -math.inf])
def test_a_start_that_is_no_number_is_refused(s_init):
    with pytest.raises(ValueError, match="s_init must be a finite number"):
        ContinuousMask(s_init)


@pytest.mark.parametrize("option", ["shape", "curve", "variant"])
def test_an_unknown_option_lists_the_known_ones(option):
    with pytest.raises(ValueError, match=f"{option} must be one of .*, not 'x'"):
        ContinuousMask(**{option: "x"})


def test_kept_zeros_stay_zero_whatever_the_optimizer_does():
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight[0] = 0
    relaxed = Relaxed(net, KeepZeros(nn.Linear))
    optimizer = torch.optim.SGD(relaxed.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        relaxed(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    hard = relaxed.harden()
    assert (hard.weight[0] == 0).all()
    assert (hard.weight[1:] != 0).all()
    assert relaxed.penalty() == 0
    assert "relaxations.0.mask" in relaxed.state_dict()


# -- what must hold for any mask --------------------------------------------------------------------------------------

finite = st.floats(-5, 5, allow_subnormal=False)
masks = st.lists(st.tuples(finite, finite), min_size=1, max_size=12)
away_from_zero = st.floats(0.05, 5).flatmap(lambda s: st.sampled_from([s, -s]))
curves = st.sampled_from(sorted(CURVES))


@given(masks, st.floats(0.01, 1000), curves)
def test_an_effective_weight_lies_between_zero_and_the_weight(pairs, beta, curve):
    weights, s = zip(*pairs, strict=True)
    relaxed, _ = relaxed_line(weights, s, beta, curve=curve)
    effective, own = relaxed.weights()["weight"], relaxed.net.weight
    assert (effective.abs() <= own.abs()).all()
    assert (effective * own >= 0).all()


@given(st.lists(st.tuples(finite, away_from_zero), min_size=1, max_size=12), curves)
def test_the_hard_network_is_the_soft_ones_limit(pairs, curve):
    weights, s = zip(*pairs, strict=True)
    x = torch.randn(3, len(s), dtype=torch.float64)
    distances = []
    for beta in (1e2, 1e4, 1e6):
        relaxed, _ = relaxed_line(weights, s, beta, curve=curve)
        distances.append((relaxed(x) - relaxed.harden()(x)).abs().max().item())
    assert distances[0] >= distances[1] >= distances[2]
    assert distances[2] < 1e-3 * (1 + max(map(abs, weights)))


@given(st.lists(finite, min_size=1, max_size=8), st.floats(0.1, 5), curves, st.sampled_from(["thesis", "reference"]))
def test_the_penaltys_gradient_against_finite_differences(s, beta, curve, variant):
    _, mask = relaxed_line([1.0] * len(s), s, beta, curve=curve, variant=variant, s_init=-0.1)

    mask.penalty().backward()
    values, h = mask.s.detach().clone(), 1e-6
    for i in range(len(s)):
        ends = []
        for moved in (h, -h):
            with torch.no_grad():
                mask.s.copy_(values).index_add_(0, torch.tensor([i]), numbers(moved))
                ends.append(mask.penalty().item())
        assert mask.s.grad[i].item() == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-7)


@given(st.integers(0, 2**31), st.sampled_from(["weight", "filter"]))
def test_a_masked_networks_gradient_against_finite_differences(seed, shape):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Conv2d(2, 1, 2)).double()
    relaxed = Relaxed(net, ContinuousMask(shape=shape))
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    s = torch.randn_like(relaxed.relaxations[0].s).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: torch.func.functional_call(relaxed, {"relaxations.0.s": s}, (x,)), (s,))


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_save_load_continue_is_bit_equal(seed, interrupted):
    def start():
        torch.manual_seed(seed)
        relaxed = Relaxed(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), ContinuousMask(-0.05))
        return relaxed, torch.optim.SGD(relaxed.parameters(), lr=0.1, momentum=0.9, nesterov=True)

    def train(relaxed, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            relaxed.anneal(step / 5, 200.0)
            loss = (
                F.cross_entropy(relaxed(torch.randn(4, 1, 4, 4)), torch.tensor([0, 1, 0, 1])) + 1e-2 * relaxed.penalty()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    straight, optimizer = start()
    train(straight, optimizer, range(6))
    first, optimizer = start()
    train(first, optimizer, range(interrupted))
    file = io.BytesIO()
    torch.save({"net": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second, optimizer = start()
    second.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    train(second, optimizer, range(interrupted, 6))
    want = straight.state_dict()
    assert all(torch.equal(want[key], value) for key, value in second.state_dict().items())


@given(masks, st.floats(0.1, 100), st.floats(-0.5, 0.5))
def test_new_rounds_never_raise_a_mask_above_its_start(pairs, beta, s_init):
    weights, s = zip(*pairs, strict=True)
    _, mask = relaxed_line(weights, s, beta, s_init=s_init)
    before = mask.s.detach().clone()
    mask.new_round()
    after = mask.s.detach()
    assert (after <= s_init).all()
    assert ((after == s_init) | (after == before * mask.beta.new_tensor(beta))).all()
    assert mask.beta == 1
