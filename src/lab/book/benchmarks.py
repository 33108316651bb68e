"""What the scripts in ``benchmarks/`` measured: how one notes its ratios, and the page that shows them all.

A script compares two sides in one run, on one machine, and gives the ratio. ``--json FILE`` writes the ratios with
their targets, the machine, how busy it was, and the command; the files under ``data/benchmarks`` make the page, on
which nothing is typed. A script that this machine cannot run says in its ``NEEDS`` what it lacks.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from fastjsonschema import JsonSchemaValueException

from lab.figures.measured import RESULTS
from lab.runs import commit_of_now, cpu_name
from lab.runs.runner import available_cores
from lab.utils.errors import LabError
from lab.utils.files import ROOT, schema, write_json

SCRIPTS = ROOT / "benchmarks"
BUSY = 0.5
"""Load average a core, before the script starts, from which on the machine counts as busy."""

Result = dict[str, Any]
COMMAND = re.compile(r"[:.]?\s*``python [^`]*``\.?$")
"""How a script's first line ends when it names its own command, which the page shows with its options."""


def option(parser: ArgumentParser) -> None:
    """``--json FILE``, the same in every script."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write ratios, machine and command to this file too")


class Report:
    """The ratios of one run of a script.

    Args:
        script: its ``__file__``.
        device: what the measured work ran on.
    """

    def __init__(self, script: str, device: torch.device | str = "cpu") -> None:
        self.script, self.device, self.before = Path(script).name, torch.device(device), _load()
        self.ratios: list[dict[str, Any]] = []

    def ratio(
        self, name: str, value: float, *, at_most: float | None = None, at_least: float | None = None, unit: str = "×"
    ) -> None:
        """Note a number.

        Args:
            name: what over what, or what is counted.
            value: the number; a ratio, unless ``unit`` says otherwise.
            at_most, at_least: the target, if there is one.
            unit: default "×", times.
        """
        bound = "at most" if at_most is not None else "at least" if at_least is not None else None
        target = at_least if at_most is None else at_most
        value = float(f"{value:.4g}")  # more digits than any timing has
        self.ratios.append({"name": name, "value": value, "unit": unit, "bound": bound, "target": target})

    def result(self) -> Result:
        """All that was noted, as the schema wants it."""
        commit, dirty = commit_of_now()
        cuda = self.device.type == "cuda"
        cores, load = available_cores(), [self.before, _load()]
        busy = f"busy: a load of {load[0]:.1f} on {cores} cores before it began" if load[0] > BUSY * cores else ""
        return {
            "schema": 1,
            "script": self.script,
            "command": shlex.join(["python", f"benchmarks/{self.script}", *_command_options(sys.argv[1:])]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "ratios": self.ratios,
            "machine": {
                "device": torch.cuda.get_device_name(self.device) if cuda else "CPU",
                "cpu": cpu_name().rpartition(", ")[0],
                "cores": cores,
                "threads": torch.get_num_threads(),
                "load": load,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "commit": commit,
                "dirty": dirty,
            },
            "note": busy,
        }

    def write(self, path: Path | None) -> None:
        """Write the result; without a path do nothing."""
        if path is not None:
            result = self.result()
            validate(result, path)
            write_json(path, result)


def _load() -> float:
    """Processes that wanted a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def _command_options(words: Iterable[str]) -> list[str]:
    """A command's options without ``--json FILE``; of a path of this machine the last name alone."""
    kept, words = [], iter(words)
    for word in words:
        if word == "--json":
            next(words, None)
        elif not word.startswith("--json="):
            kept.append(Path(word).name if Path(word).is_absolute() else word)
    return kept


def validate(result: Any, path: Path) -> None:
    """LabError, one line, if ``result`` is not what the schema says."""
    try:
        schema(Path(__file__).with_name("benchmark.schema.json"))(result)
    except JsonSchemaValueException as error:
        raise LabError(f"{path} is no benchmark's result ({error.message[:200]}): measure again with --json") from None


def results(folder: Path = RESULTS) -> dict[str, Result]:
    """Every result in ``folder`` by its script, validated; LabError names a damaged one."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise LabError(f"{path} is damaged ({error}): measure again with --json") from None
        validate(result, path)
        if path.stem != Path(result["script"]).stem:
            raise LabError(
                f"{path} is the result of {result['script']}: rename it to {Path(result['script']).stem}.json"
            )
        found[result["script"]] = result
    return found


def scripts(folder: Path = SCRIPTS) -> dict[str, tuple[str, str]]:
    """Each script: the sentence that says what it compares, and what it needs beyond ``make book``'s machine."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        first = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
        needs = ""
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NEEDS":
                needs = str(ast.literal_eval(node.value))
        found[path.name] = COMMAND.sub(".", first).replace("?.", "?"), needs
    return found


# -- the page ----------------------------------------------------------------------------------------------------------


def verdict(ratio: Mapping[str, Any]) -> str:
    """``reached`` or ``missed``; a dash without a target."""
    if ratio["bound"] is None:
        return "–"
    good = ratio["value"] <= ratio["target"] if ratio["bound"] == "at most" else ratio["value"] >= ratio["target"]
    return "reached" if good else "**missed**"


