"""Networks that are small already (5.4.1: Table 5.2): MobileNetV2 and ShuffleNet on CIFAR-10.

Epochs and rates are those of :func:`lab.experiments.precision.weights.shorter`; weight decay and penalties are each
network's (5.3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.runs import Run
from lab.runs.profiles import check_profile

from .few_bits import FewBits, known, method_config
from .weights import shorter

NETWORKS = ("mobilenetv2", "shufflenet")
DECAY = {"mobilenetv2": 4e-5, "shufflenet": 5e-4}

# Largest penalty first, that is fewest bits. `paper` is 5.3.3. A search of fewer steps needs a larger penalty and a
# higher rate of s: those of `short` have a pilot, benchmarks/calibrate_bits.py.
PENALTIES: dict[str, dict[str, list[float]]] = {
    "quick": {"mobilenetv2": [6e-5], "shufflenet": [6e-5]},
    "short": {"mobilenetv2": [2.56e-5, 6.4e-6, 1.6e-6, 8e-7], "shufflenet": [2.56e-5, 6.4e-6, 1.6e-6, 4e-7]},
    "paper": {"mobilenetv2": [2e-7, 1e-7], "shufflenet": [5e-8, 7e-10]},
}  # fmt: skip


class SmallNetworks(FewBits):
    """MobileNetV2 and ShuffleNet; narrow ones at ``quick``."""

    name = "mobile"
    point = ("lambda", "zero", "bits")

    def run(self, profile: str, name: str, seed: int = 0, network: str = "mobilenetv2", **options: Any) -> Run:
        """One run: ``run("quick", "smol", network="shufflenet", **{"lambda": 1e-5})``."""
        protocol = shorter(profile)
        known("network", network, NETWORKS)
        training = protocol["training"] | {"weight_decay": DECAY[network]}
        method = method_config(name, protocol, **options)
        model = f"{network}-narrow" if profile == "quick" else network
        config = {"model": model, "data": protocol["data"], "training": training, "method": method}
        return Run(self.name, config, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs behind Table 5.2, network by network; the seeds after the first repeat SMOL's first penalty, BSQ and
        the dense one.

        `quick` has no BSQ: on networks this narrow, within so few steps, its penalty removes whole layers or nothing.
        """
        declared: list[Run] = []
        rivals = ("dense",) if profile == "quick" else ("dense", "bsq")
        first, *rest = seeds or ((0, 1, 2) if profile == "paper" else (0,))
        for seed in (first, *rest):
            for network in NETWORKS:
                penalties = PENALTIES[check_profile(profile)][network]
                declared += [self.run(profile, name, seed, network) for name in rivals]
                for lam in penalties if seed == first else penalties[:1]:
                    declared.append(self.run(profile, "smol", seed, network, **{"lambda": lam}))
        return declared


experiment = SmallNetworks()
run, runs = experiment.run, experiment.runs
