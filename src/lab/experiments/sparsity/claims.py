"""Chapter 4's claims: the cells and orders of Tables 4.1 and 4.2, and what the text says of tickets and supermasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean, stdev

from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured, difference
from lab.runs import Record, Run, declaration

from . import supermasks, tickets
from .selection import Point, best_performing, over_seeds, points, sparsest_matching, sparsest_within

Measure = Callable[[Sequence[Record]], Measured | str]

METHODS = {"Louizos et al. (2018)": "l0", "AMC": "amc", "NetSlim": "netslim", "MP": "mp", "GMP": "gmp", "CS": "cs"}
MODELS = {"ResNet-20": "resnet20", "VGG-16": "vgg16"}
SEARCHES = {"IMP": "imp", "IMP-C": "imp-c", "CS": "cs"}
RULES = ("sparsest matching", "best performing")
# half a step between the sparsities that are tried; the spread of accuracy over seeds; one round of IMP or so
STEP = {"tolerance": 2.0, "reason": "about half the distance between the sparsities that are tried"}
POINTS = {"tolerance": 0.5, "reason": "about the spread over seeds"}
TICKET = {
    "weights remaining": {"tolerance": 4.0, "reason": "about what one round of IMP removes where it matters"},
    "test accuracy": POINTS,
    "round": {"tolerance": 2.0, "reason": "two rounds of 20 %"},
}


def claims() -> list[Claim]:
    """Cells and orders of Tables 4.1 and 4.2, and statements of the text."""
    return [*_pruning(), *_tickets(), *_statements()]


def reasons() -> dict[str | tuple[str, str, str], str]:
    """Why some numbers have no claim."""
    imagenet = "ImageNet is not at hand: the runs are declared (experiments resnet50, resnet50_tickets) for who has it"
    shown = "read from a figure without numbers; Chapter 4 shows runs of the same kind"
    vgg = "read from a figure without numbers, of VGG-16, whose runs are declared from profile short on"
    why: dict[str | tuple[str, str, str], str] = {
        ("4.3", cell["row"], cell["column"]): imagenet for cell in thesis.table("4.3").to_dict("records")
    }
    for column in MODELS:
        for what in ("round", "weights remaining"):
            why["4.2", "Dense Network", f"{column} {what}"] = "true by definition: one round, every weight"
    why |= dict.fromkeys(
        ("hyper-lambda-exception", "hyper-beta-flat", "hyper-beta-advice", "imp-aggressive-rate", "supermask-ss"), shown
    )
    why |= dict.fromkeys(
        ("vgg-only-cs-slim", "vgg-structure-first-blocks", "vgg-structure-wide", "vgg-structure-sparsity",
         "vgg-structure-accuracy"), vgg,
    )  # fmt: skip
    return why | {
        "l0-collapse": "of the gates' value for inference: masks are drawn here, as the thesis does for this reason",
        "supermask-cs-weights": "the condition of another statement: how accurate such masks are has a row of its own",
        "cs-time-overhead": "a time: benchmarks/relax.py measures it on this machine",
        "ss-lr-typical": "a remark on rates that were not kept",
    }


# -- Table 4.1 ---------------------------------------------------------------------------------------------------------


def _pruning() -> list[Claim]:
    cells = []
    for column, model in MODELS.items():
        for row, name in METHODS.items():
            experiment = _experiment(model, name)
            cells.append(
                Claim(experiment, within(model, name), _curves(experiment, model, name), "4.1", row, column, **STEP)
            )
    orders = []
    for column, row, versus in (
        ("ResNet-20", "CS", "GMP"), ("ResNet-20", "CS", "MP"), ("ResNet-20", "GMP", "MP"), ("VGG-16", "CS", "NetSlim"),
    ):  # fmt: skip
        model, pair = MODELS[column], (METHODS[row], METHODS[versus])
        experiment = _experiment(model, pair[0])
        measure = difference(within(model, pair[0]), within(model, pair[1]))
        orders.append(Claim(experiment, measure, _curves(experiment, model, *pair), "4.1", row, column, versus=versus))
    fewer = Claim(
        "pruning", fewer_kept, _curves("pruning", "resnet20", "cs", "gmp"), fact="cs-vs-gmp-resnet20",
        tolerance=14.0, reason="what two points of sparsity are to the 14 % that GMP keeps",
    )  # fmt: skip
    return [*cells, *orders, fewer]


def _experiment(model: str, name: str) -> str:
    return "pruning" if model == "resnet20" and name in ("mp", "gmp", "cs") else "methods"


def _curves(experiment: str, model: str, *names: str) -> Callable[[str], list[Run]]:
    """The first seed's whole curve of each method, and the dense network."""

    def needs(profile: str) -> list[Run]:
        runs = [r for r in declaration(experiment).runs(profile, (0,)) if r.config["model"] == model]
        return [r for r in runs if r.config["method"]["name"] in ("dense", *names)]

    return needs


