"""Folding (3.2.4): similar layers become one layer that is executed again, and a feed-forward network
a recurrent one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn

from .relax import Relaxed
from .reweighted import Reweighted, Weights, owned_parameters
from .sharing import SoftSharing, group_layers, groupings, layer_similarity, reparameterize


class Step(NamedTuple):
    """One execution of a layer."""

    name: str
    """The weight whose place in the network this is, as ``named_parameters`` of the unfolded network has it."""
    layer: str
    """The weight that is executed here: that of the layer's first execution."""
    ratio: float
    """What the weight is multiplied by; a negative ratio negates, 1 is the layer as it is."""
    group: str | None
    """The sharing group it came from; None for a layer that never shared."""


class Loop(NamedTuple):
    """Consecutive repetitions: the ``length`` steps from ``start`` on are executed ``times`` times over."""

    start: int
    length: int
    times: int


@dataclass(frozen=True)
class Program:
    """In which order a folded network executes its layers.

    ``steps`` are all executions of weights with two or more dimensions, in the order in which the network registers its
    modules (for a chain of layers, the order of execution).
    """

    steps: tuple[Step, ...]

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The distinct layers, in order of their first execution."""
        return tuple(dict.fromkeys(step.layer for step in self.steps))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """For each step the index of its layer in :attr:`layers`: 0 1 2 1 2 3 is a loop of two layers."""
        index = {layer: i for i, layer in enumerate(self.layers)}
        return tuple(index[step.layer] for step in self.steps)

    @cached_property
    def jumps(self) -> tuple[tuple[int, int, int], ...]:
        """The backward connections, first taken first: ``(step, from, to)``, layers by index.

        Before ``step`` the output of layer ``from`` goes back to layer ``to``, the same or an earlier one. These are
        the coloured paths of Figure 3.6.
        """
        order = self.order
        return tuple((i, order[i - 1], order[i]) for i in range(1, len(order)) if order[i] <= order[i - 1])

    @cached_property
    def loops(self) -> tuple[Loop, ...]:
        """The loops, in order, none overlapping: at each step the one that covers most, then the shortest body."""
        order, loops, at = self.order, [], 0
        while at < len(order):
            best = Loop(at, 1, 1)
            for length in range(1, (len(order) - at) // 2 + 1):
                body, times = order[at : at + length], 1
                while order[at + times * length : at + (times + 1) * length] == body:
                    times += 1
                if times > 1 and times * length > best.times * best.length:
                    best = Loop(at, length, times)
            if best.times > 1:
                loops.append(best)
            at += best.length * best.times
        return tuple(loops)

    def __str__(self) -> str:
        words, at = [], 0
        starts = {loop.start: loop for loop in self.loops}
        while at < len(self.order):
            loop = starts.get(at, Loop(at, 1, 1))
            body = " ".join(str(i) for i in self.order[at : at + loop.length])
            words.append(f"({body})x{loop.times}" if loop.times > 1 else body)
            at += loop.length * loop.times
        return " ".join(words)


class Folded(Reweighted):
    """A network that holds each distinct layer once and executes it where ``program`` says, with its own normalisation.

    Args:
        net: a plain network; its repeated weights are dropped. All else, a bias among it, stays each execution's own.
        program: which weight each place executes, and with which ratio.

    No trace of templates or coefficients is left. Train it on, compile it, relax it again (a mask on a layer masks
    every execution); ``state_dict`` has each layer once. To load one, make ``Folded(net, program)`` and load into it.
    """

    def __init__(self, net: nn.Module, program: Program) -> None:
        super().__init__(net)
        self.program = program
        self.training = net.training
        self._again: list[tuple[list[str], str, float]] = []  # places to feed, whose weight, ratio
        layer_of = {place: name for name, each in self._places.items() for place in each}
        for step in program.steps:
            if step.name == step.layer and step.ratio == 1:
                continue
            names = self._places[layer_of[step.name]]
            self._again.append((names, step.layer, step.ratio))
        for names, layer, _ in self._again:
            if layer not in names:
                self._drop(names[0])

    def _feed(self) -> Weights:
        weights: Weights = {}
        for names, layer, ratio in self._again:
            weight = self._parameter(layer)
            # conv(x; r W) = r conv(x; W) = conv(r x; W): scaling the small weight is the cheapest of the three
            weights |= dict.fromkeys(names, weight if ratio == 1 else ratio * weight)
        return weights


def fold(
    relaxed: Relaxed,
    threshold: float | Mapping[str, float] | None = None,
    *,
    parameters: int | None = None,
    error: float | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
) -> Folded:
    """Fold a network that was trained with :class:`SoftSharing`. Give one of ``threshold``, ``parameters``, ``error``.

    Args:
        relaxed: the trained network; it is left as it is.
        threshold: layers join where all their similarities (3.13) reach it, 0 to 1; see :func:`group_layers`. A dict
            folds the groups that it names and leaves the others as they are.
        parameters: fold as little as brings the network to this many parameters, the most similar layers first.
        error: fold as far as ``evaluate(folded)`` stays at or below this. Merges are tried one by one, the most similar
            layers first; where one costs too much, its group stays as it is and the other groups go on.
        evaluate: the error of a network, in the unit of ``error``; called once a merge, at most sum of (L - 1) times.

    Layers join with sign and scale (:func:`reparameterize`), so layers of equal direction fold without loss.

    Raises:
        ValueError: not a trained network with sharing (hardened, folded, untrained), a threshold outside [0, 1], a
            target that no fold reaches, or a relaxation after sharing on the same weights (fold first, then mask).
    """
    sharing = _trained_sharing(relaxed)
    if sum(target is not None for target in (threshold, parameters, error)) != 1:
        raise ValueError("fold takes one of threshold, parameters and error; for instance fold(net, 0.9)")
    similarity = {group: layer_similarity(alpha.detach().double()) for group, alpha in sharing.alpha.items()}
    chosen = {group: list(range(len(s))) for group, s in similarity.items()}
    if threshold is not None:
        at = threshold if isinstance(threshold, Mapping) else dict.fromkeys(similarity, threshold)
        if unknown := set(at) - set(similarity):
            raise ValueError(f"threshold: there is no group {sorted(unknown)[0]!r}; there are {', '.join(similarity)}")
        chosen |= {group: group_layers(similarity[group], value) for group, value in at.items()}
        return _fold(relaxed, sharing, chosen)

    merges = [(level, group, g) for group, s in similarity.items() for level, g in groupings(s)[1:]]
    merges.sort(key=lambda merge: -merge[0])  # stable: a group's own merges stay in order
    if parameters is not None:
        return _fold(relaxed, sharing, _within(parameters, relaxed, sharing, chosen, merges))
    if error is None or evaluate is None:
        raise ValueError("fold(net, error=...) needs evaluate=, a function from a network to its error")
    best = _fold(relaxed, sharing, chosen)
    if (start := evaluate(best)) > error:
        raise ValueError(f"no fold has an error of {error} or less: unfolded, the network's is {start}")
    stopped: set[str] = set()
    for _, group, groups in merges:
        if group not in stopped:
            tried = _fold(relaxed, sharing, chosen | {group: groups})
            if evaluate(tried) <= error:
                best, chosen = tried, chosen | {group: groups}
            else:
                stopped.add(group)
    return best


Grouping = dict[str, list[int]]


def _within(
    limit: int, relaxed: Relaxed, sharing: SoftSharing, chosen: Grouping, merges: list[tuple[float, str, list[int]]]
) -> Grouping:
    shared = {group: templates[0].numel() for group, templates in sharing.templates.items()}
    count = sum(p.numel() for p in relaxed.net.parameters())
    count += sum(shared[group] * len(names) for group, names in sharing.groups.items())
    for _, group, groups in merges:
        if count <= limit:
            break
        chosen = chosen | {group: groups}
        count -= shared[group]  # a merge saves one layer
    if count > limit:
        raise ValueError(f"no fold has {limit:,} parameters or fewer: with one layer a group {count:,} are left")
    return chosen


def _trained_sharing(relaxed: object) -> SoftSharing:
    kind = type(relaxed).__name__
    if isinstance(relaxed, Folded):
        raise ValueError("this network is folded already; fold the relaxed one again with another threshold")
    sharings = [r for r in relaxed.relaxations if isinstance(r, SoftSharing)] if isinstance(relaxed, Relaxed) else []
    if not isinstance(relaxed, Relaxed) or not sharings:
        raise ValueError(f"{kind} has no coefficients to fold by: fold Relaxed(net, SoftSharing(...)), before harden()")
    if len(sharings) > 1:
        raise ValueError("fold takes a network with one SoftSharing: give it all groups, SoftSharing(groups={...})")
    sharing = sharings[0]
    for other in relaxed.relaxations:
        if other is not sharing and set(other.names) & set(sharing.names):  # type: ignore[arg-type]
            raise ValueError(
                f"{type(other).__name__} acts on shared weights, which makes similar layers differ: "
                f"fold first, then Relaxed(folded, {type(other).__name__}(...))"
            )
    if any(alpha.is_meta for alpha in sharing.alpha.values()):
        raise ValueError("a network on the meta device has no coefficients to fold by: build it on a device")
    if not sharing.trained():
        raise ValueError("this network was not trained: its coefficients are those it started with; train, then fold")
    return sharing


def _fold(relaxed: Relaxed, sharing: SoftSharing, chosen: Grouping) -> Folded:
    net = relaxed.harden()
    names_in_order = [name for name, _, p in owned_parameters(net) if p.ndim > 1]
    place: dict[str, Step] = {}
    for group, names in sharing.groups.items():
        groups = chosen[group]
        ratios, weights = reparameterize(sharing.alpha[group], sharing.templates[group], groups)
        for number, weight in enumerate(weights):
            members = [layer for layer, g in enumerate(groups) if g == number]
            host = min((names[layer] for layer in members), key=names_in_order.index)
            if len(members) > 1:  # a layer on its own keeps its weight to the bit
                with torch.no_grad():
                    net.get_parameter(host).copy_(weight)
            for layer in members:
                ratio = float(ratios[layer, number]) if len(members) > 1 else 1.0
                place[names[layer]] = Step(names[layer], host, ratio, group)
    steps = (place.get(name, Step(name, name, 1.0, None)) for name in names_in_order)
    return Folded(net, Program(tuple(steps)))
