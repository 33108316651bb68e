"""Chapter 3's knobs: how many templates a stage has, and how much a loop is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.figures.knobs.panel import Axis, Knob, Panel, points_of, trained
from lab.runs import Record, Run

from . import images

KNOBS = (
    Knob("templates", "templates a stage", 1, 6, whole=True),
    Knob("lambda", "penalty that asks for loops, λ", 0.0, 0.01),
)
DEPTH, WIDTH = 28, 1
ONE_FOLD = {"most": 1, "batches": 2, "steps": 1, "lr": 0.004}
"""A reader waits: one fold is measured, not six."""


def panel(records: Sequence[Record]) -> Panel:
    """Train a quick Wide ResNet with templates of your own number, beside the recorded ones."""
    x = Axis("parameters", "parameters")
    shared = [r for r in records if r["config"]["method"]["templates"] and r["config"]["model"].startswith("SWRN")]
    same = [r for r in shared if (r["config"]["method"]["depth"], r["config"]["method"]["width"]) == (DEPTH, WIDTH)]
    return Panel(
        "Your own templates",
        _run({"templates": 3, "lambda": 0.0}),
        KNOBS,
        x=x,
        points=points_of(KNOBS, same, x),
        train=lambda values, on_epoch, stop: trained(_run(values), on_epoch, stop),
        code=f"images.run('quick', {DEPTH}, {WIDTH}, {{templates}}, lam={{lambda}})",
    )


def _run(values: dict[str, float]) -> Run:
    run = images.run("quick", DEPTH, WIDTH, int(values["templates"]), lam=float(values["lambda"]))
    return replace(run, config=run.config | {"method": run.config["method"] | {"folds": ONE_FOLD}})
