"""Optimizers (``lab.experiments.optimizers.tables``): Tables 6.1 and 6.2 but for the GAN; what Section 6.4 reads from
the grids (``grids``): which rate suits which epsilon, and how many trials a search takes; and the toy problem of
Section 6.5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from lab.baselines.optimizers import TABLE
from lab.datasets import thesis
from lab.experiments.claims import (
    Claim,
    Measure,
    Measured,
    Reasons,
    both,
    counted,
    difference,
    error,
    no_run,
    over_seeds,
    stated,
)
from lab.figures.grid.recording import table as grid_table
from lab.figures.nonconvergence.simulator import THESIS
from lab.runs import Record, Run

from . import grids, samplers, tables

COLUMNS = {
    "cifar10": ("6.1", "CIFAR-10 WRN 28-10 test error"),
    "cifar100": ("6.1", "CIFAR-100 WRN 28-10 test error"),
    "imagenet": ("6.1", "ImageNet ResNet-50 validation error"),
    "text": ("6.2", "3xLSTM(300) test BPC"),
    "wide text": ("6.2", "3xLSTM(1000) test BPC"),
}
"""The task of each column. The GAN's column is claimed beside its experiment."""

COMPARED = {
    ("cifar10", "Adam", "SGD"): "Tuned in ε as well, Adam beats SGD on CIFAR-10",
    ("cifar10", "AvaGrad", "SGD"): "So does AvaGrad",
    ("cifar100", "Adam", "SGD"): "",
    ("cifar100", "AvaGrad", "SGD"): "AvaGrad beats SGD on CIFAR-100",
    ("cifar10", "AvaGrad", "AdamW"): "",
    ("imagenet", "Adam", "SGD"): "Adam beats SGD on ImageNet",
    ("imagenet", "AvaGrad", "SGD"): "",
    ("text", "AvaGrad", "Adam"): "AvaGrad beats Adam on text",
    ("text", "Adam", "SGD"): "Adam beats SGD on text",
    ("text", "Adam", "AdaBound"): "",
    ("wide text", "AvaGrad", "Adam"): "",
    ("wide text", "AvaGradW", "Adam"): "",
    ("wide text", "Adam", "RAdam"): "",
}
"""(task, better, worse) that 6.4.1 compares, of its many "better than SGD" those that carry its point; and the claim in
plain words where it is a main one."""


def claims() -> list[Claim]:
    """Every cell of five columns, the comparisons of the text, the facts of the grids, and the toy problem's answer."""
    listed = []
    for task, (table, column) in COLUMNS.items():
        for name in TABLE:
            if (task, name) != ("imagenet", "AdaShift"):
                needs, (near, why) = partial(_needs, task, name), noise(table, name, column)
                listed.append(
                    Claim("optimizers", score(task, name), needs, table, name, column, tolerance=near, reason=why)
                )
    for (task, name, other), main in COMPARED.items():
        table, column = COLUMNS[task]
        both_needs = both(partial(_needs, task, name), partial(_needs, task, other))
        measure = difference(score(task, name), score(task, other))
        listed.append(Claim("optimizers", measure, both_needs, table, name, column, versus=other, main=main))
    return listed + _facts()


def noise(table: str, row: str, column: str) -> tuple[float, str]:
    """Two standard errors of the thesis's own mean, half of its last digit at least; where it prints no spread, 0.1."""
    cells = thesis.table(table).set_index(["row", "column"])
    cell = cells.loc[(row, column)]
    if np.isnan(cell["spread"]):
        return 0.1, "the thesis prints no spread; SGD is 0.5 away"
    last_digit = 10.0 ** -len(cell["printed"].partition(".")[2])
    near = max(2 * cell["spread"] / cell["n"] ** 0.5, last_digit / 2)
    return near, "two standard errors of the thesis's own three runs"


def reasons() -> Reasons:
    """Why the other statements of Sections 6.3 and 6.4 have no claim."""
    cells = "c10-sgd", "c10-better", "c100-better", "c100-sgd", "imagenet-sgd", "imagenet-better", "bpc"
    why: Reasons = {f"ch6-{cell}": "cells of Tables 6.1 and 6.2, which have rows of their own here" for cell in cells}
    return why | {
        "ch6-imagenet-count": "follows from cells of Table 6.1, which have rows of their own here",
        "tuning-below": "a target, not a result: how many trials it takes has two rows of its own",
        "ch6-adashift-batch": "the memory of the thesis's own GPUs: no such run is declared",
    }


# -- Tables 6.1 and 6.2 ------------------------------------------------------------------------------------------------


def _needs(task: str, name: str, profile: str) -> list[Run]:
    return tables.column(profile, task, name)


def score(task: str, name: str) -> Measure:
    """Test error in percent, or bits per character, of one optimizer at the setting that its search found."""
    needs = partial(_needs, task, name)

    def note(record: Record) -> str:
        return f"{name}: {record['config']['model']} on {record['config']['data']}, {setting(record)}"

    if tables.PARTS[task] == "text":
        return over_seeds(lambda record: record["figures"]["bpc"], needs, note)
    return error(needs, note=note)


def setting(record: Record) -> str:
    """The setting that the search chose; whether it is the last value on its side of the grid, so that a better one may
    lie beyond."""
    alpha, eps = tables.settings(record)
    tried = tables.search_of(Run.of(record)).config["method"]
    cells = tried.get("trials") or [(a, e) for e in tried["epsilons"] for a in tried["alphas"]]
    rate = f"α = {alpha:g}{_edge(alpha, [a for a, e in cells if e == eps])}"
    return rate if eps is None else f"{rate}, ε = {eps:g}{_edge(eps, [e for _, e in cells])}"


