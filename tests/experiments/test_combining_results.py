"""Chapter 7's tables and verdicts against cases worked out by hand; its figures draw what the records hold."""

import math

import pytest
from made_up_records import page as page
from made_up_records import record

from lab.experiments.combining import results, stack
from lab.experiments.combining.stack import COMBINATIONS
from lab.utils.errors import LabError

# by combination: bytes, accuracy of seeds 0 and 1
SIZES = {"dense": 1000, "share": 500, "mask": 250, "bits": 200, "share+mask": 125, "share+bits": 125, "mask+bits": 80}
SIZES |= {"share+mask+bits": 50, "bits*": 100}
SCORES = {combination: (0.50, 0.5002) for combination in COMBINATIONS} | {"bits": (0.40, 0.4002)}


def made(combinations=COMBINATIONS, seeds=(0, 1), optimizer="SGD", scores=SCORES, profile="quick", sizes=SIZES):
    records = []
    for combination in combinations:
        size = float(sizes[combination])
        numbers = {"file_bytes": size, "zeros": 0.5 * ("mask" in combination)}
        if "bits" in combination:
            numbers |= {"bits": 2.0, "payload_bytes": 0.5 * size, "map_bytes": 0.2 * size, "rest_bytes": 0.3 * size}
        for seed in seeds:
            run = stack.run(profile, combination, seed, optimizer)
            records.append(record(run, accuracy=scores[combination][seed], **numbers))
    return records


def test_points_are_means_over_seeds_in_the_order_of_the_combinations():
    means = results.points([*reversed(made()), *made(("dense",), optimizer="AvaGrad")])
    assert means["combination"].tolist() == ["dense", *COMBINATIONS]  # AvaGrad's beside SGD's
    assert means["optimizer"].tolist()[:2] == ["SGD", "AvaGrad"]
    first, last = means.iloc[0], means.iloc[-1]
    assert first["accuracy"] == pytest.approx(0.5001)
    assert first["spread"] == pytest.approx(math.sqrt(2) / 10_000)
    assert (first["n"], first["bits"], first["ratio"]) == (2, 32.0, 1.0)
    assert (last["ratio"], last["bits"], last["zeros"]) == (20.0, 2.0, 0.5)
    assert results.table(results.points([])).empty


def test_the_table_states_spread_and_ratio_only_where_there_is_one():
    shown = results.table(results.points(made(("share", "mask"), seeds=(0,)) + made(("bits",))))
    assert shown["stacked"].tolist() == ["share", "mask", "bits"]
    assert shown["test accuracy"].tolist() == ["50.0 % (n = 1)", "50.0 % (n = 1)", "40.0 ± 0.0 % (n = 2)"]
    assert shown["ratio"].tolist() == ["–"] * 3  # no dense file to compare with


def test_optimizers_stand_beside_each_other_where_both_were_tried():
    shown = results.optimizers(results.points(made() + made(("dense",), (0,), "AvaGrad")))
    assert shown[["stacked", "optimizer"]].to_numpy().tolist() == [["dense", "SGD"], ["dense", "AvaGrad"]]


@pytest.mark.parametrize(
    ("combinations", "steps"),
    [
        (COMBINATIONS, ["dense", "share", "share+mask", "share+mask+bits"]),
        (("dense", "share", "mask", "mask+bits"), ["dense", "mask", "mask+bits"]),
        (("dense", "share+mask+bits"), ["dense", "share+mask+bits"]),
        (("share",), []),
    ],
)
def test_the_path_ends_at_the_smallest_file(combinations, steps):
    assert results.path(results.points(made(combinations))) == steps


def test_the_staircase_draws_each_step_of_the_records(page):
    results.staircase(made())
    size, score = page.figures[-1].axes
    levels = {float(y) for c in size.collections for segment in c.get_segments() for y in segment[:, 1]}
    assert levels == {50.0, 125.0, 500.0, 1000.0}
    assert [t.get_text() for t in score.get_xticklabels()] == ["dense", "+ share", "+ mask", "+ bits*"]
    assert [t.get_text().split("\n")[1] for t in size.texts] == ["1.0×", "2.0×", "8.0×", "20.0×"]
    results.staircase(made(("dense", "share+mask+bits")))
    assert [t.get_text() for t in page.figures[-1].axes[1].get_xticklabels()] == ["dense", "+ share + mask + bits*"]
    with pytest.raises(LabError, match="record the dense network first"):
        results.staircase(made(("share",)))


def test_products_by_hand(page):
    stacks = results.products(results.points(made())).set_index("combination")
    assert stacks.loc["share+mask"].tolist() == [8.0, 8.0, 1.0]  # twice and four times
    assert stacks.loc["share+bits"].tolist() == [10.0, 8.0, 0.8]
    assert stacks.loc["share+mask+bits"].tolist() == [80.0, 20.0, 0.25]  # twice, four times, and ten times for bits*
    assert results.products(
        results.points(made(("dense", "mask", "bits", "mask+bits")))
    ).empty  # not the bits that it has
    results.multiplied(made())
    (axes,) = page.figures[-1].axes
    assert [t.get_text() for t in axes.texts] == [f"{kept:.0%}" for kept in stacks["kept"]]


