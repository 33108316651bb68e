"""A translator of few bits (``lab.experiments.beyond_classification.translation``): Table 5.7.

At profile paper on IWSLT'14 alone: BLEU on Multi30k, its stand-in at short, is another number. The thesis names no penalty; the larger of this book's two is
taken for the row of fewer bits, and where its bits land is part of what is claimed.
"""

from __future__ import annotations

from functools import partial

from lab.experiments.claims import Claim, average, difference
from lab.runs import Run

from . import translation

ROWS = {"FP": None, "SMOL (3.9 bits)": 1, "SMOL (5.8 bits)": 0}
"""Which of the protocol's penalties, ascending."""


def claims() -> list[Claim]:
    """BLEU of each row, the bits of SMOL's, and that nothing is lost at 5.8 bits and little at 3.9."""
    found = []
    for row, index in ROWS.items():
        needs = partial(_wanted, index)
        found.append(
            Claim("translation", average("bleu", needs), needs, "5.7", row, "BLEU", tolerance=0.5, reason="about what decoding greedily, without a beam, costs")
        )  # fmt: skip
        if index is not None:
            found.append(
                Claim("translation", average("bits", needs), needs, "5.7", row, "Bits per parameter", tolerance=1.0, reason="half the distance between the two rows; the penalties are this book's")
            )  # fmt: skip
    few, full = partial(_wanted, 1), partial(_wanted, None)
    lost = difference(average("bleu", few), average("bleu", full))
    found.append(
        Claim("translation", lost, lambda profile: [*few(profile), *full(profile)], "5.7", "SMOL (3.9 bits)", "BLEU", versus="FP")
    )  # fmt: skip
    return found


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    found: dict[tuple[str, str, str] | str, str] = {
        ("5.7", "FP", "Bits per parameter"): "true by definition: nothing is quantised"
    }
    facts = ("match-bits", "match-ratio", "low-bits", "low-ratio", "low-bleu")
    follows = "follows from cells of Table 5.7, which have rows of their own here"
    return found | dict.fromkeys((f"transformer-{name}" for name in facts), follows)


def _wanted(index: int | None, profile: str) -> list[Run]:
    if profile != "paper":
        return []
    protocol = translation.PROTOCOL[profile]
    price = None if index is None else protocol["lambda"][index]
    return [run for run in translation.runs(profile) if run.config["method"].get("lambda") == price]
