"""A schedule of a relaxed network: what each step does, on a loop of one's own; and one line for each misuse."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from principled import ContinuousMask, Relaxed, Schedule, Smol, SoftSharing, average_bits, decay_groups


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))


IMAGES, LABELS = torch.randn(12, 1, 8, 8), torch.arange(12) % 3


def optimizer_of(net, rate=0.1):
    weights, variables = decay_groups(net, 1e-3)
    return torch.optim.SGD([weights, variables | {"lr": 10 * rate}], lr=rate, momentum=0.9)


def train(net, schedule, steps, inside=True, rate=0.1):
    optimizer = optimizer_of(net, rate)
    for _ in range(steps):
        loss = F.cross_entropy(net(IMAGES), LABELS)
        (loss + schedule.penalty() if inside else loss).backward()
        if not inside:
            schedule.add_gradients()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def test_the_temperature_goes_from_1_to_its_end():
    net = Relaxed(network(), ContinuousMask())
    net.anneal(0.7, 9.0)
    schedule = Schedule(net, 4, final=16.0)
    betas = [net.relaxations[0].beta.item()]
    while not schedule.done:
        schedule.step()
        betas.append(net.relaxations[0].beta.item())
    assert betas == pytest.approx([1, 2, 4, 8, 16])
    assert schedule.progress == 1


def test_each_relaxation_of_a_stack_has_its_price():
    net = Relaxed(network(), ContinuousMask(-0.1), Smol(8.0, where=nn.Linear))
    mask, smol = net.relaxations
    both = Schedule(net, 5, lam=[0.5, 0.25]).penalty()
    assert_close(both, 0.5 * mask.penalty() + 0.25 * smol.penalty())
    assert_close(Schedule(net, 5, lam=0.5).penalty(), 0.5 * net.penalty())


@pytest.mark.parametrize("relaxation", [ContinuousMask, Smol, SoftSharing], ids=lambda r: r.__name__)
def test_gradients_added_are_those_of_a_penalty_in_the_loss(relaxation):
    trained = []
    for inside in (True, False):
        torch.manual_seed(0)
        net = Relaxed(nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)), nn.Flatten()), relaxation())
        train(net, Schedule(net, 5, lam=0.01), 5, inside, rate=0.01)
        trained.append(net)
    for a, b in zip(trained[0].parameters(), trained[1].parameters(), strict=True):
        assert_close(a, b)


def test_gradients_are_added_to_the_parameters_that_are_stepped():
    net = Relaxed(network(), ContinuousMask(-0.1), Smol(8.0, where=nn.Linear))
    mask, smol = net.relaxations
    Schedule(net, 5, lam=1.0).add_gradients([mask.s])
    assert smol.s.grad is None
    expected = torch.sigmoid(mask.s) * (1 - torch.sigmoid(mask.s))
    assert_close(mask.s.grad, expected.detach())
    Schedule(net, 5).add_gradients()  # a price of 0
    assert_close(mask.s.grad, expected.detach())


def test_a_step_clips_what_has_a_range():
    net = Relaxed(network(), Smol())
    schedule = Schedule(net, 5)
    with torch.no_grad():
        net.net[2].weight.fill_(3.0)
    schedule.step()
    limit = 2 - torch.sigmoid(net.relaxations[0].s.detach()).max()
    assert net.net[2].weight.max() <= limit
    assert_close(net.net[2].weight.max(), limit)


def test_noise_on_shared_weights_needs_no_clipping_of_weights_that_are_not_there():
    layers = [nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)]
    net = Relaxed(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3)), SoftSharing(), Smol(6.0, scale="power"))
    before = net.net[4].weight.detach().clone()
    train(net, schedule := Schedule(net, 2, lam=1e-4), 2)
    assert schedule.done
    assert not torch.equal(net.net[4].weight, before)


def test_its_figures_are_those_of_the_hard_network():
    net = Relaxed(network(), ContinuousMask(-0.02), Smol(6.0))
    schedule = Schedule(net, 10, lam=[1e-3, 1e-3])
    train(net, schedule, 10)
    figures = schedule.figures()
    hard = schedule.harden()
    convolutions = [hard[0].weight, hard[2].weight]
    kept = net.relaxations[0].split(net.relaxations[0].hard())
    assert figures["zeros"] == pytest.approx(
        1 - sum(int(m.sum()) for m in kept.values()) / sum(w.numel() for w in convolutions)
    )
    assert figures["bits"] == average_bits(net.relaxations[1].precision())
    assert set(Schedule(Relaxed(network(), SoftSharing({"all": ["0.weight"]})), 1).figures()) == set()


def test_it_goes_on_from_its_state():
    net = Relaxed(network(), ContinuousMask())
    first = Schedule(net, 4, final=16.0)
    first.step()
    again = Schedule(net, 4, final=16.0)
    assert net.relaxations[0].beta == 1
    again.load_state_dict(first.state_dict())
    assert (again.taken, net.relaxations[0].beta.item()) == (1, pytest.approx(2))
    with pytest.raises(ValueError, match="this schedule has 5 steps, the saved one 4"):
        Schedule(net, 5).load_state_dict(first.state_dict())


def test_hardening_before_the_end_and_steps_after_it_are_one_line_each():
    schedule = Schedule(Relaxed(network(), ContinuousMask()), 2)
    with pytest.warns(UserWarning, match="hardened after 0 of 2 steps"):
        schedule.harden()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()
        schedule.step()
        schedule.harden()
    with pytest.warns(UserWarning, match=r"step\(\) is called more often than the 2 times it was made for"):
        schedule.step()
    assert schedule.progress == 1


def test_an_optimizer_that_decays_or_forgets_the_variables_is_seen():
    net = Relaxed(network(), ContinuousMask())
    schedule = Schedule(net, 2)
    with pytest.warns(UserWarning, match=r"decays relaxations\.0\.s, .* decay_groups"):
        schedule.check(torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1))
    with pytest.warns(UserWarning, match=r"leaves out relaxations\.0\.s"):
        schedule.check(torch.optim.SGD(net.net.parameters(), lr=0.1, weight_decay=0.1))
    shared = Relaxed(nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)), SoftSharing())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.check(torch.optim.SGD(net.net.parameters(), lr=0.1), torch.optim.SGD([net.relaxations[0].s], lr=1.0))
        Schedule(shared, 2).check(torch.optim.SGD(decay_groups(shared, 0.1), lr=0.1))  # templates are weights


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"net": network()}, r"Schedule takes Relaxed\(net, ContinuousMask\(\)\) or the like, not Sequential"),
        ({"steps": 0}, "steps must be a finite number of at least 1, not 0"),
        ({"steps": math.inf}, "steps must be a finite number of at least 1, not inf"),
        ({"lam": -1.0}, "lam is a finite price of at least 0"),
        ({"lam": [1.0, 1.0]}, "one for each of the 1 relaxations"),
        ({"final": 0.0}, "beta_final must be a finite number above 0"),
    ],
)
def test_senseless_options_are_one_line(change, line):
    options = {"net": Relaxed(network(), ContinuousMask()), "steps": 3} | change
    with pytest.raises(ValueError, match=line):
        Schedule(**options)
