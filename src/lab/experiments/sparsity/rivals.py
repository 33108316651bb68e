"""One-shot pruning, the rest of the field (4.4.1, 4.4.3: Tables 4.1 and 4.3, Figures 4.1, 4.2, 4.12): l0, Network Slimming, AMC, STR,
DNW and filter-wise CS on ResNet-20; every method on VGG-16; those of Table 4.3 on ResNet-50.

Network, data, epochs and rates are those of :mod:`lab.experiments.sparsity.pruning`, with which the ResNet-20 runs share a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines.amc import find_ratios, prune_by
from lab.baselines.discovered_wirings import DiscoveredWirings
from lab.baselines.hard_concrete import HardConcrete, commit_to_best
from lab.baselines.magnitude import MagnitudeMask
from lab.baselines.slimming import ScaledWeights
from lab.baselines.soft_threshold import SoftThreshold
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Classification, Config, Task, Trainer, accuracy, chance
from lab.utils.errors import LabError
from principled import ContinuousMask, KeepZeros, Relaxed
from principled.filters import FilterMask, without_dead_channels

from . import common as _sparse
from . import pruning
from .common import check as check
from .selection import layer_zeros, sparsities, zeros

EXPERIMENT, CHAPTER = "methods", 4
POINT = ("s_init", "target", "lambda", "decay")

SAME = ("dense", "mp", "gmp", "cs")
"""Methods that :mod:`lab.experiments.sparsity.pruning` runs on ResNet-20 already; here on the other networks. The dense network is there again,
since claims are judged within an experiment; its training is shared."""

# What each profile tries: a list of options a method. The penalties' rates are scaled with the shorter schedules, as that of s is.
POINTS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "quick": {
        "dense": [{}],
        "l0": [{"lambda": 5e-4}],
        "netslim": [{"target": 0.8}, {"target": 0.9}],
        "amc": [{"target": 0.8}],
        "str": [{"decay": 0.02}],
        "dnw": [{"target": 0.9}],
        "cs-filters": [{"s_init": -0.05}],
    },
    "short": {
        "dense": [{}],
        "l0": [{"lambda": lam} for lam in (1e-7, 1e-6, 3e-6)],
        "netslim": [{"target": t} for t in (0.8, 0.9, 0.95)],
        "amc": [{"target": t} for t in (0.5, 0.8, 0.9)],
        "str": [{"decay": d} for d in (1e-3, 2e-3, 4e-3)],
        "dnw": [{"target": t} for t in (0.8, 0.9, 0.95)],
        "cs-filters": [{"s_init": s} for s in (0.0, -0.05, -0.1)],
    },
    "paper": {
        "dense": [{}],
        "l0": [{"lambda": lam} for lam in (1e-8, 3e-8, 1e-7, 3e-7, 1e-6, 3e-6)],
        "netslim": [{"target": t} for t in (0.5, 0.8, 0.85, 0.9, 0.95, 0.98)],
        "amc": [{"target": t} for t in (0.3, 0.5, 0.7, 0.8, 0.86, 0.9)],
        "str": [{"decay": d} for d in (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)],
        "dnw": [{"target": t} for t in (0.5, 0.8, 0.86, 0.9, 0.95, 0.98)],
        "cs-filters": [{"s_init": s} for s in (0.0, -0.03, -0.1, -0.2)],
    },
}  # fmt: skip
VGG_POINTS: dict[str, list[dict[str, Any]]] = {
    "dense": [{}],
    "cs": [{"s_init": s} for s in (0.0, -0.03, -0.1, -0.2, -0.3)],
    "mp": [{"target": t} for t in (0.9, 0.95, 0.975, 0.98, 0.99, 0.996)],
    "gmp": [{"target": t} for t in (0.9, 0.95, 0.975, 0.98, 0.99, 0.996)],
    "netslim": [{"target": t} for t in (0.9, 0.95, 0.98, 0.99, 0.995)],
    "amc": [{"target": t} for t in (0.5, 0.8, 0.86, 0.9, 0.95)],
    "l0": [{"lambda": lam} for lam in (1e-8, 1e-7, 1e-6)],
}  # fmt: skip
IMAGENET_POINTS: dict[str, list[dict[str, Any]]] = {
    "dense": [{}],
    "cs": [{"s_init": s} for s in (0.0, -0.01, -0.02, -0.03, -0.05)],
    "gmp": [{"target": t} for t in (0.9, 0.95, 0.98, 0.99)],
    "str": [{"decay": d} for d in (2e-5, 3e-5, 4e-5, 6e-5, 1e-4)],
    "dnw": [{"target": t} for t in (0.9, 0.95, 0.98)],
}  # fmt: skip
STAND_IN_POINTS: dict[str, list[dict[str, Any]]] = {
    "dense": [{}],
    "cs": [{"s_init": s} for s in (0.0, -0.05, -0.1)],
    "gmp": [{"target": t} for t in (0.9, 0.95)],
    "str": [{"decay": d} for d in (1e-3, 2e-3)],
    "dnw": [{"target": t} for t in (0.9, 0.95)],
}  # fmt: skip

# What a method wants beside: the rate of its variables, and where they start. `paper` has the rates of the papers.
RATES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "l0": {"lr": 20.0, "open": 0.7, "draws": 5}, "netslim": {"lr": 1.0, "lambda": 1e-5},
        "amc": {"episodes": 24, "explore": 8, "images": 100}, "str": {"lr": 0.1, "s_init": -8.0}, "cs-filters": {"lr": 0.2},
    },
    "short": {
        "l0": {"lr": 2.0, "open": 0.7, "draws": 10}, "netslim": {"lr": 0.2, "lambda": 1e-5},
        "amc": {"episodes": 200, "explore": 50, "images": 1000}, "str": {"lr": 0.1, "s_init": -10.0}, "cs-filters": {"lr": 0.1},
    },
    "paper": {
        "l0": {"lr": 0.1, "open": 0.7, "draws": 10}, "netslim": {"lr": 0.1, "lambda": 1e-5},
        "amc": {"episodes": 400, "explore": 100, "images": 5000}, "str": {"lr": 0.1, "s_init": -3200.0}, "cs-filters": {"lr": 0.1},
    },
}  # fmt: skip

IMAGENET = {
    "epochs": 90, "finetune_epochs": 0, "batch_size": 256, "lr": 0.1, "momentum": 0.9, "nesterov": False,
    "weight_decay": 1e-4, "schedule": "steps", "steps": [30 / 90, 60 / 90], "factor": 0.1,
}  # fmt: skip
"""4.3.3: 90 epochs, the rate falls at 30 and 60."""

STAND_IN = IMAGENET | {"epochs": 15, "warmup": 0.05}
"""At `short` the ResNet-50 learns Tiny-ImageNet at 32x32, a stand-in for ImageNet, with the same schedule on fewer epochs."""


def method_config(name: str, profile: str, network: str, **options: Any) -> Config:
    """A method's part of a configuration; ``revision`` is raised by hand when its behaviour changes."""
    protocol, rates = pruning.PROTOCOL[check_profile(profile)], RATES[profile]
    if name in SAME:
        return pruning.method_config(name, protocol, **options)
    if name == "l0":
        fixed: Config = {"revision": 1, **rates["l0"]}
        needed, why = "lambda", "the price of an open gate"
    elif name == "netslim":
        fixed = {"revision": 1, **rates["netslim"]}
        fixed |= {"lambda": 1e-6} if network == "vgg16" else {}  # 4.4.1
        needed, why = "target", "the share of zeros"
    elif name == "amc":
        fixed, needed, why = {"revision": 1, **rates["amc"]}, "target", "the share of zeros"
    elif name == "str":
        fixed, needed, why = (
            {"revision": 1, **rates["str"]},
            "decay",
            "the weight decay of the thresholds, which sets sparsity",
        )
    elif name == "dnw":
        fixed, needed, why = {"revision": 1}, "target", "the share of zeros"
    elif name == "cs-filters":
        fixed = {"revision": 1, "lambda": 1e-8, "beta_final": 200.0, **rates["cs-filters"]}
        needed, why = "s_init", "which sets its sparsity"
    else:
        known = ", ".join((*SAME, *POINTS[profile]))
        raise LabError(f"unknown method {name!r}: choose one of {known}")
    if needed not in options:
        raise LabError(f"{name} needs {needed}, {why}")
    config = {"name": name} | fixed | options
    for option, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise LabError(f"{option} must be a finite number, not {value}")
    if not 0 < config.get("target", 0.5) < 1:
        raise LabError(f"target must lie between 0 and 1, not {config['target']}: it is the share of zeros")
    for option in ("lambda", "decay"):
        if config.get(option, 0) < 0:
            raise LabError(f"{option} must not be negative, it is {config[option]}")
    return config


