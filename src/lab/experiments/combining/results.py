"""Chapter 7's tables, figures and verdicts: do the savings of sharing, mask and precision multiply, and what do they cost together?

Everything starts from records of :mod:`lab.experiments.combining.stack`, all of one profile, complete or not, and averages over their seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nan, prod

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student

from lab import figures
from lab.runs import Record
from lab.utils.errors import LabError

from .stack import COMBINATIONS, VERBS

COLOURS = {"dense": figures.DENSE, "share": figures.SHARING, "mask": figures.CS, "bits": figures.SMOL}
"""Of each step, by what it adds: the colours of the verbs' own chapters."""
PARTS = {"payload_bytes": "weights", "map_bytes": "their map", "rest_bytes": "all else"}
"""What the record of a file of few bits tells apart, in words."""
MEANS = ("accuracy", "file_bytes", "zeros", "bits", *PARTS)
CONFIDENCE = 0.95
TENTH = 0.1
"""Within so much of the product of the single ratios savings count as multiplied."""
UNDECIDED = "can not tell"


def words(combination: str) -> str:
    """``share+mask`` as it is read: ``share + mask``."""
    return combination.replace("+", " + ")


def points(records: Iterable[Record]) -> pd.DataFrame:
    """The mean over seeds of each combination and optimizer that is recorded, a row each, in the order of :data:`COMBINATIONS`.

    Columns: ``combination``, ``optimizer``, ``n`` (seeds), ``spread`` (of the accuracy; NaN for one seed), ``ratio`` (how many times
    smaller than the dense file; NaN without one), ``accuracy``, ``file_bytes``, ``zeros`` (share of the maskable weights), ``bits`` (32 where none
    were looked for), and :data:`PARTS` in bytes (NaN for a float32 file, whose record tells the whole alone).
    """
    rows = []
    for record in records:
        method = record["config"]["method"]
        told = {"combination": method["combination"], "optimizer": method["optimizer"]}
        measured = {name: record["figures"].get(name, 32.0 if name == "bits" else nan) for name in MEANS}
        rows.append(told | measured)
    if not rows:
        return pd.DataFrame(columns=["combination", "optimizer", *MEANS, "n", "spread", "ratio"])
    grouped = pd.DataFrame(rows).groupby(["combination", "optimizer"])
    found = grouped.mean().join(grouped["accuracy"].agg(n="size", spread="std")).reset_index()
    dense = found[(found["combination"] == "dense") & (found["optimizer"] == "SGD")]["file_bytes"]
    found["ratio"] = (dense.iloc[0] if len(dense) else nan) / found["file_bytes"]
    place = {combination: i for i, combination in enumerate(COMBINATIONS)}
    order = found["combination"].map(place) + 0.5 * (found["optimizer"] != "SGD")
    return found.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def _by_sgd(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["optimizer"] == "SGD"]


