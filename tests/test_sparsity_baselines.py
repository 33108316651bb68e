"""What Chapter 4 compares with: each method's formula by hand, and what must hold for any of them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lab.baselines import (
    DiscoveredWirings,
    HardConcrete,
    MagnitudeMask,
    ScaledWeights,
    SoftThreshold,
    StochasticMask,
    commit_to_best,
)
from principled import Relaxed


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def line(weights, relaxation):
    """A bias-free linear layer with one output, float64, under a relaxation."""
    net = nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(numbers(*weights)[None])
    return Relaxed(net, relaxation), relaxation


# -- l0 through hard concrete gates ------------------------------------------------------------------------------------


def test_hard_concrete_gates_by_hand(monkeypatch):
    net, gates = line([2.0, 2.0, 2.0], HardConcrete(where=nn.Linear))
    with torch.no_grad():
        gates.log_alpha.copy_(numbers(0.0, math.log(3), -4.0))
    # sigma = 1/2, 3/4, 0.018; stretched to 1.2 sigma - 0.1: 1/2, 0.8, below 0
    assert_close(gates.expected(), numbers(0.5, 0.8, 0.0))
    net.eval()
    assert_close(net.weights()["weight"], numbers(1.0, 1.6, 0.0)[None])
    open_chance = [1 / (1 + math.exp(-(a + 2 / 3 * math.log(11)))) for a in (0.0, math.log(3), -4.0)]
    assert net.penalty().item() == pytest.approx(sum(open_chance))  # log(-gamma/zeta) = -log 11
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.75))
    net.train()
    s = 1 / (1 + 3 ** -(3 / 2))  # log u - log(1 - u) = log 3, over beta = 2/3
    assert net.weights()["weight"][0, 0].item() == pytest.approx(2 * (1.2 * s - 0.1))


def test_gates_are_kept_where_they_have_a_slope():
    _, gates = line([1.0, 1.0, 1.0], HardConcrete(where=nn.Linear))
    with torch.no_grad():
        gates.log_alpha.copy_(numbers(-9.0, 1.0, 9.0))
    gates.clamp()
    assert_close(gates.log_alpha.detach(), numbers(math.log(0.01), 1.0, math.log(100)))
    # the least chance of an open gate: sigma(log 0.01 + 2/3 log 11) = 1 / (1 + 100 / 11^(2/3))
    gates.log_alpha.data.fill_(-4.7)
    gates.clamp()
    assert gates.penalty().item() / 3 == pytest.approx(1 / (1 + 100 / 11 ** (2 / 3)))


def test_gates_close_and_open_as_often_as_the_penalty_says():
    torch.manual_seed(5)
    _, gates = line([1.0] * 20_000, HardConcrete(0.3, nn.Linear))
    drawn = gates.sample()
    assert 0 <= drawn.min() == 0 < drawn.max() == 1
    assert (drawn > 0).double().mean().item() == pytest.approx(gates.penalty().item() / 20_000, abs=0.01)


def test_training_draws_and_evaluation_does_not():
    net, _ = line([1.0] * 50, HardConcrete(0.5, nn.Linear))
    assert not torch.equal(net.weights()["weight"], net.weights()["weight"])
    net.eval()
    assert torch.equal(net.weights()["weight"], net.weights()["weight"])
    assert torch.equal(net.harden().weight, net.weights()["weight"])


def test_committing_keeps_the_best_of_the_draws():
    net, _ = line([1.0] * 40, HardConcrete(0.5, nn.Linear))
    seen = []

    def score(plain):
        seen.append(plain.weight.sum().item())
        return seen[-1]

    best = commit_to_best(net, score, draws=7)
    assert len(set(seen)) == 7
    assert best.weight.sum().item() == max(seen)
    assert (best.weight == 0).any()
    with pytest.raises(ValueError, match="draws must be at least 1"):
        commit_to_best(net, score, draws=0)


# -- scales, thresholds, wirings ---------------------------------------------------------------------------------------


def test_slimming_prunes_the_smallest_scales_not_the_smallest_weights():
    net, scales = line([0.1, 5.0, -0.2, 4.0], ScaledWeights(nn.Linear))
    assert torch.equal(net.weights()["weight"], net.net.weight)  # starts as the plain network
    with torch.no_grad():
        scales.scale.copy_(numbers(2.0, -0.5, 1.0, 0.1))
    assert net.penalty().item() == pytest.approx(3.6)
    scales.prune(0.5)
    assert_close(net.harden().weight, numbers(0.2, 0.0, -0.2, 0.0)[None])
    net(numbers(1.0, 1.0, 1.0, 1.0)).sum().backward()
    assert_close(scales.scale.grad, numbers(0.1, 0.0, -0.2, 0.0))


def test_a_soft_threshold_by_hand():
    net, str_ = line([0.75, -0.5, 0.2, -0.1], SoftThreshold(-math.log(3), nn.Linear))  # sigma(s) = 1/4
    assert_close(net.weights()["weight"], numbers(0.5, -0.25, 0.0, 0.0)[None])
    net(numbers(1.0, 2.0, 3.0, 4.0)).sum().backward()
    assert_close(net.net.weight.grad, numbers(1.0, 2.0, 0.0, 0.0)[None])
    assert_close(str_.s.grad, numbers(-(1 - 2) * 0.25 * 0.75))  # -sum sign(w) x, times sigma'
    assert (net.harden().weight == 0).sum() == 2


def test_weight_decay_alone_makes_a_soft_threshold_rise():
    _, mask = line([1.0, 2.0], SoftThreshold(-6.0, nn.Linear))
    optimizer = torch.optim.SGD([mask.s], lr=0.1, weight_decay=0.5)
    mask.s.grad = torch.zeros_like(mask.s)
    optimizer.step()
    assert mask.s.item() == pytest.approx(-5.7)


def test_discovered_wirings_use_the_largest_and_let_the_others_learn():
    net, _ = line([3.0, -1.0, 2.0, 0.5], DiscoveredWirings(0.5, nn.Linear))
    assert_close(net.weights()["weight"], numbers(3.0, 0.0, 2.0, 0.0)[None])
    net(numbers(1.0, 2.0, 3.0, 4.0)).sum().backward()
    assert_close(net.net.weight.grad, numbers(1.0, 2.0, 3.0, 4.0)[None])  # every weight, used or not
    with torch.no_grad():
        net.net.weight[0, 1] = -2.5  # outgrows a used one
    assert_close(net.harden().weight, numbers(3.0, -2.5, 0.0, 0.0)[None])


def test_wirings_are_equally_sparse_in_each_layer():
    net = Relaxed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), DiscoveredWirings(0.9))
    for weight in (net.harden()[0].weight, net.harden()[1].weight):
        assert int((weight == 0).sum()) == round(0.9 * weight.numel())


# -- all of them -------------------------------------------------------------------------------------------------------

EVERY = {
    "hard concrete": lambda: HardConcrete(0.5),
    "slimming": ScaledWeights,
    "soft threshold": lambda: SoftThreshold(-3.0),
    "wirings": lambda: DiscoveredWirings(0.5),
    "stochastic": lambda: StochasticMask(0.0),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_it_trains_stacks_saves_and_leaves_the_class_alone(make):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    net = Relaxed(plain, make(), MagnitudeMask())  # a mask on top
    net.relaxations[1].prune(net.weights(), 0.3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 2
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        (loss + 1e-6 * net.penalty()).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    hard = net.harden()
    assert type(hard) is nn.Sequential
    assert (hard[0].weight == 0).float().mean() >= 0.29
    again = Relaxed(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)), make(), MagnitudeMask()
    )
    again.load_state_dict(net.state_dict())
    outputs = []
    for loaded in (net, again):
        torch.manual_seed(7)
        outputs.append(loaded(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HardConcrete(1.0), "open must lie between 0 and 1"),
        (lambda: SoftThreshold(math.nan), "s_init must be a finite number"),
        (lambda: DiscoveredWirings(1.0), "sparsity must lie between 0 and 1"),
        (lambda: DiscoveredWirings(0.0), "sparsity must lie between 0 and 1"),
        (lambda: line([1.0], ScaledWeights(nn.Linear))[1].prune(1.0), "sparsity must be at least 0 and below 1"),
    ],
)
def test_senseless_options_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
