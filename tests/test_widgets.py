"""The moving figures' Python side: what both hosts are given, and what is refused."""

import base64
import copy
import json
import math
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.figures import widget as base
from lab.figures.annealing.recording import Snapshot, annealing_state
from lab.figures.annealing.widget import AnnealingWidget
from lab.figures.widget import LIVE_ONLY, to_json
from lab.utils.errors import LabError
from principled.sparsity import CURVES

VIEW = LIVE_ONLY[0]
HOSTILE = '</script><img src=x onerror="alert(1)">\u2028&'
NAMED = {"title": "Annealing", "profile": "quick", "run": "0f3a", "hardened": (0.5, 0.9), "dense": 0.52}
LAYERS = {"conv1": 40, "conv2": 160}


def moments(n: int = 5, final: float = 200.0) -> list[Snapshot]:
    start = np.random.default_rng(0).normal(-0.05, 0.05, sum(LAYERS.values()))
    return [Snapshot(p, 15 * p, final**p, start * (0.2 + p), 0.1 + 0.4 * p) for p in (i / (n - 1) for i in range(n))]


@pytest.fixture
def widget() -> AnnealingWidget:
    return AnnealingWidget.from_snapshots(moments(), LAYERS, **NAMED)


class Page(HTMLParser):
    """Scripts, tags and text of a page, as a browser's parser would split them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict, str]] = []
        self.tags: list[str] = []
        self.words = ""
        self._open = None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._open = dict(attributes) if tag == "script" else None

    def handle_data(self, data):
        if self._open is not None:
            self.scripts.append((self._open, data))
        else:
            self.words += data

    def handle_endtag(self, tag):
        self._open = None


def inlined(page: str) -> tuple[str, dict]:
    (_, values), (_, host) = Page(page).scripts
    source = re.search(r'"([A-Za-z0-9+/=]{200,})"', host)
    return zlib.decompress(base64.b64decode(source[1])).decode(), json.loads(values)


def test_both_hosts_get_the_same_module_and_state(widget):
    live = widget.get_state()
    module, values = inlined(widget.static_html())
    assert module == live["_esm"]
    assert "export default { initialize, render }" in module
    assert values == {"alt": live["alt"], "position": live["position"], "state": live["state"]}
    assert live["_css"] in widget.static_html()


def test_mimebundle_offers_both_hosts(widget):
    data, metadata = widget._repr_mimebundle_()
    assert data[VIEW]["model_id"] == widget.model_id
    assert data["text/html"] == widget.static_html()
    assert data["text/plain"] == repr(widget)
    assert isinstance(metadata, dict)


def test_same_state_gives_the_same_bytes():
    bundles = [AnnealingWidget.from_snapshots(moments(), LAYERS, **NAMED)._repr_mimebundle_()[0] for _ in range(2)]
    random = [bundle.pop(VIEW)["model_id"] for bundle in bundles]
    assert bundles[0] == bundles[1]
    assert "0x" not in bundles[0]["text/plain"]
    assert not any(identity in bundle["text/html"] for identity in random for bundle in bundles)


def test_page_asks_for_nothing(widget):
    page = widget.static_html()
    module, _ = inlined(page)
    addresses = re.findall(r"(?:https?:)?//[\w.]+\.\w+[\w/]*", page + module)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # a name, not an address that is fetched
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", page)


def test_weight():
    layers = {f"blocks.{i}.conv": 100 for i in range(19)}
    s = np.random.default_rng(1).normal(-0.05, 0.05, 1900)
    many = [Snapshot(i / 19, i, 200 ** (i / 19), s * (1 + i), 0.5, 0.4) for i in range(20)]
    widget = AnnealingWidget.from_snapshots(many, layers, **NAMED)
    assert len(to_json(widget.state)) < 60_000
    assert len(widget.static_html()) < 100_000


def test_hostile_text_stays_text():
    widget = AnnealingWidget.from_snapshots(
        moments(), {HOSTILE: 40, "b": 160}, **(NAMED | {"title": HOSTILE, "run": HOSTILE})
    )
    page = Page(widget.static_html())
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    assert HOSTILE.split("\u2028")[0] in page.words  # in the sentence for those without scripts, as text
    _, values = inlined(widget.static_html())
    assert values["state"]["title"] == HOSTILE
    assert values["state"]["layers"][0] == HOSTILE
    for mark in ("<", ">", "&", "\u2028", "\u2029"):
        assert mark not in to_json({"text": f"a{mark}b"})


def test_still_part_tells_the_numbers(widget):
    words = Page(widget.static_html()).words
    assert widget.alt in words
    for moment in widget.state["snapshots"]:
        assert f"{moment['sparsity']:.1%}" in words


def test_numbers_by_hand():
    """Four masks, two moments: what is zero, what lies in which bin."""
    s = [np.array([-0.2, -0.01, 0.0, 0.3]), torch.tensor([-8.0, -7.0, 6.0, 0.0])]
    state = annealing_state([(0.0, 0, 100.0, s[0], 0.1), (1.0, 2, 1.0, s[1], 0.2)], {"a": 1, "b": 3}, bins=4, **NAMED)
    first, last = state["snapshots"]
    # sigma(-20) < 0.001 alone; then sigma(-8) = 0.0003 and sigma(-7) = 0.0009
    assert (first["zero_share"], first["sparsity"]) == ([1.0, 0.0], 0.25)
    assert (last["zero_share"], last["sparsity"]) == ([1.0, pytest.approx(1 / 3, abs=1e-4)], 0.5)
    assert sum(first["s_hist"]) == sum(last["s_hist"]) == 4
    assert 0.0 in state["s_edges"]
    zero = state["s_edges"].index(0.0)
    assert sum(first["s_hist"][:zero]) == sum(last["s_hist"][:zero]) == 2
    assert state["zero"]["z"] == pytest.approx(math.log(0.001 / 0.999), abs=1e-3)


@pytest.mark.parametrize("curve", CURVES)
def test_curve_table_is_the_run_s_own_curve(curve):
    state = annealing_state(moments(), LAYERS, curve=curve, **NAMED)
    z = torch.tensor(state["curve"]["z"], dtype=torch.float64)
    assert torch.allclose(CURVES[curve](z), torch.tensor(state["curve"]["b"], dtype=torch.float64), atol=1e-3)
    at_zero = CURVES[curve](torch.tensor(state["zero"]["z"], dtype=torch.float64))
    assert float(at_zero) == pytest.approx(state["zero"]["below"], rel=2e-3)
    reach = max(-state["s_edges"][0], state["s_edges"][-1]) * 200
    assert z.max() >= reach * 0.999


def test_far_variables_fall_into_the_end_bins():
    s = np.concatenate([np.random.default_rng(2).normal(0, 0.05, 9998), [-30.0, 40.0]])
    state = annealing_state([(0, 0, 1, s, 0.1), (1, 1, 2, s, 0.1)], {"a": 10_000}, **NAMED)
    assert state["open_ends"] == [True, True]
    assert state["s_edges"][-1] < 1
    assert sum(state["snapshots"][0]["s_hist"]) == 10_000


def test_first_seen_half_way(widget):
    shares = [moment["sparsity"] for moment in widget.state["snapshots"]]
    assert abs(shares[widget.position] - shares[-1] / 2) == min(abs(share - shares[-1] / 2) for share in shares)
    assert AnnealingWidget(widget.state, position=0).position == 0
    with pytest.raises(LabError, match="position 5 is no recorded moment; choose one from 0 to 4"):
        widget.position = 5


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, r"state\.snapshots\[1\]\.beta is nan"),
        (math.inf, r"state\.snapshots\[1\]\.beta is inf"),
        (np.float32(2), "is a float32"),
    ],
)
def test_numbers_that_no_page_can_hold_are_refused_in_one_line(widget, value, says):
    state = copy.deepcopy(widget.state)
    state["snapshots"][1]["beta"] = value
    with pytest.raises(LabError, match=says) as caught:
        AnnealingWidget(state)
    assert "\n" not in str(caught.value)
    with pytest.raises(LabError, match=says):
        widget.state = state  # also later, on a figure that stands


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"snapshots": moments()[:1]}, "two recorded moments"),
        ({"layers": {"a": 3}}, r"snapshots\[0\]\.s has shape \(200,\); the layers hold 3"),
        ({"curve": "step"}, "curve 'step' is unknown"),
        ({"zero_below": 0.7}, "zero_below is 0.7"),
        ({"dense": math.nan}, r"state\.dense\.accuracy is nan"),
        ({"snapshots": [m._replace(s=m.s * math.inf) for m in moments()]}, "not finite"),
    ],
)
def test_bad_recordings_are_refused(arguments, says):
    with pytest.raises(LabError, match=says):
        AnnealingWidget.from_snapshots(**({"snapshots": moments(), "layers": LAYERS, **NAMED} | arguments))


def test_no_figures_style_reaches_another_figure():
    """Two figures on one page: each file's rules name their own figure; what all share is in figure.css."""
    folder = Path(base.__file__).parent
    roots = {"nonconvergence": "simulator", "grid": "grids", "precision_map": "precision", "run_here": "run"}
    files = sorted(folder.glob("*/widget.css"))
    assert len(files) >= 6
    for file in files:
        root = f".pa-{roots.get(file.parent.name, file.parent.name)}"
        text = re.sub(r"/\*.*?\*/|@media[^{]*", "", file.read_text(), flags=re.S)
        for selectors in re.findall(r"([^{}]+)\{", text):
            for one in re.split(r",\s*(?![^()]*\))", selectors.strip()):
                assert not one.strip() or root in one, (file, one)
