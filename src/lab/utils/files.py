"""Where files belong, and writing that never leaves half of one: to a neighbour first, flushed to disk, then renamed
over the old."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import fastjsonschema

from .errors import LabError

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parents[3]
"""The book's folder (the checkout that this package was installed from in editable form)."""

FOLDERS = {"LAB_BUILD": ROOT / "_build", "LAB_RUNS": ROOT / "data" / "runs", "LAB_DATA": ROOT / "data"}
"""Variables that name a folder, and which one it is where they are unset."""


def variable(name: str) -> str | None:
    """A variable of the environment; an empty one counts as unset. Every ``LAB_*`` is read here."""
    return os.environ.get(name) or None


def folder(name: str) -> Path:
    """The folder that the variable names, absolute (a relative one counts from the current folder), or its default."""
    named = variable(name)
    return Path(os.path.abspath(named)) if named else FOLDERS[name]


def hand_on_folders() -> None:
    """Make the folders in the environment absolute: a child or a notebook's kernel may stand elsewhere.

    Raises:
        LabError: one of them is a link that leads nowhere, and would count as empty.
    """
    for name in FOLDERS:
        if lost := nowhere(folder(name)):
            raise LabError(f"{name}: {lost}")
        if variable(name):
            os.environ[name] = str(folder(name))


def nowhere(path: Path) -> str:
    """In words, which link on the way to ``path`` leads nowhere; empty if none does."""
    for place in (path, *path.parents):
        if os.path.islink(place) and not os.path.exists(place):  # of os, whose answer is never a PermissionError
            target = os.readlink(place)
            return f"{place} is a link to {target}, which is not there: mount or make that, or remove the link"
    return ""


def build_folder() -> Path:
    """Where everything lies that can be made again: executed notebooks, the site, quick results, checkpoints."""
    return folder("LAB_BUILD")


MARKER = ".made-by-lab"
"""The file by which the build folder is known as one. It is written where the folder was new or empty, so all in it is
the lab's."""

MADE = (
    ".lock", "again", "book.json", "chapters", "checkpoints", "executed", "failed", "html", "html.new", "html.old",
    "jupyter-book.log", "models",
    "packed", "parsl", "runs", "site-src", "site.json", "sphinx",
)  # fmt: skip
"""What the lab makes in its build folder."""


def begin_build(build: Path | None = None) -> Path:
    """The build folder (default: :func:`build_folder`), there from now on, and marked if it was new or empty."""
    build = build or build_folder()
    with speaking(build, "make"):
        build.mkdir(parents=True, exist_ok=True)
        if not any(build.iterdir()):
            (build / MARKER).write_text("Made by `python -m lab`; `python -m lab clean` deletes what that made here.\n")
    return build


def clear(build: Path, keep: tuple[str, ...] = ()) -> list[str]:
    """Delete what the lab made in its build folder, except ``keep``; returns the names of what others put there.

    A folder is the lab's if it carries the marker, or is this checkout's own ``_build`` (earlier versions left no
    marker).

    Raises:
        LabError: it is another folder; nothing was deleted.
    """
    if not (build / MARKER).is_file() and (build != FOLDERS["LAB_BUILD"] or build.is_symlink()):
        raise LabError(
            f"{build} is not known as a build folder (no {MARKER} in it): nothing was deleted; do it by hand"
        )
    there = {path.name: path for path in build.iterdir()}
    for name in MADE:
        if name in there and name not in keep:
            remove(there[name])
    return sorted(set(there) - {*MADE, MARKER})


