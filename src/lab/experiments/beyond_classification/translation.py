"""A translator of few bits (Section 5.5.4: Table 5.7): an encoder-decoder Transformer, every weight but those of LayerNorm quantised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.datasets.translation import load_parallel
from lab.models.translator import Translator, kind
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method
from lab.training.gan_duel import OwnOptimizers
from lab.training.translation import Translation, vocabulary
from lab.utils.errors import LabError
from principled import FixedPrecision, Relaxed, Smol, average_bits, fix_precision

EXPERIMENT, CHAPTER = "translation", 5
POINT = ("lambda",)
"""Options that tell one point of a curve from another (:mod:`lab.runs.intervals`)."""

FULL = 32
"""Bits of a weight that is not quantised."""

# 5.3.1 and 5.3.3: a joint vocabulary of 10,000, 30 epochs of search and 20 of fine-tuning. All else is fairseq's recipe for IWSLT'14
# (Adam with 0.9 and 0.98, 5e-4, dropout 0.3, smoothing 0.1), but for a cosine in the place of the inverse root and greedy decoding in that of
# a beam of 5. The thesis states no penalty: these are this book's.
ADAM = {
    "betas": [0.9, 0.98],
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "smoothing": 0.1,
    "lr": 5e-4,
    "finetune_lr": 5e-5,
}
IWSLT = {"width": 512, "heads": 4, "inner": 1024, "layers": 6, "dropout": 0.3}
LONG = {"epochs": 30, "finetune_epochs": 20, "batch_size": 128, "longest": 175, "warmup": 0.1, "evaluate_every": 5}
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "data": "emoji-names", "vocabulary": 1000,
        "model": {"width": 64, "heads": 4, "inner": 128, "layers": 1, "dropout": 0.1},
        "training": ADAM | {
            "epochs": 14, "finetune_epochs": 4, "batch_size": 32, "longest": 24, "warmup": 0.1, "evaluate_every": 100,
            "lr": 3e-3, "finetune_lr": 3e-4,
        },
        "lr_s": 1e-2, "lambda": [2e-6], "seeds": (0,),
    },
    "short": {
        "data": "multi30k", "vocabulary": 8000, "model": IWSLT | {"width": 256, "inner": 512, "layers": 3},
        "training": ADAM | LONG | {"epochs": 9, "finetune_epochs": 6, "longest": 60, "lr": 1e-3, "finetune_lr": 1e-4},
        "lr_s": 2e-3, "lambda": [1e-8, 1e-7], "seeds": (0,),
    },
    "paper": {
        "data": "iwslt14", "vocabulary": 10_000, "model": IWSLT, "training": ADAM | LONG,
        "lr_s": 1e-3, "lambda": [1e-9, 1e-8], "seeds": (0,),
    },
}  # fmt: skip


def run(profile: str, name: str, seed: int = 0, **options: Any) -> Run:
    """One run: ``run("quick", "smol", **{"lambda": 1e-6})``; ``"dense"`` has no option."""
    protocol = PROTOCOL[check_profile(profile)]
    if name == "smol":
        fixed: Config = {"revision": 1, "p_init": 8.0, "rounding": "floor", "lr_s": protocol["lr_s"]}
        if "lambda" not in options:
            raise LabError(
                "smol needs a lambda, the price of a bit, such as 1e-8 for a Transformer of 39 million weights"
            )
        if not options["lambda"] >= 0:
            raise LabError(f"lambda must be a number of at least 0, not {options['lambda']}: it is the price of a bit")
    elif name == "dense":
        fixed = {"revision": 1}
    else:
        raise LabError(f"unknown method {name!r} for a translator: choose dense or smol")
    config = {key: protocol[key] for key in ("data", "vocabulary", "model", "training")}
    return Run(EXPERIMENT, config | {"method": {"name": name} | fixed | options}, profile, seed)


def runs(profile: str, seeds: tuple[int, ...] | None = None) -> list[Run]:
    """Table 5.7: full precision, and SMOL at each penalty."""
    protocol = PROTOCOL[check_profile(profile)]
    found = []
    for seed in seeds or protocol["seeds"]:
        found.append(run(profile, "dense", seed))
        found += [run(profile, "smol", seed, **{"lambda": lam}) for lam in reversed(protocol["lambda"])]
    return found


def everything(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    """All weights but those of layer normalisation (5.3.3): embeddings and biases too."""
    return not isinstance(module, nn.LayerNorm)


class TranslatorMethod(Method):
    """SMOL, or nothing, on a translator, trained by Adam."""

    def __init__(self, config: Config) -> None:
        self.config, self.quantises = config, config["name"] == "smol"

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, Smol(self.config["p_init"], where=everything)) if self.quantises else net

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        s = [p for name, p in net.named_parameters() if name == "relaxations.0.s"]
        weights = [p for p in net.parameters() if all(p is not v for v in s)]
        options = {"lr": training["lr"], "betas": tuple(training["betas"]), "weight_decay": training["weight_decay"]}
        found: list[torch.optim.Optimizer] = [torch.optim.Adam(weights, **options)]
        if s:
            found.append(torch.optim.Adam([{"params": s, "scheduled": False}], lr=self.config["lr_s"]))
        return found

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.config["lambda"] * net.penalty() if self.quantises else None

    def project(self, net: nn.Module) -> None:
        if self.quantises:
            net.relaxations[0].clip_(dict(net.net.named_parameters()))

    def fix(self, net: nn.Module) -> nn.Module:
        return fix_precision(net, self.config["rounding"]) if self.quantises else net

    def observe(self, net: nn.Module) -> dict[str, float]:
        return {"bits": average_bits(net.relaxations[0].precision(self.config["rounding"]))} if self.quantises else {}


def check(run: Run) -> None:
    """Refuse what the user can mend before anything is computed."""
    load_parallel(run.config["data"])


def epochs(run: Run) -> int:
    """How many epochs the run takes, for a progress bar."""
    return int(run.config["training"]["epochs"] + run.config["training"]["finetune_epochs"])


def compute(
    run: Run, device: torch.device, checkpoint: Path, on_epoch: Callable[[int], None], stop: Callable[[], bool]
) -> dict[str, Any]:
    """Train one run; figures, curve and recording as :func:`lab.runs.write` takes them."""
    config = run.config
    corpus = load_parallel(config["data"])
    words = vocabulary(corpus, config["vocabulary"])
    task = Translation(corpus, words, config["training"], device)
    torch.manual_seed(run.seed)
    net = Translator(words.size, words.size, **config["model"]).to(device)
    trainer = OwnOptimizers(
        run.id, net, TranslatorMethod(config["method"]), config["training"], task,
        seed=run.seed, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop,
        record=lambda where: None,  # sentences differ in length, and a graph holds one shape
    )  # fmt: skip
    fixed = trainer.run()
    plain = fixed.harden() if isinstance(fixed, Relaxed) else fixed
    searched = trainer.curve[config["training"]["epochs"] - 1]
    figures = task.scores(plain) | {"bleu_before_fixing": searched["bleu"], "bleu_after_fixing": searched["bleu_fixed"]}
    figures["parameters"] = float(sum(p.numel() for p in plain.parameters()))
    if isinstance(fixed, Relaxed) and isinstance(fixed.relaxations[0], FixedPrecision):
        figures |= bits_by_kind(fixed.relaxations[0].precision())
    else:
        figures["bits"] = float(FULL)
    some = corpus.test[:12]
    said = task.translate(plain, some)
    examples = [{"source": a, "reference": b, "translation": c} for (a, b), c in zip(some, said, strict=True)]
    return {"curve": trainer.curve, "seconds": trainer.elapsed(), "model": plain, "figures": figures, "recording": {"examples": examples}}  # fmt: skip


def bits_by_kind(precision: dict[str, Tensor]) -> dict[str, float]:
    """Average bits of all weights, and of embeddings, attention and feed-forward layers each."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, p in precision.items():
        kinds.setdefault(kind(name), {})[name] = p
    return {"bits": average_bits(precision)} | {f"bits.{name}": average_bits(part) for name, part in kinds.items()}
