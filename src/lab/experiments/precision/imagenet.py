"""Large networks with activations of 4 bits (5.4.1: Table 5.3, Figure 5.4): ResNet-18 and ResNet-50 on ImageNet.

5.3.3: 180 epochs of ResNet-18 from scratch, 120 of them search; 100 of a trained ResNet-50, 60 of them search. ReLUs
become ReLU6 and give 16 values once fine-tuning starts (5.3.2). There is no reduced form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safetensors.torch import load_file
from torch import nn

from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.utils.errors import LabError
from lab.utils.files import speaking

from .few_bits import FewBits, known, method_config
from .weights import PROTOCOL

NETWORKS = ("resnet18", "resnet50")
SHARED = {
    "batch_size": 256, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "schedule": "steps", "factor": 0.1,
}  # fmt: skip
TRAINING: dict[str, dict[str, Any]] = {
    # the rate falls at 45, 90, 150 and 165: fine-tuning, from 120 on, starts a hundredth lower
    "resnet18": SHARED | {
        "epochs": 120, "finetune_epochs": 60, "lr": 0.1, "finetune_lr": 0.001, "steps": [45 / 120, 90 / 120],
        "finetune_steps": [30 / 60, 45 / 60],
    },
    # at 30 of the search; fine-tuning starts at the same rate again and falls at 15 and 30
    "resnet50": SHARED | {
        "epochs": 60, "finetune_epochs": 40, "lr": 0.01, "finetune_lr": 0.01, "steps": [30 / 60],
        "finetune_steps": [15 / 40, 30 / 40],
    },
}  # fmt: skip
DENSE = SHARED | {"epochs": 90, "finetune_epochs": 0, "lr": 0.1, "finetune_lr": 0.1, "steps": [30 / 90, 60 / 90]}
"""Full precision. The thesis does not state it; these are the epochs of 4.3.3."""
LAMBDA = {"resnet18": [1e-6, 1e-8], "resnet50": [1e-7, 1e-8]}
OTHERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "resnet18": [("lq-nets", {"bits": 4}), ("dsq", {"bits": 4}), ("slb", {"bits": 2})],
    "resnet50": [("lq-nets", {"bits": 4}), ("bsq", {})],
}


class ImageNetBits(FewBits):
    """Both networks, dense and at few bits; nothing but at ``paper``."""

    name = "imagenet_bits"
    point = ("lambda", "zero", "bits")

    def run(self, profile: str, name: str, seed: int = 0, network: str = "resnet18", **options: Any) -> Run:
        """One run: ``run("paper", "smol", network="resnet50", **{"lambda": 1e-7, "zero": True})``."""
        if check_profile(profile) != "paper":
            raise LabError(f"ImageNet has no runs at profile {profile}: choose paper")
        known("network", network, NETWORKS)
        if name == "dense":
            training, method = DENSE, method_config(name, PROTOCOL["paper"], **options)
        else:
            training, method = TRAINING[network], method_config(name, PROTOCOL["paper"], activations=4, **options)
        return Run(
            self.name, {"model": network, "data": "imagenet", "training": training, "method": method}, profile, seed
        )

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs behind Table 5.3, each network's dense one first, since ResNet-50's others start from it."""
        if check_profile(profile) != "paper":
            return []
        declared = []
        for seed in seeds or (0,):
            for network in NETWORKS:
                declared.append(self.run(profile, "dense", seed, network))
                for lam in LAMBDA[network]:
                    for zero in (False, True):
                        declared.append(self.run(profile, "smol", seed, network, **{"lambda": lam, "zero": zero}))
                declared += [self.run(profile, name, seed, network, **options) for name, options in OTHERS[network]]
        return declared

    def network(self, run: Run) -> nn.Module:
        """The plain network; ResNet-50 at few bits starts from what the dense run of its seed left on this machine."""
        net = super().network(run)
        if run.config["model"] == "resnet18" or run.config["method"]["name"] == "dense":
            return net
        dense = self.run("paper", "dense", run.seed, run.config["model"])
        path = dense.model()
        if not path.exists():
            raise LabError(
                f"{path} is missing: ResNet-50 starts from a trained network; first "
                f"`python -m lab record --experiment {self.name} --profile paper --run {dense.id}`"
            )
        with speaking(path, "read"):
            net.load_state_dict(load_file(path))
        return net


experiment = ImageNetBits()
run, runs = experiment.run, experiment.runs
