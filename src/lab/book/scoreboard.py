"""The page 'thesis says / this book measured': the thesis's main claims, then a row for every number, and their states.

Nothing on it is typed. The thesis's side comes from ``data/thesis``, the book's from the records in ``data/runs``
through the claims of :mod:`lab.experiments.claims`, and the state from :func:`lab.experiments.claims.verdict`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import get_args

from lab.datasets import thesis
from lab.experiments import claims as all_claims
from lab.experiments.claims import Claim, Measured, State, verdict
from lab.figures.provenance import details, safe
from lab.runs import Record, Run, declaration, recorded
from lab.statistics import CONFIDENCE

STATES: tuple[State, ...] = get_args(State)
KIND = dict(zip(STATES, ("counted", "with", "against", "with", "against", "open", "not"), strict=True))
"""How a state is coloured: with the thesis, against it, open; the reduced schedule's have half a dot."""
REDUCED = ("same direction", "opposite direction")
CHAPTERS = {3: "Sharing", 4: "Sparsity", 5: "Precision", 6: "Optimization"}
UNCOVERED = "no experiment of this book covers them yet"
MEASURED = ("measurement", "ratio")
"""Kinds of facts that a run can answer; settings are followed and counts are checked by tests."""


@dataclass(frozen=True)
class Row:
    """A claim held against the records; or, with ``claim`` None, a group of numbers that no experiment covers.

    Attributes:
        why: what stands in the way of a verdict, or how a count compares; empty where the state says all.
        profile: of the records behind ``measured``.
        numbers: of a group, each number's place and value.
    """

    chapter: int
    title: str
    state: State
    why: str
    claim: Claim | None = None
    measured: Measured | None = None
    profile: str = ""
    numbers: tuple[tuple[str, str], ...] = ()

    @property
    def weight(self) -> int:
        """How many of the thesis's statements the row stands for."""
        return len(self.numbers) if self.claim is None else 1


def board(records: Iterable[Record], claims: Sequence[Claim] | None = None) -> list[Row]:
    """All rows, by chapter: first the claims, then what is left of each table, then of each section's facts."""
    claims = all_claims.every() if claims is None else list(claims)
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["experiment"], record["profile"]), []).append(record)
    rows = [judge(claim, groups) for claim in claims] + rest(claims)
    return sorted(rows, key=lambda row: row.chapter)  # stable: the order within a chapter stays


def judge(claim: Claim, groups: dict[tuple[str, str], list[Record]]) -> Row:
    """The claim's state: a verdict at the thesis's protocol if there is one, else at the reduced schedule, else none.

    Args:
        groups: records by experiment and profile.
    """
    title, rows, missing = _title(claim), [], []
    for profile in ("paper", "short"):
        needed = claim.needs(profile)
        if profile == "paper" and not needed:
            return _count(claim, title)
        if not needed:
            continue  # this claim has no reduced form
        tried = groups.get((claim.experiment, profile), [])
        ids = {record["id"] for record in tried}
        recorded_runs = sum(run.id in ids for run in needed)
        finished = [record for record in tried if record["state"] == "finished"]
        missing.append(_takes(claim, profile, needed, recorded_runs))
        if not finished:
            continue
        measured = claim.measure(finished)
        if isinstance(measured, str):
            rows.append(Row(claim.chapter, title, "not run", measured, claim))
            continue
        state, why = verdict(claim, measured, profile), ""
        if claim.whole and recorded_runs < len(needed):
            state, why = "not run", "chosen among runs of which not all are recorded: no verdict yet"
        elif state == "not run":
            why = (
                "a single run on a side: no verdict" if measured.n == 1 else "a number of another schedule: no verdict"
            )
        rows.append(Row(claim.chapter, title, state, why, claim, measured, profile))
    row = next((row for row in rows if row.state != "not run"), None) or next(
        (row for row in rows if row.measured), None
    )
    if row is None:
        return Row(claim.chapter, title, "not run", "; ".join([*(row.why for row in rows[-1:]), *missing]), claim)
    why = "; ".join([row.why, *missing]) if row.state == "not run" else row.why
    return Row(row.chapter, title, row.state, why, claim, row.measured, row.profile)


