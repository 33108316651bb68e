"""Soft parameter sharing: Tables 3.1 to 3.4, and what Sections 3.4 and 3.5 make of them, as claims.

Sizes need no training: a network is built without its numbers and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from lab.datasets import thesis
from lab.experiments.claims import (
    Claim,
    Reasons,
    average,
    both,
    counted,
    difference,
    error,
    no_run,
    over_seeds,
    stated,
)
from lab.figures.folding.recording import similarities
from lab.runs import Record, Run
from principled.sharing import layer_similarity

from . import images, shortest_paths
from .shortest_paths import end_of_phase, first_phase

ERROR, PARAMETERS, RATIO, GROUP = "Test error", "Params (M)", "Compression ratio", "Group size"
SIZES = {PARAMETERS: "the table cuts or rounds its last digit", RATIO: "the table gives one decimal", GROUP: "a count"}
COUNTED = "counted on the network itself; no run is needed"
NOISE = {
    "cifar10": (0.1, "about two standard errors of the thesis's own mean of five; sharing gains 0.26"),
    "cifar100": (0.2, "about two standard errors of the thesis's own mean of five; sharing gains 0.42"),
    "imagenet": (0.1, "less than half of the 0.26 that sharing gains"),
}
"""By data: how far a test error may lie from the thesis's, and why so much."""
COMPARED = {
    (
        "3.1",
        "SWRN 28-10 (dropout 0.0)",
        "WRN 28-10 (dropout 0.0)",
    ): "On CIFAR-10 soft sharing lowers a Wide ResNet's error",
    ("3.1", "SWRN 28-18-2", "SWRN 28-18"): "",
    ("3.2", "SWRN 28-10 (dropout 0.3)", "WRN 28-10 (dropout 0.3)"): "On CIFAR-100 too",
    ("3.2", "SWRN 28-18", "SWRN 28-18-2"): "",
    ("3.4", "SWRN 50-2", "WRN 50-2"): "On ImageNet too",
    (
        "3.3",
        "SWRN 28-10-2",
        "WRN 28-10 (baseline with cutout)",
    ): "With cutout two templates beat the network without sharing",
    ("3.3", "SWRN 28-14-2", "SWRN 28-14"): "",
}
"""(table, row, other row) that the text compares, to the claim in plain words where it is a main one."""


def claims() -> list[Claim]:
    """Every cell of a (S)WRN row, the comparisons of the text, and its statements on folding and similarity."""
    listed = []
    for (table, row), options in images.rows().items():
        listed += [_error(table, row, ERROR, options["data"]), *_sizes(table, row, options)]
    for row, templates in (("WRN 50-2", None), ("SWRN 50-2", "all")):
        listed += [_error("3.4", row, "Top-1 error", "imagenet"), _error("3.4", row, "Top-5 error", "imagenet", "top5")]
        listed.append(_size("3.4", row, PARAMETERS, partial(_millions, 50, 2, templates, "imagenet"), 0.5))
    for (table, row, other), main in COMPARED.items():
        needs, others = (partial(images.row_runs, table, name) for name in (row, other))
        measure = difference(error(needs), error(others))
        column = "Top-1 error" if table == "3.4" else ERROR
        listed.append(Claim("sharing", measure, both(needs, others), table, row, column, versus=other, main=main))
    return [*listed, *_folding(), *_paths()]


def reasons() -> Reasons:
    """Why what has no claim has none."""
    why: Reasons = {}
    for table in ("3.1", "3.2", "3.3", "3.4"):
        for row, column in thesis.table(table)[["row", "column"]].itertuples(index=False):
            if "WRN" not in row:
                why[table, row, column] = (
                    "networks of other authors, shown for comparison: this book trains Wide ResNets"
                )
            elif column in ("Dropout", "Templates"):
                why[table, row, column] = "settings, which the declared runs take from here"
            elif column == "Training time":
                why[table, row, column] = "times on the thesis's own GPU; every run of this book records its own"
    return why | {
        "fold-28-10-4-error": "for stage 2 folded alone; the declared runs fold stages 2 and 3 together",
        "swrn-28-10-relative-error": "follows from cells of Tables 3.1 and 3.2, which have rows of their own here",
        "fold-40-8-8-threshold": "a choice, not a result: what folding there costs has a row of its own",
        "lsm-epoch-final-like": "no single number: it compares two matrices by eye",
    }


