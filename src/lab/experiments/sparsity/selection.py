"""Which subnetwork counts (4.3.4), how sparse it is, and how many epochs it took.

A method gives points: a sparsity and the accuracy reached with it. Three rules pick one of them, a fourth pairs the
points of two methods. Sparsity has two meanings before a mask is hardened, and epochs are counted in two ways; both are
stated, because papers differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import log
from statistics import mean
from typing import Any

import torch
from torch import nn

from lab.datasets import CLASSES
from principled import Relaxed

CLOSE = 1.25
"""By what factor the weights kept may differ in two points that are compared at all."""


@dataclass(frozen=True)
class Point:
    """A subnetwork: shares in [0, 1].

    Attributes:
        sparsity: of the hardened mask.
        accuracy: on the test set, after fine-tuning or re-training.
        round: of a ticket search, counted from 1.
        key: what its repetitions with other seeds have in common: the method's options and their ``repr``.
        runs: ids of the runs behind it.
        exact: share of weights that were 0 before the mask was hardened; None where it was not measured.
        seeds: of a mean over seeds (:func:`over_seeds`), the points behind it.
        chance: accuracy of guessing.
    """

    sparsity: float
    accuracy: float
    round: int = 1
    key: Hashable = ""
    runs: tuple[str, ...] = ()
    exact: float | None = None
    seeds: tuple[Point, ...] = ()
    chance: float = 0.0

    @property
    def fault(self) -> str:
        """Why it is no point of a method's curve: ``"prunes nothing"``, ``"at chance"``, or ``""`` if it is one.

        Less than a thousandth of zeros is nothing; no more than a fifth above guessing is chance, on a thousand test
        images.
        """
        if self.sparsity < 0.001:
            return "prunes nothing"
        return "at chance" if self.accuracy <= 1.2 * self.chance else ""

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of each seed behind a mean over seeds."""
        return [point.accuracy for point in self.seeds]


def sparsest_matching(points: Iterable[Point], dense: float) -> Point | None:
    """The sparsest of those no worse than the dense network's accuracy; None if none is (4.3.4, Table 4.2)."""
    return sparsest_within(points, dense, 0.0)


def best_performing(points: Iterable[Point]) -> Point | None:
    """The most accurate one; of equals the sparser. None if there is none (4.3.4, Table 4.2)."""
    return max(points, key=lambda p: (p.accuracy, p.sparsity), default=None)


def sparsest_within(points: Iterable[Point], dense: float, loss: float = 0.02) -> Point | None:
    """The sparsest of those at most ``loss`` below the dense network's accuracy; None if none is (Table 4.1: 0.02).

    Of equally sparse ones the more accurate.
    """
    allowed = [p for p in points if p.accuracy >= dense - loss - 1e-9]  # 1e-9: what rounding adds to a subtraction
    return max(allowed, key=lambda p: (p.sparsity, p.accuracy), default=None)


def matched_pairs(a: Sequence[Point], b: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Points of two curves that may be compared, by one rule for both sides: each is the other's nearest, and the
    weights that they keep differ by a factor of :data:`CLOSE` at most. In the order of ``a``."""

    def far(p: Point, q: Point) -> float:
        return abs(log(max(1 - p.sparsity, 1e-9) / max(1 - q.sparsity, 1e-9)))

    pairs = []
    for p in a:
        q = min(b, key=lambda q: far(p, q), default=None)
        if q is not None and far(p, q) <= log(CLOSE) and min(a, key=lambda p: far(p, q)) is p:
            pairs.append((p, q))
    return pairs


def over_seeds(points: Iterable[Point]) -> list[Point]:
    """One point for all that share key and round, the means over them, in the order of first appearance."""
    groups: dict[Hashable, list[Point]] = {}
    for point in points:
        groups.setdefault((point.key, point.round), []).append(point)
    return [
        replace(
            same[0],
            sparsity=mean(p.sparsity for p in same),
            accuracy=mean(p.accuracy for p in same),
            exact=_known_mean(p.exact for p in same),
            runs=tuple(run for p in same for run in p.runs),
            seeds=tuple(same),
        )
        for same in groups.values()
    ]


def _known_mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def points(record: dict[str, Any]) -> list[Point]:
    """The points of a record: a ticket a round (figures ``accuracy.round1`` ...), else its last network."""
    figures, method = record["figures"], record["config"]["method"]
    key = tuple(sorted((k, repr(v)) for k, v in method.items()))
    chance = 1 / CLASSES[record["config"]["data"]]
    rounds = sorted(int(k.removeprefix("accuracy.round")) for k in figures if k.startswith("accuracy.round"))

    def point(round: int, suffix: str) -> Point:
        exact = figures.get(f"exact{suffix}")
        sparsity, accuracy = figures[f"sparsity{suffix}"], figures[f"accuracy{suffix}"]
        return Point(sparsity, accuracy, round, key, (record["id"],), exact, chance=chance)

    return [point(r, f".round{r}") for r in rounds] or [point(1, "")]


@dataclass(frozen=True)
class Epochs:
    """What a search costs in epochs of training: one run after the other, and all runs side by side (4.4.2)."""

    sequential: int
    parallel: int


def search_epochs(runs: Sequence[int]) -> Epochs:
    """From the epochs of each run: rounds of one run follow each other, runs do not wait for each other.

    Re-training tickets is not counted, as in the thesis: 11 runs of CS of 5 rounds of 85 epochs are 4,675 and 425.
    """
    if not runs:
        raise ValueError("no run to count epochs of")
    return Epochs(sum(runs), max(runs))


@dataclass(frozen=True)
class Sparsities:
    """Two shares of the masked weights: zeros that the arithmetic has made already, and zeros of the hardened mask.

    A soft mask ends close to 0, and is 0 exactly only where the number underflows: the thesis prunes what is negative.
    """

    exact: float
    hardened: float


@torch.no_grad()
def sparsities(net: Relaxed) -> Sparsities:
    """Both sparsities of a relaxed network, as it is now, over all weights that its relaxations act on."""
    names = list(dict.fromkeys(n for r in net.relaxations for n in r.names if net.net.get_parameter(n).ndim > 1))
    soft, hard = net.weights(), net.harden()
    return Sparsities(_share([soft[n] for n in names]), _share([hard.get_parameter(n) for n in names]))


def layer_zeros(net: nn.Module, names: Iterable[str]) -> dict[str, float]:
    """Share of exact zeros of each named weight of a plain network, by layer."""
    return {name.removesuffix(".weight"): _share([net.get_parameter(name)]) for name in names}


def zeros(net: nn.Module, names: Iterable[str]) -> float:
    """Share of exact zeros among all named weights of a plain network."""
    return _share([net.get_parameter(name) for name in names])


def _share(tensors: Sequence[torch.Tensor]) -> float:
    return sum(int((t == 0).sum()) for t in tensors) / sum(t.numel() for t in tensors)
