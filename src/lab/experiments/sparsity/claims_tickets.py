"""Chapter 4 beyond one-shot pruning of ResNet-20 by its four first methods: the rest of Table 4.1 (``lab.experiments.sparsity.rivals``), Table 4.2 and
what the text says of tickets (``tickets``), and supermasks (``supermasks``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, stdev

from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured, difference
from lab.runs import Record, Run

from . import rivals as methods
from . import supermasks, tickets
from .selection import Point, best_performing, over_seeds, points, sparsest_matching, sparsest_within

Measure = Callable[[Sequence[Record]], Measured | str]

FIELD = {"Louizos et al. (2018)": "l0", "AMC": "amc", "NetSlim": "netslim"}
"""Rows of Table 4.1 on ResNet-20 that :mod:`lab.experiments.sparsity.claims` does not have; on VGG-16 all rows."""
ALL = FIELD | {"MP": "mp", "GMP": "gmp", "CS": "cs"}
MODELS = {"ResNet-20": "resnet20", "VGG-16": "vgg16"}
SEARCHES = {"IMP": "imp", "IMP-C": "imp-c", "CS": "cs"}
RULES = {"sparsest matching": sparsest_matching, "best performing": best_performing}
# half a step between the sparsities that are tried; the spread of accuracy over seeds; one round of IMP or so
STEP, STEP_WHY = 2.0, "about half the distance between the sparsities that are tried"
KEPT, KEPT_WHY = 4.0, "about what one round of IMP removes where it matters"
POINTS, POINTS_WHY = 0.5, "about the spread over seeds"
ROUNDS, ROUNDS_WHY = 2.0, "two rounds of 20 %"


def claims() -> list[Claim]:
    """Cells and orders of Tables 4.1 and 4.2, and statements of the text."""
    return [*_field(), *_tickets(), *_statements()]


def reasons() -> dict[str | tuple[str, str, str], str]:
    """Why some numbers have no claim."""
    why = "ImageNet is not at hand: the runs are declared (experiment resnet50) for who has it; its stand-in at short is no ImageNet"
    cells = thesis.table("4.3").to_dict("records")
    found: dict[str | tuple[str, str, str], str] = {("4.3", r["row"], r["column"]): why for r in cells}
    for column in MODELS:
        for what in ("round", "weights remaining"):
            found["4.2", "Dense Network", f"{column} {what}"] = "true by definition: one round, every weight"
    figure = "read from a figure without numbers: Chapter 4 draws the recorded runs of the same settings"
    found |= dict.fromkeys(
        ("l0-collapse", "vgg-only-cs-slim", "hyper-lambda-exception", "hyper-beta-flat", "hyper-beta-advice", "imp-aggressive-rate",
         "supermask-ss", "vgg-structure-first-blocks", "vgg-structure-wide", "vgg-structure-sparsity", "vgg-structure-accuracy"), figure,
    )  # fmt: skip
    found["supermask-cs-weights"] = (
        "the condition of another statement: how accurate such masks are has a row of its own"
    )
    found["cs-time-overhead"] = "a time: benchmarks/relax.py measures it on this machine"
    found["ss-lr-typical"] = "a remark on rates that were not kept"
    return found


# -- Table 4.1 ---------------------------------------------------------------------------------------------------------


def _field() -> list[Claim]:
    found = []
    for column, model in MODELS.items():
        rows = FIELD if model == "resnet20" else ALL
        for row, name in rows.items():
            found.append(
                _cell("methods", within(model, name), _pruned(model, name), "4.1", row, column, STEP, STEP_WHY)
            )
    measure = difference(within("vgg16", "cs"), within("vgg16", "netslim"))
    found.append(Claim("methods", measure, _pruned("vgg16", "cs", "netslim"), "4.1", "CS", "VGG-16", versus="NetSlim"))
    return found


def _cell(
    experiment: str,
    measure: Measure,
    needs: Callable[[str], list[Run]],
    table: str,
    row: str,
    column: str,
    by: float,
    why: str,
) -> Claim:
    return Claim(experiment, measure, needs, table, row, column, tolerance=by, reason=why)


def _pruned(model: str, *names: str) -> Callable[[str], list[Run]]:
    """The first seed's whole curve of each method, and the dense network."""

    def needs(profile: str) -> list[Run]:
        mine = [r for r in methods.runs(profile) if r.config["model"] == model and r.seed == 0]
        return [r for r in mine if r.config["method"]["name"] in ("dense", *names)]

    return needs


def within(model: str, name: str) -> Measure:
    """Sparsity (%) of the sparsest point within 2 points of the dense network's accuracy, at that profile."""

    def measure(found: Sequence[Record]) -> Measured | str:
        allowed = thesis.fact("table-4-1-tolerance").value
        assert isinstance(allowed, float)
        mine = [r for r in found if r["config"]["model"] == model]
        dense = [r for r in mine if r["config"]["method"]["name"] == "dense"]
        tried = [p for r in mine if r["config"]["method"]["name"] == name for p in points(r)]
        if not dense:
            return "the dense network that it is compared with is not recorded"
        if not tried:
            return f"no run of {name} is recorded"
        base = mean(r["figures"]["accuracy"] for r in dense)
        averaged = over_seeds(tried)
        best = sparsest_within(averaged, base, allowed / 100)
        if best is None:
            return (
                f"none of the {len(averaged)} recorded points of {name} is within {allowed:g} points of dense accuracy"
            )
        note = f"accuracy {best.accuracy:.2%}, dense {base:.2%}"
        return _measured([100 * p.sparsity for p in tried if _same(p, best)], best, dense, note)

    return measure


