"""What trains a geometric GAN (Section 6.4.1: Table 6.1's last column): the networks of a DCGAN, the hinge loss, and
the optimizers of Chapter 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lab.baselines.optimizers import CHOICES, TABLE, build
from lab.datasets import load
from lab.experiments.base import Experiment
from lab.models.gan import GAN
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer
from lab.training.gan_duel import Duel
from lab.training.gan_generated import Generation, sheet
from lab.training.scores import inception_file
from lab.utils.errors import LabError

OPTIMIZERS = tuple(name for name in TABLE if name not in ("AdamW", "AvaGradW"))
"""Those that have a number in the column: without weight decay the decoupled ones would be the others again."""

# 6.3.3: batches of 64, 60,000 steps with two updates of the discriminator for each of the generator. Here a step is an
# update of the generator and sees two batches, so an epoch has 390 and 154 epochs have 60,060. The betas are those of
# 5.3.3: the section states none for GANs.
HINGE = {
    "loss": "hinge", "critic": 2, "weight_decay": 0.0, "betas": [0.5, 0.999], "lr": 1.0, "finetune_lr": 1.0,
    "finetune_epochs": 0, "schedule": "steps", "steps": [], "factor": 1.0,
}  # fmt: skip
EPSILONS = [1e-8, 1e-6, 1e-4]
ALPHAS = [float(f"{m}e{e}") for e in range(-5, 0) for m in (1, 2)][:-1]
SGD_ALPHAS = [float(f"{m}e{e}") for e in range(-6, 1) for m in (1, 2)][:-1]
BEST = {"Adam": (2e-4, 1e-6)}
"""6.4.1 states one optimum."""

PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini", "width": 16, "seeds": (0,), "inception": False, "optimizers": ("Adam", "AvaGrad"),
        "training": HINGE | {"epochs": 3, "batch_size": 32, "samples": 500, "evaluate_every": 3},
        "cells": {"Adam": [(1e-3, 1e-6)], "AvaGrad": [(1e-2, 1e-6)]},
    },
    "short": {
        "data": "cifar10", "width": 64, "seeds": (0,), "inception": False, "optimizers": ("Adam", "AvaGrad"),
        "training": HINGE | {"epochs": 10, "batch_size": 64, "samples": 10_000, "evaluate_every": 5},
    },
    "paper": {
        "data": "cifar10", "width": 64, "seeds": (0,), "inception": True, "optimizers": OPTIMIZERS,
        "training": HINGE | {"epochs": 154, "batch_size": 64, "samples": 10_000, "evaluate_every": 14},
    },
}  # fmt: skip


def cells(profile: str, optimizer: str) -> list[tuple[float, float | None]]:
    """The pairs (alpha, epsilon) that are tried: 6.3.3's, those that the thesis names as best first."""
    few = PROTOCOL[profile].get("cells", {}).get(optimizer)
    if few is not None:
        return list(few)
    grid: list[tuple[float, float | None]] = [(a, None) for a in SGD_ALPHAS]
    if optimizer != "SGD":
        grid = [(a, e) for e in EPSILONS for a in ALPHAS]
    return sorted(grid, key=lambda cell: cell != BEST.get(optimizer))


class Optimized(Method):
    """One optimizer for both networks, each with a state of its own."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def optimizers(self, net: GAN, training: Config) -> list[torch.optim.Optimizer]:
        name, alpha, epsilon = (self.config[key] for key in ("name", "alpha", "epsilon"))
        options = {"momentum": training["betas"][0]} if name == "SGD" else {"betas": tuple(training["betas"])}
        return [
            build(name, list(part.parameters()), alpha, epsilon, **options)
            for part in (net.discriminator, net.generator)
        ]


class GANs(Experiment):
    """A generator and a discriminator trained against each other; the generator is kept, with a sheet of 32 images."""

    score = "fd"
    trainer = Duel

    def network(self, run: Run) -> GAN:
        return GAN(width=run.config["width"])

    def task(self, run: Run, device: torch.device) -> Generation:
        data = load(run.config["data"], "train").to(device), load(run.config["data"], "test").to(device)
        return Generation(data, run.config["training"])

    def check(self, run: Run) -> None:
        super().check(run)
        if run.config["inception"]:
            inception_file()

    def harden(self, trained: nn.Module) -> nn.Module:
        plain = super().harden(trained.generator)
        plain.latent = trained.latent
        return plain

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        """The distance to real images; with FID and Inception Score where the user brought their network."""
        return {"fd": trainer.evaluate(plain)} | (trainer.task.inception(plain) if run.config["inception"] else {})

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any]:
        return {"samples": sheet(trainer.task.sample(plain, 32), 8)}


class GeometricGAN(GANs):
    """One optimizer for both networks of a GAN at one (alpha, epsilon); the column holds each optimizer's best."""

    name, chapter = "ggan", 6
    point = ("alpha", "epsilon")

    def run(self, profile: str, optimizer: str, alpha: float, epsilon: float | None, seed: int = 0) -> Run:
        """One run: ``run("quick", "AvaGrad", 1e-2, 1e-6)``; SGD's epsilon is None."""
        protocol = PROTOCOL[check_profile(profile)]
        if optimizer not in CHOICES:
            raise LabError(f"unknown optimizer {optimizer!r}: choose one of {', '.join(CHOICES)}")
        if not alpha > 0:
            raise LabError(f"alpha must be a positive number, not {alpha}: it is the learning rate")
        config = {"model": "ggan"} | {key: protocol[key] for key in ("width", "data", "inception", "training")}
        method = {"name": optimizer, "revision": 1, "alpha": alpha, "epsilon": epsilon}
        return Run(self.name, config | {"method": method}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All cells of all optimizers."""
        protocol = PROTOCOL[check_profile(profile)]
        return [
            self.run(profile, name, alpha, epsilon, seed)
            for seed in seeds or protocol["seeds"]
            for name in protocol["optimizers"]
            for alpha, epsilon in cells(profile, name)
        ]

    def method(self, run: Run, task: Task) -> Method:
        return Optimized(run.config["method"])


experiment = GeometricGAN()
run, runs = experiment.run, experiment.runs
