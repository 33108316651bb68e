"""Ticket search (4.4.2, 4.4.3, 4.5.1, 4.5.4, 4.5.5: Tables 4.2 and 4.3, Figures 4.3 to 4.8, 4.11, 4.13): rounds of
training, and each round's ticket re-trained from an early iterate.

A run is one search: R rounds, and a training for each ticket. Every stage is checkpointed on its own, so that an
interrupted search goes on in the midst of a round. A ticket has the epochs before its iterate and then a whole
training; so has the control, the dense network re-trained from the same iterate, against which "matching" is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.baselines.iterative_magnitude import IterativeMagnitude
from lab.baselines.stochastic import StochasticMask
from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.training import Config, Trainer, chance, sgd
from lab.utils.errors import LabError
from lab.utils.files import resuming, save_tensors
from principled import ContinuousMask, KeepZeros, Relaxed, SequentialMask
from principled.relax import Where, is_spatial_convolution
from principled.tickets import State, Ticket, begin_round, end_round, plain_state, take_ticket

from .common import Sparsification, Sparsifier, configure, masked_names, where
from .pruning import IMAGENET, STAND_IN
from .selection import layer_zeros, sparsities, zeros

# `paper` is 4.3.3. `rewind_epoch` is the epoch after which the weights are kept. The other profiles keep the schedule's
# shape on fewer epochs and rounds; the rate of s grows as the steps shrink, as in one-shot pruning.
RESNET: dict[str, dict[str, Any]] = {
    "quick": {
        "model": "resnet8", "data": "cifar10-mini-16",
        "training": {
            "epochs": 3, "finetune_epochs": 0, "batch_size": 64, "lr": 0.1, "momentum": 0.9, "nesterov": False,
            "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1, "evaluate_every": 3,
        },
        "rewind_epoch": 1, "rounds": 2, "rounds_imp": 4, "lr_s": 2.0,
        "s_init": [-0.1, 0.0, 0.1], "rates": [0.4], "rounds_study": 1, "seeds": (0, 1),
    },
    "short": {
        "model": "resnet20", "data": "cifar10",
        "training": {
            "epochs": 12, "finetune_epochs": 0, "batch_size": 128, "lr": 0.1, "momentum": 0.9, "nesterov": False,
            "weight_decay": 1e-4, "schedule": "steps", "steps": [56 / 85, 71 / 85], "factor": 0.1, "warmup": 0.05,
        },
        "rewind_epoch": 1, "rounds": 5, "rounds_imp": 12, "lr_s": 0.5,
        "s_init": [-0.2, -0.1, 0.0, 0.1, 0.2], "rates": [0.4], "rounds_study": 1, "seeds": (0,),
    },
    "paper": {
        "model": "resnet20", "data": "cifar10",
        "training": {
            "epochs": 85, "finetune_epochs": 0, "batch_size": 128, "lr": 0.1, "momentum": 0.9, "nesterov": False,
            "weight_decay": 1e-4, "schedule": "steps", "steps": [56 / 85, 71 / 85], "factor": 0.1, "evaluate_every": 5,
        },
        "rewind_epoch": 2, "rounds": 5, "rounds_imp": 30, "lr_s": 0.1,
        # the thesis has 11 values from -0.3 to 0.3 and does not list them
        "s_init": [-0.3, -0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2, 0.3],
        "rates": [0.3, 0.4], "rounds_study": 5, "seeds": (0, 1, 2),
    },
}  # fmt: skip

VGG: dict[str, dict[str, Any]] = {
    "quick": {},
    "short": RESNET["short"] | {"model": "vgg16", "training": RESNET["short"]["training"] | {"batch_size": 64}},
    "paper": RESNET["paper"] | {"model": "vgg16", "training": RESNET["paper"]["training"] | {"batch_size": 64}},
}

# 4.3.3 and 4.5.4: Adam at 3e-4 for all but stochastic masks, tickets from the start (k = 0), CS with rewinding
CONV6: dict[str, dict[str, Any]] = {
    "quick": {
        "model": "conv6-quarter", "data": "cifar10-mini",
        "training": {
            "epochs": 4, "finetune_epochs": 0, "batch_size": 50, "optimizer": "adam", "momentum": 0.9,
            "nesterov": False, "lr": 2e-3, "weight_decay": 0.0,
            "schedule": "steps", "steps": [], "factor": 0.1, "evaluate_every": 4,
        },
        "rewind_epoch": 0, "rounds": 2, "rounds_imp": 3, "rounds_iss": 3, "lr_s": 0.02, "lr_iss": 400.0,
        "s_init": [-0.05, 0.05], "s_init_iss": 1.0, "seeds": (0,),
    },
    "short": {
        "model": "conv6", "data": "cifar10",
        "training": {
            "epochs": 6, "finetune_epochs": 0, "batch_size": 60, "optimizer": "adam", "momentum": 0.9,
            "nesterov": False, "lr": 3e-4, "weight_decay": 0.0, "schedule": "steps", "steps": [], "factor": 0.1,
        },
        "rewind_epoch": 0, "rounds": 4, "rounds_imp": 10, "rounds_iss": 10, "lr_s": 3e-3, "lr_iss": 100.0,
        "s_init": [-0.2, -0.1, 0.0, 0.1, 0.3], "s_init_iss": 1.0, "seeds": (0,),
    },
    "paper": {
        "model": "conv6", "data": "cifar10",
        "training": {
            "epochs": 40, "finetune_epochs": 0, "batch_size": 60, "optimizer": "adam", "momentum": 0.9,
            "nesterov": False, "lr": 3e-4, "weight_decay": 0.0,
            "schedule": "steps", "steps": [], "factor": 0.1, "evaluate_every": 5,
        },
        "rewind_epoch": 0, "rounds": 4, "rounds_imp": 30, "rounds_iss": 30, "lr_s": 3e-4, "lr_iss": 20.0,
        # the thesis has 16 values from -0.2 to 0.1 and does not list them
        "s_init": [round(-0.2 + 0.02 * i, 2) for i in range(16)], "s_init_iss": 1.0, "seeds": (0, 1, 2),
    },
}  # fmt: skip

# Table 4.3, one round. The thesis does not name the iterate: Frankle et al. (2019), whose training it follows, go back
# to epoch 6 of 90.
RESNET50: dict[str, dict[str, Any]] = {
    "quick": {},
    "short": {
        "model": "resnet50-small-images", "data": "tiny-imagenet-32", "training": STAND_IN | {"finetune_epochs": 0},
        "rewind_epoch": 1, "rounds": 1, "rounds_imp": 1, "lr_s": 0.5,
        "s_init": [0.0, -0.05, -0.1, -0.3], "rates": [0.9, 0.95], "seeds": (0,),
    },
    "paper": {
        "model": "resnet50", "data": "imagenet", "training": IMAGENET | {"finetune_epochs": 0},
        "rewind_epoch": 6, "rounds": 1, "rounds_imp": 1, "lr_s": 0.1,
        "s_init": [0.0, -0.01, -0.02, -0.03, -0.05], "rates": [0.9, 0.95], "seeds": (0,),
    },
}  # fmt: skip

PROTOCOLS = {"resnet20": RESNET, "vgg16": VGG, "conv6": CONV6, "resnet50": RESNET50}

# 4.5.1: what varies, and the settings it is varied at. In the thesis's figures the fixed settings differ from figure to
# figure. `quick` has the second of each, for lambda and beta_final: they meet in one run.
STUDIES: dict[str, tuple[list[Any], list[dict[str, float]]]] = {
    "lambda": ([0.0, 1e-12, 1e-10, 1e-8], [
        {"s_init": -0.2, "beta_final": 100.0}, {"s_init": 0.05, "beta_final": 200.0},
        {"s_init": -0.3, "beta_final": 100.0},
    ]),  # Figure 4.5
    "beta_final": ([50.0, 100.0, 150.0, 200.0], [
        {"s_init": -0.2, "lambda": 1e-10}, {"s_init": 0.05, "lambda": 1e-12}, {"s_init": -0.3, "lambda": 1e-8},
    ]),  # Figure 4.6
    "s_init": ([-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3], [
        {"beta_final": 100.0, "lambda": 1e-10}, {"beta_final": 200.0, "lambda": 1e-12},
        {"beta_final": 100.0, "lambda": 1e-8},
    ]),  # Figure 4.7
}  # fmt: skip


class Round(Sparsifier):
    """One round of a search; as it stands, the training of a dense network or of a ticket.

    Args:
        config, where: as every :class:`Sparsifier` has them.
        keep: the share of the round after which the weights are kept, None to keep none.
        momentum: the optimizers' states to go on from, as an earlier round left them.

    Attributes:
        retrained: whether every ticket is trained by itself. Not so in IMP: with rewinding, the next round *is* the
            training of a ticket, since nothing but the mask was searched.
    """

    retrained = True

    def __init__(
        self,
        config: Config,
        where: Where = is_spatial_convolution,
        keep: float | None = None,
        momentum: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(config, where)
        self.keep, self.momentum = keep, momentum
        self.made: list[torch.optim.Optimizer] = []

    def relaxed(self, net: nn.Module) -> nn.Module:
        """The network with the mask that the search trains or prunes."""
        return net

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        masks = [p for n, p in net.named_parameters() if n.startswith("relaxations.")]
        weights = [p for n, p in net.named_parameters() if not n.startswith("relaxations.")]
        self.made = self.build(weights, masks, training)
        for optimizer, state in zip(self.made, self.momentum or (), strict=False):
            rates = [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate  # momentum goes on, the schedule starts anew
        return self.made

    def build(self, weights: list[Tensor], masks: list[Tensor], training: Config) -> list[torch.optim.Optimizer]:
        """The optimizers, fresh: one for the weights and the mask, as the search's configuration has it."""
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": training["weight_decay"]}]
        if masks:
            groups.append({"params": masks, "weight_decay": 0.0, "lr": self.config["lr_s"]})
        adam = training.get("optimizer") == "adam"
        return [torch.optim.Adam(groups, lr=training["lr"]) if adam else sgd(groups, training)]

    def film(self, net: nn.Module, before: float, after: float, evaluate: Callable[[nn.Module], float]) -> Any:
        """The iterate that tickets restart from (Algorithm 2, line 7); None at all other moments."""
        return plain_state(net) if self.keep and before < self.keep - 1e-9 <= after else None


