"""Chapter 6's results on made-up records: what is printed, what tables and figures hold, and the checks of its
proofs."""

import numpy as np
import pandas as pd
import pytest

from lab import figures
from lab.baselines.optimizers import TABLE
from lab.experiments.optimizers import (
    convergence,
    gan,
    grids,
    proofs,
    results,
    search,
    tables,
    theory_results,
    tuning_results,
)
from lab.figures.grid.recording import grid_recording
from lab.figures.grid.recording import table as grid_table
from lab.figures.nonconvergence.simulator import RULES, THESIS, simulate
from lab.runs import Run
from lab.utils.errors import LabError

ALPHAS, EPSILONS = [0.1, 1.0, 10.0], [1e-8, 1e-4, 1.0]


def record(run, recording=None, **measured):
    made = {key: getattr(run, key) for key in ("experiment", "id", "profile", "seed", "config")}
    return made | {"state": "finished", "figures": measured} | ({} if recording is None else {"recording": recording})


def grid(name, best):
    """An optimizer's grid whose best alpha at each epsilon is ``best``; the lowest epsilon holds the best cell."""
    run = next(r for r in grids.pair("short") if r.config["method"]["name"] == name)
    cells = [
        (alpha, eps, (0.8 if eps == 1e-8 else 0.7) if alpha == best[i] else 0.5, 1e-4)
        for i, eps in enumerate(EPSILONS)
        for alpha in ALPHAS
    ]
    made = grid_recording(optimizer=name, network="n", metric="accuracy", alphas=ALPHAS, epsilons=EPSILONS, cells=cells)
    return record(run, made, cells=9.0)


@pytest.fixture
def maps():
    return [grid("Adam", [0.1, 0.1, 10.0]), grid("AvaGrad", [1.0, 1.0, 1.0])]


def contest(profile="quick"):
    """Errors by place in the table: on images all alike, on text apart; three seeds a tenth of a step from each
    other."""
    made = []
    for run in tables.contest(profile):
        name, stage = run.config["method"]["name"], run.config["method"]["stage"]
        shift = TABLE.index(name) + (run.seed - 1) / 10
        text = "bptt" in run.config["training"]
        measured = {"bpc": 2 + 0.1 * shift} if text else {"accuracy": 0.5 + 0.001 * ((-1) ** run.seed)}
        epsilon = None if name == "SGD" else 1e-4
        made.append(record(run, {"alpha": 0.1, "epsilon": epsilon}, **measured if stage else {}))
    return made


@pytest.fixture
def shown(monkeypatch):
    """Tables and figures that a call put on the page: frames and SVG."""
    put = []
    monkeypatch.setattr(figures, "table", lambda frame, **marks: put.append(frame))
    monkeypatch.setattr(figures, "show", lambda fig, *, alt, **marks: put.append(figures.svg(fig, alt)))
    return put


@pytest.fixture
def nothing_larger(monkeypatch):
    monkeypatch.setattr(results, "find", lambda run: None)
    monkeypatch.setattr(results, "all_recorded", lambda *which: iter(()))


# -- the toy problem and the rates -------------------------------------------------------------------------------------


def test_the_toy_problem_s_table_figure_and_difference(shown, capsys):
    trace = simulate(RULES, steps=2000, seeds=3, points=8)
    theory_results.where_methods_end(trace)
    theory_results.delayed_against_growing(trace)
    assert shown[0]["method"].tolist() == [rule.name for rule in RULES]
    assert shown[0]["rate α"].tolist()[3] == "5e-05 · ε"
    assert capsys.readouterr().out.startswith("Delayed Adam minus growing eps: ")
    for _ in range(2):
        theory_results.iterates(trace, THESIS.stationary)
    assert shown[1] == shown[2]
    assert all(rule.name in shown[1] for rule in RULES)


