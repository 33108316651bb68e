"""Several runs at once on one device: what is fastest? ``python benchmarks/engine.py --device cuda``.

All contenders train ResNet-20 (dense, batch 128) on the same images with the same settings, each in fresh processes
that warm up first, one after the other in this one call: the loop that most people write; one run of ``lab.training``
that starts its kernels one by one; one whose step is a CUDA graph; k such graphs on k streams of one process; k
networks as one, through ``vmap`` and ``torch.compile``; k processes with a graph each, without and with NVIDIA's MPS.
Printed are epochs a second over all k runs (an
epoch: 50,000 images), how many times that of one run kernel by kernel, and the device's memory.

``--check`` is the first thing to do on a new device: does a replayed step give what the loop gives there, and does that
follow what the CPU gives from the same draws? Then WRN-28-10's share of the matrix rate: ``--wide``. On a CPU
everything that exists there runs with few images, so that this file is known to work.
"""

import argparse
import dataclasses
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from epoch import SETTINGS, first, usual

from lab.book import benchmarks
from lab.datasets import load
from lab.datasets.batches import assemble, draws
from lab.experiments.precision import few_bits
from lab.experiments.precision import weights as precision
from lab.experiments.sparsity import pruning
from lab.models import resnet20, wrn
from lab.runs.worker import LARGE_PAGES, keep_memory
from lab.training import Classification, Method, Trainer, autocast, gains_from_bf16, pick_device, sgd
from lab.training import cuda_graph as graphs
from lab.utils.errors import LabError

NEEDS = "a GPU; on a CPU it runs with few images, so that it is known to work"
EPOCH, WARM = 50_000, 6


def make(device: torch.device, images: int, seed: int, graph: bool, batch: int) -> Trainer:
    """A dense run of one epoch; two test images keep the evaluation out of the time."""
    torch.manual_seed(seed)
    settings = SETTINGS | {"batch_size": batch}
    task = Classification((first(images).to(device), first(2).to(device)), settings)
    record = graphs.recorder if graph else lambda device: None
    return Trainer("timing", resnet20().to(device), Method(), settings, task, seed=seed, record=record)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(device, images, together, graph, batch):
    """Warm up, then give back what trains ``together`` runs for an epoch, a step of each in turn, each on a stream of
    its own."""
    runs = [make(device, images, seed, graph, batch) for seed in range(together)]
    streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in runs]
    epochs = [run.steps_of_epoch() for run in runs]

    def some(steps: int | None = None) -> None:
        done = 0
        while epochs and (steps is None or done < steps):
            for epoch, stream in list(zip(epochs, streams, strict=False)):
                with torch.cuda.stream(stream):
                    if next(epoch, None) is None:
                        epochs.clear()  # all are equally long
                        break
            done += 1

    wait(device)
    some(WARM)
    return some, images // batch - WARM


