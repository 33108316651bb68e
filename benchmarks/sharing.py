"""What soft sharing costs: the training step of SWRN-28-4-2 over that of WRN-28-4, side by side.

    python benchmarks/sharing.py [--depth 28 --width 4 --templates 2] [--batch 32] [--repeats 15] [--device cpu]
    [--threads 1]

A step is forward, backward and Nesterov SGD with the thesis's weight decay. Rounds are interleaved and their order
alternates, so that what else the machine does hits both alike. Printed are the medians, the median over the rounds of
the ratio within a round, and the time that mixing alone takes (one matrix product a group), forward and backward. Needs
torch.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from lab.book import benchmarks
from lab.models import swrn, wrn
from principled import Relaxed, decay_groups


def stepper(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    groups = (
        decay_groups(net, 5e-4) if isinstance(net, Relaxed) else [{"params": net.parameters(), "weight_decay": 5e-4}]
    )
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step


def mixer(net: Relaxed) -> Callable[[], None]:
    (sharing,) = net.relaxations

    def step() -> None:
        sum(weight.sum() for weight in sharing({}).values()).backward()

    return step


def timed(step: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in {"depth": 28, "width": 4, "templates": 2, "batch": 32, "repeats": 15, "threads": 1}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    benchmarks.option(parser)
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    report = benchmarks.Report(__file__, device)
    images = torch.randn(asked.batch, 3, 32, 32).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (asked.batch,), device=device)
    plain, shared = (net.to(device, memory_format=torch.channels_last) for net in (
        wrn(asked.depth, asked.width), swrn(asked.depth, asked.width, asked.templates)
    ))  # fmt: skip
    steps = {
        "plain": stepper(plain, images, labels),
        "shared": stepper(shared, images, labels),
        "mixing": mixer(shared),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in (*steps.values(), *steps.values()):  # warm up
        step()
    for repeat in range(asked.repeats):
        for name in list(steps)[:: 1 if repeat % 2 else -1]:
            seconds[name].append(timed(steps[name], device))

    names = {
        "plain": f"WRN-{asked.depth}-{asked.width}",
        "shared": f"SWRN-{asked.depth}-{asked.width}-{asked.templates}",
        "mixing": "its mixing alone",
    }
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()}, {asked.threads} thread(s)"
    )
    print(f"torch {torch.__version__}, {where}, batch {asked.batch}, {asked.repeats} interleaved rounds")
    for name, times in seconds.items():
        print(f"{names[name]:<20} median {statistics.median(times) * 1e3:8.1f} ms   least {min(times) * 1e3:8.1f} ms")
    ratios = [shared / plain for shared, plain in zip(seconds["shared"], seconds["plain"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    goal = 1.03 if device.type == "cuda" else 1.05
    report.ratio(f"training step, {names['shared']} over {names['plain']}", statistics.median(ratios), at_most=goal)
    alone = [mixing / plain for mixing, plain in zip(seconds["mixing"], seconds["plain"], strict=True)]
    report.ratio(f"mixing alone, over a step of {names['plain']}", statistics.median(alone))
    report.write(asked.json)
    print(f"step ratio shared / plain: {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
