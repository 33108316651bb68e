"""Computing runs: one process a core on a CPU (each run single-threaded, hence the same figures beside others as alone,
and the same on two cores as on sixty-four), one at a time on a GPU. What is recorded is not computed again."""

from __future__ import annotations

import fcntl
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from .errors import LabError
from .files import save_model, speaking, sweep
from .runs import SETTLED, Record, Run, find, provenance, write
from .training import Diverged, Stopped, pick_device

_ticks: Any = None  # the queue to the parent's progress bar, in a worker
_stopping = threading.Event()


def compute(run: Run, device: str = "cpu") -> Record:
    """The run's record: found, or computed (from its checkpoint, if it has one) and written.

    An exclusive lock on the run makes sure that two recorders never compute it twice; it vanishes with its process,
    however that ends.

    Raises:
        LabError: something the user can mend.
        Stopped: :func:`stop` was called; the checkpoint is written.
    """
    where = pick_device(device)
    if _stopping.is_set():
        raise Stopped("stopped before it began")
    with _exclusively(run):
        record = find(run, SETTLED) or _compute(run, where)
        run.checkpoint().unlink(missing_ok=True)
    return record


def _compute(run: Run, where: torch.device) -> Record:
    sweep(run.path(), run.model(), run.checkpoint())
    began = time.monotonic()
    try:
        result = run.module.compute(run, where, run.checkpoint(), on_epoch=_tick, stop=_stopping.is_set)
    except Diverged as e:
        return write(run, "diverged", {"error": str(e)}, provenance(run, where, time.monotonic() - began))
    if "model" in result:  # first, so that a run which counts as recorded has its model too
        save_model(run.model(), result["model"])
    return write(run, "finished", result, provenance(run, where, result["seconds"]))


@contextmanager
def _exclusively(run: Run) -> Iterator[None]:
    path = run.checkpoint().with_suffix(".lock")
    with speaking(path, "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _tick(epoch: int) -> None:
    if _ticks is not None:
        _ticks.put(1)


def stop(*_: object) -> None:
    """Ask the run in this process to save its checkpoint and end. Also the handler of SIGTERM."""
    _stopping.set()


def _start_worker(ticks: Any, threads: int) -> None:
    global _ticks
    _ticks = ticks
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which asks the workers

    def leave_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def execute(
    runs: Sequence[Run], device: str = "cpu", workers: int | None = None, progress: bool = True
) -> list[Record]:
    """Records of all ``runs``, in their order; what is not recorded yet is computed now.

    Args:
        runs: what is wanted.
        device: ``"cpu"`` or a CUDA device.
        workers: processes side by side. Default: one a core on a CPU, one on a GPU.
        progress: show a bar that counts epochs.

    Raises:
        LabError: a device that is not there; a run that diverged or whose process was killed (started again, it goes on
            from its checkpoint).
    """
    records = work(runs, device, workers, progress)
    for run in runs:
        if run.id not in records:
            raise LabError(f"stopped before {run.label()} was done: run the same command again to go on")
        if records[run.id]["state"] != "finished":
            raise LabError(f"run {run.id} ({run.label()}) {records[run.id]['state']}: {records[run.id]['error']}")
    return [records[run.id] for run in runs]


def work(
    runs: Sequence[Run],
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = True,
    budget: float | None = None,
) -> dict[str, Record]:
    """Work down ``runs`` in their order and return the records there are then, by id, diverged ones among them.

    Arguments are those of :func:`execute`, and

    Args:
        budget: seconds after which every unfinished run saves a checkpoint and the call returns. SIGTERM does the same
            at once. The next call goes on from there.
    """
    cpu = pick_device(device).type == "cpu"
    if workers is not None and workers < 1:
        raise LabError(f"workers must be at least 1, not {workers}: leave it out for one a core, or one on a GPU")
    if budget is not None and budget < LEAST_BUDGET:
        raise LabError(
            f"a budget of {budget:g} s ends before any progress: give {LEAST_BUDGET:g} s or more, such as 9m"
        )
    records = {run.id: record for run in runs if (record := find(run, SETTLED)) is not None}
    missing = {run.id: run for run in runs if run.id not in records}
    if missing:
        for run in missing.values():
            run.module.check(run)  # what the user can mend is said before any process starts
        workers = workers or (available_cores() if cpu else 1)
        end = math.inf if budget is None else time.monotonic() + budget - TO_SAVE
        records |= _in_processes(list(missing.values()), device, min(workers, len(missing)), progress, end)
    return records


LEAST_BUDGET, TO_SAVE = 30.0, 8.0
"""Seconds: what a worker needs to start and reach a checkpoint, and what saving one may take at the end."""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _in_processes(runs: list[Run], device: str, workers: int, progress: bool, end: float) -> dict[str, Record]:
    context = multiprocessing.get_context("spawn")
    ticks = context.SimpleQueue()
    epochs = sum(run.module.epochs(run) for run in runs)
    bar = tqdm(total=epochs, unit="epoch", disable=not progress, file=sys.stderr, desc=f"{len(runs)} runs")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (ticks, 1))
    records: dict[str, Record] = {}
    terminated = threading.Event()
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.set()) if in_main else None
    try:
        waiting: dict[Future[Record], Run] = {pool.submit(compute, run, device): run for run in runs}
        while waiting and time.monotonic() < end and not terminated.is_set():
            done, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            while not ticks.empty():
                bar.update(ticks.get())
            for future in done:
                run = waiting.pop(future)
                records[run.id] = future.result()
    except BrokenProcessPool as e:
        raise LabError("a worker was killed: run the same command again, every run goes on from its checkpoint") from e
    except Stopped:  # a worker was asked to stop, by someone else: so do the others
        pass
    finally:
        for process in (getattr(pool, "_processes", None) or {}).values():
            process.terminate()  # SIGTERM: a run that is still going saves its checkpoint first
        pool.shutdown(wait=True, cancel_futures=True)
        bar.close()
        if in_main:
            signal.signal(signal.SIGTERM, before)
    return records
