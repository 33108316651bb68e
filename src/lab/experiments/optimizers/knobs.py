"""Chapter 6's knobs: AvaGrad's learning rate and its ε."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from lab.figures.knobs.panel import Axis, Knob, Panel
from lab.runs import Record
from lab.utils.errors import LabError

from . import grids

KNOBS = (
    Knob("alpha", "learning rate", 1e-4, 1e2, log=True),
    Knob("eps", "ε", 1e-8, 1e2, log=True),
)


def panel(records: Sequence[Record]) -> Panel:
    """Train a quick small CNN by AvaGrad with a rate and an ε of your own, beside the cells of the recorded grid."""
    run = grids.run("quick", "AvaGrad")
    own = [record for record in records if record["config"]["method"]["name"] == "AvaGrad"]
    return Panel(
        "Your own two numbers",
        run,
        KNOBS,
        x=Axis("alpha", "learning rate", "log"),
        points=[point for record in own for point in cells(record)],
        train=_train,
        epochs=run.config["training"]["epochs"],
        code="AvaGrad(net.parameters(), lr={alpha}, eps={eps})",
    )


def cells(record: Record) -> list[dict[str, Any]]:
    """The cells of a recorded grid that did not diverge, as points; the best one first."""
    grid = record["recording"]["grid"]
    points = [
        {"values": [alpha, eps], "x": alpha, "y": score, "run": record["id"]}
        for eps, row in zip(grid["epsilons"], grid["score"], strict=True)
        for alpha, score in zip(grid["alphas"], row, strict=True)
        if score is not None
    ]
    return sorted(points, key=lambda point: -point["y"])


def _train(values: dict[str, float], on_epoch: Callable[[int], None], stop: Callable[[], bool]) -> dict[str, float]:
    run, cell = grids.run("quick", "AvaGrad"), (values["alpha"], values["eps"])
    with tempfile.TemporaryDirectory() as folder:
        sweep = grids.experiment.sweep(run, [cell], 1, torch.device("cpu"), Path(folder, "c"), on_epoch, stop)
        ((alpha, _, score, _),) = sweep.run()
    if score is None:
        raise LabError(f"it diverged at a rate of {alpha:g} and ε = {cell[1]:g}: try a smaller rate")
    return {"alpha": alpha, "accuracy": score}