def within(model: str, name: str) -> Measure:
    """Sparsity (%) of the sparsest point within 2 points of the dense network's accuracy, at that profile."""

    def measure(records: Sequence[Record]) -> Measured | str:
        allowed = thesis.fact("table-4-1-tolerance").value
        assert isinstance(allowed, float)
        same = [r for r in records if r["config"]["model"] == model]
        dense = [r for r in same if r["config"]["method"]["name"] == "dense"]
        tried = over_seeds(p for r in same if r["config"]["method"]["name"] == name for p in points(r))
        averaged = [p for p in tried if not p.fault]
        if not dense:
            return "the dense network that it is compared with is not recorded"
        if not averaged:
            faults = ", ".join(sorted({p.fault for p in tried}))
            return (
                f"no run of {name.upper()} is a point of its curve: {faults}"
                if tried
                else f"no run of {name} is recorded"
            )
        base = mean(r["figures"]["accuracy"] for r in dense)
        best = sparsest_within(averaged, base, allowed / 100)
        if best is None:
            return (
                f"none of the {len(averaged)} recorded points of {name} is within {allowed:g} points of dense accuracy"
            )
        note = f"accuracy {best.accuracy:.2%}, dense {base:.2%}; the sparsest of {len(averaged)} recorded points"
        return _measured([100 * p.sparsity for p in best.seeds], best, dense, note)

    return measure


def fewer_kept(records: Sequence[Record]) -> Measured | str:
    """How many percent fewer weights CS keeps than GMP."""
    cs, gmp = within("resnet20", "cs")(records), within("resnet20", "gmp")(records)
    if isinstance(cs, str) or isinstance(gmp, str):
        return cs if isinstance(cs, str) else str(gmp)
    fewer = 100 * (1 - (100 - cs.value) / (100 - gmp.value))
    return Measured(fewer, None, min(cs.n, gmp.n), cs.runs, gmp.runs, f"CS {cs.value:.1f} %, GMP {gmp.value:.1f} %")


# -- Table 4.2 ---------------------------------------------------------------------------------------------------------


def _tickets() -> list[Claim]:
    claims = []
    for column, model in MODELS.items():
        for row, name in SEARCHES.items():
            for rule in RULES:
                for what, judged in TICKET.items():
                    measure, cell = chosen(model, name, rule, what), (f"{row} ({rule})", f"{column} {what}")
                    claims.append(Claim("tickets", measure, _searches(model, name), "4.2", *cell, **judged))
        cell = "Dense Network", f"{column} test accuracy"
        claims.append(Claim("tickets", dense(model), _searches(model), "4.2", *cell, **POINTS))
        for other in ("IMP", "IMP-C"):
            cs, its = (chosen(model, SEARCHES[row], "sparsest matching", "weights remaining") for row in ("CS", other))
            cell, versus = ("CS (sparsest matching)", f"{column} weights remaining"), f"{other} (sparsest matching)"
            needs = _searches(model, "cs", SEARCHES[other])
            claims.append(Claim("tickets", difference(cs, its), needs, "4.2", *cell, versus=versus))
    return claims


def _searches(model: str, *names: str) -> Callable[[str], list[Run]]:
    """All declared seeds of the searches, the dense network and the control."""

    def needs(profile: str) -> list[Run]:
        wanted = ("dense", "control", *names)
        return [r for r in tickets.searches(profile, model) if r.config["method"]["name"] in wanted]

    return needs


