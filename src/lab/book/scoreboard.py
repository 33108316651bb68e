"""The page 'thesis says / this book measured': every number of the thesis has a row, and every row a state.

Nothing on it is typed. The thesis's side comes from ``data/thesis``, the book's from the records in ``data/runs``
through the claims of :mod:`lab.experiments.claims`, and the state from the two:

* ``reproduced``: at profile ``paper``, within the claim's tolerance, or in the direction that it states;
* ``differs``: at profile ``paper``, and not so;
* ``short protocol only``: measured on a reduced schedule, hence no verdict;
* ``not run``: and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.datasets import thesis
from lab.experiments import claims as claimed
from lab.experiments.claims import Claim, Measured
from lab.figures.provenance import details, safe
from lab.runs import Record, Run, declaration, recorded

STATES = ("reproduced", "differs", "short protocol only", "not run")
CHAPTERS = {3: "Sharing", 4: "Sparsity", 5: "Precision", 6: "Optimization"}
UNCOVERED = "no experiment of this book covers them yet"
MEASURED = ("measurement", "ratio")
"""Kinds of facts that a run can reproduce; settings are followed and counts are checked by tests."""


@dataclass(frozen=True)
class Row:
    """A claim held against the records; or, with ``claim`` None, a group of numbers that no experiment covers."""

    chapter: int
    title: str
    state: str
    why: str
    claim: Claim | None = None
    measured: Measured | None = None
    profile: str = ""
    numbers: tuple[tuple[str, str], ...] = ()

    @property
    def weight(self) -> int:
        """How many of the thesis's statements the row stands for."""
        return len(self.numbers) if self.claim is None else 1


def board(found: Iterable[Record], claims: Sequence[Claim] | None = None) -> list[Row]:
    """All rows, by chapter: first the claims, then what is left of each table, then of each section's facts."""
    claims = claimed.every() if claims is None else list(claims)
    found = list(found)
    rows = [judge(claim, found) for claim in claims] + rest(claims)
    return sorted(rows, key=lambda row: row.chapter)  # stable: the order within a chapter stays


def judge(claim: Claim, found: Sequence[Record]) -> Row:
    """The claim's state, from the most demanding profile that is recorded."""
    title, so_far = _title(claim), []
    for profile in ("paper", "short"):
        wanted = claim.needs(profile)
        if profile == "short" and not wanted:
            continue  # this claim has no reduced form
        mine = [r for r in found if r["experiment"] == claim.experiment and r["profile"] == profile]
        tried = {r["id"] for r in mine}
        missing = sum(run.id not in tried for run in wanted)
        count = f"{len(wanted) - missing} of {len(wanted)} runs recorded at profile {profile}"
        finished = [r for r in mine if r["state"] == "finished"]
        if missing and (profile == "paper" or not finished):
            so_far.append(count)
            continue
        got = claim.measure(finished)
        measured = None if isinstance(got, str) else got
        why = got if isinstance(got, str) else ""
        if profile == "paper":
            agrees = measured is not None and claim.agrees(measured.value)
            return Row(claim.chapter, title, STATES[0] if agrees else STATES[1], why, claim, measured, profile)
        so_far += ([count] if missing else []) + ([why] if why else [])
        if measured is not None or not missing:
            return Row(claim.chapter, title, STATES[2], "; ".join(so_far), claim, measured, profile)
    return Row(claim.chapter, title, STATES[3], "; ".join([*so_far, *_declared(claim)]), claim)


def _declared(claim: Claim) -> list[str]:
    """What the declaration says of the runs that are missing: how many, and how long."""
    wanted = claim.needs("paper")
    lengths = sorted({declaration(claim.experiment).epochs(run) for run in wanted})
    return [f"declared for a GPU, {' or '.join(map(str, lengths))} epochs a run"] if wanted else []


