"""One kind of error for everything a user can mend: a line that says what, where, and what to do."""

import io
import sys
import warnings


class LabError(Exception):
    """Something the user can mend. The message is one line; ``python -m lab`` prints it and exits with status 1."""


def plain_output() -> None:
    """Let a warning be a line too, without the place in our source, and a terminal that knows no "…" show "?"."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
