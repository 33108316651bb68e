"""Chapter 3's tables, figures and verdicts, made from records.

A public function puts what it is named after on the page: a figure, a table, or sentences with the mark of their runs. ``records`` are
those of :func:`lab.experiments.sharing.images.pictured`, of one profile, and below "shortest paths" those of
:mod:`lab.experiments.sharing.shortest_paths`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import ListedColormap, to_rgba

from lab import figures, runs
from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured
from lab.figures.folding.recording import similarities
from lab.runs import Record, Run
from lab.statistics import compare
from principled import group_layers

from . import images, shortest_paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from lab.datasets.shortest_paths import Paths

DOTS = figures.BOOK | {"markeredgewidth": 0}
THIRD = figures.AVAGRAD
"""Beside sharing's gold and the plain network's grey: what stays furthest from both, for every reader's eyes."""

WAYS = {
    "score": ("as folded", figures.DENSE, (1, 1)),
    "score_bn": ("BatchNorm re-estimated", figures.SHARING, ""),
    "score_tuned": ("and fine-tuned", THIRD, ""),
}
"""The scores of a recorded fold: in words, their colour, their dashes."""

SHADES = ListedColormap([to_rgba(figures.SHARING, share) for share in np.linspace(0, 1, 256)])
"""From nothing to full gold, on a light page and on a dark one."""

RANGE = ("pi", 100)
"""Error bands from the lowest value to the highest."""


def _chosen(records: Sequence[Record], *declarations: Callable[[str], list[Run]]) -> list[Record]:
    """The records of some declarations, each once."""
    profile = records[0]["profile"]
    return images.chosen(records, {run.id: run for declared in declarations for run in declared(profile)}.values())


def with_folds(records: Sequence[Record]) -> list[Record]:
    """Records of the networks whose folds were measured: the headline's seeds, then the sweep of lambda."""
    return _chosen(records, images.shared, images.swept)


def _spread(values: Iterable[float], form: str = ".1%") -> str:
    """``"12.3% ± 0.4%"``, mean and standard deviation; a single value stands alone."""
    known = pd.Series(values, dtype=float).dropna()
    spread = f" ± {known.std():{form}}" if len(known) > 1 else ""
    return f"{known.mean():{form}}{spread}" if len(known) else "–"


def _verdict(
    name: str, values: Sequence[float], rival: str, theirs: Sequence[float], form: str = ".1%", comparisons: int = 1
) -> str:
    """Two groups of runs in a sentence, and what :func:`lab.statistics.compare` says of their difference."""
    scale, unit = (100, " % points") if form.endswith("%") else (1, "")
    difference = compare([scale * v for v in values], [scale * v for v in theirs], comparisons=comparisons)
    return (
        f"{name}: {_spread(values, form)}; {rival}: {_spread(theirs, form)}\n"
        f"  difference{' in' * bool(unit)}{unit}: {difference}"
    )


def _table(rows: Any, shown: Sequence[Record]) -> None:
    """A table of these records on the page."""
    figures.table(pd.DataFrame(rows), profile=shown[0]["profile"], runs=shown)


def _say(text: str, shown: Sequence[Record]) -> None:
    """Sentences on the page, and the mark of the records that they are about."""
    print(text)
    figures.mark(shown)


# -- sizes -------------------------------------------------------------------------------------------------------------


@cache
def _counts() -> pd.DataFrame:
    """A row a network and table: its parameters, counted, and the millions that the table prints."""
    networks = images.rows() | {
        ("3.4", run.config["model"]): run.config["method"] | {"data": "imagenet"}
        for run in (images.imagenet(shared=False), images.imagenet(shared=True))
    }
    rows = []
    for (table, row), options in networks.items():
        count = images.parameters(*(options[key] for key in ("depth", "width", "templates", "data")))
        printed = thesis.pivot(table, "printed").loc[row, "Params (M)"]
        places = len(printed.partition(".")[2])
        rows.append(
            {"table": table, "network": " ".join(row.split()[:2]), "data": options["data"], "parameters": f"{count:,}"}
            | {"printed": printed, "cut": f"{math.floor(count / 1e6 * 10**places) / 10**places:.{places}f}"}
            | {"rounded": f"{count / 1e6:.{places}f}"}
        )
    return pd.DataFrame(rows)


