"""Chapter 5's tables, figures and verdicts: which precisions were learned, what they save, what they cost in accuracy.

Each function takes finished records of one profile and puts a table, a figure or a few sentences on the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, log2, nan

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch

from lab import figures, runs
from lab.datasets import thesis
from lab.figures import measured
from lab.figures.precision_map.state import precision_state
from lab.figures.precision_map.widget import PrecisionWidget
from lab.models import resnet20
from lab.runs import Record
from lab.runs.recheck import recorded_precision
from lab.statistics import compare, paired
from principled import quantize

from . import weights
from .claims import relative_cost, relative_energy
from .frames import (
    COLOURS,
    MARKERS,
    contest,
    curves,
    families,
    first_seed,
    means,
    of_protocol,
    setting,
    show,
)

COMPARED = (("SMOL", "BSQ"), ("SMOL*", "BSQ"), ("SMOL", "LQ-Nets"), ("SMOL*", "SMOL"), ("SMOL*", "dense"))
"""Pairs of methods that :func:`verdicts` judges together."""


# -- the contest -------------------------------------------------------------------------------------------------------


def perturbation_limits() -> None:
    """Figure 5.2: a loss that bears more noise on one weight than on the other, and the precisions that follow."""
    best, limits = torch.tensor([0.6, 0.3]), (0.5, 0.125)
    bits = torch.tensor([round(1 - log2(limit)) for limit in limits])
    across, up = np.meshgrid(np.linspace(-0.1, 1.6, 171), np.linspace(-0.05, 0.65, 71))
    loss = ((across - float(best[0])) / limits[0]) ** 2 + ((up - float(best[1])) / limits[1]) ** 2
    with figures.style():
        fig, ax = plt.subplots(figsize=(7.4, 3.2))
        ax.contour(across, up, loss, levels=[1], colors=figures.SMOL, linewidths=2)
        ax.contour(across, up, loss, levels=[0.25, 4, 9], colors=figures.DENSE, linewidths=0.6)
        ax.errorbar(*best, xerr=limits[0], yerr=limits[1], color=figures.SMOL, capsize=3, marker="o")
        for draw, p in ((ax.axvline, bits[0]), (ax.axhline, bits[1])):
            levels = quantize(torch.linspace(-2, 2, 401), p).unique()
            for level in levels[(levels > -0.1) & (levels < 1.6)].tolist():
                draw(level, color=figures.MP, linestyle=":", linewidth=0.8, zorder=0)
        ax.plot(*quantize(best, bits), color=figures.MP, marker="s", linestyle="")
        ax.set(
            xlabel=f"a weight of {bits[0]} bits",
            ylabel=f"a weight of {bits[1]} bits",
            xlim=(-0.1, 1.6),
            ylim=(-0.05, 0.65),
        )
    figures.show(
        fig,
        alt="Level curves of a loss over two weights: wide along one axis, narrow along the other. The level that is "
        "tolerated reaches four times as far along the first weight, whose levels, dotted, lie four times as far "
        "apart. The nearest pair of levels, a square, lies within that curve.",
    )


def quantiser_steps() -> None:
    """The quantiser at 0, 1, 2 and 3 bits, over the weights themselves."""
    line = torch.linspace(-2.2, 2.2, 331)
    with figures.style():
        fig, axes = plt.subplots(1, 4, sharey=True, figsize=(7.4, 2.3))
        for p, ax in enumerate(axes):
            ax.plot(line, line, color=figures.DENSE, linestyle=":")
            ax.plot(line, quantize(line, torch.full_like(line, p, dtype=torch.int8)), color=figures.SMOL)
            ax.set(title=f"{p} bit{'s' * (p != 1)}", xlabel="w", xticks=(-2, 0, 2))
        axes[0].set(ylabel="Q(w, p)")
    figures.show(
        fig,
        alt="Four steps of the quantiser: with 0 bits everything becomes 0; with 1 bit plus or minus 1; with 2 bits "
        "four levels; with 3 bits eight. None of the levels of 1 bit or more is zero.",
    )


def accuracy_and_size(records: Sequence[Record]) -> None:
    """Every method and setting: bits a weight, packed file, test accuracy around the fixing and at the end."""
    columns = (
        "method", "setting", "bits a weight", "packed file", "end of search", "right after fixing", "test accuracy",
        "runs",
    )  # fmt: skip
    show(means(contest(records), "label", "setting"), columns, records)


def fixing(records: Sequence[Record]) -> None:
    """Lowest and highest accuracy of SMOL's settings at the end of the search, right after fixing, and at the end."""
    points = means(contest(records), "label", "setting")
    for name in ("SMOL", "SMOL*", "SMOL-L"):
        part = points[points["label"] == name]
        around = [part[column] for column in ("accuracy_before_fixing", "accuracy_after_fixing", "accuracy")]
        words = [f"{values.min():.1%} to {values.max():.1%}" for values in around]
        print(f"{name}: searched {words[0]}, right after fixing {words[1]}, fine-tuned {words[2]}; chance is 10%")


