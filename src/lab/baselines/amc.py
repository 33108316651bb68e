"""AMC (He et al., 2018): a small DDPG agent walks through the layers and gives each its share of zeros.

The thesis has it prune single weights (4.4.1): a layer loses its smallest magnitudes. An episode prunes a trained
network, scores it without any re-training, and rewards all its decisions with that score.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from principled import Relaxed
from principled.relax import Where

from .magnitude import MagnitudeMask


@dataclass(frozen=True)
class Ratios:
    """What the agent found.

    Attributes:
        ratios: share of zeros by weight name.
        reward: score of the network pruned so, before any re-training.
        history: each episode's score, in order.
    """

    ratios: dict[str, float]
    reward: float
    history: tuple[float, ...]


class LayerwiseMagnitude(MagnitudeMask):
    """Each layer loses its own share of smallest magnitudes: :meth:`prune_layers`."""

    @torch.no_grad()
    def prune_layers(self, weights: dict[str, Tensor], ratios: dict[str, float]) -> None:
        """Mask the share ``ratios[name]`` of each layer's smallest effective magnitudes."""
        parts = self.mask.split([math.prod(shape) for shape in self._shapes.values()])
        for name, part in zip(self.names, parts, strict=True):
            smallest = weights[name].abs().flatten().argsort(stable=True)[: round(ratios[name] * part.numel())]
            part.fill_(1.0)
            part[smallest] = 0.0


def find_ratios(
    net: nn.Module,
    target: float,
    evaluate: Callable[[nn.Module], float],
    example: Tensor,
    *,
    episodes: int = 400,
    explore: int = 100,
    most: float = 0.98,
    where: Where | None = None,
    seed: int = 0,
) -> Ratios:
    """Search shares of zeros for all layers that together reach ``target``.

    Args:
        net: a trained network; it is left as it is.
        target: wanted share of zeros of all masked weights, in (0, 1). A little more may come out: the agent may prune
            more than it must, though less pruning is rewarded.
        evaluate: score of a pruned network, higher is better, on images that are not the test's.
        example: an input, to learn each layer's image size.
        episodes: how many; the paper's 400, of which the first ``explore`` act at random.
        most: largest share of one layer, raised if ``target`` needs it.
        where: which weights, as for :class:`principled.ContinuousMask`.
        seed: of the agent.

    Raises:
        ValueError: a target outside (0, 1), no episode.
    """
    if not 0 < target < 1:
        raise ValueError(f"target must lie between 0 and 1, not {target}")
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, not {episodes}")
    most = max(most, (1 + target) / 2)
    pruned = Relaxed(copy.deepcopy(net), LayerwiseMagnitude(where)).eval()
    mask, weights = pruned.relaxations[0], pruned.weights()
    sizes = torch.tensor([math.prod(mask._shapes[name]) for name in mask.names], dtype=torch.float64)
    features = _features(pruned.net, mask.names, example)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = Agent(features.shape[1] + 3)
        best, history = Ratios({}, -math.inf, ()), []
        for episode in range(episodes):
            noise = 0.5 * 0.95 ** max(episode - explore, 0)
            states, actions = _walk(agent, features, sizes, target, most, math.inf if episode < explore else noise)
            ratios = dict(zip(mask.names, actions.tolist(), strict=True))
            mask.prune_layers(weights, ratios)
            history.append(evaluate(pruned))
            if history[-1] > best.reward:
                best = Ratios(ratios, history[-1], ())
            agent.learn(states, actions, history[-1], updates=0 if episode < explore else len(actions))
    return Ratios(best.ratios, best.reward, tuple(history))


def _walk(
    agent: Agent, features: Tensor, sizes: Tensor, target: float, most: float, noise: float
) -> tuple[Tensor, Tensor]:
    """One episode: states ``(layers, n)`` and shares ``(layers,)``. Infinite noise: act at random."""
    total, reduced, last = float(sizes.sum()), 0.0, 0.0
    states, actions = [], []
    for t, size in enumerate(sizes.tolist()):
        rest = float(sizes[t + 1 :].sum())
        state = torch.cat([features[t], torch.tensor([reduced / total, rest / total, last])])
        action = agent.act(state, noise, most)
        # the paper's Algorithm 1: prune here what all later layers at their most could not
        duty = target * total - reduced - most * rest
        last = min(max(action, duty / size), most)
        reduced += last * size
        states.append(state)
        actions.append(last)
    return torch.stack(states), torch.tensor(actions)


