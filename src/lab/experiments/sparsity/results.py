"""Chapter 4's tables, figures and verdicts, made from records.

A function that draws puts its figure on the page; one that makes a table returns it for :func:`lab.figures.table`.
"""

from __future__ import annotations

import lzma
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from safetensors.torch import load_file, save_file
from torch import nn

from lab import figures
from lab.datasets import CLASSES, thesis
from lab.figures.frontier.state import METHODS, NETWORKS
from lab.models.registry import build
from lab.runs import Record, Run, figures_of, runner
from lab.statistics import Comparison, compare
from principled.files import save

from .selection import (
    CLOSE,
    Point,
    best_performing,
    matched_pairs,
    over_seeds,
    points,
    search_epochs,
    sparsest_matching,
    sparsest_within,
)

ONE_SHOT, SEARCHES = ("mp", "gmp", "cs"), ("cs", "imp", "imp-c", "seq-cs", "iss")
RIVALS = (("pruning", "mp"), ("pruning", "gmp"), ("tickets", "iss"))
"""Whose frontier the thesis compares with that of CS: experiment and method."""
DENSE = ("dense", "control")
DOTS = figures.BOOK | {"markeredgewidth": 0}
COLOURS = {shown.name: figures.PALETTE[shown.colour][0] for shown in METHODS.values()}


# -- one-shot pruning --------------------------------------------------------------------------------------------------


def protocols(records: Sequence[Record]) -> pd.DataFrame:
    """What was trained: a row a network, with its data, the number of methods and runs, and the schedule."""
    rows = []
    for model, same in _by_network(records):
        training = same[0]["config"]["training"]
        rows.append(
            {
                "network": NETWORKS[model],
                "data": same[0]["config"]["data"],
                "methods": len({r["config"]["method"]["name"] for r in same}),
                "runs": len(same),
                "epochs a round": training["epochs"],
                "of fine-tuning": training["finetune_epochs"],
                "batch size": training["batch_size"],
            }
        )
    return pd.DataFrame(rows)


def one_shot(records: Sequence[Record]) -> pd.DataFrame:
    """Each point of each method's curve: its setting, the weights it keeps, its accuracy over seeds."""
    return pd.DataFrame(
        {
            "method": METHODS[key].name,
            "setting": _setting(point),
            "weights kept": f"{1 - point.sparsity:.1%}",
            "test accuracy": _spread(point.accuracies),
            "runs": len(point.seeds),
        }
        for key in ("dense", *ONE_SHOT)
        for point in _curve(records, key)
    )


def accuracy_against_zeros(records: Sequence[Record]) -> None:
    """Accuracy against the share of zeros, with a bar of one standard deviation; beside it the thesis's Table 4.1."""
    rows = [_percent(key, p, seed) for key in ONE_SHOT for p in _curve(records, key) for seed in p.seeds]
    printed = thesis.table("4.1")
    printed = printed[(printed["column"] == "ResNet-20") & printed["row"].isin(COLOURS)]
    with figures.style():
        fig, (measured, thesis_axes) = plt.subplots(1, 2, width_ratios=(3, 2))
        _dense_line(measured, records)
        sns.lineplot(
            pd.DataFrame(rows), x="zeros", y="accuracy", hue="method", palette=COLOURS, errorbar="sd",
            err_style="bars", err_kws={"capsize": 3}, ax=measured, **DOTS,
        )  # fmt: skip
        measured.set(xlabel="zeros (%)", ylabel="test accuracy (%)", title="This book")
        measured.legend()
        sns.pointplot(
            printed, x="value", y="row", order=[METHODS[key].name for key in ONE_SHOT], hue="row", palette=COLOURS,
            markers="D", linestyle="none", markersize=6, markerfacecolor="none", markeredgewidth=1.5, errorbar=None,
            legend=False, ax=thesis_axes,
        )  # fmt: skip
        thesis_axes.set(xlim=(75, 100), xlabel="zeros (%)", ylabel="", title="Thesis, Table 4.1")
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Left: test accuracy against the share of zeros for magnitude pruning, gradual magnitude pruning and "
        "Continuous Sparsification, the dense network dotted. Right: the sparsity that the thesis reports for each on "
        "full CIFAR-10 after 200 epochs: MP lowest, GMP in between, CS highest.",
    )


