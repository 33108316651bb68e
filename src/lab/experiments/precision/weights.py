"""Weights of few bits on CIFAR-10 (Section 5.4.1: Table 5.1; 5.5: Figures 5.3, 5.6 to 5.8, Table 5.6): search for
precisions or train at given ones, fix them, fine-tune.

Every method gets the same network, data, epochs and rates of the weights; only how it arrives at few bits differs.
"""

from __future__ import annotations

import base64
import copy
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.baselines.fixed_grid import FixedGrid
from lab.baselines.quantizers import BSQ, DSQ, LSQ, SLB, DoReFa, LayerQuantizer, LQNets
from lab.datasets import Images, load
from lab.models import resnet20
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Classification, Config, Method, Trainer, chance, normalise, sgd
from lab.utils.errors import LabError
from principled import FixedPrecision, Relaxed, Smol, average_bits, fix_precision, restrict
from principled.files import quantized as quantized_files
from principled.files.precision_map import encode_map
from principled.smol import is_quantisable

EXPERIMENT, CHAPTER = "precision", 5
POINT = ("lambda", "zero", "granularity", "bits", "shuffled")
"""Options that tell one point of a curve from another (:mod:`lab.runs.intervals`)."""

# What each profile trains. `paper` is Section 5.3.3: of 650 epochs 350 search; the rate falls at 250, 500 and 600.
# Adam moves s by about its rate a step, whatever the gradient: a search of fewer steps needs a higher rate (see the chapter).
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "cifar10-mini-16",
        "training": {
            "epochs": 5, "finetune_epochs": 3, "batch_size": 64, "lr": 0.1, "finetune_lr": 0.02, "momentum": 0.9,
            "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1, "evaluate_every": 2,
        },
        "lr_s": 0.07,
        "lambda": [4e-6, 8e-6, 1.6e-5],
        "lambda_layer": [2e-7, 8e-6],
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
        "lr_s": 2e-3,
        "lambda": [5e-7, 1e-6, 2e-6],
        "lambda_layer": [5e-8, 2e-7],
        "lambda_block": 5e-7,
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
        "bsq": {"lambda": 5e-3, "requantisations": 35},
        "seeds": (0, 1, 2),
    },
}  # fmt: skip

FIXED_BITS: dict[str, type[LayerQuantizer]] = {"dorefa": DoReFa, "lsq": LSQ, "dsq": DSQ, "lq-nets": LQNets}
FULL = 32
"""Bits of a weight that is not quantised."""


def method_config(name: str, protocol: dict[str, Any], **options: Any) -> Config:
    """A method's part of a configuration; ``revision`` is raised by hand when the method's behaviour changes."""
    if name in ("smol", "retrain"):
        fixed: Config = {
            "revision": 1, "p_init": 8.0, "granularity": "weight", "zero": False, "allowed": None, "rounding": "floor",
            "lr_s": protocol["lr_s"],
        }  # fmt: skip
        fixed |= {"shuffled": False} if name == "retrain" else {}
        if "lambda" not in options:
            raise LabError(f"{name} needs a lambda, the price of a bit: the thesis uses 5e-7 to 1e-6 for a ResNet-20")
    elif name == "bsq":
        fixed = {"revision": 1, "bits": 8, **protocol["bsq"]}
    elif name in (*FIXED_BITS, "slb"):
        fixed = {"revision": 1} | ({"final": 0.01} if name == "slb" else {})
        if "bits" not in options:
            raise LabError(f"{name} needs bits, the precision of every weight")
    elif name == "dense":
        fixed = {"revision": 1}
    else:
        raise LabError(
            f"unknown method {name!r}: choose dense, smol, retrain, bsq, slb or one of {', '.join(FIXED_BITS)}"
        )
    config = {"name": name} | fixed | options
    for option, value in config.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise LabError(f"{option} must be a finite number, not {value}")
    if config.get("lambda", 0) < 0:
        raise LabError(f"lambda must not be negative, it is {config['lambda']}: it is the price of a bit")
    return config


def run(profile: str, name: str, seed: int = 0, search: float | None = None, **options: Any) -> Run:
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
    return Run(
        EXPERIMENT,
        {"model": "resnet20", "data": protocol["data"], "training": training, "method": method},
        profile,
        seed,
    )


def headline(profile: str) -> dict[str, float]:
    """The penalty that every seed repeats."""
    return {"lambda": PROTOCOL[check_profile(profile)]["lambda"][1]}


