"""One-shot pruning, the rest of the field (4.4.1, 4.4.3: Tables 4.1 and 4.3, Figures 4.1, 4.2, 4.12): l0, Network
Slimming, AMC, STR, DNW and filter-wise CS on ResNet-20; every method on VGG-16; those of Table 4.3 on ResNet-50.

Network, data, epochs and rates are those of :mod:`lab.experiments.sparsity.pruning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from lab.baselines.amc import find_ratios, prune_by
from lab.baselines.discovered_wirings import DiscoveredWirings
from lab.baselines.hard_concrete import HardConcrete, commit_to_best
from lab.baselines.slimming import ScaledWeights
from lab.baselines.soft_threshold import SoftThreshold
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Classification, Config, Trainer, accuracy, chance
from lab.utils.errors import LabError
from principled import KeepZeros, Relaxed
from principled.filters import FilterMask, without_dead_channels

from . import pruning
from .common import configure, example
from .pruning import IMAGENET, STAND_IN, Dense, Masked

SAME = ("dense", "mp", "gmp", "cs")
"""Methods that :mod:`lab.experiments.sparsity.pruning` runs on ResNet-20 already; here on the other networks. The dense
network is there again, since claims are judged within an experiment; its training is shared."""

# What each profile tries: a list of options a method. The penalties' rates are scaled with the shorter schedules, as
# that of s is. Penalties, decays and starts have pilots: benchmarks/calibrate_sparsity.py.
POINTS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "quick": {
        "dense": [{}],
        "l0": [{"lambda": lam} for lam in (1e-3, 2e-3)],
        "netslim": [{"target": 0.8}, {"target": 0.9}],
        "amc": [{"target": 0.8}],
        "str": [{"decay": d} for d in (0.01, 0.02)],
        "dnw": [{"target": 0.9}],
        "cs-filters": [{"s_init": -0.05}],
    },
    "short": {
        "dense": [{}],
        "l0": [{"lambda": lam} for lam in (3e-4, 6e-4, 1e-3)],
        "netslim": [{"target": t} for t in (0.5, 0.8, 0.9, 0.95)],
        "amc": [{"target": t} for t in (0.5, 0.8, 0.9)],
        "str": [{"decay": d} for d in (8e-4, 2e-3, 8e-3)],
        "dnw": [{"target": t} for t in (0.5, 0.8, 0.9, 0.95)],
        "cs-filters": [{"s_init": s} for s in (0.0, -0.05, -0.1)],
    },
    "paper": {
        "dense": [{}],
        "l0": [{"lambda": lam} for lam in (1e-4, 3e-4, 6e-4, 1e-3, 2e-3)],
        "netslim": [{"target": t} for t in (0.5, 0.8, 0.85, 0.9, 0.95, 0.98)],
        "amc": [{"target": t} for t in (0.3, 0.5, 0.7, 0.8, 0.86, 0.9)],
        "str": [{"decay": d} for d in (3e-4, 4.5e-4, 7e-4, 1e-3, 2e-3)],
        "dnw": [{"target": t} for t in (0.5, 0.8, 0.86, 0.9, 0.95, 0.98)],
        "cs-filters": [{"s_init": s} for s in (0.0, -0.03, -0.1, -0.2)],
    },
}  # fmt: skip
VGG_POINTS: dict[str, list[dict[str, Any]]] = {
    "dense": [{}],
    "cs": [{"s_init": s} for s in (0.0, -0.03, -0.1, -0.2, -0.3, -0.5)],
    "mp": [{"target": t} for t in (0.5, 0.8, 0.9, 0.95, 0.975, 0.98, 0.99, 0.996)],
    "gmp": [{"target": t} for t in (0.5, 0.8, 0.9, 0.95, 0.975, 0.98, 0.99, 0.996)],
    "netslim": [{"target": t} for t in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)],
    "amc": [{"target": t} for t in (0.5, 0.8, 0.86, 0.9, 0.95)],
    "l0": [{"lambda": lam} for lam in (3e-4, 6e-4, 1e-3, 1.5e-3)],
}  # fmt: skip
IMAGENET_POINTS: dict[str, list[dict[str, Any]]] = {
    "dense": [{}],
    "cs": [{"s_init": s} for s in (0.0, -0.01, -0.02, -0.03, -0.05)],
    "gmp": [{"target": t} for t in (0.9, 0.95, 0.98, 0.99)],
    # the published decays give 90 and 95 % on a way (decay times summed rate) of 11.7 and 15.8; here 8.3 to 33
    "str": [{"decay": d} for d in (5e-5, 7e-5, 9.5e-5, 1.4e-4, 2e-4)],
    "dnw": [{"target": t} for t in (0.9, 0.95, 0.98)],
}  # fmt: skip
STAND_IN_POINTS: dict[str, list[dict[str, Any]]] = {
    "dense": [{}],
    "cs": [{"s_init": s} for s in (0.0, -0.05, -0.1, -0.3)],
    "gmp": [{"target": t} for t in (0.9, 0.95, 0.98)],
    "str": [{"decay": d} for d in (2e-3, 5e-3, 1e-2)],
    "dnw": [{"target": t} for t in (0.9, 0.95, 0.98)],
}  # fmt: skip

# What a method wants beside: the rate of its variables, and where they start. `paper` has the rates of the papers.
RATES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "l0": {"lr": 20.0, "open": 0.7, "draws": 5},
        "netslim": {"lr": 1.0, "lambda": 1e-5},
        "amc": {"episodes": 24, "explore": 8, "images": 100},
        "str": {"lr": 0.1, "s_init": -8.0},
        "cs-filters": {"lr": 0.2},
    },
    "short": {
        "l0": {"lr": 2.0, "open": 0.7, "draws": 10},
        "netslim": {"lr": 0.2, "lambda": 1e-5},
        "amc": {"episodes": 200, "explore": 50, "images": 1000},
        "str": {"lr": 0.1, "s_init": -10.0},
        "cs-filters": {"lr": 0.1},
    },
    "paper": {
        "l0": {"lr": 0.1, "open": 0.7, "draws": 10},
        "netslim": {"lr": 0.1, "lambda": 1e-5},
        "amc": {"episodes": 400, "explore": 100, "images": 5000},
        "str": {"lr": 0.1, "s_init": -3200.0},
        "cs-filters": {"lr": 0.1},
    },
}


class Scored(Dense):
    """A method that chooses by accuracy on the first training images as they are, never on the test's."""

    def score(self, net: nn.Module) -> float:
        """Accuracy on the first ``images`` of the configuration (default: 1,000)."""
        assert isinstance(self.task, Classification)
        images, count = self.task.train_data, self.config.get("images", 1000)
        return accuracy(net, replace(images, images=images.images[:count], labels=images.labels[:count]))


