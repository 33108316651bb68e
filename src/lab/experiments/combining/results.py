"""Chapter 7's tables, figures and verdicts: do savings multiply, and what do they cost?

Everything starts from records of :mod:`lab.experiments.combining.stack`, all of one profile, complete or not. A
function that draws or prints puts its result on the page; one that makes a table returns it for
:func:`lab.figures.table`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from math import nan, prod

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lab import figures
from lab.runs import Record, find
from lab.statistics import Comparison, compare
from lab.utils.errors import LabError

from .stack import COMBINATIONS, ZERO_BITS, methods, runs

COLOURS = {
    "dense": figures.DENSE,
    "share": figures.SHARING,
    "mask": figures.CS,
    "bits": figures.SMOL,
    ZERO_BITS: figures.SMOL,
}
"""Of each step, by what it adds: the colours of the methods' own chapters."""
PARTS = {"payload_bytes": "weights", "map_bytes": "their map", "rest_bytes": "all else"}
"""The parts of a file of few bits, in words."""
MEANS = ("accuracy", "file_bytes", "zeros", "bits", *PARTS)
TENTH = 0.1
"""Savings count as multiplied within this share of the product of the single ratios."""
DENSE, WHOLE = COMBINATIONS[0], COMBINATIONS[-1]


def words(combination: str) -> str:
    """``share+mask`` as it is read: ``share + mask``."""
    return combination.replace("+", " + ")


# -- all of them -------------------------------------------------------------------------------------------------------


def protocol(records: Sequence[Record]) -> str:
    """What was trained, in two lines."""
    config = records[0]["config"]
    search, tuning = (config["training"][k] for k in ("epochs", "finetune_epochs"))
    return (
        f"profile {records[0]['profile']}: {len(records)} runs of {config['model']}\n"
        f"on {config['data']}, {search} epochs of search, {tuning} of fine-tuning"
    )


def points(records: Iterable[Record]) -> pd.DataFrame:
    """The mean over seeds of each recorded combination and optimizer, a row each, in the order of :data:`COMBINATIONS`.

    Columns: ``combination``, ``optimizer``, ``n`` (seeds), ``spread`` (of the accuracy; NaN for one seed), ``ratio``
    (how many times smaller than the dense file; NaN without one), ``accuracy``, ``file_bytes``, ``zeros`` (share of the
    maskable weights), ``bits`` (32 where no precision was searched), :data:`PARTS` in bytes (NaN for a float32 file).
    """
    rows = []
    for record in records:
        method = record["config"]["method"]
        measured = {name: record["figures"].get(name, 32.0 if name == "bits" else nan) for name in MEANS}
        rows.append({key: method[key] for key in ("combination", "optimizer")} | measured)
    if not rows:
        return pd.DataFrame(columns=["combination", "optimizer", *MEANS, "n", "spread", "ratio"])
    grouped = pd.DataFrame(rows).groupby(["combination", "optimizer"])
    means = grouped.mean().join(grouped["accuracy"].agg(n="size", spread="std")).reset_index()
    dense = means[(means["combination"] == DENSE) & (means["optimizer"] == "SGD")]["file_bytes"]
    means["ratio"] = (dense.iloc[0] if len(dense) else nan) / means["file_bytes"]
    order = means["combination"].map(COMBINATIONS.index) + 0.5 * (means["optimizer"] != "SGD")
    return means.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def table(means: pd.DataFrame) -> pd.DataFrame:
    """:func:`points` by SGD as a reader sees them."""
    return _shown(_by_sgd(means)).drop(columns="optimizer")


def optimizers(means: pd.DataFrame) -> pd.DataFrame:
    """:func:`points` of the combinations that AvaGrad trained, beside SGD's, as a reader sees them."""
    both = means[means["optimizer"] == "AvaGrad"]["combination"]
    return _shown(means[means["combination"].isin(both)]).drop(columns="ratio")


def _by_sgd(means: pd.DataFrame) -> pd.DataFrame:
    return means[means["optimizer"] == "SGD"]


def _shown(means: pd.DataFrame) -> pd.DataFrame:
    spread = [f" ± {100 * d:.1f}" if d == d else "" for d in means["spread"]]
    accuracy = zip(means["accuracy"], spread, means["n"], strict=True)
    return pd.DataFrame(
        {
            "stacked": [words(c) for c in means["combination"]],
            "optimizer": means["optimizer"].tolist(),
            "test accuracy": [f"{100 * a:.1f}{d} % (n = {n})" for a, d, n in accuracy],
            "bytes": [f"{b:,.0f}" for b in means["file_bytes"]],
            "ratio": ["–" if r != r else f"{r:.1f}" for r in means["ratio"]],
            "zeros": [f"{z:.1%}" for z in means["zeros"]],
            "bits": [f"{b:.2f}" for b in means["bits"]],
        }
    )


