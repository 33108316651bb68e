"""Chapter 4's contest of one-shot pruning as tables, figures and verdicts, made from records.

A function that draws puts its figure on the page; one that makes a table returns it for :func:`lab.figures.table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lab import figures
from lab.datasets import thesis
from lab.figures.frontier.state import METHODS, NETWORKS
from lab.runs import Record
from lab.statistics import compare

from . import curves
from .selection import CLOSE, Point, matched_pairs, points, sparsest_within

ONE_SHOT = ("mp", "gmp", "cs")
RIVALS = (("pruning", "mp"), ("pruning", "gmp"), ("tickets", "iss"))
"""Whose frontier the thesis compares with that of CS: experiment and method."""


def protocols(records: Sequence[Record]) -> pd.DataFrame:
    """What was trained: a row a network, with its data, the number of methods and runs, and the schedule."""
    rows = []
    for model, same in curves.by_network(records):
        training = same[0]["config"]["training"]
        rows.append(
            {
                "network": NETWORKS[model],
                "data": same[0]["config"]["data"],
                "methods": len({r["config"]["method"]["name"] for r in same}),
                "runs": len(same),
                "epochs a round": training["epochs"],
                "of fine-tuning": training["finetune_epochs"],
                "batch size": training["batch_size"],
            }
        )
    return pd.DataFrame(rows)


def one_shot(records: Sequence[Record]) -> pd.DataFrame:
    """Each point of each method's curve: its setting, the weights it keeps, its accuracy over seeds."""
    return pd.DataFrame(
        {
            "method": METHODS[key].name,
            "setting": curves.setting(point),
            "weights kept": f"{1 - point.sparsity:.1%}",
            "test accuracy": curves.spread(point.accuracies),
            "runs": len(point.seeds),
        }
        for key in ("dense", *ONE_SHOT)
        for point in curves.curve(records, key)
    )


def accuracy_against_zeros(records: Sequence[Record]) -> None:
    """Accuracy against the share of zeros, with a bar of one standard deviation; beside it the thesis's Table 4.1."""
    rows = [curves.percent(key, p, seed) for key in ONE_SHOT for p in curves.curve(records, key) for seed in p.seeds]
    printed = thesis.table("4.1")
    printed = printed[(printed["column"] == "ResNet-20") & printed["row"].isin(curves.COLOURS)]
    with figures.style():
        fig, (measured, thesis_axes) = plt.subplots(1, 2, width_ratios=(3, 2))
        curves.dense_line(measured, records)
        sns.lineplot(
            pd.DataFrame(rows), x="zeros", y="accuracy", hue="method", palette=curves.COLOURS, errorbar="sd",
            err_style="bars", err_kws={"capsize": 3}, ax=measured, **curves.DOTS,
        )  # fmt: skip
        measured.set(xlabel="zeros (%)", ylabel="test accuracy (%)", title="This book")
        measured.legend()
        sns.pointplot(
            printed, x="value", y="row", order=[METHODS[key].name for key in ONE_SHOT], hue="row",
            palette=curves.COLOURS, markers="D", linestyle="none", markersize=6, markerfacecolor="none",
            markeredgewidth=1.5, errorbar=None, legend=False, ax=thesis_axes,
        )  # fmt: skip
        thesis_axes.set(xlim=(75, 100), xlabel="zeros (%)", ylabel="", title="Thesis, Table 4.1")
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Left: test accuracy against the share of zeros for magnitude pruning, gradual magnitude pruning and "
        "Continuous Sparsification, the dense network dotted. Right: the sparsity that the thesis reports for each on "
        "full CIFAR-10 after 200 epochs: MP lowest, GMP in between, CS highest.",
    )


def against_rivals(records: Sequence[Record], floor: float = 0.8, repeated: bool = False) -> pd.DataFrame:
    """Verdicts on CS at matched sparsity, a row a point of a rival: the difference in accuracy with its interval.

    Both methods' points are matched by one rule, :func:`~lab.experiments.sparsity.selection.matched_pairs`.

    Args:
        records: one-shot pruning, ticket searches, or both.
        floor: the least sparsity at which the curves are compared: four fifths, as in the thesis's 4.4.1.
        repeated: only pairs of which both sides have several seeds.
    """
    contests: list[tuple[str, Point, Point | None]] = []
    for experiment, rival in RIVALS:
        for _, same in curves.by_network(r for r in records if r["experiment"] == experiment):
            its, ours = curves.curve(same, rival), curves.curve(same, "cs")
            partner = {id(point): cs for point, cs in matched_pairs(its, ours)}
            contests += [(rival, point, partner.get(id(point))) for point in its if point.sparsity >= floor]
    together = sum(cs is not None and min(len(cs.seeds), len(point.seeds)) > 1 for _, point, cs in contests)
    rows = []
    for rival, point, cs in contests:
        row = {
            "rival": METHODS[rival].name,
            "zeros": f"{point.sparsity:.1%}",
            "accuracy": curves.spread(point.accuracies),
        }
        if cs is None:
            row["verdict"] = f"no point of CS within a factor of {CLOSE:g}"
        else:
            a, b = ([100 * x for x in p.accuracies] for p in (cs, point))
            comparison = compare(a, b, comparisons=max(together, 1))
            row["CS"] = f"{curves.spread(cs.accuracies)} at {cs.sparsity:.1%}"
            row |= {"seeds": f"{len(b)} and {len(a)}", "difference": comparison.interval(1)}
            row["verdict"] = curves.verdict(comparison)
        if not repeated or (cs is not None and min(len(cs.seeds), len(point.seeds)) > 1):
            rows.append(row)
    for experiment, rival in RIVALS:
        reached = [p.sparsity for r in curves.of_method(records, rival, experiment) for p in points(r)]
        if reached and max(reached) < floor:
            rows.append({"rival": METHODS[rival].name, "verdict": f"reaches {max(reached):.0%} of zeros"})
    return pd.DataFrame(rows).fillna("–")


def sparsest_by_profile(records: Iterable[Record]) -> pd.DataFrame:
    """The sparsest point of each method within the thesis's allowance of its dense network, a row a profile."""
    finished = curves.unique(records)
    rows = []
    for profile in [p for p in ("quick", "short", "paper") if any(r["profile"] == p for r in finished)]:
        same = [r for r in finished if r["profile"] == profile and r["experiment"] == "pruning"]
        dense = mean(curves.accuracies(same, "dense"))
        row = {"profile": profile, "dense accuracy": f"{dense:.1%}"}
        for key in ONE_SHOT:
            curve = curves.curve(same, key)
            best = sparsest_within(curve, dense, curves.allowance())
            row[METHODS[key].name] = f"{best.sparsity:.1%} of zeros" if best else f"none of {len(curve)} so accurate"
        rows.append(row)
    return pd.DataFrame(rows)


def annealing(records: Sequence[Record]) -> dict[str, Any]:
    """The annealing figure's state: the recorded run of CS, its dense twin beside."""
    recorded = next(r for r in records if "recording" in r)
    dense = next(r for r in curves.of_method(records, "dense", recorded["experiment"]) if r["seed"] == recorded["seed"])
    return dict(recorded["recording"]) | {"dense": {"accuracy": dense["figures"]["accuracy"]}}