class L0(Scored, Masked):
    """ℓ₀ regularisation by hard concrete gates: at the end some masks are drawn and the best is kept."""

    needed = "lambda"

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 2} | protocol["l0"]  # 2: the gates are clamped

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, HardConcrete(self.config["open"], self.where))

    def project(self, net: nn.Module) -> None:
        if isinstance(gates := net.relaxations[0], HardConcrete):  # they are gone in fine-tuning
            gates.clamp()

    def fix(self, net: nn.Module) -> nn.Module:
        return Relaxed(commit_to_best(net, self.score, self.config["draws"]), KeepZeros(self.where))


class Slimming(Masked):
    """Network Slimming with a factor for each weight: the smallest factors go at the end of the search."""

    needed = "target"

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1} | protocol["netslim"]

    @classmethod
    def shared(cls, config: Config) -> Config | None:
        return config | {"target": 0.5}

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, ScaledWeights(self.where))

    def fix(self, net: nn.Module) -> nn.Module:
        net.relaxations[0].prune(self.config["target"])
        return super().fix(net)


class AMC(Scored):
    """AMC: an agent learns how much a dense network's layers can lose."""

    needed = "target"

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1} | protocol["amc"]

    def fix(self, net: nn.Module) -> nn.Module:
        search = find_ratios(
            net, self.config["target"], self.score, self.image, episodes=self.config["episodes"],
            explore=self.config["explore"], where=self.where, seed=chance(self.seed, 441) % 2**31,
        )  # fmt: skip
        return Relaxed(prune_by(net, search.ratios), KeepZeros(self.where))


class STR(Masked):
    """Soft threshold reparameterisation: a trained threshold a layer, whose weight decay sets the sparsity."""

    needed = "decay"

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1} | protocol["str"]

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, SoftThreshold(self.config["s_init"], self.where))


class DNW(Masked):
    """Discovering neural wirings: the largest weights of every step are kept."""

    needed = "target"

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, DiscoveredWirings(self.config["target"], self.where))


class FilterSparsification(Masked):
    """Continuous Sparsification with one switch for a whole filter."""

    needed = "s_init"

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1, "lambda": 1e-8, "beta_final": 200.0} | protocol["cs-filters"]

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, FilterMask(self.image, self.config["s_init"], where=self.where))

    def step(self, net: nn.Module, progress: float) -> None:
        net.anneal(progress, self.config["beta_final"])

    def fix(self, net: nn.Module) -> nn.Module:
        # with the normalisation that goes with the filters
        return Relaxed(net.harden(), KeepZeros(net.relaxations[0].names))


