"""Ticket search: the author's public code, Algorithms 2 to 4 by hand, and what must hold for any search."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from lab.baselines import IterativeMagnitude, MagnitudeMask, StochasticMask
from principled import ContinuousMask, Relaxed
from principled.tickets import SequentialMask, freeze, search_state, take_ticket, ticket_search

PUBLIC = json.loads((Path(__file__).parent / "fixtures/ticket_search.json").read_text())


def line(weights, relaxation):
    """A bias-free linear layer with one output, float64, under a mask."""
    net = nn.Linear(len(weights), 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([weights]))
    return Relaxed(net, relaxation), relaxation


def walk(net, steps=4, lr=0.1, final=200.0):
    """A round's training on made-up numbers: ``train(round, passed)``."""

    def train(round, passed):
        parameters = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=lr)
        for t in range(steps):
            net.anneal(t / steps, final)
            like = next(net.parameters())
            x = torch.randn(5, net.net.in_features, dtype=like.dtype)
            optimizer.zero_grad()
            (net(x).square().mean() + 1e-3 * net.penalty()).backward()
            optimizer.step()
            passed(t + 1)
        net.anneal(1.0, final)

    return train


# -- the author's public code -----------------------------------------------------------------------------------------


class PublicNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.b = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.lin = nn.Linear(4, 3)

    def forward(self, x):
        return self.lin(self.b(F.relu(self.bn(self.a(x)))).mean((2, 3)))


