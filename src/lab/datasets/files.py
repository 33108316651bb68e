"""Writing that leaves either all or nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.utils.errors import LabError
from lab.utils.files import nowhere

from .images import shown

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target``, gone when the block ends: by an error, Ctrl-C, SIGTERM or SIGHUP as well.

    The block moves what it finished to ``target`` itself. One process at a time may work beside a target, so what a
    killed one (SIGKILL, power) left there is swept away. A full disk or missing rights become a LabError, folders that
    were made for nothing are removed.
    """
    if lost := nowhere(target):
        raise LabError(lost)
    parent = target.parent
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _alone(parent), _signals_raise():
            for left in parent.glob(f".{target.name}-*"):
                shutil.rmtree(left)
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        if error.errno in _FULL:
            raise LabError(f"the disk that holds {shown(parent)} is full: free some space and try again") from None
        why = error.strerror or str(error)
        raise LabError(
            f"cannot write in {shown(parent)} ({why}): mend that, or name another folder in LAB_DATA"
        ) from None
    finally:
        with suppress(OSError):  # one that holds something stays
            for folder in made:
                folder.rmdir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise LabError(f"another process is writing in {shown(folder)}: wait for it to end") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that ``finally`` runs."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    # one that is ignored (nohup) or handled already stays as it is
    unhandled = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in unhandled:
            signal.signal(number, leave)
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)
