"""Every sparsification method of Chapter 4 in one table: what it decides by, and what its runs gave (``pruning``, ``methods``, ``tickets``,
``supermasks``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import pandas as pd

from lab.datasets import thesis
from lab.runs import Record

from .selection import Point, best_performing, over_seeds, points, sparsest_within

RESNET, CONV = ("resnet20", "resnet8"), ("conv6", "conv6-quarter")
"""Networks of a row, with what ``quick`` can afford in their place."""


@dataclass(frozen=True)
class Method:
    """A row: how the method is called, where its runs are, and in words what distinguishes it.

    ``round`` picks one round of a search (Stochastic Sparsification is the first round of its iterative form).
    """

    name: str
    experiment: str
    key: str
    networks: tuple[str, ...]
    decides: str
    variables: str
    round: int | None = None


METHODS = (
    Method("CS, Algorithm 1", "pruning", "cs", RESNET, "the sign of a trained s", "one a weight"),
    Method("MP", "pruning", "mp", RESNET, "magnitude, once", "none"),
    Method("GMP", "pruning", "gmp", RESNET, "magnitude, bit by bit", "none"),
    Method("ℓ₀, masks drawn", "methods", "l0", RESNET, "the best of some random masks", "one a weight"),
    Method("Network Slimming", "methods", "netslim", RESNET, "size of a trained factor", "one a weight"),
    Method("AMC", "methods", "amc", RESNET, "magnitude, an agent's rates", "an agent's"),
    Method("STR", "methods", "str", RESNET, "a trained threshold", "one a layer"),
    Method("DNW", "methods", "dnw", RESNET, "magnitude, at every step anew", "none"),
    Method("CS, whole filters", "methods", "cs-filters", RESNET, "the sign of a trained s", "one a filter"),
    Method("CS, Algorithm 2", "tickets", "cs", RESNET, "the sign of s, in rounds", "one a weight"),
    Method("Sequential CS", "tickets", "seq-cs", RESNET, "the lowest s, in rounds", "one a weight"),
    Method("IMP, Algorithm 3", "tickets", "imp", RESNET, "magnitude, rounds, rewinding", "none"),
    Method("IMP-C", "tickets", "imp-c", RESNET, "magnitude, in rounds", "none"),
    Method("SS", "tickets", "iss", CONV, "chance σ(s)", "one a weight", 1),
    Method("ISS, Algorithm 4", "tickets", "iss", CONV, "chance σ(s), in rounds", "one a weight"),
    Method("supermask, CS", "supermasks", "supermask", CONV, "the sign of s; weights frozen", "one a weight"),
    Method("supermask, SS", "supermasks", "ss", CONV, "chance σ(s); weights frozen", "one a weight"),
)


def table(made: Iterable[Record], recorded: Iterable[Record] = ()) -> pd.DataFrame:
    """A row a method: its most repeated point, of those its sparsest within the thesis's allowance of dense, else its most accurate.

    Args:
        made: runs of one profile, the page's; a method without one has no row.
        recorded: runs of profile ``short``, which fill the last column (empty: none is recorded).
    """
    found, others = _unique(made), _unique(r for r in recorded if r["profile"] == "short")
    rows = []
    for method in METHODS:
        mine = _of(found, method)
        if not mine:
            continue
        base = _dense(found, method, mine[0])
        point, repeated = _chosen(mine, method, base)
        rows.append(
            {
                "network": mine[0]["config"]["model"],
                "method": method.name,
                "decides by": method.decides,
                "extra variables": method.variables,
                "exact zeros": _exact(repeated, point),
                "hardened": f"{point.sparsity:.1%}",
                "accuracy": _spread([p.accuracy for r in repeated for p in points(r) if p.round == point.round]),
                "n": len(repeated),
                "dense": _spread(base) if base else _untrained(repeated),
                "epochs": _epochs(mine[0], point),
                "at short": _short(others, method),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Contest:
    """CS against one rival's point: the most accurate of CS's points that are no denser, and the difference.

    ``noise`` is the standard error of ``gap``, from the seeds of both; None where one has a single seed. ``ours`` is None if no
    point of CS is so sparse.
    """

    rival: Point
    n_rival: int
    ours: Point | None
    n_ours: int
    gap: float
    noise: float | None

    @property
    def word(self) -> str:
        """``above``, ``below``, ``level`` (within twice the noise), or ``nothing so sparse``."""
        if self.ours is None:
            return "nothing so sparse"
        if abs(self.gap) <= 2 * (self.noise or 0.0):
            return "level"
        return "above" if self.gap > 0 else "below"


def contests(ours: Sequence[Record], rivals: Sequence[Record], floor: float = 0.8) -> list[Contest]:
    """CS against each point of ``rivals`` with a sparsity of ``floor`` or more, seeds averaged."""
    cs = [p for r in ours for p in points(r)]
    found = []
    for rival in over_seeds(p for r in rivals for p in points(r)):
        if rival.sparsity < floor:
            continue
        theirs = _accuracies(rivals, rival)
        # half a point: what a wanted sparsity and one that was reached may differ by
        best = best_performing(p for p in over_seeds(cs) if p.sparsity >= rival.sparsity - 0.005)
        mine = _accuracies(ours, best) if best else []
        noise = None
        if len(mine) > 1 and len(theirs) > 1:
            noise = (stdev(mine) ** 2 / len(mine) + stdev(theirs) ** 2 / len(theirs)) ** 0.5
        gap = best.accuracy - rival.accuracy if best else float("nan")
        found.append(Contest(rival, len(theirs), best, len(mine), gap, noise))
    return sorted(found, key=lambda contest: contest.rival.sparsity)


def layer_table(made: Iterable[Record], keys: Sequence[str], least: float = 0.0) -> pd.DataFrame:
    """Share of zeros of each layer (rows, in the network's order), a column a method: its most repeated point of ``least`` sparsity or more."""
    columns: dict[str, dict[str, float]] = {}
    found = _unique(made)
    for key in keys:
        mine = [r for r in found if r["config"]["method"]["name"] == key and r["figures"]["sparsity"] >= least]
        if mine:
            groups = _groups(mine)
            same = max(groups, key=lambda group: (len(group), group[0]["figures"]["sparsity"]))
            names = [n for n in same[0]["figures"] if n.startswith("sparsity.") and not n.startswith("sparsity.round")]
            columns[key] = {n.removeprefix("sparsity."): mean(r["figures"][n] for r in same) for n in names}
    return pd.DataFrame(columns)


def _unique(found: Iterable[Record]) -> list[Record]:
    return list({r["id"]: r for r in found if r["state"] == "finished"}.values())


def _of(found: Sequence[Record], method: Method) -> list[Record]:
    return [
        r
        for r in found
        if (r["experiment"], r["config"]["method"]["name"]) == (method.experiment, method.key)
        and r["config"]["model"] in method.networks
    ]


def _groups(found: Sequence[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in found:
        groups.setdefault(repr(sorted(record["config"]["method"].items())), []).append(record)
    return list(groups.values())


def _dense(found: Sequence[Record], method: Method, like: Record) -> list[float]:
    """Accuracies of the dense network under the same protocol; methods shares pruning's, which has more seeds."""
    sources = ("pruning", "methods") if method.experiment in ("pruning", "methods") else (method.experiment,)
    for source in sources:
        same = [
            r["figures"]["accuracy"]
            for r in found
            if (r["experiment"], r["config"]["method"]["name"]) == (source, "dense")
            and r["config"]["model"] == like["config"]["model"]
            and r["profile"] == like["profile"]
        ]
        if same:
            return same
    return []


def _chosen(mine: Sequence[Record], method: Method, base: Sequence[float]) -> tuple[Point, list[Record]]:
    groups = _groups(mine)
    most = max(len(group) for group in groups)
    repeated = [r for group in groups if len(group) == most for r in group]
    tried = over_seeds(p for r in repeated for p in points(r) if method.round in (None, p.round))
    best = sparsest_within(tried, mean(base), _allowed()) if base else None
    best = best or best_performing(tried)
    assert best is not None
    return best, [r for r in repeated if r["id"] in best.runs]


def _allowed() -> float:
    allowed = thesis.fact("table-4-1-tolerance").value
    assert isinstance(allowed, float)
    return allowed / 100


def _accuracies(found: Sequence[Record], point: Point) -> list[float]:
    return [p.accuracy for r in found if r["id"] in point.runs for p in points(r) if p.round == point.round]


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1%}" if len(values) == 1 else f"{100 * mean(values):.1f} ± {stdev(values):.1%}"


def _exact(repeated: Sequence[Record], point: Point) -> str:
    """Zeros that the arithmetic had made before the mask was hardened; without a mask in training there are none."""
    figures = [r["figures"] for r in repeated]
    shares = [f.get(f"exact.round{point.round}", f.get("exact", 0.0)) for f in figures]
    return f"{mean(shares):.1%}"


def _untrained(repeated: Sequence[Record]) -> str:
    return f"untrained {mean(r['figures']['accuracy_random'] for r in repeated):.1%}"


def _epochs(record: Record, point: Point) -> int:
    """Of the whole way to the network: search and fine-tuning, or the rounds up to this one and the ticket's own training."""
    training: dict[str, Any] = record["config"]["training"]
    each = int(training["epochs"])
    if record["experiment"] == "tickets":
        return each * (point.round + 1)
    return each + int(training.get("finetune_epochs", 0))


def _short(others: Sequence[Record], method: Method) -> str:
    mine = _of(others, method)
    if not mine:
        return ""
    base = _dense(others, method, mine[0])
    point, _ = _chosen(mine, method, base)
    said = f"{point.accuracy:.1%} at {point.sparsity:.1%}"
    return said + (f"; dense {mean(base):.1%}" if base else "")
