"""Sharing, mask and precision stacked on one network and trained together (Chapter 7).

The thesis names it in 5.2.4 and leaves it open.

Sharing comes first, and what the mask prunes and the noise quantises are its *templates*. A mask on each layer's own
mixture would make layers differ again, and nothing would be saved. So a shared network is relaxed once more, as any
network is, and its file is that of :func:`principled.files.save`: few templates, most entries of zero bits.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines import optimizers
from lab.datasets import CLASSES
from lab.experiments.base import Experiment
from lab.models.registry import build
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer, sgd
from lab.utils.errors import LabError
from principled import ContinuousMask, FixedPrecision, KeepZeros, Relaxation, Relaxed, Smol, SoftSharing, fix_precision
from principled.files import load, save, sizes
from principled.relax import is_spatial_convolution
from principled.sharing import Templates
from principled.smol import is_quantisable

VERBS = ("share", "mask", "bits")
ZERO_BITS = "bits*"
"""Bits of which a weight may have none. Every stack with a mask below its bits has them so: what was removed needs a
level at zero. This cell has no mask: it tells the mask's own effect from that of the zero precision."""
STACKS = tuple("+".join(c) or "dense" for n in range(4) for c in itertools.combinations(VERBS, n))
COMBINATIONS = (*STACKS[:4], ZERO_BITS, *STACKS[4:])
"""All 2^3, from ``"dense"`` to ``"share+mask+bits"``, and :data:`ZERO_BITS`."""


def methods(combination: str) -> tuple[str, ...]:
    """What a combination adds to the dense network, one by one: ``mask+bits`` is ``("mask", "bits*")``."""
    verbs = () if combination == "dense" else combination.split("+")
    return tuple(ZERO_BITS if verb == "bits" and "mask" in verbs else verb for verb in verbs)


# One protocol for all, so that they differ in what is stacked alone. `paper` searches and fine-tunes as Chapter 4
# does (4.3.3), with the rates of each method's own chapter; the other two raise the rates of s as their steps shrink,
# as Chapters 4 and 5 do. `quick` has two blocks a stage: the least network whose stages all have layers of equal shape.
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini-16", "model": "resnet14",
        "training": {
            "epochs": 5, "finetune_epochs": 2, "batch_size": 64, "lr": 0.1, "finetune_lr": 0.02, "momentum": 0.9,
            "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1, "evaluate_every": 7,
        },
        "share": {"templates": 2, "lr_alpha": 1.0},
        "mask": {"s_init": -0.05, "lambda": 1e-8, "beta_final": 200.0, "lr_s": 1.0},
        "bits": {"p_init": 8.0, "lambda": 8e-6, "lr_s": 0.07},
        "seeds": (0, 1),
    },
    "short": {
        "data": "cifar10", "model": "resnet20",
        "training": {
            "epochs": 12, "finetune_epochs": 6, "batch_size": 128, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
            "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.05,
        },
        "share": {"templates": 2, "lr_alpha": 1.0},
        "mask": {"s_init": -0.05, "lambda": 1e-8, "beta_final": 200.0, "lr_s": 0.5},
        "bits": {"p_init": 8.0, "lambda": 1e-6, "lr_s": 2e-3},
        "seeds": (0, 1),
    },
    "paper": {
        "data": "cifar10", "model": "resnet20",
        "training": {
            "epochs": 160, "finetune_epochs": 40, "batch_size": 128, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
            "nesterov": True, "weight_decay": 1e-4, "schedule": "steps", "steps": [0.5, 0.75], "factor": 0.1,
            "evaluate_every": 10,
        },
        "share": {"templates": 2, "lr_alpha": 1.0},
        "mask": {"s_init": -0.05, "lambda": 1e-8, "beta_final": 200.0, "lr_s": 0.1},
        "bits": {"p_init": 8.0, "lambda": 7e-7, "lr_s": 1e-3},
        "seeds": (0, 1, 2),
    },
}  # fmt: skip

AVAGRAD = {"eps": 0.1, "factor": 10.0}
"""AvaGrad's momentum is an average where SGD's is a sum: at momentum 0.9 its rates are ten times SGD's (Chapter 6)."""


# -- the stack ---------------------------------------------------------------------------------------------------------


