"""What the allocator adds to a training step on one core: ResNet-20, batch 128. ``python benchmarks/step.py``.

Each way of keeping memory trains in fresh single-threaded processes, in turns: as it comes; with malloc told to keep
what is freed; with large pages too, which is how :mod:`lab.runs.runner` starts its processes. Printed are processor
time and page faults a step, and the time relative to the first way. Processor time is what neighbours on the machine
disturb least.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import torch

from lab.book import benchmarks
from lab.datasets import load
from lab.models import resnet20
from lab.runs.worker import LARGE_PAGES, keep_memory
from lab.training import Classification, gains_from_bf16, sgd

BATCH = 128
TRAINING = {"batch_size": BATCH, "lr": 0.1, "momentum": 0.9, "nesterov": True}
WAYS = {"as it comes": (False, {}), "memory kept": (True, {}), "memory kept, large pages": (True, LARGE_PAGES)}


def train(keep: bool, steps: int) -> tuple[list[float], float]:
    """Processor seconds of each step, and page faults a step."""
    torch.set_num_threads(1)
    if keep:
        keep_memory()
    data = load("cifar10-mini", "train")
    net = resnet20().to(memory_format=torch.channels_last).train()
    optimizer = sgd([{"params": list(net.parameters()), "weight_decay": 5e-4}], TRAINING)
    task = Classification((data, data), TRAINING)
    seconds: list[float] = []
    epoch = 0
    while len(seconds) < steps + 5:
        for batch in task.batches(0, epoch, 0):
            if len(seconds) == 5:  # the first ones warm up
                faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            begun = time.process_time()
            task.loss(net, batch).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.process_time() - begun)
            if len(seconds) == steps + 5:
                break
        epoch += 1
    return seconds[5:], (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="steps of each process (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=4, help="processes of each way (default: %(default)s)")
    benchmarks.option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as each process below does
    report = benchmarks.Report(__file__)
    precision = "bfloat16" if gains_from_bf16(torch.device("cpu")) else "float32"
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, one thread, {precision}, batch {BATCH}")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    faults: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way, (keep, pages) in WAYS.items():
            context = multiprocessing.get_context("spawn")
            with mock.patch.dict(os.environ, pages), ProcessPoolExecutor(1, context) as pool:
                times, count = pool.submit(train, keep, options.steps).result()
            seconds[way] += times
            faults[way].append(count)
    usual = statistics.median(seconds["as it comes"])
    for way, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{way:>25}: median {1e3 * median:6.1f} ms, least {1e3 * min(times):6.1f} ms a step, "
            f"{median / usual:.3f} of the first; {statistics.mean(faults[way]):7.0f} page faults a step"
        )
        if way != "as it comes":
            report.ratio(f"processor time of a step, {way}, over as it comes", median / usual)
    report.write(options.json)


if __name__ == "__main__":
    main()
