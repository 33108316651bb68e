"""The folding figure's Python side: what a run keeps, what the figure is given, and what is refused."""

import copy
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_folding import record
from torch import nn

from lab.figures.folding.recording import (
    alphas,
    check_recording,
    folding_recording,
    folding_state,
    program,
    similarities,
    unpack,
)
from lab.figures.folding.widget import FoldingWidget
from lab.models import shared_encoder
from lab.utils.errors import LabError
from principled import Relaxed, SoftSharing, fold
from principled.sharing import group_layers, layer_similarity

HOSTILE = '</script><img src=x onerror="document.title=1">\u2028&'


@pytest.fixture(scope="module")
def images():
    """A Wide ResNet's record, trained and folded on embedded images."""
    return record(images=40)


def chains(groups=1, layers=4, k=None, pattern=None):
    """A chain of linear layers in groups; ``pattern`` makes rows of alpha parallel, with sign and scale."""
    torch.manual_seed(0)
    net = nn.Sequential(*(m for _ in range(groups * layers) for m in (nn.Linear(3, 3), nn.Tanh())))
    names = {f"part{g}": [f"{2 * (g * layers + i)}.weight" for i in range(layers)] for g in range(groups)}
    relaxed = Relaxed(net, SoftSharing(names, k))
    start = alphas(relaxed)
    with torch.no_grad():
        for alpha in relaxed.relaxations[0].alpha.values():
            if pattern is None:
                alpha += 0.5 * torch.randn_like(alpha)
            else:
                rows = torch.linalg.qr(torch.randn(alpha.shape[1], alpha.shape[1]))[0]
                alpha.copy_(torch.stack([rows[kind] * scale for kind, scale in pattern]))
    return relaxed, start


X = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))


def agreement(reference):
    """A score between 0 and 1: on how many inputs a network says what the reference says."""
    with torch.no_grad():
        wanted = reference.harden()(X).argmax(1)
    return lambda net: float((net(X).argmax(1) == wanted).float().mean())


def recorded(net, start, moments=1, **given):
    history = [(float(i), start) for i in range(moments)]
    if "evaluate" not in given:
        given["evaluate"] = agreement(net)
    return folding_recording(net, history, **({"epoch": float(moments), "network": "chain"} | given))


def whole(recording, identity="a" * 16, seed=0):
    return {"id": identity, "profile": "quick", "seed": seed, "recording": recording}


def test_by_hand():
    """Rows a, b, -2a, c: one merge without loss, at the first threshold; then everything else, at 0."""
    net, start = chains(pattern=[(0, 1.0), (1, 1.0), (0, -2.0), (2, 1.0)])
    given = recorded(net, start)
    first, merged, *rest = given["folds"]
    assert (first["level"], first["layers"], first["grouping"]) == (1.0, 4, {"part0": "0 1 2 3"})
    assert (merged["level"], merged["layers"], merged["grouping"]) == (0.9999, 3, {"part0": "0 1 0 2"})
    assert merged["ratios"] == {"part0": "1 1 -2 1"}
    assert first["parameters"] - merged["parameters"] == 9
    assert first["score"] == merged["score"] == 1.0  # equal directions fold without loss
    assert [one["layers"] for one in rest] == [1]  # orthogonal ones all merge at 0
    epochs = [epoch for epoch, _ in similarities(given)]
    last = similarities(given)[-1][1]["part0"]
    assert epochs == [0.0, 1.0]
    assert torch.allclose(
        last, torch.eye(4) + torch.tensor([[0.0, 0, 1, 0], [0] * 4, [1, 0, 0, 0], [0] * 4]), atol=1e-5
    )
    run = folding_state([whole(given)], title="t")["runs"][0]
    assert run["folds"][1]["order"] == [0, 1, 0, 2]
    assert run["folds"][1]["ratios"] == {"2": -2.0}


def test_each_fold_is_the_one_its_threshold_gives():
    net, start = chains(groups=2, layers=5, k=3)
    evaluate = agreement(net)
    given = recorded(net, start)
    assert len(given["folds"]) == 1 + 2 * 4
    for one in given["folds"][1:]:
        folded = fold(net, one["level"])
        assert program(given, one).order == folded.program.order
        assert program(given, one).jumps == folded.program.jumps
        assert program(given, one).layers == folded.program.layers
        for ours, theirs in zip(program(given, one).steps, folded.program.steps, strict=True):
            assert ours.ratio == pytest.approx(theirs.ratio, rel=5e-3)
        assert one["parameters"] == sum(p.numel() for p in folded.parameters())
        assert one["layers"] == len(folded.program.layers)
        assert one["score"] == pytest.approx(evaluate(folded))


