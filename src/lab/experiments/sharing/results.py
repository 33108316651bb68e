"""Chapter 3's tables, figures and verdicts, made from records.

A public function puts what it is named after on the page: a figure, a table, or sentences with the mark of their runs.
``records`` are those of :func:`lab.experiments.sharing.images.pictured`, of one profile, and below "shortest paths"
those of :mod:`lab.experiments.sharing.shortest_paths`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby, pairwise, product
from typing import TYPE_CHECKING, Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import ListedColormap, to_rgba
from torch import nn

from lab import figures, runs
from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured
from lab.figures.folding.recording import similarities
from lab.runs import Record, Run
from lab.statistics import compare
from principled import group_layers, layer_similarity

from . import images, shortest_paths
from .claims import favourite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from lab.datasets.shortest_paths import Paths

DOTS = figures.BOOK | {"markeredgewidth": 0}
THIRD = figures.AVAGRAD
"""Beside sharing's gold and the plain network's grey: what stays furthest from both, for every reader's eyes."""

WAYS = {
    "score": ("BatchNorm as trained", figures.DENSE, (1, 1)),
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
    name: str, values: Sequence[float], rival: str, others: Sequence[float], form: str = ".1%", comparisons: int = 1
) -> str:
    """Two groups of runs in a sentence, and what :func:`lab.statistics.compare` says of their difference."""
    scale, unit = (100, " % points") if form.endswith("%") else (1, "")
    difference = compare([scale * v for v in values], [scale * v for v in others], comparisons=comparisons)
    return (
        f"{name}: {_spread(values, form)}; {rival}: {_spread(others, form)}\n"
        f"  difference{' in' * bool(unit)}{unit}: {difference}"
    )


def _show(fig: Figure, shown: Sequence[Record], alt: str) -> None:
    """A figure of these records on the page."""
    figures.show(fig, profile=shown[0]["profile"], runs=shown, alt=alt)


def _table(rows: Any, shown: Sequence[Record]) -> None:
    """A table of these records on the page."""
    figures.table(pd.DataFrame(rows), profile=shown[0]["profile"], runs=shown)


def _say(text: str, shown: Sequence[Record]) -> None:
    """Sentences on the page, and the mark of the records that they are about."""
    print(text)
    figures.mark(shown)


# -- sizes -------------------------------------------------------------------------------------------------------------


def parameter_counts() -> None:
    """Every (S)WRN of the thesis's tables: its parameters as counted, and in millions as each table prints them."""
    networks = images.rows() | {
        ("3.4", run.config["model"]): run.config["method"] | {"data": "imagenet"}
        for run in (images.imagenet(shared=False), images.imagenet(shared=True))
    }
    rows = []
    for (table, row), options in networks.items():
        count = images.parameters(*(options[key] for key in ("depth", "width", "templates", "data")))
        printed = thesis.pivot(table, "printed").loc[row, "Params (M)"]
        places = len(printed.partition(".")[2])
        cut = math.floor(count / 1e6 * 10**places) / 10**places
        rows.append(
            {"table": table, "network": " ".join(row.split()[:2]), "data": options["data"], "parameters": f"{count:,}"}
            | {"printed": printed, "cut": f"{cut:.{places}f}", "rounded": f"{count / 1e6:.{places}f}"}
        )
    counts = pd.DataFrame(rows)
    for table, same in counts.groupby("table"):
        ways = [way for way in ("cut", "rounded") if (same[way] == same["printed"]).all()]
        right = f"all of them right ({ways[0]})" if ways else "not all of them right"
        print(f"Table {table}: {len(same)} printed counts, {right}")
    counts["printed"] += " (" + counts["table"] + ")"
    grouped = counts.groupby(["network", "data", "parameters"], sort=False)["printed"].unique()
    figures.table(grouped.map(", ".join).rename("printed, in millions").reset_index())


# -- networks that were trained ----------------------------------------------------------------------------------------


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
    """Plain and shared networks, the smallest first: parameters, test error, mean similarity of two layers."""
    rows = [
        {
            "network": name,
            "parameters": f"{same['parameters'].iloc[0]:,.0f}",
            "test error": _spread(same["error"]),
            "mean similarity": "–" if same["similarity"].isna().all() else f"{same['similarity'].mean():.2f}",
            "runs": len(same),
        }
        for name, same in _unregularised(records).groupby("method", sort=False)
    ]
    _table(rows, records)