def is_maskable(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    """Chapter 4's choice, and what takes its place in a shared network: templates."""
    return isinstance(module, Templates) or is_spatial_convolution(name, module, parameter)


def is_quantised(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    """Chapter 5's choice and templates, but no coefficients: they are few, and each moves a whole layer."""
    if isinstance(module, nn.ParameterDict):
        return isinstance(module, Templates)
    return is_quantisable(name, module, parameter)


def stack(
    net: nn.Module,
    share: Config | None = None,
    mask: Config | None = None,
    bits: Config | None = None,
) -> nn.Module:
    """The relaxed network: layers mix ``share["templates"]`` templates, which carry a mask, on which lies noise.

    Each part is a configuration's, see :data:`PROTOCOL`; without it that part is left out. ``net`` itself if all are.
    """
    if share:
        net = Relaxed(net, SoftSharing(templates=share["templates"]))
    on_top: list[Relaxation] = [ContinuousMask(mask["s_init"], where=is_maskable)] if mask else []
    if bits:  # what the mask removed needs a level at zero, which only zero bits have
        on_top.append(Smol(bits["p_init"], where=is_quantised, zero=bool(mask) or bits.get("zero", False)))
    return Relaxed(net, *on_top) if on_top else net


def part(net: nn.Module, kind: type[Relaxation]) -> Any:
    """The network's relaxation of this kind, at whatever depth; None if it has none."""
    return next((module for module in net.modules() if isinstance(module, kind)), None)


def harden_stack(net: nn.Module) -> nn.Module:
    """End of the search: first the mask settles, then the masked weights get their precisions; sharing stays trainable.

    The result trains on: by straight-through estimates where there are precisions, else with the zeros held.
    """
    if part(net, Smol):
        assert isinstance(net, Relaxed)
        return fix_precision(net)
    if part(net, ContinuousMask):
        assert isinstance(net, Relaxed)
        return Relaxed(net.harden(), KeepZeros(where=is_maskable))
    return net


class Combined(Method):
    """The stack as the training loop drives it; each penalty has its own lambda, that of its chapter."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.verbs = {verb: config[verb] for verb in VERBS if verb in config}

    def relax(self, net: nn.Module) -> nn.Module:
        return stack(net, **self.verbs)

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        sharing, mask, smol = part(net, SoftSharing), part(net, ContinuousMask), part(net, Smol)
        coefficients = list(sharing.alpha.values()) if sharing else []
        masks, noise = [r.s for r in (mask,) if r], [r.s for r in (smol,) if r]
        own = {id(p) for p in (*coefficients, *masks, *noise)}
        groups: list[dict[str, Any]] = [
            {
                "params": [p for p in net.parameters() if id(p) not in own],
                "weight_decay": training["weight_decay"],
                "lr": training["lr"],
            }
        ]
        if sharing:  # no weight decay on what is no weight (3.3.3, 4.3.3, 5.3.3)
            rate = training["lr"] * self.config["share"]["lr_alpha"]
            groups.append({"params": coefficients, "weight_decay": 0.0, "lr": rate})
        if mask:
            groups.append({"params": masks, "weight_decay": 0.0, "lr": self.config["mask"]["lr_s"]})
        if self.config["optimizer"] == "AvaGrad":
            avagrad = self.config["avagrad"]
            faster = [group | {"lr": avagrad["factor"] * group["lr"]} for group in groups]
            descent = optimizers.build("AvaGrad", faster, eps=avagrad["eps"])
        else:
            descent = sgd(groups, training)
        if not smol:
            return [descent]
        return [descent, torch.optim.Adam([{"params": noise, "scheduled": False}], lr=self.config["bits"]["lr_s"])]

    def penalty(self, net: nn.Module) -> Tensor | None:
        parts = ((part(net, ContinuousMask), "mask"), (part(net, Smol), "bits"))
        penalties = [self.config[verb]["lambda"] * r.penalty() for r, verb in parts if r is not None]
        return sum(penalties[1:], penalties[0]) if penalties else None

    def step(self, net: nn.Module, progress: float) -> None:
        if (mask := part(net, ContinuousMask)) is not None:
            mask.anneal(progress, self.config["mask"]["beta_final"])

    def project(self, net: nn.Module) -> None:
        if (smol := part(net, Smol)) is not None:
            assert isinstance(net, Relaxed)
            smol.clip_(dict(net.net.named_parameters()))

    def fix(self, net: nn.Module) -> nn.Module:
        return harden_stack(net)


# -- the file ----------------------------------------------------------------------------------------------------------


def pack(path: Path, fixed: nn.Module) -> dict[str, float]:
    """Write a network after :func:`harden_stack`, float32 or of few bits, and say what its bytes are spent on."""
    if part(fixed, FixedPrecision):
        return sizes(save(path, fixed)).parts()
    return {"file_bytes": float(save(path, plain_form(fixed)).stat().st_size)}


def unpack(path: Path, net: nn.Module, templates: int | None = None) -> nn.Module:
    """The network of a packed file, ready to run. ``net`` is of its kind; ``templates`` is None if it shares none."""
    return load(path, stack(net, {"templates": templates} if templates else None))


def plain_form(fixed: nn.Module) -> nn.Module:
    """Without mask or precision on top: the network, or the network that shares, with the discrete weights."""
    on_top = isinstance(fixed, Relaxed) and part(fixed, SoftSharing) not in list(fixed.relaxations)
    return fixed.harden() if on_top else fixed


def zeros(net: nn.Module) -> float:
    """Share of exact zeros among the maskable weights, templates in place of the layers that they make."""
    weights = [p for _, m in net.named_modules() for n, p in m.named_parameters(recurse=False) if is_maskable(n, m, p)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


# -- the experiment ----------------------------------------------------------------------------------------------------


class Combining(Experiment):
    """All combinations by one protocol. Each ends as a file; ``accuracy`` is that of the network read from it."""

    name = "combining"
    chapter = 7
    point = ()

    def run(self, profile: str, combination: str, seed: int = 0, optimizer: str = "SGD") -> Run:
        """One run: ``run("quick", "share+mask+bits", optimizer="AvaGrad")``."""
        protocol = PROTOCOL[check_profile(profile)]
        if combination not in COMBINATIONS:
            raise LabError(f"unknown combination {combination!r}: choose one of {', '.join(COMBINATIONS)}")
        if optimizer not in ("SGD", "AvaGrad"):
            raise LabError(f"unknown optimizer {optimizer!r}: choose SGD or AvaGrad")
        verbs = {verb: protocol[verb] for verb in VERBS if verb in combination.replace("*", "").split("+")}
        verbs |= {"bits": protocol["bits"] | {"zero": True}} if combination == ZERO_BITS else {}
        name = combination + (", AvaGrad" if optimizer == "AvaGrad" else "")
        revision = 2 if "share" in verbs or optimizer == "AvaGrad" else 1
        method = {"name": name, "revision": revision, "combination": combination, "optimizer": optimizer} | verbs
        method |= {"avagrad": AVAGRAD} if optimizer == "AvaGrad" else {}
        config = {part: protocol[part] for part in ("model", "data", "training")} | {"method": method}
        return Run(self.name, config, profile, seed)

    def runs(self, profile: str, seeds: Iterable[int] | None = None) -> list[Run]:
        """All combinations with SGD, and with AvaGrad the two ends; the ends first. Every seed repeats all."""
        seeds = PROTOCOL[check_profile(profile)]["seeds"] if seeds is None else seeds
        ends = (COMBINATIONS[0], COMBINATIONS[-1])
        points = [(c, o) for o in ("SGD", "AvaGrad") for c in ends]
        points += [(c, "SGD") for c in COMBINATIONS if c not in ends]
        return [self.run(profile, combination, seed, optimizer) for seed in seeds for combination, optimizer in points]

    def network(self, run: Run) -> nn.Module:
        return build(run.config["model"], CLASSES[run.config["data"]])

    def method(self, run: Run, task: Task) -> Method:
        return Combined(run.config["method"])

    def harden(self, trained: nn.Module) -> nn.Module:
        return plain_form(trained)

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        templates = run.config["method"].get("share", {}).get("templates")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.principled"
            figures = pack(path, trained)
            read = unpack(path, self.network(run), templates).to(trainer.task.device)
        figures |= super().figures(run, trainer, trained, read)
        figures |= {"parameters": float(sum(p.numel() for p in read.parameters())), "zeros": zeros(read)}
        if (precision := part(trained, FixedPrecision)) is not None:
            figures["bits"] = float(precision.p.float().mean())
        return figures


experiment = Combining()
run, runs = experiment.run, experiment.runs
