"""A generator of few bits (Section 5.4.2: Table 5.4): a DCGAN on CIFAR-10 whose generator is quantised, by SMOL or BSQ, or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines.fixed_grid import FixedGrid
from lab.datasets import load
from lab.experiments.precision.weights import FULL, PrecisionMethod, bits_of, grid_bits
from lab.models.gan import GAN
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method
from lab.training import scores as fidelity
from lab.training.gan_duel import Duel
from lab.training.gan_generated import Generation, sheet
from lab.utils.errors import LabError
from principled import FixedPrecision, Relaxed

EXPERIMENT, CHAPTER = "generation", 5
POINT = ("lambda", "zero")
"""Options that tell one point of a curve from another (:mod:`lab.runs.intervals`)."""

# 5.3.3, Image Generation: Adam at 2e-4 with (0.5, 0.999); 130 epochs of search and 30 of fine-tuning, at a tenth of the rate as BSQ's.
# It states neither the batch size (64 here, as in 6.3.3) nor the widths (Radford et al.'s).
ADAM = {
    "loss": "cross-entropy",
    "lr": 2e-4,
    "finetune_lr": 2e-5,
    "betas": [0.5, 0.999],
    "critic": 1,
    "weight_decay": 0.0,
}
CONSTANT = {"schedule": "steps", "steps": [], "factor": 1.0}
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini", "width": 16,
        "training": ADAM | CONSTANT | {
            "epochs": 5, "finetune_epochs": 2, "batch_size": 32, "samples": 1000, "evaluate_every": 100,
            "lr": 1e-3, "finetune_lr": 2e-4,
        },
        "lr_s": 2.5e-2, "lambda": [2e-5, 1e-4], "bsq": {"lambda": 2e-3, "requantisations": 3}, "seeds": (0,), "inception": False,
    },
    "short": {
        "data": "cifar10", "width": 64,
        "training": ADAM | CONSTANT | {
            "epochs": 20, "finetune_epochs": 5, "batch_size": 64, "samples": 10_000, "evaluate_every": 5,
        },
        "lr_s": 1e-3, "lambda": [2e-6, 1e-5, 2e-5], "bsq": {"lambda": 2e-3, "requantisations": 4}, "seeds": (0,), "inception": False,
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


def run(profile: str, name: str, seed: int = 0, epochs: tuple[int, int] | None = None, **options: Any) -> Run:
    """One run: ``run("quick", "smol", **{"lambda": 1e-5, "zero": True})``. ``epochs``: of search and of fine-tuning, if others."""
    protocol = PROTOCOL[check_profile(profile)]
    training = dict(protocol["training"])
    if epochs is not None:
        training |= {"epochs": epochs[0], "finetune_epochs": epochs[1]}
    if name == "smol":
        fixed: Config = {
            "revision": 1, "p_init": 8.0, "granularity": "weight", "zero": False, "allowed": None, "rounding": "floor",
            "lr_s": protocol["lr_s"],
        }  # fmt: skip
        if "lambda" not in options:
            raise LabError("smol needs a lambda, the price of a bit: the thesis uses 1e-6 to 2e-5 for a DCGAN")
        if not options["lambda"] >= 0:
            raise LabError(f"lambda must be a number of at least 0, not {options['lambda']}: it is the price of a bit")
    elif name == "bsq":
        fixed = {"revision": 1, "bits": 8, **protocol["bsq"]}
    elif name == "dense":
        fixed = {"revision": 1}
    else:
        raise LabError(f"unknown method {name!r} for a generator: choose dense, smol or bsq")
    config = {
        "model": "dcgan", "width": protocol["width"], "data": protocol["data"], "inception": protocol["inception"],
        "training": training, "method": {"name": name} | fixed | options,
    }  # fmt: skip
    return Run(EXPERIMENT, config, profile, seed)


def runs(profile: str, seeds: tuple[int, ...] | None = None) -> list[Run]:
    """All runs behind Table 5.4: full precision (at profile paper also for 30 epochs alone), SMOL and SMOL* along the penalties, BSQ."""
    protocol = PROTOCOL[check_profile(profile)]
    found = []
    for seed in seeds or protocol["seeds"]:
        found.append(run(profile, "dense", seed))
        for lam in reversed(protocol["lambda"]):
            for zero in (True, False) if profile != "quick" else (True,):
                found.append(run(profile, "smol", seed, **{"lambda": lam, "zero": zero}))
        if profile != "quick":
            found.append(run(profile, "bsq", seed))
        if profile == "paper":
            found.append(run(profile, "dense", seed, epochs=(30, 0)))
    return found


class GeneratorMethod(Method):
    """What :class:`lab.experiments.precision.weights.PrecisionMethod` does to a network, done to the generator: it alone is deployed (5.3.3)."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.inner = config, PrecisionMethod(config, seed)
        self.quantises = config["name"] != "dense"

    def relax(self, net: GAN) -> GAN:
        net.generator = self.inner.relax(net.generator)
        return net

    def optimizers(self, net: GAN, training: Config) -> list[torch.optim.Optimizer]:
        adam = {"lr": training["lr"], "betas": tuple(training["betas"])}
        s = _variables(net.generator) if self.config["name"] == "smol" else []
        weights = [p for p in net.generator.parameters() if all(p is not v for v in s)]
        found: list[torch.optim.Optimizer] = [torch.optim.Adam(net.discriminator.parameters(), **adam)]
        found.append(torch.optim.Adam(weights, **adam))
        if s:  # at a constant rate with Adam's default betas (5.3.3)
            found.append(torch.optim.Adam([{"params": s, "scheduled": False}], lr=self.config["lr_s"]))
        return found

    def penalty(self, net: GAN) -> Tensor | None:
        return self.inner.penalty(net.generator) if self.quantises else None

    def step(self, net: GAN, progress: float) -> None:
        self.inner.step(net.generator, progress)

    def project(self, net: GAN) -> None:
        self.inner.project(net.generator)

    def fix(self, net: GAN) -> GAN:
        net.generator = self.inner.fix(net.generator)
        return net

    def observe(self, net: GAN) -> dict[str, float]:
        return self.inner.observe(net.generator)


