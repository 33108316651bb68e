"""Chapter 3's figures and tables: similarity matrices, what a fold costs, the sweep of lambda, the paths task.

From records to what :func:`lab.figures.show` and :func:`lab.figures.table` take. ``recording`` is what :func:`lab.figures.folding.recording.folding_recording` made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb

from lab import figures, runs
from lab.datasets import thesis
from lab.figures.folding.recording import similarities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from lab.book.scoreboard import Row
    from lab.datasets.shortest_paths import Paths
    from lab.runs import Record

THIRD = figures.AVAGRAD
"""Beside sharing's gold and the plain network's grey: what stays furthest from both, for every reader's eyes."""

WAYS = {"score": "as folded", "score_bn": "BatchNorm re-estimated", "score_tuned": "and fine-tuned"}
"""The scores of a recorded fold, in words."""


def folds_of(records: Iterable[Record]) -> pd.DataFrame:
    """The recorded folds, a row each: ``seed``, ``place`` (0 is the network unfolded), ``last`` (the run's last place), ``level``,
    ``layers`` and ``parameters`` left, and ``score``, ``score_bn``, ``score_tuned`` (NaN where not measured)."""
    rows = []
    for record in records:
        folds = record["recording"]["folds"]
        for place, fold in enumerate(folds):
            known = {key: fold.get(key) for key in ("level", "layers", "parameters", *WAYS)}
            rows.append({"seed": record["seed"], "place": place, "last": len(folds) - 1} | known)
    return pd.DataFrame(rows).astype(dict.fromkeys(WAYS, float))


def matrix(axes: Axes, similarity: Tensor, ticks: bool = True) -> None:
    """Draw a similarity matrix ``(L, L)``: the fuller the colour, the more alike. Fits a light page and a dark one."""
    layers = len(similarity)
    pixels = np.empty((layers, layers, 4))
    pixels[..., :3] = to_rgb(figures.SHARING)
    pixels[..., 3] = similarity
    axes.imshow(pixels, extent=(0.5, layers + 0.5, layers + 0.5, 0.5), interpolation="none")
    axes.grid(False)
    axes.tick_params(length=0)
    step = 1 if layers < 6 else 5 if layers < 20 else 20
    shown = [1, *range(step, layers + 1, step)][step == 1 :] if ticks else []
    axes.set(xticks=shown, yticks=shown)


def example(similarity: Tensor, groups: Sequence[int]) -> Figure:
    """The worked example (3.15) to (3.18): its matrix, and its chain of layers before and after folding."""
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, width_ratios=(2, 3), figsize=(6.4, 2.7))
        matrix(left, similarity)
        left.set(title="Similarity", xlabel="layer", ylabel="layer")
        colours = [figures.SHARING, THIRD, figures.DENSE]
        layers = list(range(len(groups)))
        for y, places in ((1.0, layers), (0.0, [groups.index(g) for g in sorted(set(groups))])):
            for x in places:
                right.scatter(x, y, s=420, color=colours[groups[x]], zorder=3)
                right.text(x, y - 0.02, str(x + 1), color="white", ha="center", va="center", weight="bold", zorder=4)
            for a, b in pairwise([-0.9, *places, len(groups) - 0.1]):
                _arrow(right, (a, y), (b, y))
        _arrow(right, (1, 0), (0, 0), bend=-0.8, color=figures.SHARING, linewidth=2)
        right.text(0.5, -0.72, "once, then on", ha="center", color=figures.SHARING)
        right.set(xlim=(-1, len(groups)), ylim=(-0.9, 1.5), title="Five layers, folded to three")
        right.axis("off")
    return fig


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0, **look: Any) -> None:
    look = {
        "color": "black",
        "arrowstyle": "-|>",
        "connectionstyle": f"arc3,rad={bend}",
        "shrinkA": 13,
        "shrinkB": 13,
    } | look
    axes.annotate("", end, start, arrowprops=look)


