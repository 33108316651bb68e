"""Does a re-executed figure agree with the book? Each point that several seeds repeat has a stated interval.

A trained figure depends on the machine's arithmetic, so no two machines print the same digits. The interval is the mean
over the book's own seeds, four standard deviations (at least :data:`LEAST` of the score's scale) to either side, cut to
the values that the score can have: a figure outside is not chance but a change. An interval that leaves out less than
half of a bounded score's range checks nothing and is not stated.
``python -m lab intervals`` writes ``data/intervals.json`` from the runs of a profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import inf
from statistics import mean, stdev
from typing import Any

from lab.utils.errors import LabError
from lab.utils.files import ROOT, write_json

from . import Record, declaration

FILE = ROOT / "data" / "intervals.json"
WIDTH, LEAST = 4.0, 0.01
RANGES = {"accuracy": (0.0, 1.0), "f1": (0.0, 1.0), "bleu": (0.0, 100.0), "fd": (0.0, inf)}
"""Of each score that an experiment may have: its least and largest value."""


def points(records: Iterable[Record]) -> dict[str, list[float]]:
    """Scores over seeds, by point (``pruning/quick/cs s_init=-0.05``).

    An experiment's ``point`` names the options of the method that tell points apart; what is compared is its ``score``.
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


def interval(values: list[float], score: str) -> dict[str, Any] | None:
    """The interval of a point that several seeds repeat, or None if it would check nothing.

    Args:
        values: the score of each seed, two at least.
        score: its name, one of :data:`RANGES`.
    """
    least, largest = RANGES[score]
    scale = largest if largest < inf else mean(values)
    half = WIDTH * max(stdev(values), LEAST * scale)
    low, high = max(least, mean(values) - half), min(largest, mean(values) + half)
    too_wide = high - low > (largest - least) / 2 if largest < inf else low <= least
    return None if too_wide else {"low": round(low, 3), "high": round(high, 3), "seeds": len(values)}


def state(records: Iterable[Record]) -> dict[str, Any]:
    """Write the intervals of these records' points, keeping those of other points; return the new ones."""
    points_repeated = repeated(records)
    if not points_repeated:
        raise LabError("no point of these runs is repeated over seeds: record more seeds first")
    new = {
        name: interval(values, declaration(name.partition("/")[0]).score) for name, values in points_repeated.items()
    }
    kept = {name: stated for name, stated in (_stated() | new).items() if stated is not None}
    write_json(FILE, dict(sorted(kept.items())))
    return {name: stated for name, stated in new.items() if stated is not None}


def check(records: Iterable[Record]) -> bool:
    """Print, for each repeated point, whether its mean accuracy lies in the stated interval; True if all do.

    What is printed is the same on every machine as long as the book holds, so that a test can compare it.
    """
    stated, agree = _stated(), True
    for name, values in repeated(records).items():
        if name not in stated:
            print(f"{name}: no interval stated")
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
