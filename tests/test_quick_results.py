"""The quick results that come with the checkout: found where the source is the same, never where it is not, and
true."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from concurrent.futures import Future
from functools import partial

import pytest
from safetensors.torch import load_file
from tiny_run import made_up, tiny

from lab.experiments import base
from lab.experiments.sparsity import pruning
from lab.figures import provenance
from lab.models import ResNet
from lab.models.registry import NETWORKS
from lab.runs import intervals, runner, worker
from lab.runs import records as runs
from lab.training import accuracy

ORDER = os.environ["TEST_ORDER"]
PROVENANCE = {
    "commit": None, "dirty": None, "torch": "2", "cuda": None, "python": "3", "device": "a CPU", "precision": "float32",
    "threads": 1, "seconds": 1.0, "recorded": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr("lab.runs.records.COME_ALONG", tmp_path / "quick")
    monkeypatch.delenv("LAB_QUICK", raising=False)
    return tmp_path


def written(run, source=None, accuracy=0.5):
    made = PROVENANCE | {"source": source or runs.source_of(run.experiment)}
    return runs.write(run, "finished", {"figures": {"accuracy": accuracy}, "curve": [{"epoch": 1, "loss": 2.0}]}, made)


def test_what_was_trained_here_is_found_elsewhere(place, monkeypatch):
    first, second, *_ = pruning.runs("quick")
    here = [written(first), written(second)]
    (file,) = runs.take_along(["pruning"])
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == sorted([first.id, second.id])
    assert runs.take_along(["pruning"]) == []  # nothing changed, nothing is written
    monkeypatch.setenv("LAB_BUILD", str(place / "another machine"))
    assert [runs.find(first), runs.find(second)] == here
    assert runs.find(first, ("diverged",)) is None
    monkeypatch.setenv("LAB_QUICK", "train")
    assert runs.find(first) is None


def test_what_came_along_is_what_every_reader_gets(place, monkeypatch):
    run = pruning.runs("quick")[0]
    came = written(run, accuracy=0.4)
    (file,) = runs.take_along(["pruning"])
    here = written(run, accuracy=0.6)  # as another machine's arithmetic gives it

    def seen():
        (executed,) = runner.execute([run], progress=False)
        mark = provenance.boxes({"a-mark": [run.id]})
        assert mark == [provenance._box("a-mark", provenance.details([executed]))]
        assert runs.find(run) == runs.quick_record(run.id) == provenance.find([run.id])[run.id] == executed
        return executed

    assert seen() == came
    assert runs.take_along(["pruning"]) == []
    with monkeypatch.context() as m:
        m.setenv("LAB_QUICK", "train")
        assert seen() == here
        assert runs.take_along(["pruning"]) == [file]
    assert seen() == here


def test_what_is_not_trained_anew_stays_when_some_runs_are(place, monkeypatch):
    first, second, *_ = pruning.runs("quick")
    written(first), written(second)
    (file,) = runs.take_along(["pruning"])
    second.path().unlink()
    written(first, accuracy=0.6)
    monkeypatch.setenv("LAB_QUICK", "train")
    runs.take_along(["pruning"])
    kept = {record["id"]: record["figures"]["accuracy"] for record in map(json.loads, file.read_text().splitlines())}
    assert kept == {first.id: 0.6, second.id: 0.5}


def test_other_source_is_trained_here_and_that_counts(place, monkeypatch):
    run = pruning.runs("quick")[0]
    written(run, accuracy=0.4)
    runs.take_along(["pruning"])
    for module in ("run", "records"):
        monkeypatch.setattr(f"lab.runs.{module}.source_of", lambda experiment: "f" * 64)
    assert runs.find(run) is None
    now = written(run, accuracy=0.6)
    assert runs.find(run) == runs.quick_record(run.id) == now


def test_other_source_makes_them_stale_and_keeps_them_until_there_are_new_ones(place, monkeypatch):
    run = pruning.runs("quick")[0]
    written(run, source="0" * 64)
    (file,) = runs.take_along(["pruning"])
    monkeypatch.setenv("LAB_BUILD", str(place / "another machine"))
    assert run.id in runs.come_along("pruning")  # a mark on a page still opens it
    assert runs.find(run) is None
    assert runs.take_along(["pruning"]) == []
    assert file.exists()


def test_a_damaged_line_is_named_and_the_others_are_read(place, monkeypatch):
    first, second, *_ = pruning.runs("quick")
    written(first), written(second)
    (file,) = runs.take_along(["pruning"])
    lines = file.read_text().splitlines()
    for damage in ("{", "[]", "[" * 100_000, lines[0].replace('"finished"', '"won"')):
        file.write_text("\n".join([damage, lines[1]]) + "\n")
        runs._came_along.cache_clear()
        monkeypatch.setenv("LAB_BUILD", str(place / "another machine"))
        with pytest.warns(UserWarning, match=r"pruning.jsonl, line 1, is (damaged|not a valid record)"):
            assert list(runs.come_along("pruning")) == [json.loads(lines[1])["id"]]


def test_a_network_does_not_come_along(place, monkeypatch):
    run = pruning.runs("quick")[0]
    with_network = dataclasses.replace(run, network=True)
    assert (with_network.id, with_network) == (run.id, run)  # the same run, of which more is wanted
    record = written(run)
    assert runs.find(run) == record
    assert runs.find(with_network) is None
    run.model().parent.mkdir(parents=True)
    run.model().touch()
    assert runs.find(with_network) == record
    for module in ("run", "records"):
        monkeypatch.setattr(f"lab.runs.{module}.source_of", lambda experiment: "f" * 64)
    written(run)
    assert runs.find(run)
    assert runs.find(with_network) is None  # the network of another source is not this one's


@pytest.mark.parametrize("profile", ["quick", "short"])
def test_trained_again_for_its_network_a_run_keeps_its_record(place, monkeypatch, profile):
    monkeypatch.setenv("LAB_RUNS", str(place / "runs"))
    run = tiny("dense", profile=profile, epochs=1, finetune_epochs=0)
    record = written(run, accuracy=0.9)
    if profile == "quick":
        monkeypatch.setattr(pruning.experiment, "runs", lambda profile: [run])
        runs.take_along(["pruning"])
        run.path().unlink()
    monkeypatch.setitem(NETWORKS, "resnet20", partial(ResNet, 1))
    monkeypatch.setattr(base, "load", made_up)
    monkeypatch.setattr(runner, "Processes", InThisProcess)
    with_network = dataclasses.replace(run, network=True)
    for wanted in ([with_network], [run, with_network]):
        run.model().unlink(missing_ok=True)
        assert runner.execute(wanted, progress=False) == [record] * len(wanted)
        assert runs.find(run) == runs.find(with_network) == record
    assert run.path().exists() == (profile == "short")
    net = ResNet(1)
    net.load_state_dict(load_file(run.model()))
    own = runs.figures_of(run.model())
    assert own["accuracy"] == round(accuracy(net, made_up("", "test")), 6) != record["figures"]["accuracy"]


class InThisProcess:
    """Stands in for :class:`lab.runs.runner.Processes`: one slot, no process."""

    slots = 1

    def __init__(self, *args):
        pass

    def submit(self, run):
        future = Future()
        future.set_result(worker.compute(run))
        return future

    def finished_epochs(self):
        return 0

    def shutdown(self):
        pass


def test_a_mark_opens_the_record_that_its_page_rests_on(place):
    run = pruning.runs("quick")[0]
    assert runs.quick_record(run.id) is None
    old = written(run, accuracy=0.3)
    stale = run.path().parents[2] / ("0" * 16) / run.experiment / run.path().name
    stale.parent.mkdir(parents=True)
    run.path().rename(stale)
    assert runs.quick_record(run.id) == old  # nothing else is here
    came = written(run, accuracy=0.4)
    runs.take_along(["pruning"])
    run.path().unlink()
    assert runs.quick_record(run.id) == came  # not what an earlier source left on this machine
    written(run, accuracy=0.5)
    assert runs.quick_record(run.id) == came


def sample():
    """A few cheap runs of different experiments, others in each order of the tests."""
    stated = json.loads(intervals.FILE.read_text())
    cheap = {}
    for file in sorted(runs.COME_ALONG.glob("*.jsonl")):
        for one in runs.come_along(file.stem).values():
            scored = runs.declaration(file.stem).score in one["figures"]
            if scored and one["provenance"]["seconds"] < 40 and next(iter(intervals.points([one]))) in stated:
                cheap.setdefault(file.stem, []).append(one)
    chance = random.Random(ORDER)
    return [chance.choice(cheap[name]) for name in sorted(chance.sample(sorted(cheap), min(2, len(cheap))))]


@pytest.mark.parametrize("place_in_sample", range(2))
def test_trained_again_a_result_is_what_it_was(place_in_sample, tmp_path):
    record = sample()[place_in_sample]
    wanted = ["--experiment", record["experiment"], "--profile", "quick", "--run", record["id"], "--workers", "1"]
    folders = {"LAB_BUILD": str(tmp_path / "build"), "LAB_RUNS": str(tmp_path / "runs"), "LAB_QUICK": "train"}
    done = subprocess.run(
        [sys.executable, "-m", "lab", "record", *wanted], env=os.environ | folders, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "build").glob("runs/quick/*/*/*.json")
    again = runs.read(file)
    assert again["id"] == record["id"]
    ((point, (new,)),) = intervals.points([again]).items()
    (old,) = intervals.points([record])[point]
    print(f"{point}, seed {record['seed']}: {old:.4f} came along, {new:.4f} now, in {again['provenance']['seconds']} s")
    interval = json.loads(intervals.FILE.read_text())[point]
    assert interval["low"] <= new <= interval["high"]
