"""Many machines: the same runs, handed out by Parsl to whatever its providers reach (Slurm, PBS, Kubernetes, a cloud,
or this machine). ``pip install .[cluster]``, then ``python -m lab record --cluster site.py``; the file sets ``config``:

    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import SlurmProvider

    config = Config(executors=[HighThroughputExecutor(
        available_accelerators=4,  # four GPUs a node, one worker pinned to each
        provider=SlurmProvider(nodes_per_block=1, max_blocks=8, walltime="02:00:00",
                               worker_init="source /shared/book/.venv/bin/activate"),
    )])

All machines see the checkout's folder. Parsl gives a run to one worker, and a lock keeps other drivers of the machine
away from it; what a killed worker or driver leaves is a checkpoint that the next attempt goes on from.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import Record, Run

RETRIES = 3
"""How often a run is handed out again after its worker vanished."""

SAVING = 8.0
"""Seconds that workers are given to save their checkpoints at the end of a budget."""

WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"
"""Python that becomes a command which gets SIGTERM (15) when its parent ends, however that ends: PR_SET_PDEATHSIG (1)
of Linux."""


def remotely(run: Run, device: str, deadline: float, environment: dict[str, str]) -> Record:
    """What a worker does: :func:`lab.runs.worker.compute`, with the driver's folders, single-threaded.

    ``deadline`` is a moment of ``time.time()``, the one clock that machines share; from here on the worker's own clock
    counts.
    """
    os.environ.update(environment)  # before lab.files is imported: it reads them once
    until = time.monotonic() + deadline - time.time()

    import torch

    from lab.utils.errors import LabError

    from . import worker

    worker.keep_memory()
    torch.set_num_threads(1)
    try:
        return worker.compute(run, device, until)
    except worker.OutOfMemory as e:
        raise LabError(
            f"{e} does not fit into the memory of the device that it shares: fewer workers a device in the site's file"
        ) from None


def site(path: Path) -> Any:
    """The ``config`` that the file defines, a ``parsl.Config``."""
    from lab.utils.errors import LabError

    try:
        from parsl.config import Config
    except ImportError:
        raise LabError("--cluster needs Parsl: pip install '.[cluster]'") from None
    if not path.is_file():
        raise LabError(f"{path} is not there: write the file that defines Parsl's `config` (see docs/recording.md)")
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as e:
        raise LabError(f"{path} fails with {type(e).__name__}: {e}") from e
    if not isinstance(config, Config):
        raise LabError(f"{path} defines no `config` that is a parsl.Config (see docs/recording.md)")
    return config


class Machines:
    """Parsl's workers, as what :func:`lab.runs.runner.work` hands runs to.

    Args:
        path: the file that defines Parsl's configuration.
        device: of each worker: ``"cpu"`` or ``"cuda"``.
        end: when runs save a checkpoint and stop, as ``time.monotonic()`` tells it here.
    """

    slots = 10**6  # Parsl queues what its workers cannot take yet

    def __init__(self, path: Path, device: str, end: float) -> None:
        from lab.utils.files import FOLDERS, begin_build, folder, variable

        build, config = begin_build(), site(path)
        if config.run_dir == "runinfo":  # Parsl's default: a folder where one happens to stand
            config.run_dir = str(build / "parsl")

        import parsl  # there, or site() would have said so

        # Parsl starts its helpers by their names, which lie beside the interpreter, activated or not
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

        for executor in config.executors:  # its helper hands out the runs; without it the workers end as well
            if hasattr(executor, "interchange_launch_cmd"):
                executor.interchange_launch_cmd = [sys.executable, "-c", WITH_PARENT, *executor.interchange_launch_cmd]

        self.kernel, self.device, self.end = parsl.DataFlowKernel(config), device, end
        self.app = parsl.python_app(remotely, data_flow_kernel=self.kernel)
        self.environment = {name: str(folder(name)) for name in FOLDERS}
        self.environment |= {"LAB_BUILD": str(build), "LAB_QUICK": variable("LAB_QUICK") or ""}
        self.lost, self.finished, self.going = 0, 0, list[Future[Any]]()

    def submit(self, run: Run) -> Future[Record]:
        def done(future: Future[Record]) -> None:
            if future.exception() is None:
                self.finished += run.module.epochs(run)

        deadline = time.time() + self.end - time.monotonic()
        future: Future[Record] = self.app(run, self.device, deadline, self.environment)
        future.add_done_callback(done)
        self.going.append(future)
        return future

    def finished_epochs(self) -> int:
        """Since the last call: of whole runs, for a worker elsewhere says nothing in between."""
        count, self.finished = self.finished, 0
        return count

    def retries(self, error: BaseException) -> bool:
        """Whether it was a worker's end, and there have not been too many."""
        from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

        self.lost += 1
        return isinstance(error, WorkerLost | ManagerLost) and self.lost <= RETRIES

    def shutdown(self) -> None:
        if time.monotonic() >= self.end:  # workers save a checkpoint now; else the last, of seconds ago, is as good
            wait(self.going, timeout=SAVING)
        self.kernel.cleanup()
