"""How long one optimizer step takes, side by side: AvaGrad's forms, torch's Adam, and the published AvaGrad.

    python benchmarks/optimizers.py [--networks ResNet-20 WRN-28-10] [--repeats 15] [--threads 1]

Every optimizer works on the same parameters and gradients. Rounds are interleaved: in each, every optimizer makes its
steps once, so that what else the machine does hits all alike. Printed are the median and the minimum over the rounds,
and the ratio of the minima to Adam's. Needs torch; `pip install pytorch_optimizer` adds the published AvaGrad to the
table.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from lab.book import benchmarks
from principled.avagrad import AvaGrad

try:
    from pytorch_optimizer import AvaGrad as PublishedAvaGrad
except ImportError:
    PublishedAvaGrad = None

Shapes = list[tuple[int, ...]]


def wide_resnet(depth: int = 28, widen: int = 10, classes: int = 10) -> Shapes:
    """Parameter shapes of a Wide ResNet (pre-activation, 1x1 shortcuts where the width changes), in no particular
    order."""
    shapes: Shapes = [(16, 3, 3, 3)]
    width = 16
    for out in (16 * widen, 32 * widen, 64 * widen):
        for _ in range((depth - 4) // 6):
            shapes += [(width,), (width,), (out, width, 3, 3), (out,), (out,), (out, out, 3, 3)]
            if width != out:
                shapes.append((out, width, 1, 1))
            width = out
    return [*shapes, (width,), (width,), (classes, width), (classes,)]


def resnet20(classes: int = 10) -> Shapes:
    """Parameter shapes of the ResNet-20 of Chapter 4: bias-free 1x1 shortcuts without batch normalisation."""
    shapes: Shapes = [(16, 3, 3, 3), (16,), (16,)]
    width = 16
    for out in (16, 32, 64):
        for _ in range(3):
            shapes += [(out, width, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if width != out:
                shapes.append((out, width, 1, 1))
            width = out
    return [*shapes, (classes, width), (classes,)]


NETWORKS = {"ResNet-20": (resnet20(), 272_282, 20), "WRN-28-10": (wide_resnet(), 36_479_194, 1)}
"""Name: shapes, the parameter count they must add up to, steps a round."""

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "Adam(fused=True)": lambda p: torch.optim.Adam(p, fused=True),
    "Adam(foreach=True)": lambda p: torch.optim.Adam(p, foreach=True),
    "AvaGrad()": lambda p: AvaGrad(p),
    "AvaGrad(fused=True)": lambda p: AvaGrad(p, fused=True),
    "AvaGrad(fused=False)": lambda p: AvaGrad(p, fused=False),
    "AvaGrad(foreach=True)": lambda p: AvaGrad(p, foreach=True),
}
if PublishedAvaGrad is not None:
    OPTIMIZERS["pytorch_optimizer.AvaGrad"] = PublishedAvaGrad

TARGETS = (  # numerator, denominator, at most, on which networks
    ("AvaGrad()", "Adam(fused=True)", 1.3, ("ResNet-20", "WRN-28-10")),
    ("AvaGrad(fused=True)", "Adam(fused=True)", 1.3, ("ResNet-20", "WRN-28-10")),
    ("AvaGrad(fused=False)", "Adam(foreach=True)", 1.1, ("ResNet-20", "WRN-28-10")),
    ("AvaGrad(fused=True)", "pytorch_optimizer.AvaGrad", 1 / 8, ("WRN-28-10",)),
)


def measure(name: str, repeats: int, report: benchmarks.Report) -> None:
    """Time every optimizer on one network and print its table and targets."""
    shapes, count, steps = NETWORKS[name]
    if (total := sum(math.prod(shape) for shape in shapes)) != count:
        sys.exit(f"{name}: its shapes hold {total:,} parameters, not {count:,}")
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(0.05 * torch.randn(shape, generator=generator)) for shape in shapes]
    for p in params:
        p.grad = 0.01 * torch.randn(p.shape, generator=generator)
    optimizers = {label: make(params) for label, make in OPTIMIZERS.items()}
    first, times = {}, {label: [] for label in optimizers}
    for label, optimizer in optimizers.items():  # the first step makes the state, and compiles
        start = time.perf_counter()
        optimizer.step()
        first[label] = time.perf_counter() - start
        optimizer.step()
    for _ in range(repeats):
        for label, optimizer in optimizers.items():
            start = time.perf_counter()
            for _ in range(steps):
                optimizer.step()
            times[label].append((time.perf_counter() - start) / steps * 1e3)
    least = {label: min(t) for label, t in times.items()}
    print(f"\n{name}: {count:,} parameters in {len(shapes)} tensors, {repeats} rounds of {steps} step(s)")
    print(f"  {'':28}{'median ms':>10}{'min ms':>10}{'/ Adam fused':>14}{'/ Adam foreach':>16}{'first step s':>14}")
    for label, t in times.items():
        ratios = (least[label] / least[base] for base in ("Adam(fused=True)", "Adam(foreach=True)"))
        fused, foreach = ratios
        print(
            f"  {label:28}{statistics.median(t):10.3f}{least[label]:10.3f}{fused:13.2f}x"
            f"{foreach:15.2f}x{first[label]:14.1f}"
        )
    for ours, theirs, most, networks in TARGETS:
        if name in networks and theirs in times:
            ratio = least[ours] / least[theirs]
            median = statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True))
            verdict = "reached" if ratio <= most else "MISSED"
            print(f"  {ours} / {theirs}: {ratio:.3f} (median of rounds {median:.3f}), target <= {most:.3f}: {verdict}")
            report.ratio(f"{name}: a step of {ours} over {theirs}", ratio, at_most=most)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    benchmarks.option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = benchmarks.Report(__file__)
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, {arguments.threads} "
        "thread(s)"
    )
    if PublishedAvaGrad is None:
        print("pytorch_optimizer is not installed: its AvaGrad is left out (pip install pytorch_optimizer)")
    for name in arguments.networks:
        measure(name, arguments.repeats, report)
    report.write(arguments.json)


if __name__ == "__main__":
    main()