def error_against_parameters(records: Sequence[Record]) -> None:
    """Test error against size, with a bar of one standard deviation; beside it the thesis's Table 3.1."""
    table = _unregularised(records)
    points = pd.DataFrame({"x": table["parameters"] / 1e3, "y": 100 * table["error"], "kind": table["kind"]})
    printed = thesis.pivot("3.1").filter(like="WRN", axis="index")
    printed = printed.assign(kind=printed.index.str.split().str[0])
    look = {"hue": "kind", "palette": {"WRN": figures.DENSE, "SWRN": figures.SHARING}}
    with figures.style():
        fig, (measured, right) = plt.subplots(1, 2)
        sns.lineplot(
            points, x="x", y="y", errorbar="sd", err_style="bars", err_kws={"capsize": 3}, ax=measured,
            hue_order=["WRN", "SWRN"], **look, **DOTS,
        )  # fmt: skip
        measured.set(title="This book", xlabel="parameters (thousands)", ylabel="test error (%)")
        measured.legend()
        hollow = figures.THESIS | {"linestyle": ""}
        sns.lineplot(printed, x="Params (M)", y="Test error", estimator=None, legend=False, ax=right, **look, **hollow)
        for line in right.get_lines():
            line.set_markeredgecolor(line.get_color())
        right.set(title="Thesis, Table 3.1", xlabel="parameters (millions)", ylabel="", xscale="log")
        right.set_xticks([10, 20, 50, 100], labels=["10", "20", "50", "100"])
        right.xaxis.set_minor_formatter("")
    _show(
        fig,
        records,
        "Left: test error against parameters for a Wide ResNet and its shared forms with fewer and more templates, "
        "as measured here. Right: the same from the thesis's Table 3.1, where shared networks lie below the plain one "
        "or level with it at fewer parameters.",
    )


def shared_against_plain(records: Sequence[Record]) -> None:
    """Whether the shared network's test error differs from the plain one's, and how large it is beside it."""
    shared, plain = (_chosen(records, declared) for declared in (images.shared, images.plain))
    error, other = ([1 - r["figures"]["accuracy"] for r in same] for same in (shared, plain))
    better = compare(error, other).verdict == "lower"
    share = shared[0]["figures"]["parameters"] / plain[0]["figures"]["parameters"]
    names = [same[0]["config"]["model"] for same in (shared, plain)]
    verdict = _verdict(f"test error of {names[0]}", error, names[1], other)
    size = f"{names[0]} has {share:.0%} of the parameters, and is {'' if better else 'not '}shown to be better"
    _say(f"{verdict}\n  {size}", [*shared, *plain])


# -- folds -------------------------------------------------------------------------------------------------------------


def _folds(records: Iterable[Record]) -> pd.DataFrame:
    """The recorded folds, a row each: ``seed``, ``place`` (0 is unfolded), ``last`` (the run's last place), ``level``,
    ``layers`` and ``parameters`` left, and the scores of :data:`WAYS` (NaN where not measured)."""
    rows = []
    for record in records:
        folds = record["recording"]["folds"]
        for place, fold in enumerate(folds):
            known = {key: fold.get(key) for key in ("level", "layers", "parameters", *WAYS)}
            rows.append({"seed": record["seed"], "place": place, "last": len(folds) - 1} | known)
    return pd.DataFrame(rows).astype(dict.fromkeys(WAYS, float))


def error_of_folds(records: Sequence[Record]) -> None:
    """What folds cost: test error against layers left (mean and range) and against parameters left (each seed)."""
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
        figures.legend_below(left, columns=3)
    _show(
        fig,
        shared,
        "Test error of the folded network against the layers left (left) and the parameters left (right): as folded, "
        "with BatchNorm re-estimated, and for some folds after fine-tuning.",
    )


