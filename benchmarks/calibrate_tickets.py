"""How many zeros each declared start of a search in rounds gives: ``python benchmarks/calibrate_tickets.py``.

Continuous Sparsification has no setting for its zeros; its start moves them. Every pilot is a search without the
re-training of its tickets, with the profile's rounds, few steps in each, and the rate of s raised. Under SGD it is
raised until the rate, summed over the steps, is the profile's. Adam takes steps of its rate whatever the gradient's
size: where gradients agree, its way grows as the steps, where they are noise, as their root. So Conv-6, whose s Adam
trains, has a pilot of either kind, and the run lies between. At ``short`` its starts go beyond the thesis's 0.1, for
with that neither kind kept more than 38 % after a round. The network is a ResNet-8 at 16x16 for a ResNet-20 and a
VGG-16, a narrow Conv-6 for a Conv-6; of each grid the ends are tried. IMP and Sequential CS remove a given share a
round: no pilot. Profile ``quick`` needs none either, its searches are recorded.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from calibrate_sparsity import IMAGES, recorded, summed_rate

from lab.book import benchmarks
from lab.experiments.sparsity import tickets
from lab.experiments.sparsity.common import where
from lab.runs import Run
from lab.training import Trainer, chance
from principled.tickets import begin_round, plain_state, take_ticket

EPOCHS = {"resnet20": 3, "vgg16": 3, "conv6": 1}
"""Epochs of a pilot's round, by network."""


def grids() -> dict[str, list[Run]]:
    """The searches by CS that each profile declares on a network, from the lowest start to the highest."""
    curves = {}
    for network in ("resnet20", "conv6"):  # VGG-16 has the starts, rounds and rates of ResNet-20
        for profile in ("short", "paper"):
            declared = tickets.searches(profile, network, (0,))
            curve = [run for run in declared if run.config["method"]["name"] == "cs"]
            curves[f"{network}, {profile}"] = sorted(curve, key=lambda run: run.config["method"]["s_init"])
    return curves


def tried(curve: list[Run]) -> list[Run]:
    """The searches of a grid that have a pilot: its ends."""
    return [curve[0], curve[-1]]


def pilot(network: str, run: Run, noise: bool = False) -> Run:
    """The small search that stands for a declared one; ``noise``: under Adam, the rate raised by the root of the
    steps."""
    protocol = tickets.PROTOCOLS[network]["quick"]
    training = protocol["training"] | {"epochs": EPOCHS[network], "evaluate_every": EPOCHS[network]}
    config: dict[str, Any] = {"model": protocol["model"], "data": protocol["data"], "training": training}
    way = steps if adam(run) else summed_rate
    method = dict(run.config["method"])
    method["lr_s"] *= (way(run.config) / way(config)) ** (0.5 if noise else 1)
    return Run("tickets", config | {"method": method}, "quick", 0)


def adam(run: Run) -> bool:
    """Whether Adam trains the mask of a search."""
    return bool(run.config["training"].get("optimizer") == "adam")


def steps(config: dict[str, Any]) -> float:
    """Steps of a round."""
    training = config["training"]
    return float(training["epochs"] * (IMAGES[config["data"]] // training["batch_size"]))


def zeros(run: Run) -> list[float]:
    """Share of zeros of the ticket of each round."""
    experiment, config, training = tickets.experiment, run.config["method"], run.config["training"]
    method = tickets.METHODS[config["name"]]
    task = experiment.task(run, torch.device("cpu"))
    torch.manual_seed(run.seed)
    net = method(config, where(run)).relaxed(experiment.network(run))
    start, momentum, shares = plain_state(net), None, []
    for r in range(1, config["rounds"] + 1):
        if r > 1:
            begin_round(net, start if config["rewind"] else None)
        state = method(config, where(run), momentum=None if config["rewind"] else momentum)
        Trainer(f"pilot-{r}", net, state, training, task, seed=chance(run.seed, r)).run()
        momentum = [optimizer.state_dict() for optimizer in state.made]
        shares.append(take_ticket(net, r, start).sparsity())
    return shares


def label(grid: str, run: Run, round: int, noise: bool) -> str:
    """What a round of a search's pilot is called in the record."""
    kind = f", {'as noise' if noise else 'as drift'}" if adam(run) else ""
    return f"{grid}{kind}, s_init = {run.config['method']['s_init']:g}, round {round}"


def main() -> None:
    """Try the ends of every grid, and note the zeros after the first round and the last.

    What the file of ``--json`` has already is kept, and it is written after each search; delete it to try all anew.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    benchmarks.option(parser)
    args = parser.parse_args()
    report, known = benchmarks.Report(__file__), recorded(args.json)
    for grid, curve in grids().items():
        for noise in (False, True) if adam(curve[0]) else (False,):
            for run in tried(curve):
                names = [label(grid, run, r, noise) for r in (1, run.config["method"]["rounds"])]
                if not all(name in known for name in names):
                    shares = zeros(pilot(grid.partition(",")[0], run, noise))
                    known |= {name: 100 * share for name, share in zip(names, (shares[0], shares[-1]), strict=True)}
                for name in names:
                    print(f"{name}: {known[name]:.1f} % zeros", flush=True)
                    report.ratio(name, known[name], unit="%")
                report.write(args.json)


if __name__ == "__main__":
    main()