def efficiency(points: pd.DataFrame, printed: pd.DataFrame) -> Figure:
    """Test error against size. ``points``: ``k`` (templates, 0 for none), ``parameters``, ``error``, ``spread``; ``printed``: (S)WRN rows of Table 3.1."""
    with figures.style():
        fig, (ours, theirs) = plt.subplots(1, 2)
        for shared, colour, label in ((False, figures.DENSE, "WRN"), (True, figures.SHARING, "SWRN")):
            mine = points[(points["k"] > 0) == shared]
            size, error, spread = mine["parameters"] / 1e3, 100 * mine["error"], 100 * mine["spread"].fillna(0)
            ours.errorbar(size, error, spread, color=colour, capsize=3, label=label, **figures.BOOK)
            rows = printed[[row.split()[0] == label for row in printed.index]]
            theirs.plot(rows["Params (M)"], rows["Test error"], color=colour, **figures.THESIS | {"linestyle": ""})
        ours.set(title="This book", xlabel="parameters (thousands)", ylabel="test error (%)")
        ours.legend()
        theirs.set(title="Thesis, Table 3.1", xlabel="parameters (millions)", xscale="log")
        theirs.set_xticks([10, 20, 50, 100], labels=["10", "20", "50", "100"])
        theirs.xaxis.set_minor_formatter("")
    return fig


def costs(folds: pd.DataFrame, soft: float) -> Figure:
    """What folds cost: test error against layers left and parameters left. ``folds`` from :func:`folds_of`; ``soft``: parameters of the soft network."""
    looks = {"score": (figures.DENSE, ":"), "score_bn": (figures.SHARING, "-"), "score_tuned": (THIRD, "")}
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(6.4, 3.6))
        for way, (colour, line) in looks.items():
            known = folds.dropna(subset=[way])
            error = 100 * (1 - known[way])
            if known.empty:
                continue
            if line:
                by = error.groupby(known["layers"]).agg(["mean", "min", "max"])
                left.fill_between(by.index, by["min"], by["max"], color=colour, alpha=0.2, linewidth=0)
                left.plot(by.index, by["mean"], color=colour, linestyle=line, label=WAYS[way])
            else:  # only some folds were fine-tuned: no line may join them
                left.plot(known["layers"], error, "o", color=colour, label=WAYS[way])
            look = {"color": colour, "linestyle": line, "linewidth": 1, "marker": "" if line else "o"}
            for _, one in known.groupby("seed"):
                right.plot(one["parameters"] / 1e3, error[one.index], **look)
        right.axvline(soft / 1e3, color="black", linewidth=0.8, linestyle="--")
        left.set(xlabel="layers left", ylabel="test error (%)", title="Mean and range")
        right.set(xlabel="parameters left (thousands)", title="Each seed")
        for axes in (left, right):
            axes.invert_xaxis()
        fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def moments(recording: Mapping[str, Any], columns: int = 5) -> Figure:
    """Similarity matrices over training: a row a group, ``columns`` moments, the first and the last among them."""
    kept = similarities(recording)
    chosen = sorted({round(i) for i in np.linspace(0, len(kept) - 1, columns)})
    rows = [[kept[i][1][group] for i in chosen] for group in recording["groups"]]
    return _table(rows, list(recording["groups"]), [f"epoch {round(kept[i][0], 1):g}" for i in chosen])


def seeds(records: Sequence[Record]) -> Figure:
    """Similarity matrices after training: a row a seed, a column a group."""
    last = [similarities(record["recording"])[-1][1] for record in records]
    rows = [list(by_group.values()) for by_group in last]
    return _table(rows, [f"seed {record['seed']}" for record in records], list(last[0]))