def _searched(records: Sequence[Record], model: str, name: str) -> list[Record]:
    """Of the records those of Table 4.2's searches: the studies are others."""
    ids = {r.id for r in _searches(model, name)(records[0]["profile"])} if records else set()
    return [r for r in records if r["id"] in ids and r["config"]["method"]["name"] == name]


def dense(model: str, key: str = "dense") -> Measure:
    """Accuracy (%) of the dense network under the searches' protocol; with ``"control"`` re-trained as a ticket is."""

    def measure(records: Sequence[Record]) -> Measured | str:
        same = _searched(records, model, key)
        if not same:
            return f"the dense network ({key}) is not recorded"
        values = [100 * r["figures"]["accuracy"] for r in same]
        spread = stdev(values) if len(values) > 1 else None
        return Measured(mean(values), spread, len(values), tuple(r["id"] for r in same))

    return measure


def chosen(model: str, name: str, rule: str, what: str) -> Measure:
    """Round, accuracy (%) or weights remaining (%) of the ticket that a rule of 4.3.4 picks, by the means over seeds.

    It matches if it is no worse than the control, the dense network re-trained from its early iterate for as long.
    """

    def measure(records: Sequence[Record]) -> Measured | str:
        references = _searched(records, model, "control")
        averaged = over_seeds(p for r in _searched(records, model, name) for p in points(r))
        if not references:
            return "the control, the dense network re-trained as a ticket is, is not recorded"
        if not averaged:
            return f"no search by {name} is recorded"
        base = mean(r["figures"]["accuracy"] for r in references)
        best = sparsest_matching(averaged, base) if rule == "sparsest matching" else best_performing(averaged)
        if best is None:
            return f"none of the {len(averaged)} recorded tickets of {name} is as accurate as the control"
        value: Callable[[Point], float] = {
            "weights remaining": lambda p: 100 * (1 - p.sparsity),
            "test accuracy": lambda p: 100 * p.accuracy,
            "round": lambda p: float(p.round),
        }[what]
        note = f"round {best.round}, {best.accuracy:.2%}, {1 - best.sparsity:.1%} of the weights; control {base:.2%}"
        return _measured([value(p) for p in best.seeds], best, references, note)

    return measure


# -- statements --------------------------------------------------------------------------------------------------------


def _statements() -> list[Claim]:
    above = difference(chosen("resnet20", "cs", "best performing", "test accuracy"), dense("resnet20", "control"))
    return [
        Claim("tickets", above, _searches("resnet20", "cs"), fact="cs-above-dense", **POINTS),
        Claim(
            "supermasks", sparse_supermask, partial(_supermasks, "supermask"), fact="supermask-cs-accuracy",
            tolerance=3.0, reason="the figure it is read from is no finer",
        ),
    ]  # fmt: skip


def _supermasks(name: str, profile: str) -> list[Run]:
    return [r for r in supermasks.runs(profile) if r.config["method"]["name"] == name]


def sparse_supermask(records: Sequence[Record]) -> Measured | str:
    """Accuracy (%) of the best of CS's supermasks that keep no more than the thesis's share of the weights."""
    share = thesis.fact("supermask-cs-weights").value
    assert isinstance(share, float)
    averaged = over_seeds(p for r in records if r["config"]["method"]["name"] == "supermask" for p in points(r))
    if not averaged:
        return "no supermask is recorded"
    best = best_performing(p for p in averaged if 1 - p.sparsity <= share / 100)
    if best is None:
        return f"none of the recorded supermasks keeps {share:g} % of the weights or less"
    note = f"it keeps {1 - best.sparsity:.1%} of the weights"
    return _measured([100 * accuracy for accuracy in best.accuracies], best, (), note)


def _measured(values: list[float], best: Point, against: Sequence[Record], note: str) -> Measured:
    spread = stdev(values) if len(values) > 1 else None
    return Measured(mean(values), spread, len(values), best.runs, tuple(r["id"] for r in against), note)
