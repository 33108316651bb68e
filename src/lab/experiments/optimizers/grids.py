"""Grids over (alpha, epsilon) (Section 6.4.2: Figures 6.1 to 6.4), which the tuning of 6.4.3 reads as tables.

A run is one whole grid: every cell trains the same network from the same weights on the same batches, and only the two
numbers differ. Neighbouring cells are trained side by side, so that a batch is prepared once for all of them.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab.baselines.optimizers import CHOICES, TABLE, build
from lab.datasets import CLASSES, Images, load
from lab.datasets.text import TEXTS, load_text
from lab.experiments.base import Experiment
from lab.figures.grid.recording import grid_recording, median_root_v
from lab.models import registry as models
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Classification, Config, Stopped, Task, rate
from lab.training.language import Characters
from lab.utils.errors import LabError
from lab.utils.files import resuming, save_tensors
from principled import AvaGrad

OPTIMIZERS = ("Adam", "AvaGrad")
"""Of the figures."""

Cell = tuple[float, float | None, float | None, float | None]
"""alpha, epsilon, validation score (None: the loss was no longer finite), median of the root of v."""

# 6.3.3: {1e-8, 2e-8, 1e-7, ..., 100} and {5e-7, 1e-6, 5e-6, ..., 5000}, 21 values each, 441 cells
EPSILONS = [float(f"{m}e{e}") for e in range(-8, 3) for m in (1, 2)][:-1]
ALPHAS = [float(f"{m}e{e}") for e in range(-7, 4) for m in (1, 5)][1:]

# The thesis's steps, as parts of the schedule: epochs 60, 120 and 160 of 200, each time by 5.
STEPS = {"schedule": "steps", "steps": [0.3, 0.6, 0.8], "factor": 0.2, "weight_decay": 5e-4}

# 6.3.3, language: {1e-8, 5e-7, ..., 100} (its second value is read as 5e-8: no even grid has it) and {2e-4, 1e-3, ...,
# 20}
TEXT_EPSILONS = [float(f"{m}e{e}") for e in range(-8, 3) for m in (1, 5)][:-1]
TEXT_ALPHAS = [float(f"{m}e{e}") for e in range(-4, 2) for m in (1, 2)][1:]
TEXT_STEPS = {"schedule": "steps", "steps": [0.6, 0.8], "factor": 0.1, "weight_decay": 1.2e-6, "clip": 0.25}

PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini", "model": "small CNN", "validation": 500, "seeds": (0,), "together": 7,
        "training": {"epochs": 5, "batch_size": 64} | STEPS,
        "alphas": [10.0**k for k in range(-4, 3)], "epsilons": [1e-8, 1e-6, 1e-4, 1e-2, 1.0, 100.0],
    },
    "short": {
        "data": "cifar10", "model": "small CNN", "validation": 5000, "seeds": (0,), "together": 21,
        "training": {"epochs": 1, "batch_size": 128} | STEPS, "alphas": ALPHAS, "epsilons": EPSILONS,
    },
    "paper": {
        "data": "cifar10", "model": "WRN 28-4", "validation": 5000, "seeds": (0,), "together": 1,
        "training": {"epochs": 200, "batch_size": 128} | STEPS, "alphas": ALPHAS, "epsilons": EPSILONS,
    },
}  # fmt: skip
"""Of the images. ``validation``: training images held out to score each cell; ``together``: cells side by side, which
changes no result."""

# A small AvaGrad at a small epsilon wants rates far above 20: few coordinates with a tiny v make up the norm. Hence the
# longer axis.
TEXT: dict[str, dict[str, Any]] = {
    "short": {
        "data": "moby-dick", "model": "3xLSTM(64)", "seeds": (0,), "together": 17,
        "training": {"epochs": 1, "batch_size": 32, "bptt": 32} | TEXT_STEPS,
        "alphas": [float(f"{m}e{e}") for e in range(-4, 5) for m in (1, 2)][1:], "epsilons": EPSILONS[::2],
    },
    "paper": {
        "data": "ptb", "model": "3xLSTM(300)", "seeds": (0,), "together": 1,
        "training": {"epochs": 500, "batch_size": 128, "bptt": 150} | TEXT_STEPS,
        "alphas": TEXT_ALPHAS, "epsilons": TEXT_EPSILONS,
    },
}  # fmt: skip
"""Of the text; none at profile quick."""

ADABELIEF_EPSILON = 1e-8
"""On text AdaBelief's epsilons are smaller by this factor (6.3.3): it adds epsilon to a variance in every step."""

