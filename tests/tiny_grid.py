"""A small real grid over (alpha, epsilon): a two-layer network on the embedded images, Adam and AvaGrad, two seeds."""

from functools import cache

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, cross_entropy

from lab import datasets
from lab.figures.grid.recording import grid_recording, median_root_v
from principled import AvaGrad

ALPHAS = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100]
EPSILONS = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10]
MISSING = (ALPHAS[0], EPSILONS[0])  # one cell that is left out
OPTIMIZERS = {"Adam": torch.optim.Adam, "AvaGrad": AvaGrad}
STEPS = 40


@cache
def _images(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = datasets.load("cifar10-mini", split)
    small = avg_pool2d(images.images.float() / 255, 4).flatten(1)
    return (small - small.mean()) / small.std(), images.labels


def train(optimizer: str, alpha: float, eps: float, seed: int) -> tuple[float | None, float | None]:
    """Validation accuracy and the median √v of one run; (None, None) if its loss passes 100,000."""
    x, y = _images("train")
    generator = torch.Generator().manual_seed(seed)
    w1 = torch.randn(x.shape[1], 24, generator=generator).mul_((2 / x.shape[1]) ** 0.5).requires_grad_()
    w2 = torch.randn(24, 10, generator=generator).mul_(24**-0.5).requires_grad_()
    method = OPTIMIZERS[optimizer]([w1, w2], lr=alpha, betas=(0.9, 0.99), eps=eps)
    for _ in range(STEPS):
        batch = torch.randint(len(x), (100,), generator=generator)
        loss = cross_entropy((x[batch] @ w1).relu() @ w2, y[batch])
        if not loss.item() < 1e5:
            return None, None
        method.zero_grad()
        loss.backward()
        method.step()
    x, y = _images("test")
    with torch.no_grad():
        logits = (x @ w1).relu() @ w2
    return (logits.argmax(1) == y).double().mean().item(), median_root_v(method)


@cache
def recording(optimizer: str, seed: int) -> dict:
    cells = [(a, e) for a in ALPHAS for e in EPSILONS if (a, e) != MISSING]
    return grid_recording(
        optimizer=optimizer,
        network="a two-layer network",
        metric="accuracy",
        alphas=ALPHAS,
        epsilons=EPSILONS,
        cells=[(a, e, *train(optimizer, a, e, seed)) for a, e in cells],
    )


@cache
def records(seeds: int = 2) -> tuple[dict, ...]:
    """Records as lab.runs gives them, as far as the map reads them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(
            {"id": f"{100 * i + seed:016x}", "seed": seed, "profile": "quick", "recording": recording(name, seed)}
            for i, name in enumerate(OPTIMIZERS)
            for seed in range(seeds)
        )
    finally:
        torch.set_num_threads(threads)


def walks(count: int = 30) -> list[dict]:
    """Two searches in the form that samplers give: here each trial steps to a neighbour of the best cell so far."""
    from lab.figures.grid.recording import table

    searches = []
    for sampler, reach in (("near", 1), ("far", 3)):
        for name in OPTIMIZERS:
            mean, rng = table(records(), name).mean, np.random.default_rng(7)
            here = best = [0, 6]
            trials = []
            for _ in range(count):
                trials.append((ALPHAS[here[1]], EPSILONS[here[0]]))
                if np.nan_to_num(mean[*here], nan=9) < np.nan_to_num(mean[*best], nan=9):
                    best = here
                here = np.clip(np.array(best) + rng.integers(-reach, reach + 1, 2), 0, 6).tolist()
            searches.append({"optimizer": name, "sampler": sampler, "seed": 0, "trials": trials})
    return searches
