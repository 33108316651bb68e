"""Where a figure or a number comes from, at the place where it is read.

A figure carries a small mark, a button that opens a box: experiment, configuration, seeds, device, commit, time, and
the command that repeats it. The box is an HTML popover, so it needs no script, closes with Escape, and prints as a list
at the end of its page. In a notebook the mark comes with its box. What is saved keeps the mark alone, for two
executions shall give the same bytes and a box names dates; ``lab.book`` puts the boxes back, each once a page
(:func:`fill`).
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import measured

Record = dict[str, Any]
MOST = 48
"""Rows of a table of runs; further runs are counted and found in the folder that the box names."""

TURNS = {
    ord(sign): f"⟨U+{ord(sign):04X}⟩"
    for sign in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
}
BOX = re.compile(r'<div popover class="pa-runs".*?</div><!--/pa-runs-->', re.S)
MARK = re.compile(r'<button [^>]*popovertarget="(pa-runs-[0-9a-f]{12})"[^>]*data-runs="([0-9a-f ]*)"')
BARE = re.compile(r'(<div class="pa-plot[^"]*">|<figure class="pa-widget[^>]*>\n?)(?!<div class="pa-note">)')
MEASURED = re.compile(r'<button [^>]*popovertarget="(pa-runs-[0-9a-f]{12})"[^>]*data-benchmark="(\w+)"')
UNMARKED = re.compile(r'(<div class="pa-note"><span class="pa-profile">[^<]*<b>[^<]*</b></span>)(?=</div>)')


# -- the mark ----------------------------------------------------------------------------------------------------------


def mark(runs: Iterable[Record], *, box: bool = True) -> str:
    """The button for ``runs`` (records), followed by its box unless ``box`` is False."""
    unique = sorted({record["id"]: record for record in runs}.values(), key=lambda record: record["id"])
    ids = [record["id"] for record in unique]
    return button(ids) + (_box(_name(ids), details(unique)) if box else "")


def button(ids: Sequence[str]) -> str:
    """The mark alone, for the runs with these ids."""
    ids = sorted(set(ids))
    words = "1 run" if len(ids) == 1 else f"{len(ids)} runs"
    return _button(_name(ids), words, f"Where this comes from: {words}. Configuration, device, time, command", ids)


def note(profile: str | None = None, runs: Iterable[Record] | None = None, benchmark: str | None = None) -> str:
    """The line above a figure: its profile and its marks; empty without any.

    Args:
        profile: the profile of what is shown.
        runs: the records behind it.
        benchmark: the script of ``benchmarks/`` whose result it shows, without ``.py``.
    """
    parts = [f'<span class="pa-profile">profile <b>{safe(profile)}</b></span>'] if profile else []
    records = list(runs or ())
    if records:
        parts.append(mark(records))
    if benchmark:
        parts.append(_benchmark_button(benchmark) + _box(_name([benchmark]), _circumstances(benchmark)))
    return f'<div class="pa-note">{"".join(parts)}</div>' if parts else ""


def strip(text: str) -> str:
    """HTML without the boxes: what a saved notebook keeps."""
    return BOX.sub("", text)


def _name(ids: Sequence[str]) -> str:
    return "pa-runs-" + hashlib.sha256(" ".join(ids).encode()).hexdigest()[:12]


def _button(name: str, words: str, label: str, ids: Sequence[str]) -> str:
    return _opener(name, words, label, f'data-runs="{safe(" ".join(ids))}"')


def _benchmark_button(script: str) -> str:
    label = f"Where this comes from: benchmarks/{script}.py. Machine, time, command"
    return _opener(_name([script]), "a benchmark", label, f'data-benchmark="{safe(script)}"')


def _opener(name: str, words: str, label: str, data: str) -> str:
    return (
        f'<button type="button" class="pa-origin" popovertarget="{name}" aria-label="{safe(label)}" '
        f"{data}>{safe(words)}</button>"
    )


def _box(name: str, inside: str) -> str:
    close = f'<button type="button" class="pa-close" popovertarget="{name}" popovertargetaction="hide">Close</button>'
    return (
        f'<div popover class="pa-runs" id="{name}" role="dialog" aria-label="Where this comes from" '
        f'style="max-width:46rem;overflow:auto"><p class="pa-runs-title">Where this comes from</p>{inside}{close}'
        "</div><!--/pa-runs-->"
    )


# -- the box -----------------------------------------------------------------------------------------------------------


def _circumstances(script: str) -> str:
    """The box of a benchmark: what it ran on, when, and the command that measures again."""
    result = measured.read(script)
    facts = {
        "benchmark": f"benchmarks/{script}.py",
        "on": measured.machine(result),
        "note": result["note"],
        "commit": str(result["machine"].get("commit") or "no version control")[:10],
        "measured": f"{result['date'][:16].replace('T', ' ')} UTC",
    }
    again = f"{result['command']} --json data/benchmarks/{script}.json"
    return f"{_facts(facts)}<p>Measure again, on your machine:</p><pre>{safe(again)}</pre>"


def _facts(facts: Mapping[str, str]) -> str:
    lines = (f"<div><dt>{safe(key)}</dt><dd>{safe(value)}</dd></div>" for key, value in facts.items() if value)
    return f"<dl>{''.join(lines)}</dl>"


def details(records: Sequence[Record], figures: Sequence[str] = ()) -> str:
    """Runs as HTML: for each experiment and profile what they share, what differs in a table, and how to repeat them.

    Args:
        records: one or more.
        figures: names of their figures that the table shows too.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["experiment"], record["profile"]), []).append(record)
    return "".join(_group(same, figures) for same in groups.values())