def price_of_folds(records: Sequence[Record]) -> None:
    """Test error without a fold, halfway, and folded to one layer a group, in each of :data:`WAYS`.

    Then in sentences: what re-estimating BatchNorm gives back, and whether one layer a group costs error after
    fine-tuning.
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
    """For each seed the smallest fold whose error, BatchNorm re-estimated, rises by no more than is allowed."""
    shared = _chosen(records, images.shared)
    rows = []
    for rise in allowed:
        row = {"more error allowed": f"{rise:.0%}"}
        for seed, folds in _folds(shared).groupby("seed"):
            whole = folds.iloc[0]
            least = folds[folds["score_bn"] >= whole["score_bn"] - rise].nsmallest(1, "parameters").iloc[0]
            share = least["parameters"] / whole["parameters"]
            row[f"seed {seed}"] = f"{least['layers']:.0f} layers, {share:.0%} ({least['level']:.2f})"
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
    """A similarity matrix (L, L): the fuller the colour, the more alike. Some layers are numbered."""
    layers = len(similarity)
    step = 1 if layers < 6 else 5 if layers < 20 else 20
    names = [str(layer) if layer == 1 or layer % step == 0 else "" for layer in range(1, layers + 1)]
    axes_named = {"yticklabels": names if numbered else False, "xticklabels": names if columns else False}
    _cells(axes, similarity.numpy(), SHADES, **axes_named)


def _matrices(matrices: Sequence[Sequence[Tensor]], rows: Sequence[str], columns: Sequence[str]) -> Figure:
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


def three_views() -> None:
    """Figure 3.1: two layers with their own weights, with mixed weights, with mixed outputs of template layers."""
    chain = {"$u^0$": (0, 0), "$u^1$": (0, 2), "$u^2$": (0, 4)}
    weights, templates = {"$W^1$": (0, 1), "$W^2$": (0, 3)}, {"$T^1$": (-1.4, 1), "$T^2$": (-1.4, 3)}
    outputs = {name + " " * (y == 3): (x, y) for y in (1, 3) for name, x in (("$T^1$", -0.7), ("$T^2$", 0.7))}
    with figures.style():
        fig, (own, mixed, layers) = plt.subplots(1, 3, figsize=(6.4, 3.4))
        for axes in (own, mixed):
            _nodes(axes, weights, figures.DENSE, dotted=axes is mixed)
            for start, end in pairwise([*chain.values(), (0, 1), (0, 3)][i] for i in (0, 3, 1, 4, 2)):
                _arrow(axes, start, end)
        _nodes(mixed, templates, figures.SHARING)
        for template, layer in product(templates.values(), weights.values()):
            _arrow(mixed, template, layer, color=figures.SHARING, linestyle="--")
        _nodes(layers, outputs, figures.SHARING)
        for x, y in outputs.values():
            _arrow(layers, (0, y - 1), (x, y))
            _arrow(layers, (x, y), (0, y + 1), color=figures.SHARING, linestyle="--")
        for axes, title in ((own, "own weights"), (mixed, "mixed weights (3.11)"), (layers, "mixed outputs (3.12)")):
            for name, place in chain.items():
                axes.text(*place, name, ha="center", va="center")
            axes.set(xlim=(-2, 1.4) if axes is mixed else (-1.7, 1.7), ylim=(-0.4, 4.4))
            axes.set_title(title, fontsize=10)
            axes.axis("off")
    figures.show(
        fig,
        alt="Three chains of two layers. Left: each has its own weights. Middle: both layers' weights, dotted, are "
        "mixed from two templates. Right: at each step the outputs of the same two template layers are mixed.",
    )


def _nodes(axes: Axes, places: Mapping[str, tuple[float, float]], colour: str, dotted: bool = False) -> None:
    box = {"boxstyle": "round", "facecolor": "none", "edgecolor": colour, "linestyle": ":" if dotted else "-"}
    for name, place in places.items():
        axes.text(*place, name.strip(), ha="center", va="center", bbox=box)


def matrices_with_and_without_sharing(records: Sequence[Record]) -> None:
    """Figure 3.2: similarity matrices after training, of the plain network's weights and of the shared one's alpha.

    Then in a sentence how alike the most similar layers of the plain networks are, after training and as drawn.
    """
    plain = [record for record in _chosen(records, images.plain) if record.get("recording")]
    shared = _chosen(records, images.shared)
    if not plain:
        print("the plain network's similarities are not recorded")
        return
    ends = [_drawn_and_trained(record)[1] for record in (plain[0], shared[0])]
    most = [float(_apart(matrices).max()) for matrices in ends]
    _show(
        _matrices([list(matrices.values()) for matrices in ends], ["not shared", "shared"], list(ends[0])),
        [plain[0], shared[0]],
        "Layer similarity matrices of the three stages after training. The largest entry off the diagonal is "
        f"{most[0]:.2f} without sharing (above) and {most[1]:.2f} with it (below).",
    )
    drawn, trained = zip(*(_largest_of_ends(record) for record in plain), strict=True)
    print(f"without sharing the most similar layers reach {max(trained):.2f}, as drawn {max(drawn):.2f}")


def matrices_over_training(records: Sequence[Record]) -> None:
    """Similarity matrices of the first run while it trains: a row a group, five moments, the first of them as drawn."""
    first = _chosen(records, images.shared)[:1]
    epochs, moments = zip(*_moments(first[0]["recording"], 5), strict=True)
    groups = list(first[0]["recording"]["groups"])
    _show(
        _matrices([[moment[group] for moment in moments] for group in groups], groups, epochs),
        first,
        "Layer similarity matrices of the three stages at five moments of training: cells off the diagonal change "
        "from moment to moment.",
    )


def matrices_of_seeds(records: Sequence[Record]) -> None:
    """Similarity matrices of every seed, a row each: for each group as drawn and after training, side by side."""
    shared = _chosen(records, images.shared)
    ends = [_drawn_and_trained(record) for record in shared]
    rows = [[matrices[group] for group in drawn for matrices in (drawn, trained)] for drawn, trained in ends]
    columns = [name for group in ends[0][0] for name in (f"{group}\ndrawn", "trained")]
    _show(
        _matrices(rows, [f"seed {record['seed']}" for record in shared], columns),
        shared,
        "Layer similarity matrices, a row a seed and two columns a stage: as drawn and after training. Cells that are "
        "strong in both were strong by chance.",
    )


def _drawn_and_trained(record: Record) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A run's similarity matrices before its first step and after its last."""
    moments = similarities(record["recording"])
    return moments[0][1], moments[-1][1]


