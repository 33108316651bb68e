"""What Chapter 6 shows of trainings: maps over (alpha, epsilon), and ten optimizers compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display

from lab import figures
from lab.baselines.optimizers import TABLE
from lab.datasets import thesis
from lab.experiments.beyond_classification.results import image_sheets
from lab.figures.grid.recording import table as grid_table
from lab.figures.grid.widget import GridWidget
from lab.runs import Record, Run, find
from lab.runs import recorded as all_recorded
from lab.statistics import Comparison, compare
from lab.training import scores as training_scores

from . import grids, samplers, tables
from .claims import COLUMNS, setting

COLOURS = {"SGD": figures.SGD, "Adam": figures.ADAM, "AvaGrad": figures.AVAGRAD, "AvaGradW": figures.AVAGRAD}
PAIRS = (("Adam", "SGD"), ("AvaGrad", "SGD"), ("AvaGrad", "Adam"))
"""The differences that the page states for every contest."""

LARGE = ("paper", "short")
"""Profiles whose runs are recorded and come with the book, the most demanding first."""


def largest(declared: Callable[[str], Sequence[Run]]) -> list[Record]:
    """Records of all runs that ``declared(profile)`` lists, at the most demanding profile that has them all; else
    empty."""
    for profile in LARGE:
        records = [find(run) for run in declared(profile)]
        if records and all(records):
            return [record for record in records if record]
    return []


def recorded_grids(part: str = "images") -> list[Record]:
    """Adam's and AvaGrad's most demanding recorded grids, with every further seed of them that is recorded."""
    records = largest(lambda profile: grids.pair(profile, part))
    configs, ids = [record["config"] for record in records], {record["id"] for record in records}
    profile = records[0]["profile"] if records else ""
    more = [r for r in all_recorded("grids", profile) if r["id"] not in ids and r["config"] in configs]
    return records + more


# -- maps over (alpha, epsilon) ----------------------------------------------------------------------------------------


def plan_of_grids(records: Iterable[Record]) -> None:
    """A line a grid: how many trainings of which network, for how long, on which data."""
    for record in records:
        config, cells = record["config"], record["figures"]["cells"]
        training = f"{config['training']['epochs']} epoch(s) of {config['data']}"
        print(f"{config['method']['name']:>8}: {cells:.0f} x {config['model']}, {training}")


def best_by_epsilon(records: Sequence[Record]) -> pd.DataFrame:
    """A row an optimizer and epsilon: the best alpha, the validation error in percent there, and the rate that is
    predicted.

    The prediction is the dashed line of the map: the best cell's rate, times (√v + ε) for Adam (6.6), unchanged for
    AvaGrad.
    """
    rows = []
    for name in grids.OPTIMIZERS:
        grid = grid_table(records, name)
        best = np.unravel_index(np.nanargmin(grid.mean), grid.mean.shape)
        root = grid.root_v[best]
        for epsilon, errors in zip(grid.epsilons, grid.mean, strict=True):
            if np.isfinite(errors).any():
                reach = 1.0 if name == "AvaGrad" else (root + epsilon) / (root + grid.epsilons[best[0]])
                lowest = int(np.nanargmin(errors))
                rows.append((name, epsilon, grid.alphas[lowest], 100 * errors[lowest], grid.alphas[best[1]] * reach))
    return pd.DataFrame(rows, columns=["optimizer", "epsilon", "alpha", "error", "predicted"])


def best_rate_by_epsilon(records: Sequence[Record]) -> None:
    """Left the best alpha for each epsilon, right the validation error there; one line an optimizer.

    A reader sees Adam's best rate rise with a large epsilon, and AvaGrad's stay in a narrow band.
    """
    best = best_by_epsilon(records)
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2)
        for ax, y in ((left, "alpha"), (right, "error")):
            sns.lineplot(best, x="epsilon", y=y, hue="optimizer", palette=COLOURS, marker="o", markeredgewidth=0, ax=ax)
        left.set(xscale="log", yscale="log", xlabel="ε", ylabel="", title="best α at this ε")
        right.set(xscale="log", xlabel="ε", ylabel="", title="validation error at that α (%)")
        left.legend(title=None)
        right.get_legend().remove()
    alt = (
        "Left: the best learning rate for each epsilon. Adam's rises with epsilon over many decades once epsilon "
        "is large; AvaGrad's stays within a narrow band. Right: the validation error reached with that rate, for both."
    )
    figures.show(fig, profile=records[0]["profile"], runs=records, alt=alt)


def best_end(records: Sequence[Record]) -> None:
    """For each optimizer where its best cell lies, and what the other end of epsilon loses; then the thesis's finding.

    The ends are epsilons up to 1e-4, and from 1 on. The unit is points of error, or bits per character.
    """
    text = records[0]["recording"]["grid"]["metric"] == "BPC"
    scale, unit, digits = (1, "bits per character", 3) if text else (100, "points", 1)
    thesis_end = "small" if text else "large"
    agree = []
    for name in grids.OPTIMIZERS:
        grid = grid_table(records, name)
        lowest = scale * np.nanmin(grid.mean, axis=1)
        small, large = lowest[grid.epsilons <= 1e-4].min(), lowest[grid.epsilons >= 1].min()
        end = "small" if small < large else "large"
        agree.append(end == thesis_end)
        best, noise = grid.epsilons[lowest.argmin()], scale * samplers.Lookup.of(records, name).noise
        known = "unknown, no two good cells are neighbours" if np.isnan(noise) else f"{noise:.{digits}f}"
        print(
            f"{name:>8}: best at ε = {best:g}; the {end} end of ε is better, by {abs(large - small):.{digits}f} {unit}"
        )
        print(f"{'':>8}  ({len(grid_seeds(records, name))} seed(s); noise of a cell {known})")
    agreement = "the same" if all(agree) else "the opposite" if not any(agree) else "in one of two the same"
    figure = "6.3 and 6.4" if text else "6.1 and 6.2"
    print(f"thesis, Figures {figure}: the {thesis_end} end is better for both; here {agreement}")


def line_search_losses(grid: Any) -> np.ndarray[Any, Any]:
    """Points of error lost by tuning alpha at one epsilon and then epsilon at that alpha, for each epsilon to start
    from."""
    error = np.where(np.isfinite(grid.mean), grid.mean, np.nanmax(grid.mean))
    return np.array([100 * (error[:, row.argmin()].min() - error.min()) for row in error])


def line_searches(records: Sequence[Record]) -> None:
    """For each optimizer: how far its best alpha wanders, where the prediction misses it most, what two line searches
    lose."""
    for name, best in best_by_epsilon(records).groupby("optimizer", sort=False):
        grid = grid_table(records, str(name))
        lost = line_search_losses(grid)
        print(wandering(records, str(name)))
        print(f"{'':>8}  two line searches ({len(lost) + len(grid.alphas)} trials) lose {np.median(lost):.1f} points")
        print(f"{'':>8}  in the median over starts, {lost.max():.1f} at worst")
        last = best.iloc[-1]
        predicted, chosen = f"{last['predicted']:.2g}", f"{last['alpha']:g}"
        print(f"{'':>8}  at ε = {last['epsilon']:g} the dashed line says α = {predicted}, best is {chosen}")
    alpha, epsilons = (thesis.fact(id).value for id in ("separable-best-alpha", "separable-alpha"))
    print(f"thesis: AvaGrad's best alpha is {alpha:g} for all {epsilons:.0f} epsilons")


def wandering(records: Sequence[Record], name: str) -> str:
    """One line: over how many decades an optimizer's best alpha moves, from the smallest epsilon to the largest."""
    best = best_by_epsilon(records).query("optimizer == @name")["alpha"]
    rates, times = np.unique(best, return_counts=True)
    usual = f"{rates[times.argmax()]:g} is best for {times.max()}"
    span = f"best alpha spans {np.log10(best.max() / best.min()):.1f} decades of {len(best)} epsilons"
    return f"{name:>8}: {span}, from {best.iloc[0]:g} to {best.iloc[-1]:g}; {usual}"


