"""One-shot pruning on CIFAR-10 (Section 4.4.1: Table 4.1, Figure 4.2): search, fix the structure, fine-tune.

Every method gets the same network, data, epochs and rates; only how it finds its zeros differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines import MagnitudeMask, gradual_sparsity
from lab.figures.annealing.recording import annealing_state
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer
from principled import ContinuousMask, KeepZeros, Relaxed
from principled.relax import Where, is_spatial_convolution

from .common import Sparsification, Sparsifier, configure, example, masked_names, where
from .selection import layer_zeros, sparsities, zeros

# What each profile trains. `paper` is Section 4.3.3; the others keep its shape (search about 80 %, then fine-tune) on
# fewer epochs. A shorter schedule gives the mask fewer steps to settle, so the rate of s grows as the steps shrink: see
# the chapter. Where the starts of `short` and `paper` lead, benchmarks/calibrate_sparsity.py says.
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini-16",
        "training": {
            "epochs": 7, "finetune_epochs": 2, "batch_size": 64, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
            "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.1,
            "evaluate_every": 4,
        },
        "lr_s": 1.0,
        "s_init": [0.0, -0.05, -0.1],
        "target": [0.8, 0.9, 0.95],
    },
    "short": {
        "data": "cifar10",
        "training": {
            "epochs": 12, "finetune_epochs": 3, "batch_size": 128, "lr": 0.1, "finetune_lr": 0.001, "momentum": 0.9,
            "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.05,
        },
        "lr_s": 0.5,
        "s_init": [0.0, -0.05, -0.1, -0.2, -0.3],
        "target": [0.5, 0.8, 0.9, 0.95, 0.98],
    },
    "paper": {
        "data": "cifar10",
        "training": {
            "epochs": 160, "finetune_epochs": 40, "batch_size": 128, "lr": 0.1, "finetune_lr": 0.001, "momentum": 0.9,
            "nesterov": True, "weight_decay": 5e-4, "schedule": "steps", "steps": [0.5, 0.75], "factor": 0.1,
        },
        "lr_s": 0.1,
        "s_init": [0.0, -0.01, -0.03, -0.05, -0.1, -0.2, -0.3, -0.5],
        "target": [0.5, 0.8, 0.86, 0.9, 0.95, 0.98],
    },
}  # fmt: skip

IMAGENET = {
    "epochs": 90, "finetune_epochs": 10, "batch_size": 256, "lr": 0.1, "finetune_lr": 0.001, "momentum": 0.9,
    "nesterov": False, "weight_decay": 1e-4, "schedule": "steps", "steps": [30 / 90, 60 / 90], "factor": 0.1,
}  # fmt: skip
"""A ResNet-50 (4.3.3): 90 epochs, the rate falls at 30 and 60. The thesis fine-tunes (4.4.3) and does not say how long:
here 10 epochs at a hundredth of the first rate, the same for every method."""

STAND_IN = IMAGENET | {"epochs": 15, "finetune_epochs": 2, "warmup": 0.05}
"""At `short` the ResNet-50 learns Tiny-ImageNet at 32x32, a stand-in for ImageNet, on the same schedule, shorter."""


class Dense(Sparsifier):
    """Dense training; what all methods of one-shot pruning share.

    Args:
        config, where: as every :class:`Sparsifier` has them.
        task: what is learned: some methods choose by their score on training images.
        image: a blank image: some methods measure the network's shapes with it.
        seed: of the run.
    """

    def __init__(
        self,
        config: Config,
        where: Where = is_spatial_convolution,
        task: Task | None = None,
        image: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(config, where)
        self.task, self.image, self.seed = task, image, seed

    @classmethod
    def shared(cls, config: Config) -> Config | None:
        """The method of the search that this run shares with others, which differ only in what they make of its end."""
        return {"name": "dense", "revision": 1}

    def groups(self, net: nn.Module, training: Config) -> list[dict[str, Any]]:
        variables = [p for n, p in net.named_parameters() if n.startswith("relaxations.")]
        rest = [p for n, p in net.named_parameters() if not n.startswith("relaxations.")]
        groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": training["weight_decay"]}]
        if variables:  # no weight decay on s: the penalty is its regulariser (4.3.3)
            rate = self.config.get("lr_s", self.config.get("lr"))
            groups.append({"params": variables, "weight_decay": self.config.get("decay", 0.0), "lr": rate})
        return groups

    def observe(self, net: nn.Module) -> dict[str, float]:
        if not isinstance(net, Relaxed):
            return {}
        both = sparsities(net)
        return {"sparsity": both.hardened, "exact": both.exact}


class Magnitude(Dense):
    """One-shot magnitude pruning: the search is dense, and at its end the smallest weights go."""

    def fix(self, net: nn.Module) -> nn.Module:
        pruned = Relaxed(net, MagnitudeMask(self.where))
        pruned.relaxations[0].prune(pruned.weights(), self.config["target"])
        return Relaxed(pruned.harden(), KeepZeros(self.where))


class Masked(Dense):
    """A method with a mask or the like in training, whose zeros are kept at the end of the search."""

    @classmethod
    def shared(cls, config: Config) -> Config | None:
        return None

    def fix(self, net: nn.Module) -> nn.Module:
        return Relaxed(net.harden(), KeepZeros(self.where))


class GradualMagnitude(Masked):
    """Gradual magnitude pruning: the smallest weights go bit by bit."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pruned = -1

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1, "begin": 0.1, "end": 0.9, "prunings": 40}

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, MagnitudeMask(self.where))

    def step(self, net: nn.Module, progress: float) -> None:
        begin, end, times = self.config["begin"], self.config["end"], self.config["prunings"]
        through = min(max((progress - begin) / (end - begin), 0.0), 1.0)
        count = int(through * times)
        if count > self.pruned:
            self.pruned = count
            net.relaxations[0].prune(net.weights(), gradual_sparsity(count / times, self.config["target"]))