PARTS = {"images": PROTOCOL, "text": TEXT}

ADAPTIVE = tuple(name for name in TABLE if CHOICES[name].eps is not None)
"""All that have an epsilon to tune."""


def held_out(data: Images, count: int) -> tuple[Images, Images]:
    """``data`` without ``count`` random images, and those (6.3.3): the same ones in every run, whatever its seed."""
    if not 0 < count < len(data):
        raise LabError(f"cannot hold {count} of {len(data)} images out: choose a number between")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).to(data.labels.device)
    rest, held = (replace(data, images=data.images[i], labels=data.labels[i]) for i in (order[count:], order[:count]))
    return rest, held


class Optimization(Experiment):
    """A network trained by one optimizer on images or text, scored on what is held out of the training data, or on test
    data."""

    chapter = 6

    def tests(self, run: Run) -> bool:
        """Whether the run is scored on test data."""
        return run.config["method"].get("stage") == "test"

    def network(self, run: Run) -> nn.Module:
        """The plain network; a language model also has as many carried states as a batch has sequences."""
        name, data = run.config["model"], run.config["data"]
        if data in TEXTS:
            return models.build(name, len(load_text(data).alphabet), batch=run.config["training"]["batch_size"])
        return models.build(name, CLASSES[data])

    def task(self, run: Run, device: torch.device) -> Task:
        """Characters or images."""
        data, training = run.config["data"], run.config["training"]
        if data in TEXTS:
            return Characters(load_text(data).to(device), training, "test" if self.tests(run) else "valid")
        if self.tests(run):
            return super().task(run, device)
        return Classification(held_out(load(data, "train").to(device), run.config["validation"]), training)

    def check(self, run: Run) -> None:
        if run.config["data"] in TEXTS:
            load_text(run.config["data"])
        else:
            super().check(run)

    def sweep(
        self, run: Run, cells: Sequence[tuple[float, float | None]], together: int, device: torch.device,
        checkpoint: Path, on_epoch: Callable[[int], None], stop: Callable[[], bool],
    ) -> Sweep:  # fmt: skip
        """The trainings of a run that tries several (alpha, epsilon)."""
        task = self.task(run, device)
        torch.manual_seed(run.seed)
        net = self.network(run).to(device, memory_format=torch.channels_last)
        return Sweep(
            run.id, net, run.config["method"]["name"], cells, run.config["training"], task, together,
            seed=run.seed, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop,
        )  # fmt: skip


