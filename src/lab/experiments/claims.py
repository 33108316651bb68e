"""Which number of the thesis a declared experiment measures, and how: one file an experiment, ``claims() -> list[Claim]``.

They stand apart from the experiments, because a claim reads records and cannot change one: an edit here makes no
trained result stale. The page that they make is :mod:`lab.book.scoreboard`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import mean, stdev
from types import ModuleType

from lab.datasets import thesis
from lab.runs import Record, Run


@dataclass(frozen=True)
class Measured:
    """What the records give, in the claim's unit.

    ``n`` runs of ids ``runs`` with mean ``value`` and standard deviation ``spread`` (None for one run); ``against``: ids
    of the runs it is compared with; ``note``: a few words that a reader needs beside the number.
    """

    value: float
    spread: float | None
    n: int
    runs: tuple[str, ...]
    against: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One number of the thesis and how to measure it. Give ``table``, ``row`` and ``column``, or ``fact``.

    Args:
        experiment: the declaration whose runs it needs.
        measure: from that experiment's finished records, all of one profile, to a number; or to one line that says why
            there is none.
        needs: from a profile to the declared runs without which the number is not final.
        tolerance: largest difference, in the number's unit, at which it counts as reproduced.
        reason: why so much, in a few words.
        versus: another row of the table. The claim is then the *direction* of the difference to that row: reproduced if
            it has the thesis's sign, and ``tolerance`` is not used.
        at_most: the thesis says "less than": reproduced if not above, and ``tolerance`` is not used.

    What can be counted without training needs no run: ``needs`` gives none, and ``measure`` a number with no runs behind it.
    """

    experiment: str
    measure: Callable[[Sequence[Record]], Measured | str]
    needs: Callable[[str], Sequence[Run]]
    table: str = ""
    row: str = ""
    column: str = ""
    fact: str = ""
    versus: str = ""
    tolerance: float = 0.0
    reason: str = ""
    at_most: bool = False

    @property
    def chapter(self) -> int:
        """The thesis's chapter."""
        return thesis.fact(self.fact).chapter if self.fact else int(self.table.split(".")[0])

    @property
    def said(self) -> float:
        """The thesis's number: as printed, or the difference of two printed ones. LabError if it has no such number."""
        if self.fact:
            value = thesis.fact(self.fact).value
            assert isinstance(value, float), f"fact {self.fact} holds several numbers"
            return value
        value = thesis.value(self.table, self.row, self.column)
        return value - thesis.value(self.table, self.versus, self.column) if self.versus else value

    @property
    def unit(self) -> str:
        """The unit of both numbers."""
        if self.fact:
            return thesis.fact(self.fact).unit
        unit = thesis.cell(self.table, self.row, self.column).unit
        return "% points" if self.versus and unit == "%" else unit

    def agrees(self, value: float) -> bool:
        """Whether a measured value reproduces the thesis's."""
        if self.versus:
            return value * self.said > 0
        if self.at_most:
            return value <= self.said + 1e-9
        return abs(value - self.said) <= self.tolerance + 1e-9


def average(
    figure: str, wanted: Callable[[str], Sequence[Run]], scale: float = 1.0, note: str = ""
) -> Callable[[Sequence[Record]], Measured | str]:
    """A measure: the mean of ``figure`` times ``scale`` over the records of ``wanted(profile)``, one configuration's seeds."""

    def measure(found: Sequence[Record]) -> Measured | str:
        if not found:
            return "no run is recorded"
        ids = {run.id: run for run in wanted(found[0]["profile"])}
        mine = [r for r in found if r["id"] in ids and figure in r["figures"]]
        if not mine:
            return f"none of the {len(ids)} runs that it needs is recorded"
        values = [scale * r["figures"][figure] for r in mine]
        return Measured(
            mean(values),
            stdev(values) if len(values) > 1 else None,
            len(values),
            tuple(r["id"] for r in mine),
            note=note,
        )

    return measure


def difference(
    one: Callable[[Sequence[Record]], Measured | str], other: Callable[[Sequence[Record]], Measured | str]
) -> Callable[[Sequence[Record]], Measured | str]:
    """A measure: what ``one`` gives, less what ``other`` gives."""

    def measure(found: Sequence[Record]) -> Measured | str:
        a, b = one(found), other(found)
        if isinstance(a, str) or isinstance(b, str):
            return a if isinstance(a, str) else str(b)
        return less(a, b, f"{a.value:.4g} against {b.value:.4g}")

    return measure


def less(a: Measured, b: Measured, note: str) -> Measured:
    """``a`` less ``b``. Where both have a spread, so has the difference: that of two single runs, one of each, independent."""
    spread = None if a.spread is None or b.spread is None else hypot(a.spread, b.spread)
    return Measured(a.value - b.value, spread, min(a.n, b.n), a.runs, b.runs, note)


def every() -> list[Claim]:
    """The claims of all experiments, in the order of the files' names."""
    return [claim for module in _modules() for claim in module.claims()]


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why some of the thesis's numbers have no claim, by (table, row, column) or fact: what the files' ``reasons()`` give."""
    found: dict[tuple[str, str, str] | str, str] = {}
    for module in _modules():
        found |= module.reasons() if hasattr(module, "reasons") else {}
    return found


def _modules() -> list[ModuleType]:
    folders = ("sharing", "sparsity", "precision", "beyond_classification", "optimizers")
    return [importlib.import_module(f"lab.experiments.{folder}.claims") for folder in folders]