def text_map() -> None:
    """The moving map over the largest recorded grids on text, with a search; where none is recorded, how to record
    one. Below it where the best cells lie and how far the best alpha moves."""
    records = recorded_grids("text")
    if not records:
        print("The grids on text are declared and not recorded here. They take about an hour:")
        print("python -m lab record --experiment grids --profile short")
        return
    title, walks = "Adam and AvaGrad on text: bits per character", samplers.walks(records, seeds=[0])
    display(GridWidget.from_records(records, title=title, walks=walks))
    best_end(records)
    print(*(wandering(records, name) for name in grids.OPTIMIZERS), sep="\n")


def grid_seeds(records: Sequence[Record], name: str) -> list[int]:
    """The seeds of one optimizer's grids."""
    return [record["seed"] for record in records if record["recording"]["grid"]["optimizer"] == name]


# -- ten optimizers ----------------------------------------------------------------------------------------------------

CONTESTS = {"cifar10": "images: test error (%)", "text": "text: bits per character"}
"""The columns that this page repeats, and what their scores are. Lower is better in both."""


def scores(records: Iterable[Record]) -> pd.DataFrame:
    """A row a test run: task, optimizer, seed, and its test error in percent or bits per character. Searches are left
    out."""
    rows = []
    for record in records:
        config, measured = record["config"], record["figures"]
        if config["method"]["stage"] == "test":
            text = "bpc" in measured
            score = measured["bpc"] if text else 100 * (1 - measured["accuracy"])
            task = "text" if text else config["data"].removesuffix("-mini")
            rows.append((task, config["method"]["name"], record["seed"], score))
    return pd.DataFrame(rows, columns=["task", "optimizer", "seed", "score"])