def _apart(matrices: Mapping[str, Tensor]) -> Tensor:
    """All similarities of two different layers, as one vector."""
    return torch.cat([m[~torch.eye(len(m), dtype=torch.bool)] for m in matrices.values()])


def _largest_of_ends(record: Record) -> tuple[float, float]:
    """The largest similarity of two layers, as drawn and after training."""
    drawn, trained = (float(_apart(matrices).max()) for matrices in _drawn_and_trained(record))
    return drawn, trained


@cache
def left_by_chance(groups: tuple[tuple[int, int], ...], draws: int = 400) -> tuple[int, ...]:
    """The null of "layers left": how many layers coefficients as drawn leave at :data:`images.THRESHOLD`, draw by draw.

    ``groups`` are (layers, templates); every draw is what :class:`principled.SoftSharing` starts from.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = ([nn.init.orthogonal_(torch.empty(size)) for size in groups] for _ in range(draws))
        return tuple(
            sum(len(set(group_layers(layer_similarity(alpha), images.THRESHOLD))) for alpha in alphas)
            for alphas in drawn
        )


def growth_of_the_pattern(records: Sequence[Record]) -> None:
    """What training adds to the similarities that chance has drawn, and when that is settled."""
    shared = _chosen(records, images.shared)
    drawn, trained = zip(*(_drawn_and_trained(record) for record in shared), strict=True)
    means = [[float(_apart(matrices).mean()) for matrices in ends] for ends in (trained, drawn)]
    near, far = ([float(np.mean([m.diagonal(d).mean() for m in ms.values()])) for ms in trained] for d in (1, 2))
    favourites = [", ".join(str(favourite(list(ms.values()))) for ms in ends) for ends in (drawn, trained)]
    moments = similarities(shared[0]["recording"])
    distances = [(epoch, float((_apart(ms) - _apart(trained[0])).abs().sum())) for epoch, ms in moments]
    settled = next(epoch for epoch, distance in distances if distance <= 0.1 * distances[0][1])
    lines = [
        _verdict("mean similarity of two layers, trained", means[0], "as drawn", means[1], ".2f", 2),
        _verdict("trained, two layers apart", far, "one layer apart", near, ".2f", 2),
        f"most alike at a distance of (a run each): as drawn {favourites[0]}; trained {favourites[1]}",
        *_left(shared),
        f"nine tenths of the way to the last matrix: epoch {settled:.1f} of {moments[-1][0]:g}",
    ]
    _say("\n".join(lines), shared)


def _left(shared: Sequence[Record]) -> list[str]:
    """Layers left at the threshold, run by run, and what coefficients as drawn leave."""
    groups, whole = shared[0]["recording"]["groups"], shared[0]["recording"]["folds"][0]["layers"]
    sizes = tuple((len(names), shared[0]["config"]["method"]["templates"]) for names in groups.values())
    chance = np.array(left_by_chance(sizes)) + whole - sum(layers for layers, _ in sizes)
    trained = ", ".join(f"{images.fold_at(r['recording'], images.THRESHOLD)['layers']}" for r in shared)
    return [
        f"layers left at {images.THRESHOLD}, of {whole} (a run each): {trained}",
        f"  as drawn: {chance.mean():.2f} on average of {len(chance)} draws, from {chance.min()} to {chance.max()}",
    ]


# -- the recurrence regulariser ----------------------------------------------------------------------------------------


def loops_against_lambda(records: Sequence[Record]) -> None:
    """What lambda does: how alike layers become, and the test error in each of :data:`FORMS`, re-estimated."""
    swept = _chosen(records, images.swept)
    table = runs.table(swept)
    table = table.assign(**{"λ": [f"{x:g}" for x in table["lambda"]]})
    points = [
        {"λ": name, "form": form, "error": 100 * (1 - fold["score_bn"])}
        for record, name in zip(swept, table["λ"], strict=True)
        for form, fold in forms(record).items()
    ]
    errors = pd.DataFrame(points)
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.6))
        sns.lineplot(table, x="λ", y="similarity", color=figures.SHARING, ax=left, **DOTS)
        left.set(ylim=(0, 1.05), ylabel="mean similarity", title="How alike")
        colours = dict(zip(errors["form"].unique(), (figures.DENSE, figures.SHARING, THIRD), strict=True))
        sns.lineplot(errors, x="λ", y="error", hue="form", palette=colours, ax=right, **DOTS)
        right.set(ylabel="test error (%)", title="At what price")
        figures.legend_below(right, columns=3)
    _show(
        fig,
        swept,
        "Left: the mean similarity of two layers against lambda. Right: test error of the network that is not folded, "
        "of its fold at threshold 0.9 and of its fold to one layer a group, against lambda.",
    )


def price_of_lambda(records: Sequence[Record]) -> None:
    """For each lambda: mean similarity, layers left at 0.9, and the error that loops add, re-estimated."""
    swept = _chosen(records, images.swept)
    rows = []
    for record in swept:
        whole, folded, loops = forms(record).values()
        rows.append(
            {
                "λ": f"{record['config']['method']['lambda']:g}",
                "similarity": f"{record['figures']['similarity']:.2f}",
                "layers left at 0.9": f"{folded['layers']:.0f}",
                "one layer a stage costs": f"{whole['score_bn'] - loops['score_bn']:+.1%}",
            }
        )
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
    curves = [pd.DataFrame(r["curve"]).assign(network=r["config"]["method"]["name"]) for r in contest]
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
        figures.legend_below(axes, columns=3)
    _show(
        fig,
        contest,
        "Test F1 over the epochs of the five phases for the CNN, the shared CNN and the shared CNN with the "
        "regulariser; vertical lines mark the beginning of each harder phase.",
    )


def _by_network(records: Sequence[Record], score: Callable[[pd.DataFrame], float]) -> dict[str, list[float]]:
    """A score of each run's curve, ``{network: a value a seed}``, the plain CNN first."""
    scores: dict[str, list[float]] = {}
    for record in sorted(_contest(records), key=lambda record: str(record["config"]["method"]["name"])):
        curve = pd.DataFrame(record["curve"]).dropna(subset=["f1"])
        scores.setdefault(record["config"]["method"]["name"], []).append(score(curve))
    return scores


