"""Soft parameter sharing on images (Section 3.4.1: Tables 3.1 to 3.4; 3.4.2 and 3.5: Figures 3.2 to 3.7, 3.10, 3.11).

A Wide ResNet, plain or with its stages' layers sharing templates, is trained by one protocol. The shared one is then
folded at every level at which two of its layers merge, and each fold is measured.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain, count, islice
from typing import Any

import torch
from torch import Tensor, nn

from lab.datasets import CLASSES, thesis
from lab.experiments.base import Experiment
from lab.figures.folding.recording import alphas, folding_recording, pack
from lab.models import swrn, swrn50_2, wrn, wrn50_2
from lab.runs import Record, Run
from lab.runs.profiles import check_profile
from lab.training import Config, Method, Task, Trainer, chance, sgd
from lab.training.batchnorm import reestimate
from lab.training.imagenet import ImageNet
from lab.utils.errors import LabError
from principled import Relaxed, decay_groups, fold
from principled.sharing import groupings, layer_similarity

# What each profile trains. `paper` is Section 3.3.3: the rate falls to a fifth at epochs 60, 120 and 160 of 200. The
# other two keep WRN-28's depth and narrow it. alpha starts with rows of length about 1; in a tenth or a hundredth of
# the steps it needs a higher rate to come as far. `folds` says how a fold is measured: how many at most, BatchNorm
# from how many batches, and steps and rate of the fine-tuning. From `revision` 2 on a plain network is re-estimated
# and fine-tuned as a fold is, its layers' similarity is kept, and the fold at 0.9 is fine-tuned too; what is recorded
# at `short` is older.
SGD: Config = {
    "finetune_epochs": 0, "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "cutout": 0,
}  # fmt: skip
PROTOCOL: dict[str, dict[str, Any]] = {
    "quick": {
        "revision": 2,
        "data": "cifar10-mini-16",
        "training": SGD | {"epochs": 4, "batch_size": 64, "schedule": "cosine", "warmup": 0.1, "evaluate_every": 4},
        "lr_alpha": 10.0,
        "lambda": [3e-4, 1e-3, 1e-2],
        "headline": (28, 1, 3),
        "templates": [1],
        "seeds": (0, 1, 2),
        "folds": {"most": 6, "batches": 8, "steps": 20, "lr": 0.004},
    },
    "short": {
        "revision": 1,
        "data": "cifar10",
        "training": SGD | {"epochs": 15, "batch_size": 128, "schedule": "cosine", "warmup": 0.05},
        "lr_alpha": 10.0,
        "lambda": [1e-5, 1e-4, 1e-3, 1e-2],
        "headline": (28, 1, 4),
        "templates": [1, 2, 6],
        "seeds": (0, 1, 2),
        "folds": {"most": 16, "batches": 40, "steps": 390, "lr": 0.01},
    },
    "paper": {
        "revision": 2,
        "data": "cifar10",
        "training": SGD
        | {"epochs": 200, "batch_size": 128, "schedule": "steps", "steps": [0.3, 0.6, 0.8], "factor": 0.2},
        "lr_alpha": 1.0,
        "lambda": [1e-5, 1e-4, 1e-3, 1e-2],
        "headline": (40, 8, 8),
        "templates": [],
        "seeds": (0, 1, 2, 3, 4),
        "folds": {"most": 40, "batches": 40, "steps": 1950, "lr": 0.002},
    },
}

# On ImageNet (3.3.3) the rate falls to a tenth at epochs 30, 60 and 90 of 100. The thesis spreads each batch over
# four GPUs, as torchrun does here; one alone takes it whole.
IMAGENET: Config = {
    "epochs": 100, "finetune_epochs": 0, "batch_size": 256, "lr": 0.1, "momentum": 0.9, "nesterov": True,
    "weight_decay": 1e-4, "schedule": "steps", "steps": [0.3, 0.6, 0.9], "factor": 0.1,
}  # fmt: skip

CUTOUT = 16
"""Side of the square that Table 3.3's networks do not see, as in the author's public code."""

THRESHOLD = 0.9
"""The similarity at which a fold is fine-tuned, and shown beside the network that is not folded."""

MOMENTS = (0.025, 0.05, 0.125, 0.25, 0.375, 0.5, 0.75)
"""When the similarity matrices are kept, beside start and end: of 200 epochs 5, 10, 25, 50 and on."""


def name_of(depth: int, width: int, templates: int | None) -> str:
    """The thesis's name: ``"WRN 28-10"``, or shared ``"SWRN 28-10-2"``, without the 2 if it has a template a layer."""
    if templates is None:
        return f"WRN {depth}-{width}"
    return f"SWRN {depth}-{width}" + (f"-{templates}" if templates != (depth - 10) // 3 else "")


def run(
    profile: str, depth: int, width: int, templates: int | None, seed: int = 0, *,
    lam: float = 0.0, dropout: float = 0.0, cutout: int = 0, data: str | None = None,
) -> Run:  # fmt: skip
    """One run: ``run("paper", 28, 10, 2, dropout=0.3)`` is Table 3.1's SWRN 28-10-2.

    Args:
        depth, width: of the Wide ResNet.
        templates: a group's templates; None is the plain network, which shares nothing.
        lam: strength of the recurrence regulariser (3.19).
        dropout: between the two convolutions of each block.
        cutout: side of the square that is blanked out of each training image.
        data: a data set other than the profile's, ``"cifar100"``.
    """
    protocol = PROTOCOL[check_profile(profile)]
    if not (math.isfinite(lam) and lam >= 0):
        raise LabError(
            f"lambda must be a number from 0 on, not {lam}: 0 adds no regulariser, large ones leave one loop"
        )
    if lam and templates is None:
        raise LabError(f"lambda is {lam}, but {name_of(depth, width, None)} shares nothing: give it templates")
    if not 0 <= dropout < 1:
        raise LabError(f"dropout is a probability below 1, not {dropout}: the thesis has 0 and 0.3")
    name = name_of(depth, width, templates)
    extras = [f"dropout {dropout:g}"] * (dropout > 0) + ["cutout"] * (cutout > 0) + [f"lambda {lam:g}"] * (lam > 0)
    method = {
        "name": ", ".join([name, *extras]), "revision": protocol["revision"], "depth": depth, "width": width,
        "templates": templates,
        "dropout": dropout, "lambda": lam, "lr_alpha": protocol["lr_alpha"],
        "folds": protocol["folds"],
    }  # fmt: skip
    config = {
        "model": name,
        "data": data or protocol["data"],
        "training": protocol["training"] | {"cutout": cutout},
        "method": method,
    }
    return Run(ImageSharing.name, config, profile, seed)


def imagenet(shared: bool, seed: int = 0) -> Run:
    """Table 3.4, ``paper`` only: WRN 50-2, or SWRN 50-2, whose twelve groups have as many templates as layers."""
    name = f"{'S' * shared}WRN 50-2"
    method = {
        "name": name, "revision": 2 if shared else 1, "depth": 50, "width": 2, "templates": "all" if shared else None,
        "dropout": 0.0,
        "lambda": 0.0, "lr_alpha": 1.0, "folds": {"most": 8, "batches": 40, "steps": 1000, "lr": 0.001},
    }  # fmt: skip
    config = {"model": name, "data": "imagenet", "training": IMAGENET, "method": method}
    return Run(ImageSharing.name, config, "paper", seed)


# -- what is declared --------------------------------------------------------------------------------------------------


@cache
def rows() -> dict[tuple[str, str], dict[str, Any]]:
    """Tables 3.1 to 3.3, every (S)WRN row: (table, row) to the options of its run at profile ``paper``.

    Table 3.3 names no dropout and differs from Table 3.1 by cutout alone. So each network has the dropout that it has
    there: the better one where there are two, and none where Table 3.1 lacks the network.
    """
    options: dict[tuple[str, str], dict[str, Any]] = {}
    for table, data in (("3.1", "cifar10"), ("3.2", "cifar100"), ("3.3", "cifar10")):
        for row in thesis.table(table)["row"].unique():
            if named := re.match(r"(S?)WRN (\d+)-(\d+)(?:-(\d+))?(?: |$)", row):
                shared, depth, width = named[1], int(named[2]), int(named[3])
                templates = int(named[4] or (depth - 10) // 3) if shared else None
                options[table, row] = {
                    "depth": depth, "width": width, "templates": templates, "data": data,
                    "dropout": _dropout(table, row, name_of(depth, width, templates)),
                    "cutout": CUTOUT * (table == "3.3"),
                }  # fmt: skip
    return options


def _dropout(table: str, row: str, name: str) -> float:
    if table != "3.3":
        return thesis.value(table, row, "Dropout")
    same = thesis.table("3.1").set_index(["row", "column"])["value"]
    error = {r: e for (r, column), e in same.items() if column == "Test error" and r.split(" (")[0] == name}
    return float(same[min(error, key=error.__getitem__), "Dropout"]) if error else 0.0


def row_runs(table: str, row: str, profile: str = "paper") -> list[Run]:
    """The runs behind one row, one a seed: five where the thesis averages five. Declared at ``paper`` only."""
    if profile != "paper":
        return []
    if table == "3.4":
        return [imagenet(shared=row.startswith("S"))]
    seeds = PROTOCOL["paper"]["seeds"][: _repeats(table, row)]
    return [run("paper", **rows()[table, row], seed=seed) for seed in seeds]


@cache
def _repeats(table: str, row: str) -> int:
    data = thesis.table(table)
    return int(data[(data["row"] == row) & (data["column"] == "Test error")]["n"].fillna(1).iloc[0])


def _headline(profile: str, seeds: Sequence[int] | None, **changed: Any) -> list[Run]:
    """The profile's network, with some options changed, over all seeds."""
    protocol = PROTOCOL[check_profile(profile)]
    options = dict(zip(("depth", "width", "templates"), protocol["headline"], strict=True)) | changed
    return [run(profile, seed=seed, **options) for seed in (protocol["seeds"] if seeds is None else seeds)]


def shared(profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
    """The headline: one shared network over all seeds, whose similarity matrices and folds the chapter shows."""
    return _headline(profile, seeds)


def plain(profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
    """The headline's Wide ResNet without sharing, over all seeds."""
    return _headline(profile, seeds, templates=None)


def swept(profile: str, seed: int | None = None) -> list[Run]:
    """One network under the recurrence regulariser (3.19), from none (lambda = 0) to a single loop, the first seed."""
    protocol = PROTOCOL[check_profile(profile)]
    size = {"depth": 28, "width": 4, "templates": 6} if profile == "paper" else {}
    seeds = [protocol["seeds"][0] if seed is None else seed]
    return [_headline(profile, seeds, lam=lam, **size)[0] for lam in (0.0, *protocol["lambda"])]


def templates(profile: str, seed: int | None = None) -> list[Run]:
    """The headline's network with other numbers of templates, the first seed."""
    protocol = PROTOCOL[check_profile(profile)]
    seeds = [protocol["seeds"][0] if seed is None else seed]
    return [_headline(profile, seeds, templates=k)[0] for k in protocol["templates"]]


def figure_3_5(profile: str = "paper") -> list[Run]:
    """SWRN 28-10-4, whose stage 2 folds into a loop of two layers."""
    return [run("paper", 28, 10, 4)] if profile == "paper" else []


def _once(runs: Iterable[Run]) -> list[Run]:
    return list({run.id: run for run in runs}.values())


def pictured(profile: str) -> list[Run]:
    """What Chapter 3 shows: the headline with and without sharing, the sweep of lambda, other numbers of templates."""
    return _once([*shared(profile), *plain(profile), *swept(profile), *templates(profile)])


def _price(run: Run) -> int:
    """What an epoch costs, up to a factor: a Wide ResNet's products grow with depth and with width squared."""
    method = run.config["method"]
    return int(method["depth"] * method["width"] ** 2)


def chosen(records: Iterable[Record], wanted: Iterable[Run]) -> list[Record]:
    """Of the records those of these runs: ``chosen(records, swept("quick"))``, in the order of ``wanted``."""
    by_id = {record["id"]: record for record in records}
    return [by_id[run.id] for run in wanted if run.id in by_id]


# -- a run -------------------------------------------------------------------------------------------------------------


class Sharing(Method):
    """How a network whose layers share is trained; its coefficients are filmed at the start and at :data:`MOMENTS`.

    Args:
        lam: strength of the recurrence regulariser.
        lr_alpha: factor on the coefficients' learning rate.
        epochs: of the run, to date the moments.
        moments: when to film, as shares of the run.
    """

    def __init__(self, lam: float, lr_alpha: float, epochs: float, moments: Sequence[float] = MOMENTS) -> None:
        self.lam, self.lr_alpha, self.epochs, self.moments = lam, lr_alpha, epochs, moments
        self.start: list[tuple[float, dict[str, Tensor]]] = []

    def relax(self, net: nn.Module) -> nn.Module:
        self.start = [(0.0, alphas(net))] if isinstance(net, Relaxed) else []
        return net

    def groups(self, net: nn.Module, training: Config) -> list[dict[str, Any]]:
        assert isinstance(net, Relaxed)
        weights, coefficients = decay_groups(net, training["weight_decay"])
        return [weights, coefficients | {"lr": training["lr"] * self.lr_alpha}]

    def penalty(self, net: nn.Module) -> Tensor | None:
        return self.lam * net.penalty() if self.lam else None  # (3.19): minus the sum of similarities

    def observe(self, net: nn.Module) -> dict[str, float]:
        return {"similarity": mean_similarity(net)["similarity"]} if isinstance(net, Relaxed) else {}

    def film(self, net: nn.Module, before: float, after: float, evaluate: Callable[[nn.Module], float]) -> Any:
        due = any(before < moment <= after + 1e-9 for moment in self.moments)
        return (round(after * self.epochs, 4), alphas(net)) if due and isinstance(net, Relaxed) else None


def layer_similarities(net: nn.Module, groups: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Similarity matrices (3.13), ``{group: (L, L)}``: of coefficients, or of the weights where nothing is shared."""
    if isinstance(net, Relaxed):
        rows = {group: alpha.detach() for group, alpha in net.relaxations[0].alpha.items()}
    else:
        weights = {group: [net.get_parameter(name).detach().flatten() for name in groups[group]] for group in groups}
        rows = {group: torch.stack(layers) for group, layers in weights.items()}
    return {group: layer_similarity(layers.double()) for group, layers in rows.items()}


def mean_similarity(net: Relaxed) -> dict[str, float]:
    """The mean entry off the diagonal of the similarity matrices: ``"similarity"`` over all groups, and a group's."""
    means = {}
    for group, matrix in layer_similarities(net, {}).items():
        layers = len(matrix)
        means[f"similarity.{group}"] = float((matrix.sum() - layers) / (layers * (layers - 1)))
    return {"similarity": sum(means.values()) / len(means)} | means


def as_drawn(run: Run) -> dict[str, Tensor]:
    """A run's similarity matrices before its first step, drawn again from its seed: what chance alone gives."""
    experiment = run.module
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        return layer_similarities(experiment.network(run), experiment.groups(run))


def build(config: Config, classes: int) -> nn.Module:
    """The network of a configuration's ``method``, with fresh weights."""
    if config["depth"] == 50:  # no Wide ResNet for CIFAR has 50 layers
        return wrn50_2(classes) if config["templates"] is None else swrn50_2(classes)
    size = config["depth"], config["width"]
    if config["templates"] is None:
        return wrn(*size, classes=classes, dropout=config["dropout"])
    return swrn(*size, config["templates"], classes=classes, dropout=config["dropout"])


def unbuilt(depth: int, width: int, templates: int | str | None, data: str = "cifar10") -> nn.Module:
    """A network without its numbers, on the meta device: to be counted."""
    with torch.device("meta"):
        return build({"depth": depth, "width": width, "templates": templates, "dropout": 0.0}, CLASSES[data])


@cache
def parameters(depth: int, width: int, templates: int | str | None, data: str = "cifar10") -> int:
    """How many parameters a network has, counted on the network itself."""
    return sum(p.numel() for p in unbuilt(depth, width, templates, data).parameters())


class SharingExperiment(Experiment):
    """Training with soft sharing, then folding at every level at which layers merge: on images and on paths."""

    chapter = 3
    point = ()

    def tuner(self, run: Run, folded: nn.Module) -> torch.optim.Optimizer:
        """What fine-tunes a folded network."""
        training = run.config["training"]
        groups = [{"params": list(folded.parameters()), "weight_decay": training["weight_decay"]}]
        return sgd(groups, training | {"lr": run.config["method"]["folds"]["lr"]})

    def folding_task(self, task: Task) -> Task:
        """What folds are measured and fine-tuned on."""
        return task

    def groups(self, run: Run) -> dict[str, tuple[str, ...]]:
        """Which layers share templates, or would if the run's network had any: ``{group: names of weights}``."""
        method = run.config["method"]
        shared = run.config | {"method": method | {"templates": method["templates"] or 1}}
        with torch.device("meta"):
            net = self.network(replace(run, config=shared))
        assert isinstance(net, Relaxed)
        return dict(net.relaxations[0].groups)

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        metric = trainer.task.metric
        figures = {metric: trainer.curve[-1][metric], "parameters": float(sum(p.numel() for p in trained.parameters()))}
        if isinstance(trained, Relaxed):
            return figures | mean_similarity(trained)
        task, settings = self.folding_task(trainer.task), run.config["method"]["folds"]
        reestimated = reestimate(copy.deepcopy(trained), task, run.seed, settings["batches"])
        figures[f"{metric}_bn"] = task.evaluate(reestimated)
        return figures | {f"{metric}_tuned": tune(reestimated, task, self.tuner(run, reestimated), settings, run.seed)}

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any] | None:
        if not isinstance(trained, Relaxed):  # how alike its layers are, as drawn and after training: Figure 3.2, left
            groups = self.groups(run)
            ends = {0: as_drawn(run), run.config["training"]["epochs"]: layer_similarities(trained, groups)}
            moments = [
                {"epoch": epoch, "similarity": {group: pack(matrix.cpu()) for group, matrix in matrices.items()}}
                for epoch, matrices in ends.items()
            ]
            return {"groups": groups, "moments": moments}
        assert isinstance(trainer.method, Sharing)
        config, metric = run.config["method"], trainer.task.metric
        return fold_and_measure(
            trained, [*trainer.method.start, *trainer.moments], self.folding_task(trainer.task),
            partial(self.tuner, run), config["folds"], seed=run.seed, epoch=run.config["training"]["epochs"],
            network=config["name"],
            metric={"f1": "F1"}.get(metric, metric),
        )  # fmt: skip


class ImageSharing(SharingExperiment):
    """Wide ResNets with and without soft sharing."""

    name = "sharing"

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs of the profile, the most telling for their price first; ``seeds`` replaces the profile's.

        At ``paper``: Table 3.3's two smallest, SWRN 40-8-8 for its similarity matrices, the sweep of lambda, SWRN
        28-10-4, then the first seed of every other row from the smallest network to the largest, then the other seeds,
        and ImageNet last.
        """
        first = None if seeds is None else seeds[0]
        if profile == "paper":
            tables = [run for row in rows() for run in row_runs(*row)]
            small = [run for run in tables if run.config["method"]["width"] < 8]
            again = sorted(tables, key=lambda run: (run.seed > 0, _price(run), run.seed))
            wanted = [*small, *shared(profile, seeds), *swept(profile, first), *figure_3_5(), *again]
            wanted += [*plain(profile, seeds), imagenet(False), imagenet(True)]
        else:
            head, other = shared(profile, seeds), plain(profile, seeds)
            wanted = [head[0], other[0], *swept(profile, first), *templates(profile, first), *head, *other]
        return _once(wanted)

    def network(self, run: Run) -> nn.Module:
        return build(run.config["method"], CLASSES[run.config["data"]])

    def method(self, run: Run, task: Task) -> Method:
        config = run.config["method"]
        if config["templates"] is None:
            return Method()
        return Sharing(config["lambda"], config["lr_alpha"], run.config["training"]["epochs"])

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        figures = super().figures(run, trainer, trained, plain)
        if isinstance(trainer.task, ImageNet):
            figures["top5"] = trainer.task.evaluate(trained, among=5)
        return figures

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any] | None:
        recording = super().recording(run, trainer, trained, plain, figures)
        if isinstance(trained, Relaxed):
            figures |= loops_of_two(trained, trainer.task, run.config["method"]["folds"]["batches"], run.seed)
        return recording


# -- folding -----------------------------------------------------------------------------------------------------------


def fold_and_measure(
    net: Relaxed,
    history: list[tuple[float, dict[str, Tensor]]],
    task: Task,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    settings: Config,
    *,
    seed: int,
    epoch: float,
    network: str,
    metric: str = "accuracy",
) -> dict[str, Any]:
    """:func:`lab.figures.folding.recording.folding_recording`, and some of its folds after fine-tuning.

    They are the network unfolded (what more training gives by itself), the fold at :data:`THRESHOLD`, that in the
    middle, and the last.

    Args:
        net: the trained network, left as it is.
        history, epoch, network, metric: as ``folding_recording`` has them.
        task: what measures a fold and gives the batches that BatchNorm is re-estimated on.
        optimizer: from a folded network to what fine-tunes it.
        settings: ``most`` folds to measure, ``batches`` for BatchNorm, ``steps`` of fine-tuning.
        seed: of these batches.
    """
    anew = partial(reestimate, task=task, seed=seed, batches=settings["batches"])
    recording = folding_recording(
        net, history, epoch=epoch, network=network, evaluate=task.evaluate, reestimate=anew, metric=metric,
        most=settings["most"],
    )  # fmt: skip
    folds = recording["folds"]
    for i in sorted({0, folds.index(fold_at(recording, THRESHOLD)), len(folds) // 2, len(folds) - 1}):
        folded = anew(fold(net, {} if i == 0 else folds[i]["level"]))
        folds[i]["score_tuned"] = round(tune(folded, task, optimizer(folded), settings, seed), 6)
    return recording


def tune(net: nn.Module, task: Task, optimizer: torch.optim.Optimizer, settings: Config, seed: int) -> float:
    """Train a network a little more, in place, at a constant rate; its score then, with BatchNorm re-estimated.

    A network that is compared with a fine-tuned fold is tuned by this very function, for as many steps.
    """
    net.train()
    epochs = (task.batches(chance(seed, SharingExperiment.chapter), epoch, 0) for epoch in count())
    with torch.random.fork_rng():
        for batch in islice(chain.from_iterable(epochs), settings["steps"]):
            task.loss(net, batch).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    reestimate(net, task, seed, settings["batches"])  # running averages lag behind a short training
    return task.evaluate(net)


def fold_at(recording: dict[str, Any], threshold: float) -> dict[str, Any]:
    """Of a recording's folds the one at ``threshold``: all merges down to that similarity."""
    return next(measured for measured in reversed(recording["folds"]) if measured["level"] >= threshold - 1e-9)


def loops_of_two(net: Relaxed, task: Task, batches: int, seed: int) -> dict[str, float]:
    """Figure 3.5: all groups but the first folded to two layers each, the first left as it is; the accuracy then."""
    sharing = net.relaxations[0]
    levels = {}
    for group, alpha in list(sharing.alpha.items())[1:]:
        level, _ = groupings(layer_similarity(alpha.detach().double()))[-2]  # the last but one grouping has two groups
        levels[group] = level
    folded = fold(net, levels)
    figures = {"accuracy_two": task.evaluate(folded)}
    return figures | {"accuracy_two_bn": task.evaluate(reestimate(folded, task, seed, batches))}


experiment = ImageSharing()
runs = experiment.runs
