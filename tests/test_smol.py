"""SMOL: numbers done by hand, Algorithm 5 as a whole, groups, scales, and what must hold for any network."""

import json
import math
from itertools import repeat
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from principled import (
    ContinuousMask,
    FixedPrecision,
    Relaxed,
    Smol,
    average_bits,
    fix_precision,
    quantize,
    restrict,
    train_smol,
    zero_precision,
)
from principled.smol import start

NUMBERS = json.loads((Path(__file__).parent / "fixtures/smol.json").read_text())


def line(weights, s=None, **options):
    """A bias-free linear layer with one output, float64, relaxed with SMOL at given w and s."""
    net = nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([weights]))
    relaxed = Relaxed(net, Smol(**options))
    smol = relaxed.relaxations[0]
    if s is not None:
        with torch.no_grad():
            smol.s.copy_(torch.tensor(s))
    return relaxed, smol


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_penalty_precision_and_quantised_weights_by_hand():
    relaxed, smol = line((0.3, -1.3, 0.9), (0.0, -math.log(7), -math.log(3)))  # sigma 1/2, 1/8, 1/4
    assert_close(relaxed.penalty(), numbers(1 + 3 + 2)[0])
    assert smol.precision()["weight"].tolist() == [[2, 4, 3]]
    assert_close(relaxed.harden().weight, numbers(0.5, -1.375, 0.75)[None])


@pytest.mark.parametrize("row", NUMBERS["precision_map"], ids=lambda row: f"s={row['s']:.3g}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_s_to_bits_as_computed_independently(row, dtype):
    relaxed, smol = line((1.0,), (row["s"],))
    relaxed.to(dtype)
    assert 1 + relaxed.penalty().item() == pytest.approx(row["p_real"], rel=1e-6)
    assert torch.sigmoid(smol.s).item() == pytest.approx(row["sigma"], rel=1e-5)
    assert smol.precision("floor")["weight"].item() == row["p_floor"]
    assert smol.precision("round")["weight"].item() == row["p_round"]


@pytest.mark.parametrize("p", range(2, 25))
def test_whole_starts_stay_whole_in_float32(p):
    smol = Smol(p_init=p)
    Relaxed(nn.Linear(1, 1), smol)
    assert [smol.precision(r)["weight"].item() for r in ("floor", "round", "ceil")] == [p, p, p]


def test_start_is_the_thesis_s():
    assert start(8) == pytest.approx(-4.844187086458591)  # -ln(127)
    assert torch.sigmoid(torch.tensor(start(8), dtype=torch.float64)).item() == pytest.approx(2**-7)


def test_noise_has_the_size_that_s_says_and_its_gradient():
    relaxed, smol = line((0.5,), (0.0,))
    torch.manual_seed(3)
    seen = relaxed.weights()["weight"]
    torch.manual_seed(3)
    noise = 2 * torch.rand(1, dtype=torch.float64) - 1
    assert_close(seen, 0.5 + 0.5 * noise[None])
    seen.sum().backward()
    assert_close(relaxed.net.weight.grad, numbers(1.0)[None])
    assert_close(smol.s.grad, 0.25 * noise)  # sigma (1 - sigma) eps
    relaxed, smol = line((0.5,) * 20_000, (0.0,) * 20_000)
    seen = relaxed.weights()["weight"]
    assert seen.min() > 0
    assert seen.max() < 1
    assert_close(seen.mean(), numbers(0.5)[0], atol=0.01, rtol=0)
    assert_close(seen.var(), numbers(0.25 / 3)[0], atol=0.005, rtol=0)  # of U(-1/2, 1/2)


def test_new_noise_each_pass_the_same_from_the_same_seed_none_in_eval():
    relaxed = Relaxed(nn.Linear(5, 3), Smol())
    x = torch.randn(2, 5)
    torch.manual_seed(1)
    first, second = relaxed(x), relaxed(x)
    torch.manual_seed(1)
    assert torch.equal(relaxed(x), first)
    assert not torch.equal(first, second)
    relaxed.eval()
    assert torch.equal(relaxed(x), relaxed.net(x))


def test_clip_by_hand():
    relaxed, smol = line((5.0, -5.0, 0.3), (0.0, -math.log(3), 0.0))
    relaxed.eval()
    assert_close(relaxed.weights()["weight"], numbers(1.5, -1.75, 0.3)[None])  # +-(2 - sigma)
    relaxed.weights()["weight"].sum().backward()
    assert smol.s.grad is None or not smol.s.grad.any()  # the clip is a projection, not a way for s to learn
    smol.clip_(dict(relaxed.net.named_parameters()))
    assert_close(relaxed.net.weight.detach(), numbers(1.5, -1.75, 0.3)[None])
    relaxed.net.weight.grad = None
    relaxed.weights()["weight"].sum().backward()
    assert_close(relaxed.net.weight.grad, numbers(1.0, 1.0, 1.0)[None])  # once clipped, every weight feels the loss


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=8), st.floats(-12, 12))
def test_what_the_network_sees_lies_within_two(weights, s):
    relaxed, smol = line(weights, (s,) * len(weights))
    assert relaxed.weights()["weight"].abs().max() <= 2
    w, p = torch.tensor([weights], dtype=torch.float64), smol.precision("ceil")["weight"]
    inside = w.clamp(-2, 2)
    assert ((inside - quantize(inside, p)).abs() <= torch.sigmoid(smol.s).detach() * (1 + 1e-5)).all()