def against_rivals(records: Sequence[Record], floor: float = 0.8, repeated: bool = False) -> pd.DataFrame:
    """Verdicts on CS at matched sparsity, a row a point of a rival: the difference in accuracy with its interval.

    Both methods' points are matched by one rule, :func:`~lab.experiments.sparsity.selection.matched_pairs`.

    Args:
        records: one-shot pruning, ticket searches, or both.
        floor: the least sparsity at which the curves are compared: four fifths, as in the thesis's 4.4.1.
        repeated: only pairs of which both sides have several seeds.
    """
    contests: list[tuple[str, Point, Point | None]] = []
    for experiment, rival in RIVALS:
        for _, same in _by_network(r for r in records if r["experiment"] == experiment):
            its, ours = _curve(same, rival), _curve(same, "cs")
            partner = {id(point): cs for point, cs in matched_pairs(its, ours)}
            contests += [(rival, point, partner.get(id(point))) for point in its if point.sparsity >= floor]
    together = sum(cs is not None and min(len(cs.seeds), len(point.seeds)) > 1 for _, point, cs in contests)
    rows = []
    for rival, point, cs in contests:
        row = {"rival": METHODS[rival].name, "zeros": f"{point.sparsity:.1%}", "accuracy": _spread(point.accuracies)}
        if cs is None:
            row["verdict"] = f"no point of CS within a factor of {CLOSE:g}"
        else:
            a, b = ([100 * x for x in p.accuracies] for p in (cs, point))
            comparison = compare(a, b, comparisons=max(together, 1))
            row["CS"] = f"{_spread(cs.accuracies)} at {cs.sparsity:.1%}"
            row |= {"seeds": f"{len(b)} and {len(a)}", "difference": comparison.interval(1)}
            row["verdict"] = _verdict(comparison)
        if not repeated or (cs is not None and min(len(cs.seeds), len(point.seeds)) > 1):
            rows.append(row)
    for experiment, rival in RIVALS:
        reached = [p.sparsity for r in _select(records, rival, experiment) for p in points(r)]
        if reached and max(reached) < floor:
            rows.append({"rival": METHODS[rival].name, "verdict": f"reaches {max(reached):.0%} of zeros"})
    return pd.DataFrame(rows).fillna("–")


def left_out(records: Iterable[Record]) -> pd.DataFrame:
    """The settings that are no point of a curve, since they prune nothing or end at chance."""
    rows, names = [], {(row.experiment, row.key): row.name for row in ROWS}
    for r in _unique(records):
        rows += [
            {
                "method": names[r["experiment"], r["config"]["method"]["name"]],
                "setting": _setting(point),
                "zeros": f"{point.sparsity:.1%}",
                "accuracy": f"{point.accuracy:.1%}",
                "why it is no point": point.fault,
            }
            for point in points(r)
            if point.fault and r["config"]["method"]["name"] not in DENSE
        ]
    return pd.DataFrame(rows, columns=["method", "setting", "zeros", "accuracy", "why it is no point"])


def sparsest_by_profile(records: Iterable[Record]) -> pd.DataFrame:
    """The sparsest point of each method within the thesis's allowance of its dense network, a row a profile."""
    finished = _unique(records)
    rows = []
    for profile in [p for p in ("quick", "short", "paper") if any(r["profile"] == p for r in finished)]:
        same = [r for r in finished if r["profile"] == profile and r["experiment"] == "pruning"]
        dense = mean(_accuracies(same, "dense"))
        row = {"profile": profile, "dense accuracy": f"{dense:.1%}"}
        for key in ONE_SHOT:
            curve = _curve(same, key)
            best = sparsest_within(curve, dense, _allowance())
            row[METHODS[key].name] = f"{best.sparsity:.1%} of zeros" if best else f"none of {len(curve)} so accurate"
        rows.append(row)
    return pd.DataFrame(rows)


def annealing(records: Sequence[Record]) -> dict[str, Any]:
    """The annealing figure's state: the recorded run of CS, its dense twin beside."""
    recorded = next(r for r in records if "recording" in r)
    dense = next(r for r in _select(records, "dense", recorded["experiment"]) if r["seed"] == recorded["seed"])
    return dict(recorded["recording"]) | {"dense": {"accuracy": dense["figures"]["accuracy"]}}


# -- ticket search -----------------------------------------------------------------------------------------------------


