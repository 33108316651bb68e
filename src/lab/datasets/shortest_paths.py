"""The shortest-paths task (3.3.1), drawn and labelled here: grids with two query points among obstacles.

A row of cells is one integer, a cell a bit of it. Spreading a wave by one step over all grids is then a handful of
shifts and ors of an (N, rows) tensor, and labelling thousands of grids takes less than a second.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from lab.utils.errors import LabError

Moves = Literal["manhattan", "diagonal"]

CURRICULUM = (2, 4, 6, 8, 10)
"""The largest distance between the query points in each phase of the thesis's curriculum."""


@dataclass(frozen=True, eq=False)
class Paths:
    """One set of grids, whole.

    ``inputs`` is uint8 (N, 2, size, size), 0 or 1: the two query points, and the obstacles. ``labels`` is bool
    (N, size, size): the cells on at least one shortest path, both query points among them. ``lengths`` is int64 (N,),
    the steps of a shortest path; ``distance`` is the largest distance of two query points, were there no obstacles.
    """

    inputs: Tensor
    labels: Tensor
    lengths: Tensor
    distance: int

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Paths:
        """The same set with its tensors on ``device``."""
        moved = {key: getattr(self, key).to(device) for key in ("inputs", "labels", "lengths")}
        return replace(self, **moved)


def paths(
    count: int = 5000,
    distance: int = 2,
    seed: int = 0,
    size: int = 32,
    obstacles: float = 0.1,
    moves: Moves = "manhattan",
) -> Paths:
    """Draw ``count`` grids whose query points are 1 to ``distance`` steps apart; equal arguments give equal grids.

    The pair of query points is uniform over all pairs that near; every other cell is an obstacle with probability
    ``obstacles``, independently. Where obstacles cut the points off from each other, the whole grid is drawn again.

    ``moves``: the thesis measures a path by its Manhattan distance (3.4.3), four neighbours to a cell, and lets the
    first phase's distance of 2 include diagonal movements (3.3.1). The default follows both: a diagonal movement is two
    steps. ``"diagonal"`` is the other reading, eight neighbours, a diagonal movement being one step.

    Raises LabError for arguments that no grid can have.
    """
    if not 2 <= size <= 62:
        raise LabError(f"a grid has 2 to 62 cells a side, not {size}")
    if count < 1 or distance < 1:
        raise LabError(f"paths needs at least one grid and a distance of 1, not {count} and {distance}")
    if not 0 <= obstacles <= 0.5:
        raise LabError(f"obstacles is a probability up to 0.5 (above, hardly a path is left), not {obstacles}")
    if moves not in ("manhattan", "diagonal"):
        raise LabError(f"moves must be manhattan or diagonal, not {moves!r}")
    source = torch.Generator().manual_seed(seed)
    reach = min(distance, 2 * size)
    steps = torch.cartesian_prod(*(torch.arange(-reach, reach + 1),) * 2)
    length = steps.abs().sum(1) if moves == "manhattan" else steps.abs().amax(1)
    steps = steps[(length > 0) & (length <= distance)]

    queries, walls, labels = torch.empty(3, count, size, dtype=torch.int64)
    lengths = torch.empty(count, dtype=torch.int64)
    todo = torch.arange(count)
    while len(todo):
        a = torch.randint(0, size, (len(todo), 2), generator=source)
        b = a + steps[torch.randint(0, len(steps), (len(todo),), generator=source)]
        wall = pack(torch.rand(len(todo), size, size, generator=source) < obstacles)
        inside = ((b >= 0) & (b < size)).all(1)
        a, b, wall, done = a[inside], b[inside], wall[inside], todo[inside]
        start, end = _point(a, size), _point(b, size)
        wall = wall & ~(start | end)
        label, length = shortest(start, end, ~wall & (2**size - 1), moves)
        connected = length > 0
        done = done[connected]
        queries[done], walls[done] = (start | end)[connected], wall[connected]
        labels[done], lengths[done] = label[connected], length[connected]
        left = torch.ones(count, dtype=torch.bool)
        left[done] = False
        todo = todo[left[todo]]
    inputs = torch.stack([unpack(queries, size), unpack(walls, size)], dim=1).to(torch.uint8)
    return Paths(inputs, unpack(labels, size), lengths, distance)


