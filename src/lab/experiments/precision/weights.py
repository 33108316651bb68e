"""Weights of few bits on CIFAR-10 (Section 5.4.1: Table 5.1; 5.5: Figures 5.3, 5.6 to 5.8, Table 5.6): search for
precisions or train at given ones, fix them, fine-tune.

Every method gets the same network, data, epochs and rates of the weights; only how it arrives at few bits differs.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.datasets import Images
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Trainer, normalise
from principled.files.precision_map import encode_map
from principled.relax import select
from principled.smol import is_quantisable

from .few_bits import FewBits, method_config, precision_of

# What each profile trains. `paper` is Section 5.3.3: of 650 epochs 350 search; the rate falls at 250, 500 and 600.
# Nesterov's form of the momentum is ours: 5.3.3 says momentum, and no more.
# Adam divides by the gradient's size, the loss's noise included, so at a small penalty s moves by a small share of its
# rate: a search of fewer steps needs a higher rate and a larger penalty. Those of `short` come from a pilot,
# benchmarks/smol_search.py; those of `quick` from its own runs.
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini-16",
        "training": {
            "epochs": 5, "finetune_epochs": 3, "batch_size": 64, "lr": 0.1, "finetune_lr": 0.02, "momentum": 0.9,
            "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1, "evaluate_every": 2,
        },
        "lr_s": 0.07,
        "lambda": [4e-6, 8e-6, 1.6e-5],
        "lambda_layer": [5e-8, 2e-7, 8e-6],
        "lambda_block": 1e-6,
        "retrain_lr": 0.05,
        "bsq": {"lambda": 2.0, "requantisations": 3},
        "seeds": (0, 1),
    },
    "short": {
        "data": "cifar10",
        "training": {
            "epochs": 12, "finetune_epochs": 6, "batch_size": 128, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
            "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.05,
        },
        "lr_s": 4e-3,
        "lambda": [4e-6, 6e-6, 8e-6],
        "lambda_layer": [5e-8, 1e-7, 2e-7],
        "lambda_block": 1e-6,
        "retrain_lr": 0.1,
        "bsq": {"lambda": 0.15, "requantisations": 4},
        "seeds": (0,),
    },
    "paper": {
        "data": "cifar10",
        "training": {
            "epochs": 350, "finetune_epochs": 300, "batch_size": 128, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
            "nesterov": True, "weight_decay": 1e-4, "schedule": "steps", "steps": [250 / 350], "factor": 0.1,
            "finetune_steps": [150 / 300, 250 / 300], "evaluate_every": 10,
        },
        "lr_s": 1e-3,
        "lambda": [5e-7, 7e-7, 1e-6],
        "lambda_layer": [5e-7, 7e-7, 1e-6],
        "lambda_block": 7e-7,
        "retrain_lr": 0.1,
        "bsq": {"lambda": 5e-3, "requantisations": 3.5},  # every 100 epochs, as its paper
        "seeds": (0, 1, 2),
    },
}  # fmt: skip


def shorter(profile: str) -> dict[str, Any]:
    """The protocol of what is compared beside the ResNet-20's weights: at ``quick`` fewer epochs and a faster s."""
    protocol = PROTOCOL[check_profile(profile)]
    if profile != "quick":
        return protocol
    return protocol | {"lr_s": 0.1, "training": protocol["training"] | {"epochs": 3, "finetune_epochs": 2}}


def headline(profile: str) -> dict[str, float]:
    """The penalty that every seed repeats."""
    return {"lambda": PROTOCOL[check_profile(profile)]["lambda"][1]}