class Continuous(Round):
    """Algorithm 2: Continuous Sparsification in rounds."""

    needed = "s_init"

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        # on Conv-6 the thesis has CS rewind, to compare the masks alone (4.5.4)
        return rounds_of(protocol, protocol["rounds"], rewind=on_conv6(protocol)) | {
            "lambda": 1e-8, "beta_final": 200.0, "lr_s": protocol["lr_s"], "variant": "thesis",
        }  # fmt: skip

    def relaxed(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, ContinuousMask(self.config["s_init"], self.where, variant=self.config["variant"]))

    def step(self, net: nn.Module, progress: float) -> None:
        net.anneal(progress, self.config["beta_final"])

    def observe(self, net: nn.Module) -> dict[str, float]:
        return {"beta": float(net.relaxations[0].beta), "sparsity": sparsities(net).hardened}


class Control(Round):
    """The control of every ticket: the dense network, re-trained from its own early iterate."""

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        return rounds_of(protocol, 1, rewind=False)

    def relaxed(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, KeepZeros(self.where))


class Sequential(Continuous):
    """Sequential Continuous Sparsification (4.5.5): a fixed share goes each round, the lowest s."""

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        rounds = rounds_of(protocol, protocol["rounds_imp"], rewind=False)
        return super().options(protocol) | rounds | {"s_init": 0.0, "rate": 0.2}

    def relaxed(self, net: nn.Module) -> nn.Module:
        method = self.config
        mask = SequentialMask(method["rate"], method["s_init"], where=self.where, variant=method["variant"])
        return Relaxed(net, mask)


