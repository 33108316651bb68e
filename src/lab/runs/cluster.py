"""Many machines: the same runs, handed out by Parsl to whatever its providers reach (Slurm, PBS, Kubernetes, a cloud, or
this machine). ``pip install .[cluster]``, then ``python -m lab record --cluster site.py``; the file sets ``config``:

    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import SlurmProvider

    config = Config(executors=[HighThroughputExecutor(
        available_accelerators=4,  # four GPUs a node, one worker pinned to each
        provider=SlurmProvider(nodes_per_block=1, max_blocks=8, walltime="02:00:00",
                               worker_init="source /shared/book/.venv/bin/activate"),
    )])

All machines see the checkout's folder. A run is leased (:mod:`lab.runs.leases`), so several drivers, or workers that outlived
theirs, never compute it at once; what a killed worker or driver leaves is a checkpoint that the next attempt goes on from.
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

FOLDERS = ("LAB_BUILD", "LAB_RUNS", "LAB_DATA")


def remotely(run: Run, device: str, until: float, folders: dict[str, str]) -> Record:
    """What a worker does: :func:`lab.runs.worker.compute`, with the driver's folders, single-threaded."""
    os.environ.update(folders)  # before lab.files is imported: it reads them once

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
        end: when runs save a checkpoint and stop, as ``time.time()`` tells it.
    """

    slots = 10**6  # Parsl queues what its workers cannot take yet

    def __init__(self, path: Path, device: str, end: float) -> None:
        from lab.utils.files import BUILD

        from . import recorded_runs

        config = site(path)
        if config.run_dir == "runinfo":  # Parsl's default: a folder where one happens to stand
            config.run_dir = str(BUILD / "parsl")

        import parsl  # there, or site() would have said so

        # Parsl starts its helpers by their names, which lie beside the interpreter, activated or not
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

        self.kernel, self.device, self.end = parsl.DataFlowKernel(config), device, end
        self.app = parsl.python_app(remotely, data_flow_kernel=self.kernel)
        self.folders = {"LAB_BUILD": str(BUILD.resolve()), "LAB_RUNS": str(recorded_runs().resolve())}
        self.folders |= {name: os.path.abspath(value) for name in FOLDERS if (value := os.environ.get(name))}
        self.folders |= {"LAB_QUICK": os.environ.get("LAB_QUICK", "")}  # no folder, and a worker's to know as well
        self.lost, self.finished, self.going = 0, 0, list[Future[Any]]()

    def submit(self, run: Run) -> Future[Record]:
        def done(future: Future[Record]) -> None:
            if future.exception() is None:
                self.finished += run.module.epochs(run)

        future: Future[Record] = self.app(run, self.device, self.end, self.folders)
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
        if (
            time.time() >= self.end
        ):  # every worker saves a checkpoint now; otherwise the last one, of seconds ago, is as good
            wait(self.going, timeout=SAVING)
        self.kernel.cleanup()
