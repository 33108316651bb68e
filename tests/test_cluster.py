"""Two of Parsl's workers on this machine: one is killed, then the driver; no run is lost, no record made twice, no
process left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_run import few_images

from lab.experiments.sparsity import pruning
from lab.runs import cluster, runner
from lab.utils.errors import LabError

pytest.importorskip("parsl", reason="Parsl is not installed: pip install '.[cluster]'")

SITE = """
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

config = Config(strategy="none", executors=[HighThroughputExecutor(
    address="127.0.0.1", max_workers_per_node=2, cores_per_worker=0.5, poll_period=50,
    heartbeat_period=1, heartbeat_threshold=4, provider=LocalProvider(init_blocks=1, max_blocks=1),
)])
"""


@pytest.fixture
def place(tmp_path):
    few_images(tmp_path / "data")
    (tmp_path / "site.py").write_text(SITE)
    return tmp_path


def environment(place, which=""):
    folders = {"LAB_DATA": place / "data", "LAB_BUILD": place / f"build{which}", "LAB_RUNS": place / "runs"}
    return os.environ | {name: str(folder) for name, folder in folders.items()} | {"OMP_NUM_THREADS": "1"}


def record(place, ids, *words, which=""):
    """``python -m lab record`` of these runs."""
    chosen = [word for id in ids for word in ("--run", id)]
    command = [sys.executable, "-m", "lab", "record", "--experiment", "pruning", "--profile", "quick", *chosen, *words]
    with open(place / "said", "w") as said:  # no pipe: what a killed driver leaves behind would keep it open
        return subprocess.Popen(
            command, env=environment(place, which), cwd=place, stdout=said, stderr=subprocess.STDOUT
        )


PATIENCE = 900  # seconds, for what ends in ten on a machine that has nothing else to do


def until(look, driver, place):
    """What ``found`` finds within this time, while the driver is at work."""
    end = time.monotonic() + PATIENCE
    while not (it := look()):
        assert driver.poll() is None, (place / "said").read_text()
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)
    return it


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_driver_lose_nothing_and_repeat_nothing(place, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(place / "data"))
    wanted = [run for run in pruning.runs("quick") if run.config["method"]["name"] == "gmp"][:4]
    ids = [run.id for run in wanted]
    folder = place / "build/checkpoints"

    def at_work():
        lines = [path.read_text().splitlines()[-1].split(maxsplit=3) for path in folder.glob("*.journal")]
        return [int(pid) for _, _, pid, what in lines if what == "began"]

    def recorded():
        return {path.stem: path for path in place.glob("build/runs/quick/*/pruning/*.json")}

    driver = record(place, ids, "--cluster", "site.py")
    try:
        os.kill(until(at_work, driver, place)[0], signal.SIGKILL)
        until(recorded, driver, place)
        left_behind = psutil.Process(driver.pid).children(recursive=True)
    finally:
        driver.kill()
        driver.wait()
    assert left_behind
    _, alive = psutil.wait_procs(left_behind, timeout=PATIENCE)
    for process in alive:
        process.kill()
    assert not alive, "Parsl's processes outlive their driver"
    early = {id: path.stat().st_mtime_ns for id, path in recorded().items()}
    assert early

    driver = record(place, ids, "--cluster", "site.py")
    status, said = driver.wait(PATIENCE), (place / "said").read_text()
    assert status == 0, said
    records = recorded()
    assert set(records) == set(ids)
    assert all(records[id].stat().st_mtime_ns == at for id, at in early.items())
    journals = [path.read_text().split("\n") for path in folder.glob("*.journal")]
    ends = [[line.split()[-1] for line in lines if line] for lines in journals]
    assert sorted(line.count("finished") for line in ends) == [1, 1, 1, 1]
    assert sum(line.count("began") for line in ends) >= 5  # the killed worker's was begun again
    assert not list(folder.glob("*.pt"))

    again = record(place, ids[:1], which="-alone")
    assert again.wait(PATIENCE) == 0
    (alone,) = place.glob("build-alone/runs/quick/*/pruning/*.json")
    one, other = (json.loads(path.read_text()) for path in (alone, records[ids[0]]))
    assert (one["figures"], one["curve"]) == (other["figures"], other["curve"])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, r"site.py is not there: write the file that defines"),
        ("config = 3", r"site.py defines no `config` that is a parsl.Config"),
        ("import nowhere", r"site.py fails with ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_a_site_that_is_none_is_one_line(tmp_path, content, error):
    path = tmp_path / "site.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LabError, match=error):
        cluster.site(path)


def test_without_parsl_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "parsl.config", None)
    with pytest.raises(LabError, match=r"--cluster needs Parsl: pip install '.\[cluster\]'"):
        cluster.site(tmp_path / "site.py")


def test_torchrun_and_a_cluster_exclude_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LabError, match="torchrun and --cluster exclude each other"):
        runner.work([], cluster=Path("site.py"))
