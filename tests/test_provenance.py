"""A figure's mark: what it says of its runs is what their records hold, once a page, and safe whatever they contain."""

import json
import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lab import runs
from lab.book import notebooks
from lab.experiments.sparsity import pruning
from lab.figures import measured, provenance
from lab.utils.errors import LabError

PLACE = {
    "source": "0", "commit": "0123456789abcdef", "dirty": False, "torch": "2.13", "cuda": None, "python": "3.11",
    "device": "a CPU", "precision": "float32", "threads": 1, "seconds": 90.0, "recorded": "2026-01-01T10:20:30+00:00",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


def record(seed=0, name="cs", device="a CPU", **options):
    run = pruning.run("short", name, seed=seed, **options)
    figures = {"accuracy": 0.9, "sparsity": 0.5, "sparsity.conv": 0.5}
    return runs.write(run, "finished", {"figures": figures}, PLACE | {"device": device})


class Text(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(text)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)


def test_a_box_says_what_the_records_say():
    some = [record(seed, s_init=-0.05) for seed in (0, 1)] + [record(0, s_init=0.0)]
    said = Text(provenance.mark(some)).text
    for word in ("3 runs", "pruning, profile short", "cifar10", "0, 1", "a CPU, float32, torch 2.13, commit 0123456789",
                 "2026-01-01 10:20 UTC, 4.5 minutes in all", "s_init", "-0.05"):  # fmt: skip
        assert word in said, word
    command = "python -m lab record --experiment pruning --profile short --device cpu"
    assert re.search(command + "".join(f" --run {r['id']}" for r in sorted(some, key=lambda r: r["id"])), said)
    assert "training.lr=0.1" in said  # common to all
    assert "method.s_init=" not in said  # differs: a column


def test_the_mark_depends_on_the_runs_and_not_on_their_order_or_time():
    some = [record(seed) for seed in (0, 1)]
    later = [
        r | {"provenance": r["provenance"] | {"seconds": 5.0, "recorded": "2027-01-01T00:00:00+00:00"}} for r in some
    ]
    assert provenance.strip(provenance.mark(some)) == provenance.strip(provenance.mark(reversed(later)))
    assert provenance.mark(some) != provenance.mark(later)  # the box tells the time
    assert provenance.strip(provenance.mark(some[:1])) != provenance.strip(provenance.mark(some))
    assert provenance.note() == ""
    assert "pa-origin" not in provenance.note("quick")


def test_a_hostile_name_is_text():
    evil = record(device="</div><script>alert(1)</script>````")
    text = provenance.mark([evil])
    assert "script" not in Text(text).tags
    assert "````" not in text
    assert "<script>alert(1)</script>" in Text(text).text


def output(text):
    return new_code_cell("", outputs=[new_output("display_data", {"text/html": text})])


def test_a_saved_notebook_keeps_marks_and_the_page_gets_each_box_once():
    some = [record(seed) for seed in (0, 1)]
    figure = f'<div class="pa-plot">{provenance.note("short", some)}<svg></svg></div>'
    plain = '<div class="pa-plot"><svg></svg></div>'
    profiled = f'<div class="pa-plot">{provenance.note("quick")}<svg></svg></div>'
    nb = notebooks.clean(new_notebook(cells=[output(text) for text in (figure, figure, plain, profiled)]))
    saved = nbformat.writes(nb)
    assert "2026-01-01" not in saved
    assert saved.count("popovertarget") == 2
    made = {"time": "2026-02-03T04:05:06+00:00", "device": "a CPU", "commit": "abcdef0123456789", "profile": "quick"}
    page = provenance.fill(nb, "9", made)
    *cells, end = page.cells
    shown = "".join(cell.outputs[0].data["text/html"] for cell in cells)
    assert len(re.findall('class="pa-origin"', shown)) == 4  # every figure has one
    boxes = re.findall(r'id="(pa-runs-[0-9a-f]{12})"', end.source)
    assert len(boxes) == len(set(boxes)) == 2
    assert set(re.findall(r'popovertarget="([^"]+)"', shown)) == set(boxes)
    for word in (
        "2026-01-01 10:20",
        "python -m lab chapter 9 --profile quick",
        "2026-02-03 04:05",
        "commit abcdef0123",
    ):
        assert word in end.source, word


def test_a_record_that_is_not_here_is_named():
    gone = record()
    run = pruning.run("short", "cs", seed=0)
    text = provenance.strip(provenance.mark([gone]))
    run.path().unlink()
    end = provenance.fill(new_notebook(cells=[output(f'<div class="pa-note">{text}</div>')]), "1", {}).cells[-1]
    assert f"Not on this machine: the records of {gone['id']}" in end.source


def test_a_page_without_figures_stays_as_it_is():
    nb = new_notebook(cells=[output("<p>words</p>")])
    assert len(provenance.fill(nb, "1", {}).cells) == 1


def test_what_a_benchmark_measured_is_marked_with_its_machine_and_not_with_the_page(tmp_path, monkeypatch):
    machine = {"cpu": "a core", "threads": 1, "torch": "2", "commit": "abcdef0123456789"}
    result = {"ratios": [{"name": "time", "value": 2.0}], "machine": machine, "date": "2026-01-02T03:04:05+00:00"}
    result |= {"note": "busy: two", "command": "python benchmarks/speed.py --seconds 2"}
    (tmp_path / "speed.json").write_text(json.dumps(result))
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    figure = f'<div class="pa-plot">{provenance.note(benchmark="speed")}<svg></svg></div>'
    page = provenance.fill(notebooks.clean(new_notebook(cells=[output(figure), output(figure)])), "9", {})
    *cells, end = page.cells
    shown = "".join(cell.outputs[0].data["text/html"] for cell in cells)
    assert "2026-01-02" not in shown
    assert "made here" not in shown
    (box,) = re.findall(r'id="(pa-runs-[0-9a-f]{12})"', end.source)
    assert re.findall(r'popovertarget="([^"]+)"', shown) == [box, box]
    said = Text(end.source).text
    for word in ("benchmarks/speed.py", "a core, 1 thread, torch 2, 2026-01-02", "busy: two", "abcdef0123", "03:04 UTC",
                 "python benchmarks/speed.py --seconds 2 --json data/benchmarks/speed.json"):  # fmt: skip
        assert word in said, word
    assert measured.values(result) == {"time": 2.0}


def test_a_benchmark_without_a_result_or_with_a_damaged_one_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    with pytest.raises(LabError, match=r"missing: run python benchmarks/speed\.py --json data/benchmarks/speed\.json"):
        measured.read("speed")
    (tmp_path / "speed.json").write_text("{")
    with pytest.raises(LabError, match="damaged"):
        provenance.note(benchmark="speed")