def _count(claim: Claim, title: str) -> Row:
    """The row of what needs no run."""
    measured = claim.measure([])
    if isinstance(measured, str) or measured.runs:
        return Row(claim.chapter, title, "not run", "no run is declared", claim)
    why = "" if claim.agrees(measured.value) else "the count is another than the printed number"
    return Row(claim.chapter, title, "counted", why, claim, measured)


def _takes(claim: Claim, profile: str, needed: Sequence[Run], recorded_runs: int) -> str:
    """How many of the runs are there, and what the others would take."""
    lengths = sorted({declaration(claim.experiment).epochs(run) for run in needed})
    epochs = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    return f"{profile}: {recorded_runs} of {len(needed)} runs of {epochs} epochs"


def rest(claims: Sequence[Claim]) -> list[Row]:
    """What no claim covers: a row for each table, and for the measurements of each section's prose."""
    rows = []
    cells = {(c.table, row, c.column) for c in claims if c.table for row in (c.row, c.versus) if row}
    known = all_claims.reasons()
    for name in thesis.tables():
        data = thesis.table(name).to_dict("records")
        left = [r for r in data if (name, r["row"], r["column"]) not in cells]
        quoted = [r for r in left if r["source"] != "thesis"]
        groups: dict[str, list[dict[str, object]]] = {}
        for r in left:
            if r["source"] == "thesis":
                groups.setdefault(known.get((name, r["row"], r["column"]), UNCOVERED), []).append(r)
        if quoted:
            groups[f"the thesis quotes them from {len({r['source'] for r in quoted})} other papers"] = quoted
        for why, some in groups.items():
            other = "" if len(left) == len(data) or some is quoted else "other "
            shown = tuple((f"{r['row']}, {r['column']}", _with_unit(str(r["printed"]), str(r["unit"]))) for r in some)
            rows.append(Row(int(name[0]), f"Table {name}: {len(some)} {other}numbers", "not run", why, numbers=shown))
    facts = {name for c in claims if c.fact for name in (c.fact, c.versus)}
    sections: dict[tuple[int, str, str], list[thesis.Fact]] = {}
    for fact in thesis.facts():
        if fact.kind in MEASURED and fact.id not in facts:
            sections.setdefault((fact.chapter, fact.where, known.get(fact.id, UNCOVERED)), []).append(fact)
    for (chapter, where, why), some_facts in sections.items():
        title = f"Section {where}: {len(some_facts)} statement{'s' * (len(some_facts) > 1)}"
        shown = tuple((f.claim, _with_unit(_numbers(f.value), f.unit)) for f in some_facts)
        rows.append(Row(chapter, title, "not run", why, numbers=shown))
    return rows


def summary(rows: Iterable[Row]) -> dict[int, Counter[str]]:
    """How many statements are in each state, by chapter."""
    counts: dict[int, Counter[str]] = {chapter: Counter() for chapter in CHAPTERS}
    for row in rows:
        counts[row.chapter][row.state] += row.weight
    return counts


def comparisons(rows: Iterable[Row]) -> int:
    """How many rows were judged by an interval."""
    return sum(row.state not in ("counted", "not run") for row in rows)


def sentence(rows: Sequence[Row]) -> str:
    """What the states add up to, in one sentence."""
    counts = sum(summary(rows).values(), Counter())
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    return f"Of {sum(counts.values())} statements: {', '.join(parts)}."


# -- the page ----------------------------------------------------------------------------------------------------------


def page(records: Iterable[Record] | None = None, claims: Sequence[Claim] | None = None) -> str:
    """The page as MyST markdown with static HTML in it; equal records give equal text.

    Args:
        records: default all of ``data/runs``.
        claims: default all of :mod:`lab.experiments.claims`.
    """
    by_id = {r["id"]: r for r in sorted(recorded() if records is None else records, key=lambda r: r["id"])}
    rows = board(by_id.values(), claims)
    parts = [INTRODUCTION, _raw(f"<style>\n{STYLE}\n</style>\n{_summary(rows)}"), _chance(rows)]
    if main := [row for row in rows if row.claim and row.claim.main]:
        parts += ["## The main claims", *(_main(name, number, main, by_id) for number, name in CHAPTERS.items())]
    parts.append(LEGEND)
    for chapter, name in CHAPTERS.items():
        parts += [f"## Chapter {chapter}: {name}", _chapter([row for row in rows if row.chapter == chapter], by_id)]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
