"""What tuning costs (Figures 6.5 and 6.6): trials until a search is near the best of its grid, and the grid's noise."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lab import figures
from lab.datasets import thesis
from lab.runs import Record

from . import grids, samplers
from .results import COLOURS, grid_seeds
from .theory_results import DASHED, DOTTED, SOLID


def goals() -> tuple[float, float, float]:
    """How near to the best a search has to come, in points: the thesis's 0.5 (Figure 6.5) and 1 (Figure 6.6), and
    this book's, which lies above the noise."""
    target, loose = (thesis.fact(id).value for id in ("tuning-target", "tuning-below"))
    return float(target), float(loose), 100 * samplers.WITHIN


def trials_needed(records: Sequence[Record], redraws: int = 10) -> pd.DataFrame:
    """A row an optimizer, sampler and goal, over 1,000 searches of the grid.

    ``median``, ``low``, ``high``: trials, the searches that never come near among them, as infinite; ``reached``: share
    of those that do; ``proposals``: median number of proposals, repeated settings counted each time;
    ``least``, ``most``: the median's range over ``redraws`` grids with the noise drawn anew.
    """
    rows = []
    for name in grids.OPTIMIZERS:
        lookup, source = samplers.Lookup.of(records, name), np.random.default_rng(0)
        redrawn = [lookup.redrawn(source) for _ in range(redraws)]
        for sampler in samplers.DIRECT:
            again = [samplers.search(grid, sampler, samplers.PROPOSALS, 100) for grid in redrawn]
            whole = samplers.search(lookup, sampler, samplers.PROPOSALS, 1000)
            for points in goals():
                cost = whole.cost(points / 100)
                medians = [samplers.median(search.cost(points / 100).trials).median for search in again]
                proposals = samplers.median(cost.proposals).median
                rows.append((name, sampler, points, *samplers.median(cost.trials)[:3], cost.reached, proposals,
                             min(medians), max(medians)))  # fmt: skip
    columns = ["optimizer", "sampler", "points", "median", "low", "high", "reached", "proposals", "least", "most"]
    return pd.DataFrame(rows, columns=columns)


def trials_by_sampler(costs: pd.DataFrame, records: Sequence[Record]) -> None:
    """A table of :func:`trials_needed`: samplers and goals down; across, each optimizer's trials, the share of searches
    that come near, and the range of the median when the grid's noise is drawn anew."""
    shown = costs[["sampler"]].assign(**{"to come within": [f"{points:g} points" for points in costs["points"]]})
    shown["optimizer"] = costs["optimizer"]
    shown["trials"] = [_interval(*row) for row in costs[["median", "low", "high"]].itertuples(index=False)]
    shown["reached"] = [f"{share:.0%}" for share in costs["reached"]]
    shown["noise drawn anew"] = [f"{_trials(a)} to {_trials(b)}" for a, b in costs[["least", "most"]].to_numpy()]
    wide = shown.set_index(["sampler", "to come within", "optimizer"]).unstack(sort=False)
    wide = wide.sort_index(axis=1, level=1, sort_remaining=False)
    wide.columns = [f"{optimizer}: {what}" for what, optimizer in wide.columns]
    figures.table(wide.reset_index(), profile=records[0]["profile"], runs=records)


