"""Chapter 3's tables, figures and verdicts show what the records hold: made-up records, one for each declared run."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lab import figures, runs
from lab.book.scoreboard import Row
from lab.datasets import thesis
from lab.datasets.shortest_paths import paths
from lab.experiments.claims import Claim, Measured
from lab.experiments.sharing import images, matrices, path_results, results, shortest_paths
from lab.figures.folding import recording as folding
from lab.statistics import compare

GROUPS = {f"stage{g}": [f"{g}.{i}" for i in range(4)] for g in (1, 2)}
SCORES = [(0.6, 0.6, 0.61), (0.58, 0.6, None), (0.5, 0.57, 0.58)]
"""Of three folds: as folded, with BatchNorm re-estimated, fine-tuned."""


def similarity(near, far):
    """Four layers: neighbours are ``near`` alike, layers two apart ``far``."""
    distance = (torch.arange(4)[:, None] - torch.arange(4)).abs()
    return torch.where(distance == 0, 1.0, torch.where(distance == 2, far, near))


def recording(seed, shared=True):
    matrices = [similarity(0.0, 0.0), similarity(0.1, 0.45), similarity(0.1 + seed / 100, 0.5 + seed / 100)]
    moments = [{"epoch": i, "similarity": {g: folding.pack(m) for g in GROUPS}} for i, m in enumerate(matrices)]
    if not shared:
        return {"groups": GROUPS, "moments": [moments[0], moments[1]]}
    sizes = zip((1.0, 0.8, 0.2), (8, 6, 2), (4000, 3000, 1000), SCORES, strict=True)
    folds = [
        {"level": level, "layers": layers, "parameters": parameters}
        | {way: score - seed / 100 for way, score in zip(results.WAYS, scores, strict=True) if score}
        for level, layers, parameters, scores in sizes
    ]
    return {"groups": GROUPS, "moments": moments, "folds": folds}


def record(run):
    method, seed = run.config["method"], run.seed
    shared = method["templates"] is not None
    scores = {"accuracy": 0.6 - seed / 100 - method["lambda"], "parameters": 2000.0 if shared else 4000.0}
    scores |= {"f1": 0.9 - seed / 10} | {f"f1.phase{p}": 0.9 - seed / 10 for p in range(1, 6)}
    if shared:
        scores["similarity"] = 0.5
    curve = {"epoch": [1, 2, 3], "f1": [0.2 + seed / 10, None, 0.4 + seed / 10], "phase": [1, 1, 2]}
    record = {"id": run.id, "experiment": run.experiment, "profile": run.profile, "seed": seed, "state": "finished"}
    record |= {"config": run.config, "data": {"name": run.config["data"]}, "figures": scores, "curve": curve}
    record["provenance"] = {"device": "a CPU", "seconds": 1.0, "commit": None}
    return record | {"recording": recording(seed, shared)}


RECORDS = [record(run) for run in images.pictured("quick")]
GRIDS = [record(run) for run in shortest_paths.runs("quick")]
SHARED = [r for r in RECORDS if r["id"] in {run.id for run in images.shared("quick")}]


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What reaches the page: figures, and tables as lists of rows."""
    page = []
    monkeypatch.setattr(figures, "show", lambda fig, **about: page.append(fig))
    monkeypatch.setattr(figures, "table", lambda frame, **about: page.append(frame.to_dict("records")))
    monkeypatch.setattr(figures, "mark", lambda records: page.append([r["id"] for r in records]))
    yield page
    plt.close("all")


def meshes(fig):
    return [axes.collections[0].get_array().reshape(-1) for axes in fig.axes]


def test_every_printed_parameter_count_is_the_counted_one(shown, capsys):
    results.parameter_counts()
    assert capsys.readouterr().out.count("all of them right") == 4
    (table,) = shown
    assert {"network": "SWRN 28-10-2", "data": "cifar10", "parameters": "17,125,630"}.items() <= table[2].items()
    assert table[2]["printed, in millions"] == "17 (3.1), 17.1 (3.3)"


def test_networks_are_means_over_seeds_without_the_regulariser(shown):
    results.networks(RECORDS)
    rows = {row["network"]: row for row in shown[0]}
    assert list(rows) == ["SWRN 28-1-1", "SWRN 28-1-3", "WRN 28-1"]
    assert rows["SWRN 28-1-3"]["test error"] == rows["WRN 28-1"]["test error"] == "41.0% ± 1.0%"
    assert (rows["SWRN 28-1-1"]["test error"], rows["SWRN 28-1-1"]["runs"]) == ("40.0%", 1)
    assert (rows["WRN 28-1"]["mean similarity"], rows["WRN 28-1"]["parameters"]) == ("–", "4,000")


