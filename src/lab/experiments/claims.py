"""What the thesis claims, and how a record answers it: a chapter's ``claims.py`` lists its :class:`Claim` objects.

A claim reads records and cannot change one, so an edit here makes no trained result stale. :func:`verdict` is the one
rule that judges them, on the intervals of :mod:`lab.statistics`; :mod:`lab.book.scoreboard` makes the page.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import hypot, inf, isnan
from statistics import mean, stdev
from types import ModuleType
from typing import Literal

from lab.datasets import CLASSES, thesis
from lab.runs import Record, Run
from lab.statistics import compare, mean_interval

State = Literal["counted", "reproduced", "differs", "same direction", "opposite direction", "not told apart", "not run"]
"""``counted``: arithmetic, no run. ``reproduced``, ``differs``: by the thesis's protocol (profile ``paper``).
``same direction``, ``opposite direction``: on the full data with a reduced schedule (``short``). ``not told apart``:
the interval reaches to both sides. ``not run``: no verdict, be it that no run or only one on a side is recorded."""

Needs = Callable[[str], Sequence[Run]]
"""From a profile to the declared runs that a number needs."""
Value = Callable[[Record], float]
Reasons = dict[tuple[str, str, str] | str, str]
"""(table, row, column) or fact to why no run answers it."""

NO_RUN = "no run is recorded"
NEAR_CHANCE = 1.2
"""An accuracy of at most this many times guessing's is chance: no point of a curve, and no number."""


