"""What the frontier is fed with: runs grouped by configuration, the thesis's points, and the command that repeats a
run."""

import shlex

import pytest
from records_by_hand import record

from lab import __main__, runs
from lab.datasets import thesis
from lab.experiments.sparsity import pruning
from lab.figures.frontier.state import METHODS, frontier_state, repeat_command
from lab.figures.frontier.widget import FrontierWidget
from lab.utils.errors import LabError


def some():
    cs = [
        record(pruning.run("quick", "cs", seed, s_init=-0.05), 0.4 + 0.01 * seed, 0.9 + 0.02 * seed)
        for seed in range(3)
    ]
    return [
        *cs,
        record(pruning.run("quick", "cs", 0, s_init=0.0), 0.5, 0.8),
        record(pruning.run("quick", "mp", 0, target=0.95), 0.35, 0.95),
        record(pruning.run("quick", "dense"), 0.55, 0.0),
        record(pruning.run("short", "mp", 0, target=0.95), 0.7, 0.95),
    ]


def ours(state, network=0):
    return [p for p in state["networks"][network]["points"] if "runs" in p]


def test_seeds_of_one_configuration_are_one_point_with_its_spread():
    state = frontier_state(some(), title="t")
    point = next(p for p in ours(state) if len(p["runs"]) == 3)
    assert point["accuracy"] == pytest.approx(0.41)
    assert point["accuracy_spread"] == pytest.approx(0.01)  # of 0.40, 0.41, 0.42, divided by n - 1
    assert point["sparsity_spread"] == pytest.approx(0.02)
    assert [run["seed"] for run in point["runs"]] == [0, 1, 2]
    single = next(p for p in ours(state) if p["setting"] == "s_init = 0")
    assert single["accuracy_spread"] is None
    assert point["setting"] == "s_init = -0.05"
    assert single["series"] == point["series"]


def test_profiles_are_points_of_their_own_and_a_run_counts_once():
    state = frontier_state([*some(), *some()], title="t")
    assert len(ours(state)) == 5
    mp = {p["protocol"]: p for p in ours(state) if p["method"] == "mp"}
    assert set(mp) == {"quick", "short"}
    assert mp["short"]["series"] != mp["quick"]["series"]
    assert all(p["setting"] == "target = 0.95" for p in mp.values())  # said though nothing else was tried


def test_what_differs_between_networks_is_not_said_of_a_point():
    other = record(pruning.run("quick", "cs", 0, s_init=-0.1))
    method = other["config"]["method"] | {"lr_s": 7.0}
    other |= {"id": "f" * 16, "config": other["config"] | {"model": "vgg16", "method": method}}
    state = frontier_state([*some(), other], title="t")
    assert {p["setting"] for p in ours(state) if p["method"] == "cs"} == {"s_init = -0.05", "s_init = 0"}
    assert [p["setting"] for p in ours(state, network=1)] == ["s_init = -0.1"]


def test_what_did_not_finish_is_left_out():
    state = frontier_state([*some(), record(pruning.run("quick", "gmp", 0, target=0.8), state="diverged")], title="t")
    assert "gmp" not in {p["method"] for p in ours(state)}


def test_rounds_of_a_search_are_points_of_one_curve():
    config = {"model": "resnet20", "data": "cifar10-mini", "method": {"name": "imp", "revision": 1, "rate": 0.2}}
    searched = [
        record(runs.Run("pruning", config, "quick", seed))
        | {"figures": {"accuracy": 0.3, "sparsity": 0.36} | {
            f"{what}.round{n}": value + 0.02 * seed for n, pair in ((1, (0.4, 0.2)), (2, (0.3, 0.36)))
            for what, value in zip(("accuracy", "sparsity"), pair, strict=True)
        }}
        for seed in (0, 1)
    ]  # fmt: skip
    points = ours(frontier_state(searched, title="t", with_thesis=False))
    assert [p["setting"] for p in points] == ["rate = 0.2, round 1", "rate = 0.2, round 2"]
    assert [p["accuracy"] for p in points] == pytest.approx([0.41, 0.31])
    assert len({p["series"] for p in points}) == 1


