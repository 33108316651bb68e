"""Searches on a recorded grid: descent by hand, the optuna sampler step by step, and what trials are counted as."""

import dataclasses

import numpy as np
import optuna
import pytest

from lab.experiments.optimizers import grids, samplers
from lab.experiments.optimizers import search as search_module
from lab.experiments.optimizers.samplers import (  # fmt: skip
    DIRECT,
    PROPOSALS,
    GradientlessSampler,
    Interval,
    Lookup,
    Search,
    cost_of,
    draws,
    median,
    propose,
    radii,
    sampler,
    search,
    study,
    walks,
)
from lab.experiments.optimizers.search import experiment, searched
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
    different = list(dict.fromkeys(cells))
    assert 8 < len(different) < len(cells)
    fast = search(bowl, name, len(different), [seed])
    assert fast.cells[0].tolist() == different
    assert fast.proposals[0].tolist() == [1 + cells.index(cell) for cell in different]


def test_the_sampler_maximises_too_and_knows_logarithms_and_integers():
    def objective(trial):
        x, n = trial.suggest_float("x", 1e-6, 1e2, log=True), trial.suggest_int("n", 0, 40, step=4)
        assert n % 4 == 0
        trial.suggest_categorical("kind", ["a", "b"])
        return -abs(np.log10(x) + 2) - abs(n - 12)

    study = optuna.create_study(direction="maximize", sampler=GradientlessSampler(0))
    study.optimize(objective, n_trials=120)
    assert study.best_params["n"] == 12
    assert abs(np.log10(study.best_params["x"]) + 2) < 0.5


def points(sampler, objective, trials=40, **options):
    study = optuna.create_study(sampler=sampler, **options)
    study.optimize(objective, n_trials=trials, catch=ZeroDivisionError)
    return [tuple(t.params.values()) for t in study.trials]


RECORDED = {  # the last of ten trials of seed 5 as the chapter's records had them
    False: (0.004465677848373609, 0.9620016504156986),
    True: (0.00046591915140640534, 0.8079407897364937),
}


@pytest.mark.parametrize("coordinate", [False, True])
def test_a_seed_s_points_stay_those_that_were_recorded(coordinate):
    def objective(trial):
        x, y = trial.suggest_float("x", 1e-6, 1e3, log=True), trial.suggest_float("y", 0, 1)
        return (np.log10(x) + 1) ** 2 + (y - 0.9) ** 2

    last = points(GradientlessSampler(5, coordinate), objective, 10)[-1]
    assert last == pytest.approx(RECORDED[coordinate], rel=1e-12)  # exp and log differ in the last bit


def diverges(x, y):
    return float("nan") if x > 0.6 else (x - 0.55) ** 2 + (y - 0.5) ** 2


def is_pruned(x, y):
    if x > 0.6:
        raise optuna.TrialPruned
    return diverges(x, y)


def raises(x, y):
    return 1 / (x <= 0.6) * diverges(x, y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("coordinate", [False, True])
@pytest.mark.parametrize("loss", [diverges, is_pruned, raises])
@pytest.mark.parametrize("seed", range(4))
def test_a_trial_that_failed_or_was_pruned_is_not_tried_again(coordinate, loss, seed):
    def objective(trial):
        return loss(trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1))

    tried = points(GradientlessSampler(seed, coordinate), objective)
    # what leaves the box may meet its border twice
    inside = [point for point in tried if min(point) > 0 and max(point) < 1]
    assert len(set(inside)) == len(inside) > 30
    assert min(diverges(*point) for point in tried if point[0] <= 0.6) < 0.01


def test_failed_starts_lead_to_other_starts_and_a_later_failure_leaves_the_descent_where_it_was():
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        return float("nan") if trial.number in (0, 1, 3) else x

    tried = [x for (x,) in points(GradientlessSampler(0), objective, 6)]
    starts = [float(draws(0, 0, 1, failed)[0][0]) for failed in range(3)]
    assert tried[:3] == starts
    assert len(set(starts)) == 3
    _, normal, length = draws(0, 3, 1, failed=2)
    proposals = [float(propose(np.array(starts[2:]), i + 1, normal[i], length[i], radii(), False)[0]) for i in range(3)]
    assert tried[3:] == proposals