def _folding() -> list[Claim]:
    """Statements on sizes, folds and similarity matrices."""
    nas, best = partial(images.row_runs, "3.3", "SWRN 28-10-2"), partial(images.row_runs, "3.1", "SWRN 28-18-2")
    near, why = NOISE["cifar10"]
    return [
        Claim(
            "sharing", counted(partial(_ratio, (28, 10, 1), (28, 10, None)), COUNTED), no_run,
            fact="swrn-28-10-1-parameters", tolerance=0.01, reason="a third, in the text's words",
            main="One template a group leaves a third of the parameters",
        ),
        Claim(
            "sharing", error(best), best, fact="swrn-28-18-2-error", tolerance=near, reason=why,
            main="The best network of the family, with two templates, has this error on CIFAR-10",
        ),
        Claim(
            "sharing", error(nas), nas, fact="nas-swrn-error", tolerance=near, reason=why,
            main="Two templates reach what architecture search reaches, in one training",
        ),
        Claim("sharing", over_seeds(hours, nas, _device), nas, fact="nas-swrn-hours", at_most=True),
        Claim(
            "sharing", counted(similarity_with_one_template, "by construction: no training can change it"), no_run,
            fact="k1-similarity", tolerance=1e-3, reason="equal up to rounding",
        ),
        Claim(
            "sharing", over_seeds(rise_at_threshold, images.shared, _at_threshold), images.shared,
            fact="fold-40-8-8-error", at_most=True, main="Folding layers of similarity 0.8 costs less error than this",
        ),
        Claim(
            "sharing", over_seeds(chessboard, images.shared, _as_drawn), images.shared, fact="lsm-chessboard",
            tolerance=0.5, reason="a whole number of layers", main="Layers share with the next but one: a chessboard",
        ),
        Claim(
            "sharing", over_seeds(settled, images.shared, _model), _paper_shared, fact="lsm-epoch-patterns",
            tolerance=7.5, reason="half of the way to the nearest other epoch at which matrices are kept",
        ),
    ]  # fmt: skip


def _paths() -> list[Claim]:
    """Figure 3.9, on the shortest paths."""

    def compared(says: str, value: Callable[[Record], float], ours: str, other: str, main: str = "") -> Claim:
        a, b = partial(_contest, ours), partial(_contest, other)
        return Claim("paths", difference(over_seeds(value, a), over_seeds(value, b)), both(a, b), says=says, main=main)

    regularised = partial(_contest, "regularised")
    return [
        Claim(
            "paths", average("similarity", regularised), regularised, fact="paths-regularised-lsm",
            tolerance=0.05, reason="nearly 1 in the picture",
        ),
        compared(
            "3.4.3: Fig. 3.9: F1 of the SCNN above the CNN's at the end of the curriculum",
            end_of_phase, "shared", "plain",
            "On shortest paths a network that shares softly beats one that does not",
        ),
        compared(
            "3.4.3: Fig. 3.9: the regulariser makes the first phase faster: its mean F1 above the SCNN's without",
            first_phase, "regularised", "shared",
        ),
        compared(
            "3.4.3: Fig. 3.9: in later phases the SCNN adapts better than the regularised one: its last F1 above",
            end_of_phase, "shared", "regularised",
        ),
    ]  # fmt: skip


def _contest(kind: str, profile: str) -> list[Run]:
    """Figure 3.9's runs of a kind: ``"plain"``, ``"shared"`` or ``"regularised"``."""

    def kind_of(run: Run) -> str:
        method = run.config["method"]
        return "plain" if method["templates"] is None else "regularised" if method["lambda"] else "shared"

    return [run for run in shortest_paths.contest(profile) if kind_of(run) == kind]


def _error(table: str, row: str, column: str, data: str, figure: str = "accuracy") -> Claim:
    needs, (tolerance, reason) = partial(images.row_runs, table, row), NOISE[data]
    return Claim("sharing", error(needs, figure), needs, table, row, column, tolerance=tolerance, reason=reason)


