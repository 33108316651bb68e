"""What learning precisions costs: a training step with SMOL over the plain network's, and the quantiser over a clamp.

Run ``python benchmarks/smol.py [--device cuda] [--steps 40]``. Both networks train as lab.training trains: mini
CIFAR-10, batch 128, channels_last, mixed precision where the device gains by it, fused SGD; SMOL adds noise, penalty,
Adam on s and the clip of the weights. Steps alternate, so that a busy machine slows both. Goals: 1.08 for the step, 3
for the quantiser.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from lab.book import benchmarks
from lab.datasets import load
from lab.datasets.batches import batches
from lab.models import resnet20
from lab.training import autocast, pick_device
from principled import Relaxed, Smol
from principled.quantize import quantize


def step_of(net: torch.nn.Module, smol: Smol | None, device: torch.device) -> Callable[..., None]:
    """One training step of a network, as a function of a batch."""
    weights = [p for n, p in net.named_parameters() if not n.startswith("relaxations.")]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)
    ]
    if smol is not None:
        optimizers.append(torch.optim.Adam([smol.s], lr=1e-3, fused=True))

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        with autocast(device):
            outputs = net(images)
        loss = F.cross_entropy(outputs.float(), labels)
        (loss if smol is None else loss + 1e-6 * net.penalty()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if smol is not None:
            smol.clip_(dict(net.net.named_parameters()))

    return step


def seconds(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall time, and the processor time of all threads, which others on the machine disturb less."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun, time.process_time() - used


def training_step(device: torch.device, steps: int, report: benchmarks.Report) -> None:
    data = load("cifar10-mini", "train").to(device)
    ready = list(batches(data, 128, seed=0, epoch=0))
    plain = resnet20().to(device, memory_format=torch.channels_last)
    smol = Smol()
    relaxed = Relaxed(resnet20().to(device, memory_format=torch.channels_last), smol)
    runs = {"plain": step_of(plain, None, device), "SMOL": step_of(relaxed, smol, device)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for i in range(steps + 3):
        for name in sorted(runs, reverse=bool(i % 2)):  # neither is always the first
            taken = seconds(lambda name=name, i=i: runs[name](*ready[i % len(ready)]), device)
            if i >= 3:  # the first ones warm up
                times[name].append(taken)
    for clock, what in enumerate(("wall", "processor")):
        ours, theirs = ([t[clock] for t in times[name]] for name in ("SMOL", "plain"))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(
            f"{what + ' time of a step':>26}: plain {1e3 * statistics.median(theirs):7.2f} ms, SMOL "
            f"{1e3 * statistics.median(ours):7.2f} ms; SMOL / plain, median of {steps} pairs {ratio:.3f}, best over "
            "best "
            f"{min(ours) / min(theirs):.3f}"
        )
        report.ratio(f"training step, SMOL over plain, {what} time", ratio, at_most=1.08)
    print(f"{'':>26}  goal: 1.08")


def quantiser(device: torch.device, report: benchmarks.Report, count: int = 10_000_000) -> None:
    w = torch.randn(count, device=device)
    p = torch.randint(0, 9, (count,), dtype=torch.int8, device=device)
    compiled = torch.compile(quantize, fullgraph=True)
    if not torch.equal(compiled(w, p), quantize(w, p)):
        raise SystemExit("the compiled quantiser differs from the eager one")
    works: dict[str, Callable[[], object]] = {
        "torch.clamp": lambda: torch.clamp(w, -1.0, 1.0),
        "quantize, eager, checked": lambda: quantize(w, p),
        "quantize, compiled": lambda: compiled(w, p),
    }
    times = {name: statistics.median([seconds(work, device)[0] for _ in range(9)][2:]) for name, work in works.items()}
    for name, taken in times.items():
        print(f"{name:>26}: {1e3 * taken:8.2f} ms, {taken / times['torch.clamp']:.2f} x clamp")
    for name, most in (("quantize, eager, checked", None), ("quantize, compiled", 3.0)):
        what = f"{name}, over torch.clamp, {count:,} weights"
        report.ratio(what, times[name] / times["torch.clamp"], at_most=most)
    print(f"{'':>26}  goal for the compiled one: 3; {count:,} weights of 0 to 8 bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each network")
    benchmarks.option(parser)
    args = parser.parse_args()
    device = pick_device(args.device)
    report = benchmarks.Report(__file__, device)
    torch.manual_seed(0)
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {platform.machine()}, {what}")
    training_step(device, args.steps, report)
    quantiser(device, report)
    report.write(args.json)


if __name__ == "__main__":
    main()