def parameter_counts() -> None:
    """Every (S)WRN of the thesis's tables: its parameters as counted, and in millions as each table prints them."""
    counts = _counts()
    for table, rows in counts.groupby("table"):
        ways = [way for way in ("cut", "rounded") if (rows[way] == rows["printed"]).all()]
        right = f"all of them right ({ways[0]})" if ways else "not all of them right"
        print(f"Table {table}: {len(rows)} printed counts, {right}")
    counts = counts.assign(printed=counts["printed"] + " (" + counts["table"] + ")")
    grouped = counts.groupby(["network", "data", "parameters"], sort=False)["printed"].unique()
    figures.table(grouped.map(", ".join).rename("printed, in millions").reset_index())


# -- networks that were trained ------------------------------------------------------------------------------------------


def protocol(records: Sequence[Record]) -> None:
    """How many runs, on what data, how long."""
    config = records[0]["config"]
    print(f"profile {records[0]['profile']}: {len(records)} runs on {config['data']}")
    print(f"each {config['training']['epochs']} epochs in batches of {config['training']['batch_size']}")


def _unregularised(records: Sequence[Record]) -> pd.DataFrame:
    """Runs without the regulariser, a row each, the smallest network first; ``kind`` is WRN or SWRN."""
    table = runs.table(records)
    table = table[table["lambda"] == 0]
    kind = table["method"].str.split().str[0]
    return table.assign(kind=kind, error=1 - table["accuracy"]).sort_values(["parameters", "templates"])


def networks(records: Sequence[Record]) -> None:
    """Plain and shared networks, the smallest first: parameters, test error over seeds, mean similarity of two layers."""
    rows = []
    for name, same in _unregularised(records).groupby("method", sort=False):
        rows.append(
            {
                "network": name,
                "parameters": f"{same['parameters'].iloc[0]:,.0f}",
                "test error": _spread(same["error"]),
                "mean similarity": "–" if same["similarity"].isna().all() else f"{same['similarity'].mean():.2f}",
                "runs": len(same),
            }
        )
    _table(rows, records)


def error_against_parameters(records: Sequence[Record]) -> None:
    """Test error against size, plain and shared, with a bar of one standard deviation; beside it the thesis's Table 3.1."""
    table = _unregularised(records)
    points = pd.DataFrame({"x": table["parameters"] / 1e3, "y": 100 * table["error"], "kind": table["kind"]})
    printed = thesis.pivot("3.1").filter(like="WRN", axis="index")
    printed = printed.assign(kind=printed.index.str.split().str[0])
    look = {"hue": "kind", "palette": {"WRN": figures.DENSE, "SWRN": figures.SHARING}}
    with figures.style():
        fig, (measured, theirs) = plt.subplots(1, 2)
        sns.lineplot(
            points, x="x", y="y", errorbar="sd", err_style="bars", err_kws={"capsize": 3}, ax=measured,
            hue_order=["WRN", "SWRN"], **look, **DOTS,
        )  # fmt: skip
        measured.set(title="This book", xlabel="parameters (thousands)", ylabel="test error (%)")
        measured.legend()
        hollow = figures.THESIS | {"linestyle": ""}
        sns.lineplot(printed, x="Params (M)", y="Test error", estimator=None, legend=False, ax=theirs, **look, **hollow)
        for line in theirs.get_lines():
            line.set_markeredgecolor(line.get_color())
        theirs.set(title="Thesis, Table 3.1", xlabel="parameters (millions)", ylabel="", xscale="log")
        theirs.set_xticks([10, 20, 50, 100], labels=["10", "20", "50", "100"])
        theirs.xaxis.set_minor_formatter("")
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Left: test error against parameters for a Wide ResNet and its shared forms with fewer and more templates, "
        "as measured here. Right: the same from the thesis's Table 3.1, where shared networks lie below the plain one "
        "or level with it at fewer parameters.",
    )


def shared_against_plain(records: Sequence[Record]) -> None:
    """Whether the shared network's test error differs from the plain one's, and how large it is beside it."""
    shared, plain = (_chosen(records, declared) for declared in (images.shared, images.plain))
    error, other = ([1 - r["figures"]["accuracy"] for r in same] for same in (shared, plain))
    share = shared[0]["figures"]["parameters"] / plain[0]["figures"]["parameters"]
    names = [same[0]["config"]["model"] for same in (shared, plain)]
    verdict = _verdict(f"test error of {names[0]}", error, names[1], other)
    _say(f"{verdict}\n  {names[0]} has {share:.0%} of the parameters", [*shared, *plain])


