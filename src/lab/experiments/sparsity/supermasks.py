"""Supermasks (4.5.3: Figures 4.9, 4.10): masks that make a network of random, frozen weights good at its task.

Only the mask is trained: by Continuous Sparsification (CS), or by drawing it at random each step (SS).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines.stochastic import StochasticMask
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Trainer, chance
from lab.utils.errors import LabError
from principled import ContinuousMask, Relaxed
from principled.tickets import freeze, warn_of_removed_layers

from . import common as _sparse
from .common import check as check
from .selection import layer_zeros, sparsities, zeros

EXPERIMENT, CHAPTER = "supermasks", 4
POINT = ("s_init", "lambda")

# `paper` is 4.3.3: 100 epochs; Adam at 3e-4 for CS's mask, SGD at 100 for the stochastic one. The thesis sets sparsity by s_init and lambda, and
# does not list the values. Shorter schedules need higher rates.
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
        "supermask": [{"s_init": s} for s in (-0.1, -0.05, 0.0, 0.05)], "ss": [{"s_init": s} for s in (-2.0, -1.0, 0.0, 1.0)],
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


def method_config(name: str, protocol: dict[str, Any], **options: Any) -> Config:
    """A method's part of a configuration; ``revision`` is raised by hand when its behaviour changes."""
    if name == "supermask":
        fixed: Config = {
            "revision": 1,
            "lambda": 1e-8,
            "beta_final": 200.0,
            "lr_s": protocol["lr_supermask"],
            "variant": "thesis",
        }
    elif name == "ss":
        fixed = {"revision": 1, "lambda": 1e-8, "lr_s": protocol["lr_ss"]}
    else:
        raise LabError(f"unknown method {name!r}: choose supermask or ss")
    config = {"name": name} | fixed | options
    for option, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise LabError(f"{option} must be a finite number, not {value}")
    if "s_init" not in config:
        raise LabError(f"{name} needs an s_init, which sets how sparse the mask becomes")
    if config["lambda"] < 0:
        raise LabError(f"lambda must not be negative, it is {config['lambda']}: 0 adds no penalty")
    return config


def run(profile: str, name: str, seed: int = 0, **options: Any) -> Run:
    """One supermask: ``run("quick", "ss", s_init=0.0)``."""
    protocol = PROTOCOL[check_profile(profile)]
    method = method_config(name, protocol, **options)
    training = protocol["training"] | CONSTANT
    return Run(
        EXPERIMENT,
        {"model": protocol["model"], "data": protocol["data"], "training": training, "method": method},
        profile,
        seed,
    )


def runs(profile: str, seeds: tuple[int, ...] | None = None) -> list[Run]:
    """All runs behind Figures 4.9 and 4.10."""
    protocol = PROTOCOL[check_profile(profile)]
    seeds = protocol["seeds"] if seeds is None else seeds
    return [
        run(profile, name, seed, **point) for seed in seeds for name in ("supermask", "ss") for point in protocol[name]
    ]


class Supermask(Method):
    """A mask alone, as the training loop asks for it."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config["method"]

    def relax(self, net: nn.Module) -> nn.Module:
        where = _sparse.where(self.run)
        if self.config["name"] == "supermask":
            return freeze(Relaxed(net, ContinuousMask(self.config["s_init"], where, variant=self.config["variant"])))
        return freeze(Relaxed(net, StochasticMask(self.config["s_init"], where)))

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        chosen = torch.optim.Adam if self.config["name"] == "supermask" else torch.optim.SGD
        return [chosen([net.relaxations[0].s], lr=self.config["lr_s"])]

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty() if self.config["lambda"] else None

    def step(self, net: nn.Module, progress: float) -> None:
        if self.config["name"] == "supermask":
            net.anneal(progress, self.config["beta_final"])

    def observe(self, net: nn.Module) -> dict[str, float]:
        mask = net.relaxations[0]
        return {"sparsity": mask.sparsity()} | (
            {"beta": float(mask.beta)} if self.config["name"] == "supermask" else {}
        )


def epochs(run: Run) -> int:
    """How many epochs the run takes, for a progress bar."""
    return int(run.config["training"]["epochs"])


DRAWS = 10
"""A stochastic mask is a distribution: its accuracy is the mean over so many draws."""


def compute(
    run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train one mask; figures and curve as :func:`lab.runs.write` takes them."""
    net = _sparse.network(run).to(device)
    names, task = _sparse.masked_names(run, net), _sparse.task(run, device)
    random = task.evaluate(net)
    trainer = Trainer(
        run.id, net, Supermask(run), run.config["training"], task,
        seed=run.seed, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop,
    )  # fmt: skip
    relaxed = trainer.run()
    assert isinstance(relaxed, Relaxed)
    both = sparsities(relaxed)
    torch.manual_seed(chance(run.seed, DRAWS))
    masks = [relaxed.harden() for _ in range(1 if run.config["method"]["name"] == "supermask" else DRAWS)]
    warn_of_removed_layers({name: masks[0].get_parameter(name) for name in names})
    scores = [task.evaluate(plain) for plain in masks]
    figures = {
        "accuracy": sum(scores) / len(scores),
        "accuracy_random": random,
        "accuracy_before_fixing": trainer.curve[-1]["accuracy"],
        "sparsity": zeros(masks[0], names),
        "exact": both.exact,
    } | {f"sparsity.{name}": share for name, share in layer_zeros(masks[0], names).items()}
    return {"figures": figures, "curve": trainer.curve, "seconds": trainer.elapsed(), "model": masks[0]}