def tickets_against_zeros(records: Sequence[Record]) -> None:
    """Accuracy of re-trained tickets against their zeros: a panel a network, a line a search, a mark a round."""
    models = _by_network(records)
    labels: dict[str, Any] = {}
    with figures.style():
        fig, axes = plt.subplots(1, len(models))
        for ax, (model, same) in zip(axes, models, strict=True):
            rows = [
                _percent(key, p) | {"search": r["id"]}
                for key in SEARCHES
                for r in _select(same, key)
                for p in points(r)
            ]
            _dense_line(ax, same, "control")
            sns.lineplot(
                pd.DataFrame(rows), x="zeros", y="accuracy", hue="method", palette=COLOURS, units="search",
                estimator=None, ax=ax, **DOTS,
            )  # fmt: skip
            ax.set(title=NETWORKS[model], xlabel="zeros (%)", ylabel="test accuracy (%)")
            labels |= {label: line for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
            ax.get_legend().remove()
        fig.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=len(labels))
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Two panels, a residual network and a plain convolutional one: test accuracy of re-trained tickets against "
        "their share of zeros, a line a search and a mark a round. Dotted is the dense network, re-trained alike.",
    )


def searches(records: Sequence[Record]) -> pd.DataFrame:
    """What each search found, by the thesis's two rules (4.3.4), and what it cost in epochs.

    A ticket matches if it is no worse than the control, the dense network re-trained alike.
    """

    def ticket(point: Point | None) -> str:
        return f"{point.sparsity:.1%} zeros, {point.accuracy:.1%} (round {point.round})" if point else "none"

    rows = []
    for model, same in _by_network(records):
        control = _accuracies(same, "control")
        for key in ("dense", "control"):
            accuracy = _spread(_accuracies(same, key))
            rows.append({"network": NETWORKS[model], "search": METHODS[key].name, "best performing": accuracy})
        for key in SEARCHES:
            if not (runs := _select(same, key)):
                continue
            reached = [p for r in runs for p in points(r)]
            cost = search_epochs([int(r["figures"]["epochs"]) for r in runs])
            rows.append(
                {
                    "network": NETWORKS[model],
                    "search": METHODS[key].name,
                    "sparsest matching": ticket(sparsest_matching(reached, mean(control))),
                    "best performing": ticket(best_performing(reached)),
                    "epochs": f"{cost.sequential}, or {cost.parallel} side by side",
                    "runs": str(len(runs)),
                }
            )
    return pd.DataFrame(rows).fillna("–")


def rates_of_imp(records: Sequence[Record]) -> None:
    """Tickets of IMP for each share that a round removes (Figure 4.8): accuracy against zeros, the control dotted."""
    rows = [
        _percent("imp", point) | {"a round removes": f"{r['config']['method']['rate']:.0%}"}
        for r in _select(records, "imp")
        for point in points(r)
    ]
    with figures.style():
        fig, ax = plt.subplots()
        _dense_line(ax, records, "control")
        sns.lineplot(
            pd.DataFrame(rows), x="zeros", y="accuracy", hue="a round removes", estimator=None, sort=False,
            palette=[figures.CS, figures.MP, figures.GMP][: len({r["a round removes"] for r in rows})], ax=ax, **DOTS,
        )  # fmt: skip
        ax.set(xlabel="zeros (%)", ylabel="test accuracy (%)")
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Test accuracy of IMP's tickets against their share of zeros, a mark a round, a line for each share that "
        "a round removes. A dotted line is the dense network, re-trained alike.",
    )


def study(records: Sequence[Record], option: str) -> pd.DataFrame:
    """Tickets of CS where one ``option`` varies and all else stays (Figures 4.5 to 4.7): zeros and accuracy (%) of the
    last round, and how far they range where the other options are the same."""
    options = ["s_init", "beta_final", "lambda"]
    table = pd.DataFrame({key: r["config"]["method"][key] for key in options} for r in records)
    fixed = [key for key in options if key != option]
    for figure in ("sparsity", "accuracy"):
        name = "zeros" if figure == "sparsity" else figure
        table[name] = [100 * getattr(points(r)[-1], figure) for r in records]
        table[f"range of {name}"] = table.groupby(fixed)[name].transform(lambda values: values.max() - values.min())
    table = table.sort_values([*fixed, option], ignore_index=True).round(dict.fromkeys(table.columns[3:], 1))
    return table.astype(dict.fromkeys(options, str))


# -- every method ------------------------------------------------------------------------------------------------------

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
    finished = _unique(records)
    rows = []
    for row in ROWS:
        same = [r for r in _select(finished, row.key, row.experiment) if r["config"]["model"] in row.networks]
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
                "exact zeros": f"{point.exact:.1%}",
                "hardened": f"{point.sparsity:.1%}",
                "accuracy": _spread(point.accuracies) + (f", {point.fault}" if point.fault else ""),
                "n": len(point.seeds),
                "dense": _spread(dense) if dense else f"untrained {mean(untrained):.1%}",
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
        if accuracies := _accuracies(same, key):
            return accuracies
    return []