STEP_OF_S = ": mean step of s over its rate"


def pilot_record() -> dict[str, float]:
    """What ``benchmarks/smol_search.py`` noted, by name: a search's bits; with :data:`STEP_OF_S` added, its steps."""
    return measured.values(measured.read("smol_search"))


def pilot() -> None:
    """The pilot of profile ``short``, and the recorded full search that its first row repeats at reduced size."""
    noted = pilot_record()
    names = [name for name in noted if name + STEP_OF_S in noted]
    rows = [(name, f"{noted[name]:.2f}", f"{noted[name + STEP_OF_S]:.0%}") for name in names]
    table = pd.DataFrame(rows, columns=["search", "bits a weight", "mean step of s, of its rate"])
    figures.table(table, benchmark="smol_search")
    full = runs.find(weights.run("short", "smol", **{"lambda": 1e-6, "lr_s": 2e-3, "zero": True}))
    if full is not None:
        bits = full["curve"]["bits"][full["config"]["training"]["epochs"] - 1]
        print(f"the first row's full search, of all of CIFAR-10: {bits:.2f} bits")


def printed_points() -> pd.DataFrame:
    """Table 5.1 of the thesis: ``label``, ``bits`` and ``accuracy`` in percent, a row each."""
    table = thesis.table("5.1").pivot(index="row", columns="column", values="value").reset_index()
    table["label"] = table["row"].str.split(" (", regex=False).str[0]
    return table.rename(columns={"Bits per parameter": "bits", "Test accuracy": "accuracy"})


def accuracy_against_bits(records: Sequence[Record]) -> None:
    """Test accuracy over bits a weight, lines for means and faint marks for runs; beside it the thesis's Table 5.1."""
    table = contest(records).assign(accuracy=lambda t: 100 * t["accuracy"])
    points, printed = means(table, "label", "setting"), printed_points()
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.4))
        for ax, frame, dense in ((left, points, "dense"), (right, printed, "-FP")):
            for accuracy in frame[frame["label"].astype(str).str.endswith(dense)]["accuracy"]:
                ax.axhline(accuracy, color=figures.DENSE, linestyle=":")
            curves(ax, frame, "bits", "accuracy", hollow=ax is right)
        for name in MARKERS:
            single = table[table["label"] == name]
            left.scatter(single["bits"], single["accuracy"], 14, COLOURS[name], marker=MARKERS[name], alpha=0.4)
        left.set(title="This book", xlabel="bits a weight", ylabel="test accuracy (%)")
        right.set(title="Thesis, Table 5.1", xlabel="bits a weight", ylabel="")
        figures.legend_below(left, right)
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Test accuracy against average bits a weight. Left, this book's runs; right, Table 5.1 of the thesis, "
        "where SMOL and SMOL with zero precision lie above BSQ and the methods of fixed precision. Dotted: full "
        "precision.",
    )


def of_method(table: pd.DataFrame, name: str, bits: float = nan) -> pd.DataFrame:
    """The runs of a method at the setting that most seeds repeat; of several such, the one nearest to ``bits``."""
    part = table[table["label"] == name]
    settings = means(part, "label", "setting")
    most = settings[settings["n"] == settings["n"].max()]
    chosen = most.loc[(most["bits"] - (most["bits"].mean() if isnan(bits) else bits)).abs().idxmin(), "setting"]
    return part[part["setting"] == chosen]