@pytest.mark.parametrize("coordinate", [False, True])
@pytest.mark.parametrize("parts", [(9, 9), (1, 1, 16), (5, 13)])
def test_a_study_in_storage_goes_on_as_it_would_have(coordinate, parts):
    def objective(trial):
        x, y = trial.suggest_float("x", 1e-3, 1, log=True), trial.suggest_int("y", 0, 40)
        kind, size = trial.suggest_categorical("kind", list("abcd")), trial.suggest_categorical("size", [1, 2, 3])
        if trial.number % 5 == 0:
            raise optuna.TrialPruned
        return x + y + "abcd".index(kind) + size

    options = {"storage": optuna.storages.InMemoryStorage(), "study_name": "s", "load_if_exists": True}
    for trials in parts:
        got = points(GradientlessSampler(2, coordinate), objective, trials, **options)
    assert got == points(GradientlessSampler(2, coordinate), objective, sum(parts))
    assert len({(kind, size) for *_, kind, size in got}) > 6


def test_a_trial_that_was_killed_is_made_again():
    def objective(trial):
        return trial.suggest_float("x", 0, 1) + trial.suggest_categorical("kind", [1, 2, 3])

    study = optuna.create_study(sampler=GradientlessSampler(0))
    study.optimize(objective, n_trials=5)
    objective(study.ask())  # never told: its process ended
    study.optimize(objective, n_trials=5)
    got = [tuple(t.params.values()) for t in study.trials]
    assert got[5] == got[6]
    assert got[:5] + got[6:] == points(GradientlessSampler(0), objective, 10)


@pytest.mark.parametrize("coordinate", [False, True])
def test_a_parameter_with_one_value_changes_nothing(coordinate):
    def objective(trial, fixed):
        if fixed:
            trial.suggest_float("a", 0.4, 0.4)
        x = trial.suggest_float("x", 0, 1)
        if fixed:
            trial.suggest_int("w", 3, 3), trial.suggest_categorical("b", ["only"])
        return abs(x - 0.3) + abs(trial.suggest_float("y", 0, 1) - 0.6)

    free = points(GradientlessSampler(0, coordinate), lambda trial: objective(trial, False), 30)
    fixed = points(GradientlessSampler(0, coordinate), lambda trial: objective(trial, True), 30)
    assert fixed == [(0.4, x, 3, "only", y) for x, y in free]


def test_other_parameters_from_trial_to_trial_are_refused_in_one_line():
    def objective(trial):
        names = {1: "x", limit: "xyz"}.get(trial.number, "xy")
        return -9 * (trial.number == 1) + sum(trial.suggest_float(name, 0, 1) for name in names)

    limit = 2
    with pytest.raises(LabError, match="z was not in trial 0 with this range: gradientless descent needs the same"):
        points(GradientlessSampler(0), objective)
    limit = 99
    with pytest.raises(LabError, match="y was not in trial 1: gradientless descent needs the same parameters"):
        points(GradientlessSampler(0), objective)


def test_random_search_takes_as_long_as_it_must(bowl):
    good = int((bowl.gap <= 0.01).sum())
    expected = (bowl.gap.size + 1) / (good + 1)  # drawn without repetition
    cost = cost_of(bowl, "random", 0.01, 4000)
    assert cost.trials.mean() == pytest.approx(expected, rel=0.06)
    assert (cost.proposals == cost.trials).all()


def test_what_a_search_costs_by_hand():
    """The first comes near with its third proposal, its second cell; the other never does."""
    gap, cells = np.array([[0.3, 0.01], [0.3, 0.2]]), np.array([[4, 7], [4, 5]])
    cost = Search(gap, cells, np.array([[1, 3], [1, 2]])).cost(0.02)
    assert cost.trials.tolist() == [2, np.inf]
    assert cost.proposals.tolist() == [3, np.inf]
    assert cost.reached == 0.5


def test_noise_is_half_the_mean_square_of_neighbours_among_good_cells_and_a_redraw_has_it():
    column = [0.30, 0.32, 0.30, 0.32, 0.60, 0.30]  # the fifth diverged; the last has no good neighbour
    lookup = Lookup(np.array([1.0]), np.logspace(-5, 0, 6), np.array(column)[:, None])
    assert lookup.noise == pytest.approx(0.02 / 2**0.5)
    flat = Lookup(lookup.alphas, np.arange(4000), np.random.default_rng(0).normal(0.5, 0.004, (4000, 1)))
    assert flat.noise == pytest.approx(0.004, rel=0.05)
    again = flat.redrawn(np.random.default_rng(1)).loss
    assert (again - flat.loss).std() > 0.004
    assert np.isnan(Lookup(lookup.alphas, lookup.epsilons[:1], lookup.loss[:1]).noise)