class MagnitudeRound(Round):
    """IMP-C: a fixed share of what is left goes each round, the smallest; the weights go on."""

    rewind = False

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        rates = {"rate": 0.15, "rate_linear": 0.2} if on_conv6(protocol) else {"rate": 0.2}  # layer by layer (4.5.4)
        return rounds_of(protocol, protocol["rounds_imp"], rewind=cls.rewind) | rates

    def relaxed(self, net: nn.Module) -> nn.Module:
        rate: Any = self.config["rate"]
        if "rate_linear" in self.config:
            rate = {nn.Conv2d: rate, nn.Linear: self.config["rate_linear"]}
        return Relaxed(net, IterativeMagnitude(rate, self.where))


class Rewinding(MagnitudeRound):
    """IMP, Algorithm 3: as IMP-C, but each round starts from the early iterate."""

    rewind = True
    retrained = False


class Stochastic(Round):
    """ISS, Algorithm 4: masks are drawn, and their chances trained."""

    @classmethod
    def options(cls, protocol: Mapping[str, Any]) -> Config:
        trained = {"lambda": 1e-8, "lr_s": protocol["lr_iss"], "s_init": protocol["s_init_iss"]}
        return rounds_of(protocol, protocol["rounds_iss"], rewind=False) | trained

    def relaxed(self, net: nn.Module) -> nn.Module:
        return Relaxed(net, StochasticMask(self.config["s_init"], self.where))

    def build(self, weights: list[Tensor], masks: list[Tensor], training: Config) -> list[torch.optim.Optimizer]:
        if training.get("optimizer") != "adam":
            return super().build(weights, masks, training)
        by_sgd = torch.optim.SGD([{"params": masks, "scheduled": False}], lr=self.config["lr_s"])  # 4.3.3
        return [*super().build(weights, [], training), by_sgd]


