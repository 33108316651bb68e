"""Do precisions need time, and does it matter which weight has which (5.5.2, 5.5.3: Figures 5.7, 5.8, Table 5.6)?

At profile ``paper`` these are runs of :mod:`lab.experiments.precision.weights`. Here are their reduced forms, with the
seeds that a difference needs: all epochs are divided anew between search and fine-tuning, and precisions are given to
new weights, in place or shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.runs import Run
from lab.runs.profiles import check_profile
from lab.utils.errors import LabError

from . import weights
from .few_bits import FewBits, known

MODEL = {"quick": "small CNN", "short": "resnet20"}
LAMBDA = {"quick": 4e-5}
"""Penalty, where it is not the headline's: the small network has a tenth of the weights."""
SEARCH = {"quick": (1, 3, 7), "short": (3, 6, 9, 15)}
"""Figure 5.7: epochs of the search, of as many as :mod:`lab.experiments.precision.weights` trains; its own division is
among all runs too."""


class Structure(FewBits):
    """SMOL with the epochs divided in several ways, and new weights at the precisions that it learned."""

    name = "structure"
    point = ("lambda", "shuffled")

    def run(self, profile: str, name: str, seed: int = 0, search: int | None = None, **options: Any) -> Run:
        """One run: ``run("quick", "retrain", shuffled=True)``; ``search`` is the number of epochs of the search."""
        if check_profile(profile) not in MODEL:
            raise LabError(f"{self.name} has no runs at profile {profile}: those are runs of the experiment precision")
        known("method", name, ("smol", "retrain"))
        penalty = {"lambda": LAMBDA.get(profile, weights.headline(profile)["lambda"])}
        plain = weights.run(profile, name, seed, **(penalty | options))
        training = plain.config["training"] | {"evaluate_every": 1}
        total = training["epochs"] + training["finetune_epochs"]
        if search is not None:
            if not 0 < search < total:
                raise LabError(f"search must be from 1 to {total - 1} of {total} epochs, not {search}")
            training |= {"epochs": search, "finetune_epochs": total - search}
        return Run(self.name, {**plain.config, "model": MODEL[profile], "training": training}, profile, seed)

    def runs(self, profile: str, seeds: Sequence[int] | None = None) -> list[Run]:
        """SMOL, and new weights at its precisions, for each seed; then the first seed's divisions of the epochs."""
        if check_profile(profile) not in MODEL:
            return []
        declared, seeds = [], seeds or (0, 1, 2)
        for seed in seeds:
            declared.append(self.run(profile, "smol", seed))
            declared += [self.run(profile, "retrain", seed, shuffled=shuffled) for shuffled in (False, True)]
        return declared + [self.run(profile, "smol", seeds[0], search) for search in SEARCH[profile]]


experiment = Structure()
run, runs = experiment.run, experiment.runs