# -- folds -------------------------------------------------------------------------------------------------------------


def _folds(records: Iterable[Record]) -> pd.DataFrame:
    """The recorded folds, a row each: ``seed``, ``place`` (0 is the network unfolded), ``last`` (the run's last place), ``level``,
    ``layers`` and ``parameters`` left, and the scores of :data:`WAYS` (NaN where not measured)."""
    rows = []
    for record in records:
        folds = record["recording"]["folds"]
        for place, fold in enumerate(folds):
            known = {key: fold.get(key) for key in ("level", "layers", "parameters", *WAYS)}
            rows.append({"seed": record["seed"], "place": place, "last": len(folds) - 1} | known)
    return pd.DataFrame(rows).astype(dict.fromkeys(WAYS, float))


def error_of_folds(records: Sequence[Record]) -> None:
    """What folds cost: test error against layers left, mean and range over seeds; against parameters left, each seed."""
    shared = _chosen(records, images.shared)
    folds = _folds(shared).rename(columns={way: words for way, (words, _, _) in WAYS.items()})
    words, colours, dashes = zip(*WAYS.values(), strict=True)
    scores = folds.melt(["seed", "layers", "parameters"], words, "form", "score").dropna()
    scores = scores.assign(error=100 * (1 - scores["score"]), thousands=scores["parameters"] / 1e3)
    tuned = scores["form"] == words[-1]  # only some folds were fine-tuned: no line may join them
    look = {"y": "error", "hue": "form", "palette": dict(zip(words, colours, strict=True))}
    lines = look | {"data": scores[~tuned], "style": "form", "dashes": dict(zip(words, dashes, strict=True))}
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(6.4, 3.6))
        sns.lineplot(x="layers", errorbar=RANGE, err_kws={"linewidth": 0}, ax=left, **lines)
        sns.lineplot(x="thousands", units="seed", estimator=None, linewidth=1, legend=False, ax=right, **lines)
        for axes, x in ((left, "layers"), (right, "thousands")):
            sns.scatterplot(scores[tuned], x=x, s=36, linewidth=0, legend=axes is left and "brief", ax=axes, **look)
        right.axvline(shared[0]["figures"]["parameters"] / 1e3, color="black", linewidth=0.8, linestyle="--")
        left.set(xlabel="layers left", ylabel="test error (%)", title="Mean and range")
        right.set(xlabel="parameters left (thousands)", title="Each seed")
        for axes in (left, right):
            axes.invert_xaxis()
        fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        left.get_legend().remove()
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=shared,
        alt="Test error of the folded network against the layers left (left) and the parameters left (right): as folded, "
        "with BatchNorm re-estimated, and for some folds after fine-tuning.",
    )


