"""Writing that never leaves half a file: to a neighbour first, flushed to disk, then renamed over the old one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call ``write`` with an open binary file; ``path`` then holds all of it, or what it held before.

    Raises:
        OSError: the file system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with open(part, "xb") as file:  # its mode follows the umask, where mkstemp's would be its owner's alone
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
