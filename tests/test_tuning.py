"""Searches on a recorded grid: descent by hand, the optuna sampler step by step, and what trials are counted as."""

import dataclasses

import numpy as np
import optuna
import pytest

from lab.experiments.optimizers import grids
from lab.experiments.optimizers import search as experiment
from lab.experiments.optimizers.samplers import (  # fmt: skip
    DIRECT,
    GradientlessSampler,
    Interval,
    Lookup,
    draws,
    median,
    propose,
    radii,
    sampler,
    search,
    study,
    trials_to,
    walks,
)
from lab.figures.grid.recording import grid_recording, grid_state
from lab.utils.errors import LabError

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def bowl():
    x, y = np.meshgrid(np.arange(21), np.arange(21))
    loss = 0.3 + 0.01 * abs(x - 12) + 0.002 * abs(y - 15) + 1e-5 * (x + 2 * y)
    return Lookup(np.logspace(-6, 3, 21), np.logspace(-8, 2, 21), loss)


def test_radii_halve_from_the_largest_to_the_smallest():
    assert radii(1.0, 0.1).tolist() == [1.0, 0.5, 0.25, 0.125]
    with pytest.raises(LabError, match="radii must be 0 < smallest <= radius"):
        radii(0.1, 1.0)


def test_a_proposal_by_hand():
    center, length = np.array([[0.5, 0.5]]), np.array([0.25])
    normal, steps = np.array([[3.0, 4.0]]), np.array([0.4, 0.2])
    assert propose(center, 1, normal, length, steps, False)[0] == pytest.approx(
        [0.5 + 0.4 * 0.6 * 0.5, 0.5 + 0.4 * 0.8 * 0.5]
    )
    assert propose(center, 2, normal, length, steps, True)[0] == pytest.approx([0.5 - 0.2 * 0.5, 0.5])  # first axis
    assert propose(center, 3, normal, length, steps, True)[0] == pytest.approx([0.5, 0.5 - 0.4 * 0.5])  # then the other
    assert propose(center, 1, normal, length, np.array([100.0]), False)[0].tolist() == [1.0, 1.0]  # put back


def test_points_of_a_ball_fill_it_evenly():
    _, normal, length = draws(0, 4000, 2)
    points = propose(np.full((4000, 2), 0.5), 1, normal, length, np.array([0.4]), False) - 0.5
    distance = np.hypot(*points.T)
    assert distance.max() <= 0.4
    assert (distance < 0.4 / np.sqrt(2)).mean() == pytest.approx(0.5, abs=0.03)  # half the area holds half the points
    assert abs(points.mean(axis=0)).max() < 0.01


@pytest.mark.parametrize("name", ["GLD", "CGLD"])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_fast_search_takes_the_sampler_s_steps(bowl, name, seed):
    cells = study(bowl, name, seed, within=-1, proposals=60)
    assert len(cells) > 8
    assert search(bowl, name, len(cells), [seed]).cells[0].tolist() == cells


def test_cgld_changes_one_parameter_in_an_iteration(bowl):
    found = optuna.create_study(sampler=GradientlessSampler(3, coordinate=True))
    found.optimize(bowl.objective, n_trials=1 + 3 * len(radii()))
    rows = [t.params["0 epsilon"] for t in found.trials]
    columns = [t.params["1 alpha"] for t in found.trials]
    k = len(radii())
    assert len(set(columns[1 : 1 + k])) == 1  # epsilon moves first
    assert len(set(rows[1 + k : 1 + 2 * k])) == 1


def test_the_sampler_maximises_too_and_knows_logarithms_and_integers():
    def objective(trial):
        x, n = trial.suggest_float("x", 1e-6, 1e2, log=True), trial.suggest_int("n", 0, 40, step=4)
        assert n % 4 == 0
        trial.suggest_categorical("kind", ["a", "b"])
        return -abs(np.log10(x) + 2) - abs(n - 12)

    found = optuna.create_study(direction="maximize", sampler=GradientlessSampler(0))
    found.optimize(objective, n_trials=120)
    assert found.best_params["n"] == 12
    assert abs(np.log10(found.best_params["x"]) + 2) < 0.5


def test_random_search_takes_as_long_as_it_must(bowl):
    good = int((bowl.gap <= 0.005).sum())
    expected = (bowl.gap.size + 1) / (good + 1)  # drawn without repetition
    assert trials_to(bowl, "random", 0.005, 4000).mean() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("name", DIRECT)
