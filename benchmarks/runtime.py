"""How fast a sparse network runs beside the dense engines of this machine: ``python benchmarks/runtime.py``.

Networks with zeros of equal share in every layer but the last and, where it is a convolution, the first (magnitude, not
trained: time depends on where zeros are, not on what the rest has learnt), each run by ``principled.runtime`` and, with
the same weights, by PyTorch, ``torch.compile``, ONNX Runtime and OpenVINO in float32, and by the last two in int8.
Engines take turns within a round; a time is the median over the rounds. An engine that is not installed, or cannot
compile here, is left out.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.book import benchmarks
from lab.models.registry import build
from principled.runtime import compile as compile_sparse

NEEDS = "a core that has nothing else to do"

Engine = Callable[[Tensor], Any]

TARGETS = {
    "ResNet-20": {0.8: 2.0, 0.9: 3.5, 0.95: 5.0, 0.98: 7.0},
    "VGG-16": {0.9: 3.0, 0.95: 5.0},
    "ResNet-50": {0.9: 2.0, 0.95: 3.0},
    "perceptron": {0.9: 2.0, 0.95: 3.5},
}
"""Times faster than the fastest dense float32 engine, on a core with AVX2."""

SHAPES = {"ResNet-20": (3, 32, 32), "VGG-16": (3, 32, 32), "ResNet-50": (3, 224, 224), "perceptron": (1024,)}
BATCHES = {"ResNet-20": (1, 64), "VGG-16": (1,), "ResNet-50": (1,), "perceptron": (1,)}
CURVE = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Zeros of the curve that the chapter draws, for ResNet-20 at batch 1."""


def network(name: str) -> nn.Module:
    """A fresh network, with normalisation as after some training."""
    torch.manual_seed(0)
    if name == "perceptron":
        layers = [layer for _ in range(3) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(1024, 10)).eval()
    net = build({"ResNet-20": "resnet20", "VGG-16": "vgg16", "ResNet-50": "resnet50"}[name])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


@torch.no_grad()
def emptied(net: nn.Module, zeros: float) -> nn.Module:
    """A copy whose smallest weights are zero.

    The last layer stays full, and a first convolution, as pruning leaves them; a perceptron's first layer is a third of
    it and is pruned.
    """
    net = copy.deepcopy(net)
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in layers[isinstance(layers[0], nn.Conv2d) : -1]:
        size = module.weight.abs()
        count = round(zeros * size.numel())
        if count:
            module.weight.mul_(size > size.flatten().kthvalue(count).values)
    return net


# -- engines -----------------------------------------------------------------------------------------------------------


def dense_engines(net: nn.Module, x: Tensor, folder: Path) -> Iterator[tuple[str, Engine]]:
    """Name and callable of every dense engine that this machine has; int8 ones end in "int8"."""
    yield "PyTorch", net
    if (engine := _compiled(net, x)) is not None:
        yield "torch.compile", engine
    path = folder / "net.onnx"
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), str(path), dynamo=False, opset_version=17, input_names=["x"])
    yield from _onnxruntime(path, x, folder)
    yield from _openvino(path, x)


def _compiled(net: nn.Module, x: Tensor) -> Engine | None:
    """By Inductor, where there is a C++ compiler."""
    torch._dynamo.reset()
    engine = torch.compile(net)
    try:
        engine(x)
    except Exception as error:
        print(f"torch.compile does not run here: {str(error).splitlines()[0][:100]}")
        return None
    return engine


def _onnxruntime(path: Path, x: Tensor, folder: Path) -> Iterator[tuple[str, Engine]]:
    try:
        import onnxruntime
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    except ModuleNotFoundError:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3

    def session(file: Path) -> Engine:
        made = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return lambda x: made.run(None, {"x": x.numpy()})

    class Once(CalibrationDataReader):
        """The batch itself: what the scales are does not change the time."""

        def __init__(self) -> None:
            self.left = [{"x": x.numpy()}]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    yield "ONNX Runtime", session(path)
    small = folder / "int8.onnx"
    logging.disable(logging.WARNING)
    quantize_static(str(path), str(small), Once(), quant_format=QuantFormat.QDQ, per_channel=True)
    logging.disable(logging.NOTSET)
    yield "ONNX Runtime int8", session(small)


