"""Ordinary bad luck: each situation is one line that says what, where and what to do; nothing is lost, and what can go
on does."""

import copy
import io
import os
import socket
import sys
from functools import partial

import pytest
import torch
from tiny_run import made_up, tiny

from lab import __main__ as cli
from lab import book, runs
from lab.book import pages
from lab.datasets import cifar10 as full
from lab.datasets.files import scratch
from lab.experiments import base
from lab.models import ResNet
from lab.models.registry import NETWORKS
from lab.runs import runner, worker
from lab.training import Stopped, Trainer
from lab.training import distributed as ranks
from lab.utils import files
from lab.utils.errors import LabError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Records and everything built go to a folder of the test; no file of the checkout is touched."""
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("LAB_TRACEBACK", raising=False)
    return tmp_path


def said(capsys, *words, status=1):
    """The one line on stderr of ``python -m lab words``."""
    try:
        got = cli.main(words)
    except SystemExit as e:
        got = e.code
    assert got == status
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["", "m", "nan", "inf", "-9m", "0", "1e999", "9 parsec"])
@pytest.mark.parametrize("command", ["record", "chapter 04"])
def test_a_budget_that_is_no_time(place, capsys, command, budget):
    line = said(capsys, *command.split(), f"--budget={budget}", status=2)
    assert f"'{budget}' is no time: write 90s, 9m or 2h" in line


@pytest.mark.parametrize("chapter", ["4.5", "04.ipynb.ipynb"])
def test_a_chapter_that_is_none(place, capsys, chapter):
    assert said(capsys, "chapter", chapter).startswith(f"no chapter '{chapter}' in ")
    assert f"invalid int value: '{chapter}'" in said(capsys, "record", "--chapter", chapter, status=2)


@pytest.mark.parametrize(
    ("output", "why"),
    [("", "it is a folder"), ("file/x.ipynb", "a file is in the way, where a folder should be: move it")],
)
def test_an_output_that_cannot_be_written_is_found_before_the_chapter_runs(place, capsys, monkeypatch, output, why):
    monkeypatch.setattr(book, "_run", lambda *words: pytest.fail("the chapter was executed"))
    (place / "file").write_text("")
    with pytest.raises(LabError, match=f"cannot write .*: ({why})"):
        book.execute("04", output=str(place / output))


def test_a_busy_port(place, capsys):
    (place / "build/html").mkdir(parents=True)
    (place / "build/html/index.html").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert said(capsys, "serve", "--port", str(port)) == (
            f"cannot serve on port {port} (Address already in use): choose another with --port, such as 8001"
        )
    assert "(no port has that number)" in said(capsys, "serve", "--port", "99999")


def test_a_terminal_without_the_ellipsis(place, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", screen)
    assert cli.main(["clean"]) == 0
    print("executing 01 …")
    assert screen.buffer.getvalue() == b"executing 01 ?\n"


@pytest.mark.parametrize(("lacks", "value"), [("LOCAL_RANK", None), ("RANK", ""), ("WORLD_SIZE", "two")])
def test_a_launchers_variables_that_do_not_agree(monkeypatch, lacks, value):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "0")
    monkeypatch.delenv(lacks) if value is None else monkeypatch.setenv(lacks, value)
    with (
        pytest.raises(LabError, match=f"{lacks} is '{value or ''}', no number: start by torchrun"),
        ranks.together("cpu"),
    ):
        pass


@pytest.mark.parametrize("value", ["1764500000.5", "soon", "nan"])
def test_a_deadline_that_is_no_second_of_the_monotonic_clock(place, monkeypatch, value):
    monkeypatch.setenv("LAB_UNTIL", value)
    with pytest.raises(LabError, match=f"LAB_UNTIL is '{value}', no second of this machine's clock: set it to"):
        runner.work([])


# -- folders ----------------------------------------------------------------------------------------------------------


def test_an_empty_variable_counts_as_unset(monkeypatch):
    for name in files.FOLDERS:
        monkeypatch.setenv(name, "")
    assert [files.folder(name) for name in files.FOLDERS] == list(files.FOLDERS.values())
    monkeypatch.setenv("LAB_QUICK", "")
    assert files.variable("LAB_QUICK") is None


def test_relative_folders_are_handed_on_absolute(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for name in files.FOLDERS:
        monkeypatch.setenv(name, f"some/{name}")
    assert cli.main(["clean"]) == 0
    assert [os.environ[name] for name in files.FOLDERS] == [str(place / "some" / name) for name in files.FOLDERS]
    monkeypatch.chdir("/")  # as a kernel stands in chapters/
    assert runs.recorded_runs() == place / "some/LAB_RUNS"
    assert full.batches_folder() == place / "some/LAB_DATA/cifar10/cifar-10-batches-bin"


@pytest.mark.parametrize("name", files.FOLDERS)
def test_a_folder_that_is_a_link_to_nowhere(place, capsys, monkeypatch, name):
    (place / "link").symlink_to(place / "unmounted")
    monkeypatch.setenv(name, str(place / "link"))
    assert said(capsys, "record", "--list") == (
        f"{name}: {place}/link is a link to {place}/unmounted, which is not there: mount or make that, or remove the "
        "link"
    )


def test_a_data_set_that_is_a_link_to_nowhere(tmp_path):
    (tmp_path / "cifar10").symlink_to(tmp_path / "unmounted")
    for attempt in (lambda: full.load_cifar10(tmp_path), lambda: scratch(full.batches_folder(tmp_path)).__enter__()):
        with pytest.raises(LabError, match=r"cifar10 is a link to .*unmounted, which is not there: mount or make that"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["cifar10"]


# -- clean ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def build(place):
    """A build folder with something of each kind in it, and beside it what must survive."""
    (place / "elsewhere").mkdir()
    (place / "elsewhere/thesis.tex").write_text("years")
    build = files.begin_build(place / "build")
    for name in ("checkpoints/a.pt", "models/b.safetensors", "html/index.html", "site.json", "photo.jpg"):
        (build / name).parent.mkdir(exist_ok=True)
        (build / name).write_text("x")
    (build / "html.old").symlink_to(place / "elsewhere")
    (build / "sphinx").symlink_to(place / "gone")
    return build


def test_clean_deletes_what_the_lab_made_and_keeps_what_took_hours(build, place, capsys):
    assert cli.main(["clean"]) == 0
    assert {path.name for path in build.iterdir()} == {files.MARKER, "checkpoints", "models", "photo.jpg"}
    assert capsys.readouterr().out == f"left in {build}, for it is not the lab's: photo.jpg\n"
    assert cli.main(["clean", "--all"]) == 0
    assert {path.name for path in build.iterdir()} == {files.MARKER, "photo.jpg"}
    assert (place / "elsewhere/thesis.tex").read_text() == "years"


def test_clean_refuses_a_folder_that_is_not_marked_and_one_with_files_is_never_marked(build, place, capsys):
    (build / files.MARKER).unlink()
    files.begin_build(build)  # work goes on in it, beside what was there
    before = sorted(build.iterdir())
    assert said(capsys, "clean", "--all") == (
        f"{build} is not known as a build folder (no {files.MARKER} in it): nothing was deleted; do it by hand"
    )
    assert sorted(build.iterdir()) == before


@pytest.mark.parametrize("linked", [False, True])
def test_the_checkouts_own_folder_needs_no_marker_unless_it_is_a_link(build, place, capsys, monkeypatch, linked):
    own = place / "_build"
    own.symlink_to(build) if linked else build.rename(own)
    (own / files.MARKER).unlink()
    monkeypatch.setitem(files.FOLDERS, "LAB_BUILD", own)
    monkeypatch.setenv("LAB_BUILD", str(own))
    if linked:
        assert "nothing was deleted" in said(capsys, "clean")
    else:
        assert cli.main(["clean"]) == 0
    assert (own / "html").exists() == linked


def test_a_link_in_the_build_folder_is_replaced_and_what_it_leads_to_stays(build, place):
    (build / "site-src").symlink_to(place / "elsewhere")
    pages.mirror({"index.md": "# Start"}, build / "site-src")
    assert [path.name for path in (build / "site-src").iterdir()] == ["index.md"]
    assert [path.name for path in (place / "elsewhere").iterdir()] == ["thesis.tex"]


# -- checkpoints ------------------------------------------------------------------------------------------------------


def without_moments(state):
    del state["moments"]


def with_a_key_more(state):
    state["momentum"] = 0.9


def renamed_layers(state):
    state["net"] = {name.replace("conv", "convolution"): tensor for name, tensor in state["net"].items()}


def another_optimizer(state):
    state["optimizers"] *= 2


def anothers(state):
    state["identity"] = "0123456789abcdef"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without_moments, r"was written by another version of the code \(without 'moments'\)"),
        (with_a_key_more, r"was written by another version of the code \(with 'momentum'\)"),
        (
            renamed_layers,
            r"was written by another version of the code \(RuntimeError: Error\(s\) in loading state_dict",
        ),
        (another_optimizer, r"was written by another version of the code \(ValueError: "),
        (anothers, "is a checkpoint of run 0123456789abcdef, not of "),
        (None, r"is damaged \(.*\)"),
    ],
)
def test_a_checkpoint_of_no_use_is_set_aside_and_the_run_begins_anew(place, monkeypatch, change, why):
    monkeypatch.setattr(base, "load", made_up)
    monkeypatch.setitem(NETWORKS, "resnet20", partial(ResNet, 1))
    run = tiny("dense", epochs=1, finetune_epochs=0)
    steps = Trainer._after_step
    with monkeypatch.context() as m:
        m.setattr(Trainer, "_after_step", lambda trainer: worker.stop() or steps(trainer))
        with pytest.raises(Stopped):
            worker.compute(run)
        worker._stopping.clear()
    if change is None:
        run.checkpoint().write_bytes(b"half")
    else:
        change(state := torch.load(run.checkpoint(), weights_only=True))
        torch.save(state, run.checkpoint())
    before = run.checkpoint().read_bytes()
    with pytest.warns(
        UserWarning, match=rf"{run.checkpoint()} {why}.*: set aside as .*\.aside, and dense .* begins anew"
    ) as w:
        record = worker.compute(run)
    assert "\n" not in str(w[0].message)
    assert (record["state"], len(record["curve"]["loss"])) == ("finished", 1)
    (aside,) = run.checkpoint().parent.glob("*.aside")
    assert aside.read_bytes() == before


def test_an_unusable_checkpoint_travels_between_processes(tmp_path):
    error = copy.copy(files.Unusable(tmp_path / "c.pt", "is damaged (EOFError)"))
    assert str(error) == f"{tmp_path}/c.pt is damaged (EOFError): move it away to start that run from its beginning"


def test_a_full_device_is_no_fault_of_the_checkpoint(tmp_path, monkeypatch):
    files.save_tensors(tmp_path / "c.pt", {"identity": "a"})

    def full(*words, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError), files.resuming(tmp_path / "c.pt", "a", "cpu", ()):
        full()
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(torch.OutOfMemoryError):
        files.load_tensors(tmp_path / "c.pt")
