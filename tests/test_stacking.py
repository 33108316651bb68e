"""Chapter 7's tables and verdicts against cases worked out by hand; its figures draw what the records hold."""

import math

import matplotlib.pyplot as plt
import pytest

from lab.experiments.combining import results as stacking
from lab.experiments.combining.stack import COMBINATIONS
from lab.utils.errors import LabError

# by combination: bytes, accuracy of seeds 0 and 1
SIZES = {"dense": 1000, "share": 500, "mask": 250, "bits": 200, "share+mask": 125, "share+bits": 125, "mask+bits": 80}
SIZES |= {"share+mask+bits": 50}
SCORES = {combination: (0.50, 0.52) for combination in COMBINATIONS} | {"bits": (0.40, 0.42)}


def record(combination, accuracy, seed=0, optimizer="SGD"):
    figures = {"accuracy": accuracy, "file_bytes": float(SIZES[combination]), "zeros": 0.5 * ("mask" in combination)}
    if "bits" in combination:
        size = SIZES[combination]
        figures |= {"bits": 2.0, "payload_bytes": 0.5 * size, "map_bytes": 0.2 * size, "rest_bytes": 0.3 * size}
    method = {"name": combination, "combination": combination, "optimizer": optimizer}
    return {"id": f"{combination}{seed}{optimizer}", "seed": seed, "config": {"method": method}, "figures": figures}


def made(combinations=COMBINATIONS, seeds=(0, 1)):
    return [record(c, SCORES[c][seed], seed) for c in combinations for seed in seeds]


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_points_are_means_over_seeds_in_the_order_of_the_combinations():
    found = stacking.points([*reversed(made()), record("dense", 0.6, optimizer="AvaGrad")])
    assert found["combination"].tolist() == ["dense", *COMBINATIONS]  # AvaGrad's beside SGD's
    assert found["optimizer"].tolist()[:2] == ["SGD", "AvaGrad"]
    first = found.iloc[0]
    assert first["accuracy"] == pytest.approx(0.51)
    assert first["spread"] == pytest.approx(math.sqrt(2) / 100)
    assert (first["n"], first["bits"], first["ratio"]) == (2, 32.0, 1.0)
    last = found.iloc[-1]
    assert (last["ratio"], last["bits"], last["zeros"]) == (20.0, 2.0, 0.5)


def test_the_table_says_spread_and_ratio_only_where_there_is_one():
    shown = stacking.table(stacking.points(made(("share", "mask"), seeds=(0,)) + made(("bits",))))
    assert shown["stacked"].tolist() == ["share", "mask", "bits"]
    assert shown["test accuracy"].tolist() == ["50.0 % (n = 1)", "50.0 % (n = 1)", "41.0 ± 1.4 % (n = 2)"]
    assert shown["ratio"].tolist() == ["–"] * 3  # no dense file to compare with
    assert shown["bits"].tolist() == ["32.00", "32.00", "2.00"]


def test_optimizers_stand_beside_each_other_where_both_were_tried():
    both = [*made(), *(record("dense", a, seed, "AvaGrad") for seed, a in enumerate((0.6, 0.64)))]
    shown = stacking.optimizers(stacking.points(both))
    assert shown[["stacked", "optimizer", "test accuracy"]].to_numpy().tolist() == [
        ["dense", "SGD", "51.0 ± 1.4 % (n = 2)"],
        ["dense", "AvaGrad", "62.0 ± 2.8 % (n = 2)"],
    ]
    assert "AvaGrad" not in stacking.table(stacking.points(both)).to_string()
    assert len(stacking.table(stacking.points(both))) == len(COMBINATIONS)


def test_no_record_is_an_empty_table():
    assert stacking.points([]).empty
    assert stacking.table(stacking.points([])).empty


