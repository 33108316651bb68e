"""Soft parameter sharing (``lab.experiments.sharing.images`` and ``paths``): Tables 3.1 to 3.4 and what Sections 3.4 and 3.5 make of them.

Sizes need no training: a network is built without its numbers, on the meta device, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured, average, difference
from lab.figures.folding.recording import similarities
from lab.models import swrn50_2, wrn50_2
from lab.runs import Record, Run

from . import images as sharing
from . import shortest_paths as paths

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
Wanted = Callable[[str], Sequence[Run]]


def claims() -> list[Claim]:
    """Every cell of a (S)WRN row, the comparisons of the text, and its statements on folding and similarity."""
    found = []
    for (table, row), options in sharing.rows().items():
        wanted, (tolerance, why) = partial(sharing.row_runs, table, row), NOISE[options["data"]]
        found.append(Claim("sharing", error(wanted), wanted, table, row, ERROR, tolerance=tolerance, reason=why))
        found += _sizes(table, row, options)
    for row, net in (("WRN 50-2", wrn50_2), ("SWRN 50-2", swrn50_2)):
        wanted, (tolerance, why) = partial(sharing.row_runs, "3.4", row), NOISE["imagenet"]
        for column, figure in (("Top-1 error", "accuracy"), ("Top-5 error", "top5")):
            found.append(
                Claim("sharing", error(wanted, figure), wanted, "3.4", row, column, tolerance=tolerance, reason=why)
            )
        found.append(_counted("3.4", row, PARAMETERS, lambda net=net: _parameters(net) / 1e6, 0.5))  # type: ignore[misc]
    for table, one, other in ORDERS:
        column = "Top-1 error" if table == "3.4" else ERROR
        a, b = partial(sharing.row_runs, table, one), partial(sharing.row_runs, table, other)
        both = difference(error(a), error(b))
        found.append(
            Claim("sharing", both, lambda p, a=a, b=b: [*a(p), *b(p)], table, one, column, versus=other)
        )  # fmt: skip
    return found + _facts()


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    found: dict[tuple[str, str, str] | str, str] = {}
    for table in ("3.1", "3.2", "3.3", "3.4"):
        for cell in thesis.table(table).to_dict("records"):
            key = table, cell["row"], cell["column"]
            if "WRN" not in cell["row"]:
                found[key] = "networks of other authors, shown for comparison: this book trains Wide ResNets"
            elif cell["column"] in ("Dropout", "Templates"):
                found[key] = "settings, which the declared runs take from here"
            elif cell["column"] == "Training time":
                found[key] = "times on the thesis's own GPU; every run of this book records its own"
    arithmetic = "exact arithmetic on the thesis's own numbers: Chapter 3 computes it, no run is needed"
    found |= dict.fromkeys(
        ("lsm-example-row-1", "lsm-example-row-2", "b-example-row-3", "resnet-200-depth"), arithmetic
    )
    found["swrn-28-10-relative-error"] = "follows from cells of Tables 3.1 and 3.2, which have rows of their own here"
    found["fold-40-8-8-threshold"] = "a choice, not a result: what folding there costs has a row of its own"
    found["lsm-epoch-final-like"] = "no single number: Chapter 3 shows the matrices of a recorded run side by side"
    return found


def _facts() -> list[Claim]:
    one_template = partial(sharing.row_runs, "3.1", "SWRN 28-10-1")
    nas, best = partial(sharing.row_runs, "3.3", "SWRN 28-10-2"), partial(sharing.row_runs, "3.1", "SWRN 28-18-2")
    near, why = NOISE["cifar10"]
    size, plain = partial(_size, 28, 10, 1), partial(_size, 28, 10, None)
    return [
        Claim(
            "sharing", partial(_computed, lambda: size() / plain()), _none, fact="swrn-28-10-1-parameters",
            tolerance=0.01, reason="a third, in the text's words",
        ),
        Claim("sharing", error(best), best, fact="swrn-28-18-2-error", tolerance=near, reason=why),
        Claim("sharing", error(nas), nas, fact="nas-swrn-error", tolerance=near, reason=why),
        Claim("sharing", partial(hours, nas), nas, fact="nas-swrn-hours", at_most=True),
        Claim(
            "sharing", average("similarity", _single(one_template)), _single(one_template), fact="k1-similarity",
            tolerance=1e-3, reason="equal by construction, up to rounding",
        ),
        Claim(
            "sharing", partial(rise, _loop, _two, _rise_of_two), _two, fact="fold-28-10-4-error",
            tolerance=0.1, reason="ten of 10,000 test images",
        ),
        Claim(
            "sharing", partial(rise, _threshold, sharing.shared, _rise_at), sharing.shared,
            fact="fold-40-8-8-error", at_most=True,
        ),
        Claim(
            "sharing", chessboard, sharing.shared, fact="lsm-chessboard",
            tolerance=0.5, reason="a whole number of layers",
        ),
        Claim(
            "sharing", settled, lambda p: sharing.shared(p) if p == "paper" else [], fact="lsm-epoch-patterns",
            tolerance=25.0, reason="the matrices are kept at epochs 5, 10, 25 and 50",
        ),
        Claim(
            "paths", average("similarity", _regularised), _regularised, fact="paths-regularised-lsm",
            tolerance=0.05, reason="nearly 1 in the picture",
        ),
    ]  # fmt: skip


# -- what is counted, without a run ------------------------------------------------------------------------------------


def _none(profile: str) -> list[Run]:
    return []


def _computed(count: Callable[[], float], found: Sequence[Record]) -> Measured:
    return Measured(count(), None, 1, (), note="counted on the network itself; no run is needed")


def _counted(table: str, row: str, column: str, count: Callable[[], float], tolerance: float) -> Claim:
    measure = partial(_computed, count)
    return Claim("sharing", measure, _none, table, row, column, tolerance=tolerance, reason=SIZES[column])


def _sizes(table: str, row: str, options: dict[str, Any]) -> list[Claim]:
    depth, width, templates = (options[key] for key in ("depth", "width", "templates"))
    classes = 100 if options["data"] == "cifar100" else 10
    own, plain = partial(_size, depth, width, templates, classes), partial(_size, depth, width, None, classes)
    last_digit = 0.1 if table == "3.3" else 1.0
    counts: dict[str, tuple[Callable[[], float], float]] = {PARAMETERS: (lambda: own() / 1e6, last_digit)}
    if templates is not None:
        counts[RATIO] = lambda: plain() / own(), 0.1
        counts["Group size"] = partial(_group_size, depth, width, templates), 0.5
    printed = set(thesis.table(table).query("row == @row")["column"])
    return [_counted(table, row, c, *counts[c]) for c in counts if c in printed]


@cache
def _size(depth: int, width: int, templates: int | None, classes: int = 10) -> int:
    config = {"depth": depth, "width": width, "templates": templates, "dropout": 0.0}
    return _parameters(partial(sharing.build, config, classes))  # its own cache: a partial is never equal to another


@cache
def _parameters(make: Callable[[], torch.nn.Module]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in make().parameters())


@cache
def _group_size(depth: int, width: int, templates: int) -> int:
    """How many layers of a stage share."""
    with torch.device("meta"):
        net = sharing.build({"depth": depth, "width": width, "templates": templates, "dropout": 0.0}, 10)
    return len(net.relaxations[0].alpha["stage1"])


# -- what is measured --------------------------------------------------------------------------------------------------


def error(wanted: Wanted, figure: str = "accuracy") -> Measure:
    """Test error in percent over one configuration's seeds: what ``figure`` leaves of 100 %."""

    def measure(found: Sequence[Record]) -> Measured | str:
        got = average(figure, wanted, 100)(found)
        return got if isinstance(got, str) else Measured(100 - got.value, got.spread, got.n, got.runs, note=got.note)

    return measure


