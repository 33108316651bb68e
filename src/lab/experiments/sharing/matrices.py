"""Similarity matrices of Chapter 3, drawn and trained, and the three views of a shared network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.colors import ListedColormap
from torch import nn

from lab import figures
from lab.figures.folding.recording import similarities
from lab.runs import Record
from principled import group_layers, layer_similarity

from . import images
from .claims import favourite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

from . import parts


def cells(axes: Axes, values: Any, colours: ListedColormap, **labels: Any) -> None:
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
    cells(axes, similarity.numpy(), parts.SHADES, **axes_named)


def grid_of(matrices: Sequence[Sequence[Tensor]], rows: Sequence[str], columns: Sequence[str]) -> Figure:
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


def moments_of(recording: Mapping[str, Any], count: int) -> list[tuple[str, dict[str, Tensor]]]:
    """``count`` moments of the training, evenly chosen, the first and the last among them, by their epoch in words."""
    kept = similarities(recording)
    places = sorted({round(i) for i in np.linspace(0, len(kept) - 1, count)})
    return [(f"epoch {round(kept[i][0], 1):g}", kept[i][1]) for i in places]


def worked_example(similarity: Tensor, groups: Sequence[int]) -> None:
    """The worked example (3.15) to (3.18): its matrix, and its chain of layers before and after folding."""
    layers, colours = range(len(groups)), [figures.SHARING, parts.THIRD, figures.DENSE]
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
    plain = [record for record in parts.chosen(records, images.plain) if record.get("recording")]
    shared = parts.chosen(records, images.shared)
    if not plain:
        print("the plain network's similarities are not recorded")
        return
    ends = [drawn_and_trained(record)[1] for record in (plain[0], shared[0])]
    most = [float(_apart(matrices).max()) for matrices in ends]
    parts.show(
        grid_of([list(matrices.values()) for matrices in ends], ["not shared", "shared"], list(ends[0])),
        [plain[0], shared[0]],
        "Layer similarity matrices of the three stages after training. The largest entry off the diagonal is "
        f"{most[0]:.2f} without sharing (above) and {most[1]:.2f} with it (below).",
    )
    drawn, trained = zip(*(largest_of_ends(record) for record in plain), strict=True)
    print(f"without sharing the most similar layers reach {max(trained):.2f}, as drawn {max(drawn):.2f}")


def matrices_over_training(records: Sequence[Record]) -> None:
    """Similarity matrices of the first run while it trains: a row a group, five moments, the first of them as drawn."""
    first = parts.chosen(records, images.shared)[:1]
    epochs, moments = zip(*moments_of(first[0]["recording"], 5), strict=True)
    groups = list(first[0]["recording"]["groups"])
    parts.show(
        grid_of([[moment[group] for moment in moments] for group in groups], groups, epochs),
        first,
        "Layer similarity matrices of the three stages at five moments of training: cells off the diagonal change "
        "from moment to moment.",
    )


def matrices_of_seeds(records: Sequence[Record]) -> None:
    """Similarity matrices of every seed, a row each: for each group as drawn and after training, side by side."""
    shared = parts.chosen(records, images.shared)
    ends = [drawn_and_trained(record) for record in shared]
    rows = [[matrices[group] for group in drawn for matrices in (drawn, trained)] for drawn, trained in ends]
    columns = [name for group in ends[0][0] for name in (f"{group}\ndrawn", "trained")]
    parts.show(
        grid_of(rows, [f"seed {record['seed']}" for record in shared], columns),
        shared,
        "Layer similarity matrices, a row a seed and two columns a stage: as drawn and after training. Cells that are "
        "strong in both were strong by chance.",
    )


def drawn_and_trained(record: Record) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A run's similarity matrices before its first step and after its last."""
    moments = similarities(record["recording"])
    return moments[0][1], moments[-1][1]


def _apart(matrices: Mapping[str, Tensor]) -> Tensor:
    """All similarities of two different layers, as one vector."""
    return torch.cat([m[~torch.eye(len(m), dtype=torch.bool)] for m in matrices.values()])


def largest_of_ends(record: Record) -> tuple[float, float]:
    """The largest similarity of two layers, as drawn and after training."""
    drawn, trained = (float(_apart(matrices).max()) for matrices in drawn_and_trained(record))
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
    shared = parts.chosen(records, images.shared)
    drawn, trained = zip(*(drawn_and_trained(record) for record in shared), strict=True)
    means = [[float(_apart(matrices).mean()) for matrices in ends] for ends in (trained, drawn)]
    near, far = ([float(np.mean([m.diagonal(d).mean() for m in ms.values()])) for ms in trained] for d in (1, 2))
    favourites = [", ".join(str(favourite(list(ms.values()))) for ms in ends) for ends in (drawn, trained)]
    moments = similarities(shared[0]["recording"])
    distances = [(epoch, float((_apart(ms) - _apart(trained[0])).abs().sum())) for epoch, ms in moments]
    settled = next(epoch for epoch, distance in distances if distance <= 0.1 * distances[0][1])
    lines = [
        parts.verdict("mean similarity of two layers, trained", means[0], "as drawn", means[1], ".2f", 2),
        parts.verdict("trained, two layers apart", far, "one layer apart", near, ".2f", 2),
        f"most alike at a distance of (a run each): as drawn {favourites[0]}; trained {favourites[1]}",
        *_left(shared),
        f"nine tenths of the way to the last matrix: epoch {settled:.1f} of {moments[-1][0]:g}",
    ]
    parts.say("\n".join(lines), shared)


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
