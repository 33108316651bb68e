"""Optimizers (``lab.experiments.optimizers.tables``): Tables 6.1 and 6.2 but for the GAN; what Section 6.4 reads from
the grids (``grids``): which rate suits which epsilon, and how many trials a search takes; and the toy problem of
Section 6.5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from lab.baselines.optimizers import TABLE
from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured, average, less
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

NEAR = {
    "cifar10": (0.3, "twice what seeds move a Wide ResNet's error by on CIFAR-10"),
    "cifar100": (0.6, "twice what seeds move a Wide ResNet's error by on CIFAR-100"),
    "imagenet": (0.3, "what a run on one GPU may differ by"),
    "text": (0.01, "about the distance between neighbouring rows of the table"),
    "wide text": (0.01, "about the distance between neighbouring rows of the table"),
}
ORDERS = [
    ("cifar10", "Adam", "SGD"), ("cifar10", "AvaGrad", "SGD"), ("cifar100", "Adam", "SGD"),
    ("cifar100", "AvaGrad", "SGD"), ("cifar10", "AvaGrad", "AdamW"), ("imagenet", "Adam", "SGD"),
    ("imagenet", "AvaGrad", "SGD"),
    ("text", "AvaGrad", "Adam"), ("wide text", "AvaGrad", "Adam"), ("wide text", "AvaGradW", "Adam"),
    ("text", "Adam", "SGD"), ("text", "Adam", "AdaBound"), ("wide text", "Adam", "RAdam"),
]  # fmt: skip
"""(task, better, worse): the comparisons that 6.4.1 draws; of its many "better than SGD" the ones that carry its
point."""

Measure = Callable[[Sequence[Record]], Measured | str]


def claims() -> list[Claim]:
    """Every cell of five columns, the comparisons of the text, the facts of the grids, and the toy problem's answer."""
    cells = []
    for task, (number, column) in COLUMNS.items():
        by, why = NEAR[task]
        for name in TABLE:
            if (task, name) != ("imagenet", "AdaShift"):
                needs = partial(_needs, task, name)
                cells.append(
                    Claim("optimizers", score(task, name), needs, number, name, column, tolerance=by, reason=why)
                )
    for task, name, other in ORDERS:
        number, column = COLUMNS[task]
        measure, needs = partial(margin, task, name, other), partial(_needs, task, name, other)
        cells.append(Claim("optimizers", measure, needs, number, name, column, versus=other))
    return cells + _facts()


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why the other statements of Sections 6.3 and 6.4 have no claim."""
    cells = "c10-sgd", "c10-better", "c100-better", "c100-sgd", "imagenet-sgd", "imagenet-better", "bpc"
    why: dict[tuple[str, str, str] | str, str] = {
        f"ch6-{cell}": "cells of Tables 6.1 and 6.2, which have rows of their own here" for cell in cells
    }
    return why | {
        "ch6-imagenet-count": "follows from cells of Table 6.1, which have rows of their own here",
        "tuning-below": "a target, not a result: how many trials it takes has two rows of its own",
        "ch6-adashift-batch": "the memory of the thesis's own GPUs: no such run is declared",
    }


# -- Tables 6.1 and 6.2 ------------------------------------------------------------------------------------------------


def _needs(task: str, *names_and_profile: str) -> list[Run]:
    *names, profile = names_and_profile
    return [run for name in names for run in tables.column(profile, task, name)]


def score(task: str, name: str) -> Measure:
    """Test error in percent, or bits per character, of one optimizer at the setting that its search found."""
    text, wanted = tables.PARTS[task] == "text", partial(_needs, task, name)
    mean = average("bpc", wanted) if text else average("accuracy", wanted, 100)

    def measure(records: Sequence[Record]) -> Measured | str:
        measured = mean(records)
        if isinstance(measured, str):
            return measured
        first = next(record for record in records if record["id"] == measured.runs[0])
        note = f"{first['config']['model']} on {first['config']['data']}, {setting(first)}"
        return replace(measured, value=measured.value if text else 100 - measured.value, note=note)

    return measure


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


def margin(task: str, name: str, other: str, records: Sequence[Record]) -> Measured | str:
    """How far ``name`` is above ``other``: below 0, it is better."""
    a, b = score(task, name)(records), score(task, other)(records)
    if isinstance(a, str) or isinstance(b, str):
        return a if isinstance(a, str) else str(b)
    return less(a, b, f"{name} {a.value:.4g}, {other} {b.value:.4g}; their settings stand in their own rows")


# -- what the text reads from grids and searches -----------------------------------------------------------------------


def _facts() -> list[Claim]:
    by_half = "half of the thesis's number: another grid has another number"
    halfway, next_value = "half of the way to the next rate below", "the next value of the thesis's grid"
    avagrad, adam = partial(_grids, "images", "AvaGrad"), partial(_grids, "images", "Adam")
    on_text = partial(_grids, "text", "Adam", "AvaGrad")
    return [
        Claim("grids", partial(cost, "AvaGrad", "CGLD"), avagrad, fact="tuning-avagrad", tolerance=6.5, reason=by_half),
        Claim("grids", partial(cost, "Adam", "GLD"), adam, fact="tuning-adam", tolerance=37.0, reason=by_half),
        Claim("grids", same_rate, avagrad, fact="separable-best-alpha", tolerance=0.5, reason=halfway),
        Claim("grids", best_epsilon, on_text, fact="ch6-lm-best-epsilon", tolerance=5e-8, reason=next_value),
        Claim("optimizers", sgd_rate, _sgd_search, fact="ch6-sgd-lr", tolerance=0.05, reason=next_value),
        Claim("grids", _stationary, no_run, fact="toy-stationary", tolerance=0.01, reason="the thesis says about"),
    ]


def no_run(profile: str) -> list[Run]:
    """What is counted from the problem itself needs no run."""
    return []


def _grids(part: str, *names_and_profile: str) -> list[Run]:
    *names, profile = names_and_profile
    return [run for run in grids.runs(profile, part=part) if run.config["method"]["name"] in names]


def _recorded(part: str, records: Sequence[Record], *names: str) -> list[Record]:
    ids = {run.id for run in _grids(part, *names, records[0]["profile"])} if records else set()
    return [record for record in records if record["id"] in ids]


def _measured(value: float, records: Sequence[Record], note: str) -> Measured:
    return Measured(value, None, len(records), tuple(record["id"] for record in records), note=note)


def _grid(records: Sequence[Record]) -> str:
    config, cells = records[0]["config"], records[0]["figures"]["cells"]
    return f"{cells:.0f} settings of {config['model']}, {config['training']['epochs']} epochs of {config['data']}"


def cost(name: str, sampler: str, records: Sequence[Record]) -> Measured | str:
    """Median trials, over 1,000 searches of the recorded grid, to come within the suboptimality of Figure 6.6."""
    recorded, within = _recorded("images", records, name), float(thesis.fact("tuning-below").value)
    if not recorded:
        return f"no grid of {name} is recorded"
    lookup = samplers.Lookup.of(recorded, name)
    searches = samplers.cost_of(lookup, sampler, within / 100)
    median = samplers.median(searches.trials)
    if not np.isfinite(median.median):
        return f"half of the searches end before they come within {within:g} points"
    interval = (
        f"the median lies in [{median.low:g}, {median.high:g}], {searches.reached:.0%} of {median.n:,} come there"
    )
    noise = f"a cell's noise is {100 * lookup.noise:.1f} points"
    return _measured(median.median, recorded, f"{_grid(recorded)}; {interval}; {sampler}; {noise}")


def same_rate(records: Sequence[Record]) -> Measured | str:
    """The alpha that is best for most epsilons of AvaGrad's grid."""
    recorded = _recorded("images", records, "AvaGrad")
    if not recorded:
        return "no grid of AvaGrad is recorded"
    grid = grid_table(recorded, "AvaGrad")
    rows = np.isfinite(grid.mean).any(1)
    best = grid.alphas[np.nanargmin(grid.mean[rows], 1)]
    rates, times = np.unique(best, return_counts=True)
    others = f"the others' best lie from {best.min():g} to {best.max():g}"
    note = f"{_grid(recorded)}; best for {times.max()} of {rows.sum()} epsilons; {others}"
    return _measured(float(rates[times.argmax()]), recorded, note)