def price_of_folds(records: Sequence[Record]) -> None:
    """Test error without a fold, halfway, and folded to one layer a group, in each of :data:`WAYS`.

    Then in sentences: what re-estimating BatchNorm gives back, and whether one layer a group costs error after fine-tuning.
    """
    shared = _chosen(records, images.shared)
    folds = _folds(shared)
    places = {"none": 0 * folds["last"], "halfway": (folds["last"] + 1) // 2, "one layer a group": folds["last"]}
    rows = []
    for name, place in places.items():
        at = folds[folds["place"] == place]
        errors = {words: _spread(1 - at[way]) for way, (words, _, _) in WAYS.items()}
        rows.append({"fold": name, "layers": f"{at['layers'].mean():.0f}"} | errors)
    _table(rows, shared)
    gain = (folds["score_bn"] - folds["score"]).groupby(folds["layers"]).mean()
    print(f"re-estimating BatchNorm takes off up to {gain.max():.1%} of test error,\n  at {gain.idxmax()} layers")
    tuned = folds.dropna(subset=["score_tuned"])
    whole, loop = (list(1 - tuned[tuned["place"] == place]["score_tuned"]) for place in (0, tuned["last"]))
    if loop:
        print(_verdict("fine-tuned, one layer a group", loop, "no fold", whole))


def smallest_folds(records: Sequence[Record], allowed: Sequence[float] = (0.0, 0.01, 0.02, 0.05)) -> None:
    """For each seed the smallest fold whose error, with BatchNorm re-estimated, rises by no more than what is allowed."""
    shared = _chosen(records, images.shared)
    rows = []
    for rise in allowed:
        row = {"more error allowed": f"{rise:.0%}"}
        for seed, folds in _folds(shared).groupby("seed"):
            whole = folds.iloc[0]
            good = folds[folds["score_bn"] >= whole["score_bn"] - rise]
            least = good.loc[good["parameters"].idxmin()]
            share = least["parameters"] / whole["parameters"]
            layers = f"{least['layers']:.0f} layers"
            row[f"seed {seed}"] = f"{layers}, {share:.0%} ({least['level']:.2f})"
        rows.append(row)
    _table(rows, shared)


# -- similarity matrices -----------------------------------------------------------------------------------------------


def _cells(axes: Axes, values: Any, colours: ListedColormap, **labels: Any) -> None:
    """A matrix of cells, drawn as pixels: a hundred layers make ten thousand."""
    labels = {"xticklabels": False, "yticklabels": False} | labels
    sns.heatmap(
        values, vmin=0, vmax=colours.N - 1 if colours.N < 256 else 1, cmap=colours, cbar=False, square=True,
        rasterized=True, ax=axes, **labels,
    )  # fmt: skip
    axes.tick_params(length=0, rotation=0)
    axes.grid(False)


def _matrix(axes: Axes, similarity: Tensor, *, numbered: bool = True, columns: bool = False) -> None:
    """A similarity matrix (L, L): the fuller the colour, the more alike. Rows, on request columns, carry some layers' numbers."""
    layers = len(similarity)
    step = 1 if layers < 6 else 5 if layers < 20 else 20
    names = [str(layer) if layer == 1 or layer % step == 0 else "" for layer in range(1, layers + 1)]
    axes_named = {"yticklabels": names if numbered else False, "xticklabels": names if columns else False}
    _cells(axes, similarity.numpy(), SHADES, **axes_named)


def _matrices(matrices: Sequence[Sequence[Tensor]], rows: Sequence[str], columns: Sequence[str]) -> Any:
    """Similarity matrices in rows and columns, each with its name."""
    down, across = len(matrices), len(columns)
    with figures.style():
        size = (6.4, 5.8 * down / across + 0.3 if down > 1 else 2.5)
        fig, grid = plt.subplots(down, across, figsize=size, dpi=300, squeeze=False)
        for r, c in np.ndindex(down, across):
            _matrix(grid[r][c], matrices[r][c], numbered=c == 0)
            grid[r][c].set_title(columns[c] if r == 0 else "", fontsize=10)
            grid[r][c].set_ylabel(rows[r] if c == 0 else "")
    return fig


def _moments(recording: Mapping[str, Any], count: int) -> list[tuple[str, dict[str, Tensor]]]:
    """``count`` moments of the training, evenly chosen, the first and the last among them, by their epoch in words."""
    kept = similarities(recording)
    places = sorted({round(i) for i in np.linspace(0, len(kept) - 1, count)})
    return [(f"epoch {round(kept[i][0], 1):g}", kept[i][1]) for i in places]


def worked_example(similarity: Tensor, groups: Sequence[int]) -> None:
    """The worked example (3.15) to (3.18): its matrix, and its chain of layers before and after folding."""
    layers, colours = range(len(groups)), [figures.SHARING, THIRD, figures.DENSE]
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, width_ratios=(2, 3), figsize=(6.4, 2.7), dpi=300)
        _matrix(left, similarity, columns=True)
        left.set(title="Similarity", xlabel="layer", ylabel="layer")
        for y, places in ((1.0, list(layers)), (0.0, [groups.index(g) for g in sorted(set(groups))])):
            for x in places:
                right.scatter(x, y, s=420, color=colours[groups[x]], zorder=3)
                right.text(x, y - 0.02, str(x + 1), color="white", ha="center", va="center", weight="bold", zorder=4)
            for start, end in pairwise([-0.9, *places, len(groups) - 0.1]):
                _arrow(right, (start, y), (end, y))
        _arrow(right, (1, 0), (0, 0), bend=-0.8, color=figures.SHARING, linewidth=2)
        right.text(0.5, -0.72, "once, then on", ha="center", color=figures.SHARING)
        right.set(xlim=(-1, len(groups)), ylim=(-0.9, 1.5), title="Five layers, folded to three")
        right.axis("off")
    figures.show(
        fig,
        alt="Left: the 5 by 5 similarity matrix of the example; cells (1,3) and (2,4) are as full as the diagonal. "
        "Right: the chain of layers 1 to 5 coloured by group, and below it the folded chain of layers 1, 2 and 5, "
        "with an arrow from layer 2 back to layer 1 that is taken once.",
    )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0, **look: Any) -> None:
    arrow = {"color": "black", "arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 13, "shrinkB": 13}
    axes.annotate("", end, start, arrowprops=arrow | look)


def matrices_over_training(records: Sequence[Record]) -> None:
    """Similarity matrices of the first run while it trains: a row a group, five moments."""
    first = _chosen(records, images.shared)[:1]
    epochs, moments = zip(*_moments(first[0]["recording"], 5), strict=True)
    groups = list(first[0]["recording"]["groups"])
    figures.show(
        _matrices([[moment[group] for moment in moments] for group in groups], groups, epochs),
        profile=records[0]["profile"],
        runs=first,
        alt="Layer similarity matrices of the three stages at five moments of training: cells off the diagonal change "
        "from moment to moment.",
    )


def matrices_of_seeds(records: Sequence[Record]) -> None:
    """Similarity matrices after training: a row a seed, a column a group."""
    shared = _chosen(records, images.shared)
    final = [similarities(record["recording"])[-1][1] for record in shared]
    seeds = [f"seed {record['seed']}" for record in shared]
    figures.show(
        _matrices([list(matrices.values()) for matrices in final], seeds, list(final[0])),
        profile=records[0]["profile"],
        runs=shared,
        alt="Layer similarity matrices after training, a row a seed and a column a stage: which cells are strong differs "
        "from seed to seed.",
    )


def growth_of_the_pattern(records: Sequence[Record]) -> None:
    """Are layers two apart more alike than neighbours, how alike are layers at start and end, and when is that settled?"""
    shared = _chosen(records, images.shared)
    final = [similarities(record["recording"])[-1][1].values() for record in shared]
    near, far = ([float(np.mean([m.diagonal(d).mean() for m in ms])) for ms in final] for d in (1, 2))
    lines = [_verdict("similarity two layers apart", far, "one layer apart", near, ".2f")]
    moments = [(epoch, list(matrices.values())) for epoch, matrices in similarities(shared[0]["recording"])]
    (_, start), (last, end) = moments[0], moments[-1]
    for when, matrices in (("at the start", start), ("at the end", end)):
        apart = [m[~torch.eye(len(m), dtype=bool)].mean() for m in matrices]
        lines.append(f"mean similarity of two layers {when}: {np.mean(apart):.2f}")

    def away(matrices: Sequence[Tensor]) -> float:
        return sum(float((a - b).abs().sum()) for a, b in zip(matrices, end, strict=True))

    settled = next(epoch for epoch, matrices in moments if away(matrices) <= 0.1 * away(start))
    lines.append(f"nine tenths of the way to the last matrix: epoch {settled:.1f} of {last:g}")
    _say("\n".join(lines), shared)


# -- the recurrence regulariser ----------------------------------------------------------------------------------------


def loops_against_lambda(records: Sequence[Record]) -> None:
    """What lambda does: how alike layers become, and the test error of the network, of its fold at 0.9, and of its loops."""
    swept = _chosen(records, images.swept)
    table = runs.table(swept)
    table = table.assign(**{"λ": [f"{x:g}" for x in table["lambda"]]})
    forms = {"accuracy": "trained", "accuracy_folded_bn": "folded at 0.9", "accuracy_loop_bn": "one layer a stage"}
    errors = table.rename(columns=forms).melt("λ", forms.values(), "form", "accuracy")
    errors["error"] = 100 * (1 - errors["accuracy"])
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.6))
        sns.lineplot(table, x="λ", y="similarity", color=figures.SHARING, ax=left, **DOTS)
        left.set(ylim=(0, 1.05), ylabel="mean similarity", title="How alike")
        colours = dict(zip(forms.values(), (figures.DENSE, figures.SHARING, THIRD), strict=True))
        sns.lineplot(errors, x="λ", y="error", hue="form", palette=colours, ax=right, **DOTS)
        right.set(ylabel="test error (%)", title="At what price")
        fig.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        right.get_legend().remove()
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=swept,
        alt="Left: the mean similarity of two layers against lambda. Right: test error of the trained network, of its "
        "fold at threshold 0.9 and of its fold to one layer a stage, against lambda; where the layers have become alike "
        "the three agree.",
    )