def test_savings_are_judged_seed_by_seed():
    records = made(seeds=(0,)) + made(seeds=(1,), sizes=SIZES | {"share+bits": 100})  # seed 1: the whole product
    shown = results.savings(records).set_index("stacked")
    assert shown.loc["share + bits"].tolist()[2:] == ["80%, 100%", "seeds disagree"]
    assert shown.loc["share + mask + bits"].tolist()[2:] == ["25%, 25%", "fight"]
    assert [results.bond(row) for row in ([0.8, 0.7], [0.95, 1.05], [1.2, 1.3])] == ["fight", "multiply", "help"]


def test_every_step_adds_one_thing():
    pairs = results.steps(COMBINATIONS)
    assert len(pairs) == 13
    assert {(a, b) for a, b, added in pairs if added == "mask"} == {
        ("dense", "mask"), ("share", "share+mask"), ("bits*", "mask+bits"),
    }  # fmt: skip
    assert ("share+bits", "share+mask+bits") not in {(a, b) for a, b, _ in pairs}  # the mask, and zero precision too
    assert ("bits", "bits*", "zero precision") in pairs
    shown = results.worth(made(scores=SCORES | {"share": (0.4, 0.4002)})).set_index(["added", "to"])
    assert shown.loc[("mask", "bits*"), "times smaller, seed by seed"] == "1.25, 1.25"  # not 200 / 80, which is both
    assert shown.loc[("share", "dense"), "verdict"] == "lower"
    partly = results.worth(made(("dense", "mask", "share+mask+bits")))
    assert partly[["added", "to"]].to_numpy().tolist() == [["mask", "dense"]]


def test_where_the_bytes_go(page):
    shown = results.spent_shown(results.points(made()))
    assert shown["stacked"].tolist() == ["bits", "share + bits", "bits*", "mask + bits", "share + mask + bits"]
    assert shown.iloc[0].tolist()[1:] == ["200", "100", "40", "60", "30%"]
    results.shares(made())
    (axes,) = page.figures[-1].axes
    assert sorted(round(bar.get_width(), 6) for bar in axes.patches) == [0.2] * 5 + [0.3] * 5 + [0.5] * 5


def test_costs_follow_the_one_rule():
    dense, total = results.against_dense(made()), results.against_sum(made())
    assert {stack for stack, c in dense.items() if c.verdict == "lower"} == {"bits"}
    assert dense["bits"].difference == pytest.approx(-10)
    # bits alone cost ten points and in a stack none; bits with zero precision cost none either
    assert {stack for stack, c in total.items() if c.difference > 9.9} == {"share+bits"}
    assert total["share+mask"].verdict == "not told apart"
    shown = results.costs(made()).set_index("stacked")
    assert shown.loc["bits"].tolist()[1:] == ["lower", "–", "–"]
    assert results.costs(made(("mask+bits",))).to_numpy().tolist() == [["mask + bits", "–", "–", "–", "–"]]


def test_the_smallest_file_that_is_not_worse_than_dense(page, capsys):
    results.smallest(made(scores=SCORES | {"share+mask+bits": (0.3, 0.3002)}))
    said = capsys.readouterr().out
    assert said.startswith("smallest file: share + mask + bits\n")
    assert "  mask + bits, 80 bytes, 12.5 times smaller\n" in said
    assert results.not_worse(made()) == "share+mask+bits"
    assert results.not_worse(made(scores=SCORES | {"share+mask+bits": (0.3, 0.3002)})) == "mask+bits"
    assert results.not_worse(made(seeds=(0,))) is None  # one seed gives no verdict


def test_avagrad_is_compared_on_both_ends(capsys):
    ends = ("dense", "share+mask+bits")
    better = SCORES | {"share+mask+bits": (0.6, 0.6002)}
    results.avagrad(made(ends) + made(ends, optimizer="AvaGrad", scores=better))
    dense, stacked, extra = capsys.readouterr().out.splitlines()
    assert dense.endswith("not told apart")
    assert stacked.startswith("AvaGrad against SGD, share + mask + bits: +10.0")
    assert extra.startswith("its gain on the stack against its gain on dense: +10.0")


def test_recorded_runs_are_shown_as_far_as_they_go(monkeypatch, page, capsys):
    records = {r["id"]: r for r in made(("dense", "share"), (0,), profile="short")}
    monkeypatch.setattr(results, "find", lambda run: records.get(run.id))
    results.recorded_staircase(results.recorded("short"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "profile short: 2 of 22 runs are recorded"
    assert lines[-2:] == [
        "share against dense: +0.0 points: no verdict",
        "the smallest so far: 2.0 times smaller; accuracy against dense: no verdict",
    ]
    assert (len(page.tables), len(page.figures)) == (1, 1)
    results.recorded_staircase([])
    assert "no staircase yet" in capsys.readouterr().out
