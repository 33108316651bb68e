"""Chapter 3's figures draw what the records hold, on a tiny network that was really trained and folded."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from tiny_folding import record

from lab import figures, runs
from lab.book.scoreboard import Row
from lab.datasets import thesis
from lab.datasets.shortest_paths import paths
from lab.experiments.claims import Claim, Measured
from lab.experiments.sharing import results as sharing_figures
from lab.figures.folding.recording import similarities


@pytest.fixture(scope="module")
def records():
    found = [record(seed=seed, images=40) for seed in (0, 1)]
    for one in found:  # as the experiments do it: not every fold is fine-tuned
        folds = one["recording"]["folds"]
        for fold in folds[1:-1]:
            fold.pop("score_tuned", None)
        for fold in (folds[0], folds[-1]):
            fold["score_tuned"] = fold["score_bn"]
    return found


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def images(fig):
    return [image.get_array() for axes in fig.axes for image in axes.get_images()]


def test_a_matrix_is_as_opaque_as_its_layers_are_alike():
    similarity = torch.tensor([[1.0, 0.25], [0.25, 1.0]])
    _, axes = plt.subplots()
    sharing_figures.matrix(axes, similarity)
    (image,) = axes.get_images()
    assert np.allclose(image.get_array()[..., 3], similarity)


def test_folds_are_those_of_the_records(records):
    folds = sharing_figures.folds_of(records)
    assert len(folds) == sum(len(one["recording"]["folds"]) for one in records)
    for seed, mine in folds.groupby("seed"):
        recorded = records[seed]["recording"]["folds"]
        assert mine["score"].tolist() == [fold["score"] for fold in recorded]
        assert mine["place"].tolist() == list(range(len(recorded)))
        assert mine["score_tuned"].notna().sum() == 2


def test_costs_join_measured_folds_alone(records):
    folds = sharing_figures.folds_of(records)
    left, right = sharing_figures.costs(folds, soft=1e5).axes
    drawn = {line.get_label(): line for line in left.get_lines()}
    assert list(drawn) == list(sharing_figures.WAYS.values())
    assert drawn["and fine-tuned"].get_linestyle() == "None"
    mean = folds.groupby("layers")["score_bn"].mean()
    assert np.allclose(drawn["BatchNorm re-estimated"].get_ydata(), 100 * (1 - mean))
    assert left.xaxis_inverted()
    assert right.xaxis_inverted()


def test_costs_without_fine_tuning(records):
    folds = sharing_figures.folds_of(records).assign(score_tuned=float("nan"))
    left, _ = sharing_figures.costs(folds, soft=1e5).axes
    assert [line.get_label() for line in left.get_lines()] == ["as folded", "BatchNorm re-estimated"]


def test_matrices_by_moment_and_by_seed(records):
    recording = records[0]["recording"]
    kept = similarities(recording)
    by_moment = images(sharing_figures.moments(recording, columns=2))
    assert len(by_moment) == 2 * len(recording["groups"])
    first, last = by_moment[0], by_moment[1]  # the first group's
    group = next(iter(recording["groups"]))
    assert np.allclose(first[..., 3], kept[0][1][group])
    assert np.allclose(last[..., 3], kept[-1][1][group])
    by_seed = images(sharing_figures.seeds(records))
    assert len(by_seed) == len(records) * len(recording["groups"])
    assert np.allclose(by_seed[len(recording["groups"])][..., 3], similarities(records[1]["recording"])[-1][1][group])
    assert len(images(sharing_figures.blocks(recording, columns=2))) == 2


def test_curves_leave_out_epochs_that_were_not_scored():
    def run(name, *scores):
        return {"config": {"method": {"name": name}}, "curve": {"f1": list(scores), "phase": [1, 1, 2]}}

    runs = [run("SCNN 22, lambda 0.01", 0.1, 0.2, 0.3), run("CNN 22", 0.2, None, 0.4), run("CNN 22", 0.4, None, 0.6)]
    fig = sharing_figures.curves(runs)
    drawn = {line.get_label(): line for line in fig.axes[0].get_lines()}
    assert np.allclose(drawn["CNN 22"].get_ydata(), [0.3, 0.5])
    assert drawn["CNN 22"].get_xdata().tolist() == [1, 3]
    assert drawn["CNN 22"].get_color() == figures.DENSE != drawn["SCNN 22, lambda 0.01"].get_color()


def test_tables_become_points():
    points = pd.DataFrame({"k": [0, 2], "parameters": [4e5, 2e5], "error": [0.3, 0.4], "spread": [0.01, np.nan]})
    printed = pd.DataFrame({"Params (M)": [36.0, 17.0], "Test error": [4.0, 3.75]}, index=["WRN 28-10", "SWRN 28-10-2"])
    ours, theirs = sharing_figures.efficiency(points, printed).axes
    assert [tuple(line.get_ydata()) for line in theirs.get_lines()] == [(4.0,), (3.75,)]
    assert len(ours.containers) == 2
    table = pd.DataFrame({"lambda": [0, 0.01], "similarity": [0.2, 0.9], "accuracy": [0.5, 0.4]})
    table[["accuracy_folded_bn", "accuracy_loop_bn"]] = [[0.5, 0.1], [0.4, 0.4]]
    left, right = sharing_figures.sweep(table).axes
    assert left.get_lines()[0].get_ydata().tolist() == [0.2, 0.9]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["0", "0.01"]
    assert len(right.get_lines()) == 3


def test_grids_and_example_are_drawn_the_same_twice():
    sets = [paths(count=20, distance=distance, seed=0, size=16) for distance in (2, 6)]
    texts = [figures.svg(sharing_figures.grids(sets), "grids") for _ in range(2)]
    assert texts[0] == texts[1]
    chosen = int(sets[1].lengths.argmax())
    pixels = images(sharing_figures.grids(sets))[1]
    inked = torch.from_numpy(np.asarray(pixels[..., 3] > 0))
    assert torch.equal(inked, sets[1].labels[chosen] | sets[1].inputs[chosen].bool().any(0))
    example = sharing_figures.example(torch.eye(5), [0, 1, 0, 1, 2])
    assert ">5</text>" in figures.svg(example, "example")


def run_record(name, seed, accuracy, templates, lam=0.0, parameters=1000.0):
    method = {"name": name, "templates": templates, "lambda": lam}
    known = dict.fromkeys(("experiment", "id", "profile", "state"), "x") | {
        "provenance": dict.fromkeys(("device", "seconds", "commit"))
    }
    figures_of = {"accuracy": accuracy, "parameters": parameters, "similarity": None if templates is None else 0.5}
    return known | {"seed": seed, "config": {"method": method}, "data": {"name": "x"}, "figures": figures_of}


def test_networks_are_means_over_seeds_without_the_regulariser():
    records = [
        run_record("SWRN", 0, 0.5, 2),
        run_record("SWRN", 1, 0.7, 2),
        run_record("SWRN, lambda 1", 0, 0.1, 2, lam=1.0),
        run_record("WRN", 0, 0.6, None, parameters=2000.0),
    ]
    points = sharing_figures.points_of(records)
    assert points["method"].tolist() == ["SWRN", "WRN"]
    assert np.allclose(points["error"], [0.4, 0.4])
    assert points["n"].tolist() == [2, 1]
    shown = sharing_figures.networks(points).to_dict("records")
    assert shown[0]["test error"] == "40.0% ± 14.1%"
    assert shown[1] == {
        "network": "WRN",
        "parameters": "2,000",
        "test error": "40.0%",
        "mean similarity": "–",
        "runs": 1,
    }


def test_depths_and_phases(records):
    folds = sharing_figures.folds_of(records)
    first, middle, last = sharing_figures.depths(folds).to_dict("records")
    whole = [1 - one["recording"]["folds"][0]["score"] for one in records]
    assert first["as folded"] == sharing_figures.percent(np.mean(whole), np.std(whole, ddof=1))
    assert middle["and fine-tuned"] == "–" != last["and fine-tuned"]
    scores = pd.DataFrame({"method": ["SCNN", "CNN", "CNN"], "f1.phase1": [0.9, 0.5, 0.7], "f1": [1, 2, 3]})
    shown = sharing_figures.phases(scores).to_dict("records")
    assert shown == [{"network": "CNN", "phase 1": "0.60 ± 0.14"}, {"network": "SCNN", "phase 1": "0.90"}]


def test_the_thesiss_table_with_what_was_measured_beside():
    claim = Claim("sharing", lambda found: "", lambda profile: [], "3.3", "SWRN 28-4-2", "Test error")
    row = Row(3, "", "reproduced", "", claim, Measured(3.5, 0.1, 2, ("a", "b")), "paper")
    shown = sharing_figures.beside([row], "3.3", {"Test error": "thesis"}).set_index("network")
    assert shown.loc["SWRN 28-4-2"].tolist() == [
        thesis.pivot("3.3", "printed").loc["SWRN 28-4-2", "Test error"],
        "3.50 ± 0.10 (paper, n = 2)",
    ]
    assert shown.loc["DARTS", "this book"].startswith("quoted from Liu")
    assert shown.loc["SWRN 28-10", "this book"] == "–"


def test_larger_networks_as_trained_folded_and_as_loops():
    """The recorded paths: each number is that of the records, and a network without templates has no fold."""
    found = list(runs.recorded("paths", "short"))
    shown = sharing_figures.larger(reversed(found)).set_index(["network", "as"])
    assert shown.index[-1] == ("CNN 22", "trained")  # the fewest weights last, and nothing to fold
    mine = [r["figures"] for r in found if r["config"]["method"]["name"] == "SCNN 22"]
    for form, key in (("trained", "f1"), ("folded", "f1_folded_bn"), ("loops", "f1_loop_tuned")):
        values = [figure[key] for figure in mine]
        assert shown.loc[("SCNN 22", form), "F1"] == f"{np.mean(values):.1%} ± {np.std(values, ddof=1):.1%}"
        assert shown.loc[("SCNN 22", form), "n"] == len(mine)
    assert shown.loc[("SCNN 22", "loops"), "weights"] == f"{mine[0]['parameters_loop']:,.0f}"
