"""Many runs (:mod:`lab.runs.worker` is one): one process a core on a CPU, each single-threaded, hence the same figures
beside others as alone, and the same on two cores as on sixty-four; one at a time on a GPU unless asked otherwise. What
is recorded is not computed again. Under ``torchrun`` all processes compute one run together; on many machines
:mod:`lab.runs.cluster` does."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tqdm import tqdm

from lab.training import Stopped, pick_device
from lab.training import distributed as ranks
from lab.utils.errors import LabError
from lab.utils.files import Busy, DiskFull, variable

from . import SETTLED, Record, Run, Unavailable, declaration, find
from .registry import EXPERIMENTS
from .worker import LARGE_PAGES, OutOfMemory, compute, compute_locked, holding, keep_memory, start, stop


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
    cluster: Path | None = None,
) -> dict[str, Record]:
    """Work down ``runs`` in their order and return the records there are then, by id, diverged ones among them.

    Arguments are those of :func:`execute`, and

    Args:
        budget: seconds after which every unfinished run saves a checkpoint and the call returns. SIGTERM does the same
            at once. The next call goes on from there.
        cluster: a file that says which machines compute (:mod:`lab.runs.cluster`); ``workers`` is its business then.
    """
    cpu = torch.device(device).type == "cpu" if cluster else pick_device(device).type == "cpu"
    if workers is not None and workers < 1:
        raise LabError(f"workers must be at least 1, not {workers}: leave it out for one a core, or one on a GPU")
    if budget is not None and budget < LEAST_BUDGET:
        raise LabError(
            f"a budget of {budget:g} s ends before any progress: give {LEAST_BUDGET:g} s or more, such as 9m"
        )
    if cluster and ranks.started_by_torchrun():
        raise LabError("torchrun and --cluster exclude each other: start the recorder without torchrun")
    looked_up = [(run, find(run, SETTLED)) for run in runs]
    missing = list({run.id: run for run, record in looked_up if record is None}.values())
    records = {run.id: record for run, record in looked_up if record is not None}
    for run in missing:  # one that is recorded, and wanted a second time with its network
        records.pop(run.id, None)
    end = min(math.inf if budget is None else time.monotonic() + budget, _until()) - TO_SAVE
    if ranks.started_by_torchrun():
        return _jointly(runs, device, progress, end)
    if missing:
        for run in missing:
            run.module.check(run)  # what the user can mend is said before any process starts
        with _told_to_stop() as asked, _bar(missing, progress) as bar:
            if cluster:
                from .cluster import Machines

                pool: Any = Machines(cluster, device, end)
            else:
                workers = workers or (available_cores() if cpu else AT_ONCE_ON_A_GPU)
                pool = Processes(device, min(workers, len(missing)), end)
            records |= _dispatch(missing, pool, end, asked, bar)
    _sweep_trunks(runs)
    return records


def experiments(chapter: int | None = None, names: Sequence[str] | None = None) -> list[str]:
    """Declared experiments: ``names`` if given, else all, and of these the ones of ``chapter``.

    An experiment's module states its ``chapter``. Of all, those whose packages are not installed are left out,
    with a warning for each package: a rented machine need not have every package of the book.
    """
    modules, lacking = {}, dict[str, list[str]]()
    for name in names or sorted(EXPERIMENTS):
        try:
            modules[name] = declaration(name)
        except Unavailable as e:
            if names:
                raise
            lacking.setdefault(e.package, []).append(name)
    for package, left_out in lacking.items():
        warnings.warn(f"{package} is not installed: {', '.join(left_out)} left out", stacklevel=2)
    chapters = {
        name: getattr(module, "chapter", getattr(module, "CHAPTER", None))
        for name, module in modules.items()
        if hasattr(module, "runs")
    }
    of_chapter = [name for name, its in chapters.items() if chapter is None or its == chapter]
    if not of_chapter:
        stated = sorted({its for its in chapters.values() if its is not None})
        raise LabError(f"no experiment of chapter {chapter} is declared: choose one of {', '.join(map(str, stated))}")
    return of_chapter


def declared(names: Sequence[str], profile: str) -> list[Run]:
    """All runs of these experiments, the most valuable first.

    Each experiment orders its own. One that says ``first = True`` comes before the others; between these, what ends at
    the same share of two lists is worth the same, so that a list of few long runs does not begin before one of many
    short ones.
    """
    placed = []
    for name in names:
        module = declaration(name)
        runs = module.runs(profile)
        late = not getattr(module, "first", getattr(module, "FIRST", False))
        placed += [((late, (place + 1) / len(runs)), run) for place, run in enumerate(runs)]
    return [run for _, run in sorted(placed, key=lambda pair: pair[0])]


def _until() -> float:
    """``LAB_UNTIL``, by which a notebook's kernel is told when to stop: a second of this machine's monotonic clock."""
    text = variable("LAB_UNTIL")
    with suppress(ValueError):
        until = float(text or "inf")
        if until < 1e9 or text is None:  # no machine is up for 30 years: that was a second since 1970
            return until
    raise LabError(
        f"LAB_UNTIL is {text!r}, no second of this machine's clock: set it to what "
        '`python -c "import time; print(time.monotonic() + 540)"` prints, for 540 seconds from now'
    )


LEAST_BUDGET, TO_SAVE = 30.0, 8.0
"""Seconds: what a worker needs to start and reach a checkpoint, and what saving one may take at the end."""

AT_ONCE_ON_A_GPU = 1
"""Runs side by side on one GPU, unless ``--workers`` says otherwise; ``benchmarks/engine.py`` measures what a device
gains."""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, where signals reach us."""
    asked = threading.Event()
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set()) if in_main else None
    try:
        yield asked
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _bar(runs: Sequence[Run], progress: bool) -> Iterator[tqdm]:
    epochs = sum(run.module.epochs(run) for run in runs)
    with tqdm(total=epochs, unit="epoch", disable=not progress, file=sys.stderr, desc=f"{len(runs)} runs") as bar:
        yield bar


