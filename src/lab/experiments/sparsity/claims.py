"""One-shot pruning (``lab.experiments.sparsity.pruning``): Table 4.1, column ResNet-20, and what Section 4.4.1 makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, stdev

from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured
from lab.runs import Record, Run

from . import pruning

COLUMN = "ResNet-20"
ROWS = {"MP": "mp", "GMP": "gmp", "CS": "cs"}
# Between the declared sparsities next to the thesis's (80, 86, 90 %) lie four to six points: half a step
TOLERANCE, REASON = 2.0, "about half the distance between the sparsities that are tried"


def claims() -> list[Claim]:
    """Each method's cell, each pair's order, and the 60 % of the text."""
    cells = [
        Claim(
            "pruning", partial(sparsest, method), _needs(method), "4.1", row, COLUMN, tolerance=TOLERANCE, reason=REASON
        )
        for row, method in ROWS.items()
    ]
    orders = [
        Claim("pruning", partial(margin, ROWS[a], ROWS[b]), _needs(ROWS[a], ROWS[b]), "4.1", a, COLUMN, versus=b)
        for a, b in (("CS", "GMP"), ("CS", "MP"), ("GMP", "MP"))
    ]
    fewer = Claim(
        "pruning", fewer_kept, _needs("cs", "gmp"), fact="cs-vs-gmp-resnet20",
        tolerance=14.0, reason="what two points of sparsity are to the 14 % that GMP keeps",
    )  # fmt: skip
    return [*cells, *orders, fewer]


def _needs(*methods: str) -> Callable[[str], Sequence[Run]]:
    """One seed of each method's whole curve, and the dense network."""

    def needs(profile: str) -> list[Run]:
        return [r for r in pruning.runs(profile, seeds=(0,)) if r.config["method"]["name"] in ("dense", *methods)]

    return needs


def sparsest(method: str, records: Sequence[Record]) -> Measured | str:
    """Sparsity (%) of the sparsest point whose mean accuracy is within 2 points of the dense network's at that profile."""
    dense = [r for r in records if r["config"]["method"]["name"] == "dense"]
    if not dense:
        return "the dense network that it is compared with is not recorded"
    allowed = thesis.fact("table-4-1-tolerance").value
    assert isinstance(allowed, float)
    base = mean(r["figures"]["accuracy"] for r in dense)
    points: dict[str, list[Record]] = {}
    for record in records:
        if record["config"]["method"]["name"] == method:
            points.setdefault(json.dumps(record["config"], sort_keys=True), []).append(record)
    if not points:
        return f"no run of {method.upper()} is recorded"
    accurate = [p for p in points.values() if mean(r["figures"]["accuracy"] for r in p) >= base - allowed / 100]
    if not accurate:
        return f"none of the {len(points)} recorded points of {method.upper()} is within {allowed:g} points of dense accuracy"
    best = max(accurate, key=lambda p: mean(r["figures"]["sparsity"] for r in p))
    shares = [100 * r["figures"]["sparsity"] for r in best]
    accuracy = mean(r["figures"]["accuracy"] for r in best)
    return Measured(
        mean(shares),
        stdev(shares) if len(shares) > 1 else None,
        len(shares),
        tuple(r["id"] for r in best),
        tuple(r["id"] for r in dense),
        f"accuracy {accuracy:.2%}, dense {base:.2%}; of {len(points)} recorded points {len(accurate)} within "
        f"{allowed:g} points of dense accuracy, this one the sparsest",
    )


def margin(method: str, other: str, records: Sequence[Record]) -> Measured | str:
    """How many points of sparsity ``method`` is ahead of ``other``."""
    return _both(method, other, records, lambda a, b: a - b)


def fewer_kept(records: Sequence[Record]) -> Measured | str:
    """How many percent fewer weights CS keeps than GMP."""
    return _both("cs", "gmp", records, lambda cs, gmp: 100 * (1 - (100 - cs) / (100 - gmp)))


def _both(
    method: str, other: str, records: Sequence[Record], combine: Callable[[float, float], float]
) -> Measured | str:
    a, b = sparsest(method, records), sparsest(other, records)
    if isinstance(a, str) or isinstance(b, str):
        return a if isinstance(a, str) else str(b)
    note = f"{method.upper()} {a.value:.1f} %, {other.upper()} {b.value:.1f} %"
    return Measured(combine(a.value, b.value), None, min(a.n, b.n), a.runs, b.runs, note)
