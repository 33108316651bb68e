"""The ways to weights of few bits, a class each, and what Chapter 5's experiments measure of such a network."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lab.baselines.activations import ReLU6FourBits, replace_relu
from lab.baselines.quantizers import BSQ, DSQ, LSQ, SLB, DoReFa, FixedGrid, LQNets, Quantizer
from lab.datasets import CLASSES
from lab.experiments.base import Experiment
from lab.models import resnet20
from lab.models.registry import build
from lab.runs import Run
from lab.training import Config, Method, Task, Trainer, chance, sgd
from lab.utils.errors import LabError
from principled import FixedPrecision, Relaxed, Smol, average_bits, fix_precision, restrict
from principled.files import save, sizes
from principled.relax import select
from principled.smol import is_quantisable
from principled.smol_training import Quantised

FULL = 32
"""Bits of a weight that is not quantised."""


def known(what: str, name: str, names: Collection[str]) -> str:
    """``name``, if it is one of ``names``; else a LabError that lists them."""
    if name not in names:
        raise LabError(f"unknown {what} {name!r}: choose one of {', '.join(names)}")
    return name


# -- methods -----------------------------------------------------------------------------------------------------------


class DenseWeights(Method):
    """Full precision, and the base of the other methods.

    Args:
        config: the method's part of a configuration.
        seed: of the run.
        fresh: draws the plain network anew, where a method starts new weights.
    """

    required: ClassVar[Mapping[str, str]] = {}
    """Options that a configuration must give, each with the words that ask for it."""
    revision: ClassVar[int] = 1

    def __init__(self, config: Config, seed: int, fresh: Callable[[], nn.Module] = resnet20) -> None:
        self.config, self.seed, self.fresh = config, seed, fresh

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        """Defaults of the method's options; ``revision`` is raised by hand when the method's behaviour changes."""
        return {"revision": cls.revision}

    def discrete(self, net: nn.Module) -> nn.Module:
        """End of the search: the network with weights of few bits."""
        return net

    def fix(self, net: nn.Module) -> nn.Module:
        fixed = self.discrete(net)
        if self.config.get("activations"):  # from here on every ReLU6 gives one of the 16 values of 5.3.2
            replace_relu(fixed, ReLU6FourBits)
        return fixed


class SmolWeights(DenseWeights):
    """SMOL (Algorithm 5): a precision for every weight, group of weights, or layer."""

    required: ClassVar[Mapping[str, str]] = {
        "lambda": "a lambda, the price of a bit: the thesis uses 5e-7 to 1e-6 for a ResNet-20, 1e-6 to 2e-5 for a DCGAN"
    }

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {
            "revision": 1, "p_init": 8.0, "granularity": "weight", "zero": False, "allowed": None, "rounding": "floor",
            "lr_s": protocol["lr_s"],
        }  # fmt: skip

    def relax(self, net: nn.Module) -> nn.Module:
        config = self.config
        scale = config.get("scale", 1.0)
        return Relaxed(net, Smol(config["p_init"], config["granularity"], zero=config["zero"], scale=scale))

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        weights, s = weights_and_s(net)
        return [sgd([{"params": weights, "weight_decay": training["weight_decay"]}], training), *map(self.adam, s)]

    def adam(self, s: Tensor) -> torch.optim.Optimizer:
        """What trains s: Adam at a constant rate, without weight decay, whatever the weights' schedule (5.3.3)."""
        return torch.optim.Adam([{"params": [s], "scheduled": False}], lr=self.config["lr_s"])

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty()

    def project(self, net: nn.Module) -> None:
        if isinstance(smol := net.relaxations[0], Smol):  # Algorithm 5, line 6: in the search alone
            smol.clip_(dict(net.net.named_parameters()))

    def discrete(self, net: nn.Module) -> nn.Module:
        allowed = self.config.get("allowed")
        change = (lambda p: restrict(p, allowed)) if allowed else None
        return fix_precision(net, self.config["rounding"], self.config.get("zero", False), change)

    def observe(self, net: nn.Module) -> dict[str, float]:
        return {"bits": average_bits(net.relaxations[0].precision(self.config["rounding"]))}


