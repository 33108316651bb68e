"""Optimizers (``lab.experiments.optimizers.tables``): Tables 6.1 and 6.2 but for the GAN; what Section 6.4 reads from the grids
(``grids``): which rate suits which epsilon, and how many trials a search takes; and the toy problem of Section 6.5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from lab.baselines.optimizers import TABLE
from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured, average, less
from lab.figures.grid.recording import table as grid_table
from lab.figures.nonconvergence.simulator import THESIS
from lab.runs import Record, Run

from . import grids
from . import samplers as tuning
from . import tables as optimizers

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
# (task, better, worse): the comparisons that 6.4.1 draws, of its many "better than SGD" the ones that carry its point
ORDERS = [
    ("cifar10", "Adam", "SGD"),
    ("cifar10", "AvaGrad", "SGD"),
    ("cifar100", "Adam", "SGD"),
    ("cifar100", "AvaGrad", "SGD"),
]
ORDERS += [("cifar10", "AvaGrad", "AdamW"), ("imagenet", "Adam", "SGD"), ("imagenet", "AvaGrad", "SGD")]
ORDERS += [("text", "AvaGrad", "Adam"), ("wide text", "AvaGrad", "Adam"), ("wide text", "AvaGradW", "Adam")]
ORDERS += [("text", "Adam", "SGD"), ("text", "Adam", "AdaBound"), ("wide text", "Adam", "RAdam")]

Measure = Callable[[Sequence[Record]], Measured | str]


def claims() -> list[Claim]:
    """Every cell of five columns, the comparisons of the text, the facts of the grids, and the toy problem's answer."""
    found = []
    for task, (number, column) in COLUMNS.items():
        by, why = NEAR[task]
        for name in TABLE:
            if (task, name) != ("imagenet", "AdaShift"):
                needs = partial(_needs, task, name)
                found.append(
                    Claim("optimizers", score(task, name), needs, number, name, column, tolerance=by, reason=why)
                )
    for task, one, other in ORDERS:
        number, column = COLUMNS[task]
        both = partial(_needs, task, one, other)
        found.append(Claim("optimizers", partial(margin, task, one, other), both, number, one, column, versus=other))
    return found + _facts()


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why the other statements of Sections 6.3 and 6.4 have no claim."""
    found: dict[tuple[str, str, str] | str, str] = {}
    cells = (
        "ch6-c10-sgd",
        "ch6-c10-better",
        "ch6-c100-better",
        "ch6-c100-sgd",
        "ch6-imagenet-sgd",
        "ch6-imagenet-better",
        "ch6-bpc",
    )
    found |= dict.fromkeys(cells, "cells of Tables 6.1 and 6.2, which have rows of their own here")
    found["ch6-imagenet-count"] = "follows from cells of Table 6.1, which have rows of their own here"
    found["tuning-below"] = "a target, not a result: how many trials it takes has two rows of its own"
    found["ch6-adashift-batch"] = "the memory of the thesis's own GPUs: no such run is declared"
    return found


# -- Tables 6.1 and 6.2 ------------------------------------------------------------------------------------------------


def _needs(task: str, *names_and_profile: str) -> list[Run]:
    *names, profile = names_and_profile
    return [run for name in names for run in optimizers.column(profile, task, name)]


def score(task: str, name: str) -> Measure:
    """Test error in percent, or bits per character, of one optimizer at the setting that its search found."""
    wanted = partial(_needs, task, name)

    def measure(found: Sequence[Record]) -> Measured | str:
        text = optimizers.PARTS[task] == "text"
        got = average("bpc", wanted)(found) if text else average("accuracy", wanted, 100)(found)
        if isinstance(got, str):
            return got
        first = next(r for r in found if r["id"] == got.runs[0])
        note = f"{first['config']['model']} on {first['config']['data']}, {setting(first)}"
        return Measured(got.value if text else 100 - got.value, got.spread, got.n, got.runs, note=note)

    return measure


def setting(record: Record) -> str:
    """What the search found; whether it is the last value that was tried on its side, so that a better one may lie beyond."""
    alpha, eps = optimizers.settings(record)
    tried = optimizers.search_of(Run.of(record)).config["method"]
    cells = tried.get("trials") or [(a, e) for e in tried["epsilons"] for a in tried["alphas"]]
    rates = [a for a, e in cells if e == eps]
    found = f"α = {alpha:g}{_side(alpha, rates)}"
    return found if eps is None else f"{found}, ε = {eps:g}{_side(eps, [e for _, e in cells])}"


def _side(chosen: float, tried: Sequence[float]) -> str:
    return " (the lowest tried)" if chosen == min(tried) else " (the highest tried)" if chosen == max(tried) else ""


def margin(task: str, one: str, other: str, found: Sequence[Record]) -> Measured | str:
    """How far ``one`` is above ``other``: below 0, it is better."""
    a, b = score(task, one)(found), score(task, other)(found)
    if isinstance(a, str) or isinstance(b, str):
        return a if isinstance(a, str) else str(b)
    return less(a, b, f"{one} {a.value:.4g}, {other} {b.value:.4g}; their settings stand in their own rows")


# -- what the text reads from grids and searches -----------------------------------------------------------------------


def _facts() -> list[Claim]:
    half = 0.5  # of a decade and more lies between neighbouring values of an axis
    return [
        Claim(
            "grids", partial(cost, "AvaGrad", "CGLD"), partial(_grids, "images", "AvaGrad"), fact="tuning-avagrad",
            tolerance=6.5, reason="half of the thesis's number: another grid has another number",
        ),
        Claim(
            "grids", partial(cost, "Adam", "GLD"), partial(_grids, "images", "Adam"), fact="tuning-adam",
            tolerance=37.0, reason="half of the thesis's number: another grid has another number",
        ),
        Claim(
            "grids", same_rate, partial(_grids, "images", "AvaGrad"), fact="separable-best-alpha",
            tolerance=half, reason="half of the way to the next rate below",
        ),
        Claim("grids", best_epsilon, partial(_grids, "text", "Adam", "AvaGrad"), fact="ch6-lm-best-epsilon",
              tolerance=5e-8, reason="the next value of the thesis's grid"),
        Claim(
            "optimizers", sgd_rate, _sgd_search, fact="ch6-sgd-lr", tolerance=0.05, reason="the next value of the thesis's grid",
        ),
        Claim(
            "grids", _stationary, lambda profile: [], fact="toy-stationary",
            tolerance=0.01, reason="the thesis says about",
        ),
    ]  # fmt: skip


def _grids(part: str, *names_and_profile: str) -> list[Run]:
    *names, profile = names_and_profile
    return [run for run in grids.runs(profile, part=part) if run.config["method"]["name"] in names]


def _of(part: str, found: Sequence[Record], *names: str) -> list[Record]:
    ids = {run.id for run in _grids(part, *names, found[0]["profile"])} if found else set()
    return [record for record in found if record["id"] in ids]


def cost(name: str, sampler: str, found: Sequence[Record]) -> Measured | str:
    """Median trials, over 1,000 searches of the recorded grid, to come within the suboptimality of Figure 6.6."""
    mine, within = _of("images", found, name), thesis.fact("tuning-below").value
    assert isinstance(within, float)
    if not mine:
        return f"no grid of {name} is recorded"
    got = tuning.median(tuning.trials_to(tuning.Lookup.of(mine, name), sampler, within / 100, seeds=1000))
    if not np.isfinite(got.median):
        return f"half of the searches end before they come within {within:g} points"
    note = f"{_grid(mine)}; the median lies in [{got.low:g}, {got.high:g}]; {sampler}, {got.n:,} searches"
    return Measured(got.median, None, len(mine), tuple(r["id"] for r in mine), note=note)


def same_rate(found: Sequence[Record]) -> Measured | str:
    """The alpha that is best for most epsilons of AvaGrad's grid."""
    mine = _of("images", found, "AvaGrad")
    if not mine:
        return "no grid of AvaGrad is recorded"
    grid = grid_table(mine, "AvaGrad")
    rows = np.isfinite(grid.mean).any(1)
    best = grid.alphas[np.nanargmin(grid.mean[rows], 1)]
    rates, times = np.unique(best, return_counts=True)
    note = f"{_grid(mine)}; best for {times.max()} of {rows.sum()} epsilons; the others' best lie from {best.min():g} to {best.max():g}"
    return Measured(float(rates[times.argmax()]), None, len(mine), tuple(r["id"] for r in mine), note=note)


