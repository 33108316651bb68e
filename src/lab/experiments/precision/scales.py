"""Weights whose natural range is not ±2 (beyond the thesis): SMOL as it is, and with a power of two for each tensor.

One bit of a weight is ±1 (5.2.3), far from what a layer starts with. Where a normalisation follows, the scale of a
layer is free and the weights can grow to their levels; where none does, they cannot. Hence two networks: a ResNet with
BatchNorm, and Conv-6 without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.utils.errors import LabError

from .few_bits import FewBits, known, method_config
from .weights import PROTOCOL, shorter

NETWORKS = ("resnet20", "conv6")
SMALL = {"resnet20": "small CNN", "conv6": "conv6-quarter"}
"""What stands for a network at ``quick``."""
SCALES: tuple[float | str, ...] = (1.0, "power")
PENALTIES: dict[str, dict[str, list[float]]] = {
    "quick": {"resnet20": [4e-6, 2e-5], "conv6": [2e-6]},
    "short": {"resnet20": PROTOCOL["short"]["lambda"], "conv6": [1e-7, 5e-7, 5e-6]},
    "paper": {"resnet20": PROTOCOL["paper"]["lambda"], "conv6": [1e-7, 2e-7]},
}
"""A ResNet-20's are those of :mod:`lab.experiments.precision.weights`; Conv-6's at `short` have a pilot,
benchmarks/calibrate_bits.py, those at `paper` do not."""
SLOWER = {"lr": 0.02, "finetune_lr": 0.002}
TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {"resnet20": {}, "conv6": SLOWER | {"epochs": 3, "finetune_epochs": 2}},
    "short": {"resnet20": {}, "conv6": SLOWER},
    "paper": {"resnet20": {}, "conv6": SLOWER},
}
"""What differs from the training of :mod:`lab.experiments.precision.weights`: without normalisation a rate of 0.1
diverges."""


class Scales(FewBits):
    """SMOL at both ranges, and the dense networks."""

    name = "scales"
    point = ("lambda", "zero", "scale")

    def run(self, profile: str, name: str, seed: int = 0, network: str = "resnet20", **options: Any) -> Run:
        """One run: ``run("quick", "smol", network="conv6", scale="power", **{"lambda": 1e-5})``."""
        protocol = PROTOCOL[check_profile(profile)] | {"lr_s": shorter(profile)["lr_s"]}
        known("network", network, NETWORKS)
        if name not in ("dense", "smol"):
            raise LabError(f"{name} has no scale of the weights: choose dense or smol")
        training = protocol["training"] | TRAINING[profile][network]
        method = method_config(name, protocol, **options)
        model = SMALL[network] if profile == "quick" else network
        data = (
            "cifar10-mini" if model == "conv6-quarter" else protocol["data"]
        )  # its linear layers fit images of 32 pixels
        return Run(self.name, {"model": model, "data": data, "training": training, "method": method}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """For each network the dense one, and SMOL at each penalty with both ranges."""
        declared = []
        for seed in seeds or (0,):
            for network in NETWORKS:
                declared.append(self.run(profile, "dense", seed, network))
                for lam in PENALTIES[check_profile(profile)][network]:
                    options = [{"scale": scale, "lambda": lam} for scale in SCALES]
                    declared += [self.run(profile, "smol", seed, network, **chosen) for chosen in options]
        return declared


experiment = Scales()
run, runs = experiment.run, experiment.runs
