"""Chapter 5's knobs: the price of a bit, and how fast the variables of the bits move."""

from __future__ import annotations

from collections.abc import Sequence

from lab.figures.knobs.panel import Axis, Knob, Panel
from lab.runs import Record

from . import weights

KNOBS = (
    Knob("lambda", "penalty on bits, λ", 1e-6, 3e-5, log=True),
    Knob("lr_s", "rate of the bits' variables", 0.02, 0.2, log=True),
)


def panel(records: Sequence[Record]) -> Panel:
    """Train a quick ResNet-20 with precisions, zero among them, at your own penalty, beside the recorded ones."""
    return Panel(
        "Your own penalty",
        weights.run("quick", "smol", zero=True, **{"lambda": 8e-6}),
        KNOBS,
        records,
        x=Axis("bits", "bits a weight"),
        code="weights.run('quick', 'smol', zero=True, **{{'lambda': {lambda}, 'lr_s': {lr_s}}})",
    )
