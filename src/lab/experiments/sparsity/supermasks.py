"""Supermasks (4.5.3: Figures 4.9, 4.10): masks that make a network of random, frozen weights good at its task.

Only the mask is trained: by Continuous Sparsification (CS), or by drawing it at random each step (SS).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab.baselines.stochastic import StochasticMask
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, chance
from principled import ContinuousMask, Relaxed
from principled.tickets import freeze, warn_of_removed_layers

from .common import Sparsification, Sparsifier, configure, masked_names, where
from .selection import layer_zeros, sparsities, zeros

# `paper` is 4.3.3: 100 epochs; Adam at 3e-4 for CS's mask, SGD at 100 for the stochastic one. The thesis sets sparsity
# by s_init and lambda, and does not list the values. Shorter schedules need higher rates.
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "model": "conv6-quarter", "data": "cifar10-mini",
        "training": {"epochs": 8, "batch_size": 50, "lr": 0.1},
        "lr_supermask": 0.02, "lr_ss": 1e4,
        "supermask": [{"s_init": -0.2}, {"s_init": 0.0}, {"s_init": 0.2}], "ss": [{"s_init": 0.0}, {"s_init": -1.0}],
        "seeds": (0,),
    },
    "short": {
        "model": "conv6", "data": "cifar10",
        "training": {"epochs": 15, "batch_size": 60, "lr": 0.1},
        "lr_supermask": 2e-3, "lr_ss": 1e3,
        "supermask": [{"s_init": s} for s in (-0.1, -0.05, 0.0, 0.05)],
        "ss": [{"s_init": s} for s in (-2.0, -1.0, 0.0, 1.0)],
        "seeds": (0,),
    },
    "paper": {
        "model": "conv6", "data": "cifar10",
        "training": {"epochs": 100, "batch_size": 60, "lr": 0.1},
        "lr_supermask": 3e-4, "lr_ss": 100.0,
        "supermask": [{"s_init": s} for s in (-0.2, -0.1, -0.05, 0.0, 0.05, 0.1)] + [{"s_init": 0.0, "lambda": 1e-6}],
        "ss": [{"s_init": s} for s in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0)] + [{"s_init": 0.0, "lambda": 1e-6}],
        "seeds": (0, 1, 2),
    },
}  # fmt: skip

CONSTANT = {
    "finetune_epochs": 0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "schedule": "steps", "steps": [],
    "factor": 0.1,
}  # fmt: skip
"""What the loop wants to know beside; there is no schedule, and the weights do not move."""


class Supermask(Sparsifier):
    """A mask alone, found by Continuous Sparsification; the weights stay as they were drawn."""

    needed = "s_init"

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        rate = protocol["lr_supermask"]
        return {"revision": 1, "lambda": 1e-8, "beta_final": 200.0, "lr_s": rate, "variant": "thesis"}

    def relax(self, net: nn.Module) -> nn.Module:
        return freeze(Relaxed(net, ContinuousMask(self.config["s_init"], self.where, variant=self.config["variant"])))

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam([net.relaxations[0].s], lr=self.config["lr_s"])]

    def step(self, net: nn.Module, progress: float) -> None:
        net.anneal(progress, self.config["beta_final"])

    def observe(self, net: nn.Module) -> dict[str, float]:
        mask = net.relaxations[0]
        return {"sparsity": mask.sparsity(), "beta": float(mask.beta)}


class StochasticSupermask(Supermask):
    """A mask alone, drawn at random each step; its distribution is trained."""

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1, "lambda": 1e-8, "lr_s": protocol["lr_ss"]}

    def relax(self, net: nn.Module) -> nn.Module:
        return freeze(Relaxed(net, StochasticMask(self.config["s_init"], self.where)))

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([net.relaxations[0].s], lr=self.config["lr_s"])]

    def step(self, net: nn.Module, progress: float) -> None:
        """Nothing: there is no temperature."""

    def observe(self, net: nn.Module) -> dict[str, float]:
        return {"sparsity": net.relaxations[0].sparsity()}


METHODS: dict[str, type[Sparsifier]] = {"supermask": Supermask, "ss": StochasticSupermask}
DRAWS = 10
"""A stochastic mask is a distribution: its accuracy is the mean over so many draws."""


class Supermasks(Sparsification):
    """Figures 4.9 and 4.10."""

    name = "supermasks"
    point = ("s_init", "lambda")

    def run(self, profile: str, name: str, seed: int = 0, **options: Any) -> Run:
        """One supermask: ``run("quick", "ss", s_init=0.0)``."""
        protocol = PROTOCOL[check_profile(profile)]
        config = {
            "model": protocol["model"],
            "data": protocol["data"],
            "training": protocol["training"] | CONSTANT,
            "method": configure(METHODS, name, protocol, options),
        }
        return Run(self.name, config, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs of a profile; its own seeds by default."""
        protocol = PROTOCOL[check_profile(profile)]
        seeds = protocol["seeds"] if seeds is None else seeds
        return [
            self.run(profile, name, seed, **point) for seed in seeds for name in METHODS for point in protocol[name]
        ]

    def compute(
        self,
        run: Run,
        device: torch.device,
        checkpoint: Path,
        on_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> dict[str, Any]:
        """Train one mask. Accuracy is the hardened form's, of a stochastic mask the mean over :data:`DRAWS`."""
        config, task = run.config["method"], self.task(run, device)
        torch.manual_seed(run.seed)
        net = self.network(run).to(device)
        names, random = masked_names(run, net), task.evaluate(net)
        trainer = self.trainer(
            run.id, net, METHODS[config["name"]](config, where(run)), run.config["training"], task,
            seed=run.seed, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop,
        )  # fmt: skip
        relaxed = trainer.run()
        assert isinstance(relaxed, Relaxed)
        exact = sparsities(relaxed).exact
        torch.manual_seed(chance(run.seed, DRAWS))
        masks = [relaxed.harden() for _ in range(DRAWS if config["name"] == "ss" else 1)]
        warn_of_removed_layers({name: masks[0].get_parameter(name) for name in names})
        scores = [task.evaluate(plain) for plain in masks]
        figures = {
            "accuracy": sum(scores) / len(scores),
            "accuracy_random": random,
            "accuracy_before_fixing": trainer.curve[-1]["accuracy"],
            "sparsity": zeros(masks[0], names),
            "exact": exact,
        } | {f"sparsity.{name}": share for name, share in layer_zeros(masks[0], names).items()}
        return {"figures": figures, "curve": trainer.curve, "seconds": trainer.elapsed(), "model": masks[0]}


experiment = Supermasks()
run, runs = experiment.run, experiment.runs