def test_a_verdict_is_that_of_the_one_rule(shown, capsys):
    results.shared_against_plain(RECORDS)
    text = capsys.readouterr().out
    assert str(compare([40, 41, 42], [40, 41, 42])) in text
    assert "50% of the parameters" in text
    assert len(shown[0]) == 6


def test_error_against_parameters_has_both_books(shown):
    results.error_against_parameters(RECORDS)
    measured, printed = shown[0].axes
    assert sorted(len(line.get_xdata()) for line in printed.get_lines()) == [2, 8]
    ends = {tuple(np.round(np.array(line.get_ydata(), dtype=float), 6)) for line in measured.get_lines()}
    assert any(41.0 in line for line in ends)


def test_only_measured_folds_are_joined(shown):
    results.error_of_folds(RECORDS)
    left, right = shown[0].axes
    lines = [line for line in left.get_lines() if len(line.get_xdata()) == 3]
    assert {round(line.get_ydata()[0], 6) for line in lines} == {51.0, 44.0}  # folded to two layers, in both ways
    dots = left.collections[-1].get_offsets()
    assert len(dots) == 3 * 2
    assert left.xaxis_inverted()
    assert right.xaxis_inverted()


def test_what_folds_cost(shown, capsys):
    results.price_of_folds(RECORDS)
    none, halfway, loop = shown[0]
    assert none["BatchNorm as trained"] == "41.0% ± 1.0%"
    assert (halfway["and fine-tuned"], loop["and fine-tuned"]) == ("–", "43.0% ± 1.0%")
    text = capsys.readouterr().out
    assert "up to 7.0% of test error,\n  at 2 layers" in text
    assert str(compare([42, 43, 44], [39, 40, 41])) in text
    results.smallest_folds(RECORDS, allowed=(0.0, 0.03))
    assert [row["seed 1"] for row in shown[1]] == ["6 layers, 75% (0.80)", "2 layers, 25% (0.20)"]


def test_matrices_by_moment_and_by_seed_with_the_drawn_ones_beside(shown):
    matrices.matrices_over_training(RECORDS)
    matrices.matrices_of_seeds(RECORDS)
    by_moment, by_seed = map(meshes, shown)
    assert (len(by_moment), len(by_seed)) == (6, 12)
    assert np.allclose(by_moment[0], torch.eye(4).flatten(), atol=1e-4)
    assert np.allclose(by_moment[2], similarity(0.1, 0.5).flatten(), atol=1e-4)
    assert np.allclose(by_seed[-2], torch.eye(4).flatten(), atol=1e-4)
    assert np.allclose(by_seed[-1], similarity(0.12, 0.52).flatten(), atol=1e-4)
    assert [axes.get_title("left") for axes in shown[1].axes[:4]] == [
        "stage1\ndrawn",
        "trained",
        "stage2\ndrawn",
        "trained",
    ]


def test_without_sharing_there_are_matrices_too(shown, capsys):
    matrices.matrices_with_and_without_sharing(RECORDS)
    plain, _, shared, _ = meshes(shown[0])
    assert np.allclose(plain, similarity(0.1, 0.45).flatten(), atol=1e-4)
    assert np.allclose(shared, similarity(0.1, 0.5).flatten(), atol=1e-4)
    assert capsys.readouterr().out == "without sharing the most similar layers reach 0.45, as drawn 0.00\n"
    matrices.matrices_with_and_without_sharing(
        [r | {"recording": {}} if "SWRN" not in r["config"]["model"] else r for r in RECORDS]
    )
    assert "not recorded" in capsys.readouterr().out


def test_the_null_of_layers_left_by_hand():
    """With one template all layers are one; orthonormal rows are never alike; six rows of three can be by chance."""
    assert set(matrices.left_by_chance(((6, 1),), draws=5)) == {1}
    assert set(matrices.left_by_chance(((3, 3), (4, 1)), draws=5)) == {4}
    left = np.array(matrices.left_by_chance(((6, 3),) * 3))
    assert left.mean() + 8 == pytest.approx(23.65, abs=0.15)  # SWRN 28-1-3 with its eight other layers
    assert matrices.left_by_chance(((6, 3),) * 3, draws=400) == tuple(left)  # drawn from one seed