def test_penalty_gradient_against_finite_differences():
    for count in ("weights", "groups"):
        _, smol = line((1.0, 2.0, 3.0), granularity=2, count=count)
        s = smol.s.detach().clone().normal_().requires_grad_()

        def penalty(value, smol=smol):
            return torch.func.functional_call(smol, {"s": value}, (), strict=False)

        smol.forward = smol.penalty
        assert torch.autograd.gradcheck(penalty, (s,))


def test_a_high_price_removes_bits_and_a_needed_weight_keeps_them():
    """Two weights, one in a basin 100 times as narrow: it must end with more bits (Figure 5.2)."""
    relaxed, smol = line((0.5, 0.5), p_init=6)
    target, steep = relaxed.net.weight.detach().clone(), numbers(100.0, 0.1)
    optimizer = torch.optim.Adam([smol.s], lr=0.05)
    for _ in range(400):
        loss = (steep * (relaxed.weights()["weight"] - target).square()).sum() + 0.05 * relaxed.penalty()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    narrow, wide = smol.precision()["weight"][0].tolist()
    assert (narrow, wide) == (6, 1) or narrow >= wide + 3


# -- the end of the search, fine-tuning, Algorithm 5
# --------------------------------------------------------------------


def test_straight_through_by_hand():
    net = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(numbers(0.3, -1.2, 0.1))
    fixed = Relaxed(net, FixedPrecision({"weight": torch.tensor([[2, 3, 0]])}))
    x = numbers(2.0, 3.0, 5.0)
    assert_close(fixed(x), numbers(2 * 0.5 - 3 * 1.25))
    fixed(x).sum().backward()
    assert_close(net.weight.grad, x[None])
    assert_close(fixed.harden().weight, numbers(0.5, -1.25, 0.0)[None])
    assert fixed.relaxations[0].precision()["weight"].tolist() == [[2, 3, 0]]


@pytest.mark.parametrize("zero", [False, True])
def test_fixing_keeps_weights_and_gives_the_hardened_network(zero):
    relaxed = Relaxed(nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 2)), Smol(p_init=2.5, zero=zero))
    with torch.no_grad():
        relaxed.relaxations[0].s.normal_()
    fixed = fix_precision(relaxed)
    x = torch.randn(4, 9)
    assert torch.equal(fixed(x), relaxed.harden()(x))
    assert torch.equal(fixed.harden()(x), fixed(x))
    assert torch.equal(fixed.net[0].weight, relaxed.net[0].weight)
    assert fixed.net[0].weight is not relaxed.net[0].weight
    some_zero = any((p == 0).any() for p in fixed.relaxations[0].precision().values())
    assert some_zero == zero


