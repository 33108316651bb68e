"""The figure that computes, its Python side: a network as steps, what the page is given, what it may load."""

import base64
import copy
import io
import re

import numpy as np
import pytest
from PIL import Image
from torch import nn

from lab.book import landing, pages
from lab.datasets import load
from lab.figures.run_here import state as run_here
from lab.figures.run_here.program import program
from lab.figures.run_here.widget import RunHereWidget
from lab.models import resnet20
from lab.runs import recheck
from lab.utils.errors import LabError
from lab.utils.files import ROOT


@pytest.fixture(scope="module")
def state():
    return run_here.run_state(title="Run it here")


@pytest.mark.parametrize("name", recheck.NETWORKS)
def test_every_network_that_is_shipped_can_be_written_as_steps(name):
    net = recheck.network(name, 10)
    steps = program(net)
    names = {step[key] for step in steps for key in ("weight", "bias") if key in step}
    norms = {f"{step['norm']}.{part}" for step in steps if "norm" in step for part in ("weight", "bias")}
    assert names | norms == {name for name, _ in net.named_parameters()}
    assert all(number < i + 1 for i, step in enumerate(steps) for number in (*step["of"], step.get("add", 0)))


def test_what_follows_a_convolution_joins_it():
    steps = program(resnet20())
    assert len([step for step in steps if step["do"] == "conv"]) == 21
    assert {step["do"] for step in steps} == {"conv", "mean", "linear"}
    first, last = steps[0], steps[-1]
    assert first == {
        "do": "conv", "weight": "conv.weight", "stride": 1, "padding": 1, "groups": 1, "of": [0], "norm": "norm",
        "eps": 1e-5, "relu": True,
    }  # fmt: skip
    assert (last["weight"], last["bias"]) == ("linear.weight", "linear.bias")


def test_a_result_that_two_steps_need_is_kept():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

    assert [step["do"] for step in program(Twice())] == ["conv", "norm", "add"]


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2)), "0: the page's engine knows plain convolutions"),
        (nn.Sequential(nn.GELU()), "0: the page's engine does not know a GELU"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding="same")), "plain convolutions"),
    ],
)
def test_what_the_engine_does_not_know_is_refused(net, says):
    with pytest.raises(LabError, match=says):
        program(net)


def test_the_page_gets_the_shipped_files_themselves(state):
    scripts = dict(run_here.scripts())
    assert len(scripts) == len(state["networks"]) + 1
    for network in state["networks"]:
        text = scripts[f"{run_here.SCRIPTS}/{network['name']}.js"].decode()
        assert len(text) == network["load"]
        data = base64.b64decode(re.search(r'= "(.*)";\n$', text)[1])
        assert data == run_here.content(network["name"])
        assert len(data) == network["bytes"]
        assert network["run"] in network["name"]
    assert base64.b64decode(re.search(r'= "(.*)";\n$', scripts[f"{run_here.SCRIPTS}/images.js"].decode())[1]) == (
        run_here.content("images")
    )


def test_the_pictures_are_test_images_and_lossless(state):
    pictures, test = state["pictures"], load("cifar10-mini", "test")
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures["webp"]))).convert("RGB"))
    for n, place in enumerate(pictures["places"]):
        row, column = divmod(n, pictures["columns"])
        tile = sheet[32 * row : 32 * row + 32, 32 * column : 32 * column + 32].transpose(2, 0, 1)
        assert np.array_equal(tile, test.images[place].numpy())
        assert pictures["labels"][n] == int(test.labels[place])
    assert sorted(set(pictures["labels"])) == list(range(10))
    assert state["sheet"]["labels"] == "".join(map(str, test.labels.tolist()))


def test_networks_are_chosen_by_method_and_the_largest_file_comes_first(state):
    sizes = [network["bytes"] for network in state["networks"]]
    assert sizes == sorted(sizes, reverse=True)
    assert [network.method for network in run_here.shipped(["smol", "dense"])] == ["dense", "smol"]
    with pytest.raises(LabError, match="no shipped network of magic"):
        run_here.shipped(["magic"])


def test_a_network_without_a_record_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    with pytest.raises(LabError, match=r"no record of run [0-9a-f]{16} in"):
        run_here.shipped()


def test_the_figure_is_light_and_says_what_it_holds(state):
    figure = RunHereWidget(state)
    assert len(figure.static_html()) < 150_000
    assert f"{len(state['networks'])} trained networks" in figure.alt
    rows = figure.table(state)
    assert [row[1] for row in rows[1:]] == [network["run"] for network in state["networks"]]


def test_a_kernel_sends_the_bytes_that_are_asked_for(state, monkeypatch):
    figure, sent = RunHereWidget(state), []
    monkeypatch.setattr(figure, "send", lambda content, buffers=None: sent.append((content, buffers)))
    name = state["networks"][-1]["name"]
    for message in ({"load": name}, {"load": "../../etc/passwd"}, {}, None):
        figure._answer(figure, message, [])
    assert sent[0] == ({"name": name}, [run_here.content(name)])
    assert all("no shipped network" in content["error"] for content, _ in sent[1:])


@pytest.mark.parametrize("where", [{"picture": 99}, {"network": 9}, {"layer": 22}, {"picture": -1}])
def test_an_index_that_nothing_stands_at_is_refused(state, where):
    (name,) = where
    with pytest.raises(LabError, match=f"{name} {where[name]} is not there; choose one from 0 to"):
        RunHereWidget(state, **where)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["networks"][0].update(bytes=0),
        lambda s: s["networks"][0].update(name="../x"),
        lambda s: s.update(networks=[]),
        lambda s: s["programs"].update(resnet20=[{"do": "jump", "of": [0]}]),
        lambda s: s["pictures"].update(webp="<b>"),
    ],
)
def test_a_state_that_is_none_is_refused(state, change):
    changed = copy.deepcopy(state)
    change(changed)
    with pytest.raises(LabError, match="RunHereWidget cannot draw this state"):
        RunHereWidget(changed)


def test_the_start_page_begins_with_it():
    index = (ROOT / "book/index.md").read_text("utf-8")
    assert index.index(landing.ANSWERS) < index.index(":::") < index.index(landing.FIGURES)
    page = landing.page(f"Before.\n\n{landing.ANSWERS}\n", {})
    assert page.count('<figure class="pa-widget') == 1
    for network in run_here.shipped(landing.ANSWERING):
        assert page.count(network.record["id"]) > 1  # named by the figure, and told of in the box that its mark opens


def test_the_scripts_are_among_the_book_s_files():
    names = set()
    for name, _ in pages.sources(ROOT):  # the pages that are written anew come after
        names.add(name)
        if name == f"{run_here.SCRIPTS}/{run_here.SHEET}.js":
            break
    assert {f"{run_here.SCRIPTS}/{network.name}.js" for network in run_here.shipped()} < names
