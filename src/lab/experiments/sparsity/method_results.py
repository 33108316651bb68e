"""What each method of Chapter 4 gave, how it differs from its paper, and the curves of supermasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lab import figures
from lab.figures.frontier.state import METHODS, NETWORKS
from lab.runs import Record

from . import curves
from .selection import Point, over_seeds, points, sparsest_within

RESNET, CONV = ("resnet20", "resnet8"), ("conv6", "conv6-quarter")
"""Networks of a row, with what ``quick`` can afford in their place."""


class Row(NamedTuple):
    """A row of the table of methods: where its runs are, and in words what distinguishes the method.

    ``round`` picks one round of a search (Stochastic Sparsification is the first round of its iterative form).
    """

    name: str
    experiment: str
    key: str
    networks: tuple[str, ...]
    decides: str
    variables: str
    round: int | None = None


ROWS = (
    Row("CS, Algorithm 1", "pruning", "cs", RESNET, "the sign of a trained s", "one a weight"),
    Row("MP", "pruning", "mp", RESNET, "magnitude, once", "none"),
    Row("GMP", "pruning", "gmp", RESNET, "magnitude, bit by bit", "none"),
    Row("ℓ₀, masks drawn", "methods", "l0", RESNET, "the best of some random masks", "one a weight"),
    Row("Network Slimming", "methods", "netslim", RESNET, "size of a trained factor", "one a weight"),
    Row("AMC", "methods", "amc", RESNET, "magnitude, an agent's rates", "an agent's"),
    Row("STR", "methods", "str", RESNET, "a trained threshold", "one a layer"),
    Row("DNW", "methods", "dnw", RESNET, "magnitude, at every step anew", "none"),
    Row("CS, whole filters", "methods", "cs-filters", RESNET, "the sign of a trained s", "one a filter"),
    Row("CS, Algorithm 2", "tickets", "cs", RESNET, "the sign of s, in rounds", "one a weight"),
    Row("Sequential CS", "tickets", "seq-cs", RESNET, "the lowest s, in rounds", "one a weight"),
    Row("IMP, Algorithm 3", "tickets", "imp", RESNET, "magnitude, rounds, rewinding", "none"),
    Row("IMP-C", "tickets", "imp-c", RESNET, "magnitude, in rounds", "none"),
    Row("SS", "tickets", "iss", CONV, "chance σ(s)", "one a weight", 1),
    Row("ISS, Algorithm 4", "tickets", "iss", CONV, "chance σ(s), in rounds", "one a weight"),
    Row("supermask, CS", "supermasks", "supermask", CONV, "the sign of s; weights frozen", "one a weight"),
    Row("supermask, SS", "supermasks", "ss", CONV, "chance σ(s); weights frozen", "one a weight"),
)
DECIDES = ["method", "network", "decides by", "extra variables"]
GAVE = ["method", "exact zeros", "hardened", "accuracy", "n", "dense", "epochs"]


def every_method(records: Iterable[Record]) -> pd.DataFrame:
    """Every method's most repeated point: the sparsest within the allowance of dense, else the most accurate.

    Columns :data:`DECIDES` say what a method is, :data:`GAVE` what it gave; a method without a run has no row.

    Args:
        records: runs of one profile.
    """
    finished = curves.unique(records)
    rows = []
    for row in ROWS:
        same = [r for r in curves.of_method(finished, row.key, row.experiment) if r["config"]["model"] in row.networks]
        if not same:
            continue
        model, training = same[0]["config"]["model"], same[0]["config"]["training"]
        dense = _dense(finished, row.experiment, model)
        point = _shown(same, row, dense)
        untrained = [r["figures"]["accuracy_random"] for r in same if r["id"] in point.runs and not dense]
        # the whole way: search and fine-tuning, or the rounds up to this one and the ticket's own training
        rounds = point.round + 1 if row.experiment == "tickets" else 1
        rows.append(
            {
                "network": NETWORKS[model],
                "method": row.name,
                "decides by": row.decides,
                "extra variables": row.variables,
                "exact zeros": "–" if point.exact is None else f"{point.exact:.1%}",
                "hardened": f"{point.sparsity:.1%}",
                "accuracy": curves.spread(point.accuracies) + (f", {point.fault}" if point.fault else ""),
                "n": len(point.seeds),
                "dense": curves.spread(dense) if dense else f"untrained {mean(untrained):.1%}",
                "epochs": rounds * training["epochs"] + training.get("finetune_epochs", 0),
            }
        )
    return pd.DataFrame(rows, columns=list(dict.fromkeys(DECIDES + GAVE)))


def _dense(records: Sequence[Record], experiment: str, model: str) -> list[float]:
    """Accuracies of the dense network under the same protocol: ``methods`` shares pruning's, which has more seeds; of
    tickets it is the control."""
    key = "control" if experiment == "tickets" else "dense"
    for source in ("pruning", "methods") if experiment in ("pruning", "methods") else (experiment,):
        same = [r for r in records if (r["experiment"], r["config"]["model"]) == (source, model)]
        if accuracies := curves.accuracies(same, key):
            return accuracies
    return []


def _shown(records: Sequence[Record], row: Row, dense: Sequence[float]) -> Point:
    tried = over_seeds(p for r in records for p in points(r) if row.round in (None, p.round))
    tried = [p for p in tried if not p.fault] or tried
    most = max(len(p.seeds) for p in tried)
    repeated = [p for p in tried if len(p.seeds) == most]
    best = sparsest_within(repeated, mean(dense), curves.allowance()) if dense else None
    return best or max(repeated, key=lambda p: (p.accuracy, p.sparsity))


PROCEDURES = {
    "mp": ("prunes and re-trains several times", "once; all layers ranked together", "one-shot pruning (4.4.1)"),
    "gmp": (
        "each layer reaches the same share of zeros",
        "all layers ranked together; last pruning after {ends:.0f} of {epochs} epochs of search",
        "ranked as MP; the thesis prunes last at the end of the search, here the weights have a tenth of it to settle",
    ),
    "l0": (
        "a gate a filter; at the end each gate's value for inference",
        "a gate a weight; the best of {draws} masks drawn, by accuracy on training images",
        "as the thesis has it (4.4.1)",
    ),
    "netslim": (
        "BatchNorm's factors, one a filter, with weight decay",
        "a factor a weight, the l1 penalty alone",
        "as the thesis has it (4.4.1)",
    ),
    "amc": (
        "filters; 400 episodes, 100 of them random, scored on held-out images",
        "weights; {episodes} episodes, {explore} of them random, scored on {images:,} training images",
        "weights as the thesis has it (4.4.1); as many episodes and images as the profile's time allows",
    ),
    "str": (
        "one weight decay for weights and thresholds; start at s = -3200",
        "the thresholds have a decay of their own; start at s = {s_init:g}",
        "the weights train as every method's; a shorter way starts nearer",
    ),
    "dnw": ("the same share of zeros in each layer", "the same", ""),
}
"""By method: the published procedure, what is done here, and why. Settings in braces are filled in from the runs."""


def procedures(records: Iterable[Record]) -> pd.DataFrame:
    """:data:`PROCEDURES` with the settings of the records' configurations."""
    rows = []
    settings = {r["config"]["method"]["name"]: r["config"]["training"] | r["config"]["method"] for r in records}
    for key, (published, here, why) in PROCEDURES.items():
        if key in settings:
            ends = settings[key]["epochs"] * settings[key].get("end", 1)
            row = {"method": METHODS[key].name, "published": published, "here": here.format(ends=ends, **settings[key])}
            rows.append(row | {"why": why})
    return pd.DataFrame(rows)


