"""What an experiment is: the runs behind tables and figures of the thesis, and how one of them is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab.datasets import load
from lab.runs import Run
from lab.training.classification import Classification
from lab.training.interfaces import Method, Task
from lab.training.trainer import Trainer
from principled import Relaxed


class Experiment:
    """A declaration of runs. A subclass says which runs there are, what network, method and figures a run has.

    One instance a module, under the name ``experiment``; :mod:`lab.runs.registry` lists the modules.

    Attributes:
        name: part of every run's identity, so it never changes.
        chapter: the book's chapter.
        first: whether a recorder begins with this experiment.
        point: options of a method that tell one point of a curve from another (:mod:`lab.runs.intervals`).
        score: the figure that intervals over seeds are stated for.
        trainer: the training loop.
    """

    name: str
    chapter: int
    first = False
    point: tuple[str, ...] = ("s_init", "target")
    score = "accuracy"
    trainer: type[Trainer] = Trainer

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """All runs of a profile, the most telling first; ``seeds`` replaces the declared ones."""
        raise TypeError(f"{type(self).__name__} does not say which runs(profile) it has")

    def network(self, run: Run) -> nn.Module:
        """The plain network of a run, drawn from torch's generator (already seeded)."""
        raise TypeError(f"{type(self).__name__} does not say which network(run) it trains")

    def method(self, run: Run, task: Task) -> Method:
        """What is done to the network."""
        raise TypeError(f"{type(self).__name__} does not say which method(run, task) it applies")

    def task(self, run: Run, device: torch.device) -> Task:
        """What the run learns: image classification on the data set that its configuration names."""
        training = run.config["training"]
        if run.config["data"] == "imagenet":
            from lab.training.imagenet import ImageNet

            return ImageNet(device, training)
        data = load(run.config["data"], "train").to(device), load(run.config["data"], "test").to(device)
        return Classification(data, training)

    def trunk(self, run: Run) -> tuple[str, Path] | None:
        """(identity, file) of a search that this run shares with others; see :class:`lab.training.trainer.Trainer`."""
        return None

    def check(self, run: Run) -> None:
        """Refuse what the user can mend, such as missing data, before anything is computed."""
        if run.config["data"] == "imagenet":
            from lab.training.imagenet import folders

            folders()
        else:
            load(run.config["data"], "test")

    def epochs(self, run: Run) -> int:
        """How many epochs the run takes, for a progress bar."""
        training = run.config["training"]
        return int(training["epochs"] + training.get("finetune_epochs", 0))

    def harden(self, trained: nn.Module) -> nn.Module:
        """The plain network that is deployed, from its fixed form as trained."""
        return trained.harden() if isinstance(trained, Relaxed) else trained

    def figures(self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module) -> dict[str, float]:
        """The numbers that the record states. ``trained`` is the fixed form as trained, ``plain`` the
        hardened network.
        """
        return {"accuracy": trainer.evaluate(plain)} | around_fixing(trainer)

    def recording(
        self, run: Run, trainer: Trainer, trained: nn.Module, plain: nn.Module, figures: dict[str, float]
    ) -> dict[str, Any] | None:
        """What a moving figure shows of the run, or None."""
        return None

    def compute(
        self,
        run: Run,
        device: torch.device,
        checkpoint: Path,
        on_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> dict[str, Any]:
        """Train one run; figures, curve, network and recording as :func:`lab.runs.records.write` takes them."""
        task = self.task(run, device)
        torch.manual_seed(run.seed)
        net = self.network(run).to(device)
        trainer = self.trainer(
            run.id, net, self.method(run, task), run.config["training"], task,
            seed=run.seed, checkpoint=checkpoint, trunk=self.trunk(run), on_epoch=on_epoch, stop=stop,
        )  # fmt: skip
        trained = trainer.run()
        plain = self.harden(trained)
        figures = self.figures(run, trainer, trained, plain)
        result = {"figures": figures, "curve": trainer.curve, "model": plain}
        if (recording := self.recording(run, trainer, trained, plain, figures)) is not None:
            result["recording"] = recording
        return result | {"seconds": trainer.elapsed()}


def around_fixing(trainer: Trainer) -> dict[str, float]:
    """The score at the end of the search, as searched and right after the structure was fixed."""
    searched, metric = trainer.curve[trainer.training["epochs"] - 1], trainer.task.metric
    return {f"{metric}_before_fixing": searched[metric], f"{metric}_after_fixing": searched[f"{metric}_fixed"]}
