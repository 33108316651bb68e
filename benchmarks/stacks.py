"""How fast each of Chapter 7's stacks runs: ``python benchmarks/stacks.py``.

Each combination is trained as profile ``quick`` does, seed 0, written to its file, read back, made plain and compiled
by ``principled.runtime``. Beside them run the dense engines that ``runtime.py`` has, on the dense network. One thread,
one image at a time, engines in turns; a time is the median.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch
from runtime import Engine, dense_engines, medians
from torch import nn

from lab.book import benchmarks
from lab.experiments.combining import stack
from lab.training import Trainer
from principled import Relaxed
from principled.runtime import compile as compile_sparse

NEEDS = "a core that has nothing else to do"


def trained(combination: str, path: Path) -> nn.Module:
    """The plain network of one stack, as its file gives it back."""
    run = stack.run("quick", combination)
    task = stack.experiment.task(run, torch.device("cpu"))
    torch.manual_seed(run.seed)
    net, method = stack.experiment.network(run), stack.experiment.method(run, task)
    trainer = Trainer("stacks", net, method, run.config["training"], task, seed=run.seed)
    stack.pack(path, trainer.run())
    again = stack.unpack(path, stack.experiment.network(run), run.config["method"].get("share", {}).get("templates"))
    while isinstance(again, Relaxed):
        again = again.harden()
    return again.eval()


def zeros(net: nn.Module) -> float:
    """Share of the weights of convolutions and linear layers that are zero: what the runtime leaves out."""
    weights = [module.weight for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each engine and stack (default: 1)")
    benchmarks.option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report = benchmarks.Report(__file__)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        engines: dict[str, Engine] = {}
        for combination in stack.COMBINATIONS:
            path = Path(folder) / "net.principled"
            with torch.enable_grad():
                net = trained(combination, path)
            engines[combination] = fast = compile_sparse(net, x, threads=1)
            assert (fast(x) - net(x)).abs().max() <= 1e-4 * net(x).abs().max()
            report.ratio(f"{combination}: zeros", 100 * zeros(net), unit="%")
            report.ratio(f"{combination}: file", path.stat().st_size / 1000, unit="kB")
            print(f"{combination}: {zeros(net):.1%} zeros, {path.stat().st_size:,} bytes", flush=True)
            if combination == "dense":
                others = dict(dense_engines(net, x, Path(folder)))
        taken = medians(others | engines, x, options.seconds)
    best = min(time for name, time in taken.items() if name in others and not name.endswith("int8"))
    for name, time in taken.items():
        report.ratio(f"{name}: time", 1e6 * time, unit="µs an image")
        print(f"{name:20} {1e6 * time:8.1f} us an image, {best / time:.2f} x the fastest dense float32 engine")
        if name in engines:
            report.ratio(f"{name}: the fastest dense float32 engine over principled", best / time)
    report.write(options.json)


if __name__ == "__main__":
    main()
