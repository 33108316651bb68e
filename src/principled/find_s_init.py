"""A wanted sparsity from Continuous Sparsification: the monotone search over ``s_init`` that 4.5.1 suggests.

CS has no dial for sparsity. But the share of weights that it keeps rises with ``s_init``, so a few short runs find the
value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .relax import Relaxed
from .reweighted import copied
from .sparsity import ContinuousMask


@dataclass(frozen=True)
class SInit:
    """What :func:`find_s_init` found.

    Attributes:
        s_init: the value to train with.
        sparsity: what it gave in the search, between 0 and 1.
        runs: every (s_init, sparsity) that was tried, in order.
    """

    s_init: float
    sparsity: float
    runs: tuple[tuple[float, float], ...]


def find_s_init(
    net: nn.Module,
    target_sparsity: float,
    train: Callable[[Relaxed], object],
    *,
    tolerance: float = 0.005,
    guess: float = 0.0,
    step: float = 0.05,
    most: int = 10,
    seed: int = 0,
    **options: Any,
) -> SInit:
    """Find the ``s_init`` with which CS ends at a wanted sparsity.

        found = find_s_init(net, 0.9, lambda relaxed: train(relaxed, epochs=5))
        relaxed = Relaxed(net, ContinuousMask(found.s_init))

    Each trial trains a fresh copy of ``net`` with the same random numbers, so that trials differ in ``s_init`` alone.
    The search widens from ``guess`` until the target lies between two trials, then interpolates; the logit of the share
    kept is nearly straight in ``s_init`` where the share itself is not.

    Args:
        net: the plain network, new or trained: each trial starts from its weights and its normalisation's statistics.
            It is left as it is.
        target_sparsity: share of the masked weights to prune, in (0, 1).
        train: trains a relaxed network in place, temperature included, as the final run will: sparsity depends on the
            number of steps and on the rate of ``s``, so what a short run finds holds for runs of its length.
        tolerance: largest difference to the target; half a percentage point.
        guess, step: the first value, and how far the second lies from it. The thesis's values lie between -0.3 and 0.3.
        most: trials allowed.
        seed: of the random numbers of every trial.
        **options: of :class:`ContinuousMask`, such as ``where`` or ``shape``. For a trained network without
            normalisation pass ``variant="reference"``: masks of 1/2 would halve its weights at the start.

    Raises:
        ValueError: a target outside (0, 1), a tolerance or step that is not above 0; or no trial came near enough, with
        the nearest.
    """
    if not 0 < target_sparsity < 1:
        raise ValueError(f"target_sparsity must lie between 0 and 1, not {target_sparsity}")
    if not (tolerance > 0 and step > 0 and most >= 1):
        raise ValueError(f"tolerance and step must be above 0 and most at least 1, not {tolerance}, {step} and {most}")
    runs: list[tuple[float, float]] = []
    value = guess
    for _ in range(most):
        runs.append((value, _trial(net, value, train, seed, options)))
        nearest = min(runs, key=lambda run: abs(run[1] - target_sparsity))
        if abs(nearest[1] - target_sparsity) <= tolerance:
            return SInit(*nearest, tuple(runs))
        value = _next(runs, target_sparsity, step)
    raise ValueError(
        f"no s_init within {most} trials gives {target_sparsity:.1%} ± {tolerance:.1%}; nearest: "
        f"s_init = {nearest[0]:.4g} gives {nearest[1]:.1%}. Allow more trials (most), a larger tolerance, or a "
        "longer training"
    )


def _trial(net: nn.Module, s_init: float, train: Callable[[Relaxed], object], seed: int, options: Any) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mask = ContinuousMask(s_init, **options)
        train(Relaxed(copied(net), mask))
    return mask.sparsity()


def _next(runs: list[tuple[float, float]], target: float, step: float) -> float:
    sparse = max((run for run in runs if run[1] > target), default=None)  # s_init has to rise from here
    dense = min((run for run in runs if run[1] < target), default=None)
    if dense is None:
        return max(runs)[0] + math.ldexp(step, len(runs) - 1)
    if sparse is None:
        return min(runs)[0] - math.ldexp(step, len(runs) - 1)
    (low, low_sparsity), (high, high_sparsity) = sparse, dense
    if len(runs) % 3 == 0 or low > high:  # now and then halve, whatever the curve looks like
        return (low + high) / 2
    below, above = (_logit(1 - s) - _logit(1 - target) for s in (low_sparsity, high_sparsity))
    return low + (high - low) * min(max(below / (below - above), 0.05), 0.95)


def _logit(share: float) -> float:
    share = min(max(share, 1e-6), 1 - 1e-6)  # nothing or all kept: far away, not infinitely
    return math.log(share / (1 - share))