# Thesis says, this book measured

*Which of the thesis's results does this book reproduce?*

Every number below that this book measured opens the runs behind it: configuration, seeds, device, time, and the command
that repeats them. The page is written anew at each build from the recorded runs and from the thesis's tables; nobody
types a number or a verdict. `python -m lab recheck` evaluates the trained networks that come with the book and holds
them against their records."""

LEGEND = f"""\
## How a state is decided

Counted
: Arithmetic on networks or on the thesis's own numbers. No run, hence no result.

Reproduced, differs
: By the thesis's protocol (profile `paper`). A number is reproduced if the mean over seeds lies within the tolerance
  that its row states, and differs if its whole {CONFIDENCE:.0%} interval lies outside. A comparison of two methods is
  judged by Welch's interval of the difference: all of it on the thesis's side, or all of it on the other.

Same direction, opposite direction
: The same comparison on the full data with a reduced schedule (profile `short`). It says nothing of the size.

Not told apart
: The interval reaches to both sides: more seeds could tell.

Not run
: No verdict: no run is recorded, or a single one on a side, or only a number of the reduced schedule, which has nothing
  in the thesis to be held against. The row says which, and how many runs of how many epochs an answer takes.

`quick` runs, on two thousand tiny images, give no state: they are demonstrations, and stand in the chapters. A setting
that leaves the network dense, or at chance, is no point of a method's curve; the row says how many were left out.
Settings and counts of the thesis are no measurements and have no row."""

STYLE = Path(__file__).with_name("scoreboard.css").read_text(encoding="utf-8").rstrip()


def _summary(rows: Sequence[Row]) -> str:
    counts = summary(rows)
    total = sum(counts.values(), Counter())
    head = "".join(
        f"<th>{safe(cell)}</th>" for cell in ("statements of the thesis", *(f"Ch. {c}" for c in CHAPTERS), "all")
    )
    body = ""
    for state in STATES:
        cells = "".join(f"<td>{counts[chapter][state]}</td>" for chapter in CHAPTERS)
        body += f"<tr><td>{_state(state)}</td>{cells}<td>{total[state]}</td></tr>"
    sums = "".join(f"<td>{sum(counts[chapter].values())}</td>" for chapter in CHAPTERS)
    foot = f"<tr><td>all</td>{sums}<td>{total.total()}</td></tr>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>"
    return f'<div class="pa-board pa-scroll pa-sum">{table}</div>'


def _chance(rows: Sequence[Row]) -> str:
    n, by_chance = comparisons(rows), 1 - CONFIDENCE
    return (
        f"{sentence(rows)} This page makes {n} comparison{'s' * (n != 1)}, each by an interval of {CONFIDENCE:.0%} of "
        f"its own: if no method differed from another, {by_chance * n:.1f} of them would be told apart by chance."
    )


HEAD = "<span>claim</span><span>thesis</span><span>this book</span><span>difference</span><span>state</span>"


def _main(name: str, chapter: int, rows: Sequence[Row], records: dict[str, Record]) -> str:
    """The chapter's main claims, one line each."""
    lines = []
    for row in rows:
        if row.chapter == chapter and row.claim:
            shown = _Shown(row, records)
            place = f'<span class="pa-small">{safe(shown.place)}</span>'
            cells = shown.cells(f"{safe(row.claim.main)}{place}", brief=True)
            lines.append(f'<div class="pa-row">{cells}</div>')
    columns = HEAD.replace("<span>difference</span>", "")
    head = f'<p class="pa-name">{safe(name)}</p><div class="pa-head" aria-hidden="true">{columns}</div>'
    return _raw(f'<div class="pa-board pa-main">{head}\n' + "\n".join(lines) + "\n</div>") if lines else ""