@pytest.mark.parametrize("name", DIRECT)
def test_the_gap_never_rises_and_no_cell_is_paid_for_twice(bowl, name):
    result = search(bowl, name, 60, 50)
    assert (np.diff(result.gap) <= 0).all()
    assert (result.proposals <= PROPOSALS).all()
    for row in result.cells:
        tried = row[row >= 0]
        assert len(set(tried.tolist())) == len(tried)


def test_every_sampler_is_cut_off_at_the_same_number_of_proposals(bowl, monkeypatch):
    monkeypatch.setattr(samplers, "PROPOSALS", 5)
    for name in DIRECT:
        assert search(bowl, name, 100, 3).proposals.max() <= 5
        assert np.isinf(cost_of(bowl, name, -1, 3).trials).all()
    assert len(study(bowl, "TPE", 0, within=-1, proposals=samplers.PROPOSALS)) == 5


@pytest.mark.parametrize("name", ["TPE", "CMA-ES", "GP"])
def test_optuna_s_samplers_search_the_grid(bowl, name):
    cells = study(bowl, name, 0, within=0.02, proposals=80)
    assert bowl.gap.flat[cells[-1]] <= 0.02
    cost = cost_of(bowl, name, 0.02, [0])
    assert (cost.trials[0], cost.proposals[0]) == (len(set(cells)), len(cells))


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
    walked = walks(records, seeds=range(2), trials=6)
    assert {(w["optimizer"], w["sampler"]) for w in walked} == {
        (o, s) for o in ("Adam", "AvaGrad") for s in ("GLD", "CGLD")
    }
    assert all(len(set(w["trials"])) == len(w["trials"]) for w in walked)
    assert grid_state(records, title="t", walks=walked)


def test_the_experiment_names_its_grids_and_computes_those_that_are_missing(tmp_path, monkeypatch):
    run, asked = experiment.run("quick", "AvaGrad", "CGLD"), []
    assert run.config["grids"] == [r.id for r in grids.runs("quick") if r.config["method"]["name"] == "AvaGrad"]
    assert [r.id for r in searched(run)] == run.config["grids"]
    monkeypatch.setattr(search_module, "recorded", lambda grid, device: asked.append(grid.id) or record("AvaGrad"))
    got = experiment.compute(run, None, tmp_path / "c.pt", lambda step: None, lambda: False)
    assert asked == run.config["grids"]
    assert (got["figures"]["cells"], got["figures"]["searches"]) == (6, 1000)
    declared = experiment.runs("short")
    assert len({r.id for r in declared}) == 12
    assert {grid.config["data"] for r in declared for grid in searched(r)} == {"cifar10"}  # never the text's grids


def test_a_search_of_a_grid_that_is_not_declared_any_more_says_so_and_data_are_asked_for_early(tmp_path, monkeypatch):
    run = experiment.run("quick", "AvaGrad", "CGLD")
    old = dataclasses.replace(run, config=run.config | {"grids": ["0" * 16]})
    with pytest.raises(
        LabError, match="a grid that CGLD seed=0 searches is not declared any more: record the run anew"
    ):
        experiment.check(old)
    monkeypatch.setenv("LAB_BUILD", str(tmp_path))
    monkeypatch.setenv("LAB_QUICK", "train")
    monkeypatch.setattr(grids.experiment, "check", lambda grid: (_ for _ in ()).throw(LabError("no data")))
    with pytest.raises(LabError, match="no data"):
        experiment.check(run)


def test_what_is_wrong_is_one_line(bowl):
    with pytest.raises(LabError, match="unknown sampler 'Magic': choose one of random, GLD"):
        sampler("Magic", 0)
    with pytest.raises(LabError, match="TPE is not run for all seeds at once"):
        search(bowl, "TPE")
    with pytest.raises(LabError, match="there is no grid of 'SGD'"):
        experiment.run("quick", "SGD", "GLD")