def test_the_path_ends_at_the_smallest_file_and_leaves_out_what_is_not_recorded():
    assert stacking.path(stacking.points(made())) == ["dense", "share", "share+mask", "share+mask+bits"]
    assert stacking.path(stacking.points(made(("dense", "share", "mask", "mask+bits")))) == [
        "dense",
        "mask",
        "mask+bits",
    ]
    assert stacking.path(stacking.points(made(("dense", "share+mask+bits")))) == ["dense", "share+mask+bits"]
    assert stacking.path(stacking.points(made(("dense",)))) == ["dense"]
    assert stacking.path(stacking.points(made(("share",)))) == []
    with pytest.raises(LabError, match="record the dense network first"):
        stacking.staircase(made(("share",)))


def test_the_staircase_draws_each_step_of_the_records():
    size, score = stacking.staircase(made()).axes
    levels = sorted({float(y) for c in size.collections for y in c.get_segments()[0][:, 1]})
    assert levels == [50.0, 125.0, 500.0, 1000.0]
    assert size.get_yscale() == "log"
    assert [t.get_text() for t in score.get_xticklabels()] == ["dense", "+ share", "+ mask", "+ bits"]
    assert [t.get_text().split("\n")[1] for t in size.texts] == ["1.0×", "2.0×", "8.0×", "20.0×"]
    drawn = {round(float(y), 6) for line in score.get_lines() for y in line.get_ydata()}
    assert drawn == {50.0, 51.0, 52.0}
    assert stacking.steps(made()).startswith("dense: 1.0 kB, 51.0%; share: 0.5 kB")
    skipping = stacking.staircase(made(("dense", "share+mask+bits"))).axes[1]
    assert [t.get_text() for t in skipping.get_xticklabels()] == ["dense", "+ share + mask + bits"]


def test_products_by_hand():
    stacks = stacking.products(stacking.points(made())).set_index("combination")
    assert stacks.loc["share+mask"].tolist() == [8.0, 8.0, 1.0]  # twice and four times
    assert stacks.loc["share+bits"].tolist() == [10.0, 8.0, 0.8]
    assert stacks.loc["share+mask+bits"].tolist() == [40.0, 20.0, 0.5]
    assert set(stacks.index) == {c for c in COMBINATIONS if "+" in c}
    partly = stacking.products(stacking.points(made(("dense", "mask", "bits", "mask+bits", "share+mask"))))
    assert partly["combination"].tolist() == ["mask+bits"]
    assert stacking.products(stacking.points(made(("mask", "bits", "mask+bits")))).empty


def test_what_is_kept_is_said_by_seed_and_only_if_seeds_agree():
    changed = record("share+bits", 0.5, seed=1)
    changed["figures"]["file_bytes"] = 100.0  # the whole product
    kept = stacking.kept_by_seed([r for r in made() if r["id"] != changed["id"]] + [changed])
    assert kept.loc["share+bits"].tolist() == [0.8, 1.0]
    assert kept.loc["share+mask+bits"].tolist() == [0.5, 0.5]
    assert [stacking.bond(row) for row in ([0.8, 0.7], [0.95, 1.05], [1.2, 1.3])] == ["fight", "multiply", "help"]
    assert stacking.bond(kept.loc["share+bits"]) == "can not tell"


def test_what_a_verb_is_worth_alone_and_as_the_last():
    worth = stacking.worth(stacking.points(made())).set_index("verb")
    assert worth.loc["share"].tolist() == [2.0, 80 / 50]
    assert worth.loc["mask"].tolist() == [4.0, 125 / 50]
    assert worth.loc["bits"].tolist() == [5.0, 125 / 50]
    partly = stacking.worth(stacking.points(made(("dense", "mask", "share+mask+bits")))).set_index("verb")
    assert partly.loc["mask", "alone"] == 4.0
    assert partly.isna().sum().sum() == 5