def f1_of_phases(records: Sequence[Record]) -> None:
    """F1 at the end of each phase, a row a method; and whether a shared network differs from the plain one in the last.

    Where a score was taken with the running statistics of BatchNorm, which jump, the end is the mean of the last two
    epochs.
    """
    reestimated = "reestimate" in records[0]["config"]["training"]
    last = 1 if reestimated else 2
    phases = sorted(set(records[0]["curve"]["phase"]))
    ends = {p: _by_network(records, lambda c, p=p: c[c["phase"] == p]["f1"].tail(last).mean()) for p in phases}
    rows = [
        {"network": name} | {f"phase {p:g}": _spread(ends[p][name], ".2f") for p in phases} for name in ends[phases[0]]
    ]
    _table(rows, _contest(records))
    print("BatchNorm re-estimated for every score" if reestimated else "means of each phase's last two epochs")
    _against_the_plain("F1 of {} in the last phase", ends[phases[-1]])


def speed_in_the_first_phase(records: Sequence[Record]) -> None:
    """Does a shared network learn faster at first? Its mean F1 over the first phase, against the plain CNN's."""
    _against_the_plain(
        "mean F1 of {} over the first phase", _by_network(records, lambda c: c[c["phase"] == 1]["f1"].mean())
    )
    figures.mark(_contest(records))


