"""What the tables and figures of Chapter 3 share: which records, numbers with their spread, how they reach the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap, to_rgba

from lab import figures
from lab.runs import Record, Run
from lab.statistics import compare

from . import images

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DOTS = figures.BOOK | {"markeredgewidth": 0}


THIRD = figures.AVAGRAD
"""Beside sharing's gold and the plain network's grey: what stays furthest from both, for every reader's eyes."""


SHADES = ListedColormap([to_rgba(figures.SHARING, share) for share in np.linspace(0, 1, 256)])
"""From nothing to full gold, on a light page and on a dark one."""


RANGE = ("pi", 100)
"""Error bands from the lowest value to the highest."""


def chosen(records: Sequence[Record], *declarations: Callable[[str], list[Run]]) -> list[Record]:
    """The records of some declarations, each once."""
    profile = records[0]["profile"]
    return images.chosen(records, {run.id: run for declared in declarations for run in declared(profile)}.values())


def spread(values: Iterable[float], form: str = ".1%") -> str:
    """``"12.3% ± 0.4%"``, mean and standard deviation; a single value stands alone."""
    known = pd.Series(values, dtype=float).dropna()
    spread = f" ± {known.std():{form}}" if len(known) > 1 else ""
    return f"{known.mean():{form}}{spread}" if len(known) else "–"


def verdict(
    name: str, values: Sequence[float], rival: str, others: Sequence[float], form: str = ".1%", comparisons: int = 1
) -> str:
    """Two groups of runs in a sentence, and what :func:`lab.statistics.compare` says of their difference."""
    scale, unit = (100, " % points") if form.endswith("%") else (1, "")
    difference = compare([scale * v for v in values], [scale * v for v in others], comparisons=comparisons)
    return (
        f"{name}: {spread(values, form)}; {rival}: {spread(others, form)}\n"
        f"  difference{' in' * bool(unit)}{unit}: {difference}"
    )


def say_together(comparisons: int) -> None:
    """How many verdicts a place gives, where it gives several: what their intervals were widened for."""
    if comparisons > 1:
        print(f"{comparisons} comparisons: the intervals are so wide that all hold together")


def show(fig: Figure, shown: Sequence[Record], alt: str) -> None:
    """A figure of these records on the page."""
    figures.show(fig, profile=shown[0]["profile"], runs=shown, alt=alt)


def table(rows: Any, shown: Sequence[Record]) -> None:
    """A table of these records on the page."""
    figures.table(pd.DataFrame(rows), profile=shown[0]["profile"], runs=shown)


def say(text: str, shown: Sequence[Record]) -> None:
    """Sentences on the page, and the mark of the records that they are about."""
    print(text)
    figures.mark(shown)