def verdicts(records: Sequence[Record]) -> None:
    """Whether SMOL differs in accuracy from its rivals, and whose mean is the highest at few bits."""
    table, rows = contest(records), []
    for name, other in COMPARED:
        a = of_method(table, name)
        b = of_method(table, other, a["bits"].mean())
        result = compare(100 * a["accuracy"], 100 * b["accuracy"], comparisons=len(COMPARED))
        rows.append(
            {
                "method": f"{name} at {a['bits'].mean():.2f} bits",
                "against": f"{other} at {b['bits'].mean():.2f} bits",
                "difference": f"{result.difference:+.1f} points",
                "interval": "–" if isnan(result.low) else f"{result.low:+.1f} to {result.high:+.1f}",
                "runs": f"{result.n[0]} and {result.n[1]}",
                "verdict": result.verdict,
            }
        )
    figures.table(pd.DataFrame(rows), profile=records[0]["profile"], runs=records)
    points = means(table[table["label"] != "dense"], "label", "setting")
    best = points.loc[points["accuracy"].idxmax()]
    smol = points[points["label"].isin(["SMOL", "SMOL*"])].sort_values("accuracy").iloc[-1]
    for words, point in (("highest mean at few bits", best), ("highest mean of SMOL", smol)):
        print(f"{words}: {point['label']} at {point['bits']:.2f} bits, {point['accuracy']:.1%} (n = {point['n']})")


# -- where the bits went, and what they weigh --------------------------------------------------------------------------


def where_the_bits_went(records: Sequence[Record]) -> PrecisionWidget:
    """The moving figure: the precision of every weight of some recorded networks."""
    dense = next(record for record in records if record["config"]["method"]["name"] == "dense")
    title = "Where the bits went in a ResNet-20"
    return PrecisionWidget(precision_state(families(records), title=title, dense=dense, pushes=weights.PUSHES))


def bits_by_layer(records: Sequence[Record]) -> None:
    """Figure 5.6: mean bits of each layer, a line a penalty, where a layer shares one precision and where none does.

    The table has the first and the last layer, and the means of the first and of the last third between them.
    """
    groups = {g: first_seed(of_protocol(records), granularity=g, zero=False) for g in ("layer", "weight")}
    with figures.style():
        fig, axes = plt.subplots(1, 2, sharey=True, figsize=(7.4, 2.8))
        rows = []
        for ax, (granularity, networks) in zip(axes, groups.items(), strict=True):
            networks = sorted(networks, key=lambda r: -r["figures"]["bits"])
            for shade, record in zip(sns.light_palette(figures.SMOL, len(networks) + 1)[1:], networks, strict=True):
                bits = [record["figures"][f"bits.{layer['name']}"] for layer in record["recording"]["layers"]]
                penalty = setting(record["config"]["method"])
                ax.plot(range(1, 1 + len(bits)), bits, color=shade, label=penalty, marker="o", markersize=3)
                third = (len(bits) - 2) // 3
                averages = bits[0], np.mean(bits[1 : 1 + third]), np.mean(bits[-1 - third : -1]), bits[-1]
                rows.append([f"a {granularity}", penalty, *(f"{value:.2f}" for value in averages)])
            ax.set(xlabel="layer", title=f"one precision a {granularity}")
            ax.legend()
        axes[0].set(ylabel="mean bits")
    alt = "Mean bits of each layer from the image to the scores, a line for each penalty."
    figures.show(fig, profile=records[0]["profile"], runs=records, alt=alt)
    columns = ["one precision", "penalty", "first layer", "early convolutions", "late convolutions", "last layer"]
    figures.table(pd.DataFrame(rows, columns=columns), profile=records[0]["profile"], runs=records)


def file_sizes(records: Sequence[Record]) -> None:
    """What the packed file of each network of the first seed consists of, and what the map adds to each weight."""
    table = contest(first_seed(records)).sort_values("bits", ascending=False)
    count = weights.quantisable_weights(resnet20())
    dense_bytes = 4 * sum(p.numel() for p in resnet20().parameters())
    parts = {"payload": "weights (kB)", "map": "their map (kB)", "rest": "all else (kB)", "file": "file (kB)"}
    more = {words: (table[f"{part}_bytes"] / 1000).map("{:.1f}".format) for part, words in parts.items()}
    more["of dense"] = (table["file_bytes"] / dense_bytes).map("{:.1%}".format)
    more["bits a weight that the map adds"] = (8 * table["map_bytes"] / count).map("{:.2f}".format)
    show(table, ("method", "setting", "bits a weight"), records, **more)


def penalty_by_granularity(records: Sequence[Record]) -> None:
    """Bits that one and the same penalty leaves where a precision belongs to a weight, and where to a layer."""
    headline = weights.headline(records[0]["profile"])
    for record in first_seed(of_protocol(records), zero=False, allowed=None, **headline):
        print(f"one precision a {record['config']['method']['granularity']}: {record['figures']['bits']:.2f} bits")


