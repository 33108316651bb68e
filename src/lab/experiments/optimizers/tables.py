"""Ten optimizers on images and text, each at its own best (alpha, epsilon) (6.3.3, 6.4.1: Tables 6.1 and 6.2).

As in the thesis, settings are searched on a validation set with a small network, and transferred: the runs of the
tables train the network of the table with them and are scored on test data. So a run rests on the record of a search,
which it names by its id; a search that is not recorded yet is computed first. At profile ``paper`` the searches of the
adaptive methods are the grids of :mod:`grids`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab.baselines.optimizers import CHOICES, TABLE, build
from lab.experiments.first import recorded
from lab.runs import Record, Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer
from lab.training.gan_duel import OwnOptimizers
from lab.training.imagenet import ImageNet
from lab.utils.errors import LabError

from . import grids

Trials = list[tuple[float, float | None]]

PARTS = {"cifar10": "images", "cifar100": "images", "imagenet": "images", "text": "text", "wide text": "text"}
"""The columns of the tables, and the search that each takes its settings from. (The GAN is another experiment's.)"""

STEPS = grids.STEPS | {"finetune_epochs": 0}
TEXT_STEPS = grids.TEXT_STEPS | {"finetune_epochs": 0}

SEARCH: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "images": {"data": "cifar10-mini", "model": "small CNN", "validation": 500,
                   "training": {"epochs": 4, "batch_size": 64} | STEPS},
        "text": {"data": "moby-dick", "model": "LSTM(48)",
                 "training": {"epochs": 1, "batch_size": 64, "bptt": 32} | TEXT_STEPS},
    },
    "short": {
        "images": {"data": "cifar10", "model": "small CNN", "validation": 5000,
                   "training": {"epochs": 2, "batch_size": 128} | STEPS},
        "text": {"data": "moby-dick", "model": "3xLSTM(64)",
                 "training": {"epochs": 4, "batch_size": 32, "bptt": 32} | TEXT_STEPS},
    },
    "paper": {part: {key: grids.PARTS[part]["paper"][key] for key in ("data", "model", "training")}
              for part in grids.PARTS},
}  # fmt: skip
"""Where settings are searched. At ``paper`` for SGD alone, which has no epsilon; ``validation``: images held out."""
SEARCH["paper"]["images"]["validation"] = grids.PROTOCOL["paper"]["validation"]

PROTOCOL: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "cifar10": {"data": "cifar10-mini", "model": "small CNN", "seeds": (0, 1, 2),
                    "training": {"epochs": 4, "batch_size": 64, "evaluate_every": 4} | STEPS},
        "text": {"data": "moby-dick", "model": "LSTM(48)", "seeds": (0, 1, 2),
                 "training": {"epochs": 1, "batch_size": 64, "bptt": 32} | TEXT_STEPS},
    },
    "short": {
        "cifar10": {"data": "cifar10", "model": "WRN 16-2", "seeds": (0, 1, 2),
                    "training": {"epochs": 10, "batch_size": 128} | STEPS},
        "cifar100": {"data": "cifar100", "model": "WRN 16-2", "seeds": (0,),
                     "training": {"epochs": 10, "batch_size": 128} | STEPS},
        "text": {"data": "moby-dick", "model": "3xLSTM(128)", "seeds": (0, 1, 2),
                 "training": {"epochs": 10, "batch_size": 32, "bptt": 32} | TEXT_STEPS},
    },
    "paper": {
        "cifar10": {"data": "cifar10", "model": "WRN 28-10", "seeds": (0, 1, 2),
                    "training": {"epochs": 200, "batch_size": 128} | STEPS},
        "cifar100": {"data": "cifar100", "model": "WRN 28-10", "seeds": (0, 1, 2),
                     "training": {"epochs": 200, "batch_size": 128} | STEPS},
        "imagenet": {"data": "imagenet", "model": "ResNet-50", "seeds": (0,),
                     "training": {"epochs": 100, "batch_size": 256, "schedule": "steps", "steps": [0.3, 0.6, 0.9],
                                  "factor": 0.1, "weight_decay": 1e-4, "finetune_epochs": 0}},
        "text": {"data": "ptb", "model": "3xLSTM(300)", "seeds": (0, 1, 2),
                 "training": {"epochs": 500, "batch_size": 128, "bptt": 150} | TEXT_STEPS},
        "wide text": {"data": "ptb", "model": "3xLSTM(1000)", "seeds": (0, 1, 2),
                      "training": {"epochs": 500, "batch_size": 128, "bptt": 150} | TEXT_STEPS},
    },
}  # fmt: skip
"""What the tables' runs train; ``paper`` is 6.3.3 (epochs 60, 120, 160 of 200; 30, 60, 90 of 100; 300, 400 of 500)."""

# The reduced searches give each method as many trials as the next one, in rows of falling adaptivity. Their rates lie
# around what a first look at each method found best; the thesis's grid, the same for all, takes 441 trials a method
# instead.
Rates = dict[str, dict[float | None, tuple[float, ...]]]