class Precision(FewBits):
    """The methods of Table 5.1 on a ResNet-20, and SMOL's controls."""

    name = "precision"
    point = ("lambda", "zero", "granularity", "bits", "shuffled")

    def run(self, profile: str, name: str, seed: int = 0, search: float | None = None, **options: Any) -> Run:
        """One run of this experiment: ``run("quick", "smol", **{"lambda": 1e-5, "zero": True})``.

        ``search`` moves the border between search and fine-tuning: the share of all epochs that search (5.5.2).
        """
        protocol = PROTOCOL[check_profile(profile)]
        training = dict(protocol["training"])
        if name == "retrain":  # the weights start anew, so their rate does as well
            training["finetune_lr"] = protocol["retrain_lr"]
        if search is not None:
            total = training["epochs"] + training["finetune_epochs"]
            training["epochs"] = min(max(round(search * total), 1), total - 1)
            training["finetune_epochs"] = total - training["epochs"]
        method = method_config(name, protocol, **options)
        config = {"model": "resnet20", "data": protocol["data"], "training": training, "method": method}
        return Run(self.name, config, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs behind Table 5.1, Table 5.6 and Figures 5.3 and 5.6 to 5.8, the most telling first.

        Every seed repeats the dense network, SMOL with and without zero precision, and BSQ; the first walks along the
        rest.
        """
        protocol = PROTOCOL[check_profile(profile)]
        first, *rest = protocol["seeds"] if seeds is None else seeds
        middle = headline(profile)
        repeated: list[tuple[str, dict[str, Any]]] = [
            ("dense", {}), ("smol", middle), ("smol", middle | {"zero": True}), ("bsq", {}),
        ]  # fmt: skip
        retrained = [("retrain", middle | {"shuffled": shuffled}) for shuffled in (False, True)]
        others = [*retrained]
        others += [("smol", {"lambda": lam, "zero": zero}) for lam in protocol["lambda"] for zero in (False, True)]
        others += [("smol", {"lambda": lam, "granularity": "layer"}) for lam in protocol["lambda_layer"]]
        blocks = {"granularity": 16, "zero": "group", "allowed": [0, 1, 2, 4, 8]}  # what hardware could use (5.6.2)
        others += [("smol", blocks | {"lambda": protocol["lambda_block"]})]
        bits = (2,) if profile == "quick" else (1, 2, 3)
        others += [("lq-nets", {"bits": b}) for b in bits]
        others += [("slb", {"bits": b}) for b in bits[:2]]
        others += [("dsq", {"bits": bits[0]}), ("lsq", {"bits": 2}), ("dorefa", {"bits": 2})]
        points = [self.run(profile, name, first, **options) for name, options in repeated]
        declared = {run.id for run in points}
        more = [self.run(profile, name, first, **options) for name, options in others]
        points += [run for run in more if run.id not in declared]
        points += [self.run(profile, name, seed, **options) for seed in rest for name, options in repeated]
        if profile != "quick":
            points += [self.run(profile, name, seed, **options) for seed in rest for name, options in retrained]
        if profile == "paper":  # Figure 5.7, every 50 epochs
            divisions = [epochs / 650 for epochs in range(50, 650, 50) if epochs != 350]
            points += [self.run(profile, "smol", first, search=division, **middle) for division in divisions]
        return points

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any] | None:
        precision = precision_of(trained)
        if precision is None:
            return None
        recording = precision_recording(precision)
        if is_filmed(run):
            recording["basins"] = basins(plain, precision, trainer.task.train_data)
        return recording


def precision_recording(precision: dict[str, Tensor]) -> dict[str, Any]:
    """The precision map for the moving figure: names and shapes of the layers, and all bits, entropy-coded."""
    coded = encode_map([p.numpy() for p in precision.values()])
    return {
        "layers": [{"name": name.removesuffix(".weight"), "shape": list(p.shape)} for name, p in precision.items()],
        "map": base64.b64encode(coded).decode(),
    }


def is_filmed(run: Run) -> bool:
    """Whether the run measures basins: the headline network of the first seed."""
    method = run.config["method"]
    if run.seed != 0 or method["name"] != "smol" or method["lambda"] != headline(run.profile)["lambda"]:
        return False
    return method["granularity"] == "weight" and not method["zero"]


PUSHES = tuple(sign * 2.0**-k for sign, exponents in ((-1, range(9)), (1, range(8, -1, -1))) for k in exponents)
"""How far a weight is pushed to see its basin: from 1/256, what the ninth bit is worth, to 1, what the first is."""


@torch.no_grad()
def basins(plain: nn.Module, precision: dict[str, Tensor], images: Images, count: int = 64) -> list[dict[str, Any]]:
    """Figure 5.1 measured: a weight of each precision is pushed, all others stay, and the loss on ``count`` images
    is read.

    The weight is drawn at random among those of its precision. In float32, since the smallest pushes change the loss
    less than bfloat16 can say.
    """
    net = copy.deepcopy(plain).eval()
    pixels, labels = normalise(images.images[:count], images), images.labels[:count]
    every = torch.cat([p.flatten() for p in precision.values()])
    owner = [(name, i) for name, p in precision.items() for i in range(p.numel())]
    source, measured = torch.Generator().manual_seed(51), []
    for bits in range(1, 9):
        places = torch.nonzero(every == bits).flatten()
        if not len(places):
            continue
        name, index = owner[int(places[torch.randint(len(places), (1,), generator=source)])]
        weight = net.get_parameter(name)
        place = tuple(int(i) for i in torch.unravel_index(torch.tensor(index), weight.shape))
        kept, losses = weight[place].clone(), []
        for push in PUSHES:
            weight[place] = kept + push
            losses.append(round(float(F.cross_entropy(net(pixels), labels)), 5))
        weight[place] = kept
        rest = round(float(F.cross_entropy(net(pixels), labels)), 5)
        measured.append(
            {
                "layer": name.removesuffix(".weight"), "index": index, "bits": bits, "weight": float(kept),
                "loss": rest, "losses": losses,
            }
        )  # fmt: skip
    return measured


def quantisable_weights(net: nn.Module) -> int:
    """How many weights the experiment quantises."""
    return sum(p.numel() for p in select(net, is_quantisable).values())


experiment = Precision()
run, runs = experiment.run, experiment.runs
