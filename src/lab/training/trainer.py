"""One training loop for every chapter: any network, penalty, schedule and optimizer groups, the data on the device.

What makes it fast is what is absent: no loader, no worker, no image library. The data set lives on the device as uint8,
a batch is gathered, cropped and flipped in a few kernels, nothing is read back inside an epoch, and on CUDA the whole step
is one graph (:mod:`lab.training.cuda_graph`).

What makes it resumable is that chance has no memory: every step draws from sources seeded by (seed, epoch, step) alone.
So a run that goes on from a checkpoint, taken after any step, takes the very steps that it would have taken.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.datasets import Images
from lab.datasets.batches import assemble, batches, draws, normalise
from lab.datasets.batches import chance as chance  # experiments look for it here
from lab.utils.errors import LabError
from lab.utils.files import resuming, save_tensors

from . import cuda_graph as graphs
from . import distributed as ranks

Config = dict[str, Any]


class Method:
    """How a method of the book takes part in a run. Search first, then the structure is fixed and the weights fine-tune.

    As it stands it trains the plain network; a method overrides what it does otherwise. A step is recorded and replayed where
    the device can (:mod:`lab.training.cuda_graph`): then Python executes :meth:`step` and :meth:`film` each time, and :meth:`penalty`,
    :meth:`project` and the network's ``forward`` never again. So what varies belongs into tensors that :meth:`step` writes in place.

    Both phases ask for :meth:`optimizers` and call :meth:`project`, first with the trainable form, then with what :meth:`fix` gave.
    The penalty, :meth:`step`, :meth:`observe` and :meth:`film` belong to the search.
    """

    def relax(self, net: nn.Module) -> nn.Module:
        """The trainable form of the network."""
        return net

    def groups(self, net: nn.Module, training: Config) -> list[dict[str, Any]]:
        """Optimizer groups of ``net``, which is the trainable form, and in the second phase the fixed one."""
        return [{"params": list(net.parameters()), "weight_decay": training["weight_decay"]}]

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        """What trains ``net`` in either phase; made anew for the second.

        Each group's ``lr`` is for ``training["lr"]``; the schedule scales it, in the second phase to ``finetune_lr``,
        unless the group says ``"scheduled": False``.
        """
        return [sgd(self.groups(net, training), training)]

    def penalty(self, net: nn.Module) -> Tensor | None:
        """What the loss adds, lambda included."""
        return None

    def step(self, net: nn.Module, progress: float) -> None:
        """Called before each step of the search; ``progress`` runs from 0 to 1 and reaches 1 at its end."""

    def project(self, net: nn.Module) -> None:
        """Called after each step of either phase, for constraints such as a clip."""

    def fix(self, net: nn.Module) -> nn.Module:
        """End of the search: the discrete structure, as a trainable network."""
        return net

    def observe(self, net: nn.Module) -> dict[str, float]:
        """Numbers for the curve's row at the end of an epoch of the search."""
        return {}

    def film(self, net: nn.Module, before: float, after: float, evaluate: Callable[[nn.Module], float]) -> Any:
        """A moment for a moving figure, or None: asked after each step of the search, from ``before`` to ``after``."""
        return None


class Task(Protocol):
    """What is learned: where the batches come from, what the loss is, how a network is scored."""

    metric: str
    """The score's name in the curve."""
    steps: int
    """Batches of an epoch."""
    device: torch.device

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[Any]:
        """The epoch's batches from step ``start`` on. All chance comes from (seed, epoch, step): see :func:`chance`."""

    def loss(self, net: nn.Module, batch: Any) -> Tensor:
        """The mean loss of a batch, a 0-d float32 tensor."""

    def evaluate(self, net: nn.Module) -> float:
        """The score on what was held out."""

    # A task whose model may be trained by several processes (:mod:`lab.training.distributed`) also has ``part(batch)``: this rank's slice.
    # One whose batches a graph shall make itself has ``draws(seed, epoch, start)``, like ``batches`` but for tensors of a fixed
    # shape that hold all of chance, and ``assemble(drawn)``, which makes the batch from them.


class Diverged(Exception):
    """The loss is no longer a finite number."""


class Stopped(Exception):
    """Asked to stop, the run saved a checkpoint and ended early."""