ADAM: Rates = {"quick": {1e-8: (3e-3, 1e-2), 1.0: (0.3, 1.0)}}
ADAM["short"] = {1e-8: (1e-3, 3e-3, 1e-2, 3e-2), 1e-3: (3e-3, 1e-2, 3e-2, 0.1), 1.0: (0.3, 1.0, 3.0, 10.0)}
AVAGRAD: Rates = {"quick": {1e-3: (1.0, 3.0), 1.0: (1.0, 3.0)}}
AVAGRAD["short"] = {eps: (0.3, 1.0, 3.0, 10.0) for eps in (1e-8, 1e-3, 1.0)}
SGD: Rates = {"quick": {None: (0.03, 0.1, 0.3, 1.0)}}
SGD["short"] = {None: tuple(float(f"{m}e{e}") for e in range(-4, 2) for m in (1, 3))}
RADAM: Rates = {
    "quick": {1e-8: (1e-2, 3e-2), 1.0: (1.0, 3.0)},
    "short": ADAM["short"],
}  # few steps are mostly its warm-up

TEXT_ADAM: Rates = {"quick": {eps: (0.01, 0.03) for eps in (1e-8, 1e-4)}}
TEXT_ADAM["short"] = {eps: (3e-3, 0.01, 0.03) for eps in (1e-8, 1e-6, 1e-4)}
TEXT_AVAGRAD: Rates = {"quick": {eps: (100.0, 300.0) for eps in (1e-6, 1e-4)}}
TEXT_AVAGRAD["short"] = {eps: (30.0, 100.0, 300.0) for eps in (1e-8, 1e-6, 1e-4)}
TEXT_SGD: Rates = {
    "quick": {None: (0.3, 1.0, 3.0, 10.0)},
    "short": {None: (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)},
}
TEXT_RADAM: Rates = {"quick": {eps: (0.03, 0.1) for eps in (1e-8, 1e-4)}, "short": TEXT_ADAM["short"]}
TEXT_ADASHIFT: Rates = {"quick": {eps: (0.3, 1.0) for eps in (1e-8, 1e-4)}}
TEXT_ADASHIFT["short"] = {eps: (0.1, 0.3, 1.0) for eps in (1e-8, 1e-6, 1e-4)}
TEXT_ADABELIEF: Rates = {"quick": {eps: (0.01, 0.03) for eps in (1e-16, 1e-12)}}
TEXT_ADABELIEF["short"] = {eps: (3e-3, 0.01, 0.03) for eps in (1e-16, 1e-14, 1e-12)}

RATES: dict[str, dict[str, Rates]] = {
    "images": {name: ADAM for name in TABLE} | {"SGD": SGD, "RAdam": RADAM, "AvaGrad": AVAGRAD, "AvaGradW": AVAGRAD},
    "text": {name: TEXT_ADAM for name in TABLE} | {
        "SGD": TEXT_SGD, "AdaShift": TEXT_ADASHIFT, "RAdam": TEXT_RADAM, "AdaBelief": TEXT_ADABELIEF,
        "AvaGrad": TEXT_AVAGRAD, "AvaGradW": TEXT_AVAGRAD,
    },
}  # fmt: skip


def trials(profile: str, part: str, name: str) -> Trials:
    """The settings that a search of this experiment tries."""
    if profile == "paper":  # the thesis's rates; grids has the methods with an epsilon
        return [(alpha, None) for alpha in grids.PARTS[part]["paper"]["alphas"]]
    return [(alpha, eps) for eps, alphas in RATES[part][name][profile].items() for alpha in alphas]


def search(profile: str, part: str, name: str) -> Run:
    """The search that gives one optimizer its settings on ``"images"`` or ``"text"``: this experiment's, or a grid."""
    check_profile(profile)
    if name not in TABLE:
        raise LabError(f"unknown optimizer {name!r} in Tables 6.1 and 6.2: choose one of {', '.join(TABLE)}")
    if part not in grids.PARTS:
        raise LabError(f"unknown search {part!r}: choose images or text")
    if profile == "paper" and CHOICES[name].eps is not None:
        return grids.run(profile, name, 0, part)
    cells = [list(cell) for cell in trials(profile, part, name)]
    method = {"name": name, "revision": 1, "stage": "search", "trials": cells}
    return Run(Tables.name, SEARCH[profile][part] | {"method": method}, profile, 0)


def column(profile: str, task: str, name: str | None = None) -> list[Run]:
    """All runs of a column of the tables, or those of one optimizer; none where the profile has no such task."""
    if task not in PROTOCOL[check_profile(profile)]:
        return []
    names = [n for n in TABLE if name in (None, n) and (task, n) != ("imagenet", "AdaShift")]
    return [run(profile, task, n, seed) for seed in PROTOCOL[profile][task]["seeds"] for n in names]


def searches(profile: str) -> list[Run]:
    """The searches that are this experiment's own."""
    every = [search(profile, part, name) for part in grids.PARTS for name in TABLE]
    return [run for run in every if run.experiment == Tables.name]