def runs(profile: str, seeds: tuple[int, ...] | None = None) -> list[Run]:
    """All runs behind Table 5.1, Table 5.6 and Figures 5.3 and 5.6 to 5.8, the most telling first.

    Every seed repeats the dense network, SMOL with and without zero precision, and BSQ; the first walks along the rest.
    """
    protocol = PROTOCOL[check_profile(profile)]
    first, *rest = protocol["seeds"] if seeds is None else seeds
    middle = headline(profile)
    repeated: list[tuple[str, dict[str, Any]]] = [
        ("dense", {}),
        ("smol", middle),
        ("smol", middle | {"zero": True}),
        ("bsq", {}),
    ]
    others: list[tuple[str, dict[str, Any]]] = [
        ("retrain", middle | {"shuffled": shuffled}) for shuffled in (False, True)
    ]
    others += [("smol", {"lambda": lam, "zero": zero}) for lam in protocol["lambda"] for zero in (False, True)]
    others += [("smol", {"lambda": lam, "granularity": "layer"}) for lam in protocol["lambda_layer"]]
    blocks = {"granularity": 16, "zero": "group", "allowed": [0, 1, 2, 4, 8]}  # what hardware could use (5.6.2)
    others += [("smol", blocks | {"lambda": protocol["lambda_block"]})]
    bits = (2,) if profile == "quick" else (1, 2, 3)
    others += [("lq-nets", {"bits": b}) for b in bits]
    others += [("slb", {"bits": b}) for b in bits[:2]]
    others += [("dsq", {"bits": bits[0]})]
    others += [("lsq", {"bits": 2}), ("dorefa", {"bits": 2})] if profile != "quick" else []
    points = [run(profile, name, first, **options) for name, options in repeated]
    known = {r.id for r in points}
    points += [r for name, options in others if (r := run(profile, name, first, **options)).id not in known]
    points += [run(profile, name, seed, **options) for seed in rest for name, options in repeated]
    points += [
        run(profile, "retrain", seed, **middle, shuffled=s)
        for seed in rest
        for s in (False, True)
        if profile != "quick"
    ]
    if profile == "paper":  # Figure 5.7, every 50 epochs
        points += [
            run(profile, "smol", first, search=epochs / 650, **middle) for epochs in range(50, 650, 50) if epochs != 350
        ]
    return points


class PrecisionMethod(Method):
    """A method's configuration, as the training loop asks for it."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.name, self.seed = config, config["name"], seed

    def relax(self, net: nn.Module) -> nn.Module:
        config = self.config
        if self.name in ("smol", "retrain"):
            return Relaxed(net, Smol(config["p_init"], config["granularity"], zero=config["zero"]))
        if self.name in FIXED_BITS:
            return Relaxed(net, FIXED_BITS[self.name](config["bits"]))
        if self.name == "slb":
            return Relaxed(net, SLB(config["bits"]))
        if self.name == "bsq":
            net = Relaxed(net, BSQ(config["bits"]))
            # how often it was requantised belongs to the run's state, so a checkpoint must hold it
            net.register_buffer("requantised", torch.zeros((), dtype=torch.int64))
        return net

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        if self.name == "dsq":  # its bounds hear from every weight of a tensor: at the weights' rate they run away
            own = list(net.relaxations.parameters())
            groups = [
                {"params": list(net.net.parameters()), "weight_decay": training["weight_decay"]},
                {"params": own, "weight_decay": 0.0, "lr": 0.01 * training["lr"]},
            ]
            return [sgd(groups, training)]
        if self.name not in ("smol", "retrain"):
            return [sgd(self.groups(net, training), training)]
        s = net.relaxations[0].s
        weights = [p for p in net.parameters() if p is not s]
        # Adam at a constant rate, without weight decay, whatever the weights' schedule (5.3.3)
        noise = torch.optim.Adam([{"params": [s], "scheduled": False}], lr=self.config["lr_s"])
        return [sgd([{"params": weights, "weight_decay": training["weight_decay"]}], training), noise]

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty() if "lambda" in self.config else None

    def step(self, net: nn.Module, progress: float) -> None:
        if self.name == "slb":
            net.anneal(min(progress, 1.0), self.config["final"])
        elif self.name == "bsq" and int(progress * self.config["requantisations"]) > int(net.requantised):
            net.requantised.add_(1)
            net.relaxations[0].requantise()

    def project(self, net: nn.Module) -> None:
        if self.name in ("smol", "retrain"):
            net.relaxations[0].clip_(dict(net.net.named_parameters()))  # Algorithm 5, line 6
        elif self.name == "bsq":
            net.relaxations[0].clip_()
        elif self.name == "lq-nets":
            net.relaxations[0].update_(dict(net.net.named_parameters()))

    def fix(self, net: nn.Module) -> nn.Module:
        if self.name == "bsq":
            bsq = net.relaxations[0]
            bsq.requantise()
            return Relaxed(net.harden(), FixedGrid(bsq.grid()))
        if self.name == "slb":
            return net  # its levels have settled; what is left to learn are the other weights and the last few choices
        if self.name not in ("smol", "retrain"):
            return net
        allowed = self.config["allowed"]
        change = (lambda p: restrict(p, allowed)) if allowed else None
        fixed = fix_precision(net, self.config["rounding"], self.config["zero"], change)
        return fixed if self.name == "smol" else self._anew(fixed.relaxations[0].precision())

    def _anew(self, precision: dict[str, Tensor]) -> nn.Module:
        """Section 5.5.3: new weights at the precisions that were found, in their places or shuffled within each layer."""
        source = torch.Generator().manual_seed(chance(self.seed, 553))
        if self.config["shuffled"]:
            precision = {
                name: p.flatten()[torch.randperm(p.numel(), generator=source).to(p.device)].view(p.shape)
                for name, p in precision.items()
            }
        with torch.random.fork_rng():
            torch.manual_seed(chance(self.seed, 554))
            return Relaxed(resnet20(), FixedPrecision(precision))

    def observe(self, net: nn.Module) -> dict[str, float]:
        if self.name in ("smol", "retrain"):
            return {"bits": average_bits(net.relaxations[0].precision(self.config["rounding"]))}
        if self.name == "bsq":
            return {"bits": net.relaxations[0].average_bits()}
        return {}


def grid_bits(grid: dict[str, tuple[float, int]], net: nn.Module) -> float:
    """Bits a weight, on average over the tensors of a grid; as in BSQ's paper the sign is not counted."""
    sizes = {name: net.get_parameter(name).numel() for name in grid}
    return sum(grid[name][1] * n for name, n in sizes.items()) / sum(sizes.values())


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
    method, training = PrecisionMethod(run.config["method"], run.seed), run.config["training"]
    trainer = Trainer(
        run.id, net, method, training, Classification(data, training),
        seed=run.seed, checkpoint=checkpoint, trunk=trunk(run), on_epoch=on_epoch, stop=stop,
    )  # fmt: skip
    fixed = trainer.run()
    plain = fixed.harden() if isinstance(fixed, Relaxed) else fixed
    searched = trainer.curve[training["epochs"] - 1]
    figures = {
        "accuracy": trainer.evaluate(plain),
        "accuracy_before_fixing": searched["accuracy"],
        "accuracy_after_fixing": searched["accuracy_fixed"],
    }
    result = {"curve": trainer.curve, "seconds": trainer.elapsed(), "model": plain}
    last = fixed.relaxations[0] if isinstance(fixed, Relaxed) else None
    if isinstance(last, FixedPrecision):
        precision = {name: p.cpu() for name, p in last.precision().items()}
        figures |= bits_of(precision) | file_sizes(plain, precision, last.scales())
        result["recording"] = precision_recording(precision)
        if is_filmed(run):
            result["recording"]["basins"] = basins(plain, precision, data[0])
    elif isinstance(last, FixedGrid):
        figures |= {"bits": grid_bits(last.grid(), plain)}
        figures |= {f"bits.{name.removesuffix('.weight')}": float(bits) for name, (_, bits) in last.grid().items()}
    else:
        figures["bits"] = float(run.config["method"].get("bits", FULL))
    return result | {"figures": figures}