def test_rates_are_printed_with_their_bounds(shown, capsys):
    horizons, steps = (4, 16, 64), np.array([4.0, 16.0, 64.0])
    curves = [
        convergence.GradientCurve(rule, horizons, (steps**-power)[:, None] * np.ones(3), bound)
        for rule, power, bound in zip(convergence.RULES[:2], (0.0, 0.5), (None, 10 * steps**-0.5), strict=True)
    ]
    theory_results.slopes(curves)
    level, falling = capsys.readouterr().out.splitlines()
    assert level.endswith("1.00 to 1.00, slope +0.00 [+0.00, +0.00]")
    assert falling.endswith("0.50 to 0.12, slope -0.50 [-0.50, -0.50]; bound 10x higher")
    theory_results.gradient_against_steps(curves)
    assert "Adam, ε = √t: slope -0.50" in shown[0]


# -- maps and searches -------------------------------------------------------------------------------------------------


def test_the_best_rate_at_each_epsilon_and_what_the_dashed_line_predicts(maps, shown, capsys):
    best = results.best_by_epsilon(maps).set_index(["optimizer", "epsilon"])
    assert best.loc["Adam", "alpha"].tolist() == [0.1, 0.1, 10.0]
    assert best.loc[("Adam", 1.0), "predicted"] == pytest.approx(0.1 * (1e-4 + 1) / (1e-4 + 1e-8))
    assert best.loc["AvaGrad", "predicted"].tolist() == [1.0] * 3
    assert best["error"].tolist() == pytest.approx([20, 30, 30] * 2)
    results.line_searches(maps)
    printed = capsys.readouterr().out
    assert "Adam: best alpha spans 2.0 decades of 3 epsilons, from 0.1 to 10; 0.1 is best for 2" in printed
    assert "AvaGrad: best alpha spans 0.0 decades of 3 epsilons, from 1 to 1; 1 is best for 3" in printed
    assert "at ε = 1 the dashed line says α = 1e+03, best is 10" in printed
    results.best_rate_by_epsilon(maps)
    assert "best α at this ε" in shown[0]
    results.plan_of_grids(maps)
    assert "Adam: 9 x small CNN, 1 epoch(s) of cifar10" in capsys.readouterr().out


def test_line_searches_from_each_epsilon_by_hand(maps):
    """From the largest epsilon Adam's search fixes alpha = 10, where the lower rows have an error of 50 and its own
    30."""
    assert results.line_search_losses(grid_table(maps, "Adam")) == pytest.approx([0, 0, 10])
    assert results.line_search_losses(grid_table(maps, "AvaGrad")) == pytest.approx([0, 0, 0])


def test_the_better_end_of_epsilon_is_held_against_the_thesis_s(maps, capsys):
    """The grids' best cell is at 1e-8, with an error of 20; from 1 on it is 30: the opposite of Figures 6.1 and 6.2."""
    results.best_end(maps)
    printed = capsys.readouterr().out
    assert printed.count("best at ε = 1e-08; the small end of ε is better, by 10.0 points") == 2
    assert printed.endswith("the large end is better for both; here the opposite\n")


def costs(least, most):
    """Two rows for each sampler and goal, with these ends of the redrawn medians for (AvaGrad, Adam)."""
    keys = {"median": 10.0, "low": 9.0, "high": 11.0, "reached": 0.5, "proposals": 12.0}
    rows = [
        {"optimizer": name, "sampler": sampler, "points": points, "least": least[i], "most": most[i]} | keys
        for i, name in enumerate(("AvaGrad", "Adam"))
        for sampler in ("random", "GLD", "CGLD")
        for points in tuning_results.goals()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("least", "most", "verdict"),
    [
        ((4, 10), (5, 12), "AvaGrad needs at most half"),
        ((4, 10), (9, 12), "AvaGrad needs fewer, not half"),
        ((4, 8), (9, 12), "not told apart from noise"),
        ((20, 8), (30, 12), "Adam needs fewer"),
        ((4, 10), (np.inf, np.inf), "not told apart from noise"),
    ],
)
def test_a_verdict_on_trials_holds_whatever_the_noise_was(least, most, verdict, capsys):
    tuning_results.avagrad_against_adam(costs(least, most))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"0.5 points, random: AvaGrad 10 (12 proposed), Adam 10 (12 proposed): {verdict}"
    assert lines[-1] == "within 1 point, Adam with GLD over AvaGrad with CGLD: 1.0, thesis 5.7"