def contest(profile: str) -> list[Run]:
    """The searches, and the runs of the two columns that the page repeats: images and text."""
    return searches(profile) + column(profile, "cifar10") + column(profile, "text")


def search_of(run: Run) -> Run:
    """The search that a run of the tables takes its settings from."""
    name, wanted = run.config["method"]["name"], run.config["method"]["search"]
    for part in grids.PARTS:
        if (declared := search(run.profile, part, name)).id == wanted:
            return declared
    raise LabError(f"run {run.id} rests on search {wanted}, which is not declared any more: record the run anew")


def settings(record: Record) -> tuple[float, float | None]:
    """(alpha, epsilon) of a finished run: what a search or a grid found best, or what a run of the tables was trained
    with."""
    if record["experiment"] == Tables.name:
        return record["recording"]["alpha"], record["recording"]["epsilon"]
    grid = record["recording"]["grid"]  # figures have six decimals, which is too few for an epsilon
    sign = -1 if grid["metric"] == "BPC" else 1
    cells = [
        (sign * score, alpha, eps)
        for eps, row in zip(grid["epsilons"], grid["score"], strict=True)
        for alpha, score in zip(grid["alphas"], row, strict=True)
        if score is not None
    ]
    _, alpha, eps = max(cells)
    return alpha, eps


class Tuned(Method):
    """A plain network, trained by one optimizer at (alpha, epsilon)."""

    def __init__(self, name: str, alpha: float, eps: float | None) -> None:
        self.name, self.alpha, self.eps = name, alpha, eps

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        decay, clip = training["weight_decay"], training.get("clip")
        return [build(self.name, net.parameters(), self.alpha, self.eps, decay, clip)]


class Tables(grids.Optimization):
    """Searches (stage ``search``), and trainings at the setting that a search found best (stage ``test``)."""

    name = "optimizers"
    point = ("stage",)
    trainer = OwnOptimizers

    def run(self, profile: str, task: str, name: str, seed: int = 0) -> Run:
        """One number of the tables: ``run("paper", "cifar10", "AvaGrad")``; ``task``: one of :data:`PARTS` at that
        profile."""
        tasks = PROTOCOL[check_profile(profile)]
        if task not in tasks:
            raise LabError(f"there is no task {task!r} at profile {profile}: choose one of {', '.join(tasks)}")
        if task == "imagenet" and name == "AdaShift":
            raise LabError(
                "the tables have no AdaShift on ImageNet: the gradients that it keeps did not fit into memory"
            )
        method = {"name": name, "revision": 1, "stage": "test", "search": search(profile, PARTS[task], name).id}
        config = {key: tasks[task][key] for key in ("data", "model", "training")}
        return Run(self.name, config | {"method": method}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """The searches, then every column's first seed, then the other seeds; ImageNet last."""
        tests = [run for task in PROTOCOL[check_profile(profile)] for run in column(profile, task)]
        if seeds is not None:
            tests = [run for run in tests if run.seed in seeds]
        return searches(profile) + sorted(tests, key=lambda run: (run.config["data"] == "imagenet", run.seed))

    def epochs(self, run: Run) -> int:
        """A search's are those of all its trials."""
        return int(run.config["training"]["epochs"]) * len(run.config["method"].get("trials", (None,)))

    def method(self, run: Run, task: Task) -> Method:
        """The optimizer at the setting of its search, which is computed first if it is not recorded."""
        return Tuned(run.config["method"]["name"], *settings(recorded(search_of(run), task.device)))

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        task = trainer.task
        top5 = {"top5": task.evaluate(plain, among=5)} if isinstance(task, ImageNet) else {}
        return {task.metric: trainer.curve[-1][task.metric]} | top5

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any]:
        """The setting."""
        assert isinstance(trainer.method, Tuned)
        return {"alpha": trainer.method.alpha, "epsilon": trainer.method.eps}

    def compute(
        self, run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> dict[str, Any]:  # fmt: skip
        """Search, or train with what a search found; the networks are not kept."""
        if self.tests(run):
            result = super().compute(run, device, checkpoint, on_epoch, stop)
            return {key: value for key, value in result.items() if key != "model"}
        cells = [(alpha, eps) for alpha, eps in run.config["method"]["trials"]]
        sweep = self.sweep(run, cells, 1, device, checkpoint, on_epoch, stop)
        trained, metric = sweep.run(), sweep.task.metric
        summary = grids.figures(trained, metric)
        figures = {key: summary[key] for key in (metric, "diverged", "within_1")}
        sign = -1 if metric == "bpc" else 1
        alpha, eps, _ = max(
            ((alpha, eps, sign * score) for alpha, eps, score, _ in trained if score is not None),
            key=lambda cell: cell[2],
        )
        recording = {"alpha": alpha, "epsilon": eps, "trials": [list(cell[:3]) for cell in trained]}
        return {"figures": figures, "curve": [], "seconds": sweep.elapsed(), "recording": recording}


experiment = Tables()
run, runs = experiment.run, experiment.runs
