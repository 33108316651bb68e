"""The two sections of a file: words of the entropy coder, which is ``constriction``'s, and raw bytes.

Arrays are written in the order in which they are read. The coder is a stack: it takes them at the end, the last first.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import constriction
except ModuleNotFoundError as e:  # one line says what to do; numpy is in the same extra
    what_to_do = "principled.files needs constriction: pip install 'principled[files]'"
    raise ModuleNotFoundError(what_to_do, name=e.name) from e

from .tables import Table

Array = NDArray[Any]


@lru_cache(maxsize=256)
def _model(table: Table) -> Any:
    # so given, the library's own rounding has nothing to do: shares that add up to 2**24, each less the 1 that it adds
    return constriction.stream.model.Categorical((table.shares() - 1).astype(np.float64), perfect=False)


class Writer:
    """Collects what the sections hold."""

    def __init__(self) -> None:
        self._coded: list[tuple[Array, Table]] = []
        self._raw: list[bytes] = []

    def code(self, symbols: Array, table: Table) -> None:
        """Symbols, one-dimensional, all of which the table knows."""
        if len(table.steps) > 1 and len(symbols):
            self._coded.append((symbols, table))

    def raw(self, content: bytes) -> None:
        """Bytes as they are."""
        self._raw.append(content)

    def sections(self) -> tuple[bytes, bytes]:
        """The coded section and the raw one."""
        coder = constriction.stream.stack.AnsCoder()
        for symbols, table in reversed(self._coded):
            coder.encode_reverse(symbols.astype(np.int32) - np.int32(table.first), _model(table))
        words: bytes = coder.get_compressed().astype("<u4").tobytes()
        return words, b"".join(self._raw)


class Reader:
    """Gives back what a :class:`Writer` took, in its order; ValueError where the sections hold less or more."""

    def __init__(self, words: bytes, raw: bytes) -> None:
        try:
            self._coder = constriction.stream.stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
        except (ValueError, RuntimeError) as e:
            raise ValueError("a coded section that is none") from e
        self._rest = memoryview(raw)
        self.bits: float | None = None
        """What was decoded so far took, if somebody sets it to 0."""
        self.raw_bytes = 0

    def decode(self, count: int, table: Table) -> NDArray[np.int32]:
        """``count`` symbols."""
        if len(table.steps) == 1 or not count:
            return np.full(count, table.first, np.int32)
        symbols: NDArray[np.int32] = self._coder.decode(_model(table), count)
        if self.bits is not None:
            self.bits += float(
                (np.bincount(symbols, minlength=len(table.steps)) * (24 - np.log2(table.shares()))).sum()
            )
        symbols += table.first
        return symbols

    def raw(self, count: int) -> Array:
        """``count`` bytes, uint8."""
        if not 0 <= count <= len(self._rest):
            raise ValueError("a raw section that is too short")
        self.raw_bytes += count
        taken, self._rest = self._rest[:count], self._rest[count:]
        return np.frombuffer(taken, np.uint8)

    def close(self) -> None:
        """Everything must have been read."""
        if len(self._rest) or not self._coder.is_empty():
            raise ValueError("more than its tensors hold")
