"""The knobs at the chapters' ends: recorded runs that differ in the knobs alone, a press that trains, and what can go
wrong with it."""

import copy
import json

import pytest

from lab.experiments.optimizers import knobs as of_avagrad
from lab.experiments.precision import knobs as of_bits
from lab.experiments.sharing import knobs as of_sharing
from lab.experiments.sparsity import knobs as of_masks
from lab.experiments.sparsity import pruning
from lab.figures.knobs import panel as knobs
from lab.figures.knobs.panel import Axis, Knob, Panel
from lab.figures.knobs.widget import KnobsWidget
from lab.training import Diverged, Stopped
from lab.utils.errors import LabError
from lab.utils.files import ROOT

CHAPTERS = {"sharing": of_sharing, "pruning": of_masks, "precision": of_bits, "grids": of_avagrad}
X = Axis("sparsity", "zeros", "share")


def quick(name):
    """The quick runs that come along, whatever source they are of."""
    lines = (ROOT / f"data/quick/{name}.jsonl").read_text("utf-8").splitlines()
    return [line.get("record", line) for line in map(json.loads, lines)]


def record(s_init, lr_s=1.0, accuracy=0.4, **method):
    run = pruning.run("quick", "cs", s_init=s_init, lr_s=lr_s)
    config = run.config | {"method": run.config["method"] | method}
    return {"id": f"{abs(hash((s_init, lr_s))):016x}"[:16], "config": config,
            "figures": {"accuracy": accuracy, "sparsity": 0.9}}  # fmt: skip


def panel(**options):
    arguments = {"x": X, "code": "run({s_init}, {lr_s})"} | options
    records = [record(-0.1), record(-0.05, 0.5), record(0.0, beta_final=7.0)]
    return Panel("Yours", pruning.run("quick", "cs"), of_masks.KNOBS, records, **arguments)


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_chapter_has_recorded_runs_at_its_knobs(name):
    made = CHAPTERS[name].panel(quick(name))
    points = made.figure.state["points"]
    assert len(points) >= 4
    ids = {record["id"] for record in quick(name)}
    for point in points:
        assert point["run"] in ids
        for knob, value in zip(made.figure.state["knobs"], point["values"], strict=True):
            assert knob["low"] <= value <= knob["high"]
    assert made.progress.max >= 1


def test_a_run_that_differs_in_more_than_the_knobs_is_no_point():
    points = panel().figure.state["points"]
    assert [point["values"] for point in points] == [[-0.1, 1.0], [-0.05, 0.5]]


def test_the_settings_are_a_line_of_code_that_gives_this_run():
    made = of_masks.panel(quick("pruning"))
    made.sliders[0].value, made.sliders[1].value = -0.03, 0.5
    run = eval(made.line.value, {"pruning": pruning})
    assert run.config["method"]["s_init"] == pytest.approx(-0.03)
    assert run.config["method"]["lr_s"] == pytest.approx(0.5, rel=1e-2)
    assert knobs.changed(pruning.run("quick", "cs"), {"s_init": -0.03, "lr_s": 0.5}).config == run.config | {
        "method": run.config["method"] | {"lr_s": 0.5, "s_init": -0.03}
    }
    assert made.figure.settings == pytest.approx([-0.03, made.sliders[1].value])


def test_a_press_trains_with_the_settings_and_adds_the_readers_point(monkeypatch):
    monkeypatch.setattr(knobs, "MOST_SECONDS", 1e9)  # however busy this machine is
    made = of_avagrad.panel(quick("grids"))
    made.sliders[0].value, made.sliders[1].value = 1.0, 1.0
    made.begin().join()
    (own,) = made.figure.own
    assert own["values"] == [1.0, 1.0]
    assert own["x"] == 1.0
    assert 0.1 < own["y"] < 0.7
    assert f"test accuracy {own['y']:.1%}" in made.words.value
    assert made.progress.value == made.progress.max
    assert (made.train.disabled, made.stop.disabled) == (False, True)
    assert "&quot;own&quot;" not in made._repr_mimebundle_()["text/html"]


def test_stop_ends_it_without_a_point():
    def train(values, on_epoch, stop):
        made._stopping.wait()
        assert stop()
        raise Stopped("stopped")

    made = panel(train=train, epochs=2)
    thread = made.begin()
    assert made.train.disabled
    made.stop.click()
    thread.join()
    assert made.words.value == "stopped; no point was added"
    assert made.figure.own == []


def test_a_minute_is_the_most(monkeypatch):
    monkeypatch.setattr(knobs, "MOST_SECONDS", 0.0)

    def train(values, on_epoch, stop):
        while not stop():
            pass
        raise Stopped("out of time")

    made = panel(train=train, epochs=2)
    made.begin().join()
    assert "a slow machine; no point was added" in made.words.value


@pytest.mark.parametrize("error", [Diverged("loss is <nan>"), LabError("loss is <nan>")])
def test_what_goes_wrong_is_a_line(error):
    def train(values, on_epoch, stop):
        raise error

    made = panel(train=train, epochs=2)
    made.begin().join()
    assert made.words.value == "loss is &lt;nan&gt;"
    assert not made.train.disabled


def test_a_page_without_a_kernel_gets_the_figure_with_knobs_of_its_own():
    made = panel()
    bundle = made._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == KnobsWidget(made.figure.state).static_html()
    assert bundle["text/plain"].startswith("Panel: Yours: 2 recorded runs")
    assert made.figure.live


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(points=[]),
        lambda s: s["points"][0].update(y=2),
        lambda s: s["points"][0].update(values=[0.0]),
        lambda s: s["knobs"][0].update(low="x"),
        lambda s: s["x"].update(scale="odd"),
    ],
)
def test_a_state_that_is_none_is_refused(change):
    state = copy.deepcopy(panel().figure.state)
    change(state)
    with pytest.raises(LabError):
        KnobsWidget(state)


def test_settings_beyond_a_knob_and_no_run_at_all_are_refused():
    figure = panel().figure
    with pytest.raises(LabError, match=r"goes from -0\.15 to 0\.05, not to 3"):
        figure.settings = [3.0, 1.0]
    with pytest.raises(LabError, match="no recorded run has these knobs"):
        Panel("Yours", pruning.run("quick", "cs"), [Knob("s_init", "s", -1, 1)], [], x=X, code="")
