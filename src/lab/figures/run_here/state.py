"""What the figure "Run it here" is given, and the files beside the built pages from which it loads the rest."""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lab.datasets import Images, load
from lab.datasets.cifar10_mini import COLUMNS, mini_folder, selection
from lab.runs import Record, recheck
from lab.utils.errors import LabError
from principled.files import meta

from .program import Step, program

SCRIPTS = "book/static/run-here"
"""Where the scripts lie among the book's sources; a built page finds them under ``_static/run-here``."""
SHEET = "images"
"""The name under which the embedded test images are loaded."""
EACH = 3
"""Test images of each class that the reader can pick from: the first ones, in file order."""
ACROSS = 10  # pictures in a row of their sheet

NAMES = {"dense": "dense", "cs": "CS", "smol": "SMOL", "gmp": "GMP", "mp": "MP"}
"""What a network is called above its answers, by its run's method; a method that is not here keeps its own name."""


@dataclass(frozen=True)
class Shipped:
    """A network under ``data/models`` with what its file says about itself and its run's record."""

    path: Path
    about: dict[str, str]
    record: Record

    @property
    def name(self) -> str:
        """The name under which the page asks for its bytes."""
        return self.path.stem

    @property
    def method(self) -> str:
        return self.about["method"]


def shipped(methods: Sequence[str] | None = None, folder: Path | None = None) -> list[Shipped]:
    """The shipped networks, the largest file first.

    Args:
        methods: those of these methods only (``"dense"``, ``"cs"`` ...), default all.
        folder: default ``data/models``.

    Raises:
        LabError: none of them is shipped, or one has no record.
    """
    networks = []
    for path in sorted((folder or recheck.FOLDER).glob("*.principled")):
        about = meta(path)
        if methods is None or about.get("method") in methods:
            networks.append(Shipped(path, about, recheck.record_of(about.get("run", ""))))
    if not networks:
        raise LabError(f"no shipped network of {', '.join(methods or ['any method'])}: `python -m lab ship` packs them")
    return sorted(networks, key=lambda network: -network.path.stat().st_size)


def run_state(*, title: str, methods: Sequence[str] | None = None, inside: bool = True) -> dict[str, Any]:
    """The state of :class:`lab.figures.run_here.widget.RunHereWidget`.

    Args:
        title: what the figure is called.
        methods: of which methods the networks are, default of all that are shipped.
        inside: whether the figure shows layers and re-checks; without, it answers only.

    Raises:
        LabError: no such network is shipped, one has no record, or the embedded images are missing.
    """
    networks = shipped(methods)
    test = load("cifar10-mini", "test")
    models = sorted({network.about["model"] for network in networks})
    return {
        "title": title,
        "inside": inside,
        "classes": list(test.classes),
        "pictures": _pictures(test),
        "sheet": {
            "name": SHEET, "bytes": len(_script(SHEET, sheet().read_bytes())), "columns": COLUMNS, "count": len(test),
            "adler": _checked(test.images.numpy()), "labels": "".join(map(str, test.labels.tolist())),
        },
        "programs": {model: _program(model, len(test.classes)) for model in models},
        "networks": [_network(network) for network in networks],
    }  # fmt: skip


def scripts() -> Iterator[tuple[str, bytes]]:
    """``(name, content)`` of every script that a built page may load: each shipped network, and the test images."""
    for network in shipped():
        yield f"{SCRIPTS}/{network.name}.js", _script(network.name, network.path.read_bytes())
    yield f"{SCRIPTS}/{SHEET}.js", _script(SHEET, sheet().read_bytes())


def content(name: str) -> bytes:
    """The bytes that the page asks for by ``name``. LabError if there is no such file."""
    if name == SHEET:
        return sheet().read_bytes()
    for network in shipped():
        if network.name == name:
            return network.path.read_bytes()
    raise LabError(f"no shipped network {name!r}")


def sheet() -> Path:
    """The file of the embedded test images."""
    return mini_folder() / "test.webp"


def _script(name: str, data: bytes) -> bytes:
    """A classic script that hands ``data`` to the page: under ``file://`` it may load scripts, and fetch nothing."""
    return f'(globalThis.paRunHere ??= {{}})["{name}"] = "{base64.b64encode(data).decode()}";\n'.encode()


def _network(network: Shipped) -> dict[str, Any]:
    figures, data = network.record["figures"], network.path.read_bytes()
    return {
        "name": network.name,
        "title": NAMES.get(network.method, network.method),
        "run": network.about["run"],
        "model": network.about["model"],
        "bytes": len(data),
        "load": len(_script(network.name, data)),
        "accuracy": figures["accuracy"],
        "zeros": figures.get("sparsity"),
        "bits": figures.get("bits"),
    }


@cache
def _program(model: str, classes: int) -> list[Step]:
    return program(recheck.network(model, classes))


def _checked(images: np.ndarray) -> int:
    return zlib.adler32(np.ascontiguousarray(images))


def _pictures(test: Images) -> dict[str, Any]:
    """The first images of each class, class by class, as a small lossless sheet."""
    labels = test.labels.numpy()
    places = selection(labels, EACH)
    places = places[np.argsort(labels[places], kind="stable")]
    chosen = test.images.numpy()[places]
    rows = math.ceil(len(chosen) / ACROSS)
    tiles = np.zeros((rows * ACROSS, 3, 32, 32), np.uint8)
    tiles[: len(chosen)] = chosen
    picture = tiles.reshape(rows, ACROSS, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(rows * 32, ACROSS * 32, 3)
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", lossless=True, quality=100, method=6)
    return {
        "webp": base64.b64encode(stream.getvalue()).decode(),
        "columns": ACROSS,
        "count": len(chosen),
        "adler": _checked(chosen),
        "places": places.tolist(),
        "labels": labels[places].tolist(),
    }


def kilobytes(size: float) -> str:
    """Bytes as a reader says them."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
