"""One training loop for every chapter: any network, penalty, schedule and optimizer groups, the data on the device.

What makes it fast is what is absent: no loader, no worker, no image library. The data set lives on the device as uint8,
a batch is gathered, cropped and flipped in a few kernels, nothing is read back inside an epoch, and on CUDA the whole
step is one graph (:mod:`lab.training.cuda_graph`).

What makes it resumable is that chance has no memory: every step draws from sources seeded by (seed, epoch, step) alone.
So a run that goes on from a checkpoint, taken after any step, takes the very steps that it would have taken.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lab.utils.errors import LabError
from lab.utils.files import resuming, save_tensors

from . import cuda_graph as graphs
from . import distributed as ranks
from .interfaces import Config, Method, Task
from .schedule import finetune_rate, rate


class Diverged(Exception):
    """The loss is no longer a finite number."""


class Stopped(Exception):
    """Asked to stop, the run saved a checkpoint and ended early."""


def _draws_its_batches(task: Task) -> bool:
    """Whether :meth:`draws` is about the task's batches; not if a subclass, or a caller, replaced ``batches`` alone."""
    owners = [next((c for c in type(task).__mro__ if name in vars(c)), None) for name in ("draws", "batches")]
    return owners[0] is not None and owners[0] is owners[1] and "batches" not in vars(task)


PLACE = ("epoch", "step", "loss", "curve", "moments")
"""Where a run is: what a checkpoint holds beside the network and its optimizers."""