def test_the_figure_of_products_and_of_shares_draw_their_tables():
    stacks = stacking.products(stacking.points(made()))
    (axes,) = stacking.multiplied(stacks).axes
    expected, measured = (line.get_xdata().tolist() for line in axes.get_lines())
    assert expected == stacks["expected"].tolist()
    assert measured == stacks["measured"].tolist()
    assert [t.get_text() for t in axes.texts] == [f"{kept:.0%}" for kept in stacks["kept"]]
    split = stacking.spent(stacking.points(made()))
    assert split["combination"].tolist() == ["bits", "share+bits", "mask+bits", "share+mask+bits"]
    (axes,) = stacking.shares(split).axes
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [50.0] * 4 + [20.0] * 4 + [30.0] * 4


def test_verdicts_by_hand():
    found = stacking.points(made())
    spread, freedom = stacking.pooled(found)
    assert (spread, freedom) == (pytest.approx(math.sqrt(2) / 100), 8)
    lost = stacking.against(found, "bits")
    assert lost.gap == pytest.approx(-0.10)
    # two means of two seeds each: Student's 2.306 for 8 degrees, times the spread, times sqrt(1/2 + 1/2)
    assert lost.margin == pytest.approx(2.306 * math.sqrt(2) / 100, rel=1e-3)
    assert lost.word == "below"
    assert stacking.against(found, "mask").word == "can not tell"
    # three of four points count once; dense counts twice for three methods
    sum_of_three = stacking.interplay(found, "share+mask+bits")
    assert sum_of_three.gap == pytest.approx(0.51 - 0.51 - 0.51 - 0.41 + 2 * 0.51)
    assert sum_of_three.margin == pytest.approx(
        2.306 * math.sqrt(2) / 100 * math.sqrt((1 + 1 + 1 + 1 + 4) / 2), rel=1e-3
    )
    assert sum_of_three.word == "above"
    assert str(lost) == "-10.0 ± 3.3 points: below"


def test_the_table_of_verdicts_holds_each_stack_once():
    shown = stacking.verdicts(stacking.points(made())).set_index("stacked")
    assert shown.index.tolist() == [stacking.words(c) for c in COMBINATIONS[1:]]
    assert shown.loc["bits"].tolist() == ["-10.0 ± 3.3", "below", "–", "–"]
    assert shown.loc["share + mask + bits"].tolist()[2:] == ["+10.0 ± 6.5", "above"]
    lone = stacking.verdicts(stacking.points(made(("mask+bits",)))).set_index("stacked")
    assert lone.loc["mask + bits"].tolist() == ["–"] * 4


def test_without_repeated_seeds_or_without_a_record_there_is_no_verdict():
    single = stacking.points(made(seeds=(0,)))
    verdict = stacking.against(single, "bits")
    assert (verdict.margin, verdict.word) == (None, "can not tell")
    assert str(verdict) == "-10.0 points: can not tell"
    assert stacking.smallest_level(single) is None
    assert stacking.against(stacking.points(made(("dense",))), "bits") is None
    assert stacking.interplay(stacking.points(made(("dense", "share", "share+mask"))), "share+mask") is None


def test_the_smallest_level_stack_passes_over_what_is_below_dense(monkeypatch):
    assert stacking.smallest_level(stacking.points(made()))["combination"] == "share+mask+bits"
    monkeypatch.setitem(SCORES, "share+mask+bits", (0.30, 0.32))
    assert stacking.smallest_level(stacking.points(made()))["combination"] == "mask+bits"


def test_with_one_seed_the_smallest_that_measured_no_less_is_found(monkeypatch):
    for name, value in (("share+mask+bits", 0.49), ("mask+bits", 0.50), ("share+mask", 0.53)):
        monkeypatch.setitem(SCORES, name, (value, value))
    single = stacking.points(made(seeds=(0,)))
    assert stacking.smallest_no_lower(single)["combination"] == "mask+bits"  # as good is good enough
    monkeypatch.setitem(SCORES, "dense", (0.6, 0.6))
    assert stacking.smallest_no_lower(stacking.points(made(seeds=(0,)))) is None
    assert stacking.smallest_no_lower(stacking.points(made(("mask",)))) is None


def test_sizes_in_words():
    assert [stacking.kilobytes(b) for b in (1_089_000, 61_234)] == ["1.09 MB", "61.2 kB"]
