"""The command line: a mistake the user can mend is one line on stderr and exit status 1."""

import errno
import json
import os
import re
import subprocess
import sys
import time

import pytest
import torch

from lab import __main__ as cli
from lab.experiments.sparsity import pruning
from lab.runs import runner
from lab.utils import files
from lab.utils.errors import LabError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LAB_QUICK", "train")
    monkeypatch.delenv("LAB_TRACEBACK", raising=False)
    return tmp_path


def said(capsys, *words):
    """What ``python -m lab words`` prints as its error."""
    assert cli.main(words) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("record --experiment prunning", "unknown experiment 'prunning': choose one of "),
        ("record --profile long", "unknown profile 'long': choose one of quick, short, paper"),
        ("record --profile quick --device tpu", "unknown device 'tpu': choose cpu or cuda"),
        ("record --profile quick --device cuda:77", "device 'cuda:77' is not there: PyTorch sees "),
        pytest.param("record --profile quick --device cuda", "device 'cuda' is not there", marks=NO_CUDA),
        ("record --profile quick --workers -1", "workers must be at least 1, not -1"),
        ("chapter 04 --profile long", "unknown profile 'long'"),
        ("chapter 04 --device gpu", "unknown device 'gpu'"),
        ("chapter 98", "98"),
        ("data mnist", "unknown data set 'mnist'"),
        ("serve", "holds no book yet: run `python -m lab book` first"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(place, capsys, words, error):
    assert error in said(capsys, *words.split())
    assert not (place / "runs").exists()


def test_an_empty_data_folder_names_the_remedy(place, capsys, monkeypatch):
    (place / "data/cifar10-mini").mkdir(parents=True)
    monkeypatch.setenv("LAB_DATA", str(place / "data"))
    line = said(capsys, "record", "--profile", "quick")
    assert "cifar10-mini" in line
    assert "git checkout data/cifar10-mini" in line


def test_missing_data_is_said_before_any_process_starts(place, capsys, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(place / "data"))
    monkeypatch.setattr(runner, "Processes", lambda *words: pytest.fail("a process was started"))
    assert "python -m lab data cifar10" in said(capsys, "record", "--profile", "short")


def test_the_file_systems_refusal_is_one_line(place, capsys, monkeypatch):
    def refuse(*words, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(runner, "work", refuse)
    assert said(capsys, "record", "--profile", "quick") == f"[Errno {errno.EROFS}] {os.strerror(errno.EROFS)}"


def test_record_lists_what_is_missing(place, capsys):
    assert cli.main(["record", "--experiment", "pruning", "--profile", "quick", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = pruning.runs("quick")
    assert lines[0] == f"pruning, profile quick: 0 of {len(wanted)} runs are recorded"
    assert [line.split()[:2] for line in lines[1:]] == [["missing", run.id] for run in wanted]


def test_a_damaged_record_is_named_set_aside_and_counts_as_missing(place, capsys):
    run = pruning.runs("short")[0]
    run.path().parent.mkdir(parents=True)
    run.path().write_text(json.dumps({"schema": 1}))
    with pytest.warns(UserWarning, match=f"{run.id}.json is not a valid record"):
        assert cli.main(["record", "--profile", "short", "--list"]) == 0
    assert f"missing  {run.id}" in capsys.readouterr().out
    assert [p.read_text() for p in run.folder().glob("*.damaged")] == ['{"schema": 1}']


def test_ctrl_c_ends_with_a_word(place, capsys, monkeypatch):
    def interrupt(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "work", interrupt)
    assert cli.main(["record", "--profile", "quick"]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err


def test_the_traceback_is_there_for_who_asks(place, monkeypatch):
    monkeypatch.setenv("LAB_TRACEBACK", "1")
    with pytest.raises(LabError):
        cli.main(["data", "mnist"])


@pytest.mark.parametrize(
    ("options", "error"),
    [({"lambda": -1e-8}, "lambda must not be negative"), ({"beta_final": 0}, "beta_final must be above 0")],
)
def test_senseless_options_of_a_method_are_refused(options, error):
    with pytest.raises(LabError, match=error):
        pruning.run("quick", "cs", s_init=0.0, **options)
    with pytest.raises(LabError, match="unknown method 'magic': choose one of dense, mp, gmp, cs"):
        pruning.run("quick", "magic")


def test_the_process_exits_with_status_1_and_one_line(tmp_path):
    environment = os.environ | {"LAB_RUNS": str(tmp_path), "LAB_BUILD": str(tmp_path)}
    command = [sys.executable, "-m", "lab", "record", "--experiment", "pruning", "--profile", "long"]
    got = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr == "error: unknown profile 'long': choose one of quick, short, paper\n"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    said = capsys.readouterr().out
    for command in ("book", "chapter", "record", "data", "refresh", "test", "serve", "lab", "clean"):
        assert f"\n    {command} " in said


def test_a_budget_too_small_for_progress_is_refused(place, capsys):
    assert "a budget of 3 s ends before any progress" in said(capsys, "record", "--profile", "quick", "--budget", "3s")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("9m", 540), ("1.5h", 5400)])
def test_a_budget_is_a_number_and_a_unit(text, seconds):
    assert cli._seconds(text) == seconds


def test_only_the_named_runs(place, capsys):
    wanted = pruning.run("quick", "cs", s_init=-0.05).id
    assert cli.main(["record", "--profile", "quick", "--list", "--run", wanted]) == 0
    assert "0 of 1 runs are recorded" in capsys.readouterr().out
    assert "no run beef in " in said(capsys, "record", "--profile", "quick", "--run", "beef")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["budget", "SIGTERM"])
def test_a_recording_that_is_stopped_leaves_a_checkpoint(tmp_path, how):
    wanted = [run.id for run in pruning.runs("quick")]
    words = [sys.executable, "-m", "lab", "record", "--experiment", "pruning", "--profile", "quick", "--workers", "1"]
    words += ["--budget", "30"] if how == "budget" else []
    environment = os.environ | {"LAB_BUILD": str(tmp_path), "LAB_QUICK": "train"}
    child = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if how == "SIGTERM":
            while not list(tmp_path.glob("checkpoints/*.pt")):
                assert child.poll() is None
                time.sleep(0.2)
            child.terminate()
        said, _ = child.communicate()
    finally:
        child.kill()
    assert child.returncode == 0
    (done, left) = map(int, re.search(r"recorded (\d+) runs under .*; (\d+) are left", said).groups())
    assert done + left == len(wanted)
    (checkpoint,) = tmp_path.glob("checkpoints/[!t]*.pt")  # a trunk beside it is no run's own
    assert files.load_tensors(checkpoint)["identity"] == wanted[done]


def test_a_chapters_budget_reaches_its_kernel(place, monkeypatch):
    from lab import book

    seen = []
    monkeypatch.setattr(book, "execute", lambda *words: seen.append(float(os.environ["LAB_UNTIL"])))
    monkeypatch.setenv("LAB_UNTIL", "0")  # so that it is restored
    began = time.monotonic()
    assert cli.main(["chapter", "04", "--budget", "9m"]) == 0
    assert began + 540 <= seen[0] <= time.monotonic() + 540


@pytest.mark.parametrize("words", ["--chapter 9", "--experiment pruning --run 0123456789abcdef"])
def test_what_is_not_declared_is_one_line(place, capsys, words):
    assert said(capsys, "record", "--profile", "quick", *words.split()).startswith("no ")


def test_a_chapters_runs_are_listed_without_any_computing(place, capsys):
    assert cli.main(["record", "--chapter", "4", "--profile", "quick", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pruning" in lines[0]
    assert "precision" not in lines[0]
    assert all(line.startswith(("  missing ", "  recorded ")) for line in lines[1:])


def test_a_reader_that_has_enough_ends_the_command_without_a_word():
    command = [sys.executable, "-m", "lab", "record", "--profile", "paper", "--list"]
    environment = os.environ | {"PYTHONPATH": str(files.ROOT / "src")}
    listing = subprocess.Popen(command, cwd=files.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert listing.stdout.readline()
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.wait()