def _edge(chosen: float, tried: Sequence[float]) -> str:
    return " (the lowest tried)" if chosen == min(tried) else " (the highest tried)" if chosen == max(tried) else ""


# -- what the text reads from grids and searches -----------------------------------------------------------------------


def _facts() -> list[Claim]:
    half, next_value = "half of the thesis's number", "less than half of the way to the next value tried"
    avagrad, adam = partial(_grids, "images", ("AvaGrad",)), partial(_grids, "images", ("Adam",))
    on_text = partial(_grids, "text", ("Adam", "AvaGrad"))
    costs = partial(cost, "AvaGrad", "CGLD"), partial(cost, "Adam", "GLD")
    return [
        Claim("grids", costs[0], avagrad, fact="tuning-avagrad", tolerance=6.0, reason=half),
        Claim("grids", costs[1], adam, fact="tuning-adam", tolerance=30.0, reason=half),
        Claim(
            "grids", difference(*costs), both(avagrad, adam), fact="tuning-avagrad", versus="tuning-adam",
            main="AvaGrad, tuned a coordinate at a time, takes fewer trials than Adam",
        ),
        Claim(
            "grids", same_rate, avagrad, fact="separable-best-alpha", tolerance=0.2, reason=next_value,
            main="AvaGrad's best learning rate is the same for every ε",
        ),
        Claim("grids", best_epsilon, on_text, fact="ch6-lm-best-epsilon", tolerance=1.5e-8, reason=next_value),
        Claim("optimizers", sgd_rate, _sgd_search, fact="ch6-sgd-lr", tolerance=0.02, reason=next_value),
        Claim(
            "grids", counted(lambda: THESIS.stationary, "from (6.13): 998 / 1998"), no_run, fact="toy-stationary",
            tolerance=0.01, reason="the thesis says about",
        ),
    ]  # fmt: skip


def _grids(part: str, names: Sequence[str], profile: str) -> list[Run]:
    return [run for run in grids.runs(profile, part=part) if run.config["method"]["name"] in names]


def _recorded(part: str, records: Sequence[Record], *names: str) -> list[Record]:
    ids = {run.id for run in _grids(part, names, records[0]["profile"])} if records else set()
    return [record for record in records if record["id"] in ids]


def _grid(records: Sequence[Record]) -> str:
    config, cells = records[0]["config"], records[0]["figures"]["cells"]
    return f"{cells:.0f} settings of {config['model']}, {config['training']['epochs']} epochs of {config['data']}"


def cost(name: str, sampler: str, records: Sequence[Record]) -> Measured | str:
    """Median trials, over 1,000 searches of a grid, to come within Figure 6.6's suboptimality; a value a grid."""
    recorded, within = _recorded("images", records, name), stated("tuning-below")
    if not recorded:
        return f"no grid of {name} is recorded"
    lookups = [samplers.Lookup.of([grid], name) for grid in recorded]
    costs = [samplers.cost_of(lookup, sampler, within / 100) for lookup in lookups]
    medians = [samplers.median(cost.trials).median for cost in costs]
    if not np.isfinite(medians).all():
        return f"half of the searches end before they come within {within:g} points"
    reached = f"{min(cost.reached for cost in costs):.0%} of the searches come within {within:g} points"
    noise = f"a cell's noise is {100 * max(lookup.noise for lookup in lookups):.1f} points"
    note = f"{_grid(recorded)}; {sampler}, {reached}; {noise}"
    return Measured(tuple(medians), tuple(record["id"] for record in recorded), note=note)


def same_rate(records: Sequence[Record]) -> Measured | str:
    """The alpha that is best for most epsilons of AvaGrad's grid; a value a grid."""
    recorded = _recorded("images", records, "AvaGrad")
    if not recorded:
        return "no grid of AvaGrad is recorded"
    favourites, notes = [], []
    for record in recorded:
        grid = grid_table([record], "AvaGrad")
        rows = np.isfinite(grid.mean).any(1)
        best = grid.alphas[np.nanargmin(grid.mean[rows], 1)]
        rates, times = np.unique(best, return_counts=True)
        favourites.append(float(rates[times.argmax()]))
        others = f"the others' best lie from {best.min():g} to {best.max():g}"
        notes.append(f"best for {times.max()} of {rows.sum()} epsilons; {others}")
    return Measured(tuple(favourites), tuple(r["id"] for r in recorded), note="; ".join([_grid(recorded), *notes]))


def best_epsilon(records: Sequence[Record]) -> Measured | str:
    """The larger of the epsilons that Adam and AvaGrad were best with on text."""
    recorded = _recorded("text", records, "Adam", "AvaGrad")
    chosen = {record["config"]["method"]["name"]: float(tables.settings(record)[1] or 0) for record in recorded}
    if len(chosen) < 2:
        return "the grids on text are not recorded for both Adam and AvaGrad"
    note = f"{_grid(recorded)}; " + ", ".join(f"{name} {eps:g}" for name, eps in chosen.items())
    return Measured((max(chosen.values()),), tuple(record["id"] for record in recorded), note=note)


def _sgd_search(profile: str) -> list[Run]:
    return [] if profile == "quick" else [tables.search(profile, "images", "SGD")]


def sgd_rate(records: Sequence[Record]) -> Measured | str:
    """SGD's best rate."""
    recorded = [record for record in records if record["id"] in {run.id for run in _sgd_search(record["profile"])}][:1]
    if not recorded:
        return "SGD's search is not recorded"
    config, rate = recorded[0]["config"], tables.settings(recorded[0])[0]
    return Measured((rate,), (recorded[0]["id"],), note=f"{config['model']} on {config['data']}")