def weights_and_s(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights of a network that SMOL searches, and its s: none once precisions are fixed."""
    s = [p for name, p in net.named_parameters() if name == "relaxations.0.s"]
    return [p for p in net.parameters() if all(p is not v for v in s)], s


class RetrainedWeights(SmolWeights):
    """New weights at the precisions that SMOL learned, in their places or shuffled within each layer (5.5.3)."""

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return super().options(protocol) | {"shuffled": False}

    def discrete(self, net: nn.Module) -> nn.Module:
        return self.start_anew(super().discrete(net).relaxations[0].precision())

    def start_anew(self, precision: dict[str, Tensor]) -> nn.Module:
        """A freshly drawn network at these precisions; torch's generator is left as it was."""
        source = torch.Generator().manual_seed(chance(self.seed, 553))
        if self.config["shuffled"]:
            precision = {name: shuffled(p, source) for name, p in precision.items()}
        with torch.random.fork_rng():
            torch.manual_seed(chance(self.seed, 554))
            return Relaxed(self.fresh(), FixedPrecision(precision))


def shuffled(p: Tensor, source: torch.Generator) -> Tensor:
    """The precisions of one tensor in an order drawn from ``source``."""
    return p.flatten()[torch.randperm(p.numel(), generator=source).to(p.device)].view(p.shape)


class BSQWeights(DenseWeights):
    """BSQ: a variable for each bit of each weight; a layer drops the bits that its weights stop using."""

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 1, "bits": 8, **protocol["bsq"]}

    def relax(self, net: nn.Module) -> nn.Module:
        relaxed = Relaxed(net, BSQ(self.config["bits"]))
        # how often it was requantised belongs to the run's state, so a checkpoint must hold it
        relaxed.register_buffer("requantised", torch.zeros((), dtype=torch.int64))
        return relaxed

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty()

    def step(self, net: nn.Module, progress: float) -> None:
        if int(progress * self.config["requantisations"]) > int(net.requantised):
            net.requantised.add_(1)
            net.relaxations[0].requantise()

    def project(self, net: nn.Module) -> None:
        if isinstance(bsq := net.relaxations[0], BSQ):
            bsq.clip_()

    def discrete(self, net: nn.Module) -> nn.Module:
        bsq = net.relaxations[0]
        bsq.requantise()
        return Relaxed(net.harden(), FixedGrid(bsq.grid()))

    def observe(self, net: nn.Module) -> dict[str, float]:
        return {"bits": net.relaxations[0].average_bits()}


class GivenBits(DenseWeights):
    """A method to which the precision is given; a subclass names its quantizer.

    The first and the last layer stay whole, as in the papers of these methods; their bits count as 32.
    """

    required: ClassVar[Mapping[str, str]] = {"bits": "bits, the precision of every weight"}
    quantizer: type[Quantizer]
    revision = 2

    def relax(self, net: nn.Module) -> nn.Module:
        between = list(select(net, is_quantisable))[1:-1]
        return Relaxed(net, self.quantizer(self.config["bits"], where=between))


class DoReFaWeights(GivenBits):
    """DoReFa."""

    quantizer = DoReFa


class LSQWeights(GivenBits):
    """LSQ, which learns the step between levels."""

    quantizer = LSQ


class DSQWeights(GivenBits):
    """DSQ, whose steps are soft at first."""

    quantizer = DSQ

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        """Its bounds get a gradient from every weight of a tensor: at the weights' rate they run away."""
        groups = [
            {"params": list(net.net.parameters()), "weight_decay": training["weight_decay"]},
            {"params": list(net.relaxations.parameters()), "weight_decay": 0.0, "lr": 0.01 * training["lr"]},
        ]
        return [sgd(groups, training)]


class LQNetsWeights(GivenBits):
    """LQ-Nets, which fits its levels to the weights after each step."""

    quantizer = LQNets

    def project(self, net: nn.Module) -> None:
        net.relaxations[0].update_(dict(net.net.named_parameters()))


class SLBWeights(GivenBits):
    """SLB: a distribution over levels for each weight, which annealing settles.

    Nothing is fixed at the end of the search: the other weights and the last few choices are left to learn.
    """

    quantizer = SLB

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return super().options(protocol) | {"final": 0.01}

    def step(self, net: nn.Module, progress: float) -> None:
        net.anneal(min(progress, 1.0), self.config["final"])


METHODS: dict[str, type[DenseWeights]] = {
    "dense": DenseWeights,
    "smol": SmolWeights,
    "retrain": RetrainedWeights,
    "bsq": BSQWeights,
    "slb": SLBWeights,
    "dorefa": DoReFaWeights,
    "lsq": LSQWeights,
    "dsq": DSQWeights,
    "lq-nets": LQNetsWeights,
}
"""By the name under ``method`` in a configuration."""


def method(config: Config, seed: int, fresh: Callable[[], nn.Module] = resnet20) -> DenseWeights:
    """The method of a configuration; see :class:`DenseWeights`."""
    return METHODS[config["name"]](config, seed, fresh)