def test_what_tuning_costs(maps, shown, capsys):
    needed = tuning_results.trials_needed(maps, redraws=2)
    assert len(needed) == 2 * 3 * 3
    assert needed["reached"].between(0, 1).all()
    assert (needed["proposals"] >= needed["median"]).all()
    tuning_results.trials_by_sampler(needed, maps)
    assert shown[0].columns.tolist()[:5] == [
        "sampler", "to come within", "Adam: trials", "Adam: reached", "Adam: noise drawn anew"
    ]  # fmt: skip
    assert len(shown[0]) == 9
    tuning_results.gap_against_trials(maps)
    assert "trials" in shown[1]
    tuning_results.noise_of_the_grid(maps)
    assert "Adam: noise of a cell nan points, 1 seed(s); cells 1 within 0.5" in capsys.readouterr().out


def test_samplers_side_by_side(shown, capsys):
    """Half of Adam's trials is said only where the intervals of the medians are that far apart."""
    runs = [r for r in search.runs("quick") if r.config["method"]["name"] in ("GLD", "TPE")]
    ends = {"Adam": (10.0, 9.0, 11.0), "AvaGrad": (4.0, 3.0, 4.4)}
    made = [
        record(
            run, searches=8.0, reached=0.75, proposals=12.0, **dict(zip(("median", "low", "high"), end, strict=True))
        )
        for run in runs
        for end in [ends[run.config["method"]["optimizer"]]]
    ]
    for key in ("median", "high", "proposals"):  # TPE on AvaGrad's grid: most searches never come near
        del made[-1]["figures"][key]
    tuning_results.samplers_compared(made, "quick")
    assert shown[0]["AvaGrad"].tolist() == ["4 [3, 4.4], 75% of 8", "most never do, 75% of 8"]
    assert shown[0]["AvaGrad, proposals"].tolist() == ["12", "never"]
    half, fewer = capsys.readouterr().out.splitlines()
    assert half == "AvaGrad needs at most half: 1 of 2 (GLD)"
    assert fewer == "AvaGrad needs fewer: 1 of 2 (GLD)"
    tuning_results.samplers_compared([], "short")
    assert "record --experiment tuning --profile short" in capsys.readouterr().out