def pick_device(name: str) -> torch.device:
    """``"cpu"``, ``"cuda"``, ``"cuda:1"``: a device that is there, or one line that says what is."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LabError(f"unknown device {name!r}: choose cpu or cuda") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise LabError(f"device {name!r} is not there: PyTorch sees {count} CUDA devices; choose cpu")
    elif device.type != "cpu":
        raise LabError(f"device {name!r} is not supported: choose cpu or cuda")
    return device


def gains_from_bf16(device: torch.device) -> bool:
    """True where matrix units make bfloat16 faster: CUDA from Ampere on, CPUs with AMX or AVX-512 BF16.

    Of a CPU only what PyTorch uses counts: ``ATEN_CPU_CAPABILITY=default`` makes it compute as one without.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        return False
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision where the device gains by it, else nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=gains_from_bf16(device))


@torch.no_grad()
def accuracy(net: nn.Module, data: Images, batch_size: int = 500) -> float:
    """Share of ``data`` that ``net`` classifies rightly, in evaluation mode; the mode it was in is restored."""
    training = net.training
    net.eval()
    right = torch.zeros((), device=data.images.device)
    with autocast(data.images.device):
        for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True):
            right += (net(normalise(images, data)).argmax(1) == labels).sum()
    net.train(training)
    return float(right) / len(data)


def rate(training: Config, progress: float) -> float:
    """Learning-rate factor at ``progress`` (0 to 1 over the search): linear warm-up, then cosine or steps."""
    warmup = training.get("warmup", 0.0)
    if progress < warmup:
        return (progress + 1e-8) / warmup
    if training["schedule"] == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    return float(training["factor"] ** sum(progress >= at for at in training["steps"]))


def finetune_rate(training: Config, progress: float) -> float:
    """Learning-rate factor at ``progress`` (0 to 1 over the fine-tuning): constant, or less by ``factor`` at each of
    ``finetune_steps``."""
    lower = sum(progress >= at for at in training.get("finetune_steps", ()))
    return float(training["finetune_lr"] / training["lr"] * training.get("factor", 0.1) ** lower)


def sgd(groups: list[dict[str, Any]], training: Config) -> torch.optim.Optimizer:
    """SGD as the thesis uses it."""
    return torch.optim.SGD(
        groups, lr=training["lr"], momentum=training["momentum"], nesterov=training["nesterov"], fused=True
    )


class Classification:
    """Images and labels: augmented batches, cross-entropy, accuracy on the test images (:class:`Task`).

    Args:
        data: training and test images, on the device to train on.
        training: the configuration's ``training`` part: ``batch_size``, and ``cutout``, the side of the square that is
            blanked out in each normalised image (default 0, none).
    """

    metric = "accuracy"

    def __init__(self, data: tuple[Images, Images], training: Config) -> None:
        self.train_data, self.test_data = data
        self.device = self.train_data.images.device
        self.batch_size, self.cutout = training["batch_size"], training.get("cutout", 0)
        self.steps = len(self.train_data) // self.batch_size
        if self.steps == 0:
            raise LabError(
                f"{self.train_data.name} has {len(self.train_data)} training images, fewer than one batch "
                f"of {self.batch_size}: lower batch_size"
            )

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See :func:`batches`."""
        return batches(self.train_data, self.batch_size, seed, epoch, start, self.cutout)

    def draws(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        """See :func:`draws`."""
        return draws(self.train_data, self.batch_size, seed, epoch, start, self.cutout)

    def assemble(self, drawn: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """See :func:`assemble`."""
        return assemble(self.train_data, drawn, self.cutout)

    def part(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """This rank's images and labels of a joint batch."""
        own = ranks.slice_of(len(batch[1]))
        return batch[0][own], batch[1][own]

    def loss(self, net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy."""
        images, labels = batch
        with autocast(self.device):
            outputs = net(images)
        return F.cross_entropy(outputs.float(), labels)

    def evaluate(self, net: nn.Module) -> float:
        """Accuracy on the test images."""
        return accuracy(net, self.test_data)


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
            self._descent = graphs.Step(partial(self._descend, searching, apart), self.optimizers, self._record)
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

    def _descend(self, searching: bool, apart: bool, batch: Any) -> None:
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
