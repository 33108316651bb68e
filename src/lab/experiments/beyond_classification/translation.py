"""A translator of few bits (Section 5.5.4: Table 5.7): a Transformer, every weight but LayerNorm's quantised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lab.datasets.translation import load_parallel
from lab.experiments.base import Experiment, around_fixing
from lab.experiments.precision.few_bits import (
    FULL,
    DenseWeights,
    SmolWeights,
    method_config,
    precision_of,
    weights_and_s,
)
from lab.models.translator import Translator, kind
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer
from lab.training.translation import Translation, Vocabulary, vocabulary
from principled import Relaxed, Smol, average_bits

# 5.3.1 and 5.3.3: a joint vocabulary of 10,000, 30 epochs of search and 20 of fine-tuning. All else is fairseq's recipe
# for IWSLT'14 (Adam with 0.9 and 0.98, 5e-4, decoupled decay, dropout 0.3, smoothing 0.1), but for a cosine in the
# place of the inverse root and greedy decoding in that of a beam of 5. The thesis states no penalty: these are this
# book's.
ADAM = {
    "betas": [0.9, 0.98], "schedule": "cosine", "weight_decay": 1e-4, "smoothing": 0.1, "lr": 5e-4, "finetune_lr": 5e-5,
}  # fmt: skip
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


def everything(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    """All weights but those of layer normalisation (5.3.3): embeddings and biases too."""
    return not isinstance(module, nn.LayerNorm)


@cache
def words(data: str, size: int) -> Vocabulary:
    """The vocabulary of a corpus, which the network and its task share; built once a process."""
    return vocabulary(load_parallel(data), size)


class DenseTranslator(DenseWeights):
    """Full precision, trained by Adam."""

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 2}

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        return [adam(list(net.parameters()), training)]


class SmolTranslator(SmolWeights):
    """SMOL on :func:`everything`, the weights trained by Adam as well."""

    required: ClassVar[Mapping[str, str]] = {
        "lambda": "a lambda, the price of a bit, such as 1e-8 for a Transformer of 39 million weights"
    }

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return {"revision": 2, "p_init": 8.0, "rounding": "floor", "lr_s": protocol["lr_s"]}

    def relax(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, Smol(self.config["p_init"], where=everything))

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        weights, s = weights_and_s(net)
        return [adam(weights, training), *map(self.adam, s)]


METHODS = {"dense": DenseTranslator, "smol": SmolTranslator}


def adam(weights: list[nn.Parameter], training: Config) -> torch.optim.Optimizer:
    """Adam with the configuration's rate, betas and weight decay; the decay is decoupled, as in fairseq."""
    options = {"lr": training["lr"], "betas": tuple(training["betas"]), "weight_decay": training["weight_decay"]}
    return torch.optim.AdamW(weights, **options)


class WithoutGraph(Trainer):
    """A run whose steps no CUDA graph records: sentences differ in length, and a graph holds one shape."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, record=lambda device: None)


class Translators(Experiment):
    """A translator of full precision, and SMOL's."""

    name, chapter = "translation", 5
    point, score = ("lambda",), "bleu"
    trainer = WithoutGraph

    def run(self, profile: str, name: str, seed: int = 0, **options: Any) -> Run:
        """One run: ``run("quick", "smol", **{"lambda": 1e-6})``; ``"dense"`` has no option."""
        protocol = PROTOCOL[check_profile(profile)]
        config = {key: protocol[key] for key in ("data", "vocabulary", "model", "training")}
        return Run(self.name, config | {"method": method_config(name, protocol, METHODS, **options)}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """Table 5.7: full precision, and SMOL at each penalty."""
        protocol = PROTOCOL[check_profile(profile)]
        declared = []
        for seed in seeds or protocol["seeds"]:
            declared.append(self.run(profile, "dense", seed))
            declared += [self.run(profile, "smol", seed, **{"lambda": lam}) for lam in reversed(protocol["lambda"])]
        return declared

    def check(self, run: Run) -> None:
        load_parallel(run.config["data"])

    def task(self, run: Run, device: torch.device) -> Task:
        config = run.config
        return Translation(
            load_parallel(config["data"]), words(config["data"], config["vocabulary"]), config["training"], device
        )

    def network(self, run: Run) -> nn.Module:
        size = words(run.config["data"], run.config["vocabulary"]).size
        return Translator(size, size, **run.config["model"])

    def method(self, run: Run, task: Task) -> Method:
        return METHODS[run.config["method"]["name"]](run.config["method"], run.seed)

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        figures = trainer.task.scores(plain) | around_fixing(trainer)
        figures["parameters"] = float(sum(p.numel() for p in plain.parameters()))
        precision = precision_of(trained)
        return figures | ({"bits": float(FULL)} if precision is None else bits_by_kind(precision))

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any] | None:
        pairs = trainer.task.corpus.test[:12]
        translations = trainer.task.translate(plain, pairs)
        examples = [
            {"source": source, "reference": reference, "translation": translation}
            for (source, reference), translation in zip(pairs, translations, strict=True)
        ]
        return {"examples": examples}


def bits_by_kind(precision: dict[str, Tensor]) -> dict[str, float]:
    """Average bits of all weights, and of embeddings, attention and feed-forward layers each."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, p in precision.items():
        kinds.setdefault(kind(name), {})[name] = p
    return {"bits": average_bits(precision)} | {f"bits.{name}": average_bits(part) for name, part in kinds.items()}


experiment = Translators()
run, runs = experiment.run, experiment.runs