class Processes:
    """Single-threaded processes on this machine, as what :func:`_dispatch` hands runs to."""

    def __init__(self, device: str, workers: int, end: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.device, self.slots, self.end = device, workers, end
        self.ticks = context.SimpleQueue()
        self.pool = ProcessPoolExecutor(workers, context, start, (self.ticks, 1))

    def submit(self, run: Run) -> Future[Record]:
        with mock.patch.dict(os.environ, LARGE_PAGES):  # a process starts when the first run is handed over
            return self.pool.submit(compute, run, self.device, self.end)

    def finished_epochs(self) -> int:
        """Since the last call."""
        count = 0
        while not self.ticks.empty():
            count += self.ticks.get()
        return count

    def retries(self, error: BaseException) -> bool:
        """Whether what happened to a worker may be tried again."""
        if isinstance(error, BrokenProcessPool):
            raise LabError("a worker was killed: run the same command again, every run goes on from its checkpoint")
        return False

    def shutdown(self) -> None:
        for process in (getattr(self.pool, "_processes", None) or {}).values():
            process.terminate()  # SIGTERM: a run that is still going saves its checkpoint first
        self.pool.shutdown(wait=True, cancel_futures=True)


PAUSE = 2.0
"""Seconds after which a run that someone else computed is asked for again."""


def _dispatch(runs: list[Run], pool: Any, end: float, asked: threading.Event, bar: tqdm) -> dict[str, Record]:
    """Hand ``runs`` to the pool in their order, at most ``pool.slots`` at once, until all are done or it is time.

    Raises:
        LabError: a run failed; the others were computed first, unless the disk is full.
    """
    waiting, later = deque(runs), list[tuple[float, Run]]()  # what others are at comes again later
    going: dict[Future[Record], Run] = {}
    most_at_once: dict[Future[Record], int] = {}  # the most runs that were going during its time
    records: dict[str, Record] = {}
    failed: list[LabError] = []
    try:
        while (waiting or later or going) and time.monotonic() < end and not asked.is_set():
            due = [run for at, run in later if at <= time.monotonic()]
            later = [(at, run) for at, run in later if run not in due]
            waiting.extend(due)
            while waiting and len(going) < pool.slots:
                run = waiting.popleft()
                going[pool.submit(run)] = run
                most_at_once = {future: max(most_at_once.get(future, 0), len(going)) for future in going}
            done = wait(going, timeout=0.2, return_when=FIRST_COMPLETED)[0] if going else set()
            if not going:
                time.sleep(0.2)
            bar.update(pool.finished_epochs())
            for future in done:
                run, crowd = going.pop(future), most_at_once[future]
                try:
                    records[run.id] = future.result()
                except Busy:
                    later.append((time.monotonic() + PAUSE, run))
                except OutOfMemory as e:
                    if crowd == 1:
                        raise LabError(
                            f"{e} alone does not fit into the device's memory: "
                            "take a device with more, or lower its batch_size"
                        ) from None
                    pool.slots = min(pool.slots, crowd - 1)
                    bar.write(f"the device's memory is full: from now on {pool.slots} at once", file=sys.stderr)
                    waiting.appendleft(run)
                except (Stopped, DiskFull):
                    raise
                except LabError as e:  # what one run needs, the others may not
                    failed.append(e)
                    if waiting or later or going:
                        bar.write(f"{run.label()} failed, the others go on: {e}", file=sys.stderr)
                except Exception as e:
                    if not pool.retries(e):
                        raise
                    waiting.appendleft(run)
    except Stopped:  # a worker was asked to stop, by someone else: so do the others
        pass
    finally:
        pool.shutdown()
    if failed:
        raise failed[0] if len(failed) == 1 else LabError(f"{len(failed)} runs failed, the first because {failed[0]}")
    return records


def _jointly(runs: Sequence[Run], device: str, progress: bool, end: float) -> dict[str, Record]:
    """One run after the other, each by all processes of ``torchrun``. The first of them locks, writes and speaks."""
    records: dict[str, Record] = {}
    torch.set_num_threads(1)
    keep_memory()
    with ranks.together(device) as own, _told_to_stop() as asked:
        where = pick_device(own)
        threading.Thread(target=lambda: asked.wait() and stop(), daemon=True).start()
        for run in runs:
            if ranks.agree(asked.is_set() or time.monotonic() >= end)[0]:
                break
            run.module.check(run)
            with ExitStack() as stack:
                said: Record | str = ""
                if ranks.is_first():
                    try:
                        stack.enter_context(holding(run))
                        said = find(run, SETTLED) or "compute"
                        if progress and said == "compute":
                            print(f"{run.label()}: {ranks.count()} processes", file=sys.stderr)
                    except Busy:
                        said = "busy"
                said = ranks.from_first(said)
                if said == "busy":
                    continue
                if said == "compute":
                    try:
                        said = compute_locked(run, where, end)
                        run.checkpoint().unlink(missing_ok=True)
                    except Stopped:
                        break
                records[run.id] = said
    return records


def _sweep_trunks(runs: Sequence[Run]) -> None:
    """Delete each search that several runs started from, once no declared run is left that would."""
    for experiment, profile in {(run.experiment, run.profile) for run in runs}:
        module = declaration(experiment)
        trunk = getattr(module, "trunk", lambda run: None)
        starting: dict[Path, list[Run]] = {}
        for run in module.runs(profile) if hasattr(module, "runs") else ():
            if (shared := trunk(run)) is not None and shared[1].exists():
                starting.setdefault(shared[1], []).append(run)
        for path, sharers in starting.items():
            if all(find(run, SETTLED) for run in sharers):
                path.unlink(missing_ok=True)