def test_the_thesis_points_are_its_tables():
    state = frontier_state(some(), title="t")
    printed = {n["name"]: [p for p in n["points"] if "printed" in p] for n in state["networks"]}
    assert set(printed) == {"ResNet-20", "VGG-16", "ResNet-50"}
    shelf = {p["method"]: p["sparsity"] for p in printed["VGG-16"] if p["accuracy"] is None}
    assert len(shelf) == thesis.pivot("4.1").shape[0]
    assert shelf["cs"] == pytest.approx(thesis.value("4.1", "CS", "VGG-16") / 100)
    row = "CS (sparsest matching)"
    point = next(p for p in printed["ResNet-20"] if p["printed"]["row"] == row)
    assert point["sparsity"] == pytest.approx(1 - thesis.value("4.2", row, "ResNet-20 weights remaining") / 100)
    assert point["accuracy"] == pytest.approx(thesis.value("4.2", row, "ResNet-20 test accuracy") / 100)
    assert point["setting"] == f"sparsest matching, round {thesis.value('4.2', row, 'ResNet-20 round'):g}"
    assert len(printed["ResNet-50"]) == thesis.pivot("4.3").shape[0]
    tickets = [p for p in printed["ResNet-50"] if "ticket search" in p["setting"]]
    assert {p["method"] for p in tickets} == {"cs", "imp"}
    assert len(tickets) == sum("†" in row for row in thesis.pivot("4.3").index)


def test_every_printed_row_has_a_colour_of_its_own_in_its_table():
    for table in ("4.1", "4.2", "4.3"):
        rows = {str(row).split(" (")[0].removesuffix("†") for row in thesis.pivot(table).index}
        colours = [shown.colour for shown in METHODS.values() if shown.row.split(" (")[0] in rows]
        assert len(colours) == len(set(colours)) == len(rows)


@pytest.mark.parametrize("profile", ["quick", "short"])
def test_the_command_finds_the_run_and_keeps_what_is_recorded(profile, capsys, monkeypatch, tmp_path):
    made = record(pruning.run(profile, "cs", 0, s_init=-0.05))
    words = shlex.split(repeat_command(made))
    at = words.index("python")
    assert words[at:][:3] == ["python", "-m", "lab"]
    for name, value in (word.split("=") for word in words[:at]):
        monkeypatch.setenv(name, value if value == "train" else str(tmp_path))
    if profile == "short":
        assert __main__.main([*words[at + 3 :], "--list"]) == 0
        assert f"missing  {made['id']}" in capsys.readouterr().out
    else:
        assert runs.come_along("pruning") == {}
        assert __main__._parser().parse_args(words[at + 3 :]).only == [made["id"]]
    made["provenance"]["cuda"] = "13.0"
    assert "--device cuda" in repeat_command(made)


def test_a_run_that_nothing_declares_has_no_command():
    assert repeat_command(record(pruning.run("quick", "cs", 0, s_init=-0.123))) is None
    assert repeat_command(record(pruning.run("quick", "dense"), experiment="gone")) is None


def test_nothing_to_draw_and_a_run_without_figures_are_one_line():
    with pytest.raises(LabError, match="at least one finished run"):
        frontier_state([], title="t")
    lame = record(pruning.run("quick", "dense"), figures={"accuracy": 0.5})
    with pytest.raises(LabError, match=f"run {lame['id']} of pruning has no figure 'sparsity'") as error:
        frontier_state([lame], title="t")
    assert "\n" not in str(error.value)


def test_the_sentence_and_the_table_hold_the_numbers():
    figure = FrontierWidget(frontier_state(some(), title="A title"))
    assert "5 measured by this book, from 7 runs" in figure.alt
    assert "most accurate pruned network is MP at 95.0% zeros with 70.0% (short)" in figure.alt
    head, *rows = figure.table(figure.state)
    assert len(rows) == sum(len(n["points"]) for n in figure.state["networks"])
    assert {len(row) for row in rows} == {len(head)}
    assert any("41.0% ± 1.0%" in row for row in rows)
    opened = figure.state["networks"][0]["points"][figure.point]
    assert "runs" in opened
    assert opened["sparsity"] == max(p["sparsity"] for p in ours(figure.state))


def test_without_the_thesis_only_what_was_trained_is_there():
    state = frontier_state(some(), title="t", with_thesis=False)
    assert [n["name"] for n in state["networks"]] == ["ResNet-20"]
    assert state["protocols"] == ["quick", "short"]


@pytest.mark.parametrize(
    "choice", [{"network": 9}, {"axis": "log"}, {"point": 99}, {"methods_off": ["x"]}, {"protocols_off": ["paper"]}]
)
def test_a_choice_that_is_not_there_is_refused(choice):
    with pytest.raises(LabError, match="is not there"):
        FrontierWidget(frontier_state(some(), title="t"), **choice)