def test_the_gap_never_rises_and_no_cell_is_paid_for_twice(bowl, name):
    found = search(bowl, name, 60, 50)
    assert (np.diff(np.where(np.isfinite(found.gap), found.gap, 9)) <= 0).all()
    for row in found.cells:
        tried = row[row >= 0]
        assert len(set(tried.tolist())) == len(tried)
    reached = trials_to(bowl, name, 0.01, 50)
    until = search(bowl, name, 441, 50, within=0.01).gap <= 0.01 + 1e-12
    assert (np.where(until.any(1), until.argmax(1) + 1.0, np.inf) == reached).all()


@pytest.mark.parametrize("name", ["TPE", "CMA-ES", "GP"])
def test_optuna_s_samplers_search_the_grid(bowl, name):
    cells = study(bowl, name, 0, within=0.02, proposals=80)
    assert bowl.gap.flat[cells[-1]] <= 0.02
    assert cells == study(bowl, name, 0, within=0.02, proposals=80)
    assert trials_to(bowl, name, 0.02, [0])[0] == len(cells)


def test_the_interval_of_a_median():
    assert median(np.arange(1, 102)) == Interval(51.0, 41.0, 61.0, 101)
    assert median(np.array([3.0, np.inf, 1.0])).median == 3
    assert np.isinf(median(np.array([np.inf, np.inf, 1.0])).median)
    source = np.random.default_rng(0)
    inside = [i.low <= 0 <= i.high for i in (median(source.normal(size=25)) for _ in range(400))]
    assert np.mean(inside) >= 0.93
    with pytest.raises(LabError, match="no values"):
        median(np.array([]))


def record(name, seed=0):
    alphas, epsilons = [1e-3, 1e-2, 1e-1], [1e-8, 1e-4]
    cells = [(a, e, None if a == 1e-1 else 0.5 + a, 1e-3) for e in epsilons for a in alphas]
    grid = grid_recording(optimizer=name, network="n", metric="accuracy", alphas=alphas, epsilons=epsilons, cells=cells)
    return {"id": name, "seed": seed, "profile": "quick", "recording": grid, "config": {"training": {}}}


def test_a_diverged_cell_is_as_bad_as_the_worst_and_walks_fit_the_map():
    records = [record("Adam"), record("AvaGrad")]
    lookup = Lookup.of(records, "Adam")
    assert lookup.loss[0].tolist() == pytest.approx([0.499, 0.49, 0.499])
    found = walks(records, seeds=range(2), trials=6)
    assert {(w["optimizer"], w["sampler"]) for w in found} == {
        (o, s) for o in ("Adam", "AvaGrad") for s in ("GLD", "CGLD")
    }
    assert all(len(set(w["trials"])) == len(w["trials"]) for w in found)
    assert grid_state(records, title="t", walks=found)


def test_the_experiment_names_its_grids_and_computes_those_that_are_missing(tmp_path, monkeypatch):
    run, asked = experiment.run("quick", "AvaGrad", "CGLD"), []
    assert run.config["grids"] == [r.id for r in grids.runs("quick") if r.config["method"]["name"] == "AvaGrad"]
    assert [r.id for r in experiment.searched(run)] == run.config["grids"]
    monkeypatch.setattr(experiment, "recorded", lambda grid, device: asked.append(grid.id) or record("AvaGrad"))
    got = experiment.compute(run, None, tmp_path / "c.pt", lambda step: None, lambda: False)
    assert asked == run.config["grids"]
    assert (got["figures"]["cells"], got["figures"]["searches"]) == (6, 1000)
    assert len({r.id for r in experiment.runs("short")}) == 12


def test_a_search_of_a_grid_that_is_not_declared_any_more_says_so_and_data_are_asked_for_early(tmp_path, monkeypatch):
    run = experiment.run("quick", "AvaGrad", "CGLD")
    old = dataclasses.replace(run, config=run.config | {"grids": ["0" * 16]})
    with pytest.raises(
        LabError, match="a grid that CGLD seed=0 searches is not declared any more: record the run anew"
    ):
        experiment.check(old)
    monkeypatch.setattr("lab.runs.BUILD", tmp_path)
    monkeypatch.setenv("LAB_QUICK", "train")
    monkeypatch.setattr(grids, "check", lambda grid: (_ for _ in ()).throw(LabError("no data")))
    with pytest.raises(LabError, match="no data"):
        experiment.check(run)


def test_what_is_wrong_is_one_line(bowl):
    with pytest.raises(LabError, match="unknown sampler 'Magic': choose one of random, GLD"):
        sampler("Magic", 0)
    with pytest.raises(LabError, match="TPE is not run for all seeds at once"):
        search(bowl, "TPE")
    with pytest.raises(LabError, match="there is no grid of 'SGD'"):
        experiment.run("quick", "SGD", "GLD")