# -- the staircase -----------------------------------------------------------------------------------------------------


def path(means: pd.DataFrame) -> list[str]:
    """From dense to the smallest file, a method a step, in the order in which they are stacked.

    What is not recorded is left out; without the dense network there is no path, hence an empty list.
    """
    sizes = _by_sgd(means).set_index("combination")["file_bytes"]
    if DENSE not in sizes.index:
        return []
    last = str(sizes.idxmin())
    verbs = last.split("+")
    steps = [DENSE, *("+".join(verbs[: i + 1]) for i in range(len(verbs)))]
    return [step for step in dict.fromkeys(steps) if step in sizes.index]


def staircase(records: Sequence[Record]) -> None:
    """File size of each step of :func:`path` on a logarithmic axis; below it the accuracy, its mean and each seed.

    Raises:
        LabError: the dense network is not among the records.
    """
    steps = path(points(records))
    if not steps:
        raise LabError("no staircase without its first step: record the dense network first")
    means = _by_sgd(points(records)).set_index("combination").loc[steps]
    colours = [COLOURS[(methods(step) or [DENSE])[-1]] for step in steps]
    places, sizes = range(len(steps)), means["file_bytes"]
    seeds = (100 * _by_seed(records)[steps]).melt(var_name="step", value_name="accuracy")
    with figures.style():
        fig, (size, score) = plt.subplots(2, 1, sharex=True, height_ratios=(3, 2), figsize=(5.6, 5.0))
        size.step(places, sizes, where="mid", color=figures.DENSE, linewidth=1.5, zorder=1)
        size.hlines(sizes, [i - 0.5 for i in places], [i + 0.5 for i in places], color=colours, linewidth=5)
        for i, (bytes_, ratio) in enumerate(zip(sizes, means["ratio"], strict=True)):
            text = f"{figures.kilobytes(bytes_)}\n{ratio:.1f}×"
            size.annotate(text, (i, bytes_), (0, 6), textcoords="offset points", ha="center", va="bottom")
        score.axhline(100 * means["accuracy"].iloc[0], color=figures.DENSE, linestyle=":")
        shared = {"x": "step", "y": "accuracy", "order": steps, "ax": score}
        sns.pointplot(seeds, **shared, errorbar=None, color=figures.DENSE, markers="", linewidth=1, zorder=1)
        hues = shared | {"hue": "step", "hue_order": steps, "palette": colours, "legend": False}
        sns.stripplot(seeds, **hues, jitter=False, marker="_", size=16, linewidth=2)
        sns.pointplot(seeds, **hues, errorbar=None, markersize=6, markeredgewidth=0)
        size.set(yscale="log", ylabel="file", ylim=(sizes.min() / 1.6, sizes.max() * 4))
        size.yaxis.set_major_formatter(
            lambda value, _: f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB"
        )
        names = [words(steps[0]), *("+ " + _added(*pair) for pair in itertools.pairwise(steps))]
        score.set(xlabel="", ylabel="test accuracy (%)", xlim=(-0.6, len(steps) - 0.4))
        score.set_xticks(places, labels=names)
        score.margins(y=0.2)
        for ax in (size, score):
            ax.grid(axis="x", visible=False)
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="A staircase of file sizes on a logarithmic axis, and below it the accuracy of each step with its seeds. "
        + "; ".join(
            f"{words(m.name)}: {figures.kilobytes(m['file_bytes'])}, {m['accuracy']:.1%}" for _, m in means.iterrows()
        )
        + ".",
    )


def _added(before: str, after: str) -> str:
    """What the second combination has and the first has not."""
    return " + ".join(method for method in methods(after) if method not in methods(before))


def smallest(records: Sequence[Record]) -> None:
    """Print the smallest file, and the smallest that :func:`compare` does not find less accurate than dense."""
    means = _by_sgd(points(records)).set_index("combination")
    print("smallest file:", words(str(means["file_bytes"].idxmin())))
    level = not_worse(records)
    if level is not None:
        size, ratio = means.loc[level, ["file_bytes", "ratio"]]
        print("smallest whose accuracy is not told apart from dense, or above it:")
        print(f"  {words(level)}, {size:,.0f} bytes, {ratio:.1f} times smaller")
        print(f"  its accuracy less the dense network's, in points: {_difference(against_dense(records)[level])}")
    figures.mark(records)


