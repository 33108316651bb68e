"""AMC: its budget, its reward, and that the agent learns where zeros hurt."""

import pytest
import torch
from torch import nn

from lab.baselines.amc import Agent, find_ratios, prune_by


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2))


IMAGE = torch.randn(1, 3, 12, 12)


def zeros(net, name):
    return (net.weights()[name] == 0).float().mean().item()


def test_every_episode_keeps_the_budget_and_the_best_is_returned():
    net, shares = network(), []

    def score(pruned):
        weights = [pruned.weights()[f"{i}.weight"] for i in (0, 2, 4)]
        shares.append(sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights))
        return -shares[-1]

    search = find_ratios(net, 0.8, score, IMAGE, episodes=30, explore=10)
    assert min(shares) >= 0.8 - 0.01
    assert search.reward == max(search.history)
    assert len(search.history) == 30
    pruned = prune_by(net, search.ratios)
    for name, ratio in search.ratios.items():
        weight = pruned.get_parameter(name)
        assert int((weight == 0).sum()) == round(ratio * weight.numel())
        kept = weight[weight != 0].abs()
        assert kept.min() >= net.get_parameter(name)[weight == 0].abs().max()  # the smallest went
    assert all((p != 0).all() for p in net.parameters() if p.ndim > 1)  # left as it was


def test_the_agent_learns_to_spare_the_layer_that_matters():
    def score(pruned):  # zeros in the middle layer cost all, elsewhere nothing
        return 1 - zeros(pruned, "2.weight")

    search = find_ratios(network(), 0.5, score, IMAGE, episodes=120, explore=40)
    first, last = sum(search.history[:40]) / 40, sum(search.history[-20:]) / 20
    assert last > first + 0.1
    assert search.ratios["2.weight"] < 0.15


def test_a_search_is_repeatable_and_leaves_the_generator_alone():
    net, state = network(), torch.random.get_rng_state()
    first, second = (
        find_ratios(net, 0.5, lambda n: -zeros(n, "0.weight"), IMAGE, episodes=12, explore=4, seed=3) for _ in range(2)
    )
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_critic_comes_to_know_the_reward():
    torch.manual_seed(1)
    agent = Agent(2, hidden=32)
    for _ in range(60):
        states, actions = torch.rand(1, 2), torch.rand(1)
        agent.learn(states, actions, float(actions[0]), updates=10)
    state = torch.tensor([[0.5, 0.5]])
    low, high = (agent.critic(torch.cat([state, torch.tensor([[a]])], 1)).item() for a in (0.1, 0.9))
    assert high - low == pytest.approx(0.8, abs=0.2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": 1.0}, "target must lie between 0 and 1"),
        ({"target": 0.5, "episodes": 0}, "episodes must be at least 1"),
    ],
)
def test_senseless_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        find_ratios(network(), evaluate=lambda n: 0.0, example=IMAGE, **options)
