"""Chapter 4's claims: Tables 4.1 to 4.3, and what the text says of tickets and supermasks.

What is chosen from a curve, by the thesis's rules, has a verdict only when the whole curve is recorded. A setting that
prunes nothing, or ends at chance, is no point of a curve; the note beside the number says how many were left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from typing import Any

from lab.datasets import thesis
from lab.experiments.claims import Claim, Measure, Measured, Needs, Reasons, both, difference, stated
from lab.runs import Record, Run, declaration

from . import supermasks, tickets
from .selection import Point, best_performing, over_seeds, points, sparsest_matching, sparsest_within

METHODS = {"Louizos et al. (2018)": "l0", "AMC": "amc", "NetSlim": "netslim", "MP": "mp", "GMP": "gmp", "CS": "cs"}
MODELS = {"ResNet-20": "resnet20", "VGG-16": "vgg16"}
SEARCHES = {"IMP": "imp", "IMP-C": "imp-c", "CS": "cs"}
RULES = ("sparsest matching", "best performing")
STEP: dict[str, dict[str, Any]] = {
    "ResNet-20": {"tolerance": 2.0, "reason": "about half the distance between the sparsities that are tried"},
    "VGG-16": {"tolerance": 0.25, "reason": "half the distance between MP's sparsity and GMP's in the table"},
}
POINTS: dict[str, Any] = {"tolerance": 0.5, "reason": "about the spread over seeds"}
REMAINING: dict[str, dict[str, Any]] = {
    "ResNet-20": {"tolerance": 2.0, "reason": "half of what one round of IMP removes at 20 % of the weights"},
    "VGG-16": {"tolerance": 0.05, "reason": "half of what CS gains on IMP"},
}
TICKET: dict[str, dict[str, Any]] = {
    "test accuracy": POINTS,
    "round": {"tolerance": 1.0, "reason": "one round"},
}
IMAGENET = {"GMP": "gmp", "DNW": "dnw", "STR": "str", "CS": "cs"}
RETRAINED = {"IMP†": "imp", "CS†": "cs"}
NEAR = 0.5
"""Points of sparsity by which a network may be off a row of Table 4.3 and stand for it."""


def claims() -> list[Claim]:
    """Cells and orders of Tables 4.1 to 4.3, and statements of the text."""
    return [*_pruning(), *_tickets(), *_imagenet(), *_statements()]


def reasons() -> Reasons:
    """Why some numbers have no claim."""
    why: Reasons = {
        ("4.3", row, "Sparsity"): "the condition of the row's accuracy, which has a row of its own"
        for row in thesis.table("4.3")["row"]
    }
    for column in MODELS:
        for what in ("round", "weights remaining"):
            why["4.2", "Dense Network", f"{column} {what}"] = "true by definition: one round, every weight"
    why |= dict.fromkeys(
        ("hyper-lambda-exception", "hyper-beta-flat", "hyper-beta-advice", "imp-aggressive-rate", "supermask-ss",
         "vgg-only-cs-slim", "vgg-structure-first-blocks", "vgg-structure-wide", "vgg-structure-sparsity",
         "vgg-structure-accuracy"), "read from a figure that prints no number: there is none to hold a run against",
    )  # fmt: skip
    return why | {
        "l0-collapse": "of the gates' value for inference: masks are drawn here, as the thesis does for this reason",
        "supermask-cs-weights": "the condition of another statement: how accurate such masks are has a row of its own",
        "cs-time-overhead": "a time: benchmarks/relax.py measures it on this machine",
        "ss-lr-typical": "a remark on rates that were not kept",
    }


def _measured(values: Sequence[float], best: Point, against: Sequence[Record], note: str) -> Measured:
    return Measured(tuple(values), best.runs, against=tuple(r["id"] for r in against), note=note)


def curve(records: Sequence[Record], name: str) -> tuple[list[Point], str]:
    """A method's points, the means over seeds, and which of its settings are none, in a few words."""
    tried = over_seeds(p for r in records if r["config"]["method"]["name"] == name for p in points(r))
    faults = Counter(p.fault for p in tried if p.fault)
    return [p for p in tried if not p.fault], "".join(f"; {n} of {len(tried)}: {fault}" for fault, n in faults.items())


# -- Table 4.1 ---------------------------------------------------------------------------------------------------------