class Grids(Optimization):
    """Whole grids, one optimizer and seed a run."""

    name = "grids"

    def run(self, profile: str, name: str, seed: int = 0, part: str = "images") -> Run:
        """The grid of one optimizer and one seed; ``part``: ``"images"`` (Figures 6.1, 6.2) or ``"text"`` (6.3,
        6.4)."""
        check_profile(profile)
        if part not in PARTS or profile not in PARTS[part]:
            raise LabError(
                f"there is no grid of {part!r} at profile {profile}: choose images, or text at short or paper"
            )
        protocol = PARTS[part][profile]
        if name not in ADAPTIVE:
            raise LabError(f"there are grids for {', '.join(ADAPTIVE)}, not for {name!r}")
        epsilons = protocol["epsilons"]
        if part == "text" and name == "AdaBelief":
            epsilons = [float(f"{eps * ADABELIEF_EPSILON:.12g}") for eps in epsilons]
        config = {key: protocol[key] for key in ("model", "data", "validation", "training") if key in protocol}
        method = {"name": name, "revision": 1, "alphas": protocol["alphas"], "epsilons": epsilons}
        return Run(self.name, config | {"method": method}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None, part: str | None = None) -> list[Run]:
        """Adam's and AvaGrad's grids, seed by seed; at profile paper then the other adaptive methods', which Tables 6.1
        and 6.2 need.

        ``part``: only ``"images"`` or only ``"text"``.
        """
        check_profile(profile)
        parts = [name for name in PARTS if part in (None, name) and profile in PARTS[name]]
        declared = [
            self.run(profile, optimizer, seed, name)
            for name in parts
            for seed in seeds or PARTS[name][profile]["seeds"]
            for optimizer in OPTIMIZERS
        ]
        if profile == "paper":
            others = [optimizer for optimizer in ADAPTIVE if optimizer not in OPTIMIZERS]
            declared += [self.run(profile, optimizer, 0, name) for name in parts for optimizer in others]
        return declared

    def together(self, run: Run) -> int:
        """How many cells are trained side by side."""
        return int(PARTS["text" if run.config["data"] in TEXTS else "images"][run.profile]["together"])

    def epochs(self, run: Run) -> int:
        """Those of all blocks of cells."""
        cells = len(run.config["method"]["alphas"]) * len(run.config["method"]["epsilons"])
        return math.ceil(cells / self.together(run)) * int(run.config["training"]["epochs"])

    def compute(
        self, run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> dict[str, Any]:  # fmt: skip
        """Train all cells of one grid; figures and recording as :func:`lab.runs.records.write` takes them."""
        method = run.config["method"]
        cells = [(alpha, eps) for eps in method["epsilons"] for alpha in method["alphas"]]
        sweep = self.sweep(run, cells, self.together(run), device, checkpoint, on_epoch, stop)
        trained, metric = sweep.run(), sweep.task.metric
        axes = {key: method[key] for key in ("alphas", "epsilons")}
        name, unit = method["name"], "BPC" if metric == "bpc" else metric
        recording = grid_recording(optimizer=name, network=run.config["model"], metric=unit, cells=trained, **axes)
        return {"figures": figures(trained, metric), "curve": [], "seconds": sweep.elapsed(), "recording": recording}


def pair(profile: str, part: str = "images") -> list[Run]:
    """Adam's and AvaGrad's grids of a part, which the maps and the searches compare."""
    return [run for run in experiment.runs(profile, part=part) if run.config["method"]["name"] in OPTIMIZERS]


def figures(cells: Sequence[Cell], metric: str) -> dict[str, float]:
    """What a grid amounts to: its best cell, how many diverged, how many come close to the best.

    Close is within so many hundredths: ``within_1`` of 1 point of accuracy, or of 0.01 bits per character.
    """
    sign = -1 if metric == "bpc" else 1
    finished = [(sign * score, alpha, eps) for alpha, eps, score, _ in cells if score is not None]
    if not finished:
        raise LabError("every cell of the grid diverged: there is no best one")
    best, alpha, eps = max(finished)
    close = {
        f"within_{hundredths}": sum(s >= best - hundredths / 100 for s, *_ in finished) / len(cells)
        for hundredths in (1, 5)
    }
    diverged = float(len(cells) - len(finished))
    counts = {"cells": float(len(cells)), "diverged": diverged}
    return {metric: sign * best, "alpha": alpha, "epsilon": eps} | counts | close


LOOK = 50  # steps between two looks at the loss: often enough to save a diverged cell's time, too rare to cost any


PLACE = ("done", "epoch", "step", "alive", "losses")
"""Where a sweep is: what a checkpoint holds beside networks and optimizers."""


class Sweep:
    """Networks that differ in (alpha, epsilon) alone, trained ``together`` at a time: ``Sweep(...).run()``.

    Each has an optimizer of its own. They share the batches, which are what a run of one cell alone would see
    (:func:`lab.training.chance`), so how many stand side by side changes no result.

    Args:
        identity: the run's id; a checkpoint of another run is refused.
        net: the network, with the weights that every cell starts from.
        optimizer: a name for :func:`lab.baselines.optimizers.build`.
        cells: ``(alpha, epsilon)``; epsilon is None for SGD.
        training: ``epochs``, ``weight_decay``, the schedule, and ``clip``, the gradient's largest norm (default: any).
        task: what is learned.
        together, seed, checkpoint, every, on_epoch, stop: as for :class:`lab.training.Trainer`.
    """

    def __init__(
        self, identity: str, net: nn.Module, optimizer: str, cells: Sequence[tuple[float, float | None]],
        training: Config, task: Task, together: int, *,
        seed: int = 0, checkpoint: Path | None = None, every: float = 10.0,
        on_epoch: Callable[[int], None] = lambda epoch: None, stop: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self.identity, self.net, self.optimizer, self.cells = identity, net, optimizer, list(cells)
        self.training, self.task, self.together, self.seed = training, task, together, seed
        self.checkpoint, self.every, self.on_epoch, self.stop = checkpoint, every, on_epoch, stop
        self.done: list[list[float | None]] = []  # score and root of v, cell by cell
        self.epoch, self.step = 0, 0  # of the block that is being trained
        self.seconds, self._clock = 0.0, time.monotonic()
        self._saved = self._clock
        self._begin()
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)

    def _begin(self) -> None:
        """A new block of networks."""
        self.block = self.cells[len(self.done) : len(self.done) + self.together]
        self.nets = [copy.deepcopy(self.net) for _ in self.block]
        decay, clip = self.training["weight_decay"], self.training.get("clip")
        self.optimizers = [
            build(self.optimizer, net.parameters(), alpha, eps, decay, clip=clip)
            for net, (alpha, eps) in zip(self.nets, self.block, strict=True)
        ]
        self.alive = [True] * len(self.block)
        self.losses = torch.zeros(len(self.block), device=self.task.device)
        self.epoch, self.step = 0, 0

    def run(self) -> list[Cell]:
        """Train every cell and return them in their order."""
        while self.block:
            while self.epoch < self.training["epochs"]:
                self._rest_of_epoch()
                self.epoch, self.step = self.epoch + 1, 0
                self.on_epoch(self.epoch)
            for net, optimizer, alive in zip(self.nets, self.optimizers, self.alive, strict=True):
                self.done.append([self.task.evaluate(net), _root_v(optimizer)] if alive else [None, None])
            self._begin()
            if self.checkpoint is not None:
                self._save(self.checkpoint)
        return [(alpha, eps, *rest) for (alpha, eps), rest in zip(self.cells, self.done, strict=True)]

    def _rest_of_epoch(self) -> None:
        for batch in self.task.batches(self.seed, self.epoch, self.step):
            progress = (self.epoch + self.step / self.task.steps) / self.training["epochs"]
            factor = rate(self.training, progress)
            for i, (net, optimizer, (alpha, _)) in enumerate(zip(self.nets, self.optimizers, self.block, strict=True)):
                if self.alive[i]:
                    optimizer.param_groups[0]["lr"] = alpha * factor
                    loss = self.task.loss(net, batch)
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    self.losses[i] += loss.detach()
            self.step += 1
            if self.step % LOOK == 0 or self.step == self.task.steps:
                self.alive = self.losses.isfinite().tolist()
            self._after_step()

    def _after_step(self) -> None:
        if self.checkpoint is None or self.step == self.task.steps:
            return
        if self.stop():
            self._save(self.checkpoint)
            raise Stopped(f"stopped after {len(self.done)} of {len(self.cells)} cells; the checkpoint is written")
        if time.monotonic() - self._saved >= self.every:
            self._save(self.checkpoint)

    def elapsed(self) -> float:
        """Seconds of work, those before an interruption included."""
        return self.seconds + time.monotonic() - self._clock

    def _save(self, path: Path) -> None:
        state = {name: getattr(self, name) for name in ("identity", *PLACE)}
        state |= {"seconds": self.elapsed(), "nets": [net.state_dict() for net in self.nets]}
        save_tensors(path, state | {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]})
        self._saved = time.monotonic()

    def _resume(self, path: Path) -> None:
        with resuming(path, self.identity, self.task.device, (*PLACE, "seconds", "nets", "optimizers")) as state:
            self.done = state["done"]
            self._begin()
            for name in (*PLACE, "seconds"):
                setattr(self, name, state[name])
            for net, optimizer, weights, saved in zip(
                self.nets, self.optimizers, state["nets"], state["optimizers"], strict=True
            ):
                net.load_state_dict(weights)
                optimizer.load_state_dict(saved)


def _root_v(optimizer: torch.optim.Optimizer) -> float | None:
    if not isinstance(optimizer, torch.optim.Adam | AvaGrad):  # others keep something else, or nothing
        return None
    value = median_root_v(optimizer)
    return value if math.isfinite(value) and value > 0 else None


experiment = Grids()
run, runs = experiment.run, experiment.runs
