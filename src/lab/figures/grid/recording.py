"""What a grid over (alpha, epsilon) keeps: a score and a second moment for each cell, and the maps made of them.

Apart from the widget that draws it, so that a machine which only records needs no widget library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lab.utils.errors import LabError

Array = NDArray[np.float64]

METRICS = {"accuracy": "validation error", "BPC": "validation BPC"}
"""What a score may be, and what a map shows of it. Maps show what is better when lower: an accuracy as the error it
leaves."""

STATISTIC = "median over all trained weights of √v, as the optimizer's last step used it"
"""What the border between the regimes is computed from. At ε = this median, ε outweighs √v for half of the weights."""


class Table(NamedTuple):
    """One optimizer's grid over its seeds. Arrays are (epsilons, alphas), NaN where no seed gives a value."""

    alphas: Array
    epsilons: Array
    mean: Array
    """Mean over the finished seeds of what is better when lower: the error (0 to 1), or bits per character."""
    spread: Array
    """Standard deviation over seeds (n - 1); NaN below two."""
    finished: NDArray[np.int64]
    """How many seeds finished."""
    diverged: NDArray[np.int64]
    """How many seeds diverged."""
    root_v: Array
    """Geometric mean over seeds of the runs' median √v."""


def median_root_v(optimizer: torch.optim.Optimizer) -> float:
    """Median over all weights of the √v by which an optimizer divides, before ε is added.

    Args:
        optimizer: ``principled.AvaGrad`` or ``DelayedAdam``, whose v carries no bias correction (Algorithms 6 and 7),
            or one of torch's Adam family, whose v is corrected here as the step does.

    Raises:
        LabError: an optimizer that keeps no second moment, or has made no step.
    """
    own = not type(optimizer).__module__.startswith("torch.")  # this book's methods do not correct v
    roots = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if "exp_avg_sq" in state:
                v = state.get("max_exp_avg_sq", state["exp_avg_sq"]).detach().double()  # AMSGrad divides by the largest
                roots.append((v if own else v / (1 - group["betas"][1] ** float(state["step"]))).flatten())
    if not roots:
        raise LabError(
            f"{type(optimizer).__name__} holds no second moment: give an Adam-like optimizer that made a step"
        )
    return float(torch.cat(roots).sqrt().median())


def grid_recording(
    *,
    optimizer: str,
    network: str,
    metric: str,
    alphas: Sequence[float],
    epsilons: Sequence[float],
    cells: Iterable[tuple[float, float, float | None, float | None]],
) -> dict[str, Any]:
    """A whole grid of one optimizer and one seed as plain JSON values, fit for a record's ``recording``.

    Args:
        optimizer, network: names that a reader sees: ``"Adam"``, ``"WRN-28-4"``.
        metric: what a score is, one of :data:`METRICS`: accuracy from 0 to 1, or bits per character.
        alphas, epsilons: the grid's axes, rising, above 0.
        cells: ``(alpha, epsilon, score, root_v)`` for each run, in any order. A score of None or not finite: the run
            diverged. ``root_v``: :func:`median_root_v` after the run, or None. Cells that are not given are missing.

    Returns:
        ``{"grid": ...}`` with ``optimizer``, ``network``, ``metric``, ``alphas``, ``epsilons``; ``score`` and
        ``root_v``: a row an epsilon, null where there is none; ``state``: a text a row, ``f`` finished, ``d`` diverged,
        ``.`` missing.

    Raises:
        LabError: axes that do not rise, a cell off the grid or given twice, a score that is none.
    """
    if metric not in METRICS:
        raise LabError(f"a grid's metric is one of {', '.join(METRICS)}, not {metric!r}")
    for name, axis in (("alphas", alphas), ("epsilons", epsilons)):
        if len(axis) < 2 or axis[0] <= 0 or any(a >= b for a, b in pairwise(axis)):
            raise LabError(f"a grid's {name} must be two or more numbers above 0, rising, not {list(axis)}")
    most = 1 if metric == "accuracy" else math.inf
    shape = (len(epsilons), len(alphas))
    score, root_v = (np.full(shape, np.nan) for _ in range(2))
    state = np.full(shape, ".")
    for alpha, eps, value, root in cells:
        row, column = _place(epsilons, eps, "epsilon"), _place(alphas, alpha, "alpha")
        if state[row, column] != ".":
            raise LabError(f"the cell alpha={alpha:g}, epsilon={eps:g} is given twice; give each cell once")
        done = value is not None and math.isfinite(value)
        if done and not 0 <= value <= most:
            raise LabError(
                f"the score {value:g} at alpha={alpha:g}, epsilon={eps:g} is no {metric}: give 0 to {most:g}"
            )
        state[row, column] = "f" if done else "d"
        score[row, column] = value if done else math.nan
        root_v[row, column] = root if root is not None and math.isfinite(root) and root > 0 else math.nan
    grid = {
        "optimizer": optimizer,
        "network": network,
        "metric": metric,
        "alphas": [float(a) for a in alphas],
        "epsilons": [float(e) for e in epsilons],
        "score": _plain(score),
        "root_v": _plain(root_v),
        "state": ["".join(row) for row in state],
    }
    return {"grid": grid}