def _table(matrices: Sequence[Sequence[Tensor]], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    across, down = len(columns), len(rows)
    with figures.style():
        fig, axes = plt.subplots(down, across, figsize=(6.4, 5.8 * down / across + 0.3), squeeze=False)
        for r, line in enumerate(matrices):
            for c, similarity in enumerate(line):
                matrix(axes[r][c], similarity, ticks=c == 0)
                axes[r][c].set(xticks=[])
                if r == 0:
                    axes[r][c].set_title(columns[c], fontsize=10)
            axes[r][0].set(ylabel=rows[r])
    return fig


def sweep(table: pd.DataFrame) -> Figure:
    """What lambda does: ``table`` from :func:`lab.runs.table`, a row a lambda, with the figures of :mod:`lab.experiments.sharing.images`."""
    place = range(len(table))
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.6))
        left.plot(place, table["similarity"], color=figures.SHARING, **figures.BOOK)
        left.set(ylim=(0, 1.05), ylabel="mean similarity", title="How alike")
        for column, label, colour in (
            ("accuracy", "trained", figures.DENSE),
            ("accuracy_folded_bn", "folded at 0.9", figures.SHARING),
            ("accuracy_loop_bn", "one layer a stage", THIRD),
        ):
            right.plot(place, 100 * (1 - table[column]), color=colour, label=label, **figures.BOOK)
        right.set(ylabel="test error (%)", title="At what price")
        for axes in (left, right):
            axes.set_xticks(list(place), [f"{x:g}" for x in table["lambda"]])
            axes.set(xlabel="λ")
        fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def grids(sets: Sequence[Paths]) -> Figure:
    """Of each set of the paths task the grid with the longest way: obstacles, query points, and the cells to be found."""
    with figures.style():
        fig, every = plt.subplots(1, len(sets), figsize=(6.4, 2.5), squeeze=False)
        for axes, some in zip(every[0], sets, strict=True):
            number = int(some.lengths.argmax())
            points, obstacles = some.inputs[number].bool()
            pixels = np.zeros((*points.shape, 4))
            for cells, colour, alpha in (
                (obstacles, figures.DENSE, 0.6),
                (some.labels[number] & ~points, figures.SHARING, 0.65),
                (points, THIRD, 1),
            ):
                pixels[cells.numpy()] = (*to_rgb(colour), alpha)
            axes.imshow(pixels, interpolation="none")
            axes.set(xticks=[], yticks=[], title=f"up to {some.distance} apart")
            axes.spines[["top", "right"]].set_visible(True)
            axes.grid(False)
    return fig


def curves(records: Sequence[Record]) -> Figure:
    """Test F1 over the epochs of the curriculum, a line a method with its seeds' range; dotted lines between phases."""
    names = list(dict.fromkeys(record["config"]["method"]["name"] for record in records))
    colours = {name: _ink(name) for name in names}
    with figures.style():
        fig, axes = plt.subplots(figsize=(6.4, 3.6))
        for name in sorted(names):
            mine = [r for r in records if r["config"]["method"]["name"] == name]
            score = np.array([[np.nan if v is None else v for v in r["curve"]["f1"]] for r in mine])
            seen = ~np.isnan(score).any(axis=0)
            epochs, score = np.flatnonzero(seen) + 1, score[:, seen]
            axes.plot(epochs, score.mean(axis=0), color=colours[name], label=name)
            axes.fill_between(epochs, score.min(axis=0), score.max(axis=0), color=colours[name], alpha=0.2, linewidth=0)
        for change in np.flatnonzero(np.diff(records[0]["curve"]["phase"])):
            axes.axvline(change + 1.5, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel="epoch", ylabel="test F₁ of the phase", ylim=(0, 1.02))
        axes.set(title="Dotted: the points move further apart")
        fig.legend(loc="outside lower center", ncols=3)
    return fig


def _ink(name: str) -> str:
    return THIRD if "lambda" in name else figures.SHARING if name.startswith("S") else figures.DENSE


def blocks(recording: Mapping[str, Any], columns: int = 3) -> Figure:
    """The first group's similarity matrix at ``columns`` moments, large enough for a hundred layers."""
    kept = similarities(recording)
    chosen = sorted({round(i) for i in np.linspace(0, len(kept) - 1, columns)})
    with figures.style():
        fig, every = plt.subplots(1, len(chosen), figsize=(6.4, 2.5), squeeze=False)
        for axes, i in zip(every[0], chosen, strict=True):
            epoch, by_group = kept[i]
            matrix(axes, next(iter(by_group.values())))
            axes.set(title=f"epoch {round(epoch, 1):g}")
    return fig


# -- tables ------------------------------------------------------------------------------------------------------------


def percent(value: float, spread: float = math.nan) -> str:
    """``"12.3% ± 0.4%"``, without the second part if there is no spread."""
    return f"{value:.1%}" + (f" ± {spread:.1%}" if spread == spread else "")


def two_digits(value: float, spread: float = math.nan) -> str:
    """``"0.87 ± 0.02"``, without the second part if there is no spread."""
    return f"{value:.2f}" + (f" ± {spread:.2f}" if spread == spread else "")


def points_of(records: Iterable[Record]) -> pd.DataFrame:
    """Networks trained without the regulariser, a row each, the smallest first: ``method``, ``k`` (templates, 0 for none),
    ``parameters``, mean ``error`` and ``similarity``, ``spread`` of the error over seeds, ``n``."""
    table = runs.table(records)
    table = table[table["lambda"] == 0].assign(
        k=lambda t: t["templates"].fillna(0).astype(int), error=lambda t: 1 - t["accuracy"]
    )
    wanted = {
        "parameters": ("parameters", "first"),
        "error": ("error", "mean"),
        "spread": ("error", "std"),
        "similarity": ("similarity", "mean"),
        "n": ("seed", "size"),
    }
    points = table.groupby(["method", "k"], sort=False).agg(**wanted).reset_index()
    return points.sort_values(["parameters", "k"], ignore_index=True)


