"""Do the precisions need time, and does it matter which weight has which (5.5.2, 5.5.3: Figures 5.7 and 5.8, Table 5.6)?

At profile ``paper`` these are runs of :mod:`lab.experiments.precision.weights`. Here are their reduced forms, with the seeds that tell a difference
from chance: all epochs are divided anew between search and fine-tuning, and precisions are given to new weights, in place or shuffled.
"""

from __future__ import annotations

from typing import Any

from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.utils.errors import LabError

from . import weights as precision
from .common import check as check
from .common import compute as compute
from .common import epochs as epochs

EXPERIMENT, CHAPTER = "structure", 5
POINT = ("lambda", "shuffled")

MODEL = {"quick": "small CNN", "short": "resnet20"}
LAMBDA = {"quick": 4e-5}
"""Penalty, where it is not the headline's: the small network has a tenth of the weights."""
SEARCH = {"quick": (1, 3, 7), "short": (3, 6, 9, 15)}
"""Figure 5.7: epochs of the search, of as many as :mod:`lab.experiments.precision.weights` trains; its own division is among all runs too."""


def run(profile: str, name: str, seed: int = 0, search: int | None = None, **options: Any) -> Run:
    """One run: ``run("quick", "retrain", shuffled=True)``; ``search`` is the number of epochs of the search."""
    if check_profile(profile) not in MODEL:
        raise LabError(f"{EXPERIMENT} has no runs at profile {profile}: those are runs of the experiment precision")
    if name not in ("smol", "retrain"):
        raise LabError(f"unknown method {name!r}: choose smol or retrain")
    lam = {"lambda": LAMBDA.get(profile, precision.headline(profile)["lambda"])}
    made = precision.run(profile, name, seed, **(lam | options))
    training = made.config["training"] | {"evaluate_every": 1}
    total = training["epochs"] + training["finetune_epochs"]
    if search is not None:
        if not 0 < search < total:
            raise LabError(f"search must be from 1 to {total - 1} of {total} epochs, not {search}")
        training |= {"epochs": search, "finetune_epochs": total - search}
    return Run(EXPERIMENT, {**made.config, "model": MODEL[profile], "training": training}, profile, seed)


def runs(profile: str, seeds: tuple[int, ...] = (0, 1, 2)) -> list[Run]:
    """SMOL, and new weights at its precisions, for each seed; then the first seed's divisions of the epochs."""
    if check_profile(profile) not in MODEL:
        return []
    found = []
    for seed in seeds:
        found.append(run(profile, "smol", seed))
        found += [run(profile, "retrain", seed, shuffled=shuffled) for shuffled in (False, True)]
    return found + [run(profile, "smol", seeds[0], search) for search in SEARCH[profile]]