# -- what is counted, without a run ------------------------------------------------------------------------------------


def _size(table: str, row: str, column: str, count: Callable[[], float], tolerance: float) -> Claim:
    measure, reason = counted(count, COUNTED), SIZES[column]
    return Claim("sharing", measure, no_run, table, row, column, tolerance=tolerance, reason=reason)


def _sizes(table: str, row: str, options: dict[str, Any]) -> list[Claim]:
    depth, width, templates, data = (options[key] for key in ("depth", "width", "templates", "data"))
    network, plain = (depth, width, templates, data), (depth, width, None, data)
    last_digit = 0.1 if table == "3.3" else 1.0
    counts: dict[str, tuple[Callable[[], float], float]] = {PARAMETERS: (partial(_millions, *network), last_digit)}
    if templates is not None:
        counts[RATIO] = partial(_ratio, plain, network), 0.1
        counts[GROUP] = partial(_group_size, *network), 0.5
    printed = set(thesis.table(table).query("row == @row")["column"])
    return [_size(table, row, column, *counts[column]) for column in counts if column in printed]


@cache
def _network(depth: int, width: int, templates: int | str | None, data: str = "cifar10") -> nn.Module:
    return images.unbuilt(depth, width, templates, data)


def _millions(*network: Any) -> float:
    return sum(p.numel() for p in _network(*network).parameters()) / 1e6


def _ratio(network: tuple[Any, ...], other: tuple[Any, ...]) -> float:
    return _millions(*network) / _millions(*other)


def _group_size(*network: Any) -> int:
    """How many layers of a stage share."""
    shared: Any = _network(*network)
    return len(shared.relaxations[0].alpha["stage1"])


def similarity_with_one_template() -> float:
    """The smallest similarity of six layers that share one template, whatever their coefficients."""
    return float(layer_similarity(torch.tensor([[0.3], [-2.0], [1.0], [0.01], [-0.5], [7.0]])).min())


# -- what is measured --------------------------------------------------------------------------------------------------


def hours(record: Record) -> float:
    """How long a run took, folding and measuring included."""
    return float(record["provenance"]["seconds"] / 3600)


def _device(record: Record) -> str:
    return f"on {record['provenance']['device']}, the thesis's is a GTX 1080 Ti"


def _model(record: Record) -> str:
    return str(record["config"]["model"])


def _paper_shared(profile: str) -> list[Run]:
    return images.shared(profile) if profile == "paper" else []


def _at_threshold(record: Record) -> str:
    threshold = stated("fold-40-8-8-threshold")
    layers = images.fold_at(record["recording"], threshold)["layers"]
    return f"{_model(record)}, folded at similarity {threshold:g} to {layers} layers, BatchNorm as trained"


def rise_at_threshold(record: Record) -> float:
    """Points of test error that folding at the thesis's threshold costs, before BatchNorm is re-estimated."""
    recording = record["recording"]
    folded = images.fold_at(recording, stated("fold-40-8-8-threshold"))
    return float(100 * (recording["folds"][0]["score"] - folded["score"]))


def favourite(matrices: Sequence[Tensor]) -> int:
    """The distance d >= 1 with the largest mean of the entries (l, l + d), the corner of fewer than three left out."""
    layers = len(matrices[0])
    means = {d: mean(float(m.diagonal(d).mean()) for m in matrices) for d in range(1, max(layers - 2, 2))}
    return max(means, key=means.__getitem__)


def chessboard(record: Record) -> float:
    """The distance at which two layers of a group are most similar, by the mean over groups, after training."""
    return float(favourite(list(similarities(record["recording"])[-1][1].values())))


def _as_drawn(record: Record) -> str:
    start = favourite(list(similarities(record["recording"])[0][1].values()))
    return f"{_model(record)}; the first run's favourite distance before any training: {start}"


def settled(record: Record) -> float:
    """The first kept epoch whose matrices are nearer to the final ones than half of the way from the start."""
    moments = [(at, torch.cat([m.flatten() for m in by.values()])) for at, by in similarities(record["recording"])]
    distances = [(at, float((matrices - moments[-1][1]).norm())) for at, matrices in moments]
    return next(at for at, distance in distances if distance <= distances[0][1] / 2)