def _against_the_plain(case: str, scores: Mapping[str, Sequence[float]]) -> None:
    plain, *shared = scores  # the CNN is the first
    for name in shared:
        print(_verdict(case.format(name), scores[name], plain, scores[plain], ".2f", len(shared)))


def loops_on_paths(records: Sequence[Record]) -> None:
    """Does Figure 3.12 come true? The most similar layers of each network with a template a layer and no regulariser.

    Their matrices start as the identity, so that whatever lies off the diagonal was learned.
    """
    free = [r for r in records if r["config"]["method"]["templates"] and not r["config"]["method"]["lambda"]]
    largest = [_largest_of_ends(record)[1] for record in free]
    reached = max(largest) >= images.THRESHOLD
    print(
        "Figure 3.12 "
        + ("has a counterpart:" if reached else "is contradicted: no two layers became one, let alone a block")
    )
    for record, value in zip(free, largest, strict=True):
        groups = group_layers(next(iter(_drawn_and_trained(record)[1].values())), images.THRESHOLD)
        left = f"{len(set(groups))} groups of {len(groups)} layers at {images.THRESHOLD}"
        print(f"  {record['config']['model']}, seed {record['seed']}: the most similar two {value:.2f}; {left}")
    figures.mark(free)


def matrices_of_the_deep(records: Sequence[Record]) -> None:
    """The deep network's similarity matrix at three moments of its training, the first of them as drawn."""
    deep = _chosen(records, shortest_paths.deep)
    epochs, moments = zip(*_moments(deep[0]["recording"], 3), strict=True)
    _show(
        _matrices([[next(iter(matrices.values())) for matrices in moments]], [""], epochs),
        deep,
        "Similarity matrices of a deep shared network on the paths task at the start, in the middle and at the end "
        "of training.",
    )


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


def recorded(experiment: str) -> list[Record]:
    """What is recorded on whole data, finished, of the most demanding profile that there is; empty if nothing is."""
    finished = [record for record in runs.recorded(experiment) if record["state"] == "finished"]
    for profile in ("paper", "short"):
        if records := [record for record in finished if record["profile"] == profile]:
            return records
    return []


FORMS = ("not folded", "folded at 0.9", "one layer a group")


def forms(record: Record) -> dict[str, dict[str, Any]]:
    """A network in its :data:`FORMS`: ``parameters``, ``layers``, and the scores of :data:`WAYS` that are recorded.

    All scores of one name have had the same treatment, whatever the form. A plain network has the first form alone.
    """
    if "folds" in record.get("recording", {}):
        folds = record["recording"]["folds"]
        whole = folds[0] | {
            "parameters": record["figures"]["parameters"]
        }  # what is stored before a layer gets its own weights
        measured = (whole, images.fold_at(record["recording"], images.THRESHOLD), folds[-1])
        return {form: dict.fromkeys(WAYS) | fold for form, fold in zip(FORMS, measured, strict=True)}
    score = _score(record)
    scores = {way: record["figures"].get(score + way.removeprefix("score")) for way in WAYS}
    return {FORMS[0]: {"parameters": record["figures"]["parameters"], "layers": None} | scores}


def _score(record: Record) -> str:
    return "f1" if "f1" in record["figures"] else "accuracy"


def larger_networks(records: Sequence[Record]) -> None:
    """Networks in their :data:`FORMS`, a row each: weights, and the score in each of :data:`WAYS` over seeds.

    Then for each shared network whether its loops score otherwise than itself, both fine-tuned alike.
    """
    rows, tuned = [], {}
    ordered = sorted(records, key=lambda r: (-r["figures"]["parameters"], r["config"]["method"]["name"]))
    for name, same in groupby(ordered, key=lambda record: str(record["config"]["method"]["name"])):
        by_seed = [forms(record) for record in same]
        for form in by_seed[0]:
            seeds = pd.DataFrame([each[form] for each in by_seed])
            shown = {words: _spread(seeds[way]) for way, (words, _, _) in WAYS.items()}
            rows.append(
                {"network": name, "form": form, "weights": f"{seeds['parameters'].mean():,.0f}"}
                | shown
                | {"n": len(seeds)}
            )
            tuned[name, form] = seeds["score_tuned"].dropna().tolist()
    _table(rows, records)
    for name in dict.fromkeys(row["network"] for row in rows):
        whole, loops = (tuned.get((name, form)) for form in (FORMS[0], FORMS[-1]))
        if whole and loops:
            print(_verdict(f"{_score(records[0])} of {name} fine-tuned, {FORMS[-1]}", loops, FORMS[0], whole))
