"""Activations of few bits (``lab.experiments.precision.activations``): Table 5.5."""

from __future__ import annotations

from typing import Any

from lab.experiments.claims import Claim, average, difference
from lab.runs import Run

from . import activations
from .claims import POINTS, POINTS_WHY, WIDE, WIDE_WHY, Wanted

BITS, ACCURACY = "Bits per activation", "Test accuracy"
SMOL_A = {"SMOL-A (2.9 bits)": 0, "SMOL-A (2.5 bits)": 1, "SMOL-A (1.8 bits)": 2}
"""Row: which of the penalties, ascending. The thesis states none."""
PACT = {"PACT (2.0 bits)": 2, "PACT (3.0 bits)": 3, "PACT (5.0 bits)": 5}


def claims() -> list[Claim]:
    """Every cell that is measured, and the two comparisons at about equal bits."""
    rows = {"FP": _of("dense")}
    rows |= {row: _of("smol-a", index=index) for row, index in SMOL_A.items()}
    rows |= {row: _of("pact", bits=bits) for row, bits in PACT.items()}
    found = []
    for row, wanted in rows.items():
        accuracy = average("accuracy", wanted, 100)
        found.append(Claim("activations", accuracy, wanted, "5.5", row, ACCURACY, tolerance=POINTS, reason=POINTS_WHY))
        if row in SMOL_A:
            bits = average("bits", wanted, note="the penalty is this book's: the thesis states none")
            found.append(Claim("activations", bits, wanted, "5.5", row, BITS, tolerance=WIDE, reason=WIDE_WHY))
    for one, other in (("SMOL-A (1.8 bits)", "PACT (2.0 bits)"), ("SMOL-A (2.9 bits)", "PACT (3.0 bits)")):
        a, b = rows[one], rows[other]
        better = difference(average("accuracy", a, 100), average("accuracy", b, 100))
        found.append(
            Claim("activations", better, lambda p, a=a, b=b: [*a(p), *b(p)], "5.5", one, ACCURACY, versus=other)  # type: ignore[misc]
        )
    return found


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    found: dict[tuple[str, str, str] | str, str] = {("5.5", "FP", BITS): "true by definition: 32 bits"}
    return found | {("5.5", row, BITS): "told to the method, not found by it: a setting" for row in PACT}


def _of(name: str, index: int | None = None, **options: Any) -> Wanted:
    """All declared seeds of a method with these options, or with the ``index``-th penalty."""

    def wanted(profile: str) -> list[Run]:
        asked: dict[str, Any] = {"name": name} | options
        if index is not None:
            asked["lambda"] = sorted(activations.PENALTIES[profile])[index]
        return [run for run in activations.runs(profile) if asked.items() <= run.config["method"].items()]

    return wanted