def _group(same: Sequence[Record], figures: Sequence[str]) -> str:
    flat = [_flat(record["config"]) for record in same]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    vary = [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]
    vary = [key for key in vary if key != "method.name" or "model" not in vary]  # one name is enough
    seeds = sorted({record["seed"] for record in same})
    facts = {
        "experiment": f"{same[0]['experiment']}, profile {same[0]['profile']}",
        "data": ", ".join(sorted({record["data"]["name"] for record in same})),
        "seeds" if len(seeds) > 1 else "seed": ", ".join(map(str, seeds)),
        "on": "; ".join(sorted({where(record) for record in same})),
        "recorded": _when(same),
    }
    head = ["run", "seed", *(key.removeprefix("method.").removeprefix("training.") for key in vary)]
    head += [name.replace("_", " ") for name in figures] + ["seconds"]
    rows = []
    for record, one in list(zip(same, flat, strict=True))[:MOST]:
        numbers = [f"{record['figures'].get(name, float('nan')):.4f}" for name in figures]
        seconds = f"{record['provenance']['seconds']:.0f}"
        rows.append([record["id"], str(record["seed"]), *(_short(one.get(key)) for key in vary), *numbers, seconds])
    common = {key: value for key, value in flat[0].items() if key not in vary}
    more = f"<p>and {len(same) - MOST} more</p>" if len(same) > MOST else ""
    return (
        _facts(facts)
        + '<div class="pa-scroll" tabindex="0" role="region" aria-label="runs"><table><thead><tr>'
        + "".join(f'<th scope="col">{safe(h)}</th>' for h in head)
        + "</tr></thead><tbody>"
        + "".join("<tr>" + "".join(f"<td>{safe(v)}</td>" for v in row) + "</tr>" for row in rows)
        + f"</tbody></table></div>{more}<p>Configuration{' common to all' if len(same) > 1 else ''}:</p>"
        f"<pre>{safe(', '.join(f'{k}={_short(v)}' for k, v in common.items()))}</pre>"
        f"<p>Repeat:</p><pre>{safe(repeat(same))}</pre>"
    )


def repeat(same: Sequence[Record]) -> str:
    """The command that trains these runs, of one experiment and profile, once more: beside what is recorded, not over
    it."""
    first = same[0]
    words = ["python", "-m", "lab", "record", "--experiment", first["experiment"], "--profile", first["profile"]]
    words += ["--device", "cuda" if any(record["provenance"].get("cuda") for record in same) else "cpu"]
    for record in same:
        words += ["--run", record["id"]]
    anew = "LAB_QUICK=train " if first["profile"] == "quick" else ""
    return f"{anew}LAB_RUNS=_build/again LAB_BUILD=_build/again {shlex.join(words)}"


def where(record: Record) -> str:
    """Device, arithmetic, library and commit of a run, in a few words."""
    p = record["provenance"]
    commit = "no version control" if p["commit"] is None else f"commit {p['commit'][:10]}"
    edits = " with uncommitted edits" if p["dirty"] else ""
    return f"{p['device']}, {p['precision']}, torch {p['torch']}, {commit}{edits}"


