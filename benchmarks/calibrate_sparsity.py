"""How many zeros each declared setting of one-shot pruning gives: ``python benchmarks/calibrate_sparsity.py``.

Penalties, decays and starts act through the rate of the method's own variables, summed over the steps. So every pilot
trains a ResNet-8 on the images of profile ``quick`` for a few epochs, and scales that rate until the sum is the
profile's. The first rows check this: one setting, at twice and four times the steps, and its full run, which is
recorded. With so few steps the noise is larger than in the profile: a pilot says whether a grid spans its range, not
which accuracy to expect. A method that is given its share of zeros needs no pilot, and profile ``quick`` none either:
its runs are recorded. Nor do the settings of a ResNet-50 at ``paper``, which are the thesis's or on a published way.
STR at ``paper`` cannot have one so short: its thresholds come from -3200, and where rate times decay is above
(1 - sqrt(0.9))^2, as in a pilot, momentum throws them past zero. Its decays are on a way as long as the published ones.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lab.book import benchmarks
from lab.experiments.sparsity import pruning, rivals
from lab.runs import Run
from lab.training import rate

IMAGES = {
    "cifar10": 50_000,
    "cifar10-mini": 2_000,
    "cifar10-mini-16": 2_000,
    "tiny-imagenet-32": 100_000,
    "imagenet": 1_281_167,
}
"""Training images of each set."""
SETTING = {"l0": "lambda", "str": "decay", "cs": "s_init"}
"""What moves the share of zeros, of each method that is not given it and that the thesis has a table or figure of."""
EPOCHS = {"short": 4, "paper": 8}
"""Epochs of a pilot, by profile: the longer schedule is scaled more. Gates of l0, whose rate is high, do with four."""
KNOWN = pruning.run("short", "cs", s_init=-0.05)
"""A run that is recorded in full (``data/runs/pruning``)."""


def summed_rate(config: dict[str, Any]) -> float:
    """The sum over all steps of the search of the schedule's factor, with what momentum adds."""
    training = config["training"]
    steps = training["epochs"] * (IMAGES[config["data"]] // training["batch_size"])
    factors = sum(rate(training, step / steps) for step in range(steps))
    return factors / (1 - training["momentum"])


def pilot(run: Run, epochs: int | None = None) -> Run:
    """The small run that stands for a declared one; ``epochs``: default :data:`EPOCHS`."""
    protocol = pruning.PROTOCOL["quick"]
    epochs = epochs or (4 if run.config["method"]["name"] == "l0" else EPOCHS[run.profile])
    training = protocol["training"] | {"epochs": epochs, "finetune_epochs": 0, "evaluate_every": epochs}
    config = {"model": "resnet8", "data": protocol["data"], "training": training}
    method = dict(run.config["method"])
    method |= {"draws": 1, "images": 64} if method["name"] == "l0" else {}
    method["lr_s" if "lr_s" in method else "lr"] *= summed_rate(run.config) / summed_rate(config)
    return Run("methods", config | {"method": method}, "quick", 0)


def grids() -> dict[str, list[Run]]:
    """The declared runs of each curve whose zeros are not given, by method, network and profile."""
    curves: dict[str, list[Run]] = {}
    for profile in EPOCHS:
        declared = [*pruning.runs(profile, (0,)), *rivals.runs(profile, (0,))]
        declared += rivals.resnet50.runs(profile) if profile == "short" else []
        for run in declared:
            name, network = run.config["method"]["name"], run.config["model"]
            if name in SETTING and (name, profile) != ("str", "paper"):
                curves.setdefault(f"{name}, {network}, {profile}", []).append(run)
    return {grid: sorted(curve, key=lambda run: setting(run)) for grid, curve in curves.items()}


def setting(run: Run) -> float:
    """The option of a run's method that moves its zeros."""
    method = run.config["method"]
    return float(method[SETTING[method["name"]]])


def label(grid: str, run: Run) -> str:
    """What the pilot of a run is called in the record."""
    return f"{grid}, {SETTING[run.config['method']['name']]} = {setting(run):g}"


def pilots() -> dict[str, Run]:
    """Every pilot by what it is called; two curves may have the same."""
    checks = {f"check: CS at short, s_init = -0.05, {31 * e} steps": pilot(KNOWN, e) for e in (4, 8, 16)}
    return checks | {label(grid, run): pilot(run) for grid, curve in grids().items() for run in curve}


def recorded(file: Path | None) -> dict[str, float]:
    """What a file of an earlier call holds, by name; nothing if there is none."""
    if file is None or not file.exists():
        return {}
    return {row["name"]: row["value"] for row in json.loads(file.read_text(encoding="utf-8"))["ratios"]}


def zeros(run: Run) -> float:
    """Share of zeros, in percent, at the end of a pilot."""
    with TemporaryDirectory() as folder:
        result = run.module.compute(
            run, torch.device("cpu"), Path(folder) / "checkpoint", lambda epoch: None, lambda: False
        )
    return float(100 * result["figures"]["sparsity"])


def main() -> None:
    """Train every pilot, and note its zeros.

    What the file of ``--json`` has already is kept, and it is written after each pilot; delete it to train all anew.
    """
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    benchmarks.option(parser)
    args = parser.parse_args()
    report, known, named = benchmarks.Report(__file__), recorded(args.json), pilots()
    done = {named[name].id: value for name, value in known.items() if name in named}
    for name, run in named.items():
        if run.id not in done:
            done[run.id] = zeros(run)
            print(f"{name}: {done[run.id]:.1f} % zeros", flush=True)
        report.ratio(name, done[run.id], unit="%")
        report.write(args.json)


if __name__ == "__main__":
    main()
