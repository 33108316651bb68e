"""What the one abstraction costs: ``python benchmarks/relax.py``.

Four figures, each beside what it is compared with, in one run and interleaved: a training step of
``Relaxed(ResNet-20, ContinuousMask)`` over the plain network's, graphs under ``torch.compile(fullgraph=True)``,
``vmap`` with stacked states, and what ``import principled`` adds to ``import torch``.
"""

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch.func import functional_call, stack_module_state, vmap

from lab.book import benchmarks
from lab.models import resnet20
from lab.training import autocast, gains_from_bf16, sgd
from principled import ContinuousMask, Relaxed

CPU = torch.device("cpu")
SETTINGS = {"lr": 0.1, "momentum": 0.9, "nesterov": True}


def training_step(relaxed: bool, images: torch.Tensor, labels: torch.Tensor):
    """A step as ``lab.training`` takes it: anneal, forward, penalty, backward, fused SGD."""
    torch.manual_seed(0)
    net = resnet20().to(memory_format=torch.channels_last)
    if relaxed:
        net = Relaxed(net, ContinuousMask(-0.05))
    optimizer = sgd([{"params": list(net.parameters()), "weight_decay": 5e-4}], SETTINGS)

    def step() -> None:
        if relaxed:
            net.anneal(0.5, 200.0)
        with autocast(CPU):
            outputs = net(images)
        loss = F.cross_entropy(outputs.float(), labels)
        if relaxed:
            loss = loss + 1e-8 * net.penalty()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def time_steps(repeats: int, report: benchmarks.Report) -> None:
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (128,))
    steps = {"plain": training_step(False, images, labels), "relaxed": training_step(True, images, labels)}
    wall = {name: [] for name in steps}
    cpu = {name: [] for name in steps}
    for repeat in range(-3, repeats):  # three to warm up
        for name in sorted(steps, reverse=repeat % 2 == 0):
            start, used = time.perf_counter(), time.process_time()
            steps[name]()
            if repeat >= 0:
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - used)
    for what, times in (("wall", wall), ("CPU", cpu)):
        plain, relaxed = (1e3 * statistics.median(times[name]) for name in ("plain", "relaxed"))
        print(
            f"training step, {what} time: plain {plain:.1f} ms, relaxed {relaxed:.1f} ms, ratio {relaxed / plain:.3f}"
        )
        report.ratio(f"training step, relaxed over plain, {what} time", relaxed / plain, at_most=1.05)


def count_graphs(report: benchmarks.Report) -> None:
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net = Relaxed(resnet20(), ContinuousMask(-0.05)).eval()
    compiled = torch.compile(net, backend=counting, fullgraph=True)  # fullgraph: a break would be an error
    images = torch.randn(2, 3, 32, 32)
    for progress in (0.0, 0.5, 1.0):
        net.anneal(progress, 200.0)
        torch.testing.assert_close(compiled(images), net(images))
    breaks = torch._dynamo.explain(net)(images).graph_break_count
    print(f"torch.compile(fullgraph=True): {len(graphs)} graph over three temperatures, {breaks} breaks")
    report.ratio("graphs over three temperatures, compiled", len(graphs), at_most=1, unit="")


def check_vmap(report: benchmarks.Report, count: int = 3) -> None:
    nets = [Relaxed(resnet20(), ContinuousMask(-0.05)).eval() for _ in range(count)]
    for i, net in enumerate(nets):
        net.anneal(i / count, 200.0)
        torch.nn.init.normal_(net.relaxations[0].s)
    images = torch.randn(4, 3, 32, 32)
    base, states = copy.deepcopy(nets[0]).to("meta"), stack_module_state(nets)
    with torch.no_grad():
        together = vmap(lambda p, b: functional_call(base, (p, b), (images,)))(*states)
        apart = torch.stack([net(images) for net in nets])
    difference = float((together - apart).abs().max() / apart.abs().max())
    print(
        f"vmap over {count} stacked states: largest difference from one by one {difference:.1e} of the largest output"
    )
    report.ratio(f"{count} networks under vmap: largest difference over the largest output", difference, unit="")


def time_imports(repeats: int, report: benchmarks.Report) -> None:
    def seconds(*modules: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {', '.join(modules)}"], check=True)
        return time.perf_counter() - start

    seconds("torch", "principled")  # compiles the byte code
    times = {"torch": [], "torch, principled": []}
    for _ in range(repeats):
        for modules in times:
            times[modules].append(seconds(modules))
    torch_alone, both = (statistics.median(t) for t in times.values())
    print(f"import: torch {torch_alone:.2f} s, with principled {both:.2f} s, added {both - torch_alone:+.3f} s")
    report.ratio("importing principled after torch", both - torch_alone, at_most=0.15, unit="s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30, help="timed steps of each network (default: %(default)s)")
    parser.add_argument("--imports", type=int, default=9, help="fresh interpreters of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a step (default: %(default)s, as a run has)")
    benchmarks.option(parser)
    options = parser.parse_args()
    report = benchmarks.Report(__file__)
    torch.set_num_threads(options.threads)
    precision = "bfloat16" if gains_from_bf16(CPU) else "float32"
    print(
        f"torch {torch.__version__}, {os.cpu_count()} cores, {options.threads} thread(s), {precision}, channels_last, "
        f"batch 128, medians of {options.repeats} interleaved steps"
    )
    time_steps(options.repeats, report)
    count_graphs(report)
    check_vmap(report)
    time_imports(options.imports, report)
    report.write(options.json)


if __name__ == "__main__":
    main()
