"""How many bits do the other penalties of Chapter 5 give? ``python benchmarks/calibrate_bits.py``.

BSQ's penalty acts through the rate, summed over the steps. So its pilot trains the ResNet-20 on the images of profile
``quick``, for as many epochs, with a penalty that makes penalty times summed rate the profile's; two rows check this
at other numbers of steps: few steps leave too many bits. SMOL on MobileNetV2, ShuffleNet and Conv-6 (a narrow one), and
on activations, is searched as in ``smol_search.py``, on fewer and smaller batches, with the rate of s raised as the
steps shrink; the last row does so on a ResNet-20, which ``smol_search.py`` tried with five times the steps and full
batches: it ends 0.8 bits above. At ``paper`` the penalties of SMOL are the thesis's, those of activations and of Conv-6
this book's: no pilot.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from calibrate_sparsity import IMAGES, recorded, summed_rate

from lab.book import benchmarks
from lab.experiments.precision import activations, scales, small_networks, weights
from lab.runs import Run
from lab.training import Trainer

NEEDS = "a quarter of an hour of an idle core"
BATCH = 32
"""Images a step of a search of SMOL: a step of 128 takes these networks seconds on one core."""


def declared() -> dict[str, Run]:
    """A run of each penalty that has a pilot, by what the pilot is called."""
    runs = {f"BSQ, {profile}": weights.run(profile, "bsq") for profile in ("short", "paper")}
    for run in small_networks.runs("short", (0,)):
        method = run.config["method"]
        if method["name"] == "smol":
            runs[f"SMOL, {run.config['model']}, short, lambda = {method['lambda']:g}"] = run
    for run in activations.runs("short", (0,)):
        method = run.config["method"]
        if method["name"] == "smol-a":
            runs[f"SMOL-A, short, lambda = {method['lambda']:g}"] = run
    for run in scales.runs("short", (0,)):
        method = run.config["method"]
        if method["name"] == "smol" and run.config["model"] == "conv6":  # a ResNet-20's penalties are smol_search.py's
            runs[f"SMOL, conv6, short, scale {method['scale']}, lambda = {method['lambda']:g}"] = run
    return runs


def pilot(run: Run, epochs: int | None = None) -> Run:
    """The small search that stands for a declared run; ``epochs``: of BSQ's, default those of profile ``quick``."""
    quick, method = weights.PROTOCOL["quick"], dict(run.config["method"])
    config: dict[str, Any] = {"model": run.config["model"], "data": quick["data"], "method": method}
    if run.config["model"] == "conv6":  # its linear layers fit images of 32 pixels
        config |= {"model": scales.SMALL["conv6"], "data": "cifar10-mini"}
    if method["name"] == "bsq":
        training = quick["training"] | {"epochs": epochs or quick["training"]["epochs"]}
    else:
        training = run.config["training"] | {"epochs": 1, "batch_size": BATCH}
    config["training"] = training | {"finetune_epochs": 0, "evaluate_every": training["epochs"]}
    if method["name"] == "bsq":
        method["lambda"] *= summed_rate(run.config) / summed_rate(config)
    else:
        method["lr_s"] *= steps(run.config) / steps(config)
    return Run(run.experiment, config, "quick", run.seed)


def steps(config: dict[str, Any]) -> int:
    """Steps of the search."""
    return int(config["training"]["epochs"] * (IMAGES[config["data"]] // config["training"]["batch_size"]))


def bits(run: Run) -> float:
    """Bits a weight at the end of a search."""
    experiment = run.module
    task = experiment.task(run, torch.device("cpu"))
    torch.manual_seed(run.seed)
    method = experiment.method(run, task)
    trainer = Trainer("pilot", experiment.network(run), method, run.config["training"], task, seed=run.seed)
    trainer.run()
    return trainer.curve[-1]["bits"]


def main() -> None:
    """Search with every pilot, and note its bits.

    What the file of ``--json`` has already is kept, and it is written after each search; delete it to try all anew.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    benchmarks.option(parser)
    args = parser.parse_args()
    report, known = benchmarks.Report(__file__), recorded(args.json)
    pilots = {name: pilot(run) for name, run in declared().items()}
    for epochs in (3, 10):
        small = pilot(declared()["BSQ, short"], epochs)
        pilots[f"check: BSQ, short, {steps(small.config)} steps"] = small
    pilots["check: SMOL, resnet20, short, lambda = 4e-06"] = pilot(weights.run("short", "smol", **{"lambda": 4e-6}))
    for name, small in pilots.items():
        if name not in known:
            known[name] = bits(small)
        print(f"{name}: {known[name]:.2f} bits", flush=True)
        report.ratio(name, known[name], unit="bits")
        report.write(args.json)


if __name__ == "__main__":
    main()
