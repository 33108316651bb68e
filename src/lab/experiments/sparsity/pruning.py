"""One-shot pruning on CIFAR-10 (Section 4.4.1: Table 4.1, Figure 4.2): search, fix the structure, fine-tune.

Every method gets the same network, data, epochs and rates; only how it finds its zeros differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines import MagnitudeMask, gradual_sparsity
from lab.datasets import load
from lab.figures.annealing.recording import annealing_state
from lab.models import resnet20
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Classification, Config, Method, Trainer
from lab.utils.errors import LabError
from principled import ContinuousMask, KeepZeros, Relaxed
from principled.relax import is_spatial_convolution, select

from .selection import sparsities

EXPERIMENT, CHAPTER = "pruning", 4
FIRST = True
"""Of all experiments a recorder begins with this one."""

# What each profile trains. `paper` is Section 4.3.3; the others keep its shape (search about 80 %, then fine-tune) on fewer epochs.
# A shorter schedule gives the mask fewer steps to settle, so the rate of s grows as the steps shrink: see the chapter.
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
        "s_init": [0.0, -0.05, -0.1, -0.2],
        "target": [0.8, 0.9, 0.95, 0.98],
    },
    "paper": {
        "data": "cifar10",
        "training": {
            "epochs": 160, "finetune_epochs": 40, "batch_size": 128, "lr": 0.1, "finetune_lr": 0.001, "momentum": 0.9,
            "nesterov": True, "weight_decay": 5e-4, "schedule": "steps", "steps": [0.5, 0.75], "factor": 0.1,
        },
        "lr_s": 0.1,
        "s_init": [0.0, -0.01, -0.03, -0.05, -0.1, -0.2, -0.3],
        "target": [0.5, 0.8, 0.86, 0.9, 0.95, 0.98],
    },
}  # fmt: skip


def method_config(name: str, protocol: dict[str, Any], **options: Any) -> Config:
    """A method's part of a configuration; ``revision`` is raised by hand when the method's behaviour changes."""
    if name == "cs":
        fixed = {"revision": 1, "lambda": 1e-8, "beta_final": 200.0, "lr_s": protocol["lr_s"], "variant": "thesis"}
    elif name == "gmp":
        fixed = {"revision": 1, "begin": 0.1, "end": 0.9, "prunings": 40}
    elif name in ("dense", "mp"):
        fixed = {"revision": 1}
    else:
        raise LabError(f"unknown method {name!r}: choose dense, mp, gmp or cs")
    config = {"name": name} | fixed | options
    for option, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise LabError(f"{option} must be a finite number, not {value}")
    if config.get("lambda", 0) < 0:
        raise LabError(
            f"lambda must not be negative, it is {config['lambda']}: 0 adds no penalty, the thesis uses 1e-8"
        )
    if config.get("beta_final", 1) <= 0:
        raise LabError(f"beta_final must be above 0, it is {config['beta_final']}: the thesis uses 200")
    return config


def run(profile: str, name: str, seed: int = 0, **options: Any) -> Run:
    """One run of this experiment: ``run("quick", "cs", s_init=-0.05)``."""
    protocol = PROTOCOL[check_profile(profile)]
    config = {
        "model": "resnet20",
        "data": protocol["data"],
        "training": protocol["training"],
        "method": method_config(name, protocol, **options),
    }
    return Run(EXPERIMENT, config, profile, seed)


def headline(profile: str) -> dict[str, float]:
    """The point of each method's curve that every seed repeats."""
    protocol = PROTOCOL[check_profile(profile)]
    return {"s_init": protocol["s_init"][1], "target": 0.95}


def runs(profile: str, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Run]:
    """All runs behind Table 4.1's ResNet-20 row and Figure 4.2, the most telling first.

    The first seed walks along every method's curve; the others repeat the dense network and each curve's headline point.
    """
    protocol, middle = PROTOCOL[check_profile(profile)], headline(profile)
    repeated: list[tuple[str, dict[str, Any]]] = [("dense", {}), ("cs", {"s_init": middle["s_init"]})]
    repeated += [(name, {"target": middle["target"]}) for name in ("mp", "gmp")]
    curves: list[tuple[str, dict[str, Any]]] = [("cs", {"s_init": s}) for s in protocol["s_init"]]
    curves += [(name, {"target": s}) for name in ("mp", "gmp") for s in protocol["target"]]
    first, *rest = seeds
    points = [(*point, first) for point in repeated + [point for point in curves if point not in repeated]]
    points += [(*point, seed) for seed in rest for point in repeated]
    return [run(profile, name, seed, **options) for name, options, seed in points]