def best_epsilon(records: Sequence[Record]) -> Measured | str:
    """The larger of the epsilons that Adam and AvaGrad were best with on text."""
    recorded = _recorded("text", records, "Adam", "AvaGrad")
    chosen = {record["config"]["method"]["name"]: float(tables.settings(record)[1] or 0) for record in recorded}
    if len(chosen) < 2:
        return "the grids on text are not recorded for both Adam and AvaGrad"
    note = f"{_grid(recorded)}; " + ", ".join(f"{name} {eps:g}" for name, eps in chosen.items())
    return _measured(max(chosen.values()), recorded, note)


def _sgd_search(profile: str) -> list[Run]:
    return [] if profile == "quick" else [tables.search(profile, "images", "SGD")]


def sgd_rate(records: Sequence[Record]) -> Measured | str:
    """SGD's best rate."""
    recorded = [record for record in records if record["id"] in {run.id for run in _sgd_search(record["profile"])}][:1]
    if not recorded:
        return "SGD's search is not recorded"
    config = recorded[0]["config"]
    return _measured(tables.settings(recorded[0])[0], recorded, f"{config['model']} on {config['data']}")


def _stationary(records: Sequence[Record]) -> Measured:
    return Measured(THESIS.stationary, None, 1, (), note="counted from (6.13): 998 / 1998")
