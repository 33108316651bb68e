"""The benchmarks' page: from made-up ratios follow the verdicts they deserve, and every script has its place."""

import ast
import copy
import importlib
import json
import re
import sys
from argparse import ArgumentParser

import pytest

from lab.book import benchmarks
from lab.utils.errors import LabError
from lab.utils.files import ROOT


@pytest.fixture
def report(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["sharing.py", "--repeats", "3", "--json", "x y.json", "--device=cpu", "/a/b/nets"]
    )
    made = benchmarks.Report("/anywhere/benchmarks/sharing.py")
    made.ratio("a | b, over c_d", 1.04999, at_most=1.05)
    made.ratio("too slow", 1.0501, at_most=1.05)
    made.ratio("fast enough", 3.0, at_least=3)
    made.ratio("not fast enough", 2.99, at_least=3)
    made.ratio("an import", 0.012345, unit="s")
    return made


def test_a_script_writes_what_the_schema_wants(report, tmp_path):
    report.write(None)
    report.write(tmp_path / "sharing.json")
    result = benchmarks.results(tmp_path)["sharing.py"]
    assert result["command"] == "python benchmarks/sharing.py --repeats 3 --device=cpu nets"
    assert [r["value"] for r in result["ratios"]] == [1.05, 1.05, 3.0, 2.99, 0.01235]
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["load"][0] == report.before


@pytest.mark.parametrize(
    ("value", "bound", "target", "expected"),
    [
        (1.05, "at most", 1.05, "reached"),
        (1.051, "at most", 1.05, "**missed**"),
        (3, "at least", 3, "reached"),
        (2.99, "at least", 3, "**missed**"),
        (9, None, None, "–"),
    ],
)
def test_the_verdict_is_computed(value, bound, target, expected):
    assert benchmarks.verdict({"value": value, "bound": bound, "target": target}) == expected


def test_the_page_answers_each_question_with_one_table_or_says_what_is_missing(report):
    result = report.result() | {"note": "busy: a load of 9.0 on 2 cores before it began"}
    known = {"other.py": ("Needs much.", "a GPU"), "sharing.py": ("What it costs.", ""), "third.py": ("Third.", "")}
    asked = {
        "How slow?": ("Below 1 is faster.", ("sharing.py", "other.py")),
        "How large?": ("Below 1 is smaller.", ("third.py",)),
    }
    page = benchmarks.page({"sharing.py": result}, known, asked)
    assert benchmarks.page({"sharing.py": result}, known, asked) == page
    slow, large, where = re.split(r"^## .*\n", page, flags=re.M)[1:]
    assert "Below 1 is faster." in slow
    assert "`other.py`: needs a GPU." in slow
    assert "`third.py`: not run yet." in large
    rows = [line for line in slow.splitlines() if line.startswith("| ")]
    values = ["1.05\N{NO-BREAK SPACE}×", "at most 1.05\N{NO-BREAK SPACE}×", "reached", "`sharing.py` |"]
    assert rows[1].split(" | ")[1:] == values
    assert rows[1].startswith(r"| a \| b, over c\_d |")
    assert "missed" in rows[4]
    assert "9.0 on 2 cores before it began" in where
    assert "```\npython benchmarks/sharing.py --repeats 3 --device=cpu nets\n```" in where


def test_a_script_answers_one_question_and_those_that_answer_none_are_shown_too(report):
    answering = [name for _, names in benchmarks.QUESTIONS.values() for name in names]
    assert len(set(answering)) == len(answering)
    assert set(answering) <= set(benchmarks.scripts())
    page = benchmarks.page({"sharing.py": report.result()}, {"sharing.py": ("What it costs.", "")}, {})
    assert "`sharing.py` |" in page.partition("## What else was measured?")[2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.pop("machine"),
        lambda r: r["ratios"].clear(),
        lambda r: r["ratios"][0].update(value="1.05"),
        lambda r: r.update(command="rm -r benchmarks"),
        lambda r: r.update(schema=2),
        lambda r: r.update(script="other.py"),
    ],
)
def test_a_damaged_result_is_named(damage, report, tmp_path):
    result = copy.deepcopy(report.result())
    damage(result)
    (tmp_path / "sharing.json").write_text(json.dumps(result))
    with pytest.raises(LabError, match=r"sharing\.json is (no benchmark's result|the result of other\.py)"):
        benchmarks.results(tmp_path)


def test_a_torn_file_is_named(tmp_path):
    (tmp_path / "sharing.json").write_text('{"half')
    with pytest.raises(LabError, match=r"sharing\.json is damaged"):
        benchmarks.results(tmp_path)


def test_every_script_is_measured_or_says_what_it_needs():
    known, measured = benchmarks.scripts(), benchmarks.results()
    assert len(known) > 10
    assert set(measured) <= set(known)
    for name, (what, needs) in known.items():
        assert what.endswith((".", "?")), name
        assert "``python" not in what
        assert name in measured or needs, f"{name}: measure it with --json, or say what it NEEDS"


def test_every_script_takes_the_option_and_writes_its_ratios():
    for path in sorted(benchmarks.SCRIPTS.glob("*.py")):
        called = [ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
        assert called.count("benchmarks.option") == 1, path.name
        assert sum(name.endswith(".write") for name in called) == 1, path.name
        assert sum(name.endswith(".ratio") for name in called) >= 1, path.name
        assert "json.dump" not in called, path.name


def test_what_a_script_imports_from_here_exists():
    looked = 0
    for path in sorted(benchmarks.SCRIPTS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("lab", "principled"):
                for alias in node.names:
                    module = importlib.import_module(node.module)
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")  # says what is missing
                    looked += 1
    assert looked > 20


def test_a_recorded_command_is_one_that_its_script_accepts():
    for name, result in benchmarks.results().items():
        text = (ROOT / "benchmarks" / name).read_text("utf-8")
        for word in re.findall(r"(?<= --)[\w-]+", result["command"]):
            assert f'"--{word}"' in text or "{option}" in text, (name, word)


def test_the_option_is_the_same_everywhere():
    parser = ArgumentParser()
    benchmarks.option(parser)
    assert parser.parse_args([]).json is None
    assert parser.parse_args(["--json", "a/b.json"]).json.name == "b.json"
