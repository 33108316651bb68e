"""Does a re-executed figure agree with the book? Each point that several seeds repeat has a stated interval.

A trained figure depends on the machine's arithmetic, so no two machines print the same digits. The interval is the mean
over the book's own seeds, four standard deviations (of at least one point of accuracy) to either side: a figure outside
is not chance but a change. ``python -m lab intervals`` writes ``data/intervals.json`` from the runs of a profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

from lab.utils.errors import LabError
from lab.utils.files import ROOT, write_json

from . import Record, declaration

FILE = ROOT / "data" / "intervals.json"
WIDTH, LEAST = 4.0, 0.01


def points(records: Iterable[Record]) -> dict[str, list[float]]:
    """Scores over seeds, by point (``pruning/quick/cs s_init=-0.05``).

    What tells an experiment's points apart is its ``point``, names of options of the method; what is compared its
    ``score``.
    """
    scores: dict[str, list[float]] = {}
    for record in records:
        method: dict[str, Any] = record["config"]["method"]
        experiment = declaration(record["experiment"])
        options = [f"{k}={method[k]}" for k in experiment.point if k in method]
        name = " ".join([f"{record['experiment']}/{record['profile']}/{method['name']}", *options])
        scores.setdefault(name, []).append(record["figures"][experiment.score])
    return scores


def repeated(records: Iterable[Record]) -> dict[str, list[float]]:
    """Those of :func:`points` that several seeds repeat."""
    return {name: values for name, values in points(records).items() if len(values) > 1}


def state(records: Iterable[Record]) -> dict[str, Any]:
    """Write the intervals of these records' points, keeping those of other points; return the new ones."""
    new = {}
    for name, values in repeated(records).items():
        half = WIDTH * max(stdev(values), LEAST)
        low, high = max(0.0, mean(values) - half), min(1.0, mean(values) + half)
        new[name] = {"low": round(low, 3), "high": round(high, 3), "seeds": len(values)}
    if not new:
        raise LabError("no point of these runs is repeated over seeds: record more seeds first")
    write_json(FILE, dict(sorted((_stated() | new).items())))
    return new


def check(records: Iterable[Record]) -> bool:
    """Print, for each repeated point, whether its mean accuracy lies in the stated interval; True if all do.

    What is printed is the same on every machine as long as the book holds, so that a test can compare it.
    """
    stated, agree = _stated(), True
    for name, values in repeated(records).items():
        if name not in stated:
            print(f"{name}: no interval stated yet")
            continue
        low, high = stated[name]["low"], stated[name]["high"]
        inside = low <= mean(values) <= high
        agree &= inside
        verdict = "inside" if inside else f"OUTSIDE ({mean(values):.3f})"
        print(f"{name}: {verdict} [{low:.3f}, {high:.3f}]")
    return agree


def _stated() -> dict[str, Any]:
    try:
        return dict(json.loads(FILE.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as e:
        raise LabError(f"{FILE} is damaged ({e}): restore it from version control") from e