def trunk(run: Run) -> tuple[str, Path] | None:
    """The search that runs share which differ only in what they make of its end."""
    method, training = dict(run.config["method"]), dict(run.config["training"])
    if method["name"] not in ("smol", "retrain"):
        return None
    method |= {"name": "smol", "zero": False, "allowed": None, "rounding": "floor"}
    method.pop("shuffled", None)
    training["finetune_lr"] = PROTOCOL[run.profile]["training"]["finetune_lr"]
    search = Run(run.experiment, {**run.config, "training": training, "method": method}, run.profile, run.seed)
    path = search.checkpoint()
    return search.id, path.with_name(f"trunk-{path.name}")


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
    """What the packed network weighs, written and measured: bytes of the file, of all precisions, of their map."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = quantized_files.pack(Path(folder) / "net.safetensors", plain, precision, scale)
    return {
        "file_bytes": float(sizes.file_bytes),
        "payload_bytes": sizes.payload_bits / 8,
        "map_bytes": sizes.map_bits / 8,
        "rest_bytes": float(sizes.rest_bytes + sizes.kept_bytes),
    }


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
    """Figure 5.1 measured: a weight of each precision is pushed, all others stay, and the loss on ``count`` images is read.

    The weight is drawn at random among those of its precision. In float32, since the smallest pushes change the loss less
    than bfloat16 can say.
    """
    net = copy.deepcopy(plain).eval()
    pixels, labels = normalise(images.images[:count], images), images.labels[:count]
    every = torch.cat([p.flatten() for p in precision.values()])
    owner = [(name, i) for name, p in precision.items() for i in range(p.numel())]
    source, found = torch.Generator().manual_seed(51), []
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
        found.append(
            {
                "layer": name.removesuffix(".weight"),
                "index": index,
                "bits": bits,
                "weight": float(kept),
                "loss": rest,
                "losses": losses,
            }
        )
    return found


def quantisable_weights(net: nn.Module) -> int:
    """How many weights the experiment quantises."""
    owners = {id(p): (f"{n}.{k}", m) for n, m in net.named_modules() for k, p in m.named_parameters(recurse=False)}
    return sum(p.numel() for p in net.parameters() if is_quantisable(*owners[id(p)], p))