def method_config(
    name: str, protocol: Mapping[str, Any], methods: Mapping[str, Any] = METHODS, **options: Any
) -> Config:
    """A method's part of a configuration: its defaults for ``protocol``, then ``options``.

    Raises:
        LabError: a method that is not among ``methods``, a required option that is missing, a number that makes no
            sense.
    """
    chosen = methods[known("method", name, methods)]
    for option, words in chosen.required.items():
        if option not in options:
            raise LabError(f"{name} needs {words}")
    config = {"name": name} | chosen.options(protocol) | options
    for option, value in config.items():
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise LabError(f"{option} must be a finite number, at least 0, not {value}")
    if config.get("activations", 4) != 4:
        raise LabError(f"activations must be 4 bits, as 5.3.2 has them, not {config['activations']}")
    return config


# -- what is measured --------------------------------------------------------------------------------------------------


class FewBits(Experiment):
    """A network whose weights end with few bits: search for precisions or train at given ones, fix them, fine-tune."""

    chapter = 5

    def network(self, run: Run) -> nn.Module:
        """With ReLU6 for ReLU where activations will be quantised (5.3.2)."""
        net = self._fresh(run)
        if run.config["method"].get("activations"):
            replace_relu(net, lambda: nn.ReLU6(inplace=True))
        return net

    def _fresh(self, run: Run) -> nn.Module:
        return build(run.config["model"], CLASSES[run.config["data"]])

    def method(self, run: Run, task: Task) -> Method:
        return method(run.config["method"], run.seed, partial(self._fresh, run))

    def trunk(self, run: Run) -> tuple[str, Path] | None:
        """The search that runs share which differ only in what they make of its end."""
        method, training = dict(run.config["method"]), dict(run.config["training"])
        if method["name"] not in ("smol", "retrain"):
            return None
        method |= {"name": "smol", "zero": False, "allowed": None, "rounding": "floor"}
        method.pop("shuffled", None)
        del training["finetune_lr"]
        search = Run(run.experiment, {**run.config, "training": training, "method": method}, run.profile, run.seed)
        path = search.checkpoint()
        return search.id, path.with_name(f"trunk-{path.name}")

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        figures = super().figures(run, trainer, trained, plain) | measured_bits(trained, plain)
        if (precision := precision_of(trained)) is not None:
            figures |= file_sizes(plain, precision, trained.relaxations[0].scales())
        return figures


def precision_of(trained: nn.Module) -> dict[str, Tensor] | None:
    """The precision of each weight by name, on the CPU, where the network has them."""
    last = trained.relaxations[0] if isinstance(trained, Relaxed) else None
    return {name: p.cpu() for name, p in last.precision().items()} if isinstance(last, FixedPrecision) else None


def measured_bits(trained: nn.Module, plain: nn.Module) -> dict[str, float]:
    """Average bits a weight, and of each layer where layers differ; as in its paper BSQ's sign is not counted."""
    if (precision := precision_of(trained)) is not None:
        return bits_of(precision)
    last = trained.relaxations[0] if isinstance(trained, Relaxed) else None
    if isinstance(last, FixedGrid):
        bits = {name: bits for name, (_, bits) in last.grid().items()}
    elif isinstance(last, Quantizer):
        bits = dict.fromkeys(select(plain, is_quantisable), FULL) | dict.fromkeys(last.names, last.bits)
    else:
        return {"bits": float(FULL)}
    sizes = {name: plain.get_parameter(name).numel() for name in bits}
    average = sum(bits[name] * size for name, size in sizes.items()) / sum(sizes.values())
    return {"bits": average} | {f"bits.{name.removesuffix('.weight')}": float(b) for name, b in bits.items()}


def bits_of(precision: dict[str, Tensor]) -> dict[str, float]:
    """Average bits of all quantised weights, of each layer, and the share of weights at each precision."""
    every = torch.cat([p.flatten() for p in precision.values()])
    shares = torch.bincount(every.long()) / len(every)
    return (
        {"bits": average_bits(precision)}
        | {f"bits.{name.removesuffix('.weight')}": float(p.float().mean()) for name, p in precision.items()}
        | {f"share.{bits}": float(share) for bits, share in enumerate(shares) if share}
    )


def file_sizes(plain: nn.Module, precision: dict[str, Tensor], scale: dict[str, float]) -> dict[str, float]:
    """What the saved network weighs, written and measured: bytes of the file, of its levels, of their precisions."""
    with tempfile.TemporaryDirectory() as folder:
        return sizes(save(Path(folder) / "net.principled", Quantised(plain, precision, scale))).parts()
