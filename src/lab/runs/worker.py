"""One run, computed in this process: locked, resumed from its checkpoint, recorded. :mod:`lab.runs.runner` and
:mod:`lab.runs.cluster` say where."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lab.training import Diverged, Stopped, pick_device
from lab.training import distributed as ranks
from lab.utils.errors import plain_output
from lab.utils.files import Unusable, begin_build, locked, save_model, speaking, sweep

from . import SETTLED, Record, Run, find, provenance, rounded, write

_ticks: Any = None  # the queue to the parent's progress bar, in a worker
_stopping = threading.Event()


class OutOfMemory(Exception):
    """The device had no room for the run beside what else was on it."""


def compute(run: Run, device: str = "cpu", until: float = math.inf) -> Record:
    """The run's record: found, or computed (from its checkpoint, if it has one) and written.

    A run that is recorded, of which the network is wanted too, is computed for that network alone and keeps its record.

    Two recorders of one machine, or of a folder whose locks reach all its machines, never compute it at once.

    Args:
        run: what to compute.
        device: ``"cpu"`` or a CUDA device.
        until: when to stop, as ``time.monotonic()`` tells it, which is one clock for all processes of a machine.

    Raises:
        LabError: something the user can mend.
        Stopped: :func:`stop` was called, or it is time; the checkpoint is written.
        Busy: another recorder is at it.
        OutOfMemory: the device had no room; the checkpoint stays.
    """
    where = pick_device(device)
    if _stopping.is_set() or time.monotonic() >= until:
        raise Stopped("stopped before it began")
    with holding(run):
        record = find(run, SETTLED) or compute_locked(run, where, until)
        run.checkpoint().unlink(missing_ok=True)
    return record


@contextmanager
def holding(run: Run) -> Iterator[None]:
    """Be the one that computes the run, by a lock beside its checkpoint; Busy if another process is."""
    begin_build()
    with locked(run.checkpoint().with_suffix(".lock")):
        yield


def journal(run: Run) -> Path:
    """The file that holds a line for each time the run was begun, and for how that ended."""
    return run.checkpoint().with_suffix(".journal")


def _note(run: Run, what: str) -> None:
    with speaking(journal(run), "write"), open(journal(run), "a", encoding="utf-8") as lines:
        print(datetime.now(UTC).isoformat(timespec="seconds"), os.uname().nodename, os.getpid(), what, file=lines)


def compute_locked(run: Run, where: torch.device, until: float = math.inf) -> Record:
    """Compute the run, whose lock is held. Of several ranks the first writes; all return the record.

    A checkpoint that the run cannot go on from is set aside, never deleted, and the run begins anew.
    """
    first = ranks.is_first()
    if first:
        sweep(run.path(), run.model(), run.checkpoint())
        _note(run, "began")
    began = time.monotonic()

    def done(state: str, result: dict[str, Any], seconds: float) -> Record | None:
        if not first:
            return None
        if "model" in result:  # first, so that a run which counts as recorded has its model too
            own = json.dumps(rounded(result["figures"]), sort_keys=True)
            save_model(run.model(), result["model"], {"figures": own})
        processes = {"processes": ranks.count()} if ranks.count() > 1 else {}
        record = find(replace(run, network=False), SETTLED)
        record = record or write(run, state, result, provenance(run, where, seconds) | processes)
        _note(run, state)
        return record

    def attempt() -> dict[str, Any]:
        def stop() -> bool:
            return _stopping.is_set() or time.monotonic() >= until

        try:
            return dict(run.module.compute(run, where, run.checkpoint(), on_epoch=_tick, stop=stop))
        except Unusable as e:
            _set_aside(e, run)
        return attempt()

    result = None
    try:
        result = attempt()
    except Diverged as e:
        return ranks.from_first(done("diverged", {"error": str(e)}, time.monotonic() - began))
    except Stopped:
        if first:
            _note(run, "stopped")
        raise
    except torch.OutOfMemoryError:
        _note(run, "out of memory")
    if result is None:  # here, not above, where the error still holds what the step held
        gc.collect()
        torch.cuda.empty_cache()  # others on the device shall have it; without CUDA this does nothing
        raise OutOfMemory(run.label())
    return ranks.from_first(done("finished", result, result["seconds"]))


def _set_aside(checkpoint: Unusable, run: Run) -> None:
    aside = checkpoint.path.with_suffix(f".{time.time_ns()}.aside")  # a name of its own: an earlier one is kept
    if ranks.is_first():
        with speaking(checkpoint.path, "set aside"), suppress(FileNotFoundError):  # another run's worker was quicker
            os.replace(checkpoint.path, aside)
        _note(run, "begun anew")
        said = f"{checkpoint.path} {checkpoint.why}: set aside as {aside.name}, and {run.label()} begins anew"
        warnings.warn(said, stacklevel=2)
    ranks.from_first(None)  # nobody looks for the file before it is gone


def _tick(epoch: int) -> None:
    if _ticks is not None:
        _ticks.put(1)


def stop(*_: object) -> None:
    """Ask the run in this process to save its checkpoint and end. Also the handler of SIGTERM."""
    _stopping.set()


def keep_memory() -> None:
    """Let this process keep the memory that it frees, where the C library is glibc: a step asks for the same tensors
    again.

    By default each large tensor is mapped, zeroed page by page and given back, thousands of times a step. See
    ``docs/decisions/0009-where-a-step-on-a-cpu-goes.md``.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(option, 2**30)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of malloc.h."""

LARGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""Environment that makes PyTorch ask for pages of 2 MiB; read when a process allocates its first tensor."""


def start(ticks: Any, threads: int) -> None:
    """Begin a process that computes runs. It reports each epoch to the queue ``ticks``, and ends with its parent."""
    global _ticks
    _ticks = ticks
    plain_output()
    warnings.filterwarnings("ignore", "the mask removes every weight")  # the record has each layer's zeros
    keep_memory()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which asks the workers

    def leave_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
