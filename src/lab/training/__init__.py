"""Training: the loop, what it asks of a method and of a task, and the tasks."""

from importlib import import_module
from typing import Any

_HOME = {
    "Classification": "trainer",
    "Config": "trainer",
    "Diverged": "trainer",
    "Method": "trainer",
    "Stopped": "trainer",
    "Task": "trainer",
    "Trainer": "trainer",
    "accuracy": "trainer",
    "autocast": "trainer",
    "chance": "trainer",
    "finetune_rate": "trainer",
    "gains_from_bf16": "trainer",
    "normalise": "trainer",
    "pick_device": "trainer",
    "rate": "trainer",
    "sgd": "trainer",
}
"""Name to the module of this package that defines it: imported when asked for, so that a light module stays light."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