def hours(wanted: Wanted, found: Sequence[Record]) -> Measured | str:
    """How long one run took, folding and measuring included."""
    mine = sharing.chosen(found, wanted(found[0]["profile"])) if found else []
    if not mine:
        return "no run is recorded"
    taken = [record["provenance"]["seconds"] / 3600 for record in mine]
    return _over(taken, mine, f"on {mine[0]['provenance']['device']}, the thesis's is a GTX 1080 Ti")


def _single(wanted: Wanted) -> Wanted:
    """At ``short`` the headline's network with one template stands for the thesis's."""
    return lambda profile: (
        wanted(profile)
        if profile == "paper"
        else [r for r in sharing.templates(profile) if r.config["method"]["templates"] == 1]
    )


def _two(profile: str) -> list[Run]:
    """At ``short`` the headline stands for SWRN 28-10-4: as deep, with as many templates, narrower."""
    return sharing.figure_3_5() if profile == "paper" else sharing.shared(profile)


def _regularised(profile: str) -> list[Run]:
    return [one for one in paths.contest(profile) if one.config["method"]["lambda"]]


def _loop(record: Record) -> str:
    return "stages 2 and 3 folded to loops of two layers"


def _rise_of_two(record: Record) -> float:
    return 100 * (record["figures"]["accuracy"] - record["figures"]["accuracy_two"])


