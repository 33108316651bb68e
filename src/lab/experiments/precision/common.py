"""What Chapter 5's experiments beyond ResNet-20 share: networks by name, their data, and one run from its start to its figures.

Methods, and what is recorded of a precision map, are those of :mod:`lab.experiments.precision.weights`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines.activations import ReLU6FourBits, replace_relu
from lab.baselines.fixed_grid import FixedGrid
from lab.datasets import CLASSES, load
from lab.experiments.sparsity.common import task
from lab.models import conv6, resnet20, resnet50
from lab.models.mobile import mobilenetv2, mobilenetv2_narrow, shufflenet, shufflenet_narrow
from lab.models.resnet18 import resnet18
from lab.models.small_cnn import SmallCNN
from lab.runs import Run
from lab.training import Config, Trainer, chance
from lab.utils.errors import LabError
from principled import FixedPrecision, Relaxed, Smol

from . import weights as precision

NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet20": resnet20,
    "mobilenetv2": mobilenetv2,
    "shufflenet": shufflenet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "conv6": conv6,
    # what `quick` can afford
    "small CNN": lambda classes: SmallCNN(classes=classes),
    "mobilenetv2-narrow": mobilenetv2_narrow,
    "shufflenet-narrow": shufflenet_narrow,
    "conv6-quarter": partial(conv6, width=0.25),
}
"""By the name under ``model`` in a configuration: from the number of classes to the plain network."""


def known_network(name: str, *among: str) -> str:
    """``name``, if it is one of ``among``; else a line that lists them."""
    if name not in among:
        raise LabError(f"unknown network {name!r}: choose {', '.join(among)}")
    return name


def network(run: Run) -> nn.Module:
    """The plain network of a run, started from its seed; with ReLU6 for ReLU where activations will be quantised (5.3.2)."""
    torch.manual_seed(run.seed)
    net = NETWORKS[run.config["model"]](CLASSES[run.config["data"]])
    if run.config["method"].get("activations"):
        replace_relu(net, lambda: nn.ReLU6(inplace=True))
    return net


def check(run: Run) -> None:
    """Refuse what the user can mend before anything is computed."""
    if run.config["data"] == "imagenet":
        from lab.training.imagenet import folders

        folders()
    else:
        load(run.config["data"], "test")


class Quantised(precision.PrecisionMethod):
    """:class:`lab.experiments.precision.weights.PrecisionMethod` for any network, with two options more.

    ``scale``: what the weights' range of ±2 is multiplied by, see :class:`principled.Smol`. ``activations``: 4, once
    fine-tuning starts every ReLU6 gives one of the 16 values of 5.3.2.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run.config["method"], run.seed)
        self.run = run

    def relax(self, net: nn.Module) -> nn.Module:
        config = self.config
        if self.name == "smol" and "scale" in config:
            return Relaxed(
                net, Smol(config["p_init"], config["granularity"], zero=config["zero"], scale=config["scale"])
            )
        return super().relax(net)

    def fix(self, net: nn.Module) -> nn.Module:
        fixed = super().fix(net)
        if self.config.get("activations"):
            replace_relu(fixed, ReLU6FourBits)
        return fixed

    def _anew(self, precision: dict[str, Tensor]) -> nn.Module:
        source = torch.Generator().manual_seed(chance(self.seed, 553))
        if self.config["shuffled"]:
            precision = {name: dealt(p, source) for name, p in precision.items()}
        with torch.random.fork_rng():
            torch.manual_seed(chance(self.seed, 554))
            return Relaxed(
                NETWORKS[self.run.config["model"]](CLASSES[self.run.config["data"]]), FixedPrecision(precision)
            )


def dealt(p: Tensor, source: torch.Generator) -> Tensor:
    """The precisions of one tensor in an order drawn from ``source``."""
    return p.flatten()[torch.randperm(p.numel(), generator=source).to(p.device)].view(p.shape)


def method_config(name: str, protocol: dict[str, Any], **options: Any) -> Config:
    """:func:`lab.experiments.precision.weights.method_config`, whose options may have ``scale`` and ``activations`` among them."""
    if options.get("activations", 4) != 4:
        raise LabError(f"activations must be 4 bits, as 5.3.2 has them, not {options['activations']}")
    return precision.method_config(name, protocol, **options)


def epochs(run: Run) -> int:
    """How many epochs the run takes, for a progress bar."""
    return int(run.config["training"]["epochs"] + run.config["training"]["finetune_epochs"])


def compute(
    run: Run,
    device: torch.device,
    checkpoint: Path,
    on_epoch: Callable[[int], None],
    stop: Callable[[], bool],
    start: nn.Module | None = None,
) -> dict[str, Any]:
    """Train one run, from ``start`` if that is given; figures and curve as :func:`lab.runs.write` takes them.

    The precision map is not recorded: that of a large network is larger than all other records. Its figures are.
    """
    net = (network(run) if start is None else start).to(device)
    learned, training = task(run, device), run.config["training"]
    trainer = Trainer(
        run.id, net, Quantised(run), training, learned,
        seed=run.seed, checkpoint=checkpoint, trunk=precision.trunk(run), on_epoch=on_epoch, stop=stop,
    )  # fmt: skip
    fixed = trainer.run()
    plain = fixed.harden() if isinstance(fixed, Relaxed) else fixed
    searched = trainer.curve[training["epochs"] - 1]
    figures = {
        "accuracy": trainer.evaluate(plain),
        "accuracy_before_fixing": searched["accuracy"],
        "accuracy_after_fixing": searched["accuracy_fixed"],
    }
    last = fixed.relaxations[0] if isinstance(fixed, Relaxed) else None
    if isinstance(last, FixedPrecision):
        found = {name: p.cpu() for name, p in last.precision().items()}
        figures |= precision.bits_of(found) | precision.file_sizes(plain, found, last.scales())
    elif isinstance(last, FixedGrid):
        figures["bits"] = precision.grid_bits(last.grid(), plain)
        figures |= {f"bits.{name.removesuffix('.weight')}": float(bits) for name, (_, bits) in last.grid().items()}
    else:
        figures["bits"] = float(run.config["method"].get("bits", precision.FULL))
    return {"curve": trainer.curve, "seconds": trainer.elapsed(), "model": plain, "figures": figures}
