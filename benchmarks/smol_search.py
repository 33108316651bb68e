"""At how many bits does a search of SMOL end, by penalty and rate of s? ``python benchmarks/smol_search.py``.

The searches that profile ``short`` declares for a ResNet-20, at reduced size: the embedded images at 16x16, fewer steps, and the
rate of s raised by the same factor, so that s could travel as far. Adam divides by the gradient's size, noise included; a
penalty that is small beside the noise moves s by a small share of the rate, and how small only a search can tell. The
first point is one whose full search is recorded (``data/runs/precision``): how far the two are apart says how far to trust the rest.
"""

from __future__ import annotations

import argparse

import torch

from lab.book import benchmarks
from lab.datasets import load
from lab.experiments.precision import few_bits, weights
from lab.models import resnet20
from lab.training import Classification, Trainer

DATA = "cifar10-mini-16"
KNOWN = ("weight", 1e-6, 2e-3)
"""Granularity, penalty and rate of a full search that is recorded."""
Point = tuple[str | int, float, float]


def declared() -> list[Point]:
    """Granularity, penalty and rate of every search of SMOL that ``short`` declares, each once."""
    methods = [run.config["method"] for run in weights.runs("short") if run.config["method"]["name"] == "smol"]
    return list(dict.fromkeys((m["granularity"], m["lambda"], m["lr_s"]) for m in methods))


def name(point: Point) -> str:
    """``one precision a weight, λ = 4e-06, rate 0.004``; blocks of 16 are called so."""
    granularity, penalty, rate = point
    kind = f"blocks of {granularity}" if isinstance(granularity, int) else f"one precision a {granularity}"
    return f"{kind}, λ = {penalty:g}, rate {rate:g}"


def bits_after_search(point: Point, steps: int) -> float:
    """Bits a weight, rounded down, at the end of a search of about ``steps`` steps."""
    granularity, penalty, rate = point
    run = weights.run("short", "smol", **{"granularity": granularity, "lambda": penalty})
    data = load(DATA, "train"), load(DATA, "test")
    task = Classification(data, run.config["training"])
    epochs = max(1, round(steps / task.steps))
    training = run.config["training"] | {"epochs": epochs, "finetune_epochs": 0, "evaluate_every": epochs}
    full_steps = run.config["training"]["epochs"] * (50_000 // training["batch_size"])
    method = run.config["method"] | {"lr_s": rate * full_steps / (epochs * task.steps)}
    torch.manual_seed(run.seed)
    trainer = Trainer("pilot", resnet20(), few_bits.method(method, run.seed), training, task)
    trainer.run()
    return trainer.curve[-1]["bits"]


def point(text: str) -> Point:
    """``weight:1e-6:2e-3`` as a point."""
    granularity, penalty, rate = text.split(":")
    return int(granularity) if granularity.isdigit() else granularity, float(penalty), float(rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="of each search; short's have 4,680")
    parser.add_argument("points", nargs="*", type=point, help="granularity:penalty:rate; default what is declared")
    benchmarks.option(parser)
    args = parser.parse_args()
    report = benchmarks.Report(__file__)
    for each in dict.fromkeys(args.points or [KNOWN, *declared()]):
        bits = bits_after_search(each, args.steps)
        print(f"{name(each)}: {bits:.2f} bits", flush=True)
        report.ratio(name(each), bits, unit="bits")
    report.write(args.json)


if __name__ == "__main__":
    main()