# -- Table 4.2 ---------------------------------------------------------------------------------------------------------


def _tickets() -> list[Claim]:
    found = []
    for column, model in MODELS.items():
        for row, name in SEARCHES.items():
            needs = _searched(model, name)
            for rule in RULES:
                of = f"{row} ({rule})"
                for what, by, why in (
                    ("weights remaining", KEPT, KEPT_WHY), ("test accuracy", POINTS, POINTS_WHY), ("round", ROUNDS, ROUNDS_WHY),
                ):  # fmt: skip
                    found.append(
                        _cell("tickets", chosen(model, name, rule, what), needs, "4.2", of, f"{column} {what}", by, why)
                    )
        found.append(
            _cell(
                "tickets",
                dense(model),
                _searched(model),
                "4.2",
                "Dense Network",
                f"{column} test accuracy",
                POINTS,
                POINTS_WHY,
            )
        )
        for other in ("IMP", "IMP-C"):
            cs, its = (chosen(model, SEARCHES[row], "sparsest matching", "weights remaining") for row in ("CS", other))
            both, column_name = _searched(model, "cs", SEARCHES[other]), f"{column} weights remaining"
            row, versus = "CS (sparsest matching)", f"{other} (sparsest matching)"
            found.append(Claim("tickets", difference(cs, its), both, "4.2", row, column_name, versus=versus))
    return found


def _searched(model: str, *names: str) -> Callable[[str], list[Run]]:
    """All declared seeds of the searches, and the dense network."""

    def needs(profile: str) -> list[Run]:
        return [r for r in tickets.searches(profile, model) if r.config["method"]["name"] in ("dense", *names)]

    return needs


def _declared(found: Sequence[Record], needs: Callable[[str], list[Run]], name: str) -> list[Record]:
    ids = {r.id for r in needs(found[0]["profile"])} if found else set()
    return [r for r in found if r["id"] in ids and r["config"]["method"]["name"] == name]


def dense(model: str) -> Measure:
    """Accuracy (%) of the dense network under the searches' protocol."""

    def measure(found: Sequence[Record]) -> Measured | str:
        mine = _declared(found, _searched(model), "dense")
        if not mine:
            return "the dense network is not recorded"
        values = [100 * r["figures"]["accuracy"] for r in mine]
        return Measured(
            mean(values), stdev(values) if len(values) > 1 else None, len(values), tuple(r["id"] for r in mine)
        )

    return measure


def chosen(model: str, name: str, rule: str, what: str) -> Measure:
    """Round, accuracy (%) or weights remaining (%) of the ticket that a rule of 4.3.4 picks, by the means over seeds."""

    def measure(found: Sequence[Record]) -> Measured | str:
        references = _declared(found, _searched(model), "dense")
        mine = _declared(found, _searched(model, name), name)
        if not references:
            return "the dense network that it is compared with is not recorded"
        if not mine:
            return f"no search by {name} is recorded"
        base = mean(r["figures"]["accuracy"] for r in references)
        tried = [p for r in mine for p in points(r)]
        averaged = over_seeds(tried)
        best = sparsest_matching(averaged, base) if rule == "sparsest matching" else best_performing(averaged)
        if best is None:
            return f"none of the {len(averaged)} recorded tickets of {name} is as accurate as the dense network"
        of = {
            "weights remaining": lambda p: 100 * (1 - p.sparsity),
            "test accuracy": lambda p: 100 * p.accuracy,
            "round": lambda p: float(p.round),
        }[what]
        note = f"round {best.round}, accuracy {best.accuracy:.2%}, {1 - best.sparsity:.1%} of the weights; dense {base:.2%}"
        return _measured([of(p) for p in tried if _same(p, best)], best, references, note)

    return measure


# -- statements --------------------------------------------------------------------------------------------------------


def _statements() -> list[Claim]:
    above = difference(chosen("resnet20", "cs", "best performing", "test accuracy"), dense("resnet20"))
    masks = partial(_supermasks, "supermask")
    return [
        Claim(
            "tickets", above, _searched("resnet20", "cs"), fact="cs-above-dense", tolerance=POINTS, reason=POINTS_WHY,
        ),
        Claim(
            "supermasks", sparse_supermask, masks, fact="supermask-cs-accuracy", tolerance=3.0,
            reason="the figure it is read from is no finer",
        ),
    ]  # fmt: skip


def _supermasks(name: str, profile: str) -> list[Run]:
    return [r for r in supermasks.runs(profile) if r.config["method"]["name"] == name]


def sparse_supermask(found: Sequence[Record]) -> Measured | str:
    """Accuracy (%) of the best of CS's supermasks that keep no more than the thesis's share of the weights."""
    share = thesis.fact("supermask-cs-weights").value
    assert isinstance(share, float)
    tried = [p for r in found if r["config"]["method"]["name"] == "supermask" for p in points(r)]
    if not tried:
        return "no supermask is recorded"
    best = best_performing(p for p in over_seeds(tried) if 1 - p.sparsity <= share / 100)
    if best is None:
        return f"none of the recorded supermasks keeps {share:g} % of the weights or less"
    return _measured(
        [100 * p.accuracy for p in tried if _same(p, best)],
        best,
        (),
        f"it keeps {1 - best.sparsity:.1%} of the weights",
    )


# -- common ------------------------------------------------------------------------------------------------------------


def _same(point: Point, other: Point) -> bool:
    return (point.key, point.round) == (other.key, other.round)


def _measured(values: list[float], best: Point, against: Sequence[Record], note: str) -> Measured:
    spread = stdev(values) if len(values) > 1 else None
    return Measured(mean(values), spread, len(values), best.runs, tuple(r["id"] for r in against), note)