def test_fixing_after_a_mask_hardens_the_mask_and_zero_precision_keeps_its_zeros():
    mask = ContinuousMask(where=nn.Linear)
    relaxed = Relaxed(nn.Linear(30, 4), mask, Smol(p_init=3, zero=True))
    with torch.no_grad():
        mask.s.normal_()
    pruned = (mask.hard() == 0).view(4, 30)
    fixed = fix_precision(relaxed)
    assert (fixed.harden().weight[pruned] == 0).all()
    assert (fixed.relaxations[0].precision()["weight"][pruned] == 0).all()
    with pytest.raises(ValueError, match="needs Smol as the last relaxation, not ContinuousMask"):
        fix_precision(Relaxed(nn.Linear(2, 2), ContinuousMask(where=nn.Linear)))


def test_blocks_with_precisions_that_hardware_has():
    smol = Smol(p_init=3.5, granularity=16, zero="group")
    relaxed = Relaxed(nn.Linear(64, 8), smol)
    with torch.no_grad():
        smol.s.normal_(std=2)
    fixed = fix_precision(relaxed, change=restrict)
    p = fixed.relaxations[0].precision()["weight"].view(-1, 16)
    assert set(p.unique().tolist()) <= {0, 1, 2, 4, 8}
    assert (p == p[:, :1]).all()
    free = fix_precision(relaxed).relaxations[0].precision()["weight"].view(-1, 16)
    assert (p >= free).all() or free.max() > 8


def problem(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    y = x @ torch.tensor([1.5, -1.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0])

    def loss(net, batch):
        return (net(batch[0])[:, 0] - batch[1]).square().mean()

    return nn.Linear(8, 1), loss, (x, y)


def test_algorithm_5_finds_zeros_levels_and_fewer_bits():
    net, loss, batch = problem()
    before = net.weight.detach().clone()
    trained = train_smol(
        net, loss, repeat(batch), lam=0.003, steps=(400, 100), smol=Smol(zero=True), lr_s=0.05,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    )  # fmt: skip
    assert torch.equal(net.weight, before)  # the network given is not touched
    assert type(trained.net) is nn.Linear
    assert loss(trained.net, batch) < 0.05 * batch[1].var()
    assert average_bits(trained.precision) < 5
    assert (trained.precision["weight"][0, 4:] == 0).all()
    assert (trained.net.weight[0, 4:] == 0).all()
    assert torch.equal(trained.net.weight, quantize(trained.net.weight, trained.precision["weight"]))
    dearer = train_smol(net, loss, repeat(batch), lam=0.3, steps=(400, 0), lr_s=0.05)
    assert average_bits(dearer.precision) < average_bits(trained.precision)


def test_a_resumed_search_takes_the_same_steps():
    def steps(relaxed, optimizer, first, last):
        for i in range(first, last):
            torch.manual_seed(i)
            (relaxed(torch.ones(1, 6)).square().sum() + 0.01 * relaxed.penalty()).backward()
            optimizer.step()
            optimizer.zero_grad()

    def new():
        torch.manual_seed(0)
        relaxed = Relaxed(nn.Linear(6, 2), Smol(granularity="filter"))
        return relaxed, torch.optim.Adam(relaxed.parameters(), lr=0.01)

    whole, half = new(), new()
    steps(*whole, 0, 8)
    steps(*half, 0, 4)
    again = new()
    again[0].load_state_dict(half[0].state_dict())
    again[1].load_state_dict(half[1].state_dict())
    steps(*again, 4, 8)
    for a, b in zip(whole[0].parameters(), again[0].parameters(), strict=True):
        assert torch.equal(a, b)


# -- transforms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["weight", "filter", 4])
def test_one_graph_and_the_same_gradients(granularity):
    relaxed = Relaxed(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)), Smol(granularity=granularity)).eval()
    torch.compiler.reset()
    compiled = torch.compile(relaxed, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 6)
    assert_close(compiled(x), relaxed(x))
    relaxed.train()
    compiled(x).sum().backward()
    assert relaxed.relaxations[0].s.grad.abs().sum() > 0