def _pruning() -> list[Claim]:
    listed = []
    for column, model in MODELS.items():
        for row, name in METHODS.items():
            experiment = _experiment(model, name)
            needs, measure = _curves(experiment, model, name), within(model, name)
            main = (
                "On ResNet-20 CS prunes this much within 2 points of accuracy"
                if (row, model) == ("CS", "resnet20")
                else ""
            )
            listed.append(Claim(experiment, measure, needs, "4.1", row, column, whole=True, main=main, **STEP[column]))
    for column, row, versus, main in (
        ("ResNet-20", "CS", "GMP", "CS prunes ResNet-20 further than gradual magnitude pruning"),
        ("ResNet-20", "CS", "MP", ""), ("ResNet-20", "GMP", "MP", ""),
        ("VGG-16", "CS", "NetSlim", "CS prunes VGG-16 further than the best of its rivals"),
    ):  # fmt: skip
        model, pair = MODELS[column], (METHODS[row], METHODS[versus])
        experiment, measure = _experiment(model, pair[0]), difference(within(model, pair[0]), within(model, pair[1]))
        needs = _curves(experiment, model, *pair)
        listed.append(Claim(experiment, measure, needs, "4.1", row, column, versus=versus, whole=True, main=main))
    fewer = Claim(
        "pruning", fewer_kept, _curves("pruning", "resnet20", "cs", "gmp"), fact="cs-vs-gmp-resnet20", whole=True,
        tolerance=14.0, reason="what two points of sparsity are to the 14 % that GMP keeps",
        main="On ResNet-20 CS keeps this much fewer weights than GMP",
    )  # fmt: skip
    return [*listed, fewer]


def _experiment(model: str, name: str) -> str:
    return "pruning" if model == "resnet20" and name in ("mp", "gmp", "cs") else "methods"


def _curves(experiment: str, model: str, *names: str) -> Needs:
    """The first seed's whole curve of each method, and the dense network."""

    def needs(profile: str) -> list[Run]:
        runs = [r for r in declaration(experiment).runs(profile, (0,)) if r.config["model"] == model]
        return [r for r in runs if r.config["method"]["name"] in ("dense", *names)]

    return needs


def within(model: str, name: str) -> Measure:
    """Sparsity (%) of the sparsest point within 2 points of the dense network's accuracy, at that profile."""

    def measure(records: Sequence[Record]) -> Measured | str:
        allowed = stated("table-4-1-tolerance")
        same = [r for r in records if r["config"]["model"] == model]
        dense = [r for r in same if r["config"]["method"]["name"] == "dense"]
        if not dense:
            return "the dense network that it is compared with is not recorded"
        averaged, faults = curve(same, name)
        if not averaged:
            return (
                f"no run of {name.upper()} is a point of its curve{faults}"
                if faults
                else f"no run of {name} is recorded"
            )
        base = mean(r["figures"]["accuracy"] for r in dense)
        best = sparsest_within(averaged, base, allowed / 100)
        if best is None:
            few = f"none of the {len(averaged)} recorded points of {name}"
            return f"{few} is within {allowed:g} points of dense accuracy{faults}"
        note = (
            f"accuracy {best.accuracy:.2%}, dense {base:.2%}; the sparsest of {len(averaged)} recorded points{faults}"
        )
        return _measured([100 * p.sparsity for p in best.seeds], best, dense, note)

    return measure


def fewer_kept(records: Sequence[Record]) -> Measured | str:
    """How many percent fewer weights CS keeps than GMP does on average, a value a seed of CS."""
    cs, gmp = within("resnet20", "cs")(records), within("resnet20", "gmp")(records)
    if isinstance(cs, str) or isinstance(gmp, str):
        return cs if isinstance(cs, str) else str(gmp)
    fewer = tuple(100 * (1 - (100 - sparsity) / (100 - gmp.value)) for sparsity in cs.values)
    return Measured(fewer, cs.runs, against=gmp.runs, note=f"CS {cs.value:.1f} %, GMP {gmp.value:.1f} %")


# -- Table 4.2 ---------------------------------------------------------------------------------------------------------


def _tickets() -> list[Claim]:
    listed = []
    for column, model in MODELS.items():
        for row, name in SEARCHES.items():
            for rule in RULES:
                for what, judged in {"weights remaining": REMAINING[column], **TICKET}.items():
                    measure, cell = chosen(model, name, rule, what), (f"{row} ({rule})", f"{column} {what}")
                    listed.append(Claim("tickets", measure, _searches(model, name), "4.2", *cell, whole=True, **judged))
        cell = "Dense Network", f"{column} test accuracy"
        listed.append(Claim("tickets", dense(model), _searches(model), "4.2", *cell, **POINTS))
        for other in ("IMP", "IMP-C"):
            cs, rival = (
                chosen(model, SEARCHES[row], "sparsest matching", "weights remaining") for row in ("CS", other)
            )
            cell, versus = ("CS (sparsest matching)", f"{column} weights remaining"), f"{other} (sparsest matching)"
            needs = _searches(model, "cs", SEARCHES[other])
            main = f"On {column} CS finds tickets that keep fewer weights than IMP's" if other == "IMP" else ""
            listed.append(
                Claim("tickets", difference(cs, rival), needs, "4.2", *cell, versus=versus, whole=True, main=main)
            )
    return listed


def _searches(model: str, *names: str) -> Needs:
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
        return Measured(tuple(100 * r["figures"]["accuracy"] for r in same), tuple(r["id"] for r in same))

    return measure