class PruningMethod(Method):
    """A method's configuration, as the training loop asks for it (:class:`lab.training.Method`)."""

    def __init__(self, config: Config, epochs: int, filmed: bool = False) -> None:
        self.config, self.name, self.epochs, self.filmed = config, config["name"], epochs, filmed
        self.pruned = -1

    def relax(self, net: nn.Module) -> nn.Module:
        if self.name == "cs":
            return Relaxed(net, ContinuousMask(self.config["s_init"], variant=self.config["variant"]))
        return (
            Relaxed(net, MagnitudeMask()) if self.name == "gmp" else net
        )  # one-shot pruning searches as a dense network

    def groups(self, net: nn.Module, training: Config) -> list[dict[str, Any]]:
        masks = [p for n, p in net.named_parameters() if n.startswith("relaxations.")]
        rest = [p for n, p in net.named_parameters() if not n.startswith("relaxations.")]
        groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": training["weight_decay"]}]
        if masks:  # no weight decay on s: the penalty is its regulariser (4.3.3)
            groups.append({"params": masks, "weight_decay": 0.0, "lr": self.config["lr_s"]})
        return groups

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty() if self.name == "cs" else None

    def step(self, net: nn.Module, progress: float) -> None:
        if self.name == "cs":
            net.anneal(progress, self.config["beta_final"])
        elif self.name == "gmp":
            begin, end, times = self.config["begin"], self.config["end"], self.config["prunings"]
            through = min(max((progress - begin) / (end - begin), 0.0), 1.0)
            count = int(through * times)
            if count > self.pruned:
                self.pruned = count
                net.relaxations[0].prune(net.weights(), gradual_sparsity(count / times, self.config["target"]))

    def fix(self, net: nn.Module) -> nn.Module:
        if self.name == "dense":
            return net
        if self.name == "mp":
            net = Relaxed(net, MagnitudeMask())
            net.relaxations[0].prune(net.weights(), self.config["target"])
        return Relaxed(net.harden(), KeepZeros())

    def observe(self, net: nn.Module) -> dict[str, float]:
        if not isinstance(net, Relaxed):
            return {}
        both = sparsities(net)
        found = {"sparsity": both.hardened, "exact": both.exact}
        return found | {"beta": float(net.relaxations[0].beta)} if self.name == "cs" else found

    def film(self, net: nn.Module, before: float, after: float, evaluate: Callable[[nn.Module], float]) -> Any:
        """The mask at one of :data:`MOMENTS`, as :class:`lab.figures.annealing.recording.Snapshot` has it."""
        due = any(before < moment <= after + 1e-9 for moment in MOMENTS)
        if self.name != "cs" or not self.filmed or not due:
            return None
        self.step(net, after)
        mask = net.relaxations[0]
        s = mask.s.detach().to("cpu", torch.float16)
        return after, after * self.epochs, float(mask.beta), s, evaluate(net), evaluate(net.harden())


MOMENTS = (0.15, 0.3, 0.45, 0.6, 0.7, 0.78, 0.84, 0.88, 0.91, 0.94, 0.97, 1.0)
"""When the annealing figure takes its pictures: most of them late, where the temperature does its work."""


def check(run: Run) -> None:
    """Refuse what the user can mend before anything is computed."""
    load(run.config["data"], "test")


def epochs(run: Run) -> int:
    """How many epochs the run takes, for a progress bar."""
    training = run.config["training"]
    return int(training["epochs"] + training["finetune_epochs"])


def compute(
    run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train one run; figures, curve and recording as :func:`lab.runs.write` takes them."""
    torch.manual_seed(run.seed)
    net = resnet20().to(device)
    data = load(run.config["data"], "train").to(device), load(run.config["data"], "test").to(device)
    method = PruningMethod(run.config["method"], run.config["training"]["epochs"], filmed=run.seed == 0)
    trainer = Trainer(
        run.id, net, method, run.config["training"], Classification(data, run.config["training"]),
        seed=run.seed, checkpoint=checkpoint, trunk=trunk(run), on_epoch=on_epoch, stop=stop,
    )  # fmt: skip
    fixed = trainer.run()
    plain = fixed.harden() if isinstance(fixed, Relaxed) else fixed
    searched = trainer.curve[run.config["training"]["epochs"] - 1]
    figures = {
        "accuracy": trainer.evaluate(plain),
        "sparsity": share_of_zeros(plain),
        "accuracy_before_fixing": searched["accuracy"],
        "accuracy_after_fixing": searched["accuracy_fixed"],
    }
    if "exact" in searched:
        figures["exact"] = searched["exact"]
    figures |= {f"sparsity.{name}": share for name, share in layer_sparsity(plain).items()}
    result = {"figures": figures, "curve": trainer.curve, "seconds": trainer.elapsed(), "model": plain}
    if trainer.moments:
        result["recording"] = recording(run, trainer.moments, plain, figures)
    return result


def trunk(run: Run) -> tuple[str, Path] | None:
    """The dense search that magnitude pruning shares with the dense network of the same seed."""
    if run.config["method"]["name"] not in ("dense", "mp"):
        return None
    dense = Run(run.experiment, {**run.config, "method": method_config("dense", {})}, run.profile, run.seed)
    path = dense.checkpoint()
    return dense.id, path.with_name(f"trunk-{path.name}")


def recording(run: Run, moments: list[Any], plain: nn.Module, figures: dict[str, float]) -> dict[str, Any]:
    """The run's moments for the annealing figure: histograms of s, and each layer's share of masks at zero."""
    sizes = {name.removesuffix(".weight"): w.numel() for name, w in select(plain, is_spatial_convolution).items()}
    return annealing_state(
        moments,
        sizes,
        title=f"Continuous Sparsification of a ResNet-20, s_init = {run.config['method']['s_init']:g}",
        profile=run.profile,
        run=run.id,
        hardened=(figures["accuracy"], figures["sparsity"]),
    )


def layer_sparsity(net: nn.Module) -> dict[str, float]:
    """Share of exact zeros in each maskable layer of a plain network."""
    weights = select(net, is_spatial_convolution)
    return {name.removesuffix(".weight"): float((w == 0).float().mean()) for name, w in weights.items()}


def share_of_zeros(net: nn.Module) -> float:
    """Share of exact zeros among all maskable weights of a plain network."""
    weights = select(net, is_spatial_convolution).values()
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