def _shown(records: Sequence[Record], row: Row, dense: Sequence[float]) -> Point:
    tried = over_seeds(p for r in records for p in points(r) if row.round in (None, p.round))
    tried = [p for p in tried if not p.fault] or tried
    most = max(len(p.seeds) for p in tried)
    repeated = [p for p in tried if len(p.seeds) == most]
    best = sparsest_within(repeated, mean(dense), _allowance()) if dense else None
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


# -- supermasks --------------------------------------------------------------------------------------------------------


def supermask_curves(records: Sequence[Record]) -> None:
    """Accuracy over the epochs of each method's supermask that is nearest to half empty (Figure 4.9)."""
    shown = [
        min(_select(records, key), key=lambda r: abs(r["figures"]["sparsity"] - 0.5)) for key in ("supermask", "ss")
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
            ax=ax, **DOTS,
        )  # fmt: skip
    figures.show(
        fig,
        profile=shown[0]["profile"],
        runs=shown,
        alt="Test accuracy over the epochs of training a mask on frozen random weights, for Continuous Sparsification "
        "and Stochastic Sparsification, each with about half of the weights removed.",
    )


# -- layers ------------------------------------------------------------------------------------------------------------


def kept_by_layer(records: Iterable[Record], keys: Sequence[str], least: float = 0.79) -> pd.DataFrame:
    """Weights kept (%) in each layer, a column a method: its most repeated point of ``least`` zeros or more."""
    columns = {}
    finished = _unique(records)
    for key in keys:
        settings: dict[str, list[Record]] = {}
        for r in _select(finished, key):
            if r["figures"]["sparsity"] >= least and r["experiment"] != "tickets":
                settings.setdefault(repr(sorted(r["config"]["method"].items())), []).append(r)
        if settings:
            same = max(settings.values(), key=lambda group: (len(group), group[0]["figures"]["sparsity"]))
            layers = [n for n in same[0]["figures"] if n.startswith("sparsity.")]
            columns[METHODS[key].name] = {
                layer.removeprefix("sparsity."): 100 * (1 - mean(r["figures"][layer] for r in same)) for layer in layers
            }
    return pd.DataFrame(columns)


def where_the_zeros_lie(records: Sequence[Record]) -> None:
    """Weights kept in each layer from the input on, a line a method: those of equal sparsity, and the others."""
    others = {"NetSlim": figures.SMOL, "STR": figures.SHARING, "DNW": figures.AVAGRAD, "AMC": figures.ACCENT}
    panels = {"equal sparsity": ONE_SHOT, "as sparse as their runs": ("netslim", "str", "dnw", "amc")}
    with figures.style():
        fig, axes = plt.subplots(1, 2, sharey=True)
        for ax, (title, keys) in zip(axes, panels.items(), strict=True):
            kept = kept_by_layer(records, keys).clip(lower=0.02)  # a layer without any weight has no logarithm
            long = kept.reset_index(drop=True).reset_index(names="layer").melt("layer", var_name="method")
            sns.lineplot(long, x="layer", y="value", hue="method", palette=COLOURS | others, ax=ax, **DOTS)
            ax.set(yscale="log", title=title, xlabel="layer, from the input on", ylim=(0.015, 130))
            ax.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
            ax.legend()
        axes[0].set(ylabel="weights kept (%)")
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Share of weights kept in each of the 19 convolutions of a ResNet-20, from input to output, logarithmic, "
        "a line a method. Magnitude pruning and gradual magnitude pruning step down at each stage; Continuous "
        "Sparsification falls more evenly and keeps less of the first layers. DNW keeps the same share everywhere.",
    )


def first_stage(records: Sequence[Record]) -> pd.DataFrame:
    """How many times as many weights as CS the others keep in the first stage, ours and the thesis's."""
    kept = kept_by_layer(records, ONE_SHOT)
    stage = kept[kept.index.str.startswith(("blocks.0.", "blocks.1.", "blocks.2."))].mean()
    fact = thesis.fact("vgg-structure-first-blocks")
    rows = [
        {
            "from": "this book",
            "network": "ResNet-20",
            "rival": rival,
            "keeps": f"{stage[rival] / stage['CS']:.1f} times",
        }
        for rival in ("MP", "GMP")
    ]
    rows.append(
        {"from": "thesis", "network": "VGG-16", "rival": "IMP", "keeps": f"about {fact.value:g} ({fact.printed!r})"}
    )
    return pd.DataFrame(rows)