def chosen(model: str, name: str, rule: str, what: str) -> Measure:
    """Round, accuracy (%) or weights remaining (%) of the ticket that a rule of 4.3.4 picks, by the means over seeds.

    It matches if it is no worse than the control, the dense network re-trained from its early iterate for as long.
    """
    values: dict[str, Callable[[Point], float]] = {
        "weights remaining": lambda p: 100 * (1 - p.sparsity),
        "test accuracy": lambda p: 100 * p.accuracy,
        "round": lambda p: float(p.round),
    }

    def measure(records: Sequence[Record]) -> Measured | str:
        references = _searched(records, model, "control")
        averaged, faults = curve(_searched(records, model, name), name)
        if not references:
            return "the control, the dense network re-trained as a ticket is, is not recorded"
        if not averaged:
            return f"no search by {name} is recorded{faults}"
        base = mean(r["figures"]["accuracy"] for r in references)
        best = sparsest_matching(averaged, base) if rule == "sparsest matching" else best_performing(averaged)
        if best is None:
            return f"none of the {len(averaged)} recorded tickets of {name} is as accurate as the control{faults}"
        kept = f"{1 - best.sparsity:.1%} of the weights"
        note = f"round {best.round}, accuracy {best.accuracy:.2%}, {kept}; control {base:.2%}{faults}"
        return _measured([values[what](p) for p in best.seeds], best, references, note)

    return measure


# -- Table 4.3 ---------------------------------------------------------------------------------------------------------


def _imagenet() -> list[Claim]:
    near: dict[str, Any] = {"tolerance": 0.5, "reason": f"what {NEAR:g} points of sparsity more or less may do"}
    listed = []
    for row in thesis.table("4.3")["row"].unique():
        experiment, needs, measure = _network(row)
        listed.append(Claim(experiment, measure, needs, "4.3", row, "Top-1 accuracy", **near))
    experiment, needs, measure = _network("CS (98.0%)")
    _, others, other = _network("GMP (98.0%)")
    return [
        *listed,
        Claim(
            experiment, difference(measure, other), both(needs, others), "4.3", "CS (98.0%)", "Top-1 accuracy",
            versus="GMP (98.0%)", main="At 98 % zeros CS leaves a ResNet-50 on ImageNet more accurate than GMP",
        ),
    ]  # fmt: skip


def _network(row: str) -> tuple[str, Needs, Measure]:
    """Experiment, runs and measure of a row of Table 4.3, such as ``"CS† (95.3%)"``."""
    name, experiment = row.split()[0], "resnet50"
    method = IMAGENET.get(name) or RETRAINED[name]
    if name in RETRAINED:
        experiment = "resnet50_tickets"

    def needs(profile: str) -> list[Run]:
        return [r for r in declaration(experiment).runs(profile) if r.config["method"]["name"] == method]

    return experiment, needs, partial(at_sparsity, method, thesis.value("4.3", row, "Sparsity"))


def at_sparsity(name: str, sparsity: float, records: Sequence[Record]) -> Measured | str:
    """Accuracy (%) of the method's networks whose sparsity (%) is nearest to this one, within :data:`NEAR` points."""
    averaged, faults = curve(records, name)
    nearest = min(averaged, key=lambda p: abs(100 * p.sparsity - sparsity), default=None)
    if nearest is None or abs(100 * nearest.sparsity - sparsity) > NEAR:
        return f"no recorded network of {name} is within {NEAR:g} points of {sparsity:g} % zeros{faults}"
    note = f"at {nearest.sparsity:.1%} zeros"
    return _measured([100 * accuracy for accuracy in nearest.accuracies], nearest, (), note)


# -- statements --------------------------------------------------------------------------------------------------------


def _statements() -> list[Claim]:
    above = difference(chosen("resnet20", "cs", "best performing", "test accuracy"), dense("resnet20", "control"))
    return [
        Claim(
            "tickets", above, _searches("resnet20", "cs"), fact="cs-above-dense", whole=True,
            main="CS's best tickets beat the dense network", **POINTS,
        ),
        Claim(
            "supermasks", sparse_supermask, partial(_supermasks, "supermask"), fact="supermask-cs-accuracy", whole=True,
            tolerance=3.0, reason="the figure it is read from is no finer",
            main="Masks alone, on random weights, reach this accuracy",
        ),
    ]  # fmt: skip


def _supermasks(name: str, profile: str) -> list[Run]:
    return [r for r in supermasks.runs(profile) if r.config["method"]["name"] == name]


def sparse_supermask(records: Sequence[Record]) -> Measured | str:
    """Accuracy (%) of the best of CS's supermasks that keep no more than the thesis's share of the weights."""
    share = stated("supermask-cs-weights")
    averaged, faults = curve(records, "supermask")
    if not averaged:
        return f"no supermask is recorded{faults}"
    best = best_performing(p for p in averaged if 1 - p.sparsity <= share / 100)
    if best is None:
        return f"none of the recorded supermasks keeps {share:g} % of the weights or less"
    note = f"it keeps {1 - best.sparsity:.1%} of the weights"
    return _measured([100 * accuracy for accuracy in best.accuracies], best, (), note)
