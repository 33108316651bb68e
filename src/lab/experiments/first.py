"""Runs that rest on another run: the settings that a search found, the grid that a table of trials is read from."""

from __future__ import annotations

import torch

from lab.runs import Record, Run, find
from lab.training import distributed as ranks
from lab.utils.errors import LabError


def recorded(run: Run, device: torch.device) -> Record:
    """The record of a run that the present one rests on: found, or computed now, with its own lock and checkpoint.

    Raises:
        LabError: it diverged, or several processes share the present run, while a search is one process's work.
        Busy: another recorder is at it; the runner comes back to the present run later.
    """
    record = find(run)
    if record is None:
        if ranks.count() > 1:
            raise LabError(
                f"run {run.id} ({run.experiment}, {run.label()}) comes first: record it without torchrun, "
                f"python -m lab record --experiment {run.experiment} --profile {run.profile} --run {run.id}"
            )
        from lab.runs import runner  # here: the runner imports this module by its name

        record = runner.compute(run, str(device))
    if record["state"] != "finished":
        raise LabError(f"run {run.id} ({run.experiment}, {run.label()}), which this one rests on, {record['state']}")
    return record