def table(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`points` by SGD as a reader sees them."""
    return _shown(_by_sgd(found)).drop(columns="optimizer")


def optimizers(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`points` of the combinations that AvaGrad trained, beside SGD's, as a reader sees them."""
    both = found[found["optimizer"] == "AvaGrad"]["combination"]
    return _shown(found[found["combination"].isin(both)]).drop(columns="ratio")


def _shown(found: pd.DataFrame) -> pd.DataFrame:
    spread = [f" ± {100 * d:.1f}" if d == d else "" for d in found["spread"]]
    accuracy = zip(found["accuracy"], spread, found["n"], strict=True)
    return pd.DataFrame(
        {
            "stacked": [words(c) for c in found["combination"]],
            "optimizer": found["optimizer"].tolist(),
            "test accuracy": [f"{100 * a:.1f}{d} % (n = {n})" for a, d, n in accuracy],
            "bytes": [f"{b:,.0f}" for b in found["file_bytes"]],
            "ratio": ["–" if r != r else f"{r:.1f}" for r in found["ratio"]],
            "zeros": [f"{z:.1%}" for z in found["zeros"]],
            "bits": [f"{b:.2f}" for b in found["bits"]],
        }
    )


# -- the staircase -----------------------------------------------------------------------------------------------------


def path(found: pd.DataFrame) -> list[str]:
    """From dense to the smallest file, a verb a step, in the order in which they are stacked.

    What is not recorded is left out; without the dense network there is no path, hence an empty list.
    """
    plain = _by_sgd(found).set_index("combination")
    if "dense" not in plain.index:
        return []
    verbs = str(plain["file_bytes"].idxmin()).split("+")
    steps = ["dense", *("+".join(verbs[: i + 1]) for i in range(len(verbs)))]
    return [step for step in dict.fromkeys(steps) if step in plain.index]


def staircase(records: Iterable[Record]) -> Figure:
    """Size, on a logarithmic axis, and accuracy of each step of :func:`path`: the mean, and for the accuracy each seed beside it.

    Raises:
        LabError: the dense network is not among the records.
    """
    import matplotlib.pyplot as plt

    made = list(records)
    found = points(made)
    steps = path(found)
    if not steps:
        raise LabError("no staircase without its first step: record the dense network first")
    plain = _by_sgd(found).set_index("combination").loc[steps]
    colours = [COLOURS[step.split("+")[-1]] for step in steps]
    with figures.style():
        fig, (size, score) = plt.subplots(2, 1, sharex=True, height_ratios=(3, 2), figsize=(5.6, 5.0))
        for place, (step, colour) in enumerate(zip(steps, colours, strict=True)):
            here = plain.loc[step]
            left, right = place - 0.5, place + 0.5
            size.hlines(here["file_bytes"], left, right, color=colour, linewidth=5)
            if place:
                size.vlines(left, here["file_bytes"], plain.iloc[place - 1]["file_bytes"], color=colour, linewidth=1.5)
            told = f"{kilobytes(here['file_bytes'])}\n{here['ratio']:.1f}×"
            above = (place, here["file_bytes"])
            size.annotate(told, above, (0, 6), textcoords="offset points", ha="center", va="bottom")
            seeds = [100 * r["figures"]["accuracy"] for r in made if _is(r, step)]
            score.plot(
                [place] * len(seeds), seeds, color=colour, linestyle="", marker="_", markersize=16, markeredgewidth=2
            )
        score.plot(range(len(steps)), 100 * plain["accuracy"], color=figures.DENSE, linewidth=1, zorder=1)
        for place, (value, colour) in enumerate(zip(100 * plain["accuracy"], colours, strict=True)):
            score.plot(place, value, color=colour, **figures.BOOK)
        score.axhline(100 * plain["accuracy"].iloc[0], color=figures.DENSE, linestyle=":")
        low, high = plain["file_bytes"].min(), plain["file_bytes"].max()
        size.set(yscale="log", ylabel="file", ylim=(low / 1.6, high * 4))
        size.yaxis.set_major_formatter(
            lambda value, _: f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB"
        )
        names = [
            words(step) if step == "dense" else "+ " + _added(before, step)
            for before, step in zip(["", *steps], steps, strict=False)
        ]
        score.set(ylabel="test accuracy (%)", xticks=range(len(steps)), xlim=(-0.6, len(steps) - 0.4))
        score.set_xticklabels(names)
        score.grid(axis="x", visible=False)
        size.grid(axis="x", visible=False)
        score.margins(y=0.2)
    return fig


def steps(records: Iterable[Record]) -> str:
    """The staircase in words, a clause a step: its text alternative."""
    found = points(records)
    plain = _by_sgd(found).set_index("combination")
    told = (plain.loc[step] for step in path(found))
    return "; ".join(f"{words(p.name)}: {kilobytes(p['file_bytes'])}, {p['accuracy']:.1%}" for p in told)


def _added(before: str, after: str) -> str:
    """What the second combination has and the first has not."""
    return " + ".join(verb for verb in after.split("+") if verb not in before.split("+"))


def _is(record: Record, combination: str) -> bool:
    method = record["config"]["method"]
    return bool(method["combination"] == combination and method["optimizer"] == "SGD")


def kilobytes(size: float) -> str:
    """A file's size in words."""
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


# -- do they multiply? -------------------------------------------------------------------------------------------------


def products(found: pd.DataFrame) -> pd.DataFrame:
    """For each combination of two verbs or more that is recorded with its single verbs: ``expected``, the product of their ratios,
    ``measured``, its own ratio, and ``kept``, the one over the other: 1 if the savings multiply, below if they stand in each other's way."""
    ratio = _by_sgd(found).set_index("combination")["ratio"].dropna()
    rows = []
    for combination in COMBINATIONS:
        verbs = combination.split("+")
        if len(verbs) > 1 and {combination, *verbs} <= set(ratio.index):
            expected, measured = prod(ratio[verb] for verb in verbs), ratio[combination]
            rows.append((combination, expected, measured, measured / expected))
    return pd.DataFrame(rows, columns=["combination", "expected", "measured", "kept"])


def kept_by_seed(records: Iterable[Record]) -> pd.DataFrame:
    """``kept`` of :func:`products` from each seed's own files: a row a combination, a column a seed."""
    made = list(records)
    seeds = sorted({record["seed"] for record in made})
    each = {seed: products(points(r for r in made if r["seed"] == seed)).set_index("combination") for seed in seeds}
    return pd.DataFrame({seed: stacks["kept"] for seed, stacks in each.items()})


def bond(kept: Iterable[float]) -> str:
    """What the methods of a stack do to each other's savings, if all seeds say the same: ``multiply``, ``help`` or ``fight``."""
    said = {"multiply" if abs(one - 1) < TENTH else "help" if one > 1 else "fight" for one in kept}
    return said.pop() if len(said) == 1 else UNDECIDED


def worth(found: pd.DataFrame) -> pd.DataFrame:
    """What each verb saves: ``alone``, its own ratio, and ``last``, by how much it makes the stack of the two others smaller.

    A row a verb, NaN where a file that it takes is not recorded.
    """
    ratio = _by_sgd(found).set_index("combination")["ratio"]
    others = {verb: "+".join(v for v in VERBS if v != verb) for verb in VERBS}
    last = [ratio.get(COMBINATIONS[-1], nan) / ratio.get(others[verb], nan) for verb in VERBS]
    return pd.DataFrame({"verb": VERBS, "alone": [ratio.get(verb, nan) for verb in VERBS], "last": last})


def multiplied(stacks: pd.DataFrame) -> Figure:
    """:func:`products`, a line each: what the singles promise and what the file is, on a logarithmic axis."""
    import matplotlib.pyplot as plt

    with figures.style():
        fig, ax = plt.subplots(figsize=(5.6, 0.9 + 0.55 * len(stacks)))
        places = range(len(stacks))[::-1]
        ax.hlines(places, stacks["measured"], stacks["expected"], color=figures.DENSE, linewidth=1, zorder=1)
        promised = {"linestyle": "", "marker": "|", "markersize": 16, "markeredgewidth": 2.5}
        ax.plot(stacks["expected"], places, color=figures.DENSE, label="product of the single ratios", **promised)
        ax.plot(stacks["measured"], places, color=figures.ACCENT, label="measured", **figures.BOOK | {"linestyle": ""})
        for place, (_, row) in zip(places, stacks.iterrows(), strict=True):
            middle = ((row["measured"] * row["expected"]) ** 0.5, place)
            ax.annotate(f"{row['kept']:.0%}", middle, (0, 9), textcoords="offset points", ha="center", va="bottom")
        ax.set(xscale="log", xlabel="times smaller than the dense file", ylim=(-0.5, len(stacks) - 0.3))
        ax.set_yticks(places, labels=[words(c) for c in stacks["combination"]])
        ax.grid(axis="y", visible=False)
        _plain_ticks(ax, min(stacks["measured"]), max(stacks["expected"]))
        fig.legend(loc="outside lower center", ncols=2)
    return fig


def _plain_ticks(ax: Axes, low: float, high: float) -> None:
    """Write a logarithmic axis's ticks as numbers, so many that a span of less than a decade has some too."""
    marks = [m for m in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if low / 1.5 <= m <= high * 1.5]
    ax.set_xlim(low / 1.35, high * 1.35)
    ax.set_xticks(marks, labels=[f"{m:g}" for m in marks])
    ax.xaxis.set_minor_formatter("")


# -- where the bytes go ------------------------------------------------------------------------------------------------


def spent(found: pd.DataFrame) -> pd.DataFrame:
    """The files of few bits, split: ``combination``, ``file_bytes`` and :data:`PARTS`, from the largest to the smallest."""
    split = _by_sgd(found).dropna(subset="map_bytes")
    return split[["combination", "file_bytes", *PARTS]].sort_values("file_bytes", ascending=False, ignore_index=True)


def shares(split: pd.DataFrame) -> Figure:
    """:func:`spent` as bars of equal length: what each file is made of."""
    import matplotlib.pyplot as plt

    colours = (figures.SMOL, figures.AVAGRAD, figures.DENSE)
    with figures.style():
        fig, ax = plt.subplots(figsize=(5.6, 1.0 + 0.55 * len(split)))
        places, left = range(len(split))[::-1], 0.0
        for (part, name), colour in zip(PARTS.items(), colours, strict=True):
            width = 100 * split[part] / split[list(PARTS)].sum(axis=1)
            ax.barh(places, width, 0.6, left=left, color=colour, label=name)
            left = left + width
        labels = [f"{words(r['combination'])}\n{kilobytes(r['file_bytes'])}" for _, r in split.iterrows()]
        ax.set_yticks(places, labels=labels)
        ax.set(xlabel="share of the file (%)", xlim=(0, 100))
        ax.grid(axis="y", visible=False)
        fig.legend(loc="outside lower center", ncols=3)
    return fig


# -- verdicts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """A difference of mean accuracies and what chance alone explains of it; ``margin`` is None where no point has two seeds."""

    gap: float
    margin: float | None

    @property
    def word(self) -> str:
        """``above``, ``below``, or that the seeds :data:`UNDECIDED`."""
        if self.margin is None or abs(self.gap) <= self.margin:
            return UNDECIDED
        return "above" if self.gap > 0 else "below"

    @property
    def difference(self) -> str:
        """In points, with what chance explains."""
        return f"{100 * self.gap:+.1f}" + ("" if self.margin is None else f" ± {100 * self.margin:.1f}")

    def __str__(self) -> str:
        return f"{self.difference} points: {self.word}"


def pooled(found: pd.DataFrame) -> tuple[float, int]:
    """The spread of the accuracy over seeds, of all points together, and on how many degrees of freedom it rests.

    Two seeds know next to nothing of the spread of *their* point. If all points spread alike, all together know it ten times better.
    """
    several = found[found["n"] > 1]
    freedom = int((several["n"] - 1).sum())
    squares = float(((several["n"] - 1) * several["spread"] ** 2).sum())
    return (squares / freedom) ** 0.5 if freedom else nan, freedom


def weigh(found: pd.DataFrame, weights: Mapping[tuple[str, str], float]) -> Verdict | None:
    """The sum of mean accuracies, each times its weight, by (combination, optimizer); None if one of them is not recorded.

    ``{("mask", "SGD"): 1, ("dense", "SGD"): -1}`` is what the mask changes. The margin is that of Student's t with the pooled spread, 95 %.
    """
    at = found.set_index(["combination", "optimizer"])
    if not set(weights) <= set(at.index):
        return None
    gap = sum(weight * at.loc[point, "accuracy"] for point, weight in weights.items())
    spread, freedom = pooled(found)
    if not freedom:
        return Verdict(gap, None)
    variance = sum(weight**2 / at.loc[point, "n"] for point, weight in weights.items())
    return Verdict(gap, float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * spread * variance**0.5)


def against(found: pd.DataFrame, combination: str, optimizer: str = "SGD") -> Verdict | None:
    """A combination against the dense network, both by SGD or both by ``optimizer``."""
    return weigh(found, {(combination, optimizer): 1.0, ("dense", optimizer): -1.0})


def interplay(found: pd.DataFrame, combination: str) -> Verdict | None:
    """What a combination changes, less what its verbs change one by one: 0 if their costs add up."""
    verbs = combination.split("+")
    weights = {(combination, "SGD"): 1.0, ("dense", "SGD"): len(verbs) - 1.0}
    return weigh(found, weights | {(verb, "SGD"): -1.0 for verb in verbs})


def verdicts(found: pd.DataFrame) -> pd.DataFrame:
    """Each stack against dense, and against the sum of what its methods change one by one, as a reader sees them; "–" where a record is missing."""
    rows = []
    for combination in _by_sgd(found)["combination"]:
        if combination == "dense":
            continue
        sums = interplay(found, combination) if "+" in combination else None
        against_dense, against_sum = (
            (v.difference, v.word) if v else ("–", "–") for v in (against(found, combination), sums)
        )
        rows.append((words(combination), *against_dense, *against_sum))
    return pd.DataFrame(rows, columns=["stacked", "less dense", "verdict", "less the sum", "its verdict"])


def smallest_level(found: pd.DataFrame) -> pd.Series | None:
    """Of the stacks by SGD whose accuracy the seeds do not tell to be below dense, the one of the smallest file."""
    level = [
        row
        for _, row in _by_sgd(found).iterrows()
        if (verdict := against(found, row["combination"])) and verdict.margin is not None and verdict.word != "below"
    ]
    return min(level, key=lambda row: float(row["file_bytes"])) if level else None


def smallest_no_lower(found: pd.DataFrame) -> pd.Series | None:
    """Of the stacks by SGD that measured no less than dense, as means go, the one of the smallest file; what chance did to them is not weighed."""
    plain = _by_sgd(found)
    dense = plain.loc[plain["combination"] == "dense", "accuracy"]
    stacks = plain[plain["combination"] != "dense"]
    level = stacks[stacks["accuracy"] >= dense.min()]  # none without a dense network
    return None if level.empty else level.loc[level["file_bytes"].idxmin()]