METHODS: dict[str, type[Dense]] = pruning.METHODS | {
    "l0": L0,
    "netslim": Slimming,
    "amc": AMC,
    "str": STR,
    "dnw": DNW,
    "cs-filters": FilterSparsification,
}


def method_config(name: str, profile: str, network: str, **options: Any) -> Config:
    """A method's part of a configuration."""
    protocol = pruning.PROTOCOL[check_profile(profile)] | RATES[profile]
    if name == "netslim" and network == "vgg16":
        options = {"lambda": 1e-6} | options  # 4.4.1
    return configure(METHODS, name, protocol, options)


class Rivals(pruning.Pruning):
    """The methods that :mod:`lab.experiments.sparsity.pruning` does not run, on ResNet-20, and all on VGG-16."""

    name = "methods"
    first = filmed = False
    point = ("s_init", "target", "lambda", "decay")
    methods = METHODS

    def run(self, profile: str, name: str, seed: int = 0, network: str = "resnet20", **options: Any) -> Run:
        """One run: ``run("quick", "netslim", target=0.9)``; ``network``: ``"resnet20"``, ``"vgg16"``, ``"resnet50"``.

        A ResNet-50's belongs to the experiment ``resnet50``: on ImageNet at ``paper``, on its stand-in at ``short``.
        """
        if network not in ("resnet20", "vgg16", "resnet50"):
            raise LabError(f"unknown network {network!r}: choose resnet20, vgg16 or resnet50")
        protocol = pruning.PROTOCOL[check_profile(profile)]
        if network == "resnet20" and name in SAME[1:]:
            raise LabError(
                f"{name} on ResNet-20 is a run of the experiment pruning: lab.experiments.sparsity.pruning.run"
            )
        if network != "resnet20" and profile == "quick":
            raise LabError(f"{network} has no runs at profile quick: choose short or paper")
        experiment, data, training = "methods", protocol["data"], protocol["training"]
        method = method_config(name, profile, network, **options)
        if network == "resnet50":
            experiment, data, training = "resnet50", "imagenet", IMAGENET
            if profile == "short":
                network, data, training = "resnet50-small-images", "tiny-imagenet-32", STAND_IN
        return Run(experiment, {"model": network, "data": data, "training": training, "method": method}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """ResNet-20's runs, then VGG-16's; the first seed walks along each method's curve, the others (default: three
        in all) repeat its middle."""
        first, *rest = (0, 1, 2) if seeds is None else seeds
        curves = POINTS[check_profile(profile)]
        declared = self.curves(profile, "resnet20", curves, first)
        if profile != "quick":
            middles = [(name, points[len(points) // 2]) for name, points in curves.items()]
            declared += [self.run(profile, name, seed, **point) for seed in rest for name, point in middles]
            declared += self.curves(profile, "vgg16", VGG_POINTS, first)
        return declared

    def curves(self, profile: str, network: str, points: Mapping[str, Sequence[Config]], seed: int) -> list[Run]:
        """Every point of every method's curve on a network."""
        return [self.run(profile, name, seed, network, **point) for name, curve in points.items() for point in curve]

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        figures = super().figures(run, trainer, trained, plain)
        if run.config["method"]["name"] == "cs-filters":
            small = without_dead_channels(plain, example(run, trainer.task.device))
            figures |= {
                "parameters": float(sum(p.numel() for p in plain.parameters())),
                "parameters_shrunk": float(sum(p.numel() for p in small.parameters())),
                "accuracy_shrunk": trainer.evaluate(small),
            }
        return figures


class ResNet50(Rivals):
    """Table 4.3: methods on ImageNet at profile ``paper``; an experiment of its own, since few have the data.

    At ``short`` the images are Tiny-ImageNet at 32x32, 200 classes, and the network is the form for small images: a
    stand-in, whose figures are compared with each other and never with the thesis's. At ``quick`` there are no runs.
    """

    name = "resnet50"
    point = ("s_init", "target", "decay")

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """Table 4.3's pruned networks; by default one seed."""
        points = {"quick": {}, "short": STAND_IN_POINTS, "paper": IMAGENET_POINTS}[check_profile(profile)]
        return [run for seed in seeds or (0,) for run in self.curves(profile, "resnet50", points, seed)]


experiment, resnet50 = Rivals(), ResNet50()
run, runs = experiment.run, experiment.runs