def _chapter(rows: Sequence[Row], records: dict[str, Record]) -> str:
    """A chapter's rows: those with a measurement open, the others folded away."""
    from_runs = [row for row in rows if row.measured and row.measured.runs]
    counted = [row for row in rows if row.state == "counted"]
    left = [row for row in rows if row not in from_runs and row not in counted]
    body = [_rows(from_runs, records)] if from_runs else []
    for some, what in ((counted, "counted, no run needed"), (left, "without a measurement, and why")):
        if some:
            title = f"{sum(row.weight for row in some)} {what}"
            body.append(
                f'<div class="pa-board"><details class="pa-fold"><summary>{title}</summary>'
                f"{_rows(some, records)}</details></div>"
            )
    return _raw("\n".join(body))


def _rows(rows: Sequence[Row], records: dict[str, Record]) -> str:
    head = f'<div class="pa-head" aria-hidden="true">{HEAD}</div>\n' if any(row.claim for row in rows) else ""
    body = "\n".join(_claim(row, records) if row.claim else _group(row) for row in rows)
    return f'<div class="pa-board">{head}{body}\n</div>'


@dataclass(frozen=True)
class _Shown:
    """A row's words and numbers, as the page prints them."""

    row: Row
    records: dict[str, Record]

    @cached_property
    def claim(self) -> Claim:
        assert self.row.claim is not None
        return self.row.claim

    @cached_property
    def behind(self) -> list[Record]:
        return [self.records[run] for run in self.row.measured.runs] if self.row.measured else []

    @cached_property
    def digits(self) -> int:
        """Decimals of the printed number; one at least."""
        if not self.claim.table:
            return 3 if self.claim.says else min(3, max(1, len(f"{self.claim.said:g}".partition(".")[2])))
        printed = thesis.cell(self.claim.table, self.claim.row, self.claim.column).printed
        return max(1, len(printed.partition(".")[2]))

    def number(self, value: float, signed: bool = False) -> str:
        """A value with the printed number's decimals; what is smaller than these with two digits."""
        sign = "+" if signed else ""
        tiny = self.claim.fact and 0 < abs(self.claim.said) < 0.1
        return f"{value:{sign}.2g}" if tiny else f"{value:{sign}.{self.digits}f}"

    @property
    def place(self) -> str:
        """Where the thesis says so."""
        claim = self.claim
        if claim.table:
            return f"Table {claim.table}"
        return thesis.fact(claim.fact).where if claim.fact else claim.says.partition(":")[0]

    @property
    def said(self) -> str:
        """The thesis's number, or the direction that it states."""
        claim = self.claim
        if claim.says:
            return "above 0" if claim.sign > 0 else "below 0"
        bound = "< " if claim.at_most else ""
        return _with_unit(bound + self.number(claim.said, bool(claim.versus)), claim.unit)

    @property
    def elsewhere(self) -> bool:
        """Whether the runs are on other data than the thesis's: numbers of two data sets have no difference."""
        return bool(self.behind) and self.behind[0]["config"]["data"] not in {
            run.config["data"] for run in self.claim.needs("paper")
        }

    @property
    def book(self) -> str:
        """What this book measured: the number, its interval, and from what."""
        measured = self.row.measured
        if measured is None:
            return "–"
        low, high = measured.interval
        compared = bool(measured.baseline)
        number = self.number(measured.value, compared)
        if measured.runs and not isnan(low):
            number += f" [{self.number(low, compared)}, {self.number(high, compared)}]"
        small = "no run"
        if self.behind:
            n = f"n = {len(measured.values)}" + (f" and {len(measured.baseline)}" if compared else "")
            data = f"{self.behind[0]['data']['name']}, " if self.elsewhere else ""
            small = f"{data}{_protocol(self.behind[0])}, {n}"
        return f'{safe(_with_unit(number, self.claim.unit))}<span class="pa-small">{safe(small)}</span>'

    @property
    def difference(self) -> str:
        """Measured less printed, where the two can be held against each other."""
        measured, claim = self.row.measured, self.claim
        if measured is None or claim.says or (self.elsewhere and not claim.versus):
            return "–"
        return self.number(measured.value - claim.said, signed=True)

    def cells(self, title: str, brief: bool = False) -> str:
        """The cells of a line; ``title`` is HTML. ``brief`` leaves out the difference, and what an answer takes."""
        why = self.row.why
        if brief and self.row.state == "not run":
            why = why.split("; ")[0] if self.row.measured else ""
        reason = f'<span class="pa-small">{safe(why)}</span>' if why else ""
        difference = "" if brief else f'<span class="pa-n" data-is="difference">{safe(self.difference)}</span>'
        return (
            f'<span>{title}</span><span class="pa-n" data-is="thesis">{safe(self.said)}</span>'
            f'<span class="pa-n" data-is="this book">{self.book}</span>'
            f"{difference}<span>{_state(self.row.state)}{reason}</span>"
        )