def gap_against_trials(records: Sequence[Record]) -> None:
    """The median gap to the grid's best after so many trials, a line a sampler and optimizer, with the thesis's two
    numbers. A search that is stuck keeps its gap; the grey band is the noise of a cell."""
    dashes = {"random": DOTTED, "GLD": DASHED, "CGLD": SOLID}
    medians, noise = [], 0.0
    with figures.style():
        fig, ax = plt.subplots()
        for name in grids.OPTIMIZERS:
            lookup = samplers.Lookup.of(records, name)
            noise = max(noise, 100 * lookup.noise)
            for sampler in dashes:
                gap = 100 * samplers.search(lookup, sampler, 80, 1000).gap
                curve = {"trials": 1 + np.arange(gap.shape[1]), "gap": np.median(gap, 0)}
                medians.append(pd.DataFrame(curve | {"optimizer": name, "sampler": sampler}))
                if sampler == "CGLD":
                    low, high = np.quantile(gap, (0.25, 0.75), axis=0)
                    ax.fill_between(curve["trials"], low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
        looks = {"hue": "optimizer", "style": "sampler", "palette": COLOURS, "dashes": dashes}
        sns.lineplot(pd.concat(medians), x="trials", y="gap", ax=ax, **looks)
        ax.axhspan(0, noise, color=figures.DENSE, alpha=0.2, linewidth=0)
        for name, id in (("AvaGrad", "tuning-avagrad"), ("Adam", "tuning-adam")):
            ax.plot(thesis.fact(id).value, goals()[1], color=COLOURS[name], **figures.THESIS)
        ax.set(xlabel="trials", ylabel="above the grid's best (points)", ylim=(0, 10))
    alt = (
        "Median gap to the best validation error against the number of trials, for Adam and AvaGrad under random "
        "search, GLD and CGLD. Diamonds mark the thesis's 13 trials for AvaGrad with CGLD and 74 for Adam with GLD. "
        "A grey band at the bottom is as high as the noise of a cell."
    )
    figures.show(fig, profile=records[0]["profile"], runs=records, alt=alt)


def noise_of_the_grid(records: Sequence[Record]) -> None:
    """A line an optimizer: how much a cell is noise, how many cells lie within each goal, and how many seeds there
    are."""
    for name in grids.OPTIMIZERS:
        lookup = samplers.Lookup.of(records, name)
        near = ", ".join(f"{(lookup.gap <= p / 100 + 1e-12).sum()} within {p:g}" for p in goals())
        seeds = len(grid_seeds(records, name))
        print(f"{name:>8}: noise of a cell {100 * lookup.noise:.1f} points, {seeds} seed(s); cells {near} points")


def avagrad_against_adam(costs: pd.DataFrame) -> None:
    """A line a goal and sampler: both medians, and which needs fewer trials whatever the noise was; then the thesis's
    ratio and this grid's.

    Whatever the noise: the ranges of the medians over redrawn grids do not meet.
    """
    table = costs.set_index(["points", "sampler", "optimizer"])
    for points in goals():
        for sampler in samplers.DIRECT:
            adam, avagrad = (table.loc[(points, sampler, name)] for name in ("Adam", "AvaGrad"))
            verdict = "not told apart from noise"
            if avagrad["most"] < adam["least"]:
                half = avagrad["most"] <= adam["least"] / 2
                verdict = "AvaGrad needs " + ("at most half" if half else "fewer, not half")
            elif adam["most"] < avagrad["least"]:
                verdict = "Adam needs fewer"
            print(f"{points:3g} points, {sampler:>6}: AvaGrad {_cost(avagrad)}, Adam {_cost(adam)}: {verdict}")
    loose = goals()[1]
    ratio = table.loc[(loose, "GLD", "Adam"), "median"] / table.loc[(loose, "CGLD", "AvaGrad"), "median"]
    printed = thesis.fact("tuning-adam").value / thesis.fact("tuning-avagrad").value
    here = f"{ratio:.1f}" if np.isfinite(ratio) and ratio > 0 else "not reached"
    print(f"within {loose:g} point, Adam with GLD over AvaGrad with CGLD: {here}, thesis {printed:.1f}")


def samplers_compared(records: Sequence[Record], profile: str) -> None:
    """A table of trials, samplers down and optimizers across; below it, for how many samplers AvaGrad needs fewer, or
    half: those whose intervals do not meet."""
    if not records:
        print(f"not recorded: python -m lab record --experiment tuning --profile {profile}")
        return
    cells: dict[str, dict[str, str]] = {}
    intervals: dict[str, dict[str, samplers.Interval]] = {}
    for record in records:
        method, counted = record["config"]["method"], record["figures"]
        name, optimizer = method["name"], method["optimizer"]
        numbers = (counted.get(key, np.inf) for key in ("median", "low", "high"))
        interval = samplers.Interval(*numbers, int(counted["searches"]))
        intervals.setdefault(name, {})[optimizer] = interval
        words = f"{_interval(*interval[:3])}, {counted['reached']:.0%} of {interval.n}"
        cells.setdefault(name, {"sampler": name})[optimizer] = words
        cells[name][f"{optimizer}, proposals"] = _trials(counted.get("proposals", np.inf))
    figures.table(pd.DataFrame(cells.values()).fillna("not recorded"), profile=profile, runs=records)
    both = {name: pair for name, pair in intervals.items() if len(pair) == len(grids.OPTIMIZERS)}
    for words, share in (("at most half", 0.5), ("fewer", 1.0)):
        names = [name for name, pair in both.items() if pair["AvaGrad"].high < share * pair["Adam"].low]
        print(f"AvaGrad needs {words}: {len(names)} of {len(both)} ({', '.join(names) or 'none'})")


def _trials(number: float) -> str:
    return f"{number:g}" if np.isfinite(number) else "never"


def _interval(median: float, low: float, high: float) -> str:
    return f"{median:g} [{low:g}, {_trials(high)}]" if np.isfinite(median) else "most never do"


def _cost(row: pd.Series) -> str:
    """Median trials, with the repeated settings in brackets."""
    return f"{_trials(row['median'])} ({_trials(row['proposals'])} proposed)"
