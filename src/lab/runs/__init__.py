"""Runs: what a run is, where its record lies, how one is computed and how many are."""

from importlib import import_module
from typing import Any

_HOME = {
    "COME_ALONG": "records",
    "Damaged": "records",
    "Record": "run",
    "Run": "run",
    "SETTLED": "records",
    "Unavailable": "run",
    "come_along": "records",
    "commit_of_now": "records",
    "cpu_name": "records",
    "declaration": "run",
    "figures_of": "records",
    "find": "records",
    "load": "records",
    "provenance": "records",
    "quick_record": "records",
    "quick_runs": "run",
    "read": "records",
    "recorded": "records",
    "recorded_runs": "run",
    "rounded": "records",
    "source_of": "run",
    "table": "records",
    "take_along": "records",
    "write": "records",
}
"""Name to the module of this package that defines it: imported when asked for, so that a light module stays light."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