def test_training_is_told_from_what_chance_had_drawn(shown, capsys):
    matrices.growth_of_the_pattern(RECORDS)
    text = capsys.readouterr().out
    trained = [np.mean(similarity(0.1 + s, 0.5 + s)[~torch.eye(4, dtype=bool)].numpy()) for s in (0, 0.01, 0.02)]
    assert text.splitlines()[0].startswith(
        f"mean similarity of two layers, trained: {np.mean(trained):.2f} ± 0.01; as drawn: 0.00"
    )
    assert text.splitlines()[1].endswith("higher")
    assert "trained, two layers apart: 0.51 ± 0.01; one layer apart: 0.11 ± 0.01" in text
    assert "(a run each): as drawn 1, 1, 1; trained 1, 1, 1" in text
    assert "layers left at 0.9, of 8 (a run each): 8, 8, 8" in text
    assert text.splitlines()[-1].endswith("epoch 1.0 of 2")


def test_lambda_costs_what_it_costs_under_one_treatment(shown):
    results.loops_against_lambda(RECORDS)
    results.price_of_lambda(RECORDS)
    left, right = shown[0].axes
    assert left.get_lines()[0].get_ydata().tolist() == [0.5] * 4
    assert np.allclose(right.get_lines()[0].get_ydata(), 40)  # re-estimated, as the folds beside it are
    expected = {"λ": "0.01", "similarity": "0.50", "layers left at 0.9": "8", "one layer a stage costs": "+3.0%"}
    assert shown[1][-1] == expected


def test_phases_and_their_longest_ways(shown):
    sets = [paths(count=20, distance=distance, seed=0, size=16) for distance in (2, 6)]
    path_results.phases_drawn(sets)
    path_results.longest_ways(sets)
    assert [row["points apart, up to"] for row in shown[0]] == [2, 6]
    number = int(sets[1].lengths.argmax())
    (points, obstacles), ways = sets[1].inputs[number], sets[1].labels[number]
    cells = meshes(shown[1])[1]
    for code, count in ((3, points.sum()), (2, ways.sum() - points.sum()), (1, obstacles.sum())):
        assert (cells == code).sum() == count


def test_f1_through_the_phases_leaves_out_epochs_that_were_not_scored(shown, capsys):
    path_results.f1_through_the_phases(GRIDS)
    axes = shown[0].axes[0]
    lines = axes.get_lines()
    assert lines[0].get_xdata().tolist() == [1, 3]
    assert np.allclose(lines[0].get_ydata(), [0.25, 0.45])
    assert lines[0].get_color() == figures.DENSE != lines[1].get_color()
    path_results.f1_of_phases(GRIDS)
    assert [row["network"] for row in shown[1]] == ["CNN 22", "SCNN 22", "SCNN 22, lambda 0.01"]
    assert shown[1][0]["phase 1"] == "0.25 ± 0.07"
    assert capsys.readouterr().out.count(str(compare([0.4, 0.5], [0.4, 0.5], comparisons=2))) == 2


def test_a_phase_ends_with_its_last_epoch_or_where_scores_jump_with_the_mean_of_two(shown, capsys):
    curve = {"epoch": [1, 2, 3], "f1": [0.2, 0.4, 0.9], "phase": [1, 1, 1]}
    config = {**GRIDS[0]["config"], "training": {"epochs": 3}}  # nothing is re-estimated
    for records, end in (
        (GRIDS, "0.90"),
        ([r | {"config": config | {"method": r["config"]["method"]}} for r in GRIDS], "0.65"),
    ):
        shown.clear()
        path_results.f1_of_phases([record | {"curve": curve} for record in records])
        assert shown[0][0]["phase 1"] == f"{end} ± 0.00"
    path_results.speed_in_the_first_phase([record | {"curve": curve} for record in GRIDS])
    said = capsys.readouterr().out
    assert "mean F1 of SCNN 22 over the first phase: 0.50 ± 0.00; CNN 22: 0.50 ± 0.00" in said
    assert "mean F1 of SCNN 22, lambda 0.01 over the first phase: 0.50 ± 0.00; SCNN 22: 0.50 ± 0.00" in said


