"""Networks that are small already (5.4.1: Table 5.2): MobileNetV2 and ShuffleNet on CIFAR-10, dense, with BSQ and with SMOL.

Epochs and rates are those of :mod:`lab.experiments.precision.weights`; weight decay and penalties are each network's (5.3.3).
"""

from __future__ import annotations

from typing import Any

from lab.runs import Run
from lab.runs.profiles import check_profile

from . import common as _precise
from . import weights as precision
from .common import check as check
from .common import compute as compute
from .common import epochs as epochs

EXPERIMENT, CHAPTER = "mobile", 5
POINT = ("lambda", "zero", "bits")

NETWORKS = ("mobilenetv2", "shufflenet")
NARROW = {name: f"{name}-narrow" for name in NETWORKS}
DECAY = {"mobilenetv2": 4e-5, "shufflenet": 5e-4}

# Largest penalty first, that is fewest bits. A search of fewer steps needs a larger penalty, as it needs a higher rate of s.
PENALTIES: dict[str, dict[str, list[float]]] = {
    "quick": {"mobilenetv2": [6e-5], "shufflenet": [6e-5]},
    "short": {"mobilenetv2": [2e-7, 1e-7], "shufflenet": [2e-7, 5e-8]},
    "paper": {"mobilenetv2": [2e-7, 1e-7], "shufflenet": [5e-8, 7e-10]},
}  # fmt: skip
LR_S = {"quick": 0.1}
"""Rate of s, where it is not that of :mod:`lab.experiments.precision.weights`."""
TRAINING: dict[str, dict[str, Any]] = {"quick": {"epochs": 3, "finetune_epochs": 2}}
"""What differs from the training of :mod:`lab.experiments.precision.weights`."""


def run(profile: str, name: str, seed: int = 0, network: str = "mobilenetv2", **options: Any) -> Run:
    """One run: ``run("quick", "smol", network="shufflenet", **{"lambda": 1e-5})``."""
    protocol = precision.PROTOCOL[check_profile(profile)]
    _precise.known_network(network, *NETWORKS)
    training = protocol["training"] | TRAINING.get(profile, {}) | {"weight_decay": DECAY[network]}
    method = _precise.method_config(name, protocol | {"lr_s": LR_S.get(profile, protocol["lr_s"])}, **options)
    model = NARROW[network] if profile == "quick" else network
    return Run(
        EXPERIMENT, {"model": model, "data": protocol["data"], "training": training, "method": method}, profile, seed
    )


def runs(profile: str, seeds: tuple[int, ...] | None = None) -> list[Run]:
    """All runs behind Table 5.2, network by network; the seeds after the first repeat SMOL's first penalty, BSQ and the dense one.

    `quick` has no BSQ: on networks this narrow, within so few steps, its penalty removes whole layers or nothing.
    """
    found = []
    for i, seed in enumerate((seeds or (0, 1, 2)) if profile == "paper" else (seeds or (0,))):
        for network in NETWORKS:
            penalties = PENALTIES[check_profile(profile)][network]
            found += [
                run(profile, name, seed, network) for name in (("dense",) if profile == "quick" else ("dense", "bsq"))
            ]
            found += [
                run(profile, "smol", seed, network, **{"lambda": lam}) for lam in (penalties[:1] if i else penalties)
            ]
    return found