# -- what sparsity buys ------------------------------------------------------------------------------------------------


def trained(runs: Sequence[Run], methods: Sequence[str], device: str) -> Iterator[nn.Module]:
    """The network of each method's first run; where only its record came with the book, it is trained here, once."""
    wanted = [next(run for run in runs if run.config["method"]["name"] == name) for name in methods]
    runner.execute([replace(run, network=True) for run in wanted], device)
    for run in wanted:
        net = build(run.config["model"], CLASSES[run.config["data"]])
        net.load_state_dict(load_file(run.model()))
        yield net.eval()


def accuracies_of_their_own(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """What the networks of :func:`trained` score themselves: another processor rounds otherwise than the record's."""
    wanted = {name: next(run for run in runs if run.config["method"]["name"] == name) for name in methods}
    own = (f"{name} {figures_of(run.model())['accuracy']:.1%}" for name, run in wanted.items())
    return f"test accuracy of these networks: {', '.join(own)}"


def forms(networks: Mapping[str, nn.Module]) -> pd.DataFrame:
    """Files of networks, plain, compressed and saved, with the weights they hold, compared with the first."""
    rows, whole = [], 0
    kilo = "{:,.0f}".format
    with tempfile.TemporaryDirectory() as folder:
        for name, net in networks.items():
            path = Path(folder) / "net.safetensors"
            save_file(net.state_dict(), path)
            plain = path.read_bytes()
            whole = whole or len(plain)
            saved = save(Path(folder) / "net.principled", net).stat().st_size
            count = sum(p.numel() for p in net.parameters())
            rows.append(
                {
                    "form": name,
                    "weights": f"{count:,}",
                    "not 0": f"{sum(int((p != 0).sum()) for p in net.parameters()) / count:.1%}",
                    "plain, kB": kilo(len(plain)),
                    "zip, kB": kilo(len(zlib.compress(plain, 9))),
                    "xz, kB": kilo(len(lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME))),
                    "saved, kB": kilo(saved),
                    "of dense": f"{saved / whole:.1%}",
                }
            )
    return pd.DataFrame(rows)


# -- common ------------------------------------------------------------------------------------------------------------


def _unique(records: Iterable[Record]) -> list[Record]:
    return list({r["id"]: r for r in records if r["state"] == "finished"}.values())


def _select(records: Iterable[Record], key: str, experiment: str | None = None) -> list[Record]:
    return [r for r in records if r["config"]["method"]["name"] == key and experiment in (None, r["experiment"])]


def _by_network(records: Iterable[Record]) -> list[tuple[str, list[Record]]]:
    """The records of each network, in the order of first appearance."""
    groups: dict[str, list[Record]] = {}
    for r in records:
        groups.setdefault(r["config"]["model"], []).append(r)
    return list(groups.items())


def _accuracies(records: Iterable[Record], key: str) -> list[float]:
    return [r["figures"]["accuracy"] for r in _select(records, key)]


def _curve(records: Iterable[Record], key: str) -> list[Point]:
    """A method's points, seeds averaged, the densest first; without what prunes nothing or is at chance."""
    averaged = over_seeds(p for r in _select(records, key) for p in points(r))
    return sorted((p for p in averaged if key == "dense" or not p.fault), key=lambda p: p.sparsity)


def _percent(key: str, point: Point, seed: Point | None = None) -> dict[str, Any]:
    """A row of a figure's data; a seed stands at the mean sparsity of its point."""
    return {"method": METHODS[key].name, "zeros": 100 * point.sparsity, "accuracy": 100 * (seed or point).accuracy}


def _dense_line(ax: Axes, records: Iterable[Record], key: str = "dense") -> None:
    ax.axhline(100 * mean(_accuracies(records, key)), color=figures.DENSE, linestyle=":", label=METHODS[key].name)


def _allowance() -> float:
    """How far below the dense network a point of Table 4.1 may lie, as a share."""
    allowed = thesis.fact("table-4-1-tolerance").value
    assert isinstance(allowed, float)
    return allowed / 100


def _setting(point: Point) -> str:
    method = dict(point.key)
    if "target" in method:
        return f"sparsity = {float(method['target']):.0%}"
    for option in ("decay", "s_init", "lambda"):
        if option in method:
            return f"{option} = {float(method[option]):g}"
    return "–"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1%}" if len(values) == 1 else f"{100 * mean(values):.1f} ± {stdev(values):.1%}"


def _verdict(comparison: Comparison) -> str:
    return f"CS {comparison.verdict}" if comparison.verdict in ("higher", "lower") else comparison.verdict