def _variables(generator: nn.Module) -> list[nn.Parameter]:
    return (
        [generator.relaxations[0].s]
        if isinstance(generator, Relaxed) and hasattr(generator.relaxations[0], "s")
        else []
    )


def check(run: Run) -> None:
    """Refuse what the user can mend before anything is computed."""
    load(run.config["data"], "test")
    if run.config["inception"]:
        fidelity.inception_file()


def epochs(run: Run) -> int:
    """How many epochs the run takes, for a progress bar."""
    return int(run.config["training"]["epochs"] + run.config["training"]["finetune_epochs"])


def compute(
    run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train one run; figures, curve and recording as :func:`lab.runs.write` takes them."""
    config = run.config
    torch.manual_seed(run.seed)
    net = GAN(width=config["width"]).to(device)
    task = Generation(
        (load(config["data"], "train").to(device), load(config["data"], "test").to(device)), config["training"]
    )
    trainer = Duel(
        run.id, net, GeneratorMethod(config["method"], run.seed), config["training"], task,
        seed=run.seed, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop,
    )  # fmt: skip
    generator = trainer.run().generator
    plain = generator.harden() if isinstance(generator, Relaxed) else generator
    plain.latent = net.latent
    figures = {"fd": task.evaluate(plain)}
    figures |= {f"fd_{when}": trainer.curve[config["training"]["epochs"] - 1][key] for when, key in (("before_fixing", "fd"), ("after_fixing", "fd_fixed"))}  # fmt: skip
    if config["inception"]:
        figures |= task.inception(plain)
    last = generator.relaxations[0] if isinstance(generator, Relaxed) else None
    if isinstance(last, FixedPrecision):
        figures |= bits_of({name: p.cpu() for name, p in last.precision().items()})
    elif isinstance(last, FixedGrid):
        figures["bits"] = grid_bits(last.grid(), plain)
    else:
        figures["bits"] = float(FULL)
    recording = {"samples": sheet(task.sample(plain, 32), 8)}
    return {"curve": trainer.curve, "seconds": trainer.elapsed(), "model": plain, "figures": figures, "recording": recording}  # fmt: skip