def price_of_lambda(records: Sequence[Record]) -> None:
    """For each lambda: mean similarity, layers left at a threshold of 0.9, and the error that one layer a stage adds."""
    swept = _chosen(records, images.swept)
    rows = [
        {
            "λ": f"{record['config']['method']['lambda']:g}",
            "similarity": f"{record['figures']['similarity']:.2f}",
            "layers left at 0.9": f"{record['figures']['layers_folded']:.0f}",
            "one layer a stage costs": f"{record['figures']['accuracy'] - record['figures']['accuracy_loop_bn']:+.1%}",
        }
        for record in swept
    ]
    _table(rows, swept)


# -- shortest paths ----------------------------------------------------------------------------------------------------


def phases_drawn(sets: Sequence[Paths]) -> None:
    """The phases of the curriculum: how far apart the points are, and how many cells are marked or hold an obstacle."""
    shown = pd.DataFrame(
        {
            "phase": range(1, len(sets) + 1),
            "points apart, up to": [grids.distance for grids in sets],
            "cells marked": [f"{float(grids.labels.float().mean()):.2%}" for grids in sets],
            "obstacles": [f"{float(grids.inputs[:, 1].float().mean()):.1%}" for grids in sets],
        }
    )
    figures.table(shown)


def longest_ways(sets: Sequence[Paths]) -> None:
    """Of each set the grid with the longest way: obstacles, query points, and the cells to be found."""
    inks = [(0, 0, 0, 0), to_rgba(figures.DENSE, 0.6), to_rgba(figures.SHARING, 0.65), to_rgba(THIRD)]
    with figures.style():
        fig, panels = plt.subplots(1, len(sets), figsize=(6.4, 2.5), dpi=300)
        for axes, grids in zip(panels, sets, strict=True):
            number = int(grids.lengths.argmax())
            points, obstacles = grids.inputs[number].bool()
            cells = torch.where(points, 3, torch.where(grids.labels[number].bool(), 2, obstacles.long()))
            _cells(axes, cells.numpy(), ListedColormap(inks))
            axes.set(title=f"up to {grids.distance} apart")
            axes.spines[:].set_visible(True)
    figures.show(
        fig,
        alt="Three grids with grey obstacles and two query points that lie further and further apart; between them all "
        "cells on a shortest path are marked, which is a band where several paths are equally short.",
    )