def _openvino(path: Path, x: Tensor) -> Iterator[tuple[str, Engine]]:
    try:
        import openvino
    except ModuleNotFoundError:
        return
    core = openvino.Core()
    threads = torch.get_num_threads()

    def engine(file: Path) -> Engine:
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(str(file), "CPU", settings).create_infer_request()
        return lambda x: request.infer([x.numpy()], share_inputs=True)

    yield "OpenVINO", engine(path)
    if (small := path.with_name("int8.onnx")).exists():
        yield "OpenVINO int8", engine(small)


# -- measuring ---------------------------------------------------------------------------------------------------------


def medians(engines: dict[str, Engine], x: Tensor, seconds: float) -> dict[str, float]:
    """Median seconds of each engine; they take turns until each was given its time."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    with torch.inference_mode():
        for engine in engines.values():
            for _ in range(3):
                engine(x)
        end = time.perf_counter() + seconds * len(engines)
        while time.perf_counter() < end or len(taken[next(iter(engines))]) < 5:
            for name, engine in engines.items():
                for _ in range(3):  # several at once: the caches hold the engine's own
                    begin = time.perf_counter()
                    engine(x)
                    taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(times) for name, times in taken.items()}


def compared(report: benchmarks.Report, name: str, batch: int, seconds: float, all_zeros: tuple[float, ...]) -> None:
    """One network at one batch: every dense engine once, the runtime at each share of zeros."""
    net, x = network(name), torch.randn(batch, *SHAPES[name])
    label = f"{name}, batch {batch}"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        engines = dict(dense_engines(net, x, Path(folder)))
        memory = {}
        for zeros in all_zeros:
            sparse = emptied(net, zeros)
            begin = time.perf_counter()
            fast = compile_sparse(sparse, x, threads=torch.get_num_threads())
            print(f"{label}, {zeros:.0%} zeros: compiled in {time.perf_counter() - begin:.2f} s")
            engines[f"{zeros:.0%}"] = fast
            want = sparse(x)
            assert (fast(x) - want).abs().max() <= 1e-4 * want.abs().max()
            memory[zeros] = fast.memory / sum(4 * int((p != 0).sum()) for p in sparse.parameters())
        taken = medians(engines, x, seconds)
    mine = {f"{zeros:.0%}" for zeros in all_zeros}
    for engine, time_taken in taken.items():
        kind = f"principled, {engine} zeros" if engine in mine else engine
        print(f"{label}: {kind:28} {1e6 * time_taken / batch:10.1f} us an image")
        report.ratio(f"{label}: {kind}", 1e6 * time_taken / batch, unit="µs an image")
    dense = min(taken[engine] for engine in taken if engine not in mine and not engine.endswith("int8"))
    small = [taken[engine] for engine in taken if engine.endswith("int8")]
    for zeros in all_zeros:
        own = taken[f"{zeros:.0%}"]
        report.ratio(
            f"{label}, {zeros:.0%} zeros: the fastest dense float32 engine over principled", dense / own,
            at_least=TARGETS[name].get(zeros),
        )  # fmt: skip
        print(f"{label}, {zeros:.0%} zeros: {dense / own:.2f} x the fastest dense float32 engine")
        if small:
            at_least = 1.0 if zeros == 0.95 else None
            report.ratio(
                f"{label}, {zeros:.0%} zeros: the fastest int8 engine over principled", min(small) / own,
                at_least=at_least,
            )  # fmt: skip
    for zeros, share in memory.items():
        report.ratio(f"{label}, {zeros:.0%} zeros: memory over the non-zeros' four bytes each", share)


def threads(report: benchmarks.Report, seconds: float) -> None:
    """What a second thread gives on a batch of 64."""
    net, x = emptied(network("ResNet-20"), 0.9), torch.randn(64, *SHAPES["ResNet-20"])
    engines: dict[str, Engine] = {str(many): compile_sparse(net, x, threads=many) for many in (1, 2)}
    taken = medians(engines, x, seconds)
    report.ratio("ResNet-20, batch 64, 90% zeros: one thread over two", taken["1"] / taken["2"], at_least=1.8)
    print(f"two threads: {taken['1'] / taken['2']:.2f} x one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each engine and network")
    parser.add_argument("--networks", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    benchmarks.option(parser)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report = benchmarks.Report(__file__)
    for name in asked.networks:
        for batch in BATCHES[name]:
            all_zeros = CURVE if (name, batch) == ("ResNet-20", 1) else tuple(TARGETS[name])
            compared(report, name, batch, asked.seconds, all_zeros)
    if "ResNet-20" in asked.networks and (os.cpu_count() or 1) > 1:
        threads(report, asked.seconds)
    report.write(asked.json)


if __name__ == "__main__":
    main()
