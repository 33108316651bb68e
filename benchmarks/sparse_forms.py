"""What a sparse network saves in each of its forms: ``python benchmarks/sparse_forms.py``.

Two networks: a ResNet-20, dense, with unstructured zeros, and with whole filters taken out; a perceptron, dense, with
unstructured zeros, and with its linear layers as ``torch.sparse`` CSR. Printed are density, the saved file's size and
the CPU latency of a batch, as medians and as the median ratio to the dense form within a round; rounds are interleaved
and their order alternates. Weights are pruned by magnitude and not
trained: time and size depend on where zeros are, not on what the rest has learnt.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from lab.book import benchmarks
from lab.models import resnet20
from principled.files import save
from principled.files.sparse import to_csr
from principled.filters import without_dead_channels


@torch.no_grad()
def pruned(net: nn.Module, kind: type[nn.Module], sparsity: float) -> nn.Module:
    """A copy whose layers of one kind have their smallest weights set to zero, layer by layer."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, kind) and module.weight[0].numel() > 16:
            size = module.weight.abs()
            module.weight.mul_(size > size.flatten().kthvalue(round(sparsity * size.numel())).values)
    return net


def without_filters(net: nn.Module, share: float, example: Tensor) -> nn.Module:
    """A copy in which a share of the filters between each block's two convolutions is taken out."""
    net = copy.deepcopy(net)
    for block in net.blocks:
        gone = block.conv1.weight.flatten(1).norm(dim=1).argsort()[: round(share * len(block.conv1.weight))]
        for tensor in (block.conv1.weight, block.norm1.weight, block.norm1.bias):
            tensor.data[gone] = 0.0
    return without_dead_channels(net, example)


def latencies(nets: dict[str, nn.Module], batch: Tensor, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    with torch.inference_mode():
        for number in range(-3, rounds):  # three to warm up
            for name in list(nets)[:: 1 if number % 2 else -1]:
                start = time.perf_counter()
                nets[name](batch)
                if number >= 0:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def measured(
    title: str, nets: dict[str, nn.Module], files: dict[str, nn.Module], batch: Tensor, rounds: int
) -> list[dict]:
    """A row a form; ``files`` names the plain network that is packed for it (a CSR layer is made from one)."""
    seconds = latencies(nets, batch, rounds)
    first = next(iter(nets))
    count = sum(p.numel() for p in files[first].parameters())
    rows = []
    for name in nets:
        with tempfile.TemporaryDirectory() as folder:
            size = save(Path(folder) / "net", files[name]).stat().st_size
        ratios = [own / base for own, base in zip(seconds[name], seconds[first], strict=True)]
        left = sum(int((p != 0).sum()) for p in files[name].parameters())
        rows.append({
            "network": title, "form": name, "density": left / count, "file": size,
            "median_ms": 1e3 * statistics.median(seconds[name]), "ratio": statistics.median(ratios),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    benchmarks.option(parser)
    asked = parser.parse_args()
    report = benchmarks.Report(__file__)
    torch.manual_seed(0)
    torch.set_num_threads(asked.threads)
    images = torch.randn(asked.batch, 3, 32, 32)
    net = resnet20().eval()
    forms = {
        "dense": net,
        "unstructured, 95 %": pruned(net, nn.Conv2d, 0.95),
        "half of the inner filters out": without_filters(net, 0.5, images[:1]),
    }
    rows = measured("ResNet-20", forms, forms, images, asked.rounds)
    linear = nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)
    ).eval()
    nets, files = {"dense": linear}, {"dense": linear}
    for sparsity in (0.9, 0.98):
        zeros = pruned(linear, nn.Linear, sparsity)
        nets |= {f"unstructured, {sparsity:.0%}": zeros, f"CSR, {sparsity:.0%}": to_csr(zeros)}
        files |= {f"unstructured, {sparsity:.0%}": zeros, f"CSR, {sparsity:.0%}": zeros}
    with torch.inference_mode():
        for name in nets:
            torch.testing.assert_close(nets[name](images), files[name](images), atol=1e-4, rtol=1e-4)
    rows += measured("perceptron", nets, files, images, asked.rounds)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {asked.threads} thread(s), batch "
        f"{asked.batch}, "
        f"{asked.rounds} interleaved rounds"
    )
    print(f"{'network':10} {'form':30} {'density':>8} {'file, kB':>9} {'median ms':>10} {'ratio to dense':>15}")
    for row in rows:
        print(
            f"{row['network']:10} {row['form']:30} {row['density']:8.1%} {row['file'] / 1000:9,.0f} "
            f"{row['median_ms']:10.2f} {row['ratio']:15.3f}"
        )
        if row["form"] != "dense":
            dense = next(r for r in rows if (r["network"], r["form"]) == (row["network"], "dense"))
            name = f"{row['network']}, {row['form']}, over dense"
            report.ratio(f"{name}: latency", row["ratio"])
            report.ratio(f"{name}: file", row["file"] / dense["file"])
    report.write(asked.json)


if __name__ == "__main__":
    main()