def on_conv6(protocol: Mapping[str, Any]) -> bool:
    """Whether a protocol is that of Conv-6."""
    return str(protocol["model"]).startswith("conv6")


def rounds_of(protocol: Mapping[str, Any], rounds: int, rewind: bool) -> Config:
    """The part of a configuration that all searches in rounds have."""
    return {"revision": 1, "rounds": rounds, "rewind_epoch": protocol["rewind_epoch"], "rewind": rewind}


METHODS: dict[str, type[Round]] = {
    "dense": Round,
    "control": Control,
    "cs": Continuous,
    "seq-cs": Sequential,
    "imp": Rewinding,
    "imp-c": MagnitudeRound,
    "iss": Stochastic,
}


def method_config(name: str, protocol: Mapping[str, Any], **options: Any) -> Config:
    """A search's part of a configuration."""
    config, epochs = configure(METHODS, name, protocol, options), protocol["training"]["epochs"]
    if config.get("rounds", 1) < 1:
        raise LabError(f"rounds must be at least 1, not {config['rounds']}: the thesis uses 5 for CS and 30 for IMP")
    if not 0 <= config.get("rewind_epoch", 0) <= epochs:
        raise LabError(
            f"rewind_epoch {config['rewind_epoch']} lies beyond a round of {epochs} epochs: the thesis takes 2 of 85"
        )
    return config