def test_vmap_over_stacked_networks():
    relaxed = Relaxed(nn.Linear(4, 3), Smol())
    stacked = {n: torch.stack([p.detach(), p.detach() + 0.1]) for n, p in relaxed.named_parameters()}
    x = torch.randn(2, 4)

    def run(state):
        return torch.func.functional_call(relaxed, state, (x,))

    relaxed.train()
    noisy = torch.vmap(run, randomness="different")(stacked)
    assert noisy.shape == (2, 2, 3)
    relaxed.eval()
    assert_close(torch.vmap(run)(stacked)[0], relaxed(x))


def test_fixed_precision_compiles():
    fixed = fix_precision(Relaxed(nn.Linear(6, 5), Smol(p_init=3)))
    torch.compiler.reset()
    x = torch.randn(3, 6)
    assert_close(torch.compile(fixed, fullgraph=True, backend="aot_eager")(x), fixed(x))


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p_init", [1, 0.5, 0, -3, math.nan, math.inf, 25])
def test_a_senseless_start_is_refused(p_init):
    with pytest.raises(ValueError, match="p_init must be above 1") as caught:
        Smol(p_init=p_init)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"granularity": "channel"}, "granularity must be weight, filter, layer"),
        ({"granularity": 0}, "granularity must be"),
        ({"granularity": True}, "granularity must be"),
        ({"count": "all"}, "count must be weights or groups"),
        ({"zero": "layer"}, "zero must be True, False or 'group'"),
        ({"scale": "learned"}, "scale must be a number"),
        ({"scale": 0.0}, "scale of weight must be a finite number above 0"),
        ({"scale": {}}, "scale: no number for weight"),
        ({"granularity": [torch.arange(3)]}, "grouping misses 1 of 4 weights, first weight 3"),
        ({"granularity": [torch.arange(4), torch.tensor([2])]}, "grouping repeats 1 of 4 weights, first weight 2"),
        ({"granularity": [torch.arange(5)]}, "there is no weight 4"),
        ({"granularity": []}, "a grouping is a sequence of 1-D int64 index tensors"),
        ({"granularity": [torch.ones(4)]}, "a grouping is a sequence of 1-D int64 index tensors"),
    ],
)
def test_senseless_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says) as caught:
        Relaxed(nn.Linear(4, 1), Smol(**options))
    assert "\n" not in str(caught.value)


def test_nan_is_refused_where_it_would_be_made_discrete():
    net = nn.Linear(4, 1)
    relaxed = Relaxed(net, Smol())
    with torch.no_grad():
        net.weight[0, 1] = math.nan
    with pytest.raises(ValueError, match="weight: 1 of 4 weights are NaN or infinite"):
        relaxed.harden()
    with pytest.raises(ValueError, match="weight: 1 of 4 weights are NaN"):
        Relaxed(net, Smol())
    with pytest.raises(ValueError, match="rounding must be floor, round or ceil"):
        relaxed.relaxations[0].precision("down")


@pytest.mark.parametrize(
    ("precision", "says"),
    [
        ({"weight": torch.tensor([[1, 2, 3]])}, r"precisions of shape \(1, 3\) for weights of \(1, 4\)"),
        ({"bias2": torch.tensor([1])}, "no parameter named 'bias2'"),
        ({"weight": torch.tensor([[1, 2, 3, -1]])}, "weight: a precision is a number of bits from 0 to 24, not -1"),
        ({"weight": torch.rand(1, 4)}, "weight: precisions must be an integer tensor"),
    ],
)
def test_a_precision_map_that_does_not_fit_is_refused(precision, says):
    with pytest.raises(ValueError, match=says):
        Relaxed(nn.Linear(4, 1), FixedPrecision(precision))