@torch.no_grad()
def _features(net: nn.Module, names: tuple[str, ...], example: Tensor) -> Tensor:
    """``(layers, 8)``: index, filters, channels, height, width, stride, kernel, products; each over its maximum."""
    rows: dict[str, list[float]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = layer.weight
            spatial = output.shape[2:] if output.ndim > 2 else (1, 1)
            stride, kernel = (layer.stride[0], weight.shape[-1]) if weight.ndim > 2 else (1, 1)
            sides = (spatial[0], spatial[-1])
            work = weight.numel() * math.prod(spatial)
            rows[name] = [names.index(name), weight.shape[0], weight.shape[1], *sides, stride, kernel, work]

        return hook

    layers = {name: net.get_submodule(name.rpartition(".")[0]) for name in names}
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    net(example)
    for hook in hooks:
        hook.remove()
    table = torch.tensor([rows[name] for name in names], dtype=torch.float32)
    return table / table.max(0).values.clamp(min=1)


class Agent:
    """Deep deterministic policy gradients (Lillicrap et al., 2016) with the paper's sizes and rates."""

    def __init__(self, inputs: int, hidden: int = 300, memory: int = 2000, batch: int = 64) -> None:
        self.actor = _perceptron(inputs, hidden, nn.Sigmoid())
        self.critic = _perceptron(inputs + 1, hidden, nn.Identity())
        self.slow = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.optimizers = (
            torch.optim.Adam(self.actor.parameters(), 1e-4),
            torch.optim.Adam(self.critic.parameters(), 1e-3),
        )
        self.memory: list[tuple[Tensor, Tensor, Tensor, Tensor, bool]] = []
        self.size, self.batch, self.baseline = memory, batch, 0.0
        self.episodes = 0

    @torch.no_grad()
    def act(self, state: Tensor, noise: float, most: float) -> float:
        """A share between 0 and ``most``: the actor's, from a normal distribution around it cut to that range."""
        if math.isinf(noise):
            return most * float(torch.rand(()))
        mean = self.actor(state[None]).squeeze()
        share = nn.init.trunc_normal_(torch.empty(1), float(mean), max(noise, 1e-6), 0.0, most)
        return float(share.clamp(0.0, most))

    def learn(self, states: Tensor, actions: Tensor, reward: float, updates: int) -> None:
        """Remember an episode, all of whose steps share the reward, and take ``updates`` steps."""
        self.episodes += 1
        # rewards relative to their moving average: less variance
        self.baseline = reward if self.episodes == 1 else 0.95 * self.baseline + 0.05 * reward
        for t in range(len(actions)):
            last = t == len(actions) - 1
            following = states[t] if last else states[t + 1]
            self.memory.append((states[t], actions[t], torch.tensor(reward), following, last))
        self.memory = self.memory[-self.size :]
        for _ in range(updates):
            self._step()

    def _step(self) -> None:
        chosen = [self.memory[i] for i in torch.randint(len(self.memory), (self.batch,)).tolist()]
        states, actions, rewards, following = (torch.stack([row[i] for row in chosen]) for i in range(4))
        more = torch.tensor([[0.0 if row[4] else 1.0] for row in chosen])
        with torch.no_grad():
            future = self.slow[1](torch.cat([following, self.slow[0](following)], 1))
            goal = rewards[:, None].float() - self.baseline + more * future  # no discount: every step counts alike
        loss = F.mse_loss(self.critic(torch.cat([states, actions[:, None]], 1)), goal)
        self._minimise(self.optimizers[1], loss)
        self._minimise(self.optimizers[0], -self.critic(torch.cat([states, self.actor(states)], 1)).mean())
        with torch.no_grad():
            for slow, fast in zip(self.slow, (self.actor, self.critic), strict=True):
                for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
                    a.lerp_(b, 0.01)

    def _minimise(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _perceptron(inputs: int, hidden: int, last: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1), last
    )


def prune_by(net: nn.Module, ratios: dict[str, float], where: Where | None = None) -> nn.Module:
    """A plain copy of ``net`` in which each layer has lost its share of smallest magnitudes."""
    pruned = Relaxed(copy.deepcopy(net), LayerwiseMagnitude(where if where is not None else tuple(ratios)))
    pruned.relaxations[0].prune_layers(pruned.weights(), ratios)
    return pruned.harden()
