"""Shortest paths (Section 3.4.3: Figures 3.9 and 3.12): does a network that learns its own loops adapt to longer paths?

A chain of equal convolutions, plain (CNN), with soft sharing (SCNN), and with the recurrence regulariser too, is
trained through five phases, each with query points farther apart. It keeps its weights from phase to phase.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from functools import cache
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.datasets.shortest_paths import CURRICULUM, Paths, paths
from lab.models import path_cnn, path_scnn
from lab.runs import Record, Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer, autocast, chance
from lab.training.batchnorm import reestimate
from lab.training.classification import Labelled
from lab.utils.errors import LabError

from .images import Sharing, SharingExperiment

# What each profile trains. `paper` is Section 3.3.3: 50 epochs a phase on 5,000 grids, Adam at a constant 0.01, no
# weight decay. The thesis does not say which grids its F1 is measured on: here on others of the same phase. It gives
# no batch size either. SGD's settings are there for the loop, which asks for them; nothing is trained with it. At
# Adam's constant rate a score with the running statistics of BatchNorm jumps from epoch to epoch: each one is taken
# on a copy, re-estimated on `reestimate` batches of the phase. What is recorded at `short` is older and was not.
TRAINING: Config = {
    "finetune_epochs": 0, "lr": 0.01, "schedule": "steps", "steps": [], "factor": 1.0, "momentum": 0.0,
    "nesterov": False, "weight_decay": 0.0,
}  # fmt: skip
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "revision": 2,
        "grids": {"train": 1536, "test": 256, "size": 16},
        "training": TRAINING | {"epochs": 10, "batch_size": 64, "reestimate": 8},
        "network": (22, 8),
        "deep": (42, 8),
        "lambda": 0.01,
        "seeds": (0, 1),
        "folds": {"most": 5, "batches": 8, "steps": 24, "lr": 0.002},
    },
    "short": {
        "revision": 1,
        "grids": {"train": 5000, "test": 1000, "size": 32},
        "training": TRAINING | {"epochs": 25, "batch_size": 64},
        "network": (22, 16),
        "deep": (42, 16),
        "lambda": 0.01,
        "seeds": (0, 1),
        "folds": {"most": 12, "batches": 40, "steps": 78, "lr": 0.002},
    },
    "paper": {
        "revision": 2,
        "grids": {"train": 5000, "test": 5000, "size": 32},
        "training": TRAINING | {"epochs": 250, "batch_size": 64, "reestimate": 40},
        "network": (22, 32),
        "deep": (100, 32),
        "lambda": 0.01,
        "seeds": (0, 1, 2),
        "folds": {"most": 40, "batches": 40, "steps": 390, "lr": 0.002},
    },
}  # fmt: skip

MOMENTS = (0.08, 0.16, 0.4)
"""When the similarity matrix is kept beside start and end: of 250 epochs the 20th and the 40th, as in Figure 3.12."""


def run(profile: str, depth: int, channels: int, shared: bool, seed: int = 0, lam: float = 0.0) -> Run:
    """One run: ``run("paper", 22, 32, True, lam=0.01)`` is the SCNN with the recurrence regulariser (3.19).

    ``shared`` is the SCNN, with as many templates as layers (3.3.2); without it the plain CNN.
    """
    protocol = PROTOCOL[check_profile(profile)]
    if not (math.isfinite(lam) and lam >= 0):
        raise LabError(f"lambda must be a number from 0 on, not {lam}: the thesis uses 0.01")
    if lam and not shared:
        raise LabError(f"lambda is {lam}, but a plain CNN shares nothing: take the SCNN")
    name = f"{'SCNN' if shared else 'CNN'} {depth}"
    method = {
        "name": f"{name}, lambda {lam:g}" if lam else name, "revision": protocol["revision"], "depth": depth,
        "channels": channels, "templates": depth - 2 if shared else None, "lambda": lam, "folds": protocol["folds"],
    }  # fmt: skip
    config = {
        "model": name,
        "data": "paths",
        "grids": protocol["grids"],
        "training": protocol["training"],
        "method": method,
    }
    return Run(ShortestPaths.name, config, profile, seed)


def contest(profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
    """Figure 3.9: CNN, SCNN and the regularised SCNN, over all seeds."""
    protocol = PROTOCOL[check_profile(profile)]
    kinds: list[tuple[bool, float]] = [(True, 0.0), (False, 0.0), (True, protocol["lambda"])]
    seeds = protocol["seeds"] if seeds is None else seeds
    return [run(profile, *protocol["network"], shared, seed, lam) for seed in seeds for shared, lam in kinds]


def deep(profile: str, seed: int | None = None) -> list[Run]:
    """Figure 3.12: the deep SCNN, the first seed."""
    protocol = PROTOCOL[check_profile(profile)]
    return [run(profile, *protocol["deep"], True, protocol["seeds"][0] if seed is None else seed)]


class Curriculum(Labelled):
    """The task of one run, phase by phase (:class:`lab.training.Task`): binary cross-entropy a cell, F1.

    Args:
        sets: for each phase, training and test grids, on the device to train on. The epochs are divided evenly among
            them.
        training: the configuration's ``training`` part: ``epochs``, ``batch_size``, and ``reestimate``, from how many
            batches BatchNorm is re-estimated for a score (default 0: the running statistics as they are).
    """

    metric = "f1"
    criterion = staticmethod(F.binary_cross_entropy_with_logits)

    def __init__(self, sets: Sequence[tuple[Paths, Paths]], training: Config) -> None:
        self.sets, self.epochs, self.batch_size = list(sets), training["epochs"], training["batch_size"]
        self.reestimated = training.get("reestimate", 0)
        self.device = self.sets[0][0].inputs.device
        self.steps = len(self.sets[0][0]) // self.batch_size
        self.phase = 0
        if self.steps == 0:
            raise LabError(f"a phase has {len(self.sets[0][0])} grids, fewer than one batch of {self.batch_size}")

    def phase_of(self, epoch: int) -> int:
        """The phase, from 0, that an epoch belongs to."""
        return min(epoch * len(self.sets) // self.epochs, len(self.sets) - 1)

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's grids in a shuffled order, as floats; a last, short batch is dropped."""
        self.phase = self.phase_of(epoch)
        grids, _ = self.sets[self.phase]
        source = torch.Generator(self.device).manual_seed(chance(seed, epoch))
        order = torch.randperm(len(grids), generator=source, device=self.device)
        for chosen in order.split(self.batch_size)[start : self.steps]:
            yield _floats(grids.inputs[chosen]), grids.labels[chosen].float()

    def evaluate(self, net: nn.Module) -> float:
        """F1 on the test grids of the phase that is being trained; ``net`` is left as it is."""
        if self.reestimated:
            net = reestimate(copy.deepcopy(net), self.only(self.phase), batches=self.reestimated)
        return score(net, self.sets[self.phase][1])

    def only(self, phase: int) -> Curriculum:
        """One phase alone, which scores a network with the statistics that it has."""
        return Curriculum([self.sets[phase]], {"epochs": self.epochs, "batch_size": self.batch_size})


