"""Activations of few bits (5.4.3: Table 5.5) in a ResNet-20: PACT at given bits, or SMOL-A, which learns them.

Epochs and rates are those of :func:`lab.experiments.precision.weights.shorter`. The thesis states neither the
penalties of SMOL-A nor how long it searched: those here are spread so that its bits come out between the table's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lab.baselines.activations import PACT, FixedBits, SmolA, put_activations
from lab.datasets import CLASSES
from lab.experiments.base import Experiment
from lab.models.registry import build
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer, sgd

from .few_bits import FULL, method_config
from .weights import shorter

PENALTIES = {"quick": [1e-5], "short": [2e-7, 5e-7, 2e-6, 8e-6, 3.2e-5], "paper": [1e-7, 2e-7, 1e-6]}
"""This book's: the thesis states none. Those of `short` have a pilot, benchmarks/calibrate_bits.py; those of `paper` do
not."""
BITS = {"quick": (2,), "short": (2, 3, 5), "paper": (2, 3, 5)}
RANGE = {"alpha": 6.0, "alpha_decay": 2e-4}
"""Start of each activation's range, and PACT's regulariser on it (Choi et al., 2018: weight decay)."""


class DenseActivations(Method):
    """Activations as they are, and the base of the other methods.

    Args:
        config: the method's part of a configuration.
        example: an image (1, 3, H, W), to see each activation's shape with.
    """

    required: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Config, example: Tensor) -> None:
        self.config, self.example = config, example

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        """Defaults of the method's options; ``revision`` is raised by hand when the method's behaviour changes."""
        return {"revision": 1}

    def groups(self, net: nn.Module, training: Config) -> list[dict[str, Any]]:
        places = [m for m in net.modules() if isinstance(m, PACT | SmolA | FixedBits)]
        ranges = [place.alpha for place in places]
        apart = {id(p) for place in places for p in place.parameters(recurse=False)}
        weights = [p for p in net.parameters() if id(p) not in apart]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": training["weight_decay"]}]
        return groups + ([{"params": ranges, "weight_decay": self.config["alpha_decay"]}] if ranges else [])


class PactActivations(DenseActivations):
    """PACT at given bits, with a learned range."""

    required: ClassVar[Mapping[str, str]] = {"bits": "bits, the precision of every activation"}

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 2} | RANGE

    def relax(self, net: nn.Module) -> nn.Module:
        put_activations(net, self.example, lambda shape: PACT(self.config["bits"], self.config["alpha"]))
        return net


class SmolActivations(DenseActivations):
    """SMOL-A: noise on each unit learns its precision (5.4.3)."""

    required: ClassVar[Mapping[str, str]] = {"lambda": "a lambda, the price of a bit of an activation"}

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 2, "p_init": 8.0, "lr_s": protocol["lr_s"]} | RANGE

    def relax(self, net: nn.Module) -> nn.Module:
        put_activations(net, self.example, lambda shape: SmolA(shape, self.config["p_init"], self.config["alpha"]))
        return net

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        """The weights' SGD, and for s Adam at a constant rate, without weight decay (5.3.3)."""
        weights = sgd(self.groups(net, training), training)
        if not (s := [m.s for m in noisy(net).values()]):  # fixed
            return [weights]
        return [weights, torch.optim.Adam([{"params": s, "scheduled": False}], lr=self.config["lr_s"])]

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * torch.stack([m.penalty() for m in noisy(net).values()]).sum()

    def fix(self, net: nn.Module) -> nn.Module:
        for name, module in noisy(net).items():
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, module.fixed())
        return net

    def observe(self, net: nn.Module) -> dict[str, float]:
        return {"bits": mean_bits([m.precision() for m in noisy(net).values()])}


METHODS = {"dense": DenseActivations, "pact": PactActivations, "smol-a": SmolActivations}


def noisy(net: nn.Module) -> dict[str, SmolA]:
    """The network's SMOL-A activations by name."""
    return {name: m for name, m in net.named_modules() if isinstance(m, SmolA)}


def mean_bits(precision: list[Tensor]) -> float:
    """Bits an activation: the mean over all units, as the thesis's bpa."""
    return sum(float(p.sum(dtype=torch.float64)) for p in precision) / sum(p.numel() for p in precision)


class Activations(Experiment):
    """A ResNet-20, or at ``quick`` a ResNet-8, with each method."""

    name, chapter = "activations", 5
    point = ("lambda", "bits")

    def run(self, profile: str, name: str, seed: int = 0, **options: Any) -> Run:
        """One run: ``run("quick", "pact", bits=2)``."""
        protocol = shorter(profile)
        method = method_config(name, protocol, METHODS, **options)
        if name == "pact":
            PACT(method["bits"])  # refuses bits without sense
        model = "resnet8" if profile == "quick" else "resnet20"
        config = {"model": model, "data": protocol["data"], "training": protocol["training"], "method": method}
        return Run(self.name, config, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs behind Table 5.5; at `paper` three seeds of each, as its differences are fractions of a point."""
        points: list[tuple[str, dict[str, Any]]] = [("dense", {})]
        points += [("smol-a", {"lambda": lam}) for lam in PENALTIES[check_profile(profile)]]
        points += [("pact", {"bits": bits}) for bits in BITS[profile]]
        chosen = seeds if seeds is not None else (0, 1, 2) if profile == "paper" else (0,)
        return [self.run(profile, name, seed, **options) for seed in chosen for name, options in points]

    def network(self, run: Run) -> nn.Module:
        return build(f"activated-{run.config['model']}", CLASSES[run.config["data"]])

    def method(self, run: Run, task: Task) -> Method:
        config = run.config["method"]
        return METHODS[config["name"]](config, task.train_data.images[:1].float())

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        figures = super().figures(run, trainer, trained, plain)
        figures["bits"] = float(run.config["method"].get("bits", FULL))
        if places := {name: m for name, m in trained.named_modules() if isinstance(m, FixedBits)}:
            figures["bits"] = mean_bits([m.p for m in places.values()])
            figures |= {f"bits.{name}": mean_bits([m.p]) for name, m in places.items()}
            shares = torch.bincount(torch.cat([m.p.flatten() for m in places.values()]).long())
            figures |= {f"share.{bits}": float(n / shares.sum()) for bits, n in enumerate(shares) if n}
        for name, module in trained.named_modules():
            if isinstance(module, PACT | FixedBits):
                figures[f"range.{name}"] = float(module.alpha.detach())
        return figures


experiment = Activations()
run, runs = experiment.run, experiment.runs
