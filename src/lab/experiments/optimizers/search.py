"""Trials until a search over (alpha, epsilon) comes close to the grid's best (Section 6.4.3: Figure 6.5).

A run is one sampler on one optimizer's recorded grid, repeated over many seeds: each trial looks a cell of :mod:`grids`
up. The medians are over all searches; one that was cut off before it came close counts as infinitely long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.experiments.base import Experiment
from lab.experiments.first import recorded
from lab.runs import Run, find
from lab.runs.profiles import check_profile
from lab.training import Stopped
from lab.utils.errors import LabError

from . import grids
from .samplers import DIRECT, PROPOSALS, SAMPLERS, WITHIN, Lookup, cost_of, median

SEARCHES: dict[str, dict[str, int]] = {
    "quick": dict.fromkeys(DIRECT, 1000) | {"TPE": 50, "CMA-ES": 20, "GP": 8},
    "short": dict.fromkeys(DIRECT, 1000) | {"TPE": 300, "CMA-ES": 200, "GP": 60},
    "paper": dict.fromkeys(DIRECT, 1000) | {"TPE": 1000, "CMA-ES": 1000, "GP": 200},
}
"""Searches of each sampler, one seed each: fewer where a trial takes the sampler longer than microseconds."""


BLOCKS = 10
"""A run goes block of seeds by block of seeds; in between it can be stopped, and its figures shown."""


def searched(run: Run) -> list[Run]:
    """The grids that the run searches."""
    declared = [grid for grid in grids.runs(run.profile, part="images") if grid.id in run.config["grids"]]
    if len(declared) < len(run.config["grids"]):
        raise LabError(f"a grid that {run.label()} searches is not declared any more: record the run anew")
    return declared


class Search(Experiment):
    """Every sampler on Adam's and on AvaGrad's grid."""

    name = "tuning"
    chapter = 6

    def run(self, profile: str, optimizer: str, sampler: str, seed: int = 0) -> Run:
        """One sampler on the grids of one optimizer, all their seeds averaged."""
        searches = SEARCHES[check_profile(profile)]
        if sampler not in SAMPLERS:
            raise LabError(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
        wanted = [r for r in grids.runs(profile, part="images") if r.config["method"]["name"] == optimizer]
        if not wanted:
            raise LabError(f"there is no grid of {optimizer!r} at profile {profile}")
        method = {"name": sampler, "revision": 2, "optimizer": optimizer, "within": WITHIN, "proposals": PROPOSALS}
        method["searches"] = searches[sampler]
        config = {"model": wanted[0].config["model"], "data": wanted[0].config["data"], "grids": [r.id for r in wanted]}
        return Run(self.name, config | {"method": method}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """Sampler by sampler, Adam before AvaGrad."""
        return [
            self.run(profile, optimizer, sampler, seed)
            for seed in seeds or (0,)
            for sampler in SAMPLERS
            for optimizer in grids.OPTIMIZERS
        ]

    def check(self, run: Run) -> None:
        """What a grid needs that is not recorded yet."""
        for grid in searched(run):
            if find(grid) is None:
                grids.experiment.check(grid)

    def epochs(self, run: Run) -> int:
        """Blocks of seeds."""
        return BLOCKS

    def compute(
        self, run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> dict[str, Any]:  # fmt: skip
        """All searches of one sampler; the curve has a row a search. It takes seconds or few minutes, hence no
        checkpoint.

        A grid that is not recorded yet is computed first.
        """
        method = run.config["method"]
        lookup = Lookup.of([recorded(grid, device) for grid in searched(run)], method["optimizer"])
        began, costs = time.monotonic(), list[tuple[float, float]]()
        first = run.seed * 1_000_000
        for number, block in enumerate(np.array_split(np.arange(first, first + method["searches"]), BLOCKS), start=1):
            if stop():
                raise Stopped(f"stopped after {len(costs)} of {method['searches']} searches")
            if len(block):
                costs += zip(*cost_of(lookup, method["name"], method["within"], block.tolist()), strict=True)
            on_epoch(number)
        trials, proposals = np.array(costs, float).T
        middle = median(trials)._asdict() | {"proposals": median(proposals).median}
        figures = {"reached": float(np.isfinite(trials).mean()), "searches": float(middle.pop("n"))}
        figures |= {"good_cells": float((lookup.gap <= method["within"] + 1e-12).sum()), "noise": lookup.noise}
        figures |= {"cells": float(lookup.gap.size)} | middle
        curve = [
            {"trials": t, "proposals": p} if math.isfinite(t) else {} for t, p in zip(trials, proposals, strict=True)
        ]
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        return {"figures": figures, "curve": curve, "seconds": time.monotonic() - began}


experiment = Search()
run, runs = experiment.run, experiment.runs