def _floats(inputs: Tensor) -> Tensor:
    return inputs.float().contiguous(memory_format=torch.channels_last)


def f1(predicted: Tensor, true: Tensor) -> float:
    r"""The F1 score of a binary prediction, :math:`2 \sum_i y_i \hat y_i / (\sum_i y_i + \sum_i \hat y_i)`, from 0 to
    1.

    ``predicted`` and ``true`` are boolean (or 0 and 1), of equal shape; all entries count as one set. (3.20) prints the
    formula without its factor 2, which would give a perfect prediction 0.5. Nothing to find and nothing found is 1.
    """
    if predicted.shape != true.shape:
        raise LabError(f"f1 compares equal shapes, not {tuple(predicted.shape)} and {tuple(true.shape)}")
    hits, total = int((predicted.bool() & true.bool()).sum()), int(predicted.bool().sum()) + int(true.bool().sum())
    return 2 * hits / total if total else 1.0


@torch.no_grad()
def score(net: nn.Module, grids: Paths, batch_size: int = 500) -> float:
    """F1 (3.20, with its factor 2) over all cells of ``grids``, in evaluation mode; the mode is restored."""
    training = net.training
    net.eval()
    with autocast(grids.inputs.device):
        marked = torch.cat([net(_floats(inputs)) > 0 for inputs in grids.inputs.split(batch_size)])
    net.train(training)
    return f1(marked, grids.labels)