def _protocol(profile: str, network: str) -> dict[str, Any]:
    if network not in PROTOCOLS:
        raise LabError(f"unknown network {network!r}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[network][check_profile(profile)]


class Tickets(Sparsification):
    """Table 4.2 and Figures 4.3 to 4.8, 4.11 and 4.13."""

    name = "tickets"
    point = ("s_init", "rate", "lambda", "beta_final")

    def run(self, profile: str, name: str, seed: int = 0, network: str = "resnet20", **options: Any) -> Run:
        """One search: ``run("quick", "cs", s_init=0.0)``. ``network`` is one of :data:`PROTOCOLS`."""
        if not (protocol := _protocol(profile, network)):
            raise LabError(f"{network} has no searches at profile {profile}: choose short or paper")
        method = method_config(name, protocol, **options)
        config = {key: protocol[key] for key in ("model", "data", "training")} | {"method": method}
        return Run(resnet50.name if network == "resnet50" else self.name, config, profile, seed)

    def searches(self, profile: str, network: str = "resnet20", seeds: Sequence[int] | None = None) -> list[Run]:
        """Table 4.2 and Figures 4.3, 4.4, 4.13; for ``"conv6"`` Figure 4.11. The first seed first."""
        if not (protocol := _protocol(profile, network)):
            return []
        names = {"resnet20": ("imp", "imp-c", "seq-cs"), "vgg16": ("imp", "imp-c"), "conv6": ("imp", "iss")}
        points: list[tuple[str, dict[str, Any]]] = [("dense", {}), ("control", {})]
        points += [("cs", {"s_init": s}) for s in protocol["s_init"]]
        if network == "resnet50":
            points += [("imp", {"rate": rate}) for rate in protocol["rates"]]
        else:
            points += [(name, {}) for name in names[network]]
        first, *rest = protocol["seeds"] if seeds is None else seeds
        # short of the thesis's protocol, other seeds repeat the middle of CS and what it is compared with
        repeated = [*points[:2], ("cs", {"s_init": 0.0}), ("imp", {})]
        again = points if profile == "paper" else [point for point in points if point in repeated]
        declared = [(first, *point) for point in points] + [(seed, *point) for seed in rest for point in again]
        return [self.run(profile, name, seed, network, **options) for seed, name, options in declared]

    def study(self, profile: str, what: str) -> list[Run]:
        """Figures 4.5 to 4.7 (``what``: ``"lambda"``, ``"beta_final"``, ``"s_init"``) or 4.8 (``"rate"``)."""
        protocol = RESNET[check_profile(profile)]
        if what == "rate":
            return [self.run(profile, "imp", rate=rate) for rate in (0.2, *protocol["rates"])]
        if what not in STUDIES:
            raise LabError(f"unknown study {what!r}: choose rate or one of {', '.join(STUDIES)}")
        values, settings = STUDIES[what]
        settings = settings[1:2] if profile == "quick" else settings
        rounds = protocol["rounds_study"]
        return [
            self.run(profile, "cs", rounds=rounds, **setting, **{what: value})
            for setting in settings
            for value in values
        ]

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All searches, the most telling first, and the studies; ``quick`` has ``s_init`` in its searches."""
        declared = [r for network in ("resnet20", "conv6", "vgg16") for r in self.searches(profile, network, seeds)]
        for what in ("rate", "lambda", "beta_final", *(() if profile == "quick" else ("s_init",))):
            declared += self.study(profile, what)
        return list({r.id: r for r in declared}.values())

    def epochs(self, run: Run) -> int:
        method, each = run.config["method"], int(run.config["training"]["epochs"])
        if method["name"] == "dense":
            return each
        return each * (method["rounds"] + (method["rounds"] if METHODS[method["name"]].retrained else 1))

    def compute(
        self,
        run: Run,
        device: torch.device,
        checkpoint: Path,
        on_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> dict[str, Any]:
        """Search, and re-train every ticket."""
        return Search(run, device, checkpoint, on_epoch, stop).result()


class Search:
    """A search in progress. ``checkpoint`` holds what finished stages left; a stage in progress has its own file."""

    def __init__(
        self,
        run: Run,
        device: torch.device,
        checkpoint: Path,
        on_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> None:
        self.run, self.device, self.checkpoint, self.on_epoch, self.stop = run, device, checkpoint, on_epoch, stop
        self.config, self.training = run.config["method"], run.config["training"]
        self.method = METHODS[self.config["name"]]
        self.task = experiment.task(run, device)
        torch.manual_seed(run.seed)
        net = experiment.network(run).to(device)
        self.names = masked_names(run, net)
        self.net = self.method(self.config, where(run)).relaxed(net).to(device)
        self.done: dict[str, Any] = {"identity": run.id, "stages": [], "curve": [], "figures": {}, "seconds": 0.0}
        if checkpoint.exists():
            parts, later = ("stages", "curve", "figures", "seconds", "net"), ("start", "optimizers", "trained")
            with resuming(checkpoint, run.id, device, parts, later) as self.done:
                self.net.load_state_dict(self.done["net"])  # as the last finished round left it

    def result(self) -> dict[str, Any]:
        """All stages, from the first that is not done."""
        if self.config["name"] == "dense":
            if "dense" not in self.done["stages"]:
                trainer = self._train("dense", self.net, Round(self.config), 1)
                self.done["net"] = self.net.state_dict()
                self._stage_done("dense", trainer, {"accuracy": trainer.curve[-1]["accuracy_fixed"]}, 1)
            return self._finished(self.net)
        rounds = self.config["rounds"]
        for r in range(1, rounds + 1):
            if f"search{r}" not in self.done["stages"]:
                self._search_round(r)
            if (r == rounds or self.method.retrained) and f"ticket{r}" not in self.done["stages"]:
                self._train_ticket(r)
        trained = self._ticket(rounds).trainable(self.net.net).to(self.device)
        trained.load_state_dict(self.done["trained"])
        return self._finished(trained.harden())

    def _search_round(self, r: int) -> None:
        start: State | None = self.done.get("start")
        if r == 1 and self.config["rewind_epoch"] == 0:
            start = plain_state(self.net)
        if r > 1:
            begin_round(self.net, start if self.config["rewind"] else None)
        anew = r == 1 or self.config["rewind"]
        keep = self.config["rewind_epoch"] / self.training["epochs"] if start is None else None
        method = self.method(self.config, where(self.run), keep, None if anew else self.done["optimizers"])
        trainer = self._train(f"search{r}", self.net, method, r)
        self.done["start"] = trainer.moments[0] if start is None else start
        exact = sparsities(self.net).exact
        end_round(self.net)
        self.done["net"] = self.net.state_dict()
        self.done["optimizers"] = [optimizer.state_dict() for optimizer in method.made]
        reached = trainer.curve[-1]["accuracy_fixed"]
        figures = {
            f"accuracy_search.round{r}": reached,
            f"exact.round{r}": exact,
            f"sparsity.round{r}": self._ticket(r).sparsity(),
        }
        if r > 1 and not self.method.retrained:
            figures[f"accuracy.round{r - 1}"] = reached
        self._stage_done(f"search{r}", trainer, figures, r)

    def _train_ticket(self, r: int) -> None:
        net = self._ticket(r).trainable(self.net.net)
        trainer = self._train(f"ticket{r}", net, Round({"name": "ticket"}), r)
        self.done["trained"] = net.state_dict()
        self._stage_done(f"ticket{r}", trainer, {f"accuracy.round{r}": trainer.curve[-1]["accuracy_fixed"]}, r)

    def _ticket(self, r: int) -> Ticket:
        with torch.random.fork_rng():
            torch.manual_seed(chance(self.run.seed, r))  # stochastic masks draw: the same draw after an interruption
            return take_ticket(self.net, r, self.done["start"])

    def _train(self, stage: str, net: nn.Module, method: Round, r: int) -> Trainer:
        before = len(self.done["stages"]) * self.training["epochs"]
        trainer = Trainer(
            f"{self.run.id}-{stage}", net, method, self.training, self.task,
            seed=chance(self.run.seed, r, stage.startswith("search")), checkpoint=self._stage_file(stage),
            on_epoch=lambda epoch: self.on_epoch(before + epoch), stop=self.stop,
        )  # fmt: skip
        trainer.run()
        return trainer

    def _stage_file(self, stage: str) -> Path:
        return self.checkpoint.with_name(f"{stage}-{self.checkpoint.name}")

    def _stage_done(self, stage: str, trainer: Trainer, figures: dict[str, float], r: int) -> None:
        before = len(self.done["stages"]) * self.training["epochs"]
        numbers = {"round": r, "ticket": float(not stage.startswith("search"))}
        self.done["curve"] += [row | numbers | {"epoch": row["epoch"] + before} for row in trainer.curve]
        self.done["figures"] |= figures
        self.done["seconds"] += trainer.elapsed()
        self.done["stages"].append(stage)
        save_tensors(self.checkpoint, self.done)
        self._stage_file(stage).unlink(missing_ok=True)

    def _finished(self, trained: nn.Module) -> dict[str, Any]:
        figures = dict(self.done["figures"])
        if "rounds" in self.config:
            figures["accuracy"] = figures[f"accuracy.round{self.config['rounds']}"]
            figures["epochs"] = float(self.config["rounds"] * self.training["epochs"])  # of the search (4.4.2)
        figures["sparsity"] = zeros(trained, self.names)
        figures |= {f"sparsity.{name}": share for name, share in layer_zeros(trained, self.names).items()}
        return {"figures": figures, "curve": self.done["curve"], "seconds": self.done["seconds"], "model": trained}


class ResNet50Tickets(Tickets):
    """The tickets of Table 4.3 (marked with a dagger): an experiment of its own, since few have ImageNet."""

    name = "resnet50_tickets"
    point = ("s_init", "rate")

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """CS for each start and IMP for each sparsity, one round, with the dense network and the control."""
        check_profile(profile)
        return self.searches(profile, "resnet50", seeds)


experiment, resnet50 = Tickets(), ResNet50Tickets()
run, runs, searches, study = experiment.run, experiment.runs, experiment.searches, experiment.study