def rest(claims: Sequence[Claim]) -> list[Row]:
    """What no claim covers: a row for each table, and for the measurements of each section's prose."""
    rows = []
    cells = {(c.table, row, c.column) for c in claims if c.table for row in (c.row, c.versus) if row}
    known = claimed.reasons()
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
            rows.append(Row(int(name[0]), f"Table {name}: {len(some)} {other}numbers", STATES[3], why, numbers=shown))
    facts = {c.fact for c in claims}
    sections: dict[tuple[int, str, str], list[thesis.Fact]] = {}
    for fact in thesis.facts():
        if fact.kind in MEASURED and fact.id not in facts:
            sections.setdefault((fact.chapter, fact.where, known.get(fact.id, UNCOVERED)), []).append(fact)
    for (chapter, where, why), some_facts in sections.items():
        title = f"Section {where}: {len(some_facts)} statement{'s' * (len(some_facts) > 1)}"
        shown = tuple((f.claim, _with_unit(_numbers(f.value), f.unit)) for f in some_facts)
        rows.append(Row(chapter, title, STATES[3], why, numbers=shown))
    return rows


def summary(rows: Iterable[Row]) -> dict[int, Counter[str]]:
    """How many statements are in each state, by chapter."""
    counts: dict[int, Counter[str]] = {chapter: Counter() for chapter in CHAPTERS}
    for row in rows:
        counts[row.chapter][row.state] += row.weight
    return counts


# -- the page ----------------------------------------------------------------------------------------------------------


def page(found: Iterable[Record] | None = None, claims: Sequence[Claim] | None = None) -> str:
    """The page as MyST markdown with static HTML in it; equal records give equal text.

    Args:
        found: records; default all of ``data/runs``.
        claims: default all of :mod:`lab.experiments.claims`.
    """
    by_id = {r["id"]: r for r in sorted(recorded() if found is None else found, key=lambda r: r["id"])}
    rows = board(by_id.values(), claims)
    parts = [INTRODUCTION, _summary(rows), LEGEND]
    for chapter, name in CHAPTERS.items():
        mine = [row for row in rows if row.chapter == chapter]
        parts.append(f"## Chapter {chapter}: {name}")
        if any(row.claim for row in mine):
            head = (
                "<span>claim</span><span>thesis</span><span>this book</span><span>difference</span><span>state</span>"
            )
            body = "\n".join(_claim(row, by_id) for row in mine if row.claim)
            parts.append(
                _raw(f'<div class="pa-board"><div class="pa-head" aria-hidden="true">{head}</div>\n{body}\n</div>')
            )
        if left := [row for row in mine if not row.claim]:
            parts.append(_raw('<div class="pa-board">\n' + "\n".join(map(_group, left)) + "\n</div>"))
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
# Thesis says, this book measured

*Which of the thesis's results does this book reproduce?*

Every number below that this book measured opens the runs behind it: configuration, seeds, device, time, and the command that
repeats them. The page is written anew at each build from the recorded runs and from the thesis's tables; nobody types a number or a verdict.
`python -m lab recheck` evaluates the trained networks that come with the book and holds them against their records."""

LEGEND = """\
Reproduced
: Measured with the thesis's own protocol (profile `paper`), and within the tolerance that the row states; or, for a comparison of two
  methods, in the same direction.

Differs
: Measured with the thesis's protocol, and not so.

Short protocol only
: Measured on the full data with a reduced schedule (profile `short`). It shows the size of things and is no verdict.

