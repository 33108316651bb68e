"""The three sizes at which every chapter runs, declared once. A figure always states the one it was made at."""

from __future__ import annotations

from lab.utils.errors import LabError

PROFILES: dict[str, str] = {
    "quick": "embedded data, CPU, seconds to minutes: what the tests and a first build execute",
    "short": "the full data set on a reduced schedule: an hour on a laptop, minutes on a GPU",
    "paper": "the thesis's own protocol",
}


def check_profile(name: str) -> str:
    """``name``, if it is a profile; else one line that lists those that are."""
    if name not in PROFILES:
        raise LabError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return name
