"""How runs are handed out: chapters and their order, a full device, several recorders, many processes for one run,
kills."""

import importlib.metadata
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_run import few_images, finish, made_up, start, tiny

from lab import runs, training
from lab.experiments import base
from lab.experiments.sparsity import pruning
from lab.models import ResNet
from lab.models.registry import NETWORKS
from lab.runs import runner, worker
from lab.runs.worker import OutOfMemory
from lab.training import Stopped
from lab.utils import files
from lab.utils.errors import LabError
from lab.utils.files import ROOT, Busy, DiskFull


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Records and everything built go to a folder of the test."""
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    return tmp_path


# -- what is declared -------------------------------------------------------------------------------------------------


def test_a_chapter_is_what_its_experiments_say():
    assert {"pruning"} <= set(runner.experiments(4))
    assert all(runs.declaration(name).chapter == 4 for name in runner.experiments(4))
    assert set(runner.experiments(4)) < set(runner.experiments())
    assert runner.experiments(names=["pruning"]) == ["pruning"]
    with pytest.raises(LabError, match=r"no experiment of chapter 9 is declared: choose one of 3, 4, 5"):
        runner.experiments(9)


WITHOUT = "import runpy, sys; sys.modules |= dict.fromkeys(sys.argv[1].split()); del sys.argv[:2]; "
"""The rest of a command line's Python, where some packages are not installed: their names, with spaces between."""
LAB = "from lab.__main__ import main; sys.exit(main(sys.argv))"
ENGINE = "sys.path.insert(0, 'benchmarks'); runpy.run_path(sys.argv[0], run_name='__main__')"


