"""Ticket searches and their studies as tables and figures (4.4.2, 4.5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lab import figures
from lab.figures.frontier.state import METHODS, NETWORKS
from lab.runs import Record

from . import curves
from .selection import Point, best_performing, points, search_epochs, sparsest_matching

SEARCHES = ("cs", "imp", "imp-c", "seq-cs", "iss")


def tickets_against_zeros(records: Sequence[Record]) -> None:
    """Accuracy of re-trained tickets against their zeros: a panel a network, a line a search, a mark a round."""
    models = curves.by_network(records)
    labels: dict[str, Any] = {}
    with figures.style():
        fig, axes = plt.subplots(1, len(models))
        for ax, (model, same) in zip(axes, models, strict=True):
            rows = [
                curves.percent(key, p) | {"search": r["id"]}
                for key in SEARCHES
                for r in curves.of_method(same, key)
                for p in points(r)
            ]
            curves.dense_line(ax, same, "control")
            sns.lineplot(
                pd.DataFrame(rows), x="zeros", y="accuracy", hue="method", palette=curves.COLOURS, units="search",
                estimator=None, ax=ax, **curves.DOTS,
            )  # fmt: skip
            ax.set(title=NETWORKS[model], xlabel="zeros (%)", ylabel="test accuracy (%)")
            labels |= {label: line for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
            ax.get_legend().remove()
        fig.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=len(labels))
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Two panels, a residual network and a plain convolutional one: test accuracy of re-trained tickets against "
        "their share of zeros, a line a search and a mark a round. Dotted is the dense network, re-trained alike.",
    )


def searches(records: Sequence[Record]) -> pd.DataFrame:
    """What each search found, by the thesis's two rules (4.3.4), and what it cost in epochs.

    A ticket matches if it is no worse than the control, the dense network re-trained alike.
    """

    def ticket(point: Point | None) -> str:
        return f"{point.sparsity:.1%} zeros, {point.accuracy:.1%} (round {point.round})" if point else "none"

    rows = []
    for model, same in curves.by_network(records):
        control = curves.accuracies(same, "control")
        for key in ("dense", "control"):
            accuracy = curves.spread(curves.accuracies(same, key))
            rows.append({"network": NETWORKS[model], "search": METHODS[key].name, "best performing": accuracy})
        for key in SEARCHES:
            if not (runs := curves.of_method(same, key)):
                continue
            reached = [p for r in runs for p in points(r)]
            cost = search_epochs([int(r["figures"]["epochs"]) for r in runs])
            rows.append(
                {
                    "network": NETWORKS[model],
                    "search": METHODS[key].name,
                    "sparsest matching": ticket(sparsest_matching(reached, mean(control))),
                    "best performing": ticket(best_performing(reached)),
                    "epochs": f"{cost.sequential}, or {cost.parallel} side by side",
                    "runs": str(len(runs)),
                }
            )
    return pd.DataFrame(rows).fillna("–")


def rates_of_imp(records: Sequence[Record]) -> None:
    """Tickets of IMP for each share that a round removes (Figure 4.8): accuracy against zeros, the control dotted."""
    rows = [
        curves.percent("imp", point) | {"a round removes": f"{r['config']['method']['rate']:.0%}"}
        for r in curves.of_method(records, "imp")
        for point in points(r)
    ]
    with figures.style():
        fig, ax = plt.subplots()
        curves.dense_line(ax, records, "control")
        sns.lineplot(
            pd.DataFrame(rows), x="zeros", y="accuracy", hue="a round removes", estimator=None, sort=False,
            palette=[figures.CS, figures.MP, figures.GMP][: len({r["a round removes"] for r in rows})], ax=ax,
            **curves.DOTS,
        )  # fmt: skip
        ax.set(xlabel="zeros (%)", ylabel="test accuracy (%)")
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Test accuracy of IMP's tickets against their share of zeros, a mark a round, a line for each share that "
        "a round removes. A dotted line is the dense network, re-trained alike.",
    )


def study(records: Sequence[Record], option: str) -> pd.DataFrame:
    """Tickets of CS where one ``option`` varies and all else stays (Figures 4.5 to 4.7): zeros and accuracy (%) of the
    last round, and how far they range where the other options are the same."""
    options = ["s_init", "beta_final", "lambda"]
    table = pd.DataFrame({key: r["config"]["method"][key] for key in options} for r in records)
    fixed = [key for key in options if key != option]
    for figure in ("sparsity", "accuracy"):
        name = "zeros" if figure == "sparsity" else figure
        table[name] = [100 * getattr(points(r)[-1], figure) for r in records]
        table[f"range of {name}"] = table.groupby(fixed)[name].transform(lambda values: values.max() - values.min())
    table = table.sort_values([*fixed, option], ignore_index=True).round(dict.fromkeys(table.columns[3:], 1))
    return table.astype(dict.fromkeys(options, str))