def not_worse(records: Sequence[Record]) -> str | None:
    """Of the stacks by SGD that several seeds do not find less accurate than dense, the one of the smallest file."""
    sizes = _by_sgd(points(records)).set_index("combination")["file_bytes"]
    compared = against_dense(records)
    level = [stack for stack, c in compared.items() if c.verdict in ("higher", "not told apart")]
    return min(level, key=sizes.__getitem__) if level else None


# -- do they multiply? -------------------------------------------------------------------------------------------------


def products(means: pd.DataFrame) -> pd.DataFrame:
    """Ratios of each combination of several methods that is recorded with its single methods.

    ``expected`` is the product of the ratios of its single :func:`methods`, ``measured`` its own, ``kept`` the
    one over the other: 1 if the savings multiply.
    """
    ratio = _by_sgd(means).set_index("combination")["ratio"].dropna()
    rows = []
    for combination in COMBINATIONS:
        singles = methods(combination)
        if len(singles) > 1 and {combination, *singles} <= set(ratio.index):
            expected, measured = prod(ratio[single] for single in singles), ratio[combination]
            rows.append((combination, expected, measured, measured / expected))
    return pd.DataFrame(rows, columns=["combination", "expected", "measured", "kept"])


def multiplied(records: Sequence[Record]) -> None:
    """:func:`products`, a line each: what the single methods promise and what the file is, on a logarithmic axis."""
    stacks = products(points(records)).assign(stack=lambda s: s["combination"].map(words))
    with figures.style():
        fig, ax = plt.subplots(figsize=(5.6, 0.9 + 0.55 * len(stacks)))
        shared = {"y": "stack", "ax": ax, "linestyle": "none"}
        ax.hlines(stacks["stack"], stacks["measured"], stacks["expected"], color=figures.DENSE, linewidth=1, zorder=1)
        sns.pointplot(
            stacks, x="expected", color=figures.DENSE, markers="|", markersize=16, markeredgewidth=2.5,
            label="product of the single ratios", **shared,
        )  # fmt: skip
        sns.pointplot(stacks, x="measured", color=figures.ACCENT, markersize=6, label="measured", **shared)
        for i, row in stacks.iterrows():
            middle = ((row["measured"] * row["expected"]) ** 0.5, i)
            ax.annotate(f"{row['kept']:.0%}", middle, (0, 9), textcoords="offset points", ha="center", va="bottom")
        low, high = stacks["measured"].min(), stacks["expected"].max()
        marks = [m for m in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if low / 1.5 <= m <= high * 1.5]
        ax.set(xscale="log", xlabel="times smaller than the dense file", ylabel="", ylim=(len(stacks) - 0.5, -0.7))
        ax.set(xlim=(low / 1.35, high * 1.35))
        ax.set_xticks(marks, labels=[f"{m:g}" for m in marks])
        ax.xaxis.set_minor_formatter("")
        ax.grid(axis="y", visible=False)
        ax.get_legend().remove()
        fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="How many times smaller than the dense file, on a logarithmic axis, what the single methods promise and "
        "what the stacks measure. "
        + "; ".join(f"{s.stack}: {s.expected:.1f} expected, {s.measured:.1f} measured" for s in stacks.itertuples())
        + ".",
    )


def kept_by_seed(records: Sequence[Record]) -> pd.DataFrame:
    """``kept`` of :func:`products` from each seed's own files: a row a combination, a column a seed."""
    seeds = sorted({record["seed"] for record in records})
    each = {seed: products(points(r for r in records if r["seed"] == seed)).set_index("combination") for seed in seeds}
    return pd.DataFrame({seed: stacks["kept"] for seed, stacks in each.items()})


def bond(kept: Iterable[float]) -> str:
    """What the methods of a stack do to each other's savings, if all seeds agree: multiply, help or fight."""
    bonds = {"multiply" if abs(share - 1) < TENTH else "help" if share > 1 else "fight" for share in kept}
    return bonds.pop() if len(bonds) == 1 else "seeds disagree"


def savings(records: Sequence[Record]) -> pd.DataFrame:
    """:func:`products` and :func:`bond` as a reader sees them, with what each seed kept of the product."""
    stacks, seeds = products(points(records)), kept_by_seed(records)
    return pd.DataFrame(
        {
            "stacked": [words(c) for c in stacks["combination"]],
            "times smaller": [f"{m:.1f}" for m in stacks["measured"]],
            "product": [f"{e:.1f}" for e in stacks["expected"]],
            "kept, seed by seed": [", ".join(f"{k:.0%}" for k in seeds.loc[c]) for c in stacks["combination"]],
            "the savings": [bond(seeds.loc[c]) for c in stacks["combination"]],
        }
    )