class ContinuousSparsification(Masked):
    """Algorithm 1.

    Attributes:
        filmed: epochs of the search, if the run keeps its mask at :data:`MOMENTS` for the annealing figure; else 0.
    """

    filmed = 0

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1, "lambda": 1e-8, "beta_final": 200.0, "lr_s": protocol["lr_s"], "variant": "thesis"}

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, ContinuousMask(self.config["s_init"], self.where, variant=self.config["variant"]))

    def step(self, net: nn.Module, progress: float) -> None:
        net.anneal(progress, self.config["beta_final"])

    def observe(self, net: nn.Module) -> dict[str, float]:
        return super().observe(net) | {"beta": float(net.relaxations[0].beta)}

    def film(self, net: nn.Module, before: float, after: float, evaluate: Callable[[nn.Module], float]) -> Any:
        """The mask at one of :data:`MOMENTS`, as :class:`lab.figures.annealing.recording.Snapshot` has it."""
        if not self.filmed or not any(before < moment <= after + 1e-9 for moment in MOMENTS):
            return None
        self.step(net, after)
        mask = net.relaxations[0]
        s = mask.s.detach().to("cpu", torch.float16)
        return after, after * self.filmed, float(mask.beta), s, evaluate(net), evaluate(net.harden())


MOMENTS = (0.15, 0.3, 0.45, 0.6, 0.7, 0.78, 0.84, 0.88, 0.91, 0.94, 0.97, 1.0)
"""When the annealing figure takes its pictures: most of them late, where the temperature does its work."""

METHODS: dict[str, type[Dense]] = {
    "dense": Dense,
    "mp": Magnitude,
    "gmp": GradualMagnitude,
    "cs": ContinuousSparsification,
}


def method_config(name: str, protocol: Mapping[str, Any], **options: Any) -> Config:
    """A method's part of a configuration."""
    return configure(METHODS, name, protocol, options)


def method(config: Config) -> Dense:
    """The method of a configuration, on the spatial convolutions of any network."""
    return METHODS[config["name"]](config)


class Pruning(Sparsification):
    """Table 4.1's ResNet-20 row and Figure 4.2."""

    name = "pruning"
    first = True
    filmed = True
    """Whether the first seed of CS records how its mask anneals."""
    methods: Mapping[str, type[Dense]] = METHODS

    def run(self, profile: str, name: str, seed: int = 0, **options: Any) -> Run:
        """One run: ``run("quick", "cs", s_init=-0.05)``."""
        protocol = PROTOCOL[check_profile(profile)]
        config = {
            "model": "resnet20",
            "data": protocol["data"],
            "training": protocol["training"],
            "method": method_config(name, protocol, **options),
        }
        return Run(self.name, config, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs; the first seed walks along every method's curve, the others (default: three in all) repeat the
        dense network and a point of each curve."""
        protocol = PROTOCOL[check_profile(profile)]
        repeated: list[tuple[str, dict[str, Any]]] = [("dense", {}), ("cs", {"s_init": protocol["s_init"][1]})]
        repeated += [(name, {"target": 0.95}) for name in ("mp", "gmp")]
        curves: list[tuple[str, dict[str, Any]]] = [("cs", {"s_init": s}) for s in protocol["s_init"]]
        curves += [(name, {"target": s}) for name in ("mp", "gmp") for s in protocol["target"]]
        first, *rest = (0, 1, 2) if seeds is None else seeds
        points = [(*point, first) for point in repeated + [point for point in curves if point not in repeated]]
        points += [(*point, seed) for seed in rest for point in repeated]
        return [self.run(profile, name, seed, **options) for name, options, seed in points]

    def method(self, run: Run, task: Task) -> Method:
        config = run.config["method"]
        method = self.methods[config["name"]](config, where(run), task, example(run, task.device), run.seed)
        if isinstance(method, ContinuousSparsification) and self.filmed and run.seed == 0:
            method.filmed = run.config["training"]["epochs"]
        return method

    def trunk(self, run: Run) -> tuple[str, Path] | None:
        """The search that runs share which differ only in what they make of its end: dense training, or Slimming's."""
        config = run.config["method"]
        if (method := self.methods[config["name"]].shared(config)) is None:
            return None
        # the dense ResNet-20 of the rivals is trained as pruning's
        of_pruning = method["name"] == "dense" and run.config["model"] == "resnet20"
        shared = Run(
            "pruning" if of_pruning else run.experiment, {**run.config, "method": method}, run.profile, run.seed
        )
        path = shared.checkpoint()
        return shared.id, path.with_name(f"trunk-{path.name}")

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        names = masked_names(run, plain)
        searched = trainer.curve[run.config["training"]["epochs"] - 1]
        figures = super().figures(run, trainer, trained, plain) | {"sparsity": zeros(plain, names)}
        if "exact" in searched:
            figures["exact"] = searched["exact"]
        return figures | {f"sparsity.{name}": share for name, share in layer_zeros(plain, names).items()}

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any] | None:
        """The run's moments for the annealing figure: histograms of s, and each layer's share of masks at zero."""
        if not trainer.moments:
            return None
        return annealing_state(
            trainer.moments,
            {n.removesuffix(".weight"): plain.get_parameter(n).numel() for n in masked_names(run, plain)},
            title=f"Continuous Sparsification of a ResNet-20, s_init = {run.config['method']['s_init']:g}",
            profile=run.profile,
            run=run.id,
            hardened=(figures["accuracy"], figures["sparsity"]),
        )


experiment = Pruning()
run, runs = experiment.run, experiment.runs
