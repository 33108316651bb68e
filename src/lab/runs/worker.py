"""One run, computed in this process: leased, resumed from its checkpoint, recorded. :mod:`lab.runs.runner` and :mod:`lab.runs.cluster` say where."""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lab.training import Diverged, Stopped, pick_device
from lab.training import distributed as ranks
from lab.utils.files import save_model, speaking, sweep

from . import SETTLED, Record, Run, find, leases, provenance, write

_ticks: Any = None  # the queue to the parent's progress bar, in a worker
_stopping = threading.Event()


class OutOfMemory(Exception):
    """The device had no room for the run beside what else was on it."""


def compute(run: Run, device: str = "cpu", until: float = math.inf) -> Record:
    """The run's record: found, or computed (from its checkpoint, if it has one) and written.

    An exclusive lease on the run makes sure that two recorders never compute it at once: see :mod:`lab.runs.leases`.

    Args:
        run: what to compute.
        device: ``"cpu"`` or a CUDA device.
        until: when to stop, as ``time.time()`` tells it.

    Raises:
        LabError: something the user can mend.
        Stopped: :func:`stop` was called, or it is time; the checkpoint is written.
        Busy: another recorder is at it.
        OutOfMemory: the device had no room; the checkpoint stays.
    """
    where = pick_device(device)
    if _stopping.is_set() or time.time() >= until:
        raise Stopped("stopped before it began")
    with leases.held(lease(run), lost=stop):
        record = find(run, SETTLED) or compute_leased(run, where, until)
        run.checkpoint().unlink(missing_ok=True)
    return record


def lease(run: Run) -> Path:
    """The file that says who computes the run."""
    return run.checkpoint().with_suffix(".lease")


def journal(run: Run) -> Path:
    """The file that holds a line for each time the run was begun, and for how that ended."""
    return run.checkpoint().with_suffix(".journal")


def _note(run: Run, what: str) -> None:
    with speaking(journal(run), "write"), open(journal(run), "a", encoding="utf-8") as lines:
        print(datetime.now(UTC).isoformat(timespec="seconds"), os.uname().nodename, os.getpid(), what, file=lines)


def compute_leased(run: Run, where: torch.device, until: float = math.inf) -> Record:
    """Compute the run, whose lease is held. Of several ranks the first writes; all return the record."""
    first = ranks.is_first()
    if first:
        sweep(run.path(), run.model(), run.checkpoint())
        _note(run, "began")
    began = time.monotonic()

    def done(state: str, result: dict[str, Any], seconds: float) -> Record | None:
        if not first:
            return None
        if "model" in result:  # first, so that a run which counts as recorded has its model too
            save_model(run.model(), result["model"])
        processes = {"processes": ranks.count()} if ranks.count() > 1 else {}
        record = write(run, state, result, provenance(run, where, seconds) | processes)
        _note(run, state)
        return record

    result = None
    try:
        result = run.module.compute(
            run, where, run.checkpoint(), on_epoch=_tick, stop=lambda: _stopping.is_set() or time.time() >= until
        )
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


def _tick(epoch: int) -> None:
    if _ticks is not None:
        _ticks.put(1)


def stop(*_: object) -> None:
    """Ask the run in this process to save its checkpoint and end. Also the handler of SIGTERM."""
    _stopping.set()


def keep_memory() -> None:
    """Let this process keep the memory that it frees, where the C library is glibc: a step asks for the same tensors again.

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