def _contest(records: Sequence[Record]) -> list[Record]:
    return _chosen(records, shortest_paths.contest)


def paths_protocol(records: Sequence[Record]) -> None:
    """Grids, networks and runs of the shortest paths."""
    deep, method = _chosen(records, shortest_paths.deep)[0], _contest(records)[0]["config"]["method"]
    grids = records[0]["config"]["grids"]
    print(f"profile {records[0]['profile']}: {len(records)} runs on grids of {grids['size']}x{grids['size']} cells,")
    print(f"a phase has {grids['train']:,} to train on, {grids['test']:,} to test on;")
    print(f"{method['depth']} layers of {method['channels']} channels, and once {deep['config']['method']['depth']}")


def f1_through_the_phases(records: Sequence[Record]) -> None:
    """Test F1 over the epochs of the curriculum, a line a method with its seeds' range; dotted lines between phases."""
    contest = _contest(records)
    curves = [
        pd.DataFrame(record["curve"]).assign(network=record["config"]["method"]["name"])
        for record in contest
    ]  # fmt: skip
    points, phase = pd.concat(curves).dropna(subset=["f1"]), curves[0]["phase"]
    names = sorted(points["network"].unique())
    inks = [THIRD if "lambda" in n else figures.SHARING if n.startswith("S") else figures.DENSE for n in names]
    with figures.style():
        fig, axes = plt.subplots(figsize=(6.4, 3.6))
        sns.lineplot(
            points, x="epoch", y="f1", hue="network", hue_order=names, palette=inks, errorbar=RANGE,
            err_kws={"linewidth": 0}, ax=axes,
        )  # fmt: skip
        for change in np.flatnonzero(phase.diff() > 0):
            axes.axvline(change + 0.5, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel="epoch", ylabel="test F₁ of the phase", ylim=(0, 1.02))
        axes.set(title="Dotted: the points move further apart")
        fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        axes.get_legend().remove()
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=contest,
        alt="Test F1 over the epochs of the five phases for the CNN, the shared CNN and the shared CNN with the "
        "regulariser; vertical lines mark the beginning of each harder phase.",
    )