def steps(present: Iterable[str]) -> list[tuple[str, str, str]]:
    """All pairs of combinations that differ in one thing, ``(before, after, what is added)``, of those present.

    From ``share+bits`` to ``share+mask+bits`` two things change, the mask and the zero precision: it is no step.
    """
    pairs = [(a, b) for a, b in itertools.product(COMBINATIONS, repeat=2) if {a, b} <= set(present)]
    single = [
        (a, b, _added(a, b))
        for a, b in pairs
        if set(methods(a)) < set(methods(b)) and len(methods(b)) == len(methods(a)) + 1
    ]
    return single + [(a, b, "zero precision") for a, b in pairs if (a, b) == ("bits", ZERO_BITS)]


def worth(records: Sequence[Record]) -> pd.DataFrame:
    """What one method adds to each file that is recorded without and with it, and nothing else: bytes and accuracy."""
    sizes, values = _by_seed(records, "file_bytes"), _by_seed(records, "accuracy")
    pairs = steps(sizes)
    rows = []
    for before, after, added in pairs:
        factors = (sizes[before] / sizes[after]).dropna()
        comparison = _compare(values[after], values[before], len(pairs))
        rows.append(
            {
                "added": added,
                "to": words(before),
                "times smaller, seed by seed": ", ".join(f"{factor:.2f}" for factor in factors),
                "points of accuracy": _difference(comparison),
                "verdict": _verdict(comparison),
            }
        )
    return pd.DataFrame(rows).sort_values("added", kind="stable")


# -- where the bytes go ------------------------------------------------------------------------------------------------


def spent(means: pd.DataFrame) -> pd.DataFrame:
    """The files of few bits from the largest to the smallest: ``combination``, ``file_bytes`` and :data:`PARTS`."""
    split = _by_sgd(means).dropna(subset="map_bytes")
    return split[["combination", "file_bytes", *PARTS]].sort_values("file_bytes", ascending=False, ignore_index=True)


def spent_shown(means: pd.DataFrame) -> pd.DataFrame:
    """:func:`spent` as a reader sees it, in bytes, with the share of what is neither weight nor map."""
    split = spent(means)
    return pd.DataFrame(
        {
            "stacked": split["combination"].map(words),
            "file, bytes": split["file_bytes"].map("{:,.0f}".format),
            **{name: split[part].map("{:,.0f}".format) for part, name in PARTS.items()},
            "all else, share": (split["rest_bytes"] / split["file_bytes"]).map("{:.0%}".format),
        }
    )


def shares(records: Sequence[Record]) -> None:
    """:func:`spent` as bars of equal length: what each file is made of."""
    split = spent(points(records))
    last = split.iloc[-1]
    split["file"] = [
        f"{words(c)}\n{figures.kilobytes(b)}" for c, b in zip(split["combination"], split["file_bytes"], strict=True)
    ]
    parts = split.rename(columns=PARTS).melt("file", list(PARTS.values()), "part", "bytes")
    with figures.style():
        fig, ax = plt.subplots(figsize=(5.6, 1.0 + 0.55 * len(split)))
        sns.histplot(
            parts, y="file", hue="part", hue_order=list(PARTS.values())[::-1], weights="bytes", multiple="fill",
            palette=[figures.DENSE, figures.AVAGRAD, figures.SMOL], alpha=1, shrink=0.6, linewidth=0, ax=ax,
        )  # fmt: skip
        ax.set(xlabel="share of the file (%)", ylabel="", xlim=(0, 1))
        ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
        ax.grid(axis="y", visible=False)
        handles = ax.get_legend().legend_handles[::-1]
        ax.get_legend().remove()
        fig.legend(handles, PARTS.values(), loc="outside lower center", ncols=3)
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="What each file with precisions is made of, in shares: the weights' bits, their map, and all else. In the "
        f"smallest, {words(last['combination'])}: "
        + ", ".join(f"{name} {figures.kilobytes(last[part])}" for part, name in PARTS.items())
        + ".",
    )


# -- accuracy ----------------------------------------------------------------------------------------------------------


def _by_seed(records: Iterable[Record], figure: str = "accuracy") -> pd.DataFrame:
    """A figure, a row a seed and a column a method's name; NaN where a run is not recorded."""
    rows = [(r["seed"], r["config"]["method"]["name"], r["figures"][figure]) for r in records]
    return pd.DataFrame(rows, columns=["seed", "name", figure]).pivot(index="seed", columns="name", values=figure)