def stacked(device, images, together, compiled, batch):
    """``together`` networks whose weights lie on top of one another, as one network under ``vmap``, one optimizer for
    all."""
    nets = []
    for seed in range(together):
        torch.manual_seed(seed)
        nets.append(resnet20().to(device, memory_format=torch.channels_last).train())
    weights, buffers = torch.func.stack_module_state(nets)
    bare = nets[0].to("meta")
    optimizer = sgd([{"params": list(weights.values()), "weight_decay": 5e-4}], SETTINGS)

    def one(weights, buffers, images, labels):
        with autocast(device):
            outputs = torch.func.functional_call(bare, (weights, buffers), (images,))
        return F.cross_entropy(outputs.float(), labels)

    def loss(images, labels):
        return torch.vmap(one, randomness="different")(weights, buffers, images, labels).sum()

    if compiled:
        loss = torch.compile(loss, mode="max-autotune-no-cudagraphs" if device.type == "cuda" else None)
    data = first(images).to(device)
    batches = zip(*(draws(data, batch, seed, 0) for seed in range(together)), strict=True)

    def some(steps: int | None = None) -> None:
        for done, drawn in enumerate(batches, 1):
            images, labels = (torch.stack(parts) for parts in zip(*(assemble(data, d) for d in drawn), strict=True))
            loss(images, labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if done == steps:
                break

    some(WARM)
    return some, images // batch - WARM


def plain(device, images, together, option, batch):
    """The usual loop; its loader's start belongs to its time."""
    usual(3 * batch, device)()
    epoch = usual(images, device)
    return epoch, images // batch


WAYS = {"usual": plain, "turns": in_turns, "vmap": stacked}


def together(barrier) -> None:
    global ready
    ready = barrier


def contender(way, device, images, count, option, batch, threads):
    """In a process of its own: seconds when it began and ended, steps, and memory (device, else peak of the
    process)."""
    torch.set_num_threads(threads)
    keep_memory()
    where = pick_device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    train, steps = WAYS[way](where, images, count, option, batch)
    wait(where)
    ready.wait(900)
    begun = time.time()
    train()
    wait(where)
    ended = time.time()
    if where.type == "cuda":
        free, whole = torch.cuda.mem_get_info(where)
        memory = whole - free  # of all processes there, contexts included
        ready.wait(900)  # nobody leaves before all have looked
    else:
        memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return begun, ended, steps, memory


def measure(way, options, count, option, processes=1):
    """Epochs a second over all runs, and bytes of memory."""
    context = multiprocessing.get_context("spawn")
    cpu = torch.device(options.device).type == "cpu"
    pages = LARGE_PAGES if cpu else {}
    with (
        mock.patch.dict(os.environ, pages),
        ProcessPoolExecutor(processes, context, together, (context.Barrier(processes),)) as pool,
    ):
        work = [
            pool.submit(contender, way, options.device, options.images, count, option, options.batch, 1)
            for _ in range(processes)
        ]
        begun, ended, steps, memory = zip(*(future.result() for future in work), strict=True)
    trained = processes * count * steps[0] * options.batch
    return trained / (max(ended) - min(begun)) / EPOCH, sum(memory) if cpu else max(memory)


@contextmanager
def mps():
    """NVIDIA's multi-process service for this user alone: several processes' kernels side by side."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        with mock.patch.dict(os.environ, own):
            subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, timeout=30)
            try:
                yield
            finally:
                subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=False, timeout=30)


def contest(options) -> None:
    cuda = torch.device(options.device).type == "cuda"
    results: list[dict] = []
    note = benchmarks.Report(__file__, options.device)

    def report(name: str, k: int, way: str, count: int, option, processes: int = 1) -> None:
        if options.only and not any(word in name for word in options.only):
            return
        seen = []
        try:
            for _ in range(options.repeats):
                seen.append(measure(way, options, count, option, processes))
        except Exception as error:  # one contender that fails, for want of memory or a compiler, leaves the others
            print(
                f"{name:>42}, k = {k}: failed: {type(error).__name__}: {str(error).strip().splitlines()[:1]}",
                flush=True,
            )
            return
        rate, memory = statistics.median(rate for rate, _ in seen), max(memory for _, memory in seen)
        results.append({"name": name, "k": k, "epochs_per_second": rate, "bytes": memory})
        base = next((r["epochs_per_second"] for r in results if r["name"] == "kernel by kernel"), rate)
        print(
            f"{name:>42}, k = {k}: {rate:9.5f} epochs/s over all, {1 / rate:8.2f} s an epoch; {rate / base:6.2f} "
            "times one run "
            f"kernel by kernel; {memory / 2**20:7.0f} MiB",
            flush=True,
        )

    def skip(name: str, why: str) -> None:
        print(f"{name:>42}: skipped, {why}", flush=True)

    report("usual loop", 1, "usual", 1, None)
    report("kernel by kernel", 1, "turns", 1, False)
    if cuda:
        for k in options.together:
            report("graphs on streams, one process", k, "turns", k, True)
    else:
        skip("graphs on streams, one process", "a CPU has no CUDA graphs")
        for k in options.together[1:]:
            report("in turns, one process", k, "turns", k, False)
    for k in options.together:
        report("vmap", k, "vmap", k, False)
        if cuda or options.compile:
            report("compile(vmap)", k, "vmap", k, True)
    if not cuda and not options.compile:
        skip("compile(vmap)", "a CPU compiles for minutes: say --compile")
    for k in options.together:
        report("processes", k, "turns", 1, cuda, k)
    if not cuda:
        skip("processes with MPS", "there is no CUDA device")
    elif not shutil.which("nvidia-cuda-mps-control"):
        skip("processes with MPS", "nvidia-cuda-mps-control is not installed")
    else:
        with mps():
            for k in options.together:
                report("processes with MPS", k, "turns", 1, True, k)
    base = next((r["epochs_per_second"] for r in results if r["name"] == "kernel by kernel"), None)
    for r in results:
        what = f"{r['name']}, k = {r['k']}"
        if base is not None and r["name"] != "kernel by kernel":
            note.ratio(f"{what}: epochs a second over one run kernel by kernel", r["epochs_per_second"] / base)
        note.ratio(f"{what}: memory", r["bytes"] / 2**20, unit="MiB")
    one, most = (
        [r["epochs_per_second"] for r in results if r["name"] != "usual loop" and (r["k"] == 1) == alone]
        for alone in (1, 0)
    )
    if one:
        note.ratio("an epoch of one run, the fastest way", 1 / max(one), at_most=1.0 if cuda else None, unit="s")
    if one and most:
        note.ratio("several runs over one, the fastest ways", max(most) / max(one), at_least=4.0 if cuda else None)
    note.write(options.json)


# -- does it compute the right thing? ----------------------------------------------------------------------------------


class SameDraws(Classification):
    """Batches whose order and crops a CPU's generator draws, whatever the device: one training, comparable across
    devices."""

    def __init__(self, data, training):
        super().__init__(data, training)
        self.drawing = dataclasses.replace(self.train_data, images=self.train_data.images.cpu())

    def draws(self, seed, epoch, start):
        for drawn in draws(self.drawing, self.batch_size, seed, epoch, start, self.cutout):
            yield tuple(each.to(self.device) for each in drawn)

    def batches(self, seed, epoch, start):
        return (self.assemble(drawn) for drawn in self.draws(seed, epoch, start))


METHODS = {
    "dense": Method,
    "CS": lambda: pruning.method(pruning.method_config("cs", {"lr_s": 0.5}, s_init=-0.05)),
    "GMP": lambda: pruning.method(pruning.method_config("gmp", {}, target=0.9)),
    "SMOL": lambda: few_bits.method(
        precision.run("quick", "smol", **{"lambda": 1e-6, "zero": True}).config["method"], 0
    ),
}


def losses(method: str, device: torch.device, graph: bool, images: int, batch: int) -> list[float]:
    """The loss of every step of two epochs."""
    settings = SETTINGS | {"epochs": 2, "batch_size": batch}
    data = load("cifar10-mini", "train")
    data = dataclasses.replace(data, images=data.images[:images], labels=data.labels[:images]).to(device)
    torch.manual_seed(0)
    task = SameDraws((data, first(2).to(device)), settings)
    record = graphs.recorder if graph else lambda device: None
    run = Trainer("check", resnet20(), METHODS[method](), settings, task, record=record)
    per_step: list[float] = []
    with graphs.own_stream(device):
        for _ in range(2):
            before = 0.0
            for done in run.steps_of_epoch():
                total = float(run.loss)
                per_step.append(total - before)
                before = total if done < run.steps else 0.0
    if graph and device.type == "cuda" and (run._descent is None or run._descent.replay is None):
        raise LabError(f"{method}'s step was not recorded as a graph")
    return per_step


def apart(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def check(options) -> int:
    device, cpu = pick_device(options.device), torch.device("cpu")
    images, batch, wrong = (options.images or 2048), options.batch, 0
    print(
        f"each step's loss, {2 * (images // batch)} steps on the embedded images; apart: the largest relative "
        "difference"
    )
    for method in METHODS:
        loop = losses(method, device, False, images, batch)
        again = losses(method, device, False, images, batch)
        graph = losses(method, device, True, images, batch)
        noise = apart(again, loop)  # a device that adds in another order each time differs from itself
        differs = apart(graph, loop)
        good = differs <= max(1e-5, 4 * noise)
        line = f"{method:>6}: loss {loop[0]:.4f} to {loop[-1]:.4f}; again {noise:.1e} apart"
        line += f", as a graph {differs:.1e}" if device.type == "cuda" else " (a CPU has no graphs)"
        if method != "SMOL":  # its noise is drawn by the device
            on_cpu = losses(method, cpu, False, images, batch)
            early, late = apart(loop[:3], on_cpu[:3]), abs(sum(loop) / sum(on_cpu) - 1)
            good = good and early < 0.03 and late < 0.05
            line += f"; from the CPU: first steps {early:.1e}, mean loss {late:.1e}"
        wrong += not good
        print(f"{line}: {'agrees' if good else 'DIFFERS'}", flush=True)
    print(
        "all agree"
        if not wrong
        else f"{wrong} differ: do not record before this is understood (LAB_EAGER=1 uses no graphs)"
    )
    return int(wrong > 0)


# -- how near to the hardware? -----------------------------------------------------------------------------------------


def matrix_rate(device: torch.device, side: int) -> float:
    """Floating-point operations a second of the best of ten products of two bfloat16 matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        wait(device)
        begun = time.perf_counter()
        a @ b
        wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def wide(options) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    device = pick_device(options.device)
    cuda = device.type == "cuda"
    depth, width, side, steps = (28, 10, 8192, 50) if cuda else (16, 1, 1024, 4)
    rate = matrix_rate(device, side)
    settings = SETTINGS | {"batch_size": options.batch}
    data = first((steps + WARM) * options.batch).to(device)
    task = Classification((data, first(2).to(device)), settings)
    net = wrn(depth, width).to(device, memory_format=torch.channels_last)
    counter = FlopCounterMode(display=False)
    with counter:
        task.loss(net, next(task.batches(0, 0, 0))).backward()
    net.zero_grad(set_to_none=True)
    flops = counter.get_total_flops()
    for name, record in (("kernel by kernel", lambda device: None), ("a graph a step", graphs.recorder)):
        if not cuda and record is graphs.recorder:
            print("a graph a step: skipped, a CPU has no CUDA graphs")
            continue
        with graphs.own_stream(device):
            run = Trainer("timing", net, Method(), settings, task, record=record)
            epoch = run.steps_of_epoch()
            for _ in range(WARM):
                next(epoch)
            wait(device)
            begun = time.perf_counter()
            for _ in epoch:
                pass
            wait(device)
            seconds = (time.perf_counter() - begun) / steps
        print(
            f"WRN-{depth}-{width}, batch {options.batch}, {name}: {1e3 * seconds:.2f} ms a step of "
            f"{flops / 1e12:.3f} TFLOP, "
            f"{flops / seconds / 1e12:.2f} TFLOP/s; a bfloat16 product of side {side}: {rate / 1e12:.2f} TFLOP/s; "
            f"share {flops / seconds / rate:.0%}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)"
    )
    parser.add_argument("--together", type=int, nargs="+", default=None, help="k (default: 1 2 4 8; on a CPU 1 2)")
    parser.add_argument("--images", type=int, help="of an epoch (default: 50,000; on a CPU 1,280)")
    parser.add_argument("--batch", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="turns of each contender (default: %(default)s)")
    parser.add_argument("--only", nargs="+", help="contenders whose name has one of these words")
    parser.add_argument("--compile", action="store_true", help="compile on a CPU too")
    benchmarks.option(parser)
    parser.add_argument("--check", action="store_true", help="compare loss curves, and nothing else")
    parser.add_argument("--wide", action="store_true", help="WRN-28-10's share of the matrix rate, and nothing else")
    options = parser.parse_args()
    try:
        device = pick_device(options.device)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"{os.cpu_count()} cores"
    numbers = "bfloat16" if gains_from_bf16(device) else "float32"
    print(f"torch {torch.__version__}, {name}, {numbers}, batch {options.batch}")
    if options.check:
        return check(options)
    if options.wide:
        wide(options)
        return 0
    options.images = options.images or (EPOCH if cuda else 10 * options.batch)
    options.together = options.together or ([1, 2, 4, 8] if cuda else [1, 2])
    contest(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