def f1_of_phases(records: Sequence[Record]) -> None:
    """F1 at the end of each phase, a row a method; and whether a shared network differs from the plain one in the last."""
    contest = _contest(records)
    methods = runs.table(contest).groupby("method")
    phases = [column for column in methods.obj if column.startswith("f1.phase")]
    shown = methods[phases].agg(lambda values: _spread(values, ".2f"))
    _table(shown.rename(columns=lambda name: f"phase {name[-1]}").rename_axis("network").reset_index(), contest)
    scores = methods["f1"].agg(list)
    plain, *others = scores.index  # in the order of their names: the CNN first
    for name in others:
        case = f"F1 of {name} in the last phase"
        print(_verdict(case, scores[name], plain, scores[plain], ".2f", len(others)))


def matrices_of_the_deep(records: Sequence[Record]) -> None:
    """The deep network's similarity matrix at three moments of its training, and its groups at a threshold of 0.9."""
    deep = _chosen(records, shortest_paths.deep)
    epochs, moments = zip(*_moments(deep[0]["recording"], 3), strict=True)
    figures.show(
        _matrices([[next(iter(matrices.values())) for matrices in moments]], [""], epochs),
        profile=records[0]["profile"],
        runs=deep,
        alt="Similarity matrices of a deep shared network on the paths task at the start, in the middle and at the end "
        "of training.",
    )
    groups = group_layers(next(iter(similarities(deep[0]["recording"])[-1][1].values())), 0.9)
    print(f"{deep[0]['config']['model']}: {len(groups)} shared layers, {len(set(groups))} groups at a threshold of 0.9")


# -- beside the thesis -------------------------------------------------------------------------------------------------


class Judged(Protocol):
    """What is read of a row of the scoreboard."""

    @property
    def claim(self) -> Claim | None: ...
    @property
    def measured(self) -> Measured | None: ...
    @property
    def profile(self) -> str: ...


COLUMNS = {"Params (M)": "millions", "Training time": "GPU days", "Test error": "thesis"}


def beside(board: Iterable[Judged], name: str, *, by_error: bool = False) -> None:
    """One of the thesis's tables, and this book's measurements of its test errors from the rows of the scoreboard."""
    rows = {
        row.claim.row: row
        for row in board
        if row.claim and (row.claim.table, row.claim.column, row.claim.versus) == (name, "Test error", "")
    }
    printed = thesis.pivot(name, "printed")
    source = thesis.table(name).groupby("row")["source"].first()
    measured = []
    for network in printed.index:
        row = rows.get(network)
        if row is None or row.measured is None:
            measured.append("–" if source[network] == "thesis" else f"quoted from {source[network]}")
            continue
        spread = f" ± {row.measured.spread:.2f}" if row.measured.spread is not None else ""
        measured.append(f"{row.measured.value:.2f}{spread} ({row.profile}, n = {row.measured.n})")
    shown = printed.filter(COLUMNS).rename(columns=COLUMNS).assign(**{"this book": measured})
    shown = shown.rename_axis("network").reset_index().rename_axis(columns=None)
    figures.table(shown.sort_values("thesis") if by_error else shown)


def larger_networks() -> None:
    """What is recorded on whole data, of the most demanding profile that there is: networks as trained, folded, as loops."""
    for experiment in ("sharing", "paths"):
        for profile in ("paper", "short"):
            if records := [r for r in runs.recorded(experiment, profile) if r["state"] == "finished"]:
                _table(_forms(records), records)
                break


def _forms(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Networks as trained, folded where layers are nearly equal, and as loops: a row a form, mean and spread over seeds.

    A score is accuracy, or F1 on the shortest paths. After folding BatchNorm is re-estimated; loops are fine-tuned.
    """
    table = runs.table(records)
    score = "f1" if "f1" in table else "accuracy"
    columns = {
        "trained": ("parameters", score),
        "folded": ("parameters_folded", f"{score}_folded_bn"),
        "loops": ("parameters_loop", f"{score}_loop_tuned"),
    }
    rows = []
    for name, same in table.sort_values(["parameters", "method"], ascending=False).groupby("method", sort=False):
        for form, (size, figure) in columns.items():
            values = same[figure].dropna()
            if len(values):
                shown = {"weights": f"{same[size].mean():,.0f}", score.replace("f1", "F1"): _spread(values)}
                rows.append({"network": name, "as": form} | shown | {"n": len(values)})
    return rows