@cache
def sets(train: int, test: int, size: int) -> tuple[tuple[Paths, Paths], ...]:
    """Training and test grids of each phase: seeds 0 and 1 of the data set's ``curriculum``, at any size."""
    return tuple(
        (paths(train, distance, phase, size), paths(test, distance, len(CURRICULUM) + phase, size))
        for phase, distance in enumerate(CURRICULUM)
    )


class Chain(Sharing):
    """How this task's networks, plain or shared, are trained: Adam at a constant rate, without weight decay (3.3.3).

    Args:
        task: whose phase the curve states.
        others: as :class:`lab.experiments.sharing.images.Sharing` has them.
    """

    def __init__(self, task: Curriculum, *others: Any) -> None:
        super().__init__(*others)
        self.task = task

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(net.parameters(), lr=training["lr"], fused=True)]

    def observe(self, net: nn.Module) -> dict[str, float]:
        return super().observe(net) | {"phase": self.task.phase + 1}


class ShortestPaths(SharingExperiment):
    """Chains of convolutions that learn to mark shortest paths, phase by phase."""

    name = "paths"
    score = "f1"

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        return [*contest(profile, seeds), *deep(profile, None if seeds is None else seeds[0])]

    def check(self, run: Run) -> None:
        """Nothing that the user could mend: the grids are drawn."""

    def network(self, run: Run) -> nn.Module:
        depth, templates, channels = (run.config["method"][key] for key in ("depth", "templates", "channels"))
        return path_cnn(depth, channels) if templates is None else path_scnn(depth, templates, channels)

    def task(self, run: Run, device: torch.device) -> Curriculum:
        grids = [(train.to(device), test.to(device)) for train, test in sets(**run.config["grids"])]
        return Curriculum(grids, run.config["training"])

    def method(self, run: Run, task: Task) -> Method:
        assert isinstance(task, Curriculum)
        return Chain(task, run.config["method"]["lambda"], 1.0, run.config["training"]["epochs"], MOMENTS)

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        phases = {
            f"f1.phase{row['phase']:.0f}": row["f1"] for row in trainer.curve
        }  # a later epoch replaces an earlier one
        return super().figures(run, trainer, trained, plain) | phases

    def folding_task(self, task: Task) -> Task:
        assert isinstance(task, Curriculum)
        return task.only(-1)

    def tuner(self, run: Run, folded: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(folded.parameters(), lr=run.config["method"]["folds"]["lr"])


# -- scores, on the page and on the scoreboard alike -------------------------------------------------------------------


def end_of_phase(record: Record, phase: float | None = None) -> float:
    """F1 at the end of a phase, by default of the last: that of its last epoch.

    Where a score was taken with the running statistics of BatchNorm, which jump, the end is the mean of the last two
    epochs.
    """
    scores = _scores(record, record["curve"]["phase"][-1] if phase is None else phase)
    return mean(scores[-1:] if "reestimate" in record["config"]["training"] else scores[-2:])


def first_phase(record: Record) -> float:
    """Mean F1 over the epochs of the first phase: the higher, the faster it was learned."""
    return mean(_scores(record, 1))


def _scores(record: Record, phase: float) -> list[float]:
    curve = record["curve"]
    return [f1 for p, f1 in zip(curve["phase"], curve["f1"], strict=True) if p == phase and f1 is not None]


experiment = ShortestPaths()
runs = experiment.runs
