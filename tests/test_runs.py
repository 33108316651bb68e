"""Runs: identity, records that are whole or absent, and interruptions of every kind that change no figure."""

import copy
import errno
import json
import multiprocessing
import os
import random
import resource
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from fastjsonschema import JsonSchemaValueException
from tiny_run import METHODS, STEPS, few_images, finish, start, tiny

from lab import training
from lab.runs import Run, runner, worker
from lab.runs import records as runs
from lab.utils import files
from lab.utils.errors import LabError
from lab.utils.files import save_tensors, write_atomically, write_json

PROVENANCE = {
    "source": "0" * 64, "commit": None, "dirty": None, "torch": "2", "python": "3", "device": "a CPU",
    "precision": "float32", "seconds": 1.5, "recorded": "2026-01-01T00:00:00+00:00",
}  # fmt: skip
RESULT = {"figures": {"accuracy": 0.5}, "curve": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "beta": 7}]}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Records and everything built go to a folder of the test."""
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    return tmp_path


def record(run=None, **result):
    return runs.write(run or tiny(), "finished", RESULT | result, PROVENANCE)


def remains(place, run):
    """All that a finished run leaves, but for where and when it was made."""
    kept = json.loads((place / "runs/pruning" / f"{run.id}.json").read_text())
    del kept["provenance"]
    return kept, (place / "build/models" / f"{run.id}.safetensors").read_bytes()


# -- identity ---------------------------------------------------------------------------------------------------------

# These never change: a recorded run is found under its id for ever. If this fails, mend the code, not the numbers;
# only new embedded data (another checksum) gives new ones, and then every record is stale too.
FROZEN = {
    ("dense", 0, "quick"): "45b4976fdf2b1d09",
    ("cs", 0, "short"): "5058c8fae6aa2966",
    ("cs", 1, "short"): "87340a35e1e38ef2",
    ("gmp", 0, "short"): "48e1af5c4f390088",
    ("mp", 0, "paper"): "6644111225e91e79",
}


@pytest.mark.parametrize(("name", "seed", "profile"), FROZEN)
def test_ids_are_frozen(name, seed, profile):
    assert tiny(name, seed, profile).id == FROZEN[name, seed, profile]


def test_the_id_is_of_the_content_and_nothing_else(monkeypatch):
    run = tiny()
    turned = Run(run.experiment, dict(reversed(run.config.items())), run.profile, run.seed)
    before = run.id
    assert turned.id == before
    others = [tiny(seed=1), tiny(profile="paper"), tiny("mp"), tiny(lr=0.2), Run("other", run.config, "short", 0)]
    assert len({run.id, *(other.id for other in others)}) == 6
    monkeypatch.setattr(runs.datasets, "checksum", lambda name: "altered")
    assert run.id != before


def test_an_unknown_experiment_lists_the_known_ones():
    with pytest.raises(LabError, match=r"unknown experiment 'prunning': choose one of .*pruning"):
        runs.declaration("prunning")


def test_quick_results_rest_on_the_source_and_recorded_ones_do_not(place, monkeypatch):
    quick, short = tiny(profile="quick"), tiny()
    before = quick.path(), quick.checkpoint(), short.path(), short.checkpoint()
    record(quick)
    assert runs.find(quick)
    for module in ("run", "records"):
        monkeypatch.setattr(f"lab.runs.{module}.source_of", lambda experiment: "f" * 64)
    after = quick.path(), quick.checkpoint(), short.path(), short.checkpoint()
    assert [a == b for a, b in zip(after, before, strict=True)] == [False, False, True, True]
    assert quick.id in quick.path().name
    assert runs.find(quick) is None


# -- records ----------------------------------------------------------------------------------------------------------


def test_a_record_holds_what_it_was_given(place):
    run = tiny()
    written = record(run, figures={"accuracy": 0.123456789})
    assert written == runs.find(run) == runs.read(run.path())
    assert written["figures"] == {"accuracy": 0.123457}
    assert written["curve"] == {"epoch": [1, 2], "loss": [2.0, 1.0], "beta": [None, 7]}
    assert written["config"] == run.config
    assert (written["id"], written["seed"], written["state"]) == (run.id, 0, "finished")
    assert not [p for p in run.folder().iterdir() if p.name.startswith(".")]


def test_tensors_of_the_curve_stay_out_of_the_record(place):
    curve = [{"epoch": 1, "s": torch.zeros(3)}, {"epoch": 2}]
    assert record(curve=curve)["curve"] == {"epoch": [1, 2]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state", "half"),
        ("profile", "huge"),
        ("seed", -1),
        ("id", "xyz"),
        ("figures", {"a": "b"}),
        ("more", 1),
        ("schema", 2),
    ],
)
def test_the_schema_refuses_what_is_no_record(place, key, value):
    good = record()
    with pytest.raises(JsonSchemaValueException):
        runs._validate(good | {key: value})
    del good["config"]
    with pytest.raises(JsonSchemaValueException):
        runs._validate(good)


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: b"",
    "no text": lambda text: b"\xff\xfe\x00garbage",
    "another schema": lambda text: text.replace(b'"schema": 1', b'"schema": 7'),
    "another run": lambda text: text.replace(tiny().id.encode(), b"0123456789abcdef"),
    "no object": lambda text: b"[]",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_named_set_aside_and_kept(place, damage):
    run = tiny()
    record(run)
    for times in (1, 2):
        broken = DAMAGE[damage](run.path().read_bytes())
        run.path().write_bytes(broken)
        with pytest.warns(UserWarning, match=f"{run.id}.json .*set aside as .*counts as not recorded"):
            assert runs.find(run) is None
        aside = list(run.folder().glob("*.damaged"))
        assert len(aside) == times
        assert broken in [path.read_bytes() for path in aside]
        record(run)
    assert runs.find(run)


EDITS = {
    "another configuration": lambda record: record["config"]["training"].update(lr=0.2),
    "another seed": lambda record: record.update(seed=5),
    "another profile": lambda record: record.update(profile="paper"),
    "another experiment": lambda record: record.update(experiment="sharing"),
    "another id": lambda record: record.update(id="0123456789abcdef"),
    "other data": lambda record: record["data"].update(checksum="0"),
    "data by another name": lambda record: record["data"].update(name="cifar10"),
    "an accuracy in percent": lambda record: record["figures"].update(accuracy=87.3),
    "a layer of more zeros than weights": lambda record: record["figures"].update({"sparsity.conv": 1.1}),
    "an accuracy below 0": lambda record: record["figures"].update(accuracy_folded=-0.1),
    "more than 32 bits": lambda record: record["figures"].update(bits=64),
    "a BLEU above 100": lambda record: record["figures"].update(bleu_after_fixing=101),
    "a negative size": lambda record: record["figures"].update(file_bytes=-1),
    "no number": lambda record: record["figures"].update(fd=float("nan")),
    "no end": lambda record: record["figures"].update(fd=float("inf")),
    "a curve in percent": lambda record: record["curve"].update(accuracy_fixed=[0.1, 50.0]),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("where", ["recorded", "made here", "came along"])
def test_a_record_edited_by_hand_is_refused_in_one_line(place, monkeypatch, where, edit):
    monkeypatch.setattr("lab.runs.records.COME_ALONG", place / "quick")
    monkeypatch.delenv("LAB_QUICK", raising=False)
    run = tiny(profile="short" if where == "recorded" else "quick")
    file = place / "quick/pruning.jsonl" if where == "came along" else run.path()
    edited = runs.write(run, "finished", RESULT, PROVENANCE | {"source": runs.source_of("pruning")})
    if where == "came along":
        file.parent.mkdir()
        run.path().rename(file)
        file.write_text(json.dumps(edited) + "\n")
    assert runs.find(run) == edited
    edited = copy.deepcopy(edited)  # its parts are the run's
    EDITS[edit](edited)
    text = json.dumps(edited) + "\n"
    file.write_text(text)
    runs._came_along.cache_clear()
    with pytest.warns(UserWarning, match=r"^[^\n]* is (not a valid record|damaged) \([^\n]*$"):
        assert runs.find(run) is None
    kept = [file] if where == "came along" else list(run.folder().glob("*.damaged"))
    assert [path.read_text() for path in kept] == [text]
    runs._came_along.cache_clear()


def test_every_record_of_the_checkout_is_whole(monkeypatch):
    for name in ("LAB_RUNS", "LAB_QUICK"):
        monkeypatch.delenv(name, raising=False)
    runs._came_along.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(runs.recorded())) == len(list(runs.recorded_runs().glob("*/*.json"))) > 0
        files = list(runs.COME_ALONG.glob("*.jsonl"))
        assert all(len(runs.come_along(file.stem)) == len(file.read_text().splitlines()) for file in files)
        assert files


def test_a_record_that_may_not_be_read_is_not_set_aside(place, monkeypatch):
    run = tiny()
    record(run)
    with monkeypatch.context() as m:
        m.setattr(Path, "read_bytes", refusing(errno.EACCES))
        with pytest.raises(LabError, match=r"cannot read .*json: no permission"):
            runs.find(run)
    assert runs.find(run)


def test_records_and_their_table(place):
    record(tiny("cs", 0))
    record(tiny("cs", 1), figures={"accuracy": 0.7})
    record(tiny("mp", profile="paper"))
    damaged = place / "runs/pruning/0000000000000000.json"
    damaged.write_text("{")
    with pytest.warns(UserWarning, match="0000000000000000.json is damaged"):
        table = runs.load("pruning", "short")
    assert sorted(table["accuracy"]) == [0.5, 0.7]
    assert set(table["method"]) == {"cs"}
    assert set(table["s_init"]) == {-0.02}
    assert {"id", "seed", "profile", "data", "device", "seconds", "commit"} <= set(table.columns)
    assert damaged.exists()
    damaged.unlink()
    assert len(runs.load()) == 3
    assert runs.load("nothing").empty
    with pytest.raises(LabError, match="unknown profile 'long': choose one of quick, short, paper"):
        runs.load(profile="long")


# -- the file system refuses ------------------------------------------------------------------------------------------


def refusing(code):
    def refuse(*args, **options):
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "the disk is full: free some space"), (errno.EACCES, "no permission")]
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refused_write_is_one_line_and_the_old_record_stays(place, monkeypatch, code, words, call):
    run = tiny()
    record(run)
    before = run.path().read_bytes()
    with monkeypatch.context() as m:
        m.setattr(os, call, refusing(code))
        with pytest.raises(LabError, match=f"cannot write .*{run.id}.json: {words}") as error:
            record(run, figures={"accuracy": 0.9})
    assert "\n" not in str(error.value)
    assert run.path().read_bytes() == before
    assert [p.name for p in run.folder().iterdir()] == [run.path().name]


@pytest.mark.parametrize("write", [write_json, save_tensors])
def test_what_does_not_fit_is_one_line_whatever_is_written(tmp_path, write):
    """A limit on a file's size does at 4 KiB what a full disk does: some of it is written, and the rest refused."""
    path = tmp_path / "kept"
    write(path, [1, 2, 3])
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(LabError, match=r"cannot write .*kept: File too large"):
            write(path, list(range(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_a_files_mode_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "record", {})
        with files.locked(tmp_path / "lock"):
            pass
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_lock_has_one_holder_and_goes_with_its_process(tmp_path):
    path = tmp_path / "folder" / "lock"
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def hold():
        with files.locked(path):
            ready.set()
            time.sleep(600)

    holder = context.Process(target=hold, daemon=True)
    holder.start()
    assert ready.wait(60)
    with pytest.raises(files.Busy), files.locked(path):
        pass
    holder.kill()
    with files.locked(path, wait=True), pytest.raises(files.Busy), files.locked(path):
        pass


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    monkeypatch.setattr(files.fcntl, "flock", refusing(errno.ENOLCK))
    entered = []
    for wait in (False, True):
        with files.locked(tmp_path / "lock", wait=wait), files.locked(tmp_path / "lock", wait=wait):
            entered.append(wait)
    assert entered == [False, True]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot write .*file/x.json: "):
        write_json(tmp_path / "file" / "x.json", {})


def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted(file):
        file.write(b"half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# -- computing: killed, stopped, twice at once, diverged --------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What each method's tiny run leaves when nothing disturbs it."""
    kept = {}

    def of(method):
        if method not in kept:
            place = tmp_path_factory.mktemp(method)
            assert finish(start(place, tiny(method), every=1e9)) == 0
            kept[method] = remains(place, tiny(method))
        return kept[method]

    return of


_chosen = random.Random(4)
KILLS = [
    *[(method, [("step", _chosen.randint(1, STEPS))]) for method in METHODS for _ in range(2)],
    *[(method, [("write", _chosen.randint(1, 12))]) for method in METHODS],
    *[(method, [("written", _chosen.randint(1, 12))]) for method in METHODS],
    ("cs", [("step", 2), ("step", 4), ("write", 3), ("written", 2)]),  # again and again
    ("mp", [("step", 8), ("write", 1), ("step", 2)]),
]


@pytest.mark.parametrize(("method", "kills"), KILLS, ids=str)
def test_a_killed_run_resumes_and_ends_bit_for_bit_as_one_never_stopped(place, undisturbed, method, kills):
    run = tiny(method)
    for kill in kills:
        assert finish(start(place, run, kill=kill)) == -9
    assert finish(start(place, run)) == 0
    assert remains(place, run) == undisturbed(method)
    assert not run.checkpoint().exists()
    left = [p.name for folder in ("runs/pruning", "build/models") for p in (place / folder).iterdir()]
    assert sorted(left) == [f"{run.id}.json", f"{run.id}.safetensors"]


def test_a_run_killed_from_outside_at_any_moment_ends_the_same(place, undisturbed):
    run, moments = tiny(), random.Random(7)
    for _ in range(4):
        process = start(place, run, every=0.05)
        time.sleep(moments.uniform(0.05, 0.8))
        process.kill()
        assert finish(process) in (-9, 0)
    assert finish(start(place, run)) == 0
    assert remains(place, run) == undisturbed("cs")


@pytest.mark.parametrize("step", [4, 11])
def test_sigterm_writes_a_checkpoint_and_ends(place, undisturbed, step):
    run = tiny()
    assert finish(start(place, run, every=1e9, terminate=step)) == 3
    state = files.load_tensors(run.checkpoint())
    assert state["epoch"] * 3 + state["step"] == step
    assert runs.find(run) is None
    assert finish(start(place, run)) == 0
    assert remains(place, run) == undisturbed("cs")


def test_two_processes_compute_a_run_once(place, undisturbed):
    run = tiny()
    one, other = (start(place, run, every=0.0) for _ in range(2))
    assert (finish(one), finish(other)) == (0, 0)
    assert remains(place, run) == undisturbed("cs")
    made = (place / "runs/pruning" / f"{run.id}.json").stat().st_mtime_ns
    assert finish(start(place, run, kill=("step", 1))) == 0  # found: not a step is taken
    assert (place / "runs/pruning" / f"{run.id}.json").stat().st_mtime_ns == made


def test_magnitude_pruning_goes_on_from_the_dense_search(place, undisturbed):
    assert finish(start(place, tiny("dense"))) == 0
    assert finish(start(place, tiny("mp"), kill=("step", 7))) == 0  # 6 steps of fine-tuning are all it takes
    assert remains(place, tiny("mp")) == undisturbed("mp")
    assert remains(place, tiny("dense")) == undisturbed("dense")


def test_a_run_that_diverges_is_recorded_as_such_and_said(place, monkeypatch):
    run = tiny()

    def diverge(*args, **options):
        raise training.Diverged("the loss became nan in epoch 1")

    monkeypatch.setattr(run.module, "compute", diverge)
    assert worker.compute(run)["state"] == "diverged"
    kept = runs.read(run.path())
    assert (kept["state"], kept["error"], kept["figures"]) == ("diverged", "the loss became nan in epoch 1", {})
    assert runs.find(run) is None  # it counts as missing: mended code may compute it


def test_a_device_that_is_not_there_is_refused_before_anything_is_computed(place):
    with pytest.raises(LabError, match="unknown device 'tpu'"):
        runner.execute([tiny()], "tpu")
    assert not (place / "runs").exists()


def test_recorded_runs_cost_no_process(place, monkeypatch):
    record(tiny())
    monkeypatch.setattr(runner, "Processes", refusing(errno.ECHILD))
    assert [r["id"] for r in runner.execute([tiny(), tiny()])] == [tiny().id] * 2


@pytest.mark.slow
def test_workers_compute_and_a_killed_one_is_said(place, monkeypatch):
    few_images(place / "data")
    monkeypatch.setenv("LAB_DATA", str(place / "data"))
    monkeypatch.setenv("LAB_BUILD", str(place / "build"))
    wanted = [tiny("dense", epochs=1, finetune_epochs=0)]

    def kill_a_worker():
        while not (workers := multiprocessing.active_children()):
            time.sleep(0.05)
        workers[0].kill()

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    with pytest.raises(LabError, match="a worker was killed: run the same command again"):
        runner.execute(wanted, progress=False)
    killer.join()
    (got,) = runner.execute(wanted, progress=False)
    assert got["state"] == "finished"
    assert got["provenance"]["threads"] == 1
    assert got == runs.find(wanted[0])
