"""Precisions on a ResNet-20 (``lab.experiments.precision``): Table 5.1, Table 5.6, and what Section 5.4.1 makes of them.

The thesis names the penalties of SMOL's three rows. Which penalties its two rows with zero precision had it does not say:
they are taken to be the two largest, which give the fewest bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..experiments import precision
from ..runs import Run
from . import Claim, average, difference

# row of Table 5.1: method, and which of the protocol's penalties (ascending) it stands for
SMOL = {
    "SMOL (2.8 bits)": (0, {}),
    "SMOL (2.5 bits)": (1, {}),
    "SMOL (2.1 bits)": (2, {}),
    "SMOL* (1.7 bits)": (1, {"zero": True}),
    "SMOL* (1.3 bits)": (2, {"zero": True}),
    "SMOL-L (3.2 bits)": (0, {"granularity": "layer"}),
    "SMOL-L (2.4 bits)": (-1, {"granularity": "layer"}),
}
FIXED = {
    "LQ-Nets (1.0 bits)": ("lq-nets", 1),
    "LQ-Nets (2.0 bits)": ("lq-nets", 2),
    "LQ-Nets (3.0 bits)": ("lq-nets", 3),
    "SLB (1.0 bits)": ("slb", 1),
    "SLB (2.0 bits)": ("slb", 2),
    "DSQ (1.0 bits)": ("dsq", 1),
}
RETRAINED = {"Re-trained with same precisions": False, "Re-trained with shuffled precisions": True}
BITS, ACCURACY, RATIO = "Bits per parameter", "Test accuracy", "Compression ratio"
POINTS, POINTS_WHY = 0.6, "about the distance between neighbouring rows of the table"
WIDE, WIDE_WHY = 0.3, "half the distance between neighbouring penalties"

Wanted = Callable[[str], Sequence[Run]]


def claims() -> list[Claim]:
    """Every row of Tables 5.1 and 5.6 that this book can run, and the comparisons of the text."""
    found = [*_cells("5.1", "BSQ-FP", _of("dense"), bits=False)]
    for row, (index, options) in SMOL.items():
        found += _cells("5.1", row, _smol(index, **options))
    for row, (method, bits) in FIXED.items():
        found += _cells("5.1", row, _of(method, bits=bits), bits=False)
    found += _cells("5.1", "BSQ (2.7 bits)", _of("bsq"))
    found += _cells("5.6", "Original (SMOL)", _smol(1))
    for row, shuffled in RETRAINED.items():
        found += _cells("5.6", row, partial(_retrained, shuffled), bits=False)
    kept, shuffled, bsq, smol = partial(_retrained, False), partial(_retrained, True), _of("bsq"), _smol(2)
    found.append(
        _order("5.6", "Re-trained with same precisions", "Re-trained with shuffled precisions", kept, shuffled)
    )
    found.append(_order("5.1", "SMOL (2.1 bits)", "BSQ (2.7 bits)", smol, bsq))
    found.append(_order("5.1", "SMOL* (1.7 bits)", "BSQ (2.7 bits)", _smol(1, zero=True), bsq))
    found.append(_fact("smol-bits-high-penalty", smol))
    found.append(_fact("smol-bits-low-penalty", _smol(0)))
    return found


def _cells(table: str, row: str, wanted: Wanted, bits: bool = True) -> list[Claim]:
    accuracy = average("accuracy", wanted, 100)
    cells = [Claim("precision", accuracy, wanted, table, row, ACCURACY, tolerance=POINTS, reason=POINTS_WHY)]
    if bits:
        cells.append(
            Claim("precision", average("bits", wanted), wanted, table, row, BITS, tolerance=WIDE, reason=WIDE_WHY)
        )
    return cells


def _order(table: str, row: str, other: str, one: Wanted, two: Wanted) -> Claim:
    measure = difference(average("accuracy", one, 100), average("accuracy", two, 100))
    return Claim(
        "precision", measure, lambda profile: [*one(profile), *two(profile)], table, row, ACCURACY, versus=other
    )


def _fact(fact: str, wanted: Wanted) -> Claim:
    return Claim("precision", average("bits", wanted), wanted, fact=fact, tolerance=WIDE, reason=WIDE_WHY)


def _of(name: str, **options: Any) -> Wanted:
    """All declared seeds of a method with these options, at the thesis's division of the epochs."""

    def wanted(profile: str) -> list[Run]:
        epochs = precision.PROTOCOL[profile]["training"]["epochs"]
        return [
            run
            for run in precision.runs(profile)
            if run.config["method"]["name"] == name
            and run.config["training"]["epochs"] == epochs
            and all(run.config["method"][key] == value for key, value in options.items())
        ]

    return wanted


def _smol(index: int, **options: Any) -> Wanted:
    plain = {"zero": False, "granularity": "weight", "allowed": None}
    return lambda profile: _of("smol", **plain | options, **{"lambda": precision.PROTOCOL[profile]["lambda"][index]})(
        profile
    )


def _retrained(shuffled: bool, profile: str) -> Sequence[Run]:
    return _of("retrain", shuffled=shuffled)(profile)