def plan_of_contest(records: Sequence[Record]) -> None:
    """A line a task: network, epochs, data, how many trials each search had and how many seeds."""
    for task, rows in scores(records).groupby("task", sort=False):
        record = _first(records, str(task), "SGD")
        trials = len(tables.search_of(Run.of(record)).config["method"]["trials"])
        seeds = rows["seed"].nunique()
        print(f"{_plan(record)}; {trials if record['profile'] != 'paper' else 441} trials each, then {seeds} seeds")


def scores_by_optimizer(records: Sequence[Record]) -> None:
    """Every seed's score as a tick and the mean as a dot, an optimizer a row; left is better."""
    frame = scores(records)
    palette = {name: COLOURS.get(name, "black") for name in TABLE}
    with figures.style():
        fig, axes = plt.subplots(1, 2, sharey=True)
        for ax, (task, title) in zip(axes, CONTESTS.items(), strict=True):
            shared = {"x": "score", "y": "optimizer", "hue": "optimizer", "order": TABLE, "palette": palette, "ax": ax}
            rows = frame[frame["task"] == task]
            sns.stripplot(rows, **shared, marker="|", linewidth=1.5, size=9, jitter=False, alpha=0.7)
            sns.pointplot(rows, **shared, linestyle="none", markersize=5, errorbar=None)
            ax.set(title=title, xlabel="", ylabel="")
    shown = [record for record in records if record["config"]["method"]["stage"] == "test"]
    alt = (
        "For each of ten optimizers, each at its best setting, the mean over seeds and every seed's value. Left: test "
        "error on images. Right: bits per character on text. Left is better in both."
    )
    figures.show(fig, profile=records[0]["profile"], runs=shown, alt=alt)


def contest_verdict(records: Sequence[Record]) -> None:
    """For each task of the contest: the best and the worst optimizer, AvaGrad's place, and three differences with
    intervals."""
    for task, rows in scores(records).groupby("task", sort=False):
        means = rows.groupby("optimizer")["score"].mean().sort_values(kind="stable")
        alpha, epsilon = tables.settings(_first(records, str(task), str(means.index[0])))
        chosen = f"alpha = {alpha:g}" + ("" if epsilon is None else f", eps = {epsilon:g}")
        place = list(means.index).index("AvaGrad") + 1
        print(f"{task}: best {means.index[0]} ({chosen}), worst {means.index[-1]}; AvaGrad is number {place}")
        _print_differences(str(task), rows)


def larger_contest(records: Sequence[Record]) -> None:
    """The three differences at the most demanding profile that is recorded as a whole, and the settings that searches
    chose. The last line counts AvaGrad's comparisons with SGD and Adam, there and in ``records``: won and lost."""
    verdicts = _verdicts_on_avagrad(records)
    for task in CONTESTS:
        larger = largest(partial(tables.column, task=task))
        if not larger:
            print(f"{task}: no column of larger runs is recorded as a whole")
            continue
        rows, verdicts = scores(larger), verdicts + _verdicts_on_avagrad(larger)
        print(f"{task}, {larger[0]['profile']}: {_plan(_first(larger, task, 'SGD'))}, {rows['seed'].nunique()} seeds")
        _print_differences(task, rows)
        for name in ("SGD", "Adam", "AvaGrad", "AdaBound"):
            print(f"  {name:>8} with {setting(_first(larger, task, name))}")
    better, worse = verdicts.count("lower"), verdicts.count("higher")
    print(f"AvaGrad against SGD and Adam: better in {better}, worse in {worse} of {len(verdicts)} comparisons")


