"""Training: the loop, what it asks of a method and of a task, and the tasks."""

from importlib import import_module
from typing import Any

_HOME = {
    "Classification": "classification",
    "Config": "interfaces",
    "Diverged": "trainer",
    "Method": "interfaces",
    "Stopped": "trainer",
    "Task": "interfaces",
    "Trainer": "trainer",
    "accuracy": "classification",
    "autocast": "device",
    "chance": "classification",
    "finetune_rate": "schedule",
    "gains_from_bf16": "device",
    "normalise": "classification",
    "pick_device": "device",
    "rate": "schedule",
    "sgd": "interfaces",
}
"""Name to the module of this package that defines it: imported when asked for, so that a light module stays light."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