def test_what_is_asked_for_is_measured_in_order():
    net, start = chains()
    seen = []

    def change(name, by):
        def step(one):
            seen.append(name)
            with torch.no_grad():
                for p in one.parameters():
                    p += by

        return step

    before = {name: p.clone() for name, p in net.named_parameters()}
    plain = recorded(net, start)
    given = recorded(net, start, reestimate=change("bn", 0.5), finetune=change("tune", 5.0))
    assert seen == ["bn", "tune"] * len(given["folds"])
    assert [one["score"] for one in given["folds"]] == [one["score"] for one in plain["folds"]]
    assert any(one["score_bn"] != one["score"] for one in given["folds"])
    assert any(one["score_tuned"] != one["score_bn"] for one in given["folds"])
    assert "score_bn" not in plain["folds"][0]
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_images(images):
    recording = images["recording"]
    sizes = {group: len(names) for group, names in recording["groups"].items()}
    assert sizes == {"stage1": 4, "stage2": 4, "stage3": 4}
    assert recording["aside"] == ["stages.1.0.shortcut.weight", "stages.2.0.shortcut.weight"]
    assert recording["folds"][0]["layers"] == 20  # 18 in blocks, the first convolution, the linear layer
    assert recording["folds"][-1]["layers"] == 20 - 3 * 3
    for one in recording["folds"]:
        assert 0 <= one["score"] <= 1
        assert 0 <= one["score_bn"] <= 1
    run = folding_state([images], title="t")["runs"][0]
    assert [(row["name"], row["start"], row["end"]) for row in run["rows"]] == [
        ("stage1", 0, 7),
        ("stage2", 7, 13),
        ("stage3", 13, 20),
    ]
    assert [group["layers"] for group in run["groups"]] == [[3, 4, 5, 6], [9, 10, 11, 12], [15, 16, 17, 18]]
    assert not any("shortcut" in step for step in run["steps"])


def test_groups_that_interleave_share_a_row():
    net = shared_encoder(layers=3, width=8, heads=2)
    start = alphas(net)
    with torch.no_grad():
        for alpha in net.relaxations[0].alpha.values():
            alpha += 0.1
    x = torch.randn(4, 5, 8)
    given = recorded(net, start, evaluate=lambda one: float(torch.sigmoid(one(x).detach().mean())))
    run = folding_state([whole(given)], title="t")["runs"][0]
    assert len(run["rows"]) == 1
    assert len(run["groups"]) == 4
    assert run["folds"][-1]["order"] == [0, 1, 2, 3] * 3
    assert run["folds"][-1]["loops"] == [[0, 4, 3]]


@given(st.floats(0, 1), st.integers(0, 5))
def test_merges_are_the_groups_at_every_threshold(threshold, seed):
    net, _ = chains(layers=6, k=4)
    torch.manual_seed(seed)
    start = {"part0": torch.randn(6, 4)}
    run = folding_state([whole(recorded(net, start, most=2))], title="t")["runs"][0]
    kind = list(range(6))
    threshold = int(threshold * 1e4) / 1e4
    for level, a, b in run["moments"][0]["merges"][0]:
        if level >= threshold:
            kind = [a if one == b else one for one in kind]
    wanted = group_layers(unpack(run["moments"][0]["similarity"][0], 6), threshold)
    assert [wanted.index(one) for one in wanted] == kind


def test_packed_matrices_are_close():
    net, start = chains(layers=7)
    for alpha, (_, unpacked) in zip((start, alphas(net)), similarities(recorded(net, start)), strict=True):
        assert torch.allclose(unpacked["part0"], layer_similarity(alpha["part0"]), atol=1e-5)


def test_weight_of_the_thesis_s_network():
    """Three groups of ten layers, twelve moments, every fold: record below 60 kB, a page below 100 kB."""
    net, start = chains(groups=3, layers=10)
    one = whole(recorded(net, start, moments=11, reestimate=lambda net: None))
    assert len(one["recording"]["folds"]) == 28
    print(
        f"record {len(json.dumps(one, indent=1)):,} bytes, page "
        f"{len(FoldingWidget.from_records([one], title='t').static_html()):,}"
    )
    assert len(json.dumps(one, indent=1)) < 60_000
    assert len(FoldingWidget.from_records([one], title="t").static_html()) < 100_000


def test_most_limits_the_folds():
    net, start = chains(layers=8)
    every, some = recorded(net, start), recorded(net, start, most=4)
    assert len(every["folds"]) == 8
    assert len(some["folds"]) == 4
    assert (some["folds"][0], some["folds"][-1]) == (every["folds"][0], every["folds"][-1])


