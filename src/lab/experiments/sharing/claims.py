"""Soft parameter sharing: Tables 3.1 to 3.4, and what Sections 3.4 and 3.5 make of them, as claims.

Sizes need no training: a network is built without its numbers and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured, average, difference
from lab.figures.folding.recording import similarities
from lab.runs import Record, Run

from . import images, shortest_paths

ERROR, PARAMETERS, RATIO = "Test error", "Params (M)", "Compression ratio"
SIZES = {PARAMETERS: "the table cuts or rounds its last digit", RATIO: "the table gives one decimal"}
SIZES["Group size"] = "a count"
NOISE = {"cifar10": (0.3, "twice what seeds move a Wide ResNet's error by on CIFAR-10")}
NOISE |= {"imagenet": (0.3, "what a run on one GPU may differ by")}
NOISE |= {"cifar100": (0.6, "twice what seeds move a Wide ResNet's error by on CIFAR-100")}
# a pair of rows of one table that the text compares
ORDERS = [("3.1", "SWRN 28-10 (dropout 0.0)", "WRN 28-10 (dropout 0.0)"), ("3.1", "SWRN 28-18-2", "SWRN 28-18")]
ORDERS += [("3.2", "SWRN 28-10 (dropout 0.3)", "WRN 28-10 (dropout 0.3)"), ("3.2", "SWRN 28-18", "SWRN 28-18-2")]
ORDERS += [("3.4", "SWRN 50-2", "WRN 50-2")]
ORDERS += [("3.3", "SWRN 28-10-2", "WRN 28-10 (baseline with cutout)"), ("3.3", "SWRN 28-14-2", "SWRN 28-14")]

Measure = Callable[[Sequence[Record]], Measured | str]
Needs = Callable[[str], Sequence[Run]]
NO_RUN = "no run is recorded"


def claims() -> list[Claim]:
    """Every cell of a (S)WRN row, the comparisons of the text, and its statements on folding and similarity."""
    listed = []
    for (table, row), options in images.rows().items():
        listed += [_noisy(table, row, ERROR, options["data"]), *_sizes(table, row, options)]
    for row, templates in (("WRN 50-2", None), ("SWRN 50-2", "all")):
        listed += [_noisy("3.4", row, "Top-1 error", "imagenet"), _noisy("3.4", row, "Top-5 error", "imagenet", "top5")]
        listed.append(_counted("3.4", row, PARAMETERS, partial(_millions, 50, 2, templates, "imagenet"), 0.5))
    for table, row, other in ORDERS:
        needs, others = (partial(images.row_runs, table, name) for name in (row, other))
        both = difference(error(needs), error(others))
        column = "Top-1 error" if table == "3.4" else ERROR
        listed.append(Claim("sharing", both, partial(_both, needs, others), table, row, column, versus=other))
    return listed + _facts()


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    why: dict[tuple[str, str, str] | str, str] = {}
    for table in ("3.1", "3.2", "3.3", "3.4"):
        for cell in thesis.table(table).to_dict("records"):
            key = table, cell["row"], cell["column"]
            if "WRN" not in cell["row"]:
                why[key] = "networks of other authors, shown for comparison: this book trains Wide ResNets"
            elif cell["column"] in ("Dropout", "Templates"):
                why[key] = "settings, which the declared runs take from here"
            elif cell["column"] == "Training time":
                why[key] = "times on the thesis's own GPU; every run of this book records its own"
    arithmetic = "exact arithmetic on the thesis's own numbers: Chapter 3 computes it, no run is needed"
    why |= dict.fromkeys(("lsm-example-row-1", "lsm-example-row-2", "b-example-row-3", "resnet-200-depth"), arithmetic)
    why["swrn-28-10-relative-error"] = "follows from cells of Tables 3.1 and 3.2, which have rows of their own here"
    why["fold-40-8-8-threshold"] = "a choice, not a result: what folding there costs has a row of its own"
    why["lsm-epoch-final-like"] = "no single number: Chapter 3 shows the matrices of a recorded run side by side"
    return why


def _facts() -> list[Claim]:
    one_template = partial(images.row_runs, "3.1", "SWRN 28-10-1")
    nas, best = partial(images.row_runs, "3.3", "SWRN 28-10-2"), partial(images.row_runs, "3.1", "SWRN 28-18-2")
    near, why = NOISE["cifar10"]
    return [
        Claim(
            "sharing", partial(_computed, partial(_ratio, (28, 10, 1), (28, 10, None))), _none, fact="swrn-28-10-1-parameters",
            tolerance=0.01, reason="a third, in the text's words",
        ),
        Claim("sharing", error(best), best, fact="swrn-28-18-2-error", tolerance=near, reason=why),
        Claim("sharing", error(nas), nas, fact="nas-swrn-error", tolerance=near, reason=why),
        Claim("sharing", partial(_over, nas, hours, _device), nas, fact="nas-swrn-hours", at_most=True),
        Claim(
            "sharing", average("similarity", _single(one_template)), _single(one_template), fact="k1-similarity",
            tolerance=1e-3, reason="equal by construction, up to rounding",
        ),
        Claim(
            "sharing", partial(_over, _two, rise_of_two, _two_layers), _two, fact="fold-28-10-4-error",
            tolerance=0.1, reason="ten of 10,000 test images",
        ),
        Claim(
            "sharing", partial(_over, images.shared, rise_at_threshold, _at_threshold), images.shared,
            fact="fold-40-8-8-error", at_most=True,
        ),
        Claim(
            "sharing", partial(_over, images.shared, chessboard, _model), images.shared, fact="lsm-chessboard",
            tolerance=0.5, reason="a whole number of layers",
        ),
        Claim(
            "sharing", partial(_over, images.shared, settled, _model), _paper_shared, fact="lsm-epoch-patterns",
            tolerance=25.0, reason="the matrices are kept at epochs 5, 10, 25 and 50",
        ),
        Claim(
            "paths", average("similarity", _regularised), _regularised, fact="paths-regularised-lsm",
            tolerance=0.05, reason="nearly 1 in the picture",
        ),
    ]  # fmt: skip


def _noisy(table: str, row: str, column: str, data: str, figure: str = "accuracy") -> Claim:
    needs, (tolerance, reason) = partial(images.row_runs, table, row), NOISE[data]
    return Claim("sharing", error(needs, figure), needs, table, row, column, tolerance=tolerance, reason=reason)


def _both(needs: Needs, others: Needs, profile: str) -> list[Run]:
    return [*needs(profile), *others(profile)]


# -- what is counted, without a run ------------------------------------------------------------------------------------


def _none(profile: str) -> list[Run]:
    return []


def _computed(count: Callable[[], float], records: Sequence[Record]) -> Measured:
    return Measured(count(), None, 1, (), note="counted on the network itself; no run is needed")


def _counted(table: str, row: str, column: str, count: Callable[[], float], tolerance: float) -> Claim:
    measure = partial(_computed, count)
    return Claim("sharing", measure, _none, table, row, column, tolerance=tolerance, reason=SIZES[column])


def _sizes(table: str, row: str, options: dict[str, Any]) -> list[Claim]:
    depth, width, templates, data = (options[key] for key in ("depth", "width", "templates", "data"))
    network, plain = (depth, width, templates, data), (depth, width, None, data)
    last_digit = 0.1 if table == "3.3" else 1.0
    counts: dict[str, tuple[Callable[[], float], float]] = {PARAMETERS: (partial(_millions, *network), last_digit)}
    if templates is not None:
        counts[RATIO] = partial(_ratio, plain, network), 0.1
        counts["Group size"] = partial(_group_size, *network), 0.5
    printed = set(thesis.table(table).query("row == @row")["column"])
    return [_counted(table, row, column, *counts[column]) for column in counts if column in printed]


def _millions(*network: Any) -> float:
    return images.parameters(*network) / 1e6


def _ratio(network: tuple[Any, ...], other: tuple[Any, ...]) -> float:
    return images.parameters(*network) / images.parameters(*other)


def _group_size(*network: Any) -> int:
    """How many layers of a stage share."""
    return len(images.unbuilt(*network).relaxations[0].alpha["stage1"])


# -- what is measured --------------------------------------------------------------------------------------------------


def error(needs: Needs, figure: str = "accuracy") -> Measure:
    """Test error in percent over one configuration's seeds: what ``figure`` leaves of 100 %."""

    def measure(records: Sequence[Record]) -> Measured | str:
        score = average(figure, needs, 100)(records)
        return score if isinstance(score, str) else replace(score, value=100 - score.value)

    return measure


