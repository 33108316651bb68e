"""What a run keeps of its mask's annealing: histograms of s and shares at zero, as plain JSON for its record.

Apart from the widget that draws it, so that a machine which only records needs no widget library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from lab.utils.errors import LabError
from principled.sparsity import CURVES


class Snapshot(NamedTuple):
    """One recorded moment of a run.

    ``progress`` runs from 0 to 1, ``epoch`` counts passes over the data, ``s`` holds all mask variables (a 1-D array
    or tensor), ``accuracy`` is the test accuracy (0 to 1) of the network as it is, soft mask and all, and
    ``accuracy_hard``, if it was measured, that of the network hardened at that moment.
    """

    progress: float
    epoch: float
    beta: float
    s: Any
    accuracy: float
    accuracy_hard: float | None = None


def annealing_state(
    snapshots: Iterable[Snapshot | tuple[Any, ...]],
    layers: Mapping[str, int],
    *,
    title: str,
    profile: str,
    run: str,
    hardened: tuple[float, float],
    dense: float | None = None,
    curve: str = "sigmoid",
    zero_below: float = 1e-3,
    bins: int = 48,
) -> dict[str, Any]:
    """The figure's state as plain JSON values, fit for a run's record; arguments as ``from_snapshots`` has them."""
    if curve not in CURVES:
        raise LabError(f"curve {curve!r} is unknown; choose one of {', '.join(CURVES)}")
    if not 0 < zero_below < 0.5:
        raise LabError(f"zero_below is {zero_below}; it must lie between 0 and 0.5, where a mask is still undecided")
    moments = [Snapshot(*moment) for moment in snapshots]
    sizes = list(layers.values())
    if len(moments) < 2 or not sizes:
        raise LabError(
            f"an annealing figure needs two recorded moments and a layer; got {len(moments)} and {len(sizes)}"
        )
    variables = [_vector(moment.s, sum(sizes), f"snapshots[{i}].s") for i, moment in enumerate(moments)]
    edges = _edges(variables, bins)
    starts = np.cumsum([0, *sizes[:-1]])
    z = _curve_table(curve, max(-edges[0], edges[-1]) * max(moment.beta for moment in moments))
    return {
        "title": title,
        "profile": profile,
        "run": run,
        "curve": {"name": curve, "z": [_short(v) for v in z], "b": [_short(v) for v in _step(curve, z)]},
        "zero": {
            "below": zero_below,
            "z": _short(_where(curve, zero_below)),
            "text": f"mask below {zero_below:g}",
        },
        "s_edges": [_short(edge) for edge in edges],
        "open_ends": [
            bool(min(s.min() for s in variables) < edges[0]),
            bool(max(s.max() for s in variables) > edges[-1]),
        ],
        "layers": list(layers),
        "snapshots": [
            _moment(moment, s, edges, starts, sizes, curve, zero_below)
            for moment, s in zip(moments, variables, strict=True)
        ],
        "hardened": {"accuracy": _short(hardened[0]), "sparsity": _short(hardened[1])},
    } | ({} if dense is None else {"dense": {"accuracy": _short(dense)}})


def _short(number: float) -> float:
    return float(f"{float(number):.5g}")  # five digits are more than a screen shows, and keep the page small


def _vector(s: Any, size: int, where: str) -> np.ndarray:
    if isinstance(s, torch.Tensor):
        s = s.detach().to("cpu", torch.float32).numpy()
    array = np.asarray(s)
    if array.ndim != 1 or array.size != size:
        raise LabError(
            f"{where} has shape {array.shape}; the layers hold {size} mask variables: give a vector of that size"
        )
    if not np.isfinite(array).all():
        raise LabError(f"{where} holds a number that is not finite; the run diverged there: leave that moment out")
    return array


def _edges(variables: list[np.ndarray], bins: int) -> np.ndarray:
    # All but a thousandth at either side, over all moments: a few far variables would squeeze the rest into one bin.
    low = min(0.0, *(float(np.quantile(s, 0.001)) for s in variables))
    high = max(0.0, *(float(np.quantile(s, 0.999)) for s in variables))
    width = (high - low) / bins or 1 / bins
    return width * np.arange(math.floor(low / width) - 1, math.ceil(high / width) + 2)  # one bin of room; 0 is an edge


def _step(curve: str, z: np.ndarray) -> np.ndarray:
    values: np.ndarray = CURVES[curve](torch.from_numpy(z)).numpy()
    return values


def _curve_table(curve: str, reach: float) -> np.ndarray:
    """Where the page samples the step: to ``reach`` on both sides, finest around 0, where it rises."""
    return np.sinh(np.linspace(-1, 1, 121) * np.arcsinh(max(reach, 8.0)))


def _where(curve: str, value: float) -> float:
    """The z at which the step passes ``value``, by bisection: not every curve has an inverse at hand."""
    low, high = -1e12, 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _step(curve, np.array([middle]))[0] < value else (low, middle)
    return high


def _moment(
    moment: Snapshot,
    s: np.ndarray,
    edges: np.ndarray,
    starts: np.ndarray,
    sizes: list[int],
    curve: str,
    zero_below: float,
) -> dict[str, Any]:
    mask = _step(curve, s * float(moment.beta))
    zero = np.add.reduceat(mask < zero_below, starts, dtype=np.int64)
    recorded = {
        "progress": _short(moment.progress),
        "epoch": _short(moment.epoch),
        "beta": _short(moment.beta),
        "s_hist": np.histogram(np.clip(s, edges[0], edges[-1]), edges)[0].tolist(),
        "zero_share": [_short(share) for share in zero / np.array(sizes)],
        "sparsity": _short(zero.sum() / sum(sizes)),
        "accuracy": _short(moment.accuracy),
    }
    if moment.accuracy_hard is not None:
        recorded["accuracy_hard"] = _short(moment.accuracy_hard)
    return recorded