def without(packages, command, *words):
    """``command``, a line of Python, as a process that finds none of ``packages``."""
    line = [sys.executable, "-c", WITHOUT + command, " ".join(packages), *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_package_that_is_not_installed_leaves_out_the_experiments_that_need_it():
    listed = without(["constriction"], LAB, "record", "--profile", "paper", "--list")
    assert "constriction is not installed: activations, combining, generation," in listed.stderr
    names, *lines = listed.stdout.splitlines()
    assert {line.split()[2] for line in lines} == set(re.search("^(.+), profile", names)[1].split(", "))
    assert any("pruning cs" in line for line in lines)
    asked_for = without(["constriction"], LAB, "record", "--experiment", "precision")
    assert asked_for.stderr == "error: experiment precision needs constriction: pip install -r requirements.txt\n"


def test_the_recording_page_names_every_package_that_its_first_commands_need():
    """All others of this environment are hidden from the recorder of Chapter 4 and from the engine's check."""
    said = re.search(r"needs PyTorch 2.11 or newer,(.+?);", (ROOT / "docs/recording.md").read_text(), re.DOTALL)[1]
    todo, there = ["torch", *re.findall(r"[a-z]+", said.replace(" and ", " "))], set()
    while todo:  # with what these need themselves
        there.add(name := canonicalize_name(todo.pop()))
        needs = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        needs = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        todo += {canonicalize_name(need.name) for need in needs} - there
    hidden = [
        top
        for top, owners in importlib.metadata.packages_distributions().items()
        if top not in ("lab", "principled", *sys.stdlib_module_names)
        and not there & set(map(canonicalize_name, owners))
    ]
    assert {"papermill", "optuna", "torchvision"} <= set(hidden)
    listed = without(hidden, LAB, "record", "--experiment", "pruning", "--profile", "paper", "--list")
    assert (listed.returncode, listed.stderr) == (0, "")
    engine = without(hidden, ENGINE, "benchmarks/engine.py", "--help")
    assert (engine.returncode, engine.stderr) == (0, "")
    recheck = without(hidden, "import lab.runs.recheck")
    assert (recheck.returncode, recheck.stderr) == (0, "")


# -- handing out ------------------------------------------------------------------------------------------------------


class Device:
    """A pool whose memory takes ``room`` runs at once; a run beside too many finds it full, as on a GPU.

    All that were begun end when the dispatcher asks how far they are: no thread, no clock.
    """

    def __init__(self, slots, room, faults=None):
        self.slots, self.room, self.faults = slots, room, faults or {}
        self.order, self.going, self.closed = [], [], False

    def submit(self, run):
        future = Future()
        self.going.append((run, future, len(self.going) >= self.room))
        return future

    def finished_epochs(self):
        for run, future, full in self.going:
            if full:
                future.set_exception(OutOfMemory(run.label()))
            elif self.faults.get(run.id):
                future.set_exception(self.faults[run.id].pop(0))
            else:
                self.order.append(run.id)
                future.set_result({"id": run.id})
        self.going = []
        return 0

    def retries(self, error):
        return isinstance(error, ConnectionError)

    def shutdown(self):
        self.closed = True


def dispatch(wanted, device, seconds=600):
    with runner._bar(wanted, False) as bar:
        return runner._dispatch(wanted, device, time.monotonic() + seconds, threading.Event(), bar)


WANTED = [tiny(seed=seed) for seed in range(6)]


def test_a_full_device_computes_fewer_at_once_says_so_and_loses_none(capsys):
    device = Device(slots=4, room=2)
    assert set(dispatch(WANTED, device)) == {run.id for run in WANTED}
    assert sorted(device.order) == sorted(run.id for run in WANTED)
    assert 1 <= device.slots <= 3
    assert f"the device's memory is full: from now on {device.slots} at once" in capsys.readouterr().err
    assert device.closed


def test_a_run_that_does_not_fit_alone_is_one_line():
    device = Device(slots=2, room=0)
    with pytest.raises(
        LabError, match=r"cs s_init=-0.02 seed=\d alone does not fit into the device's memory: take a dev"
    ):
        dispatch(WANTED[:2], device)
    assert device.closed


def test_what_another_recorder_is_at_comes_again_after_the_rest(monkeypatch):
    monkeypatch.setattr(runner, "PAUSE", 0.0)
    device = Device(1, 9, {WANTED[0].id: [Busy(), Busy()]})
    assert len(dispatch(WANTED[:3], device)) == 3
    assert device.order == [run.id for run in (WANTED[1], WANTED[2], WANTED[0])]


def test_a_worker_that_vanished_has_its_run_done_by_another():
    device = Device(1, 9, {WANTED[1].id: [ConnectionError()]})
    assert len(dispatch(WANTED[:3], device)) == 3
    assert device.order == [run.id for run in WANTED[:3]]


def test_any_other_error_ends_it_with_the_pool_closed():
    device = Device(1, 9, {WANTED[1].id: [ZeroDivisionError()]})
    with pytest.raises(ZeroDivisionError):
        dispatch(WANTED[:3], device)
    assert device.closed


@pytest.mark.parametrize("errors", [1, 2])
def test_a_run_that_fails_is_named_and_the_others_go_on(errors, capsys):
    faults = {run.id: [LabError(f"{run.seed} lacks its data")] for run in WANTED[:errors]}
    device = Device(1, 9, faults)
    with pytest.raises(
        LabError, match="^0 lacks its data$" if errors == 1 else "^2 runs failed, the first because 0 lacks"
    ):
        dispatch(WANTED[:4], device)
    assert device.order == [run.id for run in WANTED[errors:4]]
    said = [line for line in capsys.readouterr().err.splitlines() if "seed=" in line]
    assert said == [f"cs s_init=-0.02 seed={i} failed, the others go on: {i} lacks its data" for i in range(errors)]


def test_a_full_disk_ends_it_for_every_run():
    device = Device(1, 9, {WANTED[0].id: [DiskFull("the disk is full")]})
    with pytest.raises(DiskFull):
        dispatch(WANTED[:3], device)
    assert device.order == []


def test_it_is_over_when_it_is_time():
    device = Device(1, 9, {run.id: [Busy()] * 99 for run in WANTED})
    assert dispatch(WANTED, device, seconds=0.5) == {}


def test_out_of_memory_within_a_step_leaves_the_run_to_a_later_attempt(place, monkeypatch):
    run = tiny("dense")
    monkeypatch.setattr(base, "load", made_up)
    monkeypatch.setitem(NETWORKS, "resnet20", partial(ResNet, 1))
    loss, calls = training.Classification.loss, []

    def full(*words):
        calls.append(1)
        if len(calls) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return loss(*words)

    monkeypatch.setattr(training.Classification, "loss", full)
    with pytest.raises(OutOfMemory, match="dense seed=0"):
        worker.compute(run)
    assert runs.find(run, runs.SETTLED) is None
    assert worker.compute(run)["state"] == "finished"
    assert [line.split()[-1] for line in worker.journal(run).read_text().splitlines()] == [
        "began", "memory", "began", "finished",
    ]  # fmt: skip


def test_a_run_whose_time_is_over_leaves_a_checkpoint(place, monkeypatch):
    monkeypatch.setattr(base, "load", made_up)
    monkeypatch.setitem(NETWORKS, "resnet20", partial(ResNet, 1))
    clock = itertools.count().__next__  # a second a look
    monkeypatch.setattr(worker, "time", SimpleNamespace(time=clock, monotonic=clock))
    with pytest.raises(Stopped):
        worker.compute(tiny("dense"), until=5.0)
    assert files.load_tensors(tiny("dense").checkpoint())["identity"] == tiny("dense").id
    assert runs.find(tiny("dense"), runs.SETTLED) is None


def test_a_run_is_not_begun_when_it_is_time(place):
    with pytest.raises(Stopped):
        worker.compute(tiny(), until=time.monotonic() - 1)
    assert not (place / "build").exists()


def test_a_notebook_is_told_when_to_stop_and_says_so(place, monkeypatch):
    monkeypatch.setenv("LAB_UNTIL", str(time.monotonic()))
    with pytest.raises(LabError, match=r"stopped before cs s_init=-0.02 seed=0 was done: run the same command again"):
        runner.execute([tiny()], progress=False)
    assert not (place / "runs").exists()


def test_two_recorders_never_compute_a_run_at_once(place):
    with worker.holding(tiny()), pytest.raises(Busy):
        worker.compute(tiny())


def test_a_trunk_goes_when_the_last_run_that_starts_from_it_is_recorded(place, monkeypatch):
    wanted = [run for run in pruning.runs("quick") if run.config["method"]["name"] in ("dense", "mp") and run.seed == 0]
    monkeypatch.setattr(pruning.experiment, "runs", lambda profile: wanted)
    _, path = pruning.experiment.trunk(wanted[0])
    path.parent.mkdir(parents=True)
    path.write_text("")
    recorded = set()
    monkeypatch.setattr(runner, "find", lambda run, states: {"state": "finished"} if run.id in recorded else None)
    recorded |= {run.id for run in wanted[1:]}
    runner._sweep_trunks(wanted[1:])
    assert path.exists()
    recorded.add(wanted[0].id)
    runner._sweep_trunks(wanted[:1])
    assert not path.exists()


# -- the whole command ------------------------------------------------------------------------------------------------


def record(place, ids, *before, **options):
    """``python -m lab record`` of quick pruning runs on a few images; ``before`` replaces the interpreter's call."""
    chosen = [word for id in ids for word in ("--run", id)]
    folders = {"LAB_DATA": place / "data", "LAB_BUILD": place / "build", "LAB_RUNS": place / "runs"}
    return subprocess.Popen(
        [*(before or (sys.executable, "-m")), "lab", "record", "--experiment", "pruning", "--profile", "quick",
        *chosen],
        env=os.environ | {name: str(folder) for name, folder in folders.items()} | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_record_one_run(place, monkeypatch):
    few_images(place / "data")
    monkeypatch.setenv("LAB_DATA", str(place / "data"))
    wanted = next(run for run in pruning.runs("quick") if run.config["method"]["name"] == "dense")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "--")
    process = record(place, [wanted.id], *torchrun)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert said.count("recorded 1 runs under") == 1  # one of the processes speaks
    (path,) = place.glob("build/runs/quick/*/pruning/*.json")
    kept = json.loads(path.read_text())
    assert (kept["id"], kept["state"], kept["provenance"]["processes"]) == (wanted.id, "finished", 2)
    assert not [
        p for p in (place / "build/checkpoints").iterdir() if p.name.startswith(wanted.id) and p.suffix == ".pt"
    ]


def test_ten_kills_at_random_moments_lose_nothing(tmp_path_factory, place):
    moments, run = random.Random(10), tiny("cs")
    alone = tmp_path_factory.mktemp("alone")
    assert finish(start(alone, run, every=1e9)) == 0
    killed = 0
    for _ in range(100):
        process = start(place, run, every=0.02)
        time.sleep(moments.uniform(0.02, 0.5))
        process.kill()
        killed += finish(process) == -signal.SIGKILL
        if killed == 10:
            break
        if runs.find(run):  # the last one was too late: begin anew, and keep counting
            run.path().unlink()
    assert killed == 10
    assert finish(start(place, run)) == 0
    one, other = (json.loads((root / f"runs/pruning/{run.id}.json").read_text()) for root in (alone, place))
    del one["provenance"], other["provenance"]
    assert one == other
    models = [(root / f"build/models/{run.id}.safetensors").read_bytes() for root in (alone, place)]
    assert models[0] == models[1]