def _over(
    needs: Needs, value: Callable[[Record], float], note: Callable[[Record], str], records: Sequence[Record]
) -> Measured | str:
    """A value of each needed run that is recorded; ``note`` says of the first what a reader needs to know."""
    chosen = images.chosen(records, needs(records[0]["profile"])) if records else []
    if not chosen:
        return NO_RUN
    values = [value(record) for record in chosen]
    spread = stdev(values) if len(values) > 1 else None
    return Measured(mean(values), spread, len(values), tuple(r["id"] for r in chosen), note=note(chosen[0]))


def hours(record: Record) -> float:
    """How long a run took, folding and measuring included."""
    return float(record["provenance"]["seconds"] / 3600)


def _device(record: Record) -> str:
    return f"on {record['provenance']['device']}, the thesis's is a GTX 1080 Ti"


def _model(record: Record) -> str:
    return str(record["config"]["model"])


def _single(needs: Needs) -> Needs:
    """At ``short`` the headline's network with one template stands for the thesis's."""
    return lambda profile: (
        needs(profile)
        if profile == "paper"
        else [run for run in images.templates(profile) if run.config["method"]["templates"] == 1]
    )


def _two(profile: str) -> list[Run]:
    """At ``short`` the headline stands for SWRN 28-10-4: as deep, with as many templates, narrower."""
    return images.figure_3_5() if profile == "paper" else images.shared(profile)


