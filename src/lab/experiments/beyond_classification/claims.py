"""GANs: Table 5.4 (``lab.experiments.beyond_classification.generation``), and the column of Table 6.1 that compares optimizers on one (``ggan``).

FID and Inception Score are measured at profile paper alone, with the Inception network that the user brings. What the smaller profiles measure, a distance
in the features of a ResNet-20, is on another scale and stands for neither. The thesis says which penalty gave 0.2, 0.5 and 1.7 bits; the
rows of 1.0 and 3.5 bits are taken to be the next two. BSQ's one stated penalty is taken for its row of fewer bits; ours searches from the start of
training, where the thesis's starts from 30 epochs at full precision, within the same 160.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lab.experiments.claims import Claim, Measured, average, difference
from lab.experiments.optimizers import gan as ggan
from lab.runs import Record, Run

from . import generation

SMOL: dict[str, tuple[float, bool]] = {
    "SMOL* (0.2 bits)": (2e-5, True),
    "SMOL* (0.5 bits)": (1e-5, True),
    "SMOL* (1.0 bits)": (5e-6, True),
    "SMOL* (3.5 bits)": (2e-6, True),
    "SMOL (1.7 bits)": (1e-5, False),
}
DENSE = {"FP (30 epochs)": 30, "FP (160 epochs)": 160}
BITS, FID, SCORE = "Bits per parameter", "FID", "Inception Score"
TOLERANCES = {
    BITS: ("bits", 0.3, "about half the distance between neighbouring penalties"),
    FID: ("fid", 2.0, "about half the distance between neighbouring rows"),
    SCORE: ("inception_score", 0.2, "about what ten parts of 1,000 images leave open"),
}
COLUMN = "CIFAR-10 GGAN FID"

Wanted = Callable[[str], Sequence[Run]]


def claims() -> list[Claim]:
    """All of Table 5.4 but BSQ's second row, what the text makes of it, and the GGAN column."""
    found = []
    for row, epochs in DENSE.items():
        found += _cells(row, partial(_dense, epochs), (FID, SCORE))
    for row, (lam, zero) in SMOL.items():
        found += _cells(row, partial(_smol, lam, zero), (BITS, FID, SCORE))
    found += _cells("BSQ (2.8 bits)", _bsq, (BITS, FID, SCORE))
    smol, bsq = partial(_smol, 5e-6, True), _bsq
    lower = difference(average("fid", smol), average("fid", bsq))
    found.append(
        Claim("generation", lower, lambda profile: [*smol(profile), *bsq(profile)], "5.4", "SMOL* (1.0 bits)", FID, versus="BSQ (2.8 bits)")
    )  # fmt: skip
    extreme = partial(_smol, 2e-5, True, reduced=True)
    found += [
        Claim("generation", average("bits", extreme), extreme, fact=fact, at_most=True)
        for fact in ("dcgan-smallest", "gan-extreme-bits")
    ]
    found += [
        Claim(
            "ggan", partial(_best, row), partial(_column, row), "6.1", row, COLUMN, tolerance=3.0,
            reason="about the spread that repeated GANs have at this size",
        )
        for row in ggan.OPTIMIZERS
    ]  # fmt: skip
    best, other = partial(_best, "AvaGrad"), partial(_best, "Adam")
    found.append(
        Claim("ggan", difference(best, other), lambda profile: [*_column("AvaGrad", profile), *_column("Adam", profile)], "6.1", "AvaGrad", COLUMN, versus="Adam")
    )  # fmt: skip
    return found


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    why = "the thesis gives BSQ one penalty and two rows: what the second one had is not stated"
    found: dict[tuple[str, str, str] | str, str] = {("5.4", "BSQ (3.9 bits)", c): why for c in (BITS, FID, SCORE)}
    found |= {("5.4", row, BITS): "true by definition: nothing is quantised" for row in DENSE}
    follows = "follows from cells of Table 5.4, which have rows of their own here"
    found |= dict.fromkeys(
        ("dcgan-zpa-saving", "dcgan-zpa-example", "gan-fid-bsq", "gan-fid-smol", "gan-fid-bits", "gan-fid-gain", "gan-fid-gain-bits"), follows
    )  # fmt: skip
    found |= dict.fromkeys(
        ("ch6-fid-gain", "ch6-fid-avagrad-adam"), "follows from cells of Table 6.1, which have rows of their own here"
    )
    cell = "the best cell is named beside the number of Adam's row in Table 6.1"
    return found | dict.fromkeys(("ch6-gan-adam-alpha", "ch6-gan-adam-epsilon"), cell)


def _cells(row: str, wanted: Callable[..., list[Run]], columns: Sequence[str]) -> list[Claim]:
    found = []
    for column in columns:
        figure, tolerance, reason = TOLERANCES[column]
        needs = partial(wanted, reduced=column == BITS)
        found.append(
            Claim("generation", average(figure, needs), needs, "5.4", row, column, tolerance=tolerance, reason=reason)
        )
    return found


def _of(profile: str, reduced: bool, **options: Any) -> list[Run]:
    if profile != "paper" and not reduced:  # no FID there
        return []
    return [
        run for run in generation.runs(profile) if all(run.config["method"].get(k) == v for k, v in options.items())
    ]


def _dense(epochs: int, profile: str, reduced: bool = False) -> list[Run]:
    return [run for run in _of(profile, reduced, name="dense") if generation.epochs(run) == epochs]


def _smol(lam: float, zero: bool, profile: str, reduced: bool = False) -> list[Run]:
    return _of(profile, reduced, name="smol", zero=zero, **{"lambda": lam})


def _bsq(profile: str, reduced: bool = False) -> list[Run]:
    return _of(profile, reduced, name="bsq")


def _column(optimizer: str, profile: str) -> list[Run]:
    if profile != "paper":
        return []
    return [run for run in ggan.runs(profile) if run.config["method"]["name"] == optimizer]


def _best(optimizer: str, found: Sequence[Record]) -> Measured | str:
    """The lowest FID over the optimizer's cells, as the column has it."""
    mine = [r for r in found if r["config"]["method"]["name"] == optimizer and "fid" in r["figures"]]
    if not mine:
        return "no run is recorded with FID"
    best = min(mine, key=lambda r: r["figures"]["fid"])
    method = best["config"]["method"]
    note = f"best of {len(mine)} cells: alpha = {method['alpha']:g}, epsilon = {method['epsilon']}"
    return Measured(best["figures"]["fid"], None, 1, (best["id"],), note=note)