def remove(path: Path) -> None:
    """Delete a file, a folder with all that is in it, or a link (not what it leads to). Nothing there is fine."""
    with speaking(path, "delete"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class DiskFull(LabError):
    """No room for a file: every other run would find the same."""


ELSEWHERE = "set LAB_BUILD, LAB_RUNS or LAB_DATA to a folder"


@contextmanager
def speaking(path: Path, doing: str) -> Iterator[None]:
    """Turn the file system's refusals into one line that names the file and the remedy."""
    try:
        yield
    except OSError as e:
        remedy = nowhere(path) or {
            errno.EEXIST: "a file is in the way, where a folder should be: move it",
            errno.ENOTDIR: "a file is in the way, where a folder should be: move it",
            errno.ENOSPC: "the disk is full: free some space and run the same command again",
            errno.EDQUOT: "your quota is used up: free some space and run the same command again",
            errno.EACCES: f"no permission: give yourself the right, or {ELSEWHERE} of yours",
            errno.EPERM: f"not permitted: give yourself the right, or {ELSEWHERE} of yours",
            errno.EROFS: "the file system is read-only: set LAB_BUILD, LAB_RUNS or LAB_DATA to one that is not",
        }.get(e.errno or 0, e.strerror or str(e))
        kind = DiskFull if e.errno in (errno.ENOSPC, errno.EDQUOT) else LabError
        raise kind(f"cannot {doing} {path}: {remedy}") from e


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """As :func:`principled.files.atomic.write_atomically`, with the file system's refusals in one line."""
    from principled.files import atomic  # here, as torch below: the command line answers without it

    with speaking(path, "write"):
        atomic.write_atomically(path, write)


def check_writable(path: Path) -> None:
    """Raise LabError if ``path`` could not be written: before hours go into what shall stand there."""
    with speaking(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder: name a file")
        tempfile.TemporaryFile(dir=path.parent).close()


def sweep(*paths: Path) -> None:
    """Delete what a killed writer of ``paths`` left half-written; for whoever holds the right to write them."""
    for path in paths:
        for half in path.parent.glob(f".{path.name}.*"):
            half.unlink(missing_ok=True)


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the operating system's lock on the file ``path``. It goes with its process, however that ends.

    A file system without locks gives everyone the right: what is written below a lock must be whole at any moment
    anyway.

    Raises:
        Busy: another process holds it, and ``wait`` is false.
    """
    with speaking(path, "lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # less the umask: who shares the folder may lock as well
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Busy from None
        except OSError as e:
            if e.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise LabError(f"cannot lock {path}: {e.strerror}") from e
        yield
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """All of it, or what was there before."""
    write_atomically(path, lambda file: file.write(content))


def write_json(path: Path, value: Any) -> None:
    """Readable, diffable, atomic."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


@cache
def schema(file: Path) -> Callable[[Any], Any]:
    """What raises ``fastjsonschema.JsonSchemaValueException`` where its argument is not as the JSON schema in ``file``
    says."""
    check: Callable[[Any], Any] = fastjsonschema.compile(json.loads(file.read_text(encoding="utf-8")))
    return check


def save_tensors(path: Path, state: Any) -> None:
    """``torch.save``, atomically."""
    import torch

    content = io.BytesIO()  # into memory: of a file's refusal, such as a full disk, torch.save tells nothing
    torch.save(state, content)
    write_bytes(path, content.getbuffer())


def save_model(path: Path, net: torch.nn.Module, metadata: dict[str, str] | None = None) -> None:
    """A plain network's weights and buffers as safetensors, atomically; a tied weight whole under each of its names.
    ``metadata`` is what the file says of itself."""
    import torch
    from safetensors.torch import save

    state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    write_bytes(path, save(tensors, metadata))


class Unusable(LabError):
    """A checkpoint that no run can go on from. :mod:`lab.runs.worker` sets it aside and begins the run anew.

    Args:
        path: the file.
        why: what is wrong with it.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path} {self.why}: move it away to start that run from its beginning"


def load_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """Tensors and plain values only; nothing in the file is executed. A damaged file is named in one line."""
    import torch

    with speaking(path, "read"):
        content = path.read_bytes()
    try:  # from memory: a truncated file makes torch.load raise an OSError, as if the disk had failed
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # of the device, not of the file
        raise
    except Exception as e:
        raise Unusable(path, f"is damaged ({type(e).__name__})") from e


@contextmanager
def resuming(
    path: Path, identity: str, device: torch.device | str, parts: Collection[str], optional: Collection[str] = ()
) -> Iterator[Any]:
    """The state in a checkpoint of the run ``identity``, which the block goes on from.

    What the block finds missing, or of another shape, means that another version of the code wrote the file.

    Args:
        path: the checkpoint.
        identity: the run's id.
        device: where its tensors go.
        parts: the keys that a state has, besides ``"identity"``.
        optional: those that it may have.

    Raises:
        Unusable: it is damaged, another run's, or another version's.
    """
    import torch

    state = load_tensors(path, device)
    if not isinstance(state, dict) or state.get("identity") != identity:
        owner = state.get("identity") if isinstance(state, dict) else None
        raise Unusable(path, f"is a checkpoint of run {owner}, not of {identity}")
    if odd := (set(state) - {*optional}) ^ {"identity", *parts}:
        said = ", ".join(f"{'without' if key in parts else 'with'} {key!r}" for key in sorted(odd, key=str))
        raise Unusable(path, f"was written by another version of the code ({said})")
    try:
        yield state
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as e:
        what = " ".join(str(e).split())[:120]
        raise Unusable(path, f"was written by another version of the code ({type(e).__name__}: {what})") from e