def energy_of_last_convolution(records: Sequence[Record], layer: str = "blocks.8.conv2") -> None:
    """The thesis's estimate of hardware cost (5.4.4) for the last convolution of the networks with zero precision."""
    for record in families(records)["with zero precision"]:
        bits = recorded_precision(record)[f"{layer}.weight"]
        shares = dict(enumerate((torch.bincount(bits.flatten().long(), minlength=4) / bits.numel()).tolist()))
        beyond = sum(share for precision, share in shares.items() if precision > 3)
        power, latency = relative_cost(shares)
        print(f"λ = {record['config']['method']['lambda']:g}: last convolution, {shares[0]:.0%} of the weights absent")
        if beyond > 0.005:
            print(f"  {beyond:.0%} have more than 3 bits: outside of the estimate")
        else:
            energy = relative_energy(shares)
            print(f"  power {power:.1%}, latency {latency:.1%}, energy {energy:.1%} of 2 bits throughout")
    figures.mark(records)


# -- which weight has which precision, and when ------------------------------------------------------------------------


def retraining(records: Sequence[Record]) -> None:
    """New weights at the learned precisions, in their places or shuffled within layers (Table 5.6), paired by seed."""
    table = runs.table([r for r in records if r["config"]["method"]["name"] == "retrain"])
    pairs = (100 * table.pivot(index="seed", columns="shuffled", values="accuracy")).dropna()
    for words, shuffled, row in (("in their places", False, "same"), ("shuffled", True, "shuffled")):
        printed = thesis.value("5.6", f"Re-trained with {row} precisions", "Test accuracy")
        print(f"{words}: {pairs[shuffled].mean():.1f}% (n = {len(pairs)}); thesis {printed}%")
    difference = paired(pairs[False].tolist(), pairs[True].tolist())
    print(f"in their places less shuffled, seed by seed, in points: {difference.interval()}: {difference.verdict}")
    figures.mark(records)


def search_and_retraining(records: Sequence[Record]) -> None:
    """Left: accuracy and bits over the share of epochs that search. Right: the re-trained weights, a line a seed."""
    retrained = [record for record in records if record["config"]["method"]["name"] == "retrain"]
    penalty = retrained[0]["config"]["method"]["lambda"]
    searched = first_seed(records, zero=False, granularity="weight", **{"lambda": penalty})
    divided = pd.DataFrame([record["figures"] for record in searched])
    epochs = [(r["config"]["training"]["epochs"], r["config"]["training"]["finetune_epochs"]) for r in searched]
    divided["share"] = [search / (search + finetuning) for search, finetuning in epochs]
    divided["accuracy"] *= 100
    bits = divided.sort_values("share")["bits"]
    new_weights = pd.DataFrame(
        [
            {"epoch": epoch, "accuracy": 100 * accuracy, "": which, "seed": record["seed"]}
            for record in retrained
            for which in ["shuffled" if record["config"]["method"]["shuffled"] else "in their places"]
            for epoch, accuracy in enumerate(
                record["curve"]["accuracy"], start=1 - record["config"]["training"]["epochs"]
            )
            if epoch > 0 and accuracy is not None
        ]
    )
    palette = {"in their places": figures.SMOL, "shuffled": figures.MP}
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.0))
        sns.lineplot(divided, x="share", y="accuracy", color=figures.SMOL, marker="o", markeredgewidth=0, ax=left)
        left.set(xlabel="share of the epochs that search", ylabel="test accuracy (%)", title="accuracy; bits, dotted")
        axis = left.twinx()
        sns.lineplot(
            divided, x="share", y="bits", color=figures.DENSE, marker="s", linestyle=":", markeredgewidth=0, ax=axis
        )  # fmt: skip
        axis.set(ylabel="bits a weight", ylim=(0, 8))
        axis.spines["right"].set_visible(True)
        axis.grid(False)
        sns.lineplot(
            new_weights, x="epoch", y="accuracy", hue="", style="", hue_order=palette, style_order=palette,
            palette=palette, units="seed", estimator=None, linewidth=1, ax=right,
        )  # fmt: skip
        right.set(xlabel="epoch of the new weights", ylabel="", title="re-trained")
        right.xaxis.get_major_locator().set_params(integer=True)
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Left: test accuracy and bits a weight against the share of the epochs that search; bits go from "
        f"{bits.iloc[0]:.1f} with the shortest search to {bits.iloc[-1]:.1f} with the longest. Right: test accuracy of "
        "new weights by epoch, with precisions in their places and shuffled, one line a seed.",
    )