def curriculum(count: int = 5000, seed: int = 0, moves: Moves = "manhattan") -> list[Paths]:
    """The five phases, ``count`` grids each, with distances up to 2, 4, ... 10. Phases and seeds share no random
    numbers."""
    return [paths(count, d, seed * len(CURRICULUM) + phase, moves=moves) for phase, d in enumerate(CURRICULUM)]


@cache
def checksum() -> str:
    """A hex digest of what :func:`curriculum` draws (its first grids): it changes if the generator or its labels do."""
    digest = hashlib.sha256()
    for phase in curriculum(8):
        digest.update(phase.inputs.numpy().tobytes() + phase.labels.numpy().tobytes())
    return digest.hexdigest()


def shortest(start: Tensor, end: Tensor, free: Tensor, moves: Moves) -> tuple[Tensor, Tensor]:
    """The cells on shortest paths from ``start`` to ``end`` through ``free`` ones, and the paths' lengths; 0 where
    there is none.

    All grids are packed, int64 (N, size). A breadth-first search runs from both ends, and a cell lies on a shortest
    path of length D where its two distances add up to D.
    """
    ahead, back = _waves(start, end, free, moves)
    met = (ahead & end).any(2)  # (waves, N): the wave that reaches the other end
    length = met.long().argmax(0)
    label, each = torch.zeros_like(start), torch.arange(len(start))
    for t, wave in enumerate(ahead):
        rest = length - t
        label |= torch.where((rest >= 0)[:, None], wave & back[rest.clamp(min=0), each], 0)
    return torch.where(met.any(0)[:, None], label, 0), length


def _waves(start: Tensor, end: Tensor, free: Tensor, moves: Moves) -> tuple[Tensor, Tensor]:
    """Breadth-first search from both ends: int64 (waves, N, size), where wave t holds the cells at distance t."""
    ahead, back, unseen, unseen_back = [start], [end], free & ~start, free & ~end
    while True:
        fresh, fresh_back = _spread(ahead[-1], moves) & unseen, _spread(back[-1], moves) & unseen_back
        # a grid is over when one end has reached the other, or is walled in
        going = (unseen & end).any(1) & fresh.any(1) & fresh_back.any(1)
        if not going.any():
            return torch.stack(ahead), torch.stack(back)
        ahead.append(torch.where(going[:, None], fresh, 0))
        back.append(torch.where(going[:, None], fresh_back, 0))
        unseen, unseen_back = unseen & ~fresh, unseen_back & ~fresh_back


def _spread(cells: Tensor, moves: Moves) -> Tensor:
    """The neighbours of ``cells``, perhaps with cells themselves and bits beyond the grid: the caller drops them."""
    sides = (cells << 1) | (cells >> 1)
    column = cells | sides if moves == "diagonal" else cells
    out = sides
    out[:, 1:] |= column[:, :-1]
    out[:, :-1] |= column[:, 1:]
    return out


def _point(at: Tensor, size: int) -> Tensor:
    """One cell a grid: ``at`` (N, 2) row and column, to packed (N, size)."""
    grid = torch.zeros(len(at), size, dtype=torch.int64)
    return grid.scatter_(1, at[:, :1], torch.ones_like(at[:, :1]) << at[:, 1:])


def pack(cells: Tensor) -> Tensor:
    """bool (N, rows, columns) to int64 (N, rows): bit c of a row is its cell in column c. At most 62 columns."""
    return (cells.long() << torch.arange(cells.shape[2])).sum(2)


def unpack(rows: Tensor, columns: int) -> Tensor:
    """The reverse of :func:`pack`."""
    return (rows[:, :, None] >> torch.arange(columns)) & 1 == 1
