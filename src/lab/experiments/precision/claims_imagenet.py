"""Large networks (``lab.experiments.precision.imagenet``): Table 5.3 and what Section 5.4.1 makes of it.

The thesis states two penalties a network and does not say which gave which row. Taken here: the larger one fewer bits, zero precision
fewer than none.
"""

from __future__ import annotations

from typing import Any

from lab.datasets import thesis
from lab.experiments.claims import Claim, average, difference
from lab.runs import Run

from . import imagenet as imagenet_bits
from .claims import TIMES, TIMES_WHY, WIDE, WIDE_WHY, Measure, Wanted, ratio

NAMES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}
POINTS, POINTS_WHY = 0.3, "what a run on one GPU may differ by"
# row: options of the method; "index" counts a network's penalties, largest first
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "resnet18": {
        "FP": {"name": "dense"},
        "SMOL* (2.3/2.2 bits)": {"name": "smol", "index": 0, "zero": True},
        "SMOL (4.2/5.3 bits)": {"name": "smol", "index": 0, "zero": False},
        "SMOL (4.5 bits)": {"name": "smol", "index": 1, "zero": False},
        "LQ-Nets (4.0 bits)": {"name": "lq-nets", "bits": 4},
        "DSQ": {"name": "dsq", "bits": 4},
        "SLB": {"name": "slb", "bits": 2},
    },
    "resnet50": {
        "FP": {"name": "dense"},
        "SMOL* (0.8 bits)": {"name": "smol", "index": 0, "zero": True},
        "SMOL* (4.1 bits)": {"name": "smol", "index": 1, "zero": True},
        "SMOL (4.2/5.3 bits)": {"name": "smol", "index": 1, "zero": False},
        "LQ-Nets (4.0 bits)": {"name": "lq-nets", "bits": 4},
        "BSQ (3.3 bits)": {"name": "bsq"},
    },
}  # fmt: skip
TOLD = ("lq-nets", "dsq", "slb")


def claims() -> list[Claim]:
    """Every cell that is measured, and the statements of the text."""
    found = []
    for network, rows in ROWS.items():
        for row, options in rows.items():
            wanted, name = runs_of(network, options), NAMES[network]
            found.append(
                _cell(average("accuracy", wanted, 100), wanted, row, f"{name} test accuracy", POINTS, POINTS_WHY)
            )
            if options["name"] not in ("dense", *TOLD):
                found.append(_cell(average("bits", wanted), wanted, row, f"{name} bits per parameter", WIDE, WIDE_WHY))
                found.append(_cell(ratio(wanted), wanted, row, f"{name} compression ratio", TIMES, TIMES_WHY))
    return [*found, *_statements()]


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    found: dict[tuple[str, str, str] | str, str] = {}
    for cell in thesis.table("5.3").to_dict("records"):
        row, column = cell["row"], cell["column"]
        if column.endswith("bits per activation"):
            why = "a setting, which the declared runs take from here"
        elif row == "FP":
            why = "true by definition: 32 bits"
        elif row == "LQ-Nets (3.0 bits)":
            why = "its activations have 3 bits by a rule of their own: this book's have the 4 of 5.3.2"
        elif row in ("BSQ (3.7 bits)", "SMOL* (2.3/2.2 bits)"):
            why = "a further penalty, which the thesis does not state"
        else:
            why = "told to the method, not found by it: a setting"
        found["5.3", row, column] = why
    found["smol-vs-lq-resnet50"] = "compares with LQ-Nets at 3 bits, whose activations have a rule of their own"
    return found


def _statements() -> list[Claim]:
    smol, lq, full = (
        runs_of("resnet18", ROWS["resnet18"][row]) for row in ("SMOL* (2.3/2.2 bits)", "LQ-Nets (4.0 bits)", "FP")
    )
    small, large, dense = (
        runs_of("resnet50", ROWS["resnet50"][row]) for row in ("SMOL* (0.8 bits)", "SMOL* (4.1 bits)", "FP")
    )
    return [
        _difference("smol-vs-lq-resnet18-accuracy", "accuracy", smol, lq),
        _difference("smol-vs-lq-resnet18-bits", "bits", lq, smol),
        _difference("smol-vs-fp-resnet18", "accuracy", smol, full),
        _fact("smol-resnet50-bits", average("bits", small), small),
        _fact("smol-vs-fp-resnet50-bits", average("bits", large), large),
        _difference("smol-vs-fp-resnet50-accuracy", "accuracy", large, dense),
    ]


def _cell(measure: Measure, wanted: Wanted, row: str, column: str, tolerance: float, why: str) -> Claim:
    return Claim("imagenet_bits", measure, wanted, "5.3", row, column, tolerance=tolerance, reason=why)


def _fact(fact: str, measure: Measure, wanted: Wanted, tolerance: float = WIDE, why: str = WIDE_WHY) -> Claim:
    return Claim("imagenet_bits", measure, wanted, fact=fact, tolerance=tolerance, reason=why)


def _difference(fact: str, figure: str, one: Wanted, other: Wanted) -> Claim:
    scale, tolerance, why = (100, POINTS, POINTS_WHY) if figure == "accuracy" else (1, WIDE, WIDE_WHY)
    measure = difference(average(figure, one, scale), average(figure, other, scale))
    return _fact(fact, measure, lambda profile: [*one(profile), *other(profile)], tolerance, why)


def runs_of(network: str, options: dict[str, Any]) -> Wanted:
    """All declared seeds of a row's method on a network."""

    def wanted(profile: str) -> list[Run]:
        asked = {key: value for key, value in options.items() if key != "index"}
        if "index" in options:
            asked["lambda"] = imagenet_bits.LAMBDA[network][options["index"]]
        return [
            run
            for run in imagenet_bits.runs(profile)
            if run.config["model"] == network and asked.items() <= run.config["method"].items()
        ]

    return wanted