def test_algorithm_5_refuses():
    net, loss, batch = problem()
    for lam in (-1.0, math.nan):
        with pytest.raises(ValueError, match="lam must be a finite number of at least 0"):
            train_smol(net, loss, repeat(batch), lam=lam, steps=(1, 1))
    with pytest.raises(ValueError, match="steps must not be negative"):
        train_smol(net, loss, repeat(batch), lam=0.0, steps=(1, -1))
    with pytest.raises(ValueError, match="batches ran out after 2 of 3 steps"):
        train_smol(net, loss, [batch] * 2, lam=0.0, steps=(3, 0))


def test_shuffled_precisions_keep_their_sum():  # what the control of 5.5.3 needs of the map: it is plain tensors
    p = zero_precision(torch.randn(50), torch.full((50,), 2))
    assert p[torch.randperm(50)].sum() == p.sum()


def smol_by(batches, **options):
    net, loss, _ = problem()
    torch.manual_seed(1)
    net = nn.Sequential(nn.BatchNorm1d(8), net)
    return train_smol(net, loss, batches, lam=0.003, steps=(20, 10), lr_s=0.05, optimizer=slow, **options)


def slow(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def falling(optimizer, steps):
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)


def stream():
    torch.manual_seed(2)
    x = torch.randn(30, 16, 8)
    return list(zip(x, x @ torch.linspace(-1, 1, 8), strict=True))


def assert_same(one, other):
    for name, value in one.net.state_dict().items():
        assert torch.equal(other.net.state_dict()[name], value), name
    assert one.precision["1.weight"].equal(other.precision["1.weight"])


def test_a_look_after_each_epoch_changes_nothing():
    seen = []

    def look(progress):
        progress.net.eval()
        progress.net(torch.randn(3, 8))  # an evaluation, which draws random numbers
        seen.append((progress.phase, progress.step, progress.taken, progress.bits()))

    assert_same(smol_by(stream()), smol_by(stream(), after=look, every=8))
    assert [entry[:3] for entry in seen] == [
        ("search", 8, 8), ("search", 16, 16), ("search", 20, 20), ("tune", 8, 28), ("tune", 10, 30),
    ]  # fmt: skip
    bits = [entry[3] for entry in seen]
    assert bits[0] > bits[-1]
    assert bits[-2] == bits[-1]  # fixed
    seen.clear()
    smol_by(stream(), after=look)
    assert [entry[:2] for entry in seen] == [("search", 20), ("tune", 10)]


def test_each_phase_has_its_schedule():
    rates = []

    class Watched(torch.optim.SGD):
        def step(self, *args):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args)

    net, loss, batch = problem()
    train_smol(
        net, loss, repeat(batch), lam=0.0, steps=(3, 2), schedule=lambda optimizer, steps: falling(optimizer, steps),
        optimizer=lambda parameters: Watched(parameters, lr=0.1),
    )  # fmt: skip
    assert rates == pytest.approx([0.1, 0.07, 0.04, 0.1, 0.055])


@pytest.mark.parametrize("stop", [6, 20, 26, 30])
def test_a_resumed_training_ends_the_same_to_the_last_bit(stop, tmp_path):
    class Stopped(Exception):
        pass

    def save(progress):
        if progress.taken == stop:
            torch.save(progress.state(), tmp_path / "state.pt")
            raise Stopped

    whole = smol_by(stream(), schedule=falling, smol=Smol(scale="power"))
    with pytest.raises(Stopped):
        smol_by(stream(), schedule=falling, smol=Smol(scale="power"), after=save, every=1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = smol_by(stream()[state["taken"] :], schedule=falling, smol=Smol(scale="power"), resume=state)
    assert_same(whole, again)


def test_a_state_of_other_steps_is_one_line():
    net, loss, batch = problem()
    for state in ({"phase": "search", "step": 4}, {"phase": "tune", "step": 3}, {}):
        with pytest.raises(ValueError, match=r"which steps = \(3, 2\) does not have"):
            train_smol(net, loss, repeat(batch), lam=0.0, steps=(3, 2), resume=state)
    with pytest.raises(ValueError, match="every is a number of steps between calls of after, at least 1, not 0"):
        train_smol(net, loss, repeat(batch), lam=0.0, steps=(3, 2), every=0)
