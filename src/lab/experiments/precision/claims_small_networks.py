"""Networks that are small already (``lab.experiments.precision.small_networks``): Table 5.2 and what Section 5.4.1 makes of it."""

from __future__ import annotations

from typing import Any

from lab.experiments.claims import Claim, average, difference
from lab.runs import Run

from . import small_networks as mobile
from .claims import POINTS, POINTS_WHY, WIDE, WIDE_WHY, Wanted, compared

NAMES = {"mobilenetv2": "MobileNetV2", "shufflenet": "ShuffleNet"}
# row: method, and which of a network's penalties (fewest bits first) it stands for
ROWS: dict[str, tuple[str, int | None]] = {
    "FP": ("dense", None), "BSQ": ("bsq", None), "SMOL (1.5/1.8 bits)": ("smol", 0), "SMOL (1.7/2.9 bits)": ("smol", 1),
}  # fmt: skip


def claims() -> list[Claim]:
    """Every cell that is measured, the order of SMOL and BSQ, and the differences of the text."""
    found = []
    for network, name in NAMES.items():
        for row, (method, index) in ROWS.items():
            wanted, column = runs_of(network, method, index), f"{name} test accuracy"
            accuracy = average("accuracy", wanted, 100)
            found.append(Claim("mobile", accuracy, wanted, "5.2", row, column, tolerance=POINTS, reason=POINTS_WHY))
            if method != "dense":
                column, bits = f"{name} bits per parameter", average("bits", wanted)
                found.append(Claim("mobile", bits, wanted, "5.2", row, column, tolerance=WIDE, reason=WIDE_WHY))
        smol, bsq = runs_of(network, "smol", 1), runs_of(network, "bsq")
        found.append(order(network, name, smol, bsq))
        found += compared("mobile", f"smol-vs-bsq-{network.removesuffix('v2')}", smol, bsq)
    return found


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    return {("5.2", "FP", f"{name} bits per parameter"): "true by definition: 32 bits" for name in NAMES.values()}


def order(network: str, name: str, smol: Wanted, bsq: Wanted) -> Claim:
    """SMOL with more bits against BSQ."""
    better = difference(average("accuracy", smol, 100), average("accuracy", bsq, 100))
    row = "SMOL (1.7/2.9 bits)"
    return Claim(
        "mobile",
        better,
        lambda profile: [*smol(profile), *bsq(profile)],
        "5.2",
        row,
        f"{name} test accuracy",
        versus="BSQ",
    )


def runs_of(network: str, method: str, index: int | None = None) -> Wanted:
    """All declared seeds of a method on a network, of the ``index``-th penalty."""

    def wanted(profile: str) -> list[Run]:
        options: dict[str, Any] = {"name": method}
        if index is not None:
            options["lambda"] = mobile.PENALTIES[profile][network][index]
        return [
            run
            for run in mobile.runs(profile)
            if run.config["model"] == network and options.items() <= run.config["method"].items()
        ]

    return wanted