def _when(same: Sequence[Record]) -> str:
    times = sorted(record["provenance"]["recorded"] for record in same)
    seconds = sum(record["provenance"]["seconds"] for record in same)
    day, end = times[0][:16].replace("T", " "), times[-1][:16].replace("T", " ")
    took = f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
    return f"{day}{'' if day == end else f' to {end}'} UTC, {took} in all"


def _flat(config: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{at}{key}.")
        else:
            out[at + key] = value
    return out


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def safe(text: object) -> str:
    """Text that HTML shows as it is, that cannot end the markdown block around it, and that turns no other text
    around."""
    return unturned(html.escape(str(text))).replace("`", "&#96;").replace("\n", " ")


def unturned(text: str) -> str:
    """``text`` with the invisible signs that reverse the direction of reading named, where they would act."""
    return text.translate(TURNS)


# -- the page ----------------------------------------------------------------------------------------------------------


def find(ids: Iterable[str]) -> dict[str, Record]:
    """The records with these ids: recorded ones, and quick results made here or come along with the checkout."""
    from lab import runs  # loads torch

    records = {}
    for one in set(ids):
        files = list(runs.recorded_runs().glob(f"*/{one}.json"))
        record = runs.read(files[0]) if files else runs.quick_record(one)
        if record is not None:
            records[one] = record
    return records


def fill(nb: Any, chapter: str, made: Mapping[str, Any]) -> Any:
    """Give an executed notebook its boxes, in one hidden block at its end, and a mark to each figure that has none.

    Args:
        nb: the notebook; its outputs are changed in place.
        chapter: its number, as the command line takes it.
        made: how the page itself was executed: ``time``, ``device``, ``commit``, ``profile``.
    """
    import nbformat

    own = "pa-runs-" + hashlib.sha256(chapter.encode()).hexdigest()[:12]
    here = _button(own, "made here", "Where this comes from: computed by this page. Device, time, command", ())
    sets: dict[str, list[str]] = {}
    benchmarks: dict[str, str] = {}
    bare = False
    for data in _htmls(nb):
        text = strip("".join(data["text/html"]))
        marked = BARE.sub(lambda m: f'{m[0]}<div class="pa-note">{here}</div>', text)
        marked = UNMARKED.sub(lambda m: m[0] + here, marked)
        bare |= marked != text
        data["text/html"] = marked
        for name, ids in MARK.findall(marked):
            if ids:
                sets[name] = ids.split()
        benchmarks |= MEASURED.findall(marked)
    if not sets and not benchmarks and not bare:
        return nb
    inside = boxes(sets) + [_box(name, _circumstances(script)) for name, script in benchmarks.items()]
    if bare:
        facts = {
            "made by": "the code on this page, which you can open above the figure",
            "profile": made.get("profile", "quick"),
            "on": f"{made.get('device', '?')}, commit {str(made.get('commit') or '?')[:10]}",
            "executed": f"{str(made.get('time', '?'))[:16].replace('T', ' ')} UTC",
        }
        command = f"python -m lab chapter {chapter} --profile {made.get('profile', 'quick')}"
        inside.append(_box(own, f"{_facts(facts)}<p>Repeat:</p><pre>{safe(command)}</pre>"))
    nb.cells.append(nbformat.v4.new_markdown_cell(appendix(inside), id="provenance"))
    return nb


def boxes(sets: Mapping[str, Sequence[str]]) -> list[str]:
    """The boxes of marks: name of each to the ids of its runs. A run whose record is not here is named as such."""
    known = find(one for ids in sets.values() for one in ids)
    out = []
    for name, ids in sets.items():
        lost = [one for one in ids if one not in known]
        words = f"<p>Not on this machine: the records of {safe(', '.join(lost))}.</p>" if lost else ""
        out.append(_box(name, details([known[one] for one in ids if one in known]) + words))
    return out


def appendix(some: Sequence[str]) -> str:
    """The block of markdown that holds a page's boxes; on screen it shows nothing, in print a list."""
    inside = "\n".join(some)
    return f'````{{raw}} html\n<div class="pa-provenance">{inside}\n</div>\n````'


def _htmls(nb: Any) -> Iterable[dict[str, Any]]:
    for cell in nb.cells:
        for out in cell.get("outputs", []):
            if "text/html" in out.get("data", {}):
                yield out["data"]


def made(executed: Path) -> dict[str, Any]:
    """What ``lab.book`` noted when it executed the notebook; empty if nothing."""
    try:
        return dict(json.loads(executed.with_suffix(".json").read_text(encoding="utf-8")).get("made", {}))
    except (OSError, ValueError):
        return {}