def fill(shape, k):
    """The fixture's inputs: value[i] = sin(0.37 i + k + 0.1) cos(0.011 i (k + 1)), row-major."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (torch.sin(0.37 * i + k + 0.1) * torch.cos(0.011 * i * (k + 1))).view(shape)


def numbers(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors])


def test_a_search_of_the_reference_variant_is_the_public_codes():
    net = PublicNet().double()
    with torch.no_grad():
        for weight, k in ((net.a.weight, 1), (net.b.weight, 2), (net.lin.weight, 3)):
            weight.copy_(fill(weight.shape, k))
        net.lin.bias.zero_()
    relaxed = Relaxed(net, ContinuousMask(PUBLIC["s_init"], variant="reference"))
    mask = relaxed.relaxations[0]
    groups = [{"params": list(net.parameters()), "weight_decay": PUBLIC["weight_decay"]}, {"params": [mask.s]}]
    optimizer = torch.optim.SGD(groups, lr=PUBLIC["lr"], momentum=PUBLIC["momentum"])
    epochs, steps, rewind = PUBLIC["epochs"], PUBLIC["steps"], PUBLIC["rewind_epoch"] * PUBLIC["steps"]
    images = [fill((6, 2, 5, 5), 10 + i) for i in range(steps)]

    def train(round, passed):
        for t in range(epochs * steps):
            i = t % steps
            relaxed.anneal((t // steps) / (epochs - 1), PUBLIC["beta_final"])  # the public code: once an epoch
            labels = torch.tensor([(j * (i + 1) + i) % 3 for j in range(6)])
            loss = F.cross_entropy(relaxed(images[i]), labels) + PUBLIC["lambda"] * relaxed.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            passed(t + 1)
        want = PUBLIC["rounds"][round - 1]
        close = {"atol": 1e-10, "rtol": 0}
        assert_close(mask.s.detach(), torch.tensor(want["s"], dtype=torch.float64), **close)
        assert_close(numbers(net.parameters()), numbers(order(want["weights"])), **close)
        assert loss.item() == pytest.approx(want["loss"], abs=1e-10)

    def order(flat):  # the fixture: a, b, bn.weight, bn.bias, lin.weight, lin.bias; ours: a, bn, b, lin
        a, b, bn, lin = torch.tensor(flat, dtype=torch.float64).split([54, 108, 6, 15])
        return [a, bn, b, lin]

    *_, ticket = ticket_search(relaxed, train, rounds=2, steps=epochs * steps, k=rewind)
    kept = numbers(m != 0 for m in ticket.mask.values())
    assert kept.tolist() == PUBLIC["ticket"]["kept"]
    with torch.no_grad():
        got = ticket.network(net).eval()(images[0]).flatten()
    assert_close(got, torch.tensor(PUBLIC["ticket"]["logits"], dtype=torch.float64), atol=1e-7, rtol=0)


# -- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the mask removes")
def test_algorithm_2_by_hand():
    """One weight, two rounds of one step: every number follows from the lines of the algorithm."""
    net, mask = line([2.0], ContinuousMask(0.0, where=nn.Linear))

    def train(round, passed):
        x = torch.ones(1, 1, dtype=torch.float64)
        net.anneal(0.0, 4.0)
        (0.5 * net(x).square().sum()).backward()  # y = m theta: dtheta = m^2 theta, ds = beta m (1 - m) m theta^2
        with torch.no_grad():
            for p in net.parameters():
                p -= p.grad
        net.zero_grad()
        passed(1)
        net.anneal(1.0, 4.0)

    first, second = ticket_search(net, train, rounds=2, steps=1, k=1)
    # round 1: m = 1/2, theta = 2 - 1/2, s = 0 - 1/2; line 3: s = min(4 * -1/2, 0) = -2, and theta goes on from 3/2
    m = 1 / (1 + math.exp(2))
    assert net.net.weight.item() == pytest.approx(1.5 - m * m * 1.5)
    assert mask.s.item() == pytest.approx(-2 - m * (1 - m) * m * 1.5**2)
    assert (first.sparsity(), second.sparsity()) == (1.0, 1.0)
    assert first.start["weight"].item() == second.start["weight"].item() == 1.5  # the iterate after k = 1


@pytest.mark.filterwarnings("ignore:the mask removes")
@pytest.mark.parametrize("k", [0, 1, 4])
def test_tickets_restart_from_the_iterate_after_k_steps(k):
    net, _ = line([1.0, -2.0, 3.0, 0.5], ContinuousMask(0.02, where=nn.Linear))
    seen = {0: net.net.weight.detach().clone()}
    train = walk(net)

    def watched(round, passed):
        def noted(step):
            if round == 1:
                seen[step] = net.net.weight.detach().clone()
            passed(step)

        train(round, noted)

    for ticket in ticket_search(net, watched, rounds=2, steps=4, k=k):
        assert torch.equal(ticket.start["weight"], seen[k])
        plain = ticket.network(net.net)
        assert torch.equal(plain.weight, ticket.mask["weight"] * seen[k])
        assert isinstance(plain, nn.Linear)


@pytest.mark.parametrize("rewind", [True, False])
def test_only_imp_rewinds_and_batchnorm_goes_back_too(rewind):
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    net = Relaxed(plain, IterativeMagnitude(0.5, nn.Linear))
    begun, ended = [], []

    def train(round, passed):
        begun.append({n: v.clone() for n, v in plain.state_dict().items()})
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for t in range(3):
            (net(torch.randn(8, 3)) - 1).square().mean().backward()
            optimizer.step()
            passed(t + 1)
        ended.append({n: v.clone() for n, v in plain.state_dict().items()})

    tickets = list(ticket_search(net, train, rounds=2, steps=3, k=1, rewind=rewind))
    want = tickets[0].start if rewind else ended[0]
    assert all(torch.equal(begun[1][name], value) for name, value in want.items())
    assert not torch.equal(tickets[0].start["1.running_mean"], ended[0]["1.running_mean"])


def test_a_ticket_s_zeros_stay_when_it_is_retrained():
    net, mask = line([1.0, -2.0, 3.0, 0.5], ContinuousMask(0.0, where=nn.Linear))
    with torch.no_grad():
        mask.s.copy_(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    trained = take_ticket(net, 1, net.net.state_dict()).trainable(net.net)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, weight_decay=0.1)
    trained(torch.randn(4, 4, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    weight = trained.harden().weight
    assert ((weight != 0) == torch.tensor([[True, False, True, False]])).all()
    assert net.net.weight.tolist() == [[1.0, -2.0, 3.0, 0.5]]  # the searched network is left alone


# -- masks that prune by round ----------------------------------------------------------------------------------------


def test_imp_by_hand_and_beside_torch():
    weights = [3.0, -1.0, 0.5, 2.0, -4.0, 0.1, 0.9, -0.2, 5.0, 0.3]
    net, _ = line(weights, IterativeMagnitude(0.2, nn.Linear))
    tickets = list(ticket_search(net, lambda round, passed: None, rounds=3, steps=0))
    assert [t.sparsity() for t in tickets] == pytest.approx([0.2, 0.4, 0.5])  # 2 of 10, 2 of 8, 1 of 6
    assert (tickets[1].mask["weight"] != 0).int().tolist() == [[1, 1, 0, 1, 1, 0, 1, 0, 1, 0]]
    theirs = nn.Linear(10, 1, bias=False).double()
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor([weights]))
    for ticket in tickets:
        prune.global_unstructured([(theirs, "weight")], prune.L1Unstructured, amount=0.2)
        assert torch.equal(theirs.weight_mask, ticket.mask["weight"])


def test_imp_with_a_rate_for_each_type_ranks_each_layer_by_itself():
    net = nn.Sequential(nn.Conv2d(1, 4, 5), nn.Flatten(), nn.Linear(4, 10))
    with torch.no_grad():
        net[0].weight.mul_(1e-3)  # ranked together, the whole convolution would go first
    relaxed = Relaxed(net, IterativeMagnitude({nn.Conv2d: 0.15, nn.Linear: 0.2}, (nn.Conv2d, nn.Linear)))
    (ticket,) = ticket_search(relaxed, lambda round, passed: None, rounds=1, steps=0)
    pruned = {name: 1 - m.mean().item() for name, m in ticket.mask.items()}
    assert pruned == pytest.approx({"0.weight": 0.15, "2.weight": 0.2})


@given(st.integers(2, 60), st.floats(0.05, 0.9), st.integers(1, 5))
def test_rounds_remove_the_rate_of_what_is_left_and_nothing_comes_back(size, rate, rounds):
    for make in (lambda: IterativeMagnitude(rate, nn.Linear), lambda: SequentialMask(rate, where=nn.Linear)):
        relaxed, _ = line(torch.randn(size).tolist(), make())
        left, before = size, torch.ones(1, size, dtype=torch.bool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tickets = list(ticket_search(relaxed, walk(relaxed, steps=2), rounds=rounds, steps=2))
        for ticket in tickets:
            left -= round(rate * left)
            kept = ticket.mask["weight"] != 0
            assert kept.sum() == left
            assert not (kept & ~before).any()
            before = kept


def test_sequential_cs_by_hand():
    net, mask = line([1.0, 1.0, 1.0, 1.0], SequentialMask(0.25, where=nn.Linear))
    with torch.no_grad():
        mask.s.copy_(torch.tensor([-0.2, 0.3, -0.5, -0.1], dtype=torch.float64))
    mask.beta.fill_(200.0)
    relaxed_weights = net.weights()
    with torch.no_grad():
        mask.end_round(relaxed_weights)
    assert mask.s.tolist() == [-0.2, 0.3, -math.inf, -0.1]  # the lowest goes; other negative ones stay
    mask.new_round()
    assert mask.s.tolist() == [0.0, 0.0, -math.inf, 0.0]
    assert net.weights()["weight"].tolist() == [[0.5, 0.5, 0.0, 0.5]]
    assert net.harden().weight.tolist() == [[1.0, 1.0, 0.0, 1.0]]
    net(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
    assert mask.s.grad.isfinite().all()


# -- stochastic masks -------------------------------------------------------------------------------------------------


def test_a_stochastic_mask_is_binary_with_the_right_chance_and_passes_gradients_straight_through():
    torch.manual_seed(3)
    net, mask = line([2.0] * 4000, StochasticMask(math.log(3), nn.Linear))  # sigma(s) = 3/4
    effective = net.weights()["weight"]
    assert set(effective.unique().tolist()) == {0.0, 2.0}
    assert (effective != 0).double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert not torch.equal(effective, net.weights()["weight"])  # another draw
    assert net.penalty().item() == pytest.approx(3000)
    effective.sum().backward()
    assert_close(mask.s.grad, torch.full((4000,), 2.0 * 0.75 * 0.25, dtype=torch.float64))  # theta sigma (1 - sigma)
    assert mask.sparsity() == pytest.approx(0.25)
    hard = net.harden().weight
    assert (hard != 0).double().mean().item() == pytest.approx(0.75, abs=0.03)


def test_iss_removes_for_good_what_has_sunk():
    net, mask = line([1.0, 1.0, 1.0], StochasticMask(1.0, nn.Linear))
    optimizer = torch.optim.SGD([mask.s], lr=20.0, momentum=0.9)
    with torch.no_grad():
        mask.s.copy_(torch.tensor([0.9, 1.0, 1.1]))
    mask.new_round()
    assert mask.s.tolist() == [-math.inf, 1.0, pytest.approx(1.1)]
    for _ in range(3):
        (net(torch.ones(1, 3, dtype=torch.float64)).sum() + net.penalty()).backward()
        assert mask.s.grad.isfinite().all()
        optimizer.step()
    assert mask.s[0] == -math.inf
    assert net.harden().weight[0, 0] == 0


# -- supermasks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ContinuousMask, StochasticMask])
def test_a_supermask_leaves_the_weights_alone(make):
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    net = freeze(Relaxed(plain, make(0.0, where=nn.Linear)))
    before = [p.clone() for p in plain.parameters()]
    x = torch.randn(128, 8)
    y = (x[:, 0] > 0).long()
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], lr=2.0 if make is ContinuousMask else 20.0
    )
    assert len(optimizer.param_groups[0]["params"]) == 1
    for t in range(60):
        net.anneal(t / 60, 200.0)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, plain.parameters(), strict=True))
    right = lambda f: (f(x).argmax(1) == y).float().mean().item()  # noqa: E731
    assert right(net.harden()) > right(plain) + 0.25


# -- what the user can mend -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": 0, "steps": 4}, "rounds must be at least 1, not 0"),
        ({"rounds": 2, "steps": 4, "k": 5}, "k = 5 is no step of a round of 4: choose 0"),
        ({"rounds": 2, "steps": 4, "k": -1}, "k = -1 is no step of a round of 4"),
    ],
)
def test_a_senseless_search_is_refused_before_it_trains(options, words):
    net, _ = line([1.0, 2.0], ContinuousMask(where=nn.Linear))
    with pytest.raises(ValueError, match=words):
        ticket_search(net, walk(net), **options)


def test_a_training_that_does_not_tell_its_steps_is_named():
    net, _ = line([1.0, 2.0], ContinuousMask(where=nn.Linear))
    with pytest.raises(ValueError, match=r"did not call passed\(2\)"):
        list(ticket_search(net, lambda round, passed: None, rounds=1, steps=4, k=2))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.2, 1.5, math.nan])
def test_rates_outside_0_and_1_are_refused(rate):
    for make in (IterativeMagnitude, SequentialMask, lambda r: IterativeMagnitude({nn.Linear: r})):
        with pytest.raises(ValueError, match="rate must lie between 0 and 1"):
            make(rate)


def test_a_layer_type_without_a_rate_is_named():
    with pytest.raises(ValueError, match="rate: none is given for weight, a Linear"):
        line([1.0, 2.0], IterativeMagnitude({nn.Conv2d: 0.2}, nn.Linear))


def test_a_mask_that_removes_a_layer_warns_and_names_it():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    relaxed = Relaxed(net, MagnitudeMask(nn.Linear))
    relaxed.relaxations[0].mask[4:] = 0
    with pytest.warns(UserWarning, match=r"the mask removes every weight of 1\.weight: .* leave the layer out"):
        take_ticket(relaxed, 1, net.state_dict())


@pytest.mark.parametrize("s_init", [math.nan, math.inf])
def test_a_start_that_is_no_number_is_refused(s_init):
    with pytest.raises(ValueError, match="s_init must be a finite number"):
        StochasticMask(s_init)


@pytest.mark.filterwarnings("ignore:the mask removes")
@pytest.mark.parametrize(
    ("mask", "rewind"),
    [
        (lambda: ContinuousMask(0.02, where=nn.Linear), False),
        (lambda: SequentialMask(0.25, where=nn.Linear), False),
        (lambda: IterativeMagnitude(0.25, nn.Linear), True),
    ],
    ids=["CS", "sequential", "IMP"],
)
def test_a_resumed_search_gives_the_same_tickets(mask, rewind, tmp_path):
    def chance(net):
        """A round draws the same numbers, whatever came before it."""

        def train(round, passed):
            torch.manual_seed(round)
            walk(net)(round, passed)

        return train

    weights = [1.0, -2.0, 3.0, 0.5]
    net, _ = line(weights, mask())
    whole = list(ticket_search(net, chance(net), rounds=4, steps=4, k=2, rewind=rewind))
    first, _ = line(weights, mask())
    for ticket in ticket_search(first, chance(first), rounds=4, steps=4, k=2, rewind=rewind):
        if ticket.round == 2:
            torch.save(search_state(first, ticket), tmp_path / "search.pt")
            break
    second, _ = line([9.0] * 4, mask())
    state = torch.load(tmp_path / "search.pt", weights_only=True)
    rest = list(ticket_search(second, chance(second), rounds=4, steps=4, k=2, rewind=rewind, resume=state))
    assert [ticket.round for ticket in rest] == [3, 4]
    for ticket, again in zip(whole[2:], rest, strict=True):
        assert torch.equal(ticket.mask["weight"], again.mask["weight"])
        assert torch.equal(ticket.start["weight"], again.start["weight"])
    assert torch.equal(net.net.weight, second.net.weight)


@pytest.mark.filterwarnings("ignore:the mask removes")
def test_a_search_is_watched_step_by_step():
    net, _ = line([1.0, -2.0, 3.0, 0.5], ContinuousMask(0.02, where=nn.Linear))
    seen = []
    list(ticket_search(net, walk(net, 2), rounds=2, steps=2, k=1, after=lambda round, t: seen.append((round, t))))
    assert seen == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_a_search_that_was_over_is_one_line():
    net, _ = line([1.0, -2.0], ContinuousMask(0.02, where=nn.Linear))
    (ticket,) = ticket_search(net, walk(net), rounds=1, steps=2)
    with pytest.raises(ValueError, match="resume is at the end of round 1, and this search has 1: nothing is left"):
        ticket_search(net, walk(net), rounds=1, steps=2, resume=search_state(net, ticket))