def _compare(a: pd.Series, b: pd.Series, comparisons: int) -> Comparison | None:
    """In points of accuracy; None if a side has no run."""
    a, b = 100 * a.dropna(), 100 * b.dropna()
    return compare(a.tolist(), b.tolist(), comparisons=comparisons) if len(a) and len(b) else None


def against_dense(records: Sequence[Record]) -> dict[str, Comparison]:
    """Each recorded stack by SGD against the dense network, in points of accuracy; empty without one."""
    values = _by_seed(records)
    stacks = [c for c in COMBINATIONS[1:] if c in values and DENSE in values]
    pairs = {c: _compare(values[c], values[DENSE], len(stacks)) for c in stacks}
    return {stack: comparison for stack, comparison in pairs.items() if comparison}


def against_sum(records: Sequence[Record]) -> dict[str, Comparison]:
    """Each stack of several methods against what it would reach if their single costs added up, seed by seed."""
    values = _by_seed(records)
    stacks = [c for c in COMBINATIONS if len(methods(c)) > 1 and {c, DENSE, *methods(c)} <= set(values)]
    pairs = {}
    for stack in stacks:
        singles = list(methods(stack))
        expected = values[singles].sum(axis=1, skipna=False) - (len(singles) - 1) * values[DENSE]
        pairs[stack] = _compare(values[stack], expected, len(stacks))
    return {stack: comparison for stack, comparison in pairs.items() if comparison}


def costs(records: Sequence[Record]) -> pd.DataFrame:
    """:func:`against_dense` and :func:`against_sum` as a reader sees them; "–" where a run is missing."""
    dense, total = against_dense(records), against_sum(records)
    return pd.DataFrame(
        {
            "stacked": words(stack),
            "accuracy against dense": _difference(dense.get(stack)),
            "verdict": dense[stack].verdict if stack in dense else "–",
            "against the sum of single costs": _difference(total.get(stack)),
            "its verdict": total[stack].verdict if stack in total else "–",
        }
        for stack in COMBINATIONS[1:]
        if stack in set(_by_seed(records))
    )


def _difference(comparison: Comparison | None) -> str:
    return comparison.interval(1) if comparison else "–"


def avagrad(records: Sequence[Record]) -> None:
    """Print AvaGrad against SGD, for the dense network and the whole stack, and whether it does more for the stack."""
    values = _by_seed(records)
    gain = {c: values[f"{c}, AvaGrad"] - values[c] for c in (DENSE, WHOLE)}
    for combination in (DENSE, WHOLE):
        comparison = _compare(values[f"{combination}, AvaGrad"], values[combination], 3)
        print(f"AvaGrad against SGD, {words(combination)}: {_difference(comparison)}: {_verdict(comparison)}")
    extra = _compare(gain[WHOLE], gain[DENSE], 3)
    print(f"its gain on the stack against its gain on dense: {_difference(extra)}: {_verdict(extra)}")


def _verdict(comparison: Comparison | None) -> str:
    return comparison.verdict if comparison else "not recorded"


# -- the longer schedule -----------------------------------------------------------------------------------------------


def recorded(profile: str) -> list[Record]:
    """Print how many runs of a profile are recorded, show their tables, and return them."""
    wanted = runs(profile)
    records = [record for run in wanted if (record := find(run))]
    print(f"profile {profile}: {len(records)} of {len(wanted)} runs are recorded")
    if len(records) < len(wanted):
        print("the others are not recorded yet; this records them:")
        print(f"  python -m lab record --experiment combining --profile {profile} --device cuda")
    means = points(records)
    for shown in (table(means), optimizers(means)):
        if len(shown):
            figures.table(shown, profile=profile, runs=records)
    return records


def recorded_staircase(records: Sequence[Record]) -> None:
    """:func:`staircase` of recorded runs with the verdict on each step, as far as they go."""
    steps = path(points(records))
    if len(steps) < 2:
        print("no staircase yet: it needs the dense network and one stack")
        return
    staircase(records)
    compared = against_dense(records)
    for step in steps[1:]:
        print(f"{words(step)} against dense: {_difference(compared[step])} points: {compared[step].verdict}")
    end = _by_sgd(points(records)).set_index("combination").loc[steps[-1]]
    print(
        f"the smallest so far: {end['ratio']:.1f} times smaller; accuracy against dense: {compared[steps[-1]].verdict}"
    )