def best_epsilon(found: Sequence[Record]) -> Measured | str:
    """The larger of the epsilons that Adam and AvaGrad were best with on text."""
    mine = _of("text", found, "Adam", "AvaGrad")
    if {r["config"]["method"]["name"] for r in mine} < {"Adam", "AvaGrad"}:
        return "the grids on text are not recorded for both Adam and AvaGrad"
    chosen = {r["config"]["method"]["name"]: float(optimizers.settings(r)[1] or 0) for r in mine}
    note = f"{_grid(mine)}; " + ", ".join(f"{name} {eps:g}" for name, eps in chosen.items())
    return Measured(max(chosen.values()), None, len(mine), tuple(r["id"] for r in mine), note=note)


def _grid(mine: Sequence[Record]) -> str:
    config, cells = mine[0]["config"], mine[0]["figures"]["cells"]
    return f"{cells:.0f} settings of {config['model']}, {config['training']['epochs']} epochs of {config['data']}"


def _sgd_search(profile: str) -> list[Run]:
    return [] if profile == "quick" else [optimizers.search(profile, "images", "SGD")]


def sgd_rate(found: Sequence[Record]) -> Measured | str:
    """SGD's best rate."""
    mine = [r for r in found if r["id"] in {run.id for run in _sgd_search(r["profile"])}]
    if not mine:
        return "SGD's search is not recorded"
    note = f"{mine[0]['config']['model']} on {mine[0]['config']['data']}"
    return Measured(optimizers.settings(mine[0])[0], None, 1, (mine[0]["id"],), note=note)


def _stationary(found: Sequence[Record]) -> Measured:
    return Measured(THESIS.stationary, None, 1, (), note="counted from (6.13): 998 / 1998")