def run(profile: str, name: str, seed: int = 0, network: str = "resnet20", **options: Any) -> Run:
    """One run: ``run("quick", "netslim", target=0.9)``. ``network`` is ``"resnet20"``, ``"vgg16"`` or ``"resnet50"``.

    A ResNet-50's run belongs to the experiment ``resnet50``: on ImageNet at ``paper``, on its stand-in at ``short``.
    """
    if network not in ("resnet20", "vgg16", "resnet50"):
        raise LabError(f"unknown network {network!r}: choose resnet20, vgg16 or resnet50")
    protocol = pruning.PROTOCOL[check_profile(profile)]
    if network == "resnet20" and name in SAME[1:]:
        raise LabError(f"{name} on ResNet-20 is a run of the experiment pruning: lab.experiments.sparsity.pruning.run")
    profiles = {"resnet20": ("quick", "short", "paper"), "vgg16": ("short", "paper"), "resnet50": ("short", "paper")}[
        network
    ]
    if profile not in profiles:
        raise LabError(f"{network} has no runs at profile {profile}: choose {' or '.join(profiles)}")
    experiment, data, training = EXPERIMENT, protocol["data"], protocol["training"]
    method = method_config(name, profile, network, **options)
    if network == "resnet50":
        experiment, data, training = "resnet50", "imagenet", IMAGENET
        if profile == "short":
            network, data, training = "resnet50-small-images", "tiny-imagenet-32", STAND_IN
    return Run(experiment, {"model": network, "data": data, "training": training, "method": method}, profile, seed)