class Trainer:
    """A run in progress: ``Trainer(...).run()`` trains it to its end, from its last checkpoint if there is one.

    Args:
        identity: the run's id; a checkpoint of another run, or of another version of the code, is refused.
        net: the plain network; its starting weights are the caller's (seeded) business.
        method: what is done to it.
        training: epochs, finetune_epochs, batch_size, lr, schedule ...: the configuration's ``training`` part.
        task: what is learned.
        seed: of data order, augmentation, dropout and noise.
        checkpoint: file to save to and to resume from; None for no checkpoints.
        trunk: (identity, file) of a search that several runs have in common, such as the dense training that every
            one-shot pruning starts from. Whoever ends it first leaves it there; the others go on from it.
        every: seconds between checkpoints; 10 loses little and costs less than a percent.
        on_epoch: called with the number of finished epochs.
        stop: asked after each step; True saves a checkpoint and raises :class:`Stopped`.
        record: from the device to what records a step there, or None (:func:`lab.training.cuda_graph.recorder`).
    """

    def __init__(
        self,
        identity: str,
        net: nn.Module,
        method: Method,
        training: Config,
        task: Task,
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        trunk: tuple[str, Path] | None = None,
        every: float = 10.0,
        on_epoch: Callable[[int], None] = lambda epoch: None,
        stop: Callable[[], bool] = lambda: False,
        record: Callable[[torch.device], graphs.Recorder | None] = graphs.recorder,
    ) -> None:
        self.identity, self.method, self.training, self.seed = identity, method, training, seed
        self.task, self.device, self.steps = task, task.device, task.steps
        self.checkpoint, self.trunk, self.every, self.on_epoch, self.stop = checkpoint, trunk, every, on_epoch, stop
        self.epoch, self.step = 0, 0  # finished epochs, and finished steps of the next one
        self.loss = torch.zeros((), device=self.device)  # summed over the steps of the epoch
        self.curve: list[dict[str, float]] = []  # a row an epoch
        self.moments: list[Any] = []  # what the method filmed
        self.seconds = 0.0
        self._clock = self._saved = time.monotonic()
        if ranks.count() > 1 and not hasattr(task, "part"):
            raise LabError(f"{type(task).__name__} cannot share a batch among processes: start it without torchrun")
        self._record = record(self.device) if ranks.count() == 1 else None
        self._search(ranks.with_joint_norm(net.to(self.device, memory_format=torch.channels_last), self.device))
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint, identity)
        elif trunk is not None and trunk[1].exists():
            self._resume(trunk[1], trunk[0])

    @property
    def epochs(self) -> int:
        """All epochs of the run, fine-tuning included."""
        return int(self.training["epochs"] + self.training["finetune_epochs"])

    def _search(self, net: nn.Module) -> None:
        self.net = self.method.relax(net).to(self.device)
        self._optimize(self.method.optimizers(self.net, self.training))

    def _fix(self) -> None:
        self.net = self.method.fix(self.net).to(self.device, memory_format=torch.channels_last)
        if self.training["finetune_epochs"]:
            self._optimize(self.method.optimizers(self.net, self.training))

    def _optimize(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers
        self._descent: graphs.Step | None = None  # made when the phase begins, after a checkpoint was loaded
        self._replica = ranks.replica(self.net)
        for group in self._groups():
            group["base_lr"] = group["lr"]

    def _groups(self) -> Iterator[dict[str, Any]]:
        return itertools.chain.from_iterable(optimizer.param_groups for optimizer in self.optimizers)

    def run(self) -> nn.Module:
        """Train to the end and return the network in its fixed form; :attr:`curve` holds a row an epoch."""
        with graphs.own_stream(self.device):
            return self._run()

    def _run(self) -> nn.Module:
        while True:
            if self.epoch == self.training["epochs"] and self.step == 0:
                if self.trunk is not None and ranks.agree(not self.trunk[1].exists())[0]:
                    self.save(self.trunk[1], self.trunk[0])
                self._fix()
                self.curve[-1][f"{self.task.metric}_fixed"] = self.evaluate(self.net)
            if self.epoch == self.epochs:
                return self.net
            self._rest_of_epoch()
            self.on_epoch(self.epoch)

    def evaluate(self, net: nn.Module) -> float:
        """The task's score."""
        return self.task.evaluate(net)

    def _rest_of_epoch(self) -> None:
        for _ in self.steps_of_epoch():
            pass

    def steps_of_epoch(self) -> Iterator[int]:
        """The rest of this epoch, one step each time the next is asked for: for who trains several runs in turns.

        Yields the steps of the epoch that are done. Ask for all, or the epoch does not end.
        """
        training = self.training
        searching = self.epoch < training["epochs"]
        apart = self._record is not None and _draws_its_batches(self.task)
        if self._descent is None:
            self._descent = graphs.Step(partial(self._train_step, searching, apart), self.optimizers, self._record)
        self.net.train()
        for batch in (self.task.draws if apart else self.task.batches)(self.seed, self.epoch, self.step):
            if searching:
                progress = (self.epoch + self.step / self.steps) / training["epochs"]
                self.method.step(self.net, progress)
                factor = rate(training, progress)
            else:
                tuned = (self.epoch + self.step / self.steps - training["epochs"]) / training["finetune_epochs"]
                factor = finetune_rate(training, tuned)
            scheduled = (factor if group.get("scheduled", True) else 1.0 for group in self._groups())
            self._descent.rates([group["base_lr"] * f for group, f in zip(self._groups(), scheduled, strict=True)])
            self._descent(batch)
            self.step += 1
            if searching:
                after = (self.epoch + self.step / self.steps) / training["epochs"]
                moment = self.method.film(self.net, progress, after, self.evaluate)
                self.moments += [] if moment is None else [moment]
            self._after_step()
            yield self.step
        self._end_of_epoch(searching)

    def _train_step(self, searching: bool, apart: bool, batch: Any) -> None:
        """What a step does on the device, and all that a graph holds of it: here nothing is read back."""
        if apart:
            batch = self.task.assemble(batch)
        loss = self.task.loss(self._replica, self.task.part(batch) if ranks.count() > 1 else batch)
        self.loss += loss.detach()
        penalty = self.method.penalty(self.net) if searching else None
        (loss if penalty is None else loss + penalty).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.method.project(self.net)

    def _end_of_epoch(self, searching: bool) -> None:
        self.epoch, self.step = self.epoch + 1, 0
        ranks.share_buffers(self.net)
        mean_loss = float(ranks.mean(self.loss)) / self.steps
        self.loss.zero_()
        if not math.isfinite(mean_loss):
            raise Diverged(f"the loss became {mean_loss} in epoch {self.epoch}")
        row = {"epoch": self.epoch, "loss": mean_loss}
        if searching:  # beta reaches its final value after the last step (Algorithm 1, line 5)
            self.method.step(self.net, self.epoch / self.training["epochs"])
            row |= self.method.observe(self.net)
        due = self.epoch % self.training.get("evaluate_every", 1) == 0
        if due or self.epoch in (self.training["epochs"], self.epochs):
            row[self.task.metric] = self.evaluate(self.net)
        self.curve.append(row)

    def _after_step(self) -> None:
        # Within an epoch only: its end has bookkeeping of its own, and the next step is never far.
        if self.checkpoint is None or self.step == self.steps:
            return
        stop, due = ranks.agree(self.stop(), time.monotonic() - self._saved >= self.every)
        if stop:
            self.save(self.checkpoint, self.identity)
            raise Stopped(f"stopped in epoch {self.epoch + 1} of {self.epochs}; the checkpoint is written")
        if due:
            self.save(self.checkpoint, self.identity)

    def elapsed(self) -> float:
        """Seconds of work, those before an interruption included."""
        return self.seconds + time.monotonic() - self._clock

    def save(self, path: Path, identity: str) -> None:
        """Write everything that the rest of the run depends on, atomically. Of several ranks the first one writes."""
        self.loss = ranks.mean(self.loss)
        state = {"identity": identity, "seconds": self.elapsed()} | {name: getattr(self, name) for name in PLACE}
        state |= {"net": self.net.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}
        if ranks.is_first():
            save_tensors(path, state)
        self._saved = time.monotonic()

    def _resume(self, path: Path, identity: str) -> None:
        with resuming(path, identity, self.device, (*PLACE, "seconds", "net", "optimizers")) as state:
            for name in (*PLACE, "seconds"):
                setattr(self, name, state[name])
            if (self.epoch, self.step) > (
                self.training["epochs"],
                0,
            ):  # within fine-tuning: the network has its fixed form
                self._fix()
            self.net.load_state_dict(state["net"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
                optimizer.load_state_dict(saved)
                for group, own in zip(optimizer.param_groups, options, strict=True):
                    group |= own  # which kernels to use is this device's business, not that of the one that saved