def test_further_seeds_of_a_recorded_grid_count(maps, monkeypatch):
    made = {record["id"]: record for record in maps}
    more = [maps[0] | {"id": "x", "seed": 1}, maps[1] | {"id": "y", "seed": 1, "config": {}}]
    monkeypatch.setattr(results, "find", lambda run: made.get(run.id))
    monkeypatch.setattr(results, "all_recorded", lambda *which: iter([*maps, *more]))
    records = results.recorded_grids()
    assert [(r["recording"]["grid"]["optimizer"], r["seed"]) for r in records] == [
        ("Adam", 0), ("AvaGrad", 0), ("Adam", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("recorded", "profile"), [({"paper", "short"}, "paper"), ({"short"}, "short"), (set(), None)])
def test_the_most_demanding_profile_that_is_recorded_as_a_whole(monkeypatch, recorded, profile):
    def find(run: Run):
        missing = run.profile == "paper" and recorded == {"short"} and run.config["method"]["name"] == "Adam"
        return {"profile": run.profile} if run.profile in recorded and not missing else None

    monkeypatch.setattr(results, "find", find)
    assert {r["profile"] for r in results.largest(grids.pair)} == ({profile} if profile else set())


# -- ten optimizers ----------------------------------------------------------------------------------------------------


def test_scores_are_errors_in_percent_and_bits_and_searches_have_none():
    frame = results.scores(contest())
    assert len(frame) == 2 * 3 * len(TABLE)
    assert set(frame["task"]) == {"cifar10", "text"}
    assert frame[frame["task"] == "cifar10"]["score"].between(49.8, 50.2).all()
    assert frame.query("task == 'text' and optimizer == 'SGD'")["score"].tolist() == pytest.approx([1.99, 2.0, 2.01])


def test_the_contest_s_verdicts_follow_welch(nothing_larger, shown, capsys):
    records = contest()
    results.plan_of_contest(records)
    results.contest_verdict(records)
    results.larger_contest(records)
    printed = capsys.readouterr().out
    assert "small CNN, 4 epoch(s) of cifar10-mini; 4 trials each, then 3 seeds" in printed
    assert "text: best SGD (alpha = 0.1), worst AvaGradW; AvaGrad is number 9" in printed
    images, text = printed.split("cifar10: best")[1].split("text: best")[0:2]
    assert images.count("not told apart") == 3
    assert "AvaGrad minus SGD : +0.800" in text
    assert "higher; thesis -0.028" in text
    assert "cifar10: no column of larger runs is recorded as a whole" in printed
    assert printed.endswith("AvaGrad against SGD and Adam: better in 0, worse in 2 of 4 comparisons\n")
    results.scores_by_optimizer(records)
    assert "images: test error" in shown[0]


def test_a_single_seed_has_no_verdict(capsys):
    results.contest_verdict([r for r in contest() if r["seed"] == 0])
    assert capsys.readouterr().out.count("no verdict; thesis") == 6


def test_the_larger_contest_names_its_settings(monkeypatch, capsys):
    made = {r["id"]: r for r in contest("short") if "bpc" in r["figures"]}
    monkeypatch.setattr(results, "find", lambda run: made.get(run.id))
    results.larger_contest([])
    printed = capsys.readouterr().out
    assert "cifar10: no column of larger runs is recorded as a whole" in printed
    assert "text, short: 3xLSTM(128), 10 epoch(s) of moby-dick, 3 seeds" in printed
    assert "SGD with α = 0.1 (the lowest tried)" in printed


def test_the_gan_s_runs_are_shown_with_their_settings(shown, monkeypatch):
    sheets = []
    monkeypatch.setattr(results, "image_sheets", lambda records, titles, *_, **__: sheets.append((records, titles)))
    made = [record(run, fd=30.0 - i) for i, run in enumerate(gan.runs("quick"))]
    made.append(made[0] | {"figures": {"fd": 20.0}})
    results.gans_by_optimizer(made)
    assert shown[0]["optimizer"].tolist() == ["Adam", "AvaGrad", "Adam"]
    assert shown[0]["FD (ResNet-20 features)"].tolist() == [30, 29, 20]
    assert sheets == [([made[2], made[1]], ["Adam", "AvaGrad"])]


def test_the_thesis_s_numbers_stand_beside_ours(nothing_larger, shown, capsys):
    results.beside_the_thesis(contest())
    frame: pd.DataFrame = shown[0].set_index("optimizer")
    assert frame.loc["SGD"].tolist() == ["3.86", "50.0 ± 0.1, quick", "1.403", "2.000 ± 0.010, quick", "133.0", "–"]
    results.places()
    assert "CIFAR-10 WRN 28-10 test error: best Adam; places: AvaGrad 2, Adam 1" in capsys.readouterr().out


# -- the checks of the proofs ------------------------------------------------------------------------------------------


def test_a_verdict_counts_its_cases_and_fails_at_one_that_does_not_hold():
    verdict = proofs.Verdict("Lemma")
    verdict.see(np.array([1.0, 2.0]), np.array([2.0, 2.0]))
    assert str(verdict) == "Lemma: 2 cases hold, ratio 0.75 (median), 1 (largest)"
    with pytest.raises(LabError, match="Lemma does not hold: the left side is above the right by 1"):
        verdict.see(3.0, 2.0)


def test_an_expectation_given_the_past_is_the_mean_over_what_shares_it():
    x = np.arange(8.0)
    assert proofs.given_past(x, 0).tolist() == [3.5] * 8
    assert proofs.given_past(x, 2).tolist() == [0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5]


def test_every_check_holds_and_a_delay_is_needed():
    rng = np.random.default_rng(7)
    games = proofs.random_games(rng, 8)
    for check in (proofs.averages_are_bounded, proofs.direction_times_rates, proofs.growing_epsilon):
        assert all("cases hold" in str(verdict) for verdict in check(games))
    for check in (proofs.cost_of_momentum, proofs.late_rates, proofs.summed_descent):
        assert "cases hold" in str(check(games))
    broken, steps = proofs.violations_without_delay(games)
    assert 0 < broken < steps == 4 * proofs.T
