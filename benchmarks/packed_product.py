"""A matrix-vector product that reads packed bits, over the same product in float32 (torch.mv), on the CPU.

Run ``python benchmarks/packed_product.py``. Blocks of 32 with 0, 1, 2, 4 and 8 bits in equal shares. No goal: it says which
one is faster on this machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from lab.book import benchmarks
from lab.packed_product import PackedMatrix, product
from principled import quantize


def milliseconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(25):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    benchmarks.option(parser)
    options = parser.parse_args()
    report = benchmarks.Report(__file__)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    compiled = torch.compile(product, dynamic=False)
    for size in (512, 2048, 4096):
        p = torch.tensor([0, 1, 2, 4, 8])[torch.randint(0, 5, (size, size // 32))].repeat_interleave(32, 1)
        weight = quantize(torch.randn(size, size), p)
        packed, x = PackedMatrix(weight, p), torch.randn(size)
        torch.testing.assert_close(compiled(x.view(-1, 32), packed.parts, size), weight @ x, atol=1e-3, rtol=1e-3)
        plain = milliseconds(lambda weight=weight, x=x: weight @ x)
        eager = milliseconds(lambda packed=packed, x=x: packed @ x)
        fast = milliseconds(lambda packed=packed, x=x, size=size: compiled(x.view(-1, 32), packed.parts, size))
        print(
            f"{size} x {size}: float32 {plain:7.2f} ms ({4 * size * size:,} bytes), packed {packed.nbytes:,} bytes: eager "
            f"{eager:7.2f} ms = {eager / plain:.1f} x, compiled {fast:7.2f} ms = {fast / plain:.2f} x"
        )
        report.ratio(f"{size} × {size}, packed and compiled over float32, time", fast / plain)
        report.ratio(f"{size} × {size}, packed over float32, bytes", packed.nbytes / (4 * size * size))
    report.write(options.json)


if __name__ == "__main__":
    main()
