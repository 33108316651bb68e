"""One model on several devices: what the processes that ``torchrun`` starts say to each other. Alone, a process talks
to itself, and each function here gives back what it was given.

    torchrun --nproc-per-node 2 -m lab record --run ID --device cuda

Each process (a *rank*) draws the same joint batch and takes its own slice; DistributedDataParallel averages the
gradients, so every rank makes the same step with the same weights. What one rank decides by itself (its clock, a
signal) all must learn of before they act on it, or the others wait for it for ever: that is :func:`agree`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lab.utils.errors import LabError

SILENCE = timedelta(hours=1)
"""How long a rank waits for the others: evaluation, folding and fine-tuning between two steps may take a while."""


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return (os.environ.get("WORLD_SIZE") or "1") != "1"


@contextmanager
def together(device: str) -> Iterator[str]:
    """Join the other ranks, and yield the device of this one: ``"cuda"`` becomes ``"cuda:<local rank>"``."""
    said = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")}
    for name, value in said.items():
        if not value.isdecimal():
            raise LabError(
                f"{name} is {value!r}, no number: start by torchrun, which sets {', '.join(said)}; or unset WORLD_SIZE"
            )
    local = int(said["LOCAL_RANK"])
    kind = torch.device(device).type
    if kind == "cuda":
        if local >= torch.cuda.device_count():
            raise LabError(f"torchrun started more processes than the {torch.cuda.device_count()} CUDA devices here")
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    # gloo beside nccl: decisions travel as CPU tensors, so that no rank has to wait for its device
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timeout=SILENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def count() -> int:
    """How many ranks train one model."""
    return dist.get_world_size() if _joined() else 1


def is_first() -> bool:
    """Whether this is the rank that writes checkpoints and records."""
    return not _joined() or dist.get_rank() == 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def agree(*flags: bool) -> list[bool]:
    """Each flag as true if any rank says so. All ranks must call it, at the same place."""
    if count() == 1:
        return list(flags)
    said = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(said, dist.ReduceOp.MAX)
    return [bool(flag) for flag in said.tolist()]


def mean(value: Tensor) -> Tensor:
    """The mean over the ranks."""
    if count() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= count()
    return value


def from_first(value: Any) -> Any:
    """What the first rank has."""
    box = [value]
    if count() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def slice_of(length: int) -> slice:
    """This rank's part of a joint batch of ``length``; equal parts, so that the mean of means is the joint mean."""
    if length % count():
        raise LabError(f"{count()} processes cannot share a batch of {length} evenly: start another number of them")
    size, rank = length // count(), dist.get_rank() if _joined() else 0
    return slice(rank * size, (rank + 1) * size)


def with_joint_norm(net: nn.Module, device: torch.device) -> nn.Module:
    """On CUDA, BatchNorm that normalises by the joint batch. PyTorch has it for CUDA alone: on CPUs each rank
    normalises by its own slice, and the first rank's running statistics become everyone's."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(net) if count() > 1 and device.type == "cuda" else net


def replica(net: nn.Module) -> nn.Module:
    """``net``, with its gradients averaged over the ranks as they come."""
    return DistributedDataParallel(net) if count() > 1 else net


def share_buffers(net: nn.Module) -> None:
    """The first rank's running statistics become everyone's, so that all ranks measure the same network."""
    if count() > 1:
        for buffer in net.buffers():
            dist.broadcast(buffer, src=0)
