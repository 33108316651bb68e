"""A run belongs to one process at a time, on one machine or on many that share a folder.

On one machine a lock of the operating system does it: it vanishes with its process, however that ends. Over a network file
system such locks may be local or missing, so a lease file lies beside it, made by a hard link (of many machines exactly one
succeeds) and touched every few seconds. One that nobody has touched for a minute is taken over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.utils.files import speaking

BEAT, LAPSE = 10.0, 60.0
"""Seconds: how often a lease is touched, and after how many without a touch its holder counts as gone."""


class Busy(Exception):
    """Another process holds the lease."""


@contextmanager
def held(path: Path, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lease ``path``, or raise :class:`Busy` at once.

    Args:
        path: the lease file. The lock lies beside it, with the suffix ``.lock``.
        lost: called if someone else took the lease over, which happens to a machine that slept for longer than :data:`LAPSE`.
    """
    with speaking(path, "lease"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        locked = _lock(handle)
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "nonce": uuid.uuid4().hex}
        with speaking(path, "lease"):
            _take(path, mine, locked)
        done = threading.Event()
        beating = threading.Thread(target=_beat, args=(path, mine, done, lost), daemon=True)
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()
            if _read(path) == mine:
                path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether the file system gave us a lock; Busy if another process here has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy from None
    except OSError as e:
        if e.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a network folder without locks
            return False
        raise
    return True


def _take(path: Path, mine: dict[str, object], locked: bool) -> None:
    own = path.with_name(f"{path.name}.{mine['nonce']}")
    own.write_text(json.dumps(mine))
    try:
        holder = _read(path)
        if holder is not None:
            now = own.stat().st_mtime  # by the file server's clock, as are the touches

            def gone(file: Path, its: dict[str, object] | None) -> bool:
                dead_here = (
                    locked and its is not None and its.get("host") == mine["host"]
                )  # alive, it would hold the lock
                return dead_here or now - _touched(file) > LAPSE

            if not gone(path, holder):
                raise Busy
            _succeed(path, holder, own, gone)
            return
        try:
            os.link(own, path)
        except FileExistsError:  # someone was quicker
            raise Busy from None
    finally:
        own.unlink(missing_ok=True)


def _succeed(
    path: Path, holder: dict[str, object], own: Path, gone: Callable[[Path, dict[str, object] | None], bool]
) -> None:
    """Replace the stale lease of ``holder``; of several that find it stale, one may: whoever makes the claim's file."""
    claim = path.with_name(f"{path.name}.claim")
    try:
        os.link(own, claim)
    except FileExistsError:
        if gone(claim, _read(claim)):  # the claimant died within this very moment: the next attempt may
            claim.unlink(missing_ok=True)
        raise Busy from None
    try:
        if _read(path) != holder:  # an earlier claimant has succeeded already
            raise Busy
        os.replace(own, path)
    finally:
        claim.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, object] | None:
    """The holder, or None where there is no lease. One that makes no sense has a holder whom nobody knows."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return {}


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("-inf")


def _beat(path: Path, mine: dict[str, object], done: threading.Event, lost: Callable[[], None]) -> None:
    while not done.wait(BEAT):
        if _read(path) != mine:
            lost()
            return
        with suppress(OSError):  # a server that is away for a moment: the next beat may reach it
            os.utime(path)