@dataclass(frozen=True)
class Measured:
    """What the records give, in the claim's unit.

    Attributes:
        values: one a run; of what is counted, one.
        runs: ids of the runs behind them; none if counted.
        baseline: of a comparison the other side's values, one a run; the number is then the difference of the means.
        against: ids of the other side's runs, or of those that helped to choose a point.
        note: what a reader needs to know beside the number.
    """

    values: tuple[float, ...]
    runs: tuple[str, ...] = ()
    baseline: tuple[float, ...] = ()
    against: tuple[str, ...] = ()
    note: str = ""

    @property
    def value(self) -> float:
        """The mean over runs, less the baseline's."""
        return mean(self.values) - (mean(self.baseline) if self.baseline else 0)

    @property
    def n(self) -> int:
        """Runs; of a comparison, on the side with fewer."""
        return min(len(self.values), len(self.baseline)) if self.baseline else len(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over runs; of a comparison, that of two single runs' difference. None for a single run."""
        if self.n < 2:
            return None
        return hypot(stdev(self.values), stdev(self.baseline) if self.baseline else 0)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval of :attr:`value`: Student's, or Welch's of a difference. NaN for a single run."""
        if self.baseline:
            comparison = compare(self.values, self.baseline)
            return comparison.low, comparison.high
        return mean_interval(self.values)[1:]


Measure = Callable[[Sequence[Record]], Measured | str]
"""From an experiment's finished records, all of one profile, to a number, or to a line that says why there is none."""


@dataclass(frozen=True)
class Claim:
    """One claim of the thesis and how to measure it. Give ``table``, ``row`` and ``column``, or ``fact``, or ``says``.

    Args:
        experiment: the declaration whose runs it needs.
        measure: from that experiment's finished records, all of one profile, to a number or to why there is none.
        needs: from a profile to the runs without which the number is not final; none for what is counted.
        says: a direction that the thesis states without a number, after its section: ``"3.4.3: ..."``.
        sign: of such a direction: 1 if the measured difference shall be above 0, -1 if below.
        versus: another row of the table, or another fact. The claim is then the *direction* of the difference to it.
        tolerance: largest difference, in the number's unit, at which it agrees; less than what the thesis makes of it.
        reason: why so much, in a few words.
        at_most: the thesis says "less than"; ``tolerance`` is not used.
        whole: a choice among many runs: there is no verdict before all of them are recorded.
        main: the claim in one plain sentence, if it is one of the thesis's main ones.
    """

    experiment: str
    measure: Measure
    needs: Needs
    table: str = ""
    row: str = ""
    column: str = ""
    fact: str = ""
    says: str = ""
    sign: int = 1
    versus: str = ""
    tolerance: float = 0.0
    reason: str = ""
    at_most: bool = False
    whole: bool = False
    main: str = ""

    @property
    def directional(self) -> bool:
        """Whether it is about the sign of a difference alone."""
        return bool(self.versus or self.says)

    @property
    def chapter(self) -> int:
        """The thesis's chapter."""
        return thesis.fact(self.fact).chapter if self.fact else int((self.table or self.says)[0])

    @property
    def said(self) -> float:
        """The thesis's number: as printed, the difference of two printed ones, or a stated direction's sign."""
        if self.says:
            return float(self.sign)
        value = stated(self.fact) if self.fact else thesis.value(self.table, self.row, self.column)
        if not self.versus:
            return value
        return value - (stated(self.versus) if self.fact else thesis.value(self.table, self.versus, self.column))

    @property
    def unit(self) -> str:
        """The unit of the number."""
        if self.says:
            return ""
        unit = thesis.fact(self.fact).unit if self.fact else thesis.cell(self.table, self.row, self.column).unit
        return "% points" if self.versus and unit == "%" else unit

    @property
    def goal(self) -> tuple[float, float]:
        """Ends of the values that agree with the thesis; rounding is allowed for."""
        if self.directional:
            return _direction(self.said)
        if self.at_most:
            return -inf, self.said + 1e-9
        return self.said - self.tolerance - 1e-9, self.said + self.tolerance + 1e-9

    def agrees(self, value: float) -> bool:
        """Whether a value agrees with the thesis's, its noise not considered."""
        low, high = self.goal
        return low < value < high


def stated(name: str) -> float:
    """The number of a fact that holds a single one."""
    value = thesis.fact(name).value
    assert isinstance(value, float), f"fact {name} holds several numbers"
    return value


def _direction(difference: float) -> tuple[float, float]:
    return (0.0, inf) if difference > 0 else (-inf, 0.0)


def verdict(claim: Claim, measured: Measured, profile: str) -> State:
    """The one rule by which records answer a claim.

    With a single run on a side there is no verdict. At ``paper`` a number is reproduced if the mean over seeds lies
    within the claim's tolerance, and differs if its whole interval lies outside; a direction or a bound if the whole
    interval lies on the thesis's side, or on the other. At ``short`` a number has nothing in the thesis to be held
    against; of directions, bounds and stated differences the direction has. What is neither is not told apart.
    """
    if not measured.runs:
        return "counted"
    low, high = measured.interval
    if isnan(low):
        return "not run"
    half_line = claim.directional or claim.at_most
    if profile == "paper" and not half_line:
        if claim.agrees(measured.value):
            return "reproduced"
        start, end = claim.goal
        return "differs" if high < start or low > end else "not told apart"
    if not half_line and not measured.baseline:
        return "not run"
    start, end = claim.goal if half_line else _direction(claim.said)
    if start < low and high < end:
        return "reproduced" if profile == "paper" else "same direction"
    if high < start or low > end:
        return "differs" if profile == "paper" else "opposite direction"
    return "not told apart"


# -- measures ----------------------------------------------------------------------------------------------------------


def at_chance(record: Record) -> bool:
    """Whether the trained network guesses: its accuracy is at most :data:`NEAR_CHANCE` times that of guessing."""
    accuracy, classes = record["figures"].get("accuracy"), CLASSES.get(record["config"]["data"])
    return accuracy is not None and classes is not None and accuracy <= NEAR_CHANCE / classes


def over_seeds(value: Value, needs: Needs, note: str | Callable[[Record], str] = "") -> Measure:
    """A measure: ``value`` of each recorded run of ``needs``, one configuration's seeds; ``note`` may be of the first.

    A record at chance, or without the figure that ``value`` reads, counts as none.
    """

    def measure(records: Sequence[Record]) -> Measured | str:
        if not records:
            return NO_RUN
        ids = {run.id for run in needs(records[0]["profile"])}
        recorded = [record for record in records if record["id"] in ids]
        numbers = {record["id"]: _figure(value, record) for record in recorded if not at_chance(record)}
        values = {run: number for run, number in numbers.items() if number is not None}
        if not values:
            left_at_chance = sum(map(at_chance, recorded))
            guessed = f"; {left_at_chance} ended at chance" if left_at_chance else ""
            return f"none of the {len(ids)} runs that it needs is recorded{guessed}"
        first = next(record for record in recorded if record["id"] in values)
        return Measured(tuple(values.values()), tuple(values), note=note if isinstance(note, str) else note(first))

    return measure


def _figure(value: Value, record: Record) -> float | None:
    try:
        return value(record)
    except KeyError:
        return None


def average(figure: str, needs: Needs, scale: float = 1.0, note: str = "") -> Measure:
    """A measure: ``figure`` times ``scale`` over the recorded seeds of ``needs``."""
    return over_seeds(lambda record: scale * record["figures"][figure], needs, note)


def error(needs: Needs, figure: str = "accuracy", note: str | Callable[[Record], str] = "") -> Measure:
    """A measure: what an accuracy leaves of 100 %."""
    return over_seeds(lambda record: 100 * (1 - record["figures"][figure]), needs, note)


def counted(count: Callable[[], float], note: str = "") -> Measure:
    """A measure that needs no run: what ``count`` gives."""
    return lambda records: Measured((count(),), note=note)


def difference(measure: Measure, baseline: Measure) -> Measure:
    """A measure: what the one gives, less what the other gives, with both sides' values kept for the interval."""

    def measured(records: Sequence[Record]) -> Measured | str:
        a, b = measure(records), baseline(records)
        if isinstance(a, str) or isinstance(b, str):
            return a if isinstance(a, str) else str(b)
        note = "; ".join(filter(None, [f"{a.value:.4g} against {b.value:.4g}", a.note, b.note]))
        return Measured(a.values, a.runs, b.values, b.runs, note)

    return measured


def both(*needs: Needs) -> Needs:
    """The runs of all, each once."""
    return lambda profile: list({run.id: run for runs in needs for run in runs(profile)}.values())


def no_run(profile: str) -> list[Run]:
    """What is counted needs no run."""
    return []


# -- all of them -------------------------------------------------------------------------------------------------------


def every() -> list[Claim]:
    """The claims of all experiments, chapter by chapter."""
    return [claim for module in _modules() for claim in module.claims()]


def reasons() -> Reasons:
    """Why some of the thesis's numbers have no claim."""
    return {key: why for module in _modules() for key, why in module.reasons().items()}


def _modules() -> list[ModuleType]:
    folders = ("sharing", "sparsity", "precision", "beyond_classification", "optimizers")
    return [importlib.import_module(f"lab.experiments.{folder}.claims") for folder in folders]