def gans_by_optimizer(records: Sequence[Record]) -> None:
    """A row a run: optimizer, setting and distance to real images; below, what the best run of each optimizer makes
    of eight noise vectors."""
    methods = [record["config"]["method"] for record in records]
    table = pd.DataFrame(methods)[["name", "alpha", "epsilon"]].rename(columns={"name": "optimizer"})
    table[training_scores.NAME] = [record["figures"]["fd"] for record in records]
    table["seed"] = [record["seed"] for record in records]
    profile = records[0]["profile"]
    figures.table(table, profile=profile, runs=records)
    best = table.groupby("optimizer", sort=False)[training_scores.NAME].idxmin()
    alt = f"Eight generated images of each optimizer: {', '.join(best.index)}. Profile {profile}."
    image_sheets([records[i] for i in best], list(best.index), alt, share=0.25)


def beside_the_thesis(records: Sequence[Record]) -> None:
    """A table, an optimizer a row: the thesis's number and this book's from its most demanding runs, for images, text
    and a GAN."""
    columns = {"images": ("cifar10", *COLUMNS["cifar10"]), "text": ("text", *COLUMNS["text"])}
    columns["GAN"] = ("gan", "6.1", "CIFAR-10 GGAN FID")
    table: dict[str, dict[str, str]] = {name: {"optimizer": name} for name in TABLE}
    for title, (task, number, column) in columns.items():
        printed = thesis.table(number)
        printed = printed[printed["column"] == column].set_index("row")["printed"]
        for name, row in table.items():
            row[f"{title}, thesis"] = printed.get(name, "–")
            row[f"{title}, here"] = _fid(name) if task == "gan" else _measured(records, task, name)
    figures.table(pd.DataFrame(table.values()))


def places() -> None:
    """A line a column of Tables 6.1 and 6.2: who is best in the thesis, and AvaGrad's and Adam's places."""
    for number in ("6.1", "6.2"):
        printed = thesis.pivot(number)
        ranks = printed.rank()
        for column in printed:
            first = ", ".join(printed.index[ranks[column] == ranks[column].min()])
            avagrad, adam = ranks.loc["AvaGrad", column], ranks.loc["Adam", column]
            print(f"{column:>32}: best {first}; places: AvaGrad {avagrad:.2g}, Adam {adam:.2g}")


# -- parts of the above ------------------------------------------------------------------------------------------------


def _first(records: Iterable[Record], task: str, name: str) -> Record:
    """The first test run of an optimizer on a task."""
    return next(r for r in records if r["config"]["method"]["name"] == name and list(scores([r])["task"]) == [task])


def _plan(record: Record) -> str:
    config = record["config"]
    return f"{config['model']}, {config['training']['epochs']} epoch(s) of {config['data']}"


def _difference(rows: pd.DataFrame, name: str, other: str) -> Comparison:
    a, b = (rows.loc[rows["optimizer"] == optimizer, "score"].tolist() for optimizer in (name, other))
    return compare(a, b, comparisons=len(PAIRS))


def _verdicts_on_avagrad(records: Sequence[Record]) -> list[str]:
    """The verdicts of its comparisons with SGD and Adam, task by task."""
    tasks = scores(records).groupby("task")
    return [_difference(rows, "AvaGrad", other).verdict for _, rows in tasks for other in ("SGD", "Adam")]


def _print_differences(task: str, rows: pd.DataFrame) -> None:
    number, column = COLUMNS[task]
    for name, other in PAIRS:
        printed = thesis.value(number, name, column) - thesis.value(number, other, column)
        difference = _difference(rows, name, other)
        stated = f"{difference.interval(3)}, {difference.verdict}"
        print(f"  {name:>7} minus {other:<4}: {stated}; thesis {printed:+.3f}")


def _mean(values: Sequence[float], profile: str) -> str:
    digits = 1 if np.mean(values) > 10 else 3
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}, {profile}"


def _measured(records: Sequence[Record], task: str, name: str) -> str:
    """Mean and spread of the most demanding profile that has this optimizer; else of the page's own runs."""
    larger = [[record for run in tables.column(level, task, name) if (record := find(run))] for level in LARGE]
    chosen = next((level for level in [*larger, records] if level), [])
    rows = scores(chosen)
    values = rows.loc[(rows["task"] == task) & (rows["optimizer"] == name), "score"].tolist()
    return _mean(values, chosen[0]["profile"])


def _fid(name: str) -> str:
    """The best recorded FID of an optimizer's settings, if there is one."""
    for level in LARGE:
        records = [r for r in all_recorded("ggan", level) if r["config"]["method"]["name"] == name]
        if values := [r["figures"]["fid"] for r in records if "fid" in r["figures"]]:
            return f"{min(values):.1f}, {level}"
    return "–"
