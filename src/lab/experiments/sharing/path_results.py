"""Tables, figures and verdicts of the shortest paths (Section 3.4.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import ListedColormap, to_rgba

from lab import figures
from lab.runs import Record
from principled import group_layers

from . import images, shortest_paths

if TYPE_CHECKING:
    from lab.datasets.shortest_paths import Paths
from . import matrices, parts


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
    inks = [(0, 0, 0, 0), to_rgba(figures.DENSE, 0.6), to_rgba(figures.SHARING, 0.65), to_rgba(parts.THIRD)]
    with figures.style():
        fig, panels = plt.subplots(1, len(sets), figsize=(6.4, 2.5), dpi=300)
        for axes, grids in zip(panels, sets, strict=True):
            number = int(grids.lengths.argmax())
            points, obstacles = grids.inputs[number].bool()
            cells = torch.where(points, 3, torch.where(grids.labels[number].bool(), 2, obstacles.long()))
            matrices.cells(axes, cells.numpy(), ListedColormap(inks))
            axes.set(title=f"up to {grids.distance} apart")
            axes.spines[:].set_visible(True)
    figures.show(
        fig,
        alt="Three grids with grey obstacles and two query points that lie further and further apart; between them all "
        "cells on a shortest path are marked, which is a band where several paths are equally short.",
    )


def _contest(records: Sequence[Record]) -> list[Record]:
    return parts.chosen(records, shortest_paths.contest)


def paths_protocol(records: Sequence[Record]) -> None:
    """Grids, networks and runs of the shortest paths."""
    deep, method = parts.chosen(records, shortest_paths.deep)[0], _contest(records)[0]["config"]["method"]
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
    inks = [parts.THIRD if "lambda" in n else figures.SHARING if n.startswith("S") else figures.DENSE for n in names]
    with figures.style():
        fig, axes = plt.subplots(figsize=(6.4, 3.6))
        sns.lineplot(
            points, x="epoch", y="f1", hue="network", hue_order=names, palette=inks, errorbar=parts.RANGE,
            err_kws={"linewidth": 0}, ax=axes,
        )  # fmt: skip
        for change in np.flatnonzero(phase.diff() > 0):
            axes.axvline(change + 0.5, color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel="epoch", ylabel="test F₁ of the phase", ylim=(0, 1.02))
        axes.set(title="Dotted: the points move further apart")
        figures.legend_below(axes, columns=3)
    parts.show(
        fig,
        contest,
        "Test F1 over the epochs of the five phases for the CNN, the shared CNN and the shared CNN with the "
        "regulariser; vertical lines mark the beginning of each harder phase.",
    )


def _by_network(records: Sequence[Record], score: Callable[[Record], float]) -> dict[str, list[float]]:
    """A score of each run, ``{network: a value a seed}``, the plain CNN first."""
    scores: dict[str, list[float]] = {}
    for record in sorted(_contest(records), key=lambda record: str(record["config"]["method"]["name"])):
        scores.setdefault(record["config"]["method"]["name"], []).append(score(record))
    return scores


def f1_of_phases(records: Sequence[Record]) -> None:
    """F1 at the end of each phase, a row a method; and whether a shared network differs from the plain one in the
    last."""
    reestimated = "reestimate" in records[0]["config"]["training"]
    phases = sorted(set(records[0]["curve"]["phase"]))
    ends = {p: _by_network(records, partial(shortest_paths.end_of_phase, phase=p)) for p in phases}
    rows = [
        {"network": name} | {f"phase {p:g}": parts.spread(ends[p][name], ".2f") for p in phases}
        for name in ends[phases[0]]
    ]
    parts.table(rows, _contest(records))
    print("BatchNorm re-estimated for every score" if reestimated else "means of each phase's last two epochs")
    _against_the_plain("F1 of {} in the last phase", ends[phases[-1]])


def speed_in_the_first_phase(records: Sequence[Record]) -> None:
    """Does a network learn faster at first than the one before it: the CNN, the SCNN, and that with the regulariser?
    The mean F1 over the first phase."""
    scores = _by_network(records, shortest_paths.first_phase)
    names = list(scores)
    for before, name in pairwise(names):
        case = f"mean F1 of {name} over the first phase"
        print(parts.verdict(case, scores[name], before, scores[before], ".2f", len(names) - 1))
    parts.say_together(len(names) - 1)
    figures.mark(_contest(records))


def _against_the_plain(case: str, scores: Mapping[str, Sequence[float]]) -> None:
    plain, *shared = scores  # the CNN is the first
    for name in shared:
        print(parts.verdict(case.format(name), scores[name], plain, scores[plain], ".2f", len(shared)))
    parts.say_together(len(shared))


def loops_on_paths(records: Sequence[Record]) -> None:
    """Does Figure 3.12 come true? The most similar layers of each network with a template a layer and no regulariser.

    Their matrices start as the identity, so that whatever lies off the diagonal was learned.
    """
    free = [r for r in records if r["config"]["method"]["templates"] and not r["config"]["method"]["lambda"]]
    largest = [matrices.largest_of_ends(record)[1] for record in free]
    reached = max(largest) >= images.THRESHOLD
    print(
        "Figure 3.12 "
        + ("has a counterpart:" if reached else "is contradicted: no two layers became one, let alone a block")
    )
    for record, value in zip(free, largest, strict=True):
        groups = group_layers(next(iter(matrices.drawn_and_trained(record)[1].values())), images.THRESHOLD)
        left = f"{len(set(groups))} groups of {len(groups)} layers at {images.THRESHOLD}"
        print(f"  {record['config']['model']}, seed {record['seed']}: the most similar two {value:.2f}; {left}")
    figures.mark(free)


def matrices_of_the_deep(records: Sequence[Record]) -> None:
    """The deep network's similarity matrix at three moments of its training, the first of them as drawn."""
    deep = parts.chosen(records, shortest_paths.deep)
    epochs, moments = zip(*matrices.moments_of(deep[0]["recording"], 3), strict=True)
    parts.show(
        matrices.grid_of([[next(iter(matrices.values())) for matrices in moments]], [""], epochs),
        deep,
        "Similarity matrices of a deep shared network on the paths task at the start, in the middle and at the end "
        "of training.",
    )