def test_widget_says_and_shows_what_was_measured(images):
    widget = FoldingWidget.from_records([images], title="Folding")
    folds = images["recording"]["folds"]
    page = widget.static_html()
    for one in folds:
        assert f"<td>{one['level']:.4f}</td><td>{one['layers']}</td><td>{one['parameters']:,}</td>" in page
        assert f"<td>{1 - one['score']:.1%} test error</td><td>{1 - one['score_bn']:.1%} test error</td>" in page
    assert f"{folds[0]['parameters']:,} parameters" in widget.alt
    assert (widget.run, widget.group, widget.moment) == (0, 0, 2)
    assert page == FoldingWidget.from_records([images], title="Folding").static_html()
    assert set(widget.values()) == {"alt", "state", "run", "group", "moment", "fold"}


def test_f1_is_no_error():
    net, start = chains()
    widget = FoldingWidget.from_records([whole(recorded(net, start, metric="F1"))], title="t")
    assert "test F1" in widget.alt
    assert "error" not in widget.alt


def test_hostile_text_stays_text(images):
    evil = copy.deepcopy(images) | {"id": HOSTILE}
    evil["recording"]["network"] = HOSTILE
    page = FoldingWidget.from_records([evil], title=HOSTILE).static_html()
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "&lt;/script&gt;" in page  # in the still part, as text


def test_only_recorded_things_can_be_chosen(images):
    widget = FoldingWidget.from_records([images], title="t")
    for name, beyond in (("run", 1), ("group", 3), ("moment", 3), ("fold", 10)):
        with pytest.raises(LabError, match=f"^{name} {beyond} was not recorded; choose one from 0 to {beyond - 1}$"):
            setattr(widget, name, beyond)
    widget.fold = 9
    with pytest.raises(LabError, match="none of these records holds a folding"):
        folding_state([{"id": "a", "figures": {}}], title="t")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metric": "loss"}, "metric 'loss' is unknown; choose one of accuracy, F1"),
        ({"most": 1}, "give 2 or more"),
        ({"evaluate": lambda net: 93.0}, "a score is a number from 0 to 1"),
        ({"evaluate": lambda net: float("nan")}, "a score is a number from 0 to 1"),
        ({"epoch": 0.0}, "history holds no moment before the last"),
        ({"epoch": -1.0}, "epochs must rise and end below -1"),
    ],
)
def test_a_recording_refuses(settings, words):
    net, start = chains()
    with pytest.raises(LabError, match=words):
        recorded(net, start, **settings)


def test_a_recording_refuses_other_networks():
    net, start = chains()
    with pytest.raises(LabError, match="does not share its layers"):
        folding_recording(net.harden(), [(0, start)], epoch=1, network="n", evaluate=agreement(net))
    with pytest.raises(LabError, match="epoch 0 are not those of this network's groups"):
        recorded(net, {"other": torch.ones(4, 4)})
    with pytest.raises(LabError, match="not finite"):
        recorded(net, {"part0": torch.full((4, 4), torch.nan)})
    with pytest.raises(ValueError, match="was not trained"):
        recorded(
            Relaxed(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), SoftSharing({"a": ["0.weight", "1.weight"]})),
            {"a": torch.eye(2)},
            evaluate=agreement(net),
        )


def at(value, path, new):
    """A copy with one place changed; ``...`` deletes it."""
    value = copy.deepcopy(value)
    place = value
    for key in path[:-1]:
        place = place[key]
    if new is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return value


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (("groups",), {}),
        (("network",), 3),
        (("metric",), "loss"),
        (("steps",), ...),
        (("aside",), ["stages.0.1.conv1.weight"]),
        (("moments", 0, "similarity", "stage1"), "AAAA"),
        (("moments", 0, "similarity", "stage1"), "<script>"),
        (("moments", 0, "similarity"), {}),
        (("folds", 0, "grouping", "stage1"), "0 1"),
        (("folds", 0, "ratios", "stage2"), "1 1 1"),
        (("folds", 0, "grouping"), None),
    ],
)
def test_damaged_recordings_are_named(images, path, new):
    check_recording(images["recording"])
    with pytest.raises(LabError, match=f"run {images['id']}: "):
        folding_state([at(images, ("recording", *path), new)], title="t")


def test_a_page_may_choose_a_run_of_another_size(images):
    """The front end sends run, group, moment and fold together; each is checked against the new run."""
    net, start = chains(layers=3)
    widget = FoldingWidget.from_records([whole(recorded(net, start)), images], title="t")
    assert (widget.group, widget.moment) == (0, 1)
    widget.set_state({"fold": 9, "group": 2, "moment": 2, "run": 1})
    assert (widget.run, widget.group, widget.moment, widget.fold) == (1, 2, 2, 9)
    widget.set_state({"fold": 1, "group": 0, "moment": 0, "run": 0})
    assert (widget.run, widget.group, widget.moment, widget.fold) == (0, 0, 0, 1)
