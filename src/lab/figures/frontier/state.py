"""From recorded runs, and the thesis's tables, to what the frontier figure draws: accuracy against sparsity."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from statistics import mean, stdev
from typing import Any, NamedTuple

from lab import runs
from lab.datasets import thesis
from lab.figures import provenance
from lab.runs import Record
from lab.utils.errors import LabError


class Shown(NamedTuple):
    """How a method is called and coloured: its name, its colour's role in the palette, its row in the thesis's
    tables."""

    name: str
    colour: str
    row: str = ""


METHODS = {
    "dense": Shown("dense", "dense", "Dense Network"),
    "control": Shown("dense, re-trained", "dense"),
    "cs": Shown("CS", "cs", "CS"),
    "mp": Shown("MP", "mp", "MP"),
    "gmp": Shown("GMP", "gmp", "GMP"),
    "imp": Shown("IMP", "avagrad", "IMP"),
    "imp-c": Shown("IMP-C", "sharing", "IMP-C"),
    "ss": Shown("SS", "smol"),
    "iss": Shown("ISS", "accent"),
    "seq-cs": Shown("Sequential CS", "smol"),
    "l0": Shown("ℓ₀", "accent", "Louizos et al. (2018)"),
    "amc": Shown("AMC", "sharing", "AMC"),
    "netslim": Shown("NetSlim", "smol", "NetSlim"),
    "str": Shown("STR", "sharing", "STR"),
    "dnw": Shown("DNW", "smol", "DNW"),
    "cs-filters": Shown("CS, filters", "avagrad"),
}
"""By a method's name in a configuration. There are more methods than colours that can be told apart; those of one table
differ, and the figure names every curve."""

NETWORKS = {
    "resnet20": "ResNet-20",
    "vgg16": "VGG-16",
    "conv6": "Conv-6",
    "resnet50": "ResNet-50",
    "resnet8": "ResNet-8",
    "vgg16-quarter": "VGG-16, quarter width",
    "conv6-quarter": "Conv-6, quarter width",
    "resnet50-small-images": "ResNet-50, small images",
}
ROUND = re.compile(r"accuracy\.round(\d+)")
STATED = ("s_init", "target", "rate", "lambda")
"""Options that name a point even where a method has only one."""


def frontier_state(records: Iterable[Record], *, title: str, with_thesis: bool = True) -> dict[str, Any]:
    """The state of :class:`lab.figures.frontier.widget.FrontierWidget`.

    Runs that differ in nothing but their seed are one point, with its mean and standard deviation (n − 1). A run that
    searched in rounds (figures ``accuracy.round1``, ``sparsity.round1``, ...) gives a point a round. A run that is
    given twice counts once, and one that did not finish is left out.

    Args:
        records: finished runs whose figures hold ``accuracy`` and ``sparsity``, shares from 0 to 1; any experiment,
            profile and network.
        title: what the figure is called.
        with_thesis: draw the points of Tables 4.1 (no accuracy printed), 4.2 and 4.3 too.

    Raises:
        LabError: nothing to draw, or a run without the two figures.
    """
    unique = {record["id"]: record for record in records if record["state"] == "finished"}
    if not unique:
        raise LabError("the frontier needs at least one finished run: record one with `python -m lab record`")
    networks: dict[str, list[dict[str, Any]]] = {}
    for model, points in _measured(list(unique.values())):
        networks.setdefault(model, []).extend(points)
    if with_thesis:
        for model, point in _printed():
            networks.setdefault(model, []).append(point)
    used = {point["method"] for points in networks.values() for point in points}
    known = [key for key in METHODS if key in used]
    spare = sorted({shown.colour for shown in METHODS.values()})
    methods = [{"key": key, "name": METHODS[key].name, "colour": METHODS[key].colour} for key in known]
    for i, key in enumerate(sorted(used - set(known))):
        methods.append({"key": key, "name": key, "colour": spare[i % len(spare)]})
    order = [m for m in NETWORKS if m in networks] + sorted(set(networks) - set(NETWORKS))
    protocols = {point["protocol"] for points in networks.values() for point in points}
    allowed = thesis.fact("table-4-1-tolerance").value
    assert isinstance(allowed, float)
    return {
        "title": title,
        "methods": methods,
        "protocols": [p for p in ("quick", "short", "paper", "thesis") if p in protocols],
        "strip": f"Thesis, Table 4.1, no accuracy printed: sparsest within {allowed:g} points of dense",
        "networks": [
            {"name": NETWORKS.get(model, model), "points": sorted(networks[model], key=lambda p: p["sparsity"])}
            for model in order
        ],
    }


def repeat_command(record: Record) -> str | None:
    """The command that trains the run of ``record`` once more, beside what is recorded; None if no declaration asks for
    it.

    The results go to a folder of their own, since a run that is recorded already is never trained again in its place.
    """
    if record["id"] not in _declared(record["experiment"], record["profile"]):
        return None
    return provenance.repeat([record])


@cache
def _declared(experiment: str, profile: str) -> frozenset[str]:
    try:
        return frozenset(run.id for run in runs.declaration(experiment).runs(profile))
    except LabError:  # an experiment that this version of the book does not have, or not at that profile
        return frozenset()


def _measured(records: list[Record]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """For each configuration its network and points: one, or one a round."""
    alike: dict[str, list[Record]] = {}
    for record in records:
        for figure in ("accuracy", "sparsity"):
            if figure not in record["figures"]:
                raise LabError(
                    f"run {record['id']} of {record['experiment']} has no figure {figure!r}: the frontier cannot "
                    "place it"
                )
        key = json.dumps([record["experiment"], record["profile"], record["config"]], sort_keys=True)
        alike.setdefault(key, []).append(record)
    for same in alike.values():
        same.sort(key=lambda record: record["seed"])
        first = same[0]
        model = str(first["config"].get("model", "network"))
        rounds = sorted(int(match[1]) for name in first["figures"] if (match := ROUND.fullmatch(name)))
        yield model, [_point(same, records, n) for n in rounds] if rounds else [_point(same, records, None)]


def _point(same: list[Record], every: list[Record], searched: int | None) -> dict[str, Any]:
    """What runs that differ in their seed gave, all in all or in one round."""
    first = same[0]
    method = first["config"]["method"]
    where = "" if searched is None else f".round{searched}"
    same = [r for r in same if f"accuracy{where}" in r["figures"] and f"sparsity{where}" in r["figures"]]
    accuracies = [r["figures"][f"accuracy{where}"] for r in same]
    sparsities = [r["figures"][f"sparsity{where}"] for r in same]
    setting = _setting(first, every)
    series = [first["experiment"], method["name"], first["profile"], first["config"]["data"]]
    if searched is not None:
        series.append(setting)  # the rounds of one search are a curve
        setting = ", ".join(filter(None, (setting, f"round {searched}")))
    several = len(same) > 1
    return {
        "method": method["name"],
        "protocol": first["profile"],
        "series": " ".join(series),
        "setting": setting,
        "accuracy": mean(accuracies),
        "sparsity": mean(sparsities),
        "accuracy_spread": stdev(accuracies) if several else None,
        "sparsity_spread": stdev(sparsities) if several else None,
        "runs": [_run(r, a, s) for r, a, s in zip(same, accuracies, sparsities, strict=True)],
    }


def _setting(record: Record, every: list[Record]) -> str:
    """The options that tell this point from the method's others, such as ``s_init = -0.05``."""
    method = record["config"]["method"]
    others = [r["config"]["method"] for r in every if _alike(r) == _alike(record)]
    differ = [k for k in method if k != "name" and any(o.get(k) != method[k] for o in others)]
    stated = differ or [k for k in STATED if k in method][:1]
    return ", ".join(f"{key} = {_plain(method[key])}" for key in stated)


