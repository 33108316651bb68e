"""How many non-zeros a layer may have to be faster as a list: measured once on a machine, and kept."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from . import kernels
from .machine import Target, cache_folder, remember, remembered

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution": (lambda: nn.Conv2d(128, 128, 3, padding=1), (128, 14, 14)),
    "small convolution": (lambda: nn.Conv2d(32, 32, 3, padding=1), (32, 16, 16)),
    "linear": (lambda: nn.Linear(1024, 1024), (1024,)),
}
"""What is measured: a layer of each kind, and the shape of what it reads. The small one is a ResNet-20's, on which
a dense kernel does not reach its speed."""

SMALL = 8_000_000
"""Products of an image, zeros counted, up to which a convolution is a small one: between the two that are measured."""

DENSITIES = (0.1, 0.4)
"""Where the list is timed; its time is a straight line through the two."""


def threshold_of(given: float | None, target: Target) -> Callable[[str], float]:
    """Share of non-zeros up to which a layer of a kind runs on a sparse kernel: as given, or as measured."""
    if given is not None:
        return lambda kind: given
    known = measured(target, torch.get_num_threads())
    return lambda kind: known[kind]


@cache
def measured(target: Target, threads: int) -> dict[str, float]:
    """The crossing point of each kind of layer on this machine, from the cache or timed now.

    Args:
        target: what the sparse kernels are generated for.
        threads: of PyTorch's dense kernels, which the lists have to beat.
    """
    written = hashlib.sha256(Path(kernels.__file__).read_bytes()).hexdigest()  # other kernels cross elsewhere
    asked = f"{target}, torch {torch.__version__}, {threads} threads, kernels {written}, {', '.join(LAYERS)}"
    key = hashlib.sha256(asked.encode()).hexdigest()
    path = cache_folder() / f"{key}.thresholds"
    if (kept := remembered(path)) is not None:
        return dict(json.loads(kept))
    found = {kind: _crossing(make(), torch.randn(1, *shape), target) for kind, (make, shape) in LAYERS.items()}
    remember(path, json.dumps(found).encode())
    return found


@torch.no_grad()
def _crossing(layer: nn.Module, x: Tensor, target: Target) -> float:
    from .network import Compiled  # which asks for thresholds itself, but for none that is given

    dense = layer.eval()
    weight = dense.get_parameter("weight")
    chance = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))
    full = weight.clone()
    forms: list[Callable[[Tensor], Tensor]] = []
    for density in DENSITIES:
        weight.copy_(full * (chance < density))
        forms.append(Compiled(dense, [x], 1, 1.0, target))
    weight.copy_(full)
    forms.append(dense)
    seconds: list[list[float]] = [[] for _ in forms]
    for _ in range(15):
        for form, times in zip(forms, seconds, strict=True):
            begin = time.perf_counter()
            for _ in range(5):
                form(x)
            times.append(time.perf_counter() - begin)
    few, many, all_of_it = map(statistics.median, seconds)
    slope = max((many - few) / (DENSITIES[1] - DENSITIES[0]), 1e-12)
    return min(max(DENSITIES[0] + (all_of_it - few) / slope, 0.0), 1.0)