def test_a_network_whose_layers_stayed_apart_contradicts_the_theses_blocks(shown, capsys):
    path_results.matrices_of_the_deep(GRIDS)
    assert len(meshes(shown[0])) == 3
    path_results.loops_on_paths(GRIDS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Figure 3.12 is contradicted")
    assert lines[1:3] == [
        "  SCNN 22, seed 0: the most similar two 0.50; 4 groups of 4 layers at 0.9",
        "  SCNN 22, seed 1: the most similar two 0.51; 4 groups of 4 layers at 0.9",
    ]
    moments = [
        {"epoch": e, "similarity": {g: folding.pack(similarity(0.0, far)) for g in GROUPS}}
        for e, far in ((0, 0.0), (2, 0.95))
    ]
    path_results.loops_on_paths([record | {"recording": {"groups": GROUPS, "moments": moments}} for record in GRIDS])
    assert capsys.readouterr().out.startswith("Figure 3.12 has a counterpart:\n")


def test_figures_are_drawn_the_same_twice(shown):
    for _ in range(2):
        results.error_of_folds(RECORDS)
        matrices.worked_example(similarity(0.1, 0.9), [0, 1, 0, 1])
    first, example, again, example_again = (figures.svg(fig, "words") for fig in shown)
    assert first == again
    assert example == example_again
    assert ">4</text>" in example


def test_the_thesiss_table_with_what_was_measured_beside(shown):
    claim = Claim("sharing", lambda records: "", lambda profile: [], "3.3", "SWRN 28-4-2", "Test error")
    row = Row(3, "", "reproduced", "", claim, Measured((3.43, 3.57), ("a", "b")), "paper")
    results.beside([row], "3.3", by_error=True)
    rows = {row["network"]: row for row in shown[0]}
    printed = thesis.pivot("3.3", "printed").loc["SWRN 28-4-2", "Test error"]
    assert (rows["SWRN 28-4-2"]["thesis"], rows["SWRN 28-4-2"]["this book"]) == (printed, "3.50 ± 0.10 (paper, n = 2)")
    assert rows["DARTS"]["this book"].startswith("quoted from Liu")
    assert rows["SWRN 28-10"]["this book"] == "–"


def test_every_form_of_a_network_is_scored_under_the_same_treatments(shown, capsys):
    """Unfolded 60, 60, 61; loops 50, 57, 58 (as folded, re-estimated, fine-tuned), a point less each seed."""
    results.larger_networks([*SHARED, *(r for r in RECORDS if r["config"]["model"] == "WRN 28-1")])
    table = pd.DataFrame(shown[-1]).set_index(["network", "form"])
    assert table.loc[("SWRN 28-1-3", "not folded")].tolist() == [
        "2,000",
        "59.0% ± 1.0%",
        "59.0% ± 1.0%",
        "60.0% ± 1.0%",
        3,
    ]
    assert table.loc[("SWRN 28-1-3", "one layer a group")].tolist() == [
        "1,000",
        "49.0% ± 1.0%",
        "56.0% ± 1.0%",
        "57.0% ± 1.0%",
        3,
    ]
    assert table.loc[("WRN 28-1", "not folded"), "and fine-tuned"] == "–"  # where it is not recorded
    assert str(compare([58, 57, 56], [61, 60, 59])) in capsys.readouterr().out  # both fine-tuned


def test_what_is_recorded_of_the_larger_paths(shown, capsys):
    records = results.recorded("paths")
    assert {record["profile"] for record in records} in ({"short"}, {"paper"})
    results.larger_networks(records)
    table = pd.DataFrame(shown[-1]).set_index(["network", "form"])
    loops = [
        record["figures"]["f1_loop_tuned"] for record in records if record["config"]["method"]["name"] == "SCNN 22"
    ]
    assert (
        table.loc[("SCNN 22", "one layer a group"), "and fine-tuned"]
        == f"{np.mean(loops):.1%} ± {np.std(loops, ddof=1):.1%}"
    )
    path_results.loops_on_paths(records)
    assert "Figure 3.12" in capsys.readouterr().out


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_what_chapter_3_says_it_has_not_shown_is_shown_by_no_record(profile, capsys):
    """It says so in words: no shared network better than its plain twin, no loop on the paths by itself."""
    shared, plain = (
        [r["figures"]["accuracy"] for run in declared(profile) if (r := runs.find(run))]
        for declared in (images.shared, images.plain)
    )
    assert not (shared and plain) or compare(shared, plain).verdict != "higher"
    grids = [record for run in shortest_paths.runs(profile) if (record := runs.find(run))]
    if grids:
        path_results.loops_on_paths(grids)
        assert capsys.readouterr().out.startswith("Figure 3.12 is contradicted")