def left_out(records: Iterable[Record]) -> pd.DataFrame:
    """The settings that are no point of a curve, since they prune nothing or end at chance."""
    rows, names = [], {(row.experiment, row.key): row.name for row in ROWS}
    for r in curves.unique(records):
        rows += [
            {
                "method": names[r["experiment"], r["config"]["method"]["name"]],
                "setting": curves.setting(point),
                "zeros": f"{point.sparsity:.1%}",
                "accuracy": f"{point.accuracy:.1%}",
                "why it is no point": point.fault,
            }
            for point in points(r)
            if point.fault and r["config"]["method"]["name"] not in curves.DENSE
        ]
    return pd.DataFrame(rows, columns=["method", "setting", "zeros", "accuracy", "why it is no point"])


def supermask_curves(records: Sequence[Record]) -> None:
    """Accuracy over the epochs of each method's supermask that is nearest to half empty (Figure 4.9)."""
    shown = [
        min(curves.of_method(records, key), key=lambda r: abs(r["figures"]["sparsity"] - 0.5))
        for key in ("supermask", "ss")
    ]
    rows = []
    for r, name in zip(shown, ("CS", "SS"), strict=True):
        label = f"{name}, {r['figures']['sparsity']:.0%} zeros"
        curve = r["curve"]
        rows += [
            {"epoch": epoch, "test accuracy (%)": 100 * accuracy, "mask": label}
            for epoch, accuracy in zip(curve["epoch"], curve["accuracy"], strict=True)
            if accuracy is not None
        ]
    with figures.style():
        fig, ax = plt.subplots()
        sns.lineplot(
            pd.DataFrame(rows), x="epoch", y="test accuracy (%)", hue="mask", palette=[figures.CS, figures.SMOL],
            ax=ax, **curves.DOTS,
        )  # fmt: skip
    figures.show(
        fig,
        profile=shown[0]["profile"],
        runs=shown,
        alt="Test accuracy over the epochs of training a mask on frozen random weights, for Continuous Sparsification "
        "and Stochastic Sparsification, each with about half of the weights removed.",
    )
