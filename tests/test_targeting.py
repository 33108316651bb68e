"""A wanted sparsity: the search on curves known beforehand, and on a real network with real images."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lab.datasets import load
from lab.training import normalise
from principled import Relaxed
from principled.find_s_init import find_s_init


def curve(where, width):
    """Stands in for training: keeps a share of the weights that rises with s_init along a logistic curve."""

    def train(relaxed):
        mask = relaxed.relaxations[0]
        kept = torch.sigmoid(torch.tensor((mask.s_init - where) / width))
        with torch.no_grad():
            mask.s.fill_(-1.0)[: round(kept.item() * len(mask.s))] = 1.0

    return train


@given(st.floats(-0.3, 0.3), st.floats(0.005, 0.1), st.floats(0.3, 0.99))
def test_any_monotone_curve_is_searched_in_a_handful_of_runs(where, width, target):
    net = nn.Linear(100, 100, bias=False)
    found = find_s_init(net, target, curve(where, width), where=nn.Linear, most=16)
    assert abs(found.sparsity - target) <= 0.005
    assert (found.s_init, found.sparsity) in found.runs


def test_typical_curves_take_few_runs():
    net = nn.Linear(100, 100, bias=False)
    counts = [
        len(find_s_init(net, target, curve(where, 0.03), where=nn.Linear).runs)
        for where in (-0.1, 0.0, 0.1)
        for target in (0.5, 0.8, 0.9, 0.95)
    ]
    assert max(counts) <= 8
    assert sum(counts) / len(counts) <= 5


def test_it_reaches_half_a_point_on_real_images():
    torch.set_num_threads(1)
    data = load("cifar10-mini", "train")
    chosen = torch.arange(0, len(data), 8)
    images, labels = normalise(data.images[chosen], data), data.labels[chosen]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    before = [p.clone() for p in net.parameters()]

    def train(relaxed, steps=40):
        s = relaxed.relaxations[0].s
        weights = [p for p in relaxed.parameters() if p is not s]
        optimizer = torch.optim.SGD(
            [{"params": weights}, {"params": [s], "lr": 1.0}], lr=0.1, momentum=0.9, nesterov=True
        )
        for step in range(steps):
            relaxed.anneal(step / steps, 200.0)
            batch = torch.randint(len(labels), (50,))
            optimizer.zero_grad()
            F.cross_entropy(relaxed(images[batch]), labels[batch]).backward()
            optimizer.step()

    state = torch.random.get_rng_state()
    found = find_s_init(net, 0.8, train)
    assert abs(found.sparsity - 0.8) <= 0.005
    assert len(found.runs) <= 8
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    rising = [sparsity for _, sparsity in sorted(found.runs)]
    assert rising == sorted(rising, reverse=True)  # the monotony that the search rests on (4.5.1)
    print(found)


def test_each_trial_starts_from_the_trained_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    x, y = torch.randn(48, 1, 8, 8), torch.arange(48) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        trained = net.eval()(x)
    starts = []

    def train(relaxed):
        with torch.no_grad():
            starts.append(relaxed.eval()(x))
        relaxed.train()
        (mask,) = relaxed.relaxations
        sgd = torch.optim.SGD([{"params": relaxed.net.parameters()}, {"params": [mask.s], "lr": 5.0}], lr=0.01)
        for step in range(15):
            relaxed.anneal(step / 15, 100.0)
            sgd.zero_grad()
            F.cross_entropy(relaxed(x), y).backward()
            sgd.step()

    found = find_s_init(net, 0.6, train, tolerance=0.03, variant="reference", guess=-0.01, step=0.01)
    assert abs(found.sparsity - 0.6) <= 0.03
    for start in starts:  # the reference variant starts from the network as it is
        torch.testing.assert_close(start, trained, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 90])
def test_a_target_that_is_no_share_is_refused(target):
    with pytest.raises(ValueError, match="target_sparsity must lie between 0 and 1"):
        find_s_init(nn.Linear(2, 2), target, lambda relaxed: None, where=nn.Linear)


def test_out_of_reach_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"no s_init within 4 trials gives 90.0% .* nearest: s_init = .* Allow more trials"
    ):
        find_s_init(nn.Linear(4, 4), 0.9, lambda relaxed: None, where=nn.Linear, most=4)


def test_senseless_options_are_refused():
    with pytest.raises(ValueError, match="tolerance and step must be above 0"):
        find_s_init(nn.Linear(2, 2), 0.5, lambda relaxed: None, tolerance=0.0)


def test_the_options_of_the_mask_are_passed_on():
    seen = []

    def train(relaxed: Relaxed):
        seen.append(relaxed.relaxations[0].shape)
        with torch.no_grad():
            relaxed.relaxations[0].s[0] = -1.0

    find_s_init(nn.Conv2d(1, 2, 3), 0.5, train, shape="filter", guess=0.1)
    assert seen == ["filter"]
