"""How many zeros each declared penalty of l0 and decay of STR gives: ``python benchmarks/calibrate_sparsity.py``.

Both settings act through the learning rate, summed over the steps. So every pilot trains a ResNet-8 on the images of
profile ``quick`` for a few epochs, and scales the rate of the method's own variables until that sum is the profile's.
With so few steps the noise is larger than in the profile: a pilot says whether a grid spans its range, not which
accuracy to expect.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from lab.book import benchmarks
from lab.experiments.sparsity import pruning, rivals
from lab.runs import Run, runner
from lab.training import rate

IMAGES = {"cifar10": 50_000, "cifar10-mini-16": 2_000, "tiny-imagenet-32": 100_000, "imagenet": 1_281_167}
EPOCHS = {"quick": 4, "short": 4, "paper": 20}
"""Of a pilot: in fewer, the long way of ``paper`` would be a few steps so large that thresholds jump."""


def summed_rate(config: dict[str, Any]) -> float:
    """The sum over all steps of the search of the schedule's factor, with what momentum adds."""
    training = config["training"]
    steps = training["epochs"] * (IMAGES[config["data"]] // training["batch_size"])
    factors = sum(rate(training, step / steps) for step in range(steps))
    return factors / (1 - training["momentum"])


def pilot(run: Run) -> Run:
    """The small run that stands for a declared one."""
    protocol = pruning.PROTOCOL["quick"]
    epochs = EPOCHS[run.profile]
    training = protocol["training"] | {"epochs": epochs, "finetune_epochs": 0, "evaluate_every": epochs}
    config = {"model": "resnet8", "data": protocol["data"], "training": training}
    method = dict(run.config["method"])
    method |= {"draws": 1, "images": 64} if method["name"] == "l0" else {}
    method["lr"] *= summed_rate(run.config) / summed_rate(config)
    return Run("methods", config | {"method": method}, "quick", 0)


def grids() -> dict[str, list[Run]]:
    """The declared runs of each curve that a penalty or a decay makes, by method, network and profile."""
    found: dict[str, list[Run]] = {}
    for profile in ("quick", "short", "paper"):
        for run in [*rivals.runs(profile, (0,)), *rivals.resnet50.runs(profile, (0,))]:
            name, network = run.config["method"]["name"], run.config["model"].removesuffix("-small-images")
            if name in ("l0", "str") and network != "vgg16":  # there the settings of ResNet-20 are used
                found.setdefault(f"{name}, {network}, {profile}", []).append(run)
    return found


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
