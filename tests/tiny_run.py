"""A pruning run of a second, for tests: a small ResNet on 96 made-up images, in a process of its own that may be
killed.

The processes are forked from a server that has imported everything and computed nothing, so each starts at once.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from lab import datasets, runs, training
from lab.datasets import Images
from lab.datasets import cifar10_mini as mini
from lab.experiments import base
from lab.experiments.sparsity import pruning
from lab.models import ResNet
from lab.models.registry import NETWORKS
from lab.runs import Run, worker
from lab.utils import files

TRAINING = {
    "epochs": 3, "finetune_epochs": 2, "batch_size": 32, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
    "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip
STEPS = 15  # 5 epochs of 3
METHODS = {
    "dense": {"name": "dense", "revision": 1},
    "cs": {"name": "cs", "revision": 1, "s_init": -0.02, "lambda": 1e-8, "beta_final": 200.0, "lr_s": 1.0,
        "variant": "thesis"},
    "gmp": {"name": "gmp", "revision": 1, "begin": 0.1, "end": 0.9, "prunings": 40, "target": 0.8},
    "mp": {"name": "mp", "revision": 1, "target": 0.8},
}  # fmt: skip


def tiny(method="cs", seed=0, profile="short", **training):
    config = {"model": "resnet20", "data": "cifar10-mini", "training": TRAINING | training, "method": METHODS[method]}
    return Run("pruning", config, profile, seed)


def made_up(name, split):
    source = torch.Generator().manual_seed(len(split))
    pixels = torch.randint(0, 256, (96, 3, 32, 32), generator=source, dtype=torch.uint8)
    labels = torch.randint(0, 10, (96,), generator=source)
    return Images(pixels, labels, tuple("abcdefghij"), torch.full((3,), 0.5), torch.full((3,), 0.25), name, "00")


def few_images(root):
    """A data folder with 64 training and 20 test images of the embedded set, verified on load like any other."""
    folder, lines = root / "cifar10-mini", []
    folder.mkdir(parents=True)
    for split, count in (("train", 64), ("test", 20)):
        images = datasets.load("cifar10-mini", split)
        pixels, labels = images.images[:count].numpy(), images.labels[:count].tolist()
        mini._to_sheet(pixels, folder / f"{split}.webp")
        rows = [f"{i},{label},{images.classes[label]}\n" for i, label in enumerate(labels)]
        (folder / f"{split}.csv").write_text("index,label,class\n" + "".join(rows))
        lines += [f"{mini._digest_images(pixels)}  {split}.webp\n"]
        lines += [f"{mini._digest_rows(np.array(list(enumerate(labels))))}  {split}.csv\n"]
    (folder / mini.CHECKSUMS).write_text("".join(lines))


def at(place: Path):
    """Let this process keep everything below ``place`` and train the small network."""
    torch.set_num_threads(1)
    os.environ["LAB_BUILD"] = str(place / "build")
    os.environ["LAB_RUNS"] = str(place / "runs")
    NETWORKS["resnet20"] = partial(ResNet, 1)
    base.load = made_up


def child(place, run, kill=None, every=0.0, terminate=None):
    """Compute ``run``. ``kill``: ("step", n), ("write", n) or ("written", n): SIGKILL at the n-th. ``terminate``:
    SIGTERM at a step.
    """
    at(place)
    signal.signal(signal.SIGTERM, worker.stop)
    trainer = pruning.Pruning.trainer
    counts = {"step": 0, "write": 0, "written": 0}

    def count(what):
        counts[what] += 1
        if kill == (what, counts[what]):
            os.kill(os.getpid(), signal.SIGKILL)

    class Counting(trainer):
        def __init__(self, *args, **options):
            super().__init__(*args, **options, every=every)

        def _after_step(self):
            count("step")
            if counts["step"] == terminate:
                os.kill(os.getpid(), signal.SIGTERM)
            super()._after_step()

    pruning.Pruning.trainer = Counting
    replace = os.replace

    def counting_replace(source, target):
        count("write")  # all is on the disk, under another name
        replace(source, target)
        count("written")

    os.replace = counting_replace
    while True:
        try:
            worker.compute(run)
            return
        except files.Busy:
            time.sleep(0.05)
        except training.Stopped:
            os._exit(3)


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch._dynamo", "tiny_run"])  # the first optimizer imports torch._dynamo: 1.5 s


def serve():
    """Start the server from which the processes are forked; it must find this file, and the very ``lab`` that is
    tested.
    """
    folders = Path(__file__).parent, Path(files.__file__).parents[2]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, folders))):
        multiprocessing.forkserver.ensure_running()


runs.source_of("pruning"), runs.commit_of_now()  # read once, here, not in every process


def start(place, run, **how):
    """A process that computes ``run`` below ``place``."""
    serve()
    process = _context.Process(target=child, args=(place, run), kwargs=how, daemon=True)
    process.start()
    return process


def finish(process):
    """Its exit status: 0, 3 if it stopped when asked to, -9 if it was killed."""
    process.join(600)
    assert process.exitcode is not None, "the process does not end"
    return process.exitcode
