"""Activations of few bits (5.4.3: Table 5.5): a ResNet-20 whose weights stay whole, with PACT at given bits or SMOL-A, which finds them.

Epochs and rates are those of :mod:`lab.experiments.precision.weights`. The thesis states neither the penalties of SMOL-A nor how long it
searched: the penalties here are spread so that its bits come out between those of the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines.activations import PACT, FixedBits, SmolA, put_activations
from lab.datasets import load
from lab.models.activated import ActivatedResNet, activated_resnet20
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Classification, Config, Method, Trainer, sgd
from lab.utils.errors import LabError

from . import weights as precision
from .weights import check as check
from .weights import epochs as epochs

EXPERIMENT, CHAPTER = "activations", 5
POINT = ("lambda", "bits")

PENALTIES = {"quick": [1e-5], "short": [2e-7, 5e-7, 2e-6], "paper": [1e-7, 2e-7, 1e-6]}
BITS = {"quick": (2,), "short": (2, 3, 5), "paper": (2, 3, 5)}
LR_S = {"quick": 0.1}
"""Rate of s, where it is not that of :mod:`lab.experiments.precision.weights`."""
TRAINING: dict[str, dict[str, Any]] = {"quick": {"epochs": 3, "finetune_epochs": 2}}
"""What differs from the training of :mod:`lab.experiments.precision.weights`."""
RANGE = {"alpha": 6.0, "alpha_decay": 2e-4}
"""Start of each activation's range, and PACT's regulariser on it (Choi et al., 2018: weight decay)."""
MODELS: dict[str, Callable[[], ActivatedResNet]] = {
    "resnet20": activated_resnet20,
    "resnet8": lambda: ActivatedResNet(1),
}


def method_config(name: str, profile: str, **options: Any) -> Config:
    """A method's part of a configuration; ``revision`` is raised by hand when the method's behaviour changes."""
    if name == "dense":
        fixed: Config = {"revision": 1}
    elif name == "pact":
        fixed = {"revision": 1} | RANGE
        if "bits" not in options:
            raise LabError("pact needs bits, the precision of every activation")
        PACT(options["bits"])  # refuses bits without sense
    elif name == "smol-a":
        fixed = {"revision": 1, "p_init": 8.0, "lr_s": LR_S.get(profile, precision.PROTOCOL[profile]["lr_s"])} | RANGE
        if "lambda" not in options:
            raise LabError("smol-a needs a lambda, the price of a bit of an activation")
    else:
        raise LabError(f"unknown method {name!r}: choose dense, pact or smol-a")
    config = {"name": name} | fixed | options
    for option, value in config.items():
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise LabError(f"{option} must be a finite number, at least 0, not {value}")
    return config


def run(profile: str, name: str, seed: int = 0, **options: Any) -> Run:
    """One run: ``run("quick", "pact", bits=2)``."""
    protocol = precision.PROTOCOL[check_profile(profile)]
    training = protocol["training"] | TRAINING.get(profile, {})
    model = "resnet8" if profile == "quick" else "resnet20"
    method = method_config(name, profile, **options)
    return Run(
        EXPERIMENT, {"model": model, "data": protocol["data"], "training": training, "method": method}, profile, seed
    )


def runs(profile: str, seeds: tuple[int, ...] | None = None) -> list[Run]:
    """All runs behind Table 5.5; at `paper` three seeds of each, as its differences are fractions of a point."""
    points: list[tuple[str, dict[str, Any]]] = [("dense", {})]
    points += [("smol-a", {"lambda": lam}) for lam in PENALTIES[check_profile(profile)]]
    points += [("pact", {"bits": bits}) for bits in BITS[profile]]
    chosen = seeds if seeds is not None else (0, 1, 2) if profile == "paper" else (0,)
    return [run(profile, name, seed, **options) for seed in chosen for name, options in points]


class ActivationMethod(Method):
    """A method's configuration, as the training loop asks for it."""

    def __init__(self, config: Config, example: Tensor) -> None:
        self.config, self.name, self.example = config, config["name"], example

    def relax(self, net: nn.Module) -> nn.Module:
        config = self.config
        if self.name == "pact":
            put_activations(net, self.example, lambda shape: PACT(config["bits"], config["alpha"]))
        elif self.name == "smol-a":
            put_activations(net, self.example, lambda shape: SmolA(shape, config["p_init"], config["alpha"]))
        return net

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        places = [m for m in net.modules() if isinstance(m, PACT | SmolA)]
        s, ranges = [m.s for m in places if isinstance(m, SmolA)], [m.alpha for m in places]
        apart = {id(p) for p in (*s, *ranges)}
        weights = [p for p in net.parameters() if id(p) not in apart]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": training["weight_decay"]}]
        groups += [{"params": ranges, "weight_decay": self.config["alpha_decay"]}] if ranges else []
        found = [sgd(groups, training)]
        if s:  # as the weights' s: Adam at a constant rate, without weight decay (5.3.3)
            found.append(torch.optim.Adam([{"params": s, "scheduled": False}], lr=self.config["lr_s"]))
        return found

    def penalty(self, net: nn.Module) -> Tensor | None:
        if self.name != "smol-a":
            return None
        return self.config["lambda"] * torch.stack([m.penalty() for m in noisy(net).values()]).sum()

    def fix(self, net: nn.Module) -> nn.Module:
        for name, module in noisy(net).items():
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, module.fixed())
        return net

    def observe(self, net: nn.Module) -> dict[str, float]:
        places = noisy(net).values()
        return {"bits": mean_bits([m.precision() for m in places])} if places else {}


def noisy(net: nn.Module) -> dict[str, SmolA]:
    """The network's SMOL-A activations by name."""
    return {name: m for name, m in net.named_modules() if isinstance(m, SmolA)}


def mean_bits(precision: list[Tensor]) -> float:
    """Bits an activation: the mean over all units, as the thesis's bpa."""
    return sum(float(p.sum(dtype=torch.float64)) for p in precision) / sum(p.numel() for p in precision)


def compute(
    run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train one run; figures and curve as :func:`lab.runs.write` takes them."""
    torch.manual_seed(run.seed)
    net = MODELS[run.config["model"]]().to(device)
    data = load(run.config["data"], "train").to(device), load(run.config["data"], "test").to(device)
    training = run.config["training"]
    method = ActivationMethod(run.config["method"], data[0].images[:1].float())
    trainer = Trainer(
        run.id, net, method, training, Classification(data, training),
        seed=run.seed, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop,
    )  # fmt: skip
    trained = trainer.run()
    searched = trainer.curve[training["epochs"] - 1]
    figures = {
        "accuracy": trainer.evaluate(trained),
        "accuracy_before_fixing": searched["accuracy"],
        "accuracy_after_fixing": searched["accuracy_fixed"],
        "bits": float(run.config["method"].get("bits", precision.FULL)),
    }
    if places := {name: m for name, m in trained.named_modules() if isinstance(m, FixedBits)}:
        figures["bits"] = mean_bits([m.p for m in places.values()])
        figures |= {f"bits.{name}": mean_bits([m.p]) for name, m in places.items()}
        shares = torch.bincount(torch.cat([m.p.flatten() for m in places.values()]).long())
        figures |= {f"share.{bits}": float(n / shares.sum()) for bits, n in enumerate(shares) if n}
    for name, module in trained.named_modules():
        if isinstance(module, PACT | FixedBits):
            figures[f"range.{name}"] = float(module.alpha.detach())
    return {"curve": trainer.curve, "seconds": trainer.elapsed(), "model": trained, "figures": figures}
