"""A generator of few bits (Section 5.4.2: Table 5.4): a DCGAN on CIFAR-10 whose generator SMOL or BSQ quantises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lab.experiments.base import around_fixing
from lab.experiments.optimizers.gan import GANs
from lab.experiments.precision import few_bits
from lab.experiments.precision.few_bits import measured_bits, method_config
from lab.models.gan import GAN
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer

# 5.3.3, Image Generation: Adam at 2e-4 with (0.5, 0.999); 130 epochs of search and 30 of fine-tuning, at a tenth of the
# rate as BSQ's. It states neither the batch size (64 here, as in 6.3.3) nor the widths (Radford et al.'s).
ADAM = {
    "loss": "cross-entropy", "lr": 2e-4, "finetune_lr": 2e-5, "betas": [0.5, 0.999], "critic": 1, "weight_decay": 0.0,
}  # fmt: skip
CONSTANT = {"schedule": "steps", "steps": [], "factor": 1.0}
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini", "width": 16,
        "training": ADAM | CONSTANT | {
            "epochs": 5, "finetune_epochs": 2, "batch_size": 32, "samples": 1000, "evaluate_every": 100,
            "lr": 1e-3, "finetune_lr": 2e-4,
        },
        "lr_s": 2.5e-2, "lambda": [2e-5, 1e-4], "bsq": {"lambda": 2e-3, "requantisations": 3}, "seeds": (0,),
        "inception": False,
    },
    "short": {
        "data": "cifar10", "width": 64,
        "training": ADAM | CONSTANT | {
            "epochs": 20, "finetune_epochs": 5, "batch_size": 64, "samples": 10_000, "evaluate_every": 5,
        },
        "lr_s": 1e-3, "lambda": [2e-6, 1e-5, 2e-5], "bsq": {"lambda": 2e-3, "requantisations": 4}, "seeds": (0,),
        "inception": False,
    },
    "paper": {
        "data": "cifar10", "width": 64,
        "training": ADAM | CONSTANT | {
            "epochs": 130, "finetune_epochs": 30, "batch_size": 64, "samples": 10_000, "evaluate_every": 10,
        },
        "lr_s": 1e-3, "lambda": [1e-6, 2e-6, 5e-6, 1e-5, 2e-5], "bsq": {"lambda": 2e-3, "requantisations": 10},
        "seeds": (0, 1, 2), "inception": True,
    },
}  # fmt: skip
"""``inception``: whether a run ends with FID, for which the user brings the network (:mod:`lab.training.scores`)."""


METHODS = {name: few_bits.METHODS[name] for name in ("dense", "smol", "bsq")}


class GeneratorMethod(Method):
    """A method of Chapter 5 done to the generator: it alone is deployed (5.3.3)."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.inner = config, METHODS[config["name"]](config, seed)

    def relax(self, net: GAN) -> GAN:
        net.generator = self.inner.relax(net.generator)
        return net

    def optimizers(self, net: GAN, training: Config) -> list[torch.optim.Optimizer]:
        adam = {"lr": training["lr"], "betas": tuple(training["betas"])}
        s = [p for name, p in net.generator.named_parameters() if name == "relaxations.0.s"]
        weights = [p for p in net.generator.parameters() if all(p is not v for v in s)]
        both = [torch.optim.Adam(parameters, **adam) for parameters in (list(net.discriminator.parameters()), weights)]
        return both + [self.inner.adam(v) for v in s]

    def penalty(self, net: GAN) -> Tensor | None:
        return self.inner.penalty(net.generator)

    def step(self, net: GAN, progress: float) -> None:
        self.inner.step(net.generator, progress)

    def project(self, net: GAN) -> None:
        self.inner.project(net.generator)

    def fix(self, net: GAN) -> GAN:
        net.generator = self.inner.fix(net.generator)
        return net

    def observe(self, net: GAN) -> dict[str, float]:
        return self.inner.observe(net.generator)


class Generators(GANs):
    """A DCGAN with a generator of full precision, or of few bits."""

    name, chapter = "generation", 5
    point = ("lambda", "zero")

    def run(self, profile: str, name: str, seed: int = 0, epochs: tuple[int, int] | None = None, **options: Any) -> Run:
        """One run: ``run("quick", "smol", **{"lambda": 1e-5, "zero": True})``. ``epochs``: of search and of
        fine-tuning, if others."""
        protocol = PROTOCOL[check_profile(profile)]
        training = dict(protocol["training"])
        if epochs is not None:
            training |= {"epochs": epochs[0], "finetune_epochs": epochs[1]}
        method = method_config(name, protocol, METHODS, **options)
        config = {"model": "dcgan", "training": training, "method": method}
        config |= {key: protocol[key] for key in ("width", "data", "inception")}
        return Run(self.name, config, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs behind Table 5.4: full precision (at profile paper also for 30 epochs alone), SMOL and SMOL* along
        the penalties, BSQ."""
        protocol = PROTOCOL[check_profile(profile)]
        declared = []
        for seed in seeds or protocol["seeds"]:
            declared.append(self.run(profile, "dense", seed))
            for lam in reversed(protocol["lambda"]):
                for zero in (True, False) if profile != "quick" else (True,):
                    declared.append(self.run(profile, "smol", seed, **{"lambda": lam, "zero": zero}))
            if profile != "quick":
                declared.append(self.run(profile, "bsq", seed))
            if profile == "paper":
                declared.append(self.run(profile, "dense", seed, epochs=(30, 0)))
        return declared

    def method(self, run: Run, task: Task) -> Method:
        return GeneratorMethod(run.config["method"], run.seed)

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        figures = super().figures(run, trainer, trained, plain) | around_fixing(trainer)
        return figures | measured_bits(run, trained.generator, plain)


experiment = Generators()
run, runs = experiment.run, experiment.runs