def table(records: Iterable[Mapping[str, Any]], optimizer: str) -> Table:
    """One optimizer's grid, averaged over the seeds among ``records``; others are passed over.

    Raises:
        LabError: no such grid, a seed twice, or grids over different cells.
    """
    return _table(_grids(records, optimizer))


def grid_state(
    records: Iterable[Mapping[str, Any]], *, title: str, walks: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The figure's state from runs' records; those without a grid in their ``recording`` are passed over.

    Args:
        records: whole records as ``lab.runs`` gives them: one a seed and optimizer, of one network, metric and profile.
        title: what the figure is called.
        walks: searches over these grids, in the order of their trials: ``{"optimizer", "sampler", "seed", "trials"}``,
            where trials are ``(alpha, epsilon)`` of the grid. The figure plays those of equal sampler and seed
            together.

    Returns:
        See :class:`lab.figures.grid.widget.GridWidget`.

    Raises:
        LabError: nothing to draw, records that do not belong together, a trial off the grid.
    """
    records = [record for record in records if "grid" in record.get("recording", {})]
    if not records:
        raise LabError("none of these records holds a grid over alpha and epsilon: record such a run first")
    first = records[0]
    for record in records[1:]:
        for key in ("network", "metric"):
            one, other = first["recording"]["grid"][key], record["recording"]["grid"][key]
            if one != other:
                raise LabError(f"runs {first['id']} and {record['id']} differ in {key} ({one}, {other}); choose one")
        if first["profile"] != record["profile"]:
            raise LabError(
                f"runs {first['id']} ({first['profile']}) and {record['id']} ({record['profile']}) are of two "
                "profiles; choose one"
            )
    names = sorted(
        {record["recording"]["grid"]["optimizer"] for record in records}
    )  # Adam before AvaGrad, whoever ran first
    maps = [_map(_grids(records, name), name) for name in names]
    if not any(cell is not None for one in maps for row in one["mean"] for cell in row):
        raise LabError("in none of these grids did a run finish: there is nothing to compare")
    grid = first["recording"]["grid"]
    return {
        "title": title,
        "network": grid["network"],
        "profile": first["profile"],
        "metric": grid["metric"],
        "shown": METRICS[grid["metric"]],
        "statistic": STATISTIC,
        "maps": maps,
        "walks": _walks(walks, maps),
    }


def _place(axis: Sequence[float], value: float, name: str) -> int:
    near = int(np.argmin(np.abs(np.log(np.asarray(axis, dtype=float)) - math.log(value)))) if value > 0 else 0
    if not math.isclose(axis[near], value, rel_tol=1e-6):
        raise LabError(f"{name} {value:g} is not on the grid; nearest is {axis[near]:g}")
    return near


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None  # five digits are more than a screen shows


def _plain(values: Array) -> list[list[float | None]]:
    return [[_short(float(value)) for value in row] for row in values]


def _grids(records: Iterable[Mapping[str, Any]], optimizer: str) -> list[Mapping[str, Any]]:
    """The records of one optimizer's grids, by seed."""
    chosen = [r for r in records if r.get("recording", {}).get("grid", {}).get("optimizer") == optimizer]
    if not chosen:
        raise LabError(f"none of these records holds a grid of {optimizer!r}")
    chosen.sort(key=lambda record: record["seed"])
    for a, b in pairwise(chosen):
        if a["seed"] == b["seed"]:
            raise LabError(f"runs {a['id']} and {b['id']} are both {optimizer}, seed {a['seed']}; choose one")
        for axis in ("alphas", "epsilons"):
            if a["recording"]["grid"][axis] != b["recording"]["grid"][axis]:
                raise LabError(f"runs {a['id']} and {b['id']} have different {axis}; choose runs of one grid")
    return chosen


def _lower(grid: Mapping[str, Any]) -> Array:
    score = np.array(grid["score"], dtype=float)  # null becomes NaN
    return 1 - score if grid["metric"] == "accuracy" else score


def _table(records: Sequence[Mapping[str, Any]]) -> Table:
    grids = [record["recording"]["grid"] for record in records]
    values = np.stack([_lower(grid) for grid in grids])
    states = np.array([[list(row) for row in grid["state"]] for grid in grids])
    roots = np.log(np.array([grid["root_v"] for grid in grids], dtype=float))
    count = np.isfinite(values).sum(0)
    held = np.isfinite(roots).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where nothing finished: NaN is what is meant
        mean = np.nansum(values, 0) / count
        spread = np.sqrt(np.nansum((values - mean) ** 2, 0) / np.where(count > 1, count - 1, np.nan))
        root_v = np.exp(np.nansum(roots, 0) / np.where(held, held, np.nan))
    mean[count == 0] = np.nan
    return Table(
        np.array(grids[0]["alphas"]), np.array(grids[0]["epsilons"]), mean, spread,
        count, (states == "d").sum(0), root_v,
    )  # fmt: skip


def _map(records: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    grids = _table(records)
    values = [_lower(record["recording"]["grid"]) for record in records]
    best = None
    if np.isfinite(grids.mean).any():
        best = [int(i) for i in np.unravel_index(np.nanargmin(grids.mean), grids.mean.shape)]
    return {
        "optimizer": name,
        "alphas": grids.alphas.tolist(),
        "epsilons": grids.epsilons.tolist(),
        "runs": [{"seed": record["seed"], "run": record["id"]} for record in records],
        "values": [_plain(one) for one in values],
        "mean": _plain(grids.mean),
        "spread": _plain(grids.spread),
        "diverged": grids.diverged.tolist(),
        "missing": (len(records) - grids.finished - grids.diverged).tolist(),
        "root_v": _plain(grids.root_v),
        "best": best,
        "border": border(grids),
        "ridge": [] if best is None else ridge(grids, best, name.startswith("AvaGrad")),
    }


def border(grids: Table) -> list[list[int]]:
    """Cell edges between the two regimes: ``[x, y, x, y]`` each, in cells from the grid's low corner, x along alpha.

    A cell is adaptive where ε lies below its median √v, SGD-like from there on (Section 6.4.2: the second moments
    govern the transition). Only cells with a recorded √v have a regime, and only an edge between two of them can be a
    border.
    """
    regime = np.where(np.isfinite(grids.root_v), grids.epsilons[:, None] >= grids.root_v, np.nan)
    across = np.argwhere(np.abs(np.diff(regime, axis=0)) == 1)  # a NaN is not 1
    along = np.argwhere(np.abs(np.diff(regime, axis=1)) == 1)
    edges = [[c, r + 1, c + 1, r + 1] for r, c in across.tolist()] + [
        [c + 1, r, c + 1, r + 1] for r, c in along.tolist()
    ]
    return sorted(edges)


def ridge(grids: Table, best: Sequence[int], normalised: bool) -> list[list[float]]:
    """Settings predicted to step as far as the best cell does: points ``[x, y]`` in cells, as :func:`border` has them.

    A weight with the best run's median √v moves by alpha / (√v + ε), (6.6): so alpha is constant where ε is small and
    grows like ε where it is large. Normalised rates (Algorithm 7) leave alpha alone. Empty without a recorded √v.
    """
    row, column = best
    root = grids.root_v[row, column]
    if not math.isfinite(root):
        return []
    y = np.linspace(0, len(grids.epsilons) - 1, 6 * len(grids.epsilons) - 5)
    eps = np.exp(np.interp(y, np.arange(len(grids.epsilons)), np.log(grids.epsilons)))
    reach = np.ones_like(eps) if normalised else (root + eps) / (root + grids.epsilons[row])
    x = np.interp(
        np.log(grids.alphas[column] * reach),
        np.log(grids.alphas),
        np.arange(len(grids.alphas)),
        left=np.nan,
        right=np.nan,
    )
    inside = np.isfinite(x)
    points: list[list[float]] = np.round(np.stack([x, y], 1)[inside] + 0.5, 3).tolist()  # + 0.5: a cell's middle
    return points


def _walks(walks: Iterable[Mapping[str, Any]], maps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a (sampler, seed), with the trials of each map as ``[row, column]``; null for a map that has none."""
    place = {shown["optimizer"]: i for i, shown in enumerate(maps)}
    entries: dict[tuple[str, int], list[Any]] = {}
    for walk in walks:
        if walk["optimizer"] not in place:
            raise LabError(
                f"a walk of {walk['sampler']} is over {walk['optimizer']!r}, whose grid is not here: {', '.join(place)}"
            )
        i = place[walk["optimizer"]]
        entries.setdefault((walk["sampler"], walk["seed"]), [None] * len(maps))[i] = [
            [_place(maps[i]["epsilons"], eps, "epsilon"), _place(maps[i]["alphas"], alpha, "alpha")]
            for alpha, eps in walk["trials"]
        ]
    return [{"sampler": sampler, "seed": seed, "trials": trials} for (sampler, seed), trials in entries.items()]
