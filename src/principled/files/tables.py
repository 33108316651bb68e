"""Models of the file format: how often each symbol occurs, in few bytes, and the same whole numbers everywhere.

A table keeps each symbol's frequency in quarter octaves (``docs/file-format.md`` has the derivation to the last
rounding). :func:`clusters` decides how many tables a file has: contexts share one where two would not pay for
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

STEPS = 64
"""Weights that a symbol can have, above none; four an octave."""
WHOLE, MOST = 2**24, 2**28
"""Sum of a table's shares, and the most that its weights may add up to."""
LONGEST = 2**16
FIRST, AROUND = 35, STEPS + 1
_STEP = np.array([0] + [[16, 19, 23, 27][(k - 1) % 4] << ((k - 1) // 4) for k in range(1, STEPS + 1)], np.int64)
_MIDDLES = np.sqrt(_STEP[1:-1].astype(np.float64) * _STEP[2:])  # between two weights, in the geometric sense


@dataclass(frozen=True)
class Table:
    """A model of symbols ``first``, ``first + 1`` ...: for each a step, 0 for one that does not occur."""

    first: int
    steps: tuple[int, ...]

    @staticmethod
    def of(counts: Ints) -> Table:
        """The table nearest to how often symbols 0, 1 ... occur; at least one of them does."""
        occurring = np.flatnonzero(counts)
        counts = counts[occurring[0] : occurring[-1] + 1]
        top = _STEP[-1] / counts.max()
        while True:
            steps = np.where(counts > 0, 1 + np.searchsorted(_MIDDLES, counts * top), 0)
            if int(_STEP[steps].sum()) <= MOST:
                return Table(int(occurring[0]), tuple(int(k) for k in steps))
            top /= 2

    @staticmethod
    def read(first: object, text: object) -> Table:
        """The table that a header states; ValueError if it is none."""
        if not isinstance(first, int) or not isinstance(text, str) or not 0 < len(text) <= LONGEST or not first >= 0:
            raise ValueError("a table that is none")
        steps = np.cumsum([ord(letter) - FIRST for letter in text]) % AROUND
        if not 0 < int(_STEP[steps].sum()) <= MOST:
            raise ValueError("a table whose weights are none or too many")
        return Table(first, tuple(int(k) for k in steps))

    @property
    def text(self) -> str:
        """The steps as a header has them."""
        return "".join(chr(FIRST + change % AROUND) for change in np.diff(self.steps, prepend=0).tolist())

    def shares(self) -> Ints:
        """Each symbol's share of 2**24, whole numbers that add up to it."""
        total = np.concatenate([[0], np.cumsum(_STEP[list(self.steps)])])
        each = len(self.steps)
        cumulative: Ints = np.arange(each + 1) + total * (WHOLE - each) // total[-1]
        return np.diff(cumulative)


def bits(counts: Ints) -> float:
    """Bits that so many symbols of each kind take under their own frequencies: their empirical entropy."""
    counts = counts[counts > 0]
    return float((counts * (np.log2(counts.sum()) - np.log2(counts))).sum()) if len(counts) else 0.0


def table_bits(counts: Ints) -> float:
    """About what a table takes in the header, after compression."""
    occurring = np.flatnonzero(counts)
    return 60 + 4.5 * len(occurring) + 0.5 * int(occurring[-1] - occurring[0] + 1 - len(occurring))


def clusters(counts: Ints, raw_bits: float | None = None) -> tuple[list[int], list[Table]]:
    """Tables for contexts, and which one each context takes: as many as pay for themselves.

    Args:
        counts: ``(contexts, symbols)``, how often each symbol occurs in each context.
        raw_bits: of a symbol that no table codes; such contexts get -1. None: each context gets a table.

    The contexts are grouped as by k-means, the bits of a context under a group's frequencies being its distance, for 1,
    2, 4 ... groups; the number is taken with which tables and symbols together are shortest.
    """
    size = counts.sum(1)
    raw = size * raw_bits if raw_bits is not None else np.full(len(counts), np.inf)
    order = np.argsort((counts @ np.arange(counts.shape[1])) / np.maximum(size, 1), kind="stable")
    share = (np.cumsum(size[order]) - size[order] / 2) / max(int(size.sum()), 1)
    start = np.zeros(len(counts), np.int64)
    best, labels, groups = np.inf, start, 1
    while groups <= min(128, 2 * len(counts) - 1):
        start[order] = np.minimum(share * groups, groups - 1)
        tried = _settled(counts, start, raw)
        total = sum(min(_cost(counts[own].sum(0)), float(raw[own].sum())) for own in _members(tried))
        if total < best:
            best, labels = total, tried
        groups *= 2
    tables: list[Table] = []
    chosen = np.zeros(len(counts), np.int64)
    for own in _members(labels):
        together = counts[own].sum(0)
        if not together.any():
            continue
        if _cost(together) >= float(raw[own].sum()):
            chosen[own] = -1
        else:
            chosen[own] = len(tables)
            tables.append(Table.of(together))
    if not tables and not (chosen < 0).all():  # contexts without a symbol take any table
        tables.append(Table(0, (1,)))
    return [int(number) for number in chosen], tables


def _cost(counts: Ints) -> float:
    return bits(counts) + table_bits(counts) if counts.any() else 0.0


def _members(labels: Ints) -> list[NDArray[np.bool_]]:
    return [labels == label for label in np.unique(labels)]


def _settled(counts: Ints, labels: Ints, raw: NDArray[np.float64]) -> Ints:
    """Each context in the group whose frequencies suit it best; one more group is for those that stay raw."""
    for _ in range(8):
        sums = np.stack([counts[own].sum(0) for own in _members(labels)])
        sums = sums[sums.any(1)]
        if not len(sums):
            return labels
        chances = np.maximum(sums / sums.sum(1, keepdims=True), 2.0**-20)
        before, labels = labels, np.concatenate([counts @ -np.log2(chances.T), raw[:, None]], 1).argmin(1)
        if np.array_equal(before, labels):
            break
    return labels