def networks(points: pd.DataFrame) -> pd.DataFrame:
    """:func:`points_of` as a reader has it."""
    return pd.DataFrame(
        {
            "network": points["method"],
            "parameters": [f"{count:,.0f}" for count in points["parameters"]],
            "test error": map(percent, points["error"], points["spread"]),
            "mean similarity": [f"{s:.2f}" if s == s else "–" for s in points["similarity"]],
            "runs": points["n"],
        }
    )


def depths(folds: pd.DataFrame) -> pd.DataFrame:
    """Test error without a fold, halfway, and folded to one layer a group, in each of :data:`WAYS`. ``folds`` from :func:`folds_of`."""
    rows = []
    for name, place in (
        ("none", 0 * folds["last"]),
        ("halfway", (folds["last"] + 1) // 2),
        ("one layer a group", folds["last"]),
    ):
        at = folds[folds["place"] == place]
        row = {"fold": name, "layers": f"{at['layers'].mean():.0f}"}
        for way, words in WAYS.items():
            error = 1 - at[way].dropna()
            row[words] = percent(error.mean(), error.std()) if len(error) else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def phases(scores: pd.DataFrame) -> pd.DataFrame:
    """F1 at the end of each phase, a row a method. ``scores`` is :func:`lab.runs.table` of the paths task's runs."""
    columns = [column for column in scores if column.startswith("f1.phase")]
    shown = scores.groupby("method")[columns].agg(["mean", "std"])
    rows = [
        {"network": name} | {f"phase {c[-1]}": two_digits(row[c, "mean"], row[c, "std"]) for c in columns}
        for name, row in shown.iterrows()
    ]
    return pd.DataFrame(rows)


def beside(board: Iterable[Row], name: str, columns: Mapping[str, str]) -> pd.DataFrame:
    """One of the thesis's tables with this book's measurement beside it.

    Args:
        board: rows of the scoreboard (:func:`lab.book.scoreboard.board`).
        name: the table, ``"3.1"``.
        columns: the table's columns to show, and what to call them. Measurements are looked up for ``"Test error"``.
    """
    found = {
        (r.claim.row, r.claim.column): r for r in board if r.claim and r.claim.table == name and not r.claim.versus
    }
    printed = thesis.pivot(name, "printed")
    source = thesis.table(name).groupby("row")["source"].first()
    ours = []
    for row in printed.index:
        one = found.get((row, "Test error"))
        if one is None or one.measured is None:
            ours.append("–" if source[row] == "thesis" else f"quoted from {source[row]}")
            continue
        spread = f" ± {one.measured.spread:.2f}" if one.measured.spread is not None else ""
        ours.append(f"{one.measured.value:.2f}{spread} ({one.profile}, n = {one.measured.n})")
    shown = printed[list(columns)].rename(columns=columns)
    return shown.rename_axis("network").reset_index().assign(**{"this book": ours}).rename_axis(columns=None)


def larger(records: Iterable[Record]) -> pd.DataFrame:
    """Networks as trained, folded where layers are nearly equal, and as loops: a row a form, mean and spread over seeds.

    A score is accuracy, or F1 on the shortest paths. After folding BatchNorm's statistics are taken anew; loops are fine-tuned.
    """
    table = runs.table(records)
    score = "f1" if "f1" in table else "accuracy"
    forms = {
        "trained": ("parameters", score),
        "folded": ("parameters_folded", f"{score}_folded_bn"),
        "loops": ("parameters_loop", f"{score}_loop_tuned"),
    }
    rows = []
    for name, same in table.sort_values(["parameters", "method"], ascending=False).groupby("method", sort=False):
        for form, (size, figure) in forms.items():
            values = same[figure].dropna()
            if len(values):
                told = {"weights": f"{same[size].mean():,.0f}", score: percent(values.mean(), values.std())}
                rows.append({"network": name, "as": form} | told | {"n": len(values)})
    return pd.DataFrame(rows).rename(columns={"f1": "F1"})
