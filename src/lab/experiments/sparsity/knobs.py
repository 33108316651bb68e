"""Chapter 4's knobs: where a mask starts, and how fast its variables move."""

from __future__ import annotations

from collections.abc import Sequence

from lab.figures.knobs.panel import Axis, Knob, Panel
from lab.runs import Record

from . import pruning

KNOBS = (
    Knob("s_init", "start of the switches, s_init", -0.15, 0.05),
    Knob("lr_s", "rate of the switches", 0.1, 3.0, log=True),
)


def panel(records: Sequence[Record]) -> Panel:
    """Train a quick ResNet-20 with a mask of your own settings, beside the recorded ones."""
    return Panel(
        "Your own mask",
        pruning.run("quick", "cs"),
        KNOBS,
        records,
        x=Axis("sparsity", "weights that are zero", "share"),
        code="pruning.run('quick', 'cs', s_init={s_init}, lr_s={lr_s})",
    )
