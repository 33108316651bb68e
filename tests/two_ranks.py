"""What each process of ``torchrun`` does in tests/test_ranks.py: train small networks, save what came of it."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from lab.datasets import Images
from lab.runs.worker import stop
from lab.training import Classification, Method, Stopped, Trainer
from lab.training import distributed as ranks
from lab.utils.errors import LabError
from principled import ContinuousMask, Relaxed

CONFIG = {
    "epochs": 2, "finetune_epochs": 1, "batch_size": 8, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
    "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip


def made_up(count, name="made"):
    source = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=source, dtype=torch.uint8)
    labels = torch.randint(0, 3, (count,), generator=source)
    return Images(pixels, labels, ("a", "b", "c"), torch.full((3,), 0.5), torch.full((3,), 0.25), name, "00")


class Masked(Method):
    """Continuous Sparsification: a relaxed network, a penalty outside the forward pass, another form at the end."""

    def relax(self, net):
        return Relaxed(net, ContinuousMask(s_init=0.02))

    def penalty(self, net):
        return 1e-4 * net.penalty()

    def step(self, net, progress):
        net.anneal(progress, 50.0)

    def fix(self, net):
        return net.harden()


def net_with(norm):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), norm, nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))


NETS = {
    "plain": (lambda: net_with(nn.Identity()), Method),
    "group norm": (lambda: net_with(nn.GroupNorm(2, 4)), Method),
    "masked": (lambda: net_with(nn.GroupNorm(2, 4)), Masked),
    "batch norm": (lambda: net_with(nn.BatchNorm2d(4)), Method),
}


in_float32 = mock.patch.object(torch.backends.cpu, "get_cpu_capability", mock.Mock(return_value="DEFAULT"))
"""In bfloat16 the order of a sum would show."""


def trainer(name, **options):
    torch.set_num_threads(1)
    make, method = NETS[name]
    task = Classification((made_up(35), made_up(20)), CONFIG)
    return Trainer("a-run", make(), method(), CONFIG, task, **options)


def start(name):
    """The weights before training."""
    return trainer(name).net.state_dict() if NETS[name][1] is Method else NETS[name][0]().state_dict()


@in_float32
def run_alone(name):
    """Weights and curve of one process with the joint batch."""
    whole = trainer(name)
    net = whole.run()
    return {key: value.clone() for key, value in net.state_dict().items()}, whole.curve


class Bare:
    device, steps = torch.device("cpu"), 1


@in_float32
def main(place):
    signal.signal(signal.SIGTERM, stop)
    first = ranks.is_first()
    for name in NETS:
        one = trainer(name)
        net = one.run()
        torch.save(net.state_dict(), place / f"{name}-rank{int(not first)}.pt")
        if first:
            torch.save((net.state_dict(), one.curve), place / f"{name}.pt")

    calls = []

    def asked():  # only the second rank is, and only after its sixth step
        calls.append(1)
        return not first and len(calls) == 6

    path = place / "checkpoint.pt"
    stopped = trainer("masked", checkpoint=path, stop=asked, every=1e9)
    with suppress(Stopped):
        stopped.run()
    assert len(calls) == 6
    ranks.agree(True)  # the file is written
    resumed = trainer("masked", checkpoint=path, every=1e9)
    assert (resumed.epoch, resumed.step) == (stopped.epoch, stopped.step) != (0, 0)
    net = resumed.run()
    if first:
        torch.save((net.state_dict(), resumed.curve), place / "resumed.pt")

    for name, wrong in {"uneven": lambda: ranks.slice_of(7), "unshared": lambda: bare()}.items():
        try:
            wrong()
        except LabError as e:
            (place / name).write_text(str(e))


def bare():
    Trainer("a-run", NETS["plain"][0](), Method(), CONFIG, Bare())


if __name__ == "__main__":
    assert "WORLD_SIZE" in os.environ
    with ranks.together("cpu"):
        main(Path(sys.argv[1]))
