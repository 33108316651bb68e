"""What the experiments of Chapter 4 share: which weights are masked, and what a method's configuration holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lab.datasets import CLASSES, SIDE
from lab.experiments.base import Experiment
from lab.models.registry import build
from lab.runs import Run
from lab.training import Config, Method
from lab.utils.errors import LabError
from principled.relax import Where, is_spatial_convolution, select

MASKED: dict[str, Where] = {
    "conv6": (nn.Conv2d, nn.Linear),
    "conv6-quarter": (nn.Conv2d, nn.Linear),
    "resnet50": nn.Conv2d,
    "resnet50-small-images": nn.Conv2d,
}
"""What is masked in a network; in those that are not named, the spatial convolutions."""

WHY = {
    "s_init": "which sets its sparsity",
    "target": "the share of zeros",
    "lambda": "the price of an open gate",
    "decay": "the weight decay of its thresholds, which sets sparsity",
}


class Sparsifier(Method):
    """How a method of this chapter takes part in training.

    Args:
        config: the method's part of the configuration.
        where: which weights it masks.

    Attributes:
        needed: the option without which no run can be declared.
    """

    needed = ""

    def __init__(self, config: Config, where: Where = is_spatial_convolution) -> None:
        self.config, self.where = config, where

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        """The configuration's defaults; ``revision`` is raised by hand when the method's behaviour changes."""
        return {"revision": 1}

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty() if self.config.get("lambda") else None


class Sparsification(Experiment):
    """An experiment of Chapter 4."""

    chapter = 4

    def network(self, run: Run) -> nn.Module:
        return build(run.config["model"], CLASSES[run.config["data"]])


def configure(
    methods: Mapping[str, type[Sparsifier]], name: str, protocol: Mapping[str, Any], options: Mapping[str, Any]
) -> Config:
    """A method's part of a configuration: its defaults under a protocol, overridden by ``options``.

    Raises:
        LabError: an unknown method, an option that it needs and lacks, or one without sense.
    """
    if name not in methods:
        raise LabError(f"unknown method {name!r}: choose one of {', '.join(methods)}")
    method = methods[name]
    config = {"name": name} | method.options(protocol) | dict(options)
    if method.needed and method.needed not in config:
        raise LabError(f"{name} needs {method.needed}, {WHY[method.needed]}")
    for option, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise LabError(f"{option} must be a finite number, not {value}")
    for option in ("lambda", "decay"):
        if config.get(option, 0) < 0:
            raise LabError(f"{option} must not be negative, it is {config[option]}: 0 adds no penalty")
    for option in ("target", "rate", "rate_linear"):
        if option in config and not 0 < config[option] < 1:
            raise LabError(f"{option} must lie between 0 and 1, not {config[option]}: it is a share of weights")
    if config.get("beta_final", 1) <= 0:
        raise LabError(f"beta_final must be above 0, it is {config['beta_final']}: the thesis uses 200")
    return config


def where(run: Run) -> Where:
    """Which weights the run masks."""
    return MASKED.get(run.config["model"], is_spatial_convolution)


def masked_names(run: Run, net: nn.Module) -> tuple[str, ...]:
    """The names of the weights that the run masks."""
    return tuple(select(net, where(run)))


def example(run: Run, device: torch.device) -> Tensor:
    """A blank image of the run's size, with which the shapes inside its network are measured."""
    side = SIDE[run.config["data"]]
    return torch.zeros(1, 3, side, side, device=device)