def _claim(row: Row, records: dict[str, Record]) -> str:
    shown, measured = _Shown(row, records), row.measured
    claim, inside = shown.claim, ""
    if measured is not None:
        others = "; ".join(_briefly(records[run]) for run in measured.against)
        inside = _p(measured.note) + _runs(shown.behind) + _p(f"Compared with {others}." if others else "")
    rule = f"within {claim.tolerance:g} {_points(claim.unit)} ({claim.reason})"
    if claim.directional or claim.at_most:
        rule = "the direction of the difference" if claim.directional else "at most the thesis's number"
    inside += _p(f"Agrees with the thesis: {rule}.") + (_p(f"{row.state}: {row.why}.") if row.why else "")
    return (
        f'<details><summary class="pa-row">{shown.cells(safe(row.title))}</summary>'
        f'<div class="pa-inside">{inside}</div></details>'
    )


def _group(row: Row) -> str:
    lines = "".join(f'<tr><td>{safe(what)}</td><td class="pa-n">{safe(value)}</td></tr>' for what, value in row.numbers)
    head = '<thead><tr><th scope="col">in the thesis</th><th scope="col" class="pa-n">value</th></tr></thead>'
    return (
        f'<details><summary class="pa-group"><span class="pa-state pa-not">{safe(row.title)}</span>'
        f'<span class="pa-small">{safe(row.why)}</span></summary>'
        f'<div class="pa-inside"><div class="pa-scroll"><table>{head}<tbody>{lines}</tbody></table></div></div>'
        "</details>"
    )


def _state(state: State) -> str:
    reduced = " pa-reduced" if state in REDUCED else ""
    return f'<span class="pa-state pa-{KIND[state]}{reduced}">{safe(state)}</span>'


def _runs(some: Sequence[Record]) -> str:
    """The provenance of some runs, with the figures that they ended with."""
    return details(some, [key for key in some[0]["figures"] if "." not in key]) if some else ""


def _briefly(record: Record) -> str:
    score = next(name for name in ("accuracy", "bpc", "fid", "fd", *record["figures"]) if name in record["figures"])
    return f"{Run.of(record).label()} (run {record['id']}, {score} {record['figures'][score]:.4f})"


def _protocol(record: Record) -> str:
    run = Run.of(record)
    return f"{record['profile']}, {run.module.epochs(run)} epochs"


def _title(claim: Claim) -> str:
    if claim.says:
        return claim.says
    if claim.fact:
        facts = [thesis.fact(name) for name in (claim.fact, claim.versus) if name]
        return f"{facts[0].where}: {' against '.join(fact.claim for fact in facts)}"
    versus = f" against {claim.versus}" if claim.versus else ""
    return f"Table {claim.table}: {claim.row}{versus}, {claim.column}"


def _numbers(value: float | tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in (value if isinstance(value, tuple) else (value,)))


def _with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}".strip()


def _points(unit: str) -> str:
    """The unit of a difference between two numbers."""
    return "% points" if unit == "%" else unit


def _p(text: str) -> str:
    return f"<p>{safe(text)}</p>" if text else ""


def _raw(block: str) -> str:
    return f"````{{raw}} html\n{block}\n````"