def page(
    found: Mapping[str, Result] | None = None,
    all_scripts: Mapping[str, tuple[str, str]] | None = None,
    questions: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
) -> str:
    """The page as markdown: a section a question, with one table and one sentence; equal results give equal text.

    Args:
        found: results by script; default all of ``data/benchmarks``.
        all_scripts: default all of ``benchmarks/``.
        questions: default :data:`QUESTIONS`.
    """
    found = results() if found is None else found
    known = scripts() if all_scripts is None else all_scripts
    asked = dict(QUESTIONS if questions is None else questions)
    answered = {name for _, names in asked.values() for name in names}
    if rest := tuple(name for name in known if name not in answered):
        asked["What else was measured?"] = (
            "The last column names the script; below, each says what it compares.",
            rest,
        )
    parts = [INTRODUCTION]
    for question, (sentence, names) in asked.items():
        parts += [f"## {question}", sentence, _table([found[name] for name in names if name in found])]
        absent = (
            f"`{n}`: {f'needs {known[n][1]}' if known[n][1] else 'not run yet'}." for n in names if n not in found
        )
        parts += [text for text in (" ".join(absent),) if text]
    parts += [
        "## Where was it measured?",
        "What each script compares, and the machine, the day and the command of its numbers.",
    ]
    for name, (what, _) in known.items():
        parts.append(f"**`{name}`** {what}")
        if name in found:
            parts.append(_circumstances(found[name]))
    return "\n\n".join(part for part in parts if part) + "\n"


DRAWN = "µs an image"
"""The unit of the times that Chapter 4 draws, and that this page leaves out."""

QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "How fast does it run?": (
        "A row that ends in *over principled* says how many times faster the compiled sparse network is than the best "
        "engine of that kind; below 1 it loses. Chapter 4 draws the times themselves.",
        ("runtime.py", "stacks.py", "filters.py", "browser.py"),
    ),
    "How small is the file?": (
        "A ratio below 1 is smaller than the dense form, or than a byte for each weight.",
        ("files.py", "precision_maps.py"),
    ),
    "What does training cost more?": (
        "A training step with a method over the plain network's: 1.05 is five hundredths more time.",
        ("relax.py", "sharing.py", "smol.py", "pquantml.py", "epoch.py", "step.py", "engine.py", "integrations.py"),
    ),
    "What does an optimizer step cost?": (
        "The update alone, without forward and backward pass, over that of the optimizer that it stands beside.",
        ("optimizers.py",),
    ),
    "What does a penalty's weight give?": (
        "How many zeros or bits come out of a setting: read it before you choose one.",
        ("finetune.py", "calibrate_sparsity.py", "calibrate_tickets.py", "calibrate_bits.py", "smol_search.py"),
    ),
    "How fast is a figure?": ("A moving figure redraws within one frame of a screen, 16 ms.", ("widget.py",)),
}
"""What a reader asks: the sentence that says how to read the table, and the scripts whose ratios are its rows."""


INTRODUCTION = """\
# What it costs

*How much time and room does each method take beside what it replaces?*

A time alone says more of the machine than of the method. So each script in `benchmarks/` measures both sides in one
run, in turns, on one machine, and gives a ratio. The page is made at each build from what the scripts wrote; a target
that was missed stays missed until a run reaches it. A machine with other work to do is called busy: alternating keeps
its ratios fair, not sharp. To put numbers of your own machine here, add
`--json data/benchmarks/NAME.json` to a script's command, NAME being its own, and build the book."""


def _table(shown: Iterable[Result]) -> str:
    head = "| | measured | target | | |\n|:---|---:|---:|:---|:---|"
    rows = [
        f"| {_cell(r['name'])} | {_number(r['value'], r['unit'])} | {_goal(r)} | {verdict(r)} | `{result['script']}` |"
        for result in shown
        for r in result["ratios"]
        if r["unit"] != DRAWN
    ]
    return "\n".join([head, *rows]) if rows else ""


def _goal(ratio: Mapping[str, Any]) -> str:
    return "–" if ratio["bound"] is None else f"{ratio['bound']} {_number(ratio['target'], ratio['unit'])}"


def _circumstances(result: Result) -> str:
    m = result["machine"]
    where = [m["device"]] if m["device"] != "CPU" else []
    where += [f"{m['cpu']}, {m['cores']} cores, {m['threads']} thread{'s' * (m['threads'] > 1)} a process"]
    where += [f"torch {m['torch']}, Python {m['python']}"]
    commit = "no version control" if m["commit"] is None else f"commit {m['commit'][:10]}"
    where += [f"{commit}{' with uncommitted edits' if m['dirty'] else ''}, {result['date'][:10]}"]
    where += [result["note"]] if result["note"] else []
    return f"Measured on {_cell('; '.join(where))}.\n\n```\n{result['command']}\n```"


def _number(value: float, unit: str) -> str:
    shown = f"{value:.4g}" if abs(value) >= 1 or not value else f"{value:.3g}"
    return f"{shown}\N{NO-BREAK SPACE}{_cell(unit)}".strip("\N{NO-BREAK SPACE}")


def _cell(text: str) -> str:
    """Text that a table of markdown shows as it is."""
    return re.sub(r"([\\|`*_<>\[\]$])", r"\\\1", text).replace("\n", " ")
