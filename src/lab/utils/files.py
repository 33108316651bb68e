"""Writing that never leaves half a file: to a neighbour first, flushed to disk, then renamed over the old one."""

from __future__ import annotations

import errno
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .errors import LabError

ROOT = Path(__file__).resolve().parents[3]
"""The book's folder (the checkout that this package was installed from in editable form)."""

BUILD = Path(os.environ.get("LAB_BUILD", ROOT / "_build"))
"""Everything that can be made again: executed notebooks, the site, quick results, checkpoints."""


@contextmanager
def speaking(path: Path, doing: str) -> Iterator[None]:
    """Turn the file system's refusals into one line that names the file and the remedy."""
    try:
        yield
    except OSError as e:
        remedy = {
            errno.ENOSPC: "the disk is full: free some space and run the same command again",
            errno.EACCES: "no permission: give yourself the right, or set LAB_BUILD, LAB_RUNS or LAB_DATA to a folder of yours",
            errno.EPERM: "not permitted: give yourself the right, or set LAB_BUILD, LAB_RUNS or LAB_DATA to a folder of yours",
            errno.EROFS: "the file system is read-only: set LAB_BUILD, LAB_RUNS or LAB_DATA to one that is not",
        }.get(e.errno or 0, e.strerror or str(e))
        raise LabError(f"cannot {doing} {path}: {remedy}") from e


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` with an open binary file; ``path`` then holds all of it, or what it held before."""
    with speaking(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


def sweep(*paths: Path) -> None:
    """Delete what a killed writer of ``paths`` left half-written; for whoever holds the right to write them."""
    for path in paths:
        for half in path.parent.glob(f".{path.name}.*"):
            half.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """All of it, or what was there before."""
    write_atomically(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """Readable, diffable, atomic."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def save_tensors(path: Path, state: Any) -> None:
    """``torch.save``, atomically."""
    write_atomically(path, lambda file: torch.save(state, file))


def save_model(path: Path, net: torch.nn.Module) -> None:
    """A plain network's weights and buffers as safetensors, atomically."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_bytes(path, save(tensors))


def load_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Tensors and plain values only; nothing in the file is executed. A damaged file is named in one line."""
    with speaking(path, "read"):
        content = path.read_bytes()
    try:  # from memory: a truncated file makes torch.load raise an OSError, as if the disk had failed
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as e:
        raise LabError(f"{path} is damaged ({type(e).__name__}): delete it to start that run from its beginning") from e
