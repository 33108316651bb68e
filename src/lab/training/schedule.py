"""Learning-rate factors of both phases."""

from __future__ import annotations

import math

from .interfaces import Config


def rate(training: Config, progress: float) -> float:
    """Learning-rate factor at ``progress`` (0 to 1 over the search): linear warm-up, then cosine or steps."""
    warmup = training.get("warmup", 0.0)
    if progress < warmup:
        return (progress + 1e-8) / warmup
    if training["schedule"] == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    return float(training["factor"] ** sum(progress >= at for at in training["steps"]))


def finetune_rate(training: Config, progress: float) -> float:
    """Learning-rate factor at ``progress`` (0 to 1 over the fine-tuning): constant, or less by ``factor`` at each of
    ``finetune_steps``."""
    lower = sum(progress >= at for at in training.get("finetune_steps", ()))
    return float(training["finetune_lr"] / training["lr"] * training.get("factor", 0.1) ** lower)