Not run
: The reason stands in the row. Settings and counts of the thesis are no measurements and have no row."""

STYLE = """\
.pa-board { overflow-wrap: anywhere; font-family: var(--pa-sans, sans-serif); font-size: 0.86rem; line-height: 1.45; margin: 1rem 0; }
.pa-board > div, .pa-board > details { border-bottom: 1px solid var(--pst-color-border); margin: 0; }
.pa-board > details, .pa-board > details[open] { background: none; border-width: 0 0 1px; border-radius: 0; box-shadow: none; padding: 0; }
.pa-row, .pa-head { display: grid; grid-template-columns: minmax(0, 3.6fr) minmax(0, 1.5fr) minmax(0, 2.5fr) minmax(0, 1.5fr) minmax(0, 2fr); gap: 0 0.9rem; padding: 0.55rem 0 0.55rem 1.1rem; align-items: baseline; }
.pa-head { color: var(--pst-color-text-muted); font-size: 0.78rem; }
.pa-group { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.6fr); gap: 0 0.9rem; padding: 0.45rem 0 0.45rem 1.1rem; }
.pa-board summary { cursor: pointer; position: relative; list-style: none; background: none; border: 0; font-weight: 400; color: inherit; }
.pa-board summary::-webkit-details-marker { display: none; }
.pa-board summary::before { content: "›"; position: absolute; left: 0.2rem; top: 0.42rem; color: var(--pst-color-primary); font-weight: 700; }
.pa-board details[open] > summary::before { transform: rotate(90deg); }
.pa-board summary:hover { background: var(--pst-color-surface); }
.pa-board .pa-n { font-variant-numeric: tabular-nums; }
.pa-board .pa-small { display: block; color: var(--pst-color-text-muted); font-size: 0.78rem; white-space: normal; }
.pa-state::before { content: ""; display: inline-block; width: 0.62em; height: 0.62em; border-radius: 50%; margin-right: 0.45em; border: 2px solid var(--pa-c); background: var(--pa-c); }
.pa-reproduced { --pa-c: var(--pa-smol); } .pa-differs { --pa-c: var(--pa-mp); } .pa-short { --pa-c: var(--pa-cs); }
.pa-not { --pa-c: var(--pst-color-text-muted); } .pa-not::before { background: none; }
.pa-inside { padding: 0.2rem 0 1rem 1.1rem; }
.pa-inside p { margin: 0.3rem 0; }
.pa-inside pre { margin: 0.5rem 0; padding: 0.5rem 0.8rem; font-size: 0.76rem; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--pst-color-surface); border: 0; border-radius: 6px; color: inherit; }
.pa-scroll { overflow-x: auto; max-width: 100%; margin: 0.5rem 0; }
.pa-scroll table { border-collapse: collapse; font-size: 0.8rem; margin: 0; width: auto; }
.pa-scroll th, .pa-scroll td { text-align: left; padding: 0.2rem 0.9rem 0.2rem 0; border: 0; border-bottom: 1px solid var(--pst-color-border); vertical-align: top; }
.pa-scroll td:last-child { white-space: nowrap; }
.pa-scroll :is(th, td).pa-n { text-align: right; white-space: nowrap; }
.pa-sum table { width: 100%; font-size: 0.88rem; }
.pa-sum th, .pa-sum td { padding: 0.35rem 0.5rem; vertical-align: bottom; }
.pa-sum th { font-weight: 600; } .pa-sum tr > :nth-child(n + 2) { text-align: right; }
.pa-sum tfoot tr > * { font-weight: 650; border: 0; }
@media (max-width: 700px) {
  .pa-head:not(:has(button)) { display: none; }
  .pa-head:has(button) { display: flex; flex-wrap: wrap; gap: 0.3rem 1.6rem; padding-left: 0; }
  .pa-head:has(button)::before { content: "sort by"; }
  .pa-row { grid-template-columns: 1fr 1fr; gap: 0.15rem 0.9rem; }
  .pa-row > :first-child { grid-column: 1 / -1; font-weight: 600; }
  .pa-row > [data-is]::before { content: attr(data-is); display: block; color: var(--pst-color-text-muted); font-size: 0.72rem; }
  .pa-row > .pa-state { grid-column: auto; } .pa-row > .pa-state::before { content: ""; display: inline-block; }
  .pa-group { grid-template-columns: 1fr; }
  .pa-sum th, .pa-sum td { padding: 0.3rem 0.2rem; font-size: 0.75rem; }
}"""


def _summary(rows: Sequence[Row]) -> str:
    counts = summary(rows)
    total = sum(counts.values(), Counter())
    shown = [("statements of the thesis", *STATES)]
    for name, count in [*((f"{c} {name}", counts[c]) for c, name in CHAPTERS.items()), ("all", total)]:
        shown.append((name, *(str(count[state]) for state in STATES)))
    head, *body = (
        "<tr>" + "".join(f"<{tag}>{safe(cell)}</{tag}>" for cell in line) + "</tr>"
        for line, tag in zip(shown, ["th"] + ["td"] * len(shown), strict=False)
    )
    *body, total_row = body
    parts = f"<thead>{head}</thead><tbody>{''.join(body)}</tbody><tfoot>{total_row}</tfoot>"
    table = f'<div class="pa-board pa-scroll pa-sum"><table>{parts}</table></div>'
    return _raw(f"<style>\n{STYLE}\n</style>\n{table}")


def _claim(row: Row, found: dict[str, Record]) -> str:
    claim, m = row.claim, row.measured
    assert claim is not None
    digits, at_paper = _digits(claim), claim.needs("paper")
    said = _with_unit(f"{claim.said:+.{digits}f}" if claim.versus else f"{claim.said:.{digits}f}", claim.unit)
    book, difference, inside = "–", "", ""
    if m is not None:
        number = f"{m.value:+.{digits}f}" if claim.versus else f"{m.value:.{digits}f}"
        spread = "" if m.spread is None else f" ± {m.spread:.{digits}f}"
        behind = [found[run] for run in m.runs]
        runs = "one run" if m.n == 1 else f"n = {m.n}"
        small = f"{_protocol(behind[0])}, {runs}" if behind else "counted, no run"
        elsewhere = behind and behind[0]["config"]["data"] not in {run.config["data"] for run in at_paper}
        if elsewhere:  # a short protocol may have data of its own: numbers of two data sets have no difference
            small = f"{behind[0]['data']['name']}, {small}"
        book = f'{safe(_with_unit(number + spread, claim.unit))}<span class="pa-small">{safe(small)}</span>'
        difference = "–" if elsewhere and not claim.versus else f"{m.value - claim.said:+.{digits}f}"
        others = "; ".join(_briefly(found[run]) for run in m.against)
        inside = _p(m.note) + _runs(behind) + _p(f"Compared with {others}." if others else "")
    rule = (
        "the direction of the difference"
        if claim.versus
        else "at most the thesis's number"
        if claim.at_most
        else f"within {claim.tolerance:g} {_points(claim.unit)} ({claim.reason})"
    )
    where = ", at profile paper" if at_paper else ""
    inside += _p(f"Counts as reproduced: {rule}{where}.") + (_p(f"State: {row.why}.") if row.why else "")
    short = {STATES[0]: "reproduced", STATES[1]: "differs", STATES[2]: "short", STATES[3]: "not"}[row.state]
    reason = f'<span class="pa-small">{safe(row.why)}</span>' if row.why else ""
    return (
        f'<details><summary class="pa-row"><span>{safe(row.title)}</span>'
        f'<span class="pa-n" data-is="thesis">{safe(said)}</span><span class="pa-n" data-is="this book">{book}</span>'
        f'<span class="pa-n" data-is="difference">{safe(difference) or "–"}</span>'
        f'<span class="pa-state pa-{short}">{safe(row.state)}{reason}</span></summary>'
        f'<div class="pa-inside">{inside}</div></details>'
    )


def _group(row: Row) -> str:
    lines = "".join(f'<tr><td>{safe(what)}</td><td class="pa-n">{safe(value)}</td></tr>' for what, value in row.numbers)
    head = '<thead><tr><th scope="col">in the thesis</th><th scope="col" class="pa-n">value</th></tr></thead>'
    return (
        f'<details><summary class="pa-group"><span class="pa-state pa-not">{safe(row.title)}</span>'
        f'<span class="pa-small">{safe(row.why)}</span></summary>'
        f'<div class="pa-inside"><div class="pa-scroll"><table>{head}<tbody>{lines}</tbody></table></div></div></details>'
    )


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
    if claim.fact:
        fact = thesis.fact(claim.fact)
        return f"{fact.where}: {fact.claim}"
    versus = f" against {claim.versus}" if claim.versus else ""
    return f"Table {claim.table}: {claim.row}{versus}, {claim.column}"


def _digits(claim: Claim) -> int:
    """Decimals of the printed number; one at least."""
    if claim.fact:
        return 1
    printed = thesis.cell(claim.table, claim.row, claim.column).printed
    return max(1, len(printed.partition(".")[2]))


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
