"""What the tests of AvaGrad share: the algorithms in NumPy, small problems, and a loop of steps."""

import numpy as np
import torch
from torch import nn

EAGER = (
    {"foreach": False, "fused": False},
    {"foreach": True, "fused": False},
    {},
)  # the last: vectors, for small tensors
SHAPES = ((5,), (3, 4), (), (2, 3, 3))


def transcription(w, gradients, lr, eps, betas=(0.9, 0.999), normalize=True, l2=0.0, decoupled=0.0):
    """Algorithms 6 and 7 on one flat vector, line by line, with 1 / (sqrt(v) + eps). ``gradients``: one
    vector a step.
    """
    w, m, v, trajectory = np.array(w, dtype=np.float64), 0.0, np.zeros(len(w)), []
    for gradient in gradients:
        w = (1 - lr * decoupled) * w
        g = (gradient(w) if callable(gradient) else gradient) + l2 * w
        m = betas[0] * m + (1 - betas[0]) * g
        eta = 1 / (np.sqrt(v) + eps)
        if normalize:
            eta = eta / np.linalg.norm(eta / np.sqrt(len(w)))
        w = w - lr * eta * m
        v = betas[1] * v + (1 - betas[1]) * g**2
        trajectory.append(w)
    return np.array(trajectory)


def parameters(shapes=SHAPES, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def stream(params, steps, seed=1):
    """Reproducible gradients of very different sizes: ``steps`` lists, one tensor for each parameter."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [10.0 ** (i % 4 - 2) for i in range(len(params))]
    return [
        [s * torch.randn(p.shape, generator=generator, dtype=torch.float64) for s, p in zip(sizes, params, strict=True)]
        for _ in range(steps)
    ]


def run(optimizer, params, gradients):
    """Step through ``gradients``; the flat parameters after each step."""
    trajectory = []
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = None if g is None else g.to(p.dtype)
        optimizer.step()
        trajectory.append(flat(params))
    return np.array(trajectory)


def flat(tensors):
    return torch.cat([t.detach().double().flatten() for t in tensors]).numpy()