def _paper_shared(profile: str) -> list[Run]:
    return images.shared(profile) if profile == "paper" else []


def _regularised(profile: str) -> list[Run]:
    return [run for run in shortest_paths.contest(profile) if run.config["method"]["lambda"]]


def _two_layers(record: Record) -> str:
    return f"{_model(record)}, stages 2 and 3 folded to loops of two layers, BatchNorm as trained"


def rise_of_two(record: Record) -> float:
    """Points of test error that folding stages 2 and 3 to two layers each costs, before BatchNorm is re-estimated."""
    return float(100 * (record["figures"]["accuracy"] - record["figures"]["accuracy_two"]))


def _threshold() -> float:
    return float(thesis.fact("fold-40-8-8-threshold").value)  # type: ignore[arg-type]


def _at_threshold(record: Record) -> str:
    layers = images.fold_at(record["recording"], _threshold())["layers"]
    return f"{_model(record)}, folded at similarity {_threshold():g} to {layers} layers, BatchNorm as trained"


def rise_at_threshold(record: Record) -> float:
    """Points of test error that folding at the thesis's threshold costs, before BatchNorm is re-estimated."""
    recording = record["recording"]
    return float(100 * (recording["folds"][0]["score"] - images.fold_at(recording, _threshold())["score"]))


def favourite(matrices: Sequence[Tensor]) -> int:
    """The distance d >= 1 with the largest mean of the entries (l, l + d), the corner of less than three entries left out."""
    layers = len(matrices[0])
    means = {d: mean(float(m.diagonal(d).mean()) for m in matrices) for d in range(1, max(layers - 2, 2))}
    return max(means, key=means.__getitem__)


def chessboard(record: Record) -> float:
    """The distance at which two layers of a group are most similar, by the mean over groups, after training."""
    return float(favourite(list(similarities(record["recording"])[-1][1].values())))


def settled(record: Record) -> float:
    """The first kept epoch whose matrices are nearer to the final ones than half of the way from the start."""
    moments = [(at, torch.cat([m.flatten() for m in by.values()])) for at, by in similarities(record["recording"])]
    distances = [(at, float((matrices - moments[-1][1]).norm())) for at, matrices in moments]
    return next(at for at, distance in distances if distance <= distances[0][1] / 2)