def runs(profile: str, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Run]:
    """ResNet-20's runs, then VGG-16's; the first seed walks along each method's curve, the others repeat its middle.

    ResNet-50's are :func:`imagenet_runs`, recorded as the experiment ``resnet50``: who has the data asks for them.
    """
    first, *rest = seeds
    found = _curves(profile, "resnet20", POINTS[check_profile(profile)], first)
    if profile != "quick":
        found += [
            run(profile, name, s, **points[len(points) // 2]) for s in rest for name, points in POINTS[profile].items()
        ]
        found += _curves(profile, "vgg16", VGG_POINTS, first)
    return found


def imagenet_runs(profile: str = "paper", seed: int = 0) -> list[Run]:
    """Table 4.3's pruned networks: on ImageNet at ``paper``, on its stand-in at ``short``, none at ``quick``."""
    points = {"quick": {}, "short": STAND_IN_POINTS, "paper": IMAGENET_POINTS}[check_profile(profile)]
    return _curves(profile, "resnet50", points, seed)


def _curves(profile: str, network: str, points: dict[str, list[dict[str, Any]]], seed: int) -> list[Run]:
    return [run(profile, name, seed, network, **options) for name, some in points.items() for options in some]


class OneShot(pruning.PruningMethod):
    """A method's configuration, as the training loop asks for it: pruning's four and six more."""

    def __init__(self, run: Run, task: Task, device: torch.device) -> None:
        super().__init__(run.config["method"], run.config["training"]["epochs"])
        self.run, self.task = run, task
        self.where, self.image = _sparse.where(run), _sparse.example(run, device)
        self.exact = 0.0

    def relax(self, net: nn.Module) -> nn.Module:
        config, where = self.config, self.where
        if self.name == "cs":
            return Relaxed(net, ContinuousMask(config["s_init"], where, variant=config["variant"]))
        if self.name == "cs-filters":
            return Relaxed(net, FilterMask(self.image, config["s_init"], where=where))
        if self.name == "gmp":
            return Relaxed(net, MagnitudeMask(where))
        if self.name == "l0":
            return Relaxed(net, HardConcrete(config["open"], where))
        if self.name == "netslim":
            return Relaxed(net, ScaledWeights(where))
        if self.name == "str":
            return Relaxed(net, SoftThreshold(config["s_init"], where))
        if self.name == "dnw":
            return Relaxed(net, DiscoveredWirings(config["target"], where))
        return net  # dense, mp, amc: prune what dense training gives

    def groups(self, net: nn.Module, training: Config) -> list[dict[str, Any]]:
        groups = [
            {
                "params": [p for n, p in net.named_parameters() if not n.startswith("relaxations.")],
                "weight_decay": training["weight_decay"],
            }
        ]
        variables = [p for n, p in net.named_parameters() if n.startswith("relaxations.")]
        if variables:
            rate = self.config.get("lr_s", self.config.get("lr"))
            groups.append({"params": variables, "weight_decay": self.config.get("decay", 0.0), "lr": rate})
        return groups

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty() if self.config.get("lambda") else None

    def step(self, net: nn.Module, progress: float) -> None:
        if self.name == "cs-filters":
            net.anneal(progress, self.config["beta_final"])
        else:
            super().step(net, progress)

    def fix(self, net: nn.Module) -> nn.Module:
        if self.name == "dense":
            return net
        target = self.config.get("target", 0.0)
        if self.name == "mp":
            net = Relaxed(net, MagnitudeMask(self.where))
            net.relaxations[0].prune(net.weights(), target)
        if self.name == "netslim":
            net.relaxations[0].prune(target)
        if self.name == "amc":
            plain = self._by_agent(net)
        else:
            names = net.relaxations[0].names
            plain = commit_to_best(net, self._score, self.config["draws"]) if self.name == "l0" else net.harden()
            if self.name == "cs-filters":
                return Relaxed(plain, KeepZeros(names))  # with the normalisation that goes with the filters
        return Relaxed(plain, KeepZeros(self.where))

    def _by_agent(self, net: nn.Module) -> nn.Module:
        config = self.config
        found = find_ratios(
            net, config["target"], self._score, self.image, episodes=config["episodes"], explore=config["explore"],
            where=self.where, seed=chance(self.run.seed, 441) % 2**31,
        )  # fmt: skip
        return prune_by(net, found.ratios)

    def _score(self, net: nn.Module) -> float:
        """What choices within training are made by: accuracy on training images as they are, never the test's."""
        assert isinstance(self.task, Classification)
        return accuracy(net, _sparse.first_images(self.task.train_data, self.config.get("images", 1000)))

    def observe(self, net: nn.Module) -> dict[str, float]:
        if not isinstance(net, Relaxed):
            return {}
        both = sparsities(net)
        return {"sparsity": both.hardened, "exact": both.exact}

    def film(self, net: nn.Module, before: float, after: float, evaluate: Callable[[nn.Module], float]) -> Any:
        """Nothing: pruning's runs are filmed."""
        return None


def epochs(run: Run) -> int:
    """How many epochs the run takes, for a progress bar."""
    return pruning.epochs(run)


def compute(
    run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train one run; figures and curve as :func:`lab.runs.write` takes them."""
    net, task = _sparse.network(run).to(device), _sparse.task(run, device)
    names = _sparse.masked_names(run, net)
    trainer = Trainer(
        run.id, net, OneShot(run, task, device), run.config["training"], task,
        seed=run.seed, checkpoint=checkpoint, trunk=trunk(run), on_epoch=on_epoch, stop=stop,
    )  # fmt: skip
    fixed = trainer.run()
    plain = fixed.harden() if isinstance(fixed, Relaxed) else fixed
    searched = trainer.curve[run.config["training"]["epochs"] - 1]
    figures = {
        "accuracy": trainer.evaluate(plain),
        "sparsity": zeros(plain, names),
        "accuracy_before_fixing": searched["accuracy"],
        "accuracy_after_fixing": searched["accuracy_fixed"],
    }
    if "exact" in searched:
        figures["exact"] = searched["exact"]
    if run.config["method"]["name"] == "cs-filters":
        small = without_dead_channels(plain, _sparse.example(run, device))
        figures |= {
            "parameters": float(sum(p.numel() for p in plain.parameters())),
            "parameters_shrunk": float(sum(p.numel() for p in small.parameters())),
            "accuracy_shrunk": trainer.evaluate(small),
        }
    figures |= {f"sparsity.{name}": share for name, share in layer_zeros(plain, names).items()}
    return {"figures": figures, "curve": trainer.curve, "seconds": trainer.elapsed(), "model": plain}


def trunk(run: Run) -> tuple[str, Path] | None:
    """The search that runs share which differ only in what they make of its end: dense training, or Slimming's."""
    method, experiment = dict(run.config["method"]), run.experiment
    if method["name"] in ("dense", "mp", "amc"):
        method = pruning.method_config("dense", {})
        if run.config["model"] == "resnet20":  # the same training as pruning's
            experiment = pruning.EXPERIMENT
    elif method["name"] == "netslim":
        method["target"] = 0.5
    else:
        return None
    shared = Run(experiment, {**run.config, "method": method}, run.profile, run.seed)
    path = shared.checkpoint()
    return shared.id, path.with_name(f"trunk-{path.name}")