def _threshold(record: Record) -> str:
    at = thesis.fact("fold-40-8-8-threshold").value
    one = sharing.fold_at(record["recording"], float(at))  # type: ignore[arg-type]
    return f"folded at similarity {at:g} to {one['layers']} layers"


def _rise_at(record: Record) -> float:
    at = float(thesis.fact("fold-40-8-8-threshold").value)  # type: ignore[arg-type]
    folds = record["recording"]["folds"]
    return 100 * (folds[0]["score"] - sharing.fold_at(record["recording"], at)["score"])


def rise(
    what: Callable[[Record], str], wanted: Wanted, of: Callable[[Record], float], found: Sequence[Record]
) -> Measured | str:
    """How many points of test error a fold costs, before BatchNorm is re-estimated."""
    mine = sharing.chosen(found, wanted(found[0]["profile"])) if found else []
    if not mine:
        return "no run is recorded"
    return _over([of(r) for r in mine], mine, f"{mine[0]['config']['model']}, {what(mine[0])}, BatchNorm as trained")


def chessboard(found: Sequence[Record]) -> Measured | str:
    """The distance at which two layers of a group are most similar, by the mean over groups; one a run."""
    mine = sharing.chosen(found, sharing.shared(found[0]["profile"])) if found else []
    if not mine:
        return "no run is recorded"
    return _over([float(favourite(_final(record))) for record in mine], mine, mine[0]["config"]["model"])


def favourite(matrices: Sequence[Tensor]) -> int:
    """The distance d >= 1 with the largest mean of the entries (l, l + d), the corner of less than three entries left out."""
    layers = len(matrices[0])
    means = {d: mean(float(m.diagonal(d).mean()) for m in matrices) for d in range(1, max(layers - 2, 2))}
    return max(means, key=means.__getitem__)


def settled(found: Sequence[Record]) -> Measured | str:
    """The first kept epoch whose matrices are nearer to the final ones than half of the way from the start; one a run."""
    mine = sharing.chosen(found, sharing.shared(found[0]["profile"])) if found else []
    if not mine:
        return "no run is recorded"
    return _over([halfway(record["recording"]) for record in mine], mine, mine[0]["config"]["model"])


def halfway(recording: dict[str, Any]) -> float:
    """See :func:`settled`."""
    moments = similarities(recording)
    final = torch.cat([m.flatten() for m in moments[-1][1].values()])
    distance = [(at, float((torch.cat([m.flatten() for m in s.values()]) - final).norm())) for at, s in moments]
    return next(at for at, d in distance if d <= distance[0][1] / 2)


def _final(record: Record) -> list[Tensor]:
    return list(similarities(record["recording"])[-1][1].values())


def _over(values: Sequence[float], mine: Sequence[Record], note: str) -> Measured:
    spread = stdev(values) if len(values) > 1 else None
    return Measured(mean(values), spread, len(values), tuple(r["id"] for r in mine), note=note)
