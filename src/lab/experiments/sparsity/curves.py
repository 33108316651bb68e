"""What Chapter 4's tables and figures have in common: the points of a method's curve, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes

from lab import figures
from lab.datasets import thesis
from lab.figures.frontier.state import METHODS
from lab.runs import Record
from lab.statistics import Comparison

from .selection import Point, over_seeds, points

DENSE = ("dense", "control")
DOTS = figures.BOOK | {"markeredgewidth": 0}
COLOURS = {shown.name: figures.PALETTE[shown.colour][0] for shown in METHODS.values()}


def unique(records: Iterable[Record]) -> list[Record]:
    """The finished records, each once."""
    return list({r["id"]: r for r in records if r["state"] == "finished"}.values())


def of_method(records: Iterable[Record], key: str, experiment: str | None = None) -> list[Record]:
    """The records of a method, and of an experiment."""
    return [r for r in records if r["config"]["method"]["name"] == key and experiment in (None, r["experiment"])]


def by_network(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    """The records of each network, in the order of first appearance."""
    groups: dict[str, list[Record]] = {}
    for r in records:
        groups.setdefault(r["config"]["model"], []).append(r)
    return list(groups.items())


def accuracies(records: Iterable[Record], key: str) -> list[float]:
    """The accuracy of each record of a method."""
    return [r["figures"]["accuracy"] for r in of_method(records, key)]


def curve(records: Iterable[Record], key: str) -> list[Point]:
    """A method's points, seeds averaged, the densest first; without what prunes nothing or is at chance."""
    averaged = over_seeds(p for r in of_method(records, key) for p in points(r))
    return sorted((p for p in averaged if key == "dense" or not p.fault), key=lambda p: p.sparsity)


def percent(key: str, point: Point, seed: Point | None = None) -> dict[str, Any]:
    """A row of a figure's data; a seed stands at the mean sparsity of its point."""
    return {"method": METHODS[key].name, "zeros": 100 * point.sparsity, "accuracy": 100 * (seed or point).accuracy}


def dense_line(ax: Axes, records: Iterable[Record], key: str = "dense") -> None:
    """A dotted line at the dense network's mean accuracy."""
    ax.axhline(100 * mean(accuracies(records, key)), color=figures.DENSE, linestyle=":", label=METHODS[key].name)


def allowance() -> float:
    """How far below the dense network a point of Table 4.1 may lie, as a share."""
    allowed = thesis.fact("table-4-1-tolerance").value
    assert isinstance(allowed, float)
    return allowed / 100


def setting(point: Point) -> str:
    """The option that sets a point's zeros, in words."""
    method = dict(point.key)
    if "target" in method:
        return f"sparsity = {float(method['target']):.0%}"
    for option in ("decay", "s_init", "lambda"):
        if option in method:
            return f"{option} = {float(method[option]):g}"
    return "–"


def spread(values: Sequence[float]) -> str:
    """A mean, with its standard deviation where there are several values."""
    return f"{mean(values):.1%}" if len(values) == 1 else f"{100 * mean(values):.1f} ± {stdev(values):.1%}"


def verdict(comparison: Comparison) -> str:
    """What a comparison of CS with a rival says of CS."""
    return f"CS {comparison.verdict}" if comparison.verdict in ("higher", "lower") else comparison.verdict