def _alike(record: Record) -> tuple[Any, ...]:
    """What runs share whose options are worth comparing."""
    config = record["config"]
    return record["experiment"], record["profile"], config.get("model"), config["data"], config["method"]["name"]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _run(record: Record, accuracy: float, sparsity: float) -> dict[str, Any]:
    config, origin = record["config"], record["provenance"]
    return {
        "id": record["id"],
        "experiment": record["experiment"],
        "seed": record["seed"],
        "data": record["data"]["name"],
        "accuracy": accuracy,
        "sparsity": sparsity,
        "configuration": {part: _settings(config[part]) for part in ("method", "training") if part in config},
        "device": f"{origin['device']}, {origin['precision']}",
        "commit": origin["commit"] or "",
        "changed": bool(origin["dirty"]),
        "seconds": origin["seconds"],
        "recorded": origin["recorded"],
        "command": repeat_command(record),
    }


def _settings(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_plain(value)}" for key, value in options.items())


def _printed() -> Iterable[tuple[str, dict[str, Any]]]:
    """The points that the thesis prints, each with its network."""
    keys = {shown.row: key for key, shown in METHODS.items() if shown.row}
    models = {name: model for model, name in NETWORKS.items()}

    def point(row: str, table: str, sparsity: float, accuracy: float | None, setting: str) -> dict[str, Any]:
        name, ticket = re.sub(r" \(.*\)$", "", row) if row not in keys else row, "†" in row
        method = keys[name.removesuffix("†")]
        return {
            "method": method,
            "protocol": "thesis",
            "series": f"thesis {table} {name}",
            "setting": ", ".join(filter(None, (setting, "ticket search" if ticket else ""))),
            "accuracy": None if accuracy is None else accuracy / 100,
            "sparsity": round(sparsity / 100, 6),
            "accuracy_spread": None,
            "sparsity_spread": None,
            "printed": {"row": row, "source": _source(table)},
        }

    for cell in thesis.table("4.1").to_dict("records"):
        yield models[cell["column"]], point(cell["row"], "4.1", cell["value"], None, "")
    table = thesis.pivot("4.2")
    for row in table.index:
        for model, name in ((m, n) for m, n in NETWORKS.items() if f"{n} round" in table.columns):
            rounds, accuracy, kept = (
                float(table.loc[row, f"{name} {what}"]) for what in ("round", "test accuracy", "weights remaining")
            )
            rule = re.search(r"\((.*)\)$", row)
            setting = f"{rule[1]}, round {rounds:g}" if rule else ""
            yield model, point(row, "4.2", 100 - kept, accuracy, setting)
    table = thesis.pivot("4.3")
    for row in table.index:
        sparsity, accuracy = (float(table.loc[row, what]) for what in ("Sparsity", "Top-1 accuracy"))
        yield "resnet50", point(row, "4.3", sparsity, accuracy, "ImageNet")


def _source(table: str) -> str:
    return str(thesis.table(table)["where"].iloc[0])
