"""How many zeros each declared penalty of l0 and decay of STR gives: ``python benchmarks/calibrate_sparsity.py``.

Both settings act through the learning rate, summed over the steps. So every pilot trains a ResNet-8 on the images of
profile ``quick`` for four epochs, and scales the rate of the method's own variables until that sum is the profile's.
With so few steps the noise is larger than in the profile: a pilot says whether a grid spans its range, not which
accuracy to expect. STR at ``paper`` has none: its thresholds would jump. It has the published decays on their way.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from lab.book import benchmarks
from lab.experiments.sparsity import pruning, rivals
from lab.runs import Run, runner
from lab.training import rate

IMAGES = {"cifar10": 50_000, "cifar10-mini-16": 2_000, "tiny-imagenet-32": 100_000, "imagenet": 1_281_167}
"""Training images of each set."""


def summed_rate(config: dict[str, Any]) -> float:
    """The sum over all steps of the search of the schedule's factor, with what momentum adds."""
    training = config["training"]
    steps = training["epochs"] * (IMAGES[config["data"]] // training["batch_size"])
    factors = sum(rate(training, step / steps) for step in range(steps))
    return factors / (1 - training["momentum"])


def pilot(run: Run) -> Run:
    """The small run that stands for a declared one."""
    protocol = pruning.PROTOCOL["quick"]
    training = protocol["training"] | {"epochs": 4, "finetune_epochs": 0, "evaluate_every": 4}
    config = {"model": "resnet8", "data": protocol["data"], "training": training}
    method = dict(run.config["method"])
    method |= {"draws": 1, "images": 64} if method["name"] == "l0" else {}
    method["lr"] *= summed_rate(run.config) / summed_rate(config)
    return Run("methods", config | {"method": method}, "quick", 0)


def grids() -> dict[str, list[Run]]:
    """The declared runs of each curve of ResNet-20 that a penalty or a decay makes, by method and profile."""
    curves: dict[str, list[Run]] = {}
    for profile in ("quick", "short", "paper"):
        for run in rivals.runs(profile, (0,)):
            name = run.config["method"]["name"]
            piloted = name == "l0" or (name == "str" and profile != "paper")
            if piloted and run.config["model"] == "resnet20":
                curves.setdefault(f"{name}, {profile}", []).append(run)
    return curves


def label(grid: str, run: Run) -> str:
    """What the pilot of a run is called in the record."""
    method = run.config["method"]
    option = "lambda" if method["name"] == "l0" else "decay"
    return f"{grid}, {option} = {method[option]:g}"


def main() -> None:
    """Train every pilot that is not recorded yet, and note its zeros."""
    parser = ArgumentParser(description=__doc__)
    benchmarks.option(parser)
    args = parser.parse_args()
    report = benchmarks.Report(__file__)
    pilots = {label(grid, run): pilot(run) for grid, declared in grids().items() for run in declared}
    for name, record in zip(pilots, runner.execute(list(pilots.values()), workers=1, progress=False), strict=True):
        report.ratio(name, 100 * record["figures"]["sparsity"], unit="%")
    report.write(args.json)


if __name__ == "__main__":
    main()
