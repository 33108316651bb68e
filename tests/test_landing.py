"""The start page's generated parts: from made-up records follows the row that they deserve; a missing figure is
named."""

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lab import runs
from lab.book import landing, scoreboard
from lab.experiments.sparsity import pruning
from lab.utils.errors import LabError

PLACE = {
    "source": "0", "commit": None, "dirty": None, "torch": "2.13", "cuda": None, "python": "3.11", "device": "a CPU",
    "precision": "float32", "threads": 1, "seconds": 60.0, "recorded": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


def record(name, accuracy, sparsity, profile="short", **options):
    run = pruning.run(profile, name, **options)
    figures = {"accuracy": accuracy, "sparsity": sparsity, "sparsity.conv": sparsity}
    return runs.write(run, "finished", {"figures": figures}, PLACE)


def test_the_most_demanding_profile_speaks():
    record("dense", 0.90, 0.0, seed=0), record("cs", 0.89, 0.8, seed=0, s_init=-0.05)
    profile, words, behind = landing.effect("pruning", landing._sparsity)
    assert (profile, len(behind)) == ("short", 2)
    assert words.replace("\N{NO-BREAK SPACE}", " ") == "80.0 % of the weights are 0; accuracy 89.0 %, dense 90.0 %"
    for seed, accuracy in ((0, 0.95), (1, 0.93)):
        record("dense", 0.94, 0.0, "paper", seed=seed), record("cs", accuracy, 0.9, "paper", seed=seed, s_init=-0.01)
    profile, words, behind = landing.effect("pruning", landing._sparsity)
    assert (profile, len(behind)) == ("paper", 4)
    assert "94.0 ± 1.4 %, dense 94.0 ± 0.0 %" in words.replace("\N{NO-BREAK SPACE}", " ")


def test_one_number_is_followed_by_commands_that_name_its_run():
    record("dense", 0.90, 0.0)
    one = record("cs", 0.89, 0.8, s_init=-0.05)
    text = landing.example()
    assert f"data/runs/pruning/{one['id']}.json" in text
    assert f"--run {one['id']}" in text
    value = next(row.measured.value for row in scoreboard.board(runs.recorded()) if row.measured and row.measured.runs)
    assert f"{value:.3g} %" in text


def test_what_the_scoreboard_says_comes_from_its_rows():
    said = landing.page(f"Before. {landing.STATES}", {})
    assert said == f"Before. {scoreboard.sentence(scoreboard.board([]))}"
    assert "0 reproduced" not in said


def test_without_any_record_the_page_says_so():
    assert landing.example() == "No claim of the thesis has a recorded run yet."


def test_a_chapter_without_its_figure_is_named():
    nb = new_notebook(cells=[new_code_cell("", outputs=[new_output("display_data", {"text/html": "<p>none</p>"})])])
    with pytest.raises(LabError, match="Chapter 4's AnnealingWidget"):
        landing.figure("04", nb)
    assert landing.page("no marker", {}) == "no marker"
