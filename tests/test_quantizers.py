"""Chapter 5's competitors: each against a case computed by hand from its paper's formulas, then all in training."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lab.baselines.activations import PACT, FixedBits, ReLU6FourBits, SmolA, replace_relu
from lab.baselines.quantizers import BSQ, DSQ, LSQ, SLB, DoReFa, LQNets
from lab.utils.errors import LabError
from principled import Relaxed


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def line(method, weights):
    """A bias-free linear layer with one output, float64, quantised by ``method``."""
    net = nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(numbers(*weights)[None])
    return Relaxed(net, method)


def seen(relaxed):
    return relaxed.weights()["weight"][0]


def test_dorefa_by_hand():
    squashed = (0.8, -0.8, 0.2, -0.1)
    relaxed = line(DoReFa(2), [math.atanh(t) for t in squashed])
    # to [0, 1]: 1, 0, 0.625, 0.4375; in thirds: 3, 0, 1.875, 1.3125
    assert_close(seen(relaxed), numbers(1, -1, 1 / 3, -1 / 3))
    seen(relaxed)[2:].sum().backward()
    # 2 d(tanh w / (2 max)) / dw; what goes through the maximum lands on the first weight
    assert_close(relaxed.net.weight.grad[0, 2:], numbers((1 - 0.04) / 0.8, (1 - 0.01) / 0.8))
    assert_close(seen(line(DoReFa(1), (1.0, -3.0))), numbers(2, -2))


def test_lsq_by_hand():
    relaxed = line(LSQ(3), (0.3, -3.0, 1.1, 4.0))
    method = relaxed.relaxations[0]
    assert_close(method.step.detach(), numbers(2 * 2.1 / math.sqrt(3)))  # mean |w| is 2.1
    with torch.no_grad():
        method.step.fill_(0.5)
    assert_close(seen(relaxed), numbers(0.5, -2.0, 1.0, 1.5))  # 0.6, -6, 2.2, 8 steps: 1, -4, 2, 3
    seen(relaxed).sum().backward()
    assert_close(relaxed.net.weight.grad[0], numbers(1, 0, 1, 0))
    assert_close(method.step.grad, numbers(((1 - 0.6) - 4 + (2 - 2.2) + 3) / math.sqrt(4 * 3)))


def test_dsq_by_hand():
    relaxed = line(DSQ(2), (0.2, -0.3, -1.5, 1.5, 0.6))
    method = relaxed.relaxations[0]
    assert_close(seen(relaxed), numbers(0.5, -0.5, -1.5, 1.5, 0.5))  # cells of width 1 with middles -1, 0, 1
    seen(relaxed)[0].backward()
    k = math.log(2 / 0.2 - 1)
    assert_close(relaxed.net.weight.grad[0, 0], numbers(k * (1 - math.tanh(0.2 * k) ** 2) / 0.8 / 2)[0])
    with torch.no_grad():
        method.upper.fill_(0.0)  # what lies above is clipped to it
        method.lower.fill_(-1.5)
    assert_close(seen(relaxed), numbers(0, -0.5, -1.5, 0, 0))


def test_lqnets_by_hand():
    relaxed = line(LQNets(2), (1.1, -0.9, 0.2, -0.4))
    method = relaxed.relaxations[0]
    method.basis.copy_(numbers(0.25, 0.5)[None])
    assert_close(seen(relaxed), numbers(0.75, -0.75, 0.25, -0.25))
    method.update_({"weight": relaxed.net.weight})
    # signs (+,+), (-,-), (-,+), (+,-): least squares (1.4/4, 2.6/4), a tenth of it
    assert_close(method.basis[0], numbers(0.9 * 0.25 + 0.035, 0.9 * 0.5 + 0.065), atol=1e-6, rtol=0)
    seen(relaxed).sum().backward()
    assert_close(relaxed.net.weight.grad[0], numbers(1, 1, 1, 1))


def test_lqnets_fits_each_filter_better_than_its_start():
    torch.manual_seed(0)
    relaxed = Relaxed(nn.Linear(200, 3), LQNets(2))
    method, w = relaxed.relaxations[0], relaxed.net.weight.detach()
    error = (relaxed.weights()["weight"] - w).square().sum(1)
    method.basis.mul_(1.5)
    assert (error < (relaxed.weights()["weight"] - w).square().sum(1)).all()
    for row in relaxed.harden().weight:
        assert len(row.unique()) <= 4


def test_slb_by_hand():
    relaxed = line(SLB(1), (0.5, -1.0))
    method = relaxed.relaxations[0]
    with torch.no_grad():
        method.a.copy_(numbers(0, math.log(4), math.log(3), 0).view(2, 2))
    assert_close(seen(relaxed), numbers(0.5, -0.6))  # (1/4, 3/4) and (4/5, 1/5) on the levels -1 and 1
    relaxed.anneal(0.5, 0.25)
    assert method.tau == 0.5
    assert_close(seen(relaxed), numbers(0.8, -15 / 17))
    assert_close(relaxed.harden().weight[0], numbers(1, -1))
    assert [n for n, _ in relaxed.named_parameters()] == ["relaxations.0.a"]  # the weights it replaces are not trained


def test_slb_starts_near_the_network_and_ends_certain():
    torch.manual_seed(0)
    net = nn.Linear(40, 5)
    w = net.weight.detach().clone()
    relaxed = Relaxed(net, SLB(2))
    hard = relaxed.harden().weight
    assert (hard - w).abs().max() <= w.abs().max() / 3 + 1e-6  # the nearest of four levels
    relaxed.anneal(1.0, 1e-4)
    assert_close(relaxed.weights()["weight"], hard, atol=1e-3, rtol=0)


def test_bsq_by_hand():
    relaxed = line(BSQ(2), (3.0, -1.0, 2.0))
    method = relaxed.relaxations[0]
    assert method.positive.tolist() == [[1, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert method.negative.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert_close(seen(relaxed), numbers(3, -1, 2))
    assert_close(relaxed.penalty(), numbers(2 * 2 * math.sqrt(2))[0], atol=1e-5, rtol=0)  # bits x two planes of sqrt 2
    seen(relaxed).sum().backward()
    assert method.positive.grad.tolist() == [[1] * 3, [2] * 3, [4] * 3]
    assert method.negative.grad.tolist() == [[-1] * 3, [-2] * 3, [-4] * 3]


def test_bsq_drops_empty_bits_and_keeps_the_weights():
    relaxed = line(BSQ(3), (7.0, -1.0, 2.0))
    method = relaxed.relaxations[0]
    with torch.no_grad():
        method.positive.zero_()
        method.negative.zero_()
        method.positive[1, 0] = 1.3  # 2.6, rounds to 3; with plane 0 below: 2
        method.negative[0, 0] = 0.9
        method.negative[1, 1] = 0.8
        method.negative[0, 1] = 0.3  # -1.9
    before = seen(relaxed).detach().clone()
    assert before.tolist() == [2, -2, 0]
    assert method.requantise() == [1]  # neither the highest nor the lowest bit is used
    assert method.unit.tolist() == [2]
    assert_close(seen(relaxed), before)
    method.clip_()
    assert_close(seen(relaxed), before)
    with torch.no_grad():
        method.positive[2, 2] = 5.0
        method.positive[0, 2] = 5.0
    method.clip_()
    assert seen(relaxed).tolist() == [2, -2, 4]  # a dropped plane stays empty, a live one stays within 2
    assert method.requantise() == [2]  # 1, -1 and 1 + 1, which carries into a second bit
    assert_close(seen(relaxed), numbers(2, -2, 4))


def test_pact_by_hand():
    act = PACT(2, alpha=3.0)
    x = torch.tensor([-1.0, 0.4, 1.6, 2.9, 5.0], requires_grad=True)
    y = act(x)
    assert_close(y.detach(), torch.tensor([0.0, 0, 2, 3, 3]))
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    assert act.alpha.grad == 1  # one input lies above


def test_four_bit_relu6_has_the_levels_of_the_thesis():
    act = ReLU6FourBits()
    y = act(torch.linspace(-2, 8, 5001))
    assert_close(y.unique(), torch.arange(16) / 5)  # 0, 1/5 ... 15/5
    x = torch.tensor([1.1], requires_grad=True)
    act(x).backward()
    assert x.grad == 1


def test_smol_a_by_hand():
    act = SmolA((2,), alpha=2.0)
    with torch.no_grad():
        act.s.copy_(torch.tensor([0.0, -math.log(7)]))  # 2 and 4 bits
    assert_close(act.penalty(), torch.tensor(4.0))
    x = torch.tensor([[1.2, 1.2], [-1.0, 9.0]])
    assert act.eval()(x).tolist() == [[pytest.approx(1.2)] * 2, [0, 2]]
    act.train()
    torch.manual_seed(5)
    noisy = act(x)
    torch.manual_seed(5)
    noise = 2 * torch.rand(2, 2) - 1
    assert_close(noisy, torch.tensor([[1.2, 1.2], [0, 2]]) + torch.tensor([0.5, 0.125]) * noise)  # alpha / 2 sigma
    noisy.sum().backward()
    assert act.s.grad.abs().sum() > 0
    whole = act.fixed()
    assert whole.p.tolist() == [2, 4]
    assert_close(whole(x).detach(), torch.tensor([[4 / 3, 1.2], [0, 2]]))  # thirds and fifteenths of 2
    whole(x).sum().backward()
    assert whole.alpha.grad == 1  # one input lies above


def test_activations_have_whole_bits_and_an_s_that_is_finite():
    for wrong in (torch.tensor([2.5]), torch.tensor([0]), torch.tensor([17]), torch.tensor([True])):
        with pytest.raises(LabError, match="whole numbers of bits from 1 to 16"):
            FixedBits(wrong, 6.0)
    act = SmolA((2,))
    with torch.no_grad():
        act.s[0] = math.nan
    with pytest.raises(LabError, match="s holds NaN or infinite values"):
        act.fixed()


METHODS = [DoReFa(2), LSQ(2), DSQ(2), LQNets(2), SLB(2), BSQ(4)]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_each_learns_and_ends_with_few_levels(method):
    torch.manual_seed(0)
    x, target = torch.randn(256, 8), torch.randn(8, 4)
    y = (x @ target).argmax(1)
    relaxed = Relaxed(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)), method)
    optimizer = torch.optim.Adam(relaxed.parameters(), lr=0.02)
    first = F.cross_entropy(relaxed(x), y).item()
    for i in range(150):
        relaxed.anneal(i / 149, 0.05)
        loss = F.cross_entropy(relaxed(x), y) + 1e-4 * relaxed.penalty()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if isinstance(method, LQNets):
            method.update_(relaxed.net.state_dict())
        if isinstance(method, BSQ):
            method.clip_()
            if i % 50 == 49:
                method.requantise()
    hard = relaxed.harden()
    assert F.cross_entropy(hard(x), y).item() < 0.6 * first
    rows = hard[0].weight if isinstance(method, LQNets) else hard[0].weight.flatten()[None]
    most = 2 ** (5 + 1) if isinstance(method, BSQ) else 2**method.bits
    assert all(len(row.detach().unique()) <= most for row in rows)


@pytest.mark.parametrize("method", [DoReFa, LSQ, DSQ, LQNets, SLB, BSQ])
@pytest.mark.parametrize("bits", [0, 33, 2.5, True])
def test_a_senseless_number_of_bits_is_refused(method, bits):
    with pytest.raises(LabError, match="bits must be a whole number from") as caught:
        method(bits)
    assert "\n" not in str(caught.value)


def test_an_activation_range_that_collapses_is_named():
    for act in (PACT(2), PACT(None), SmolA((2,)), FixedBits(torch.tensor([2, 3]), 6.0)):
        with torch.no_grad():
            act.alpha.fill_(-0.1)
        with pytest.raises(LabError, match=r"an activation range collapsed to -0\.1"):
            act.eval()(torch.ones(1, 2))
    for alpha in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(LabError, match="an activation's range must be a finite number above 0"):
            PACT(2, alpha)
    with pytest.raises(LabError, match="PACT: bits must be"):
        PACT(0)
    with pytest.raises(LabError, match="SLB's final temperature"):
        SLB(1).anneal(0.5, 2.0)


def test_relus_are_replaced_or_missed_aloud():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.ReLU6()))
    assert replace_relu(net, lambda: PACT(4)) == 2
    assert isinstance(net[2][1], PACT)
    net(torch.randn(3, 2)).sum().backward()
    with pytest.raises(LabError, match="has no ReLU module to replace"):
        replace_relu(nn.Linear(2, 2), lambda: PACT(4))
