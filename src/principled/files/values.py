"""Values in fewer bits than they were trained in, for those who accept a change of the outputs: say how large it is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUES = ("float32", "bfloat16", "int8")

Floats = NDArray[np.float32]
Steps = tuple[NDArray[np.int64], Floats]


def rounded(numbers: Floats, shape: tuple[int, ...], values: str) -> tuple[Floats, Steps | None]:
    """Numbers as ``values`` keeps them; for ``int8`` also the whole numbers and their scales.

    What is not finite, or has fewer than two axes under ``int8``, is left as it is.
    """
    if values == "bfloat16":
        return _bfloat16(numbers), None
    rows = numbers.reshape(shape[0], -1) if len(shape) > 1 else numbers[:0]
    if len(shape) < 2 or not np.isfinite(rows).all():
        return numbers, None
    scale = (np.abs(rows).max(1) / np.float32(127)).astype(np.float32)
    scale = np.where(scale > 0, scale, np.float32(1))
    whole = np.clip(np.rint(rows / scale[:, None]), -127, 127)
    return (whole.astype(np.float32) * scale[:, None]).ravel(), (whole.astype(np.int64).ravel(), scale)


def _bfloat16(numbers: Floats) -> Floats:
    """To the nearest, ties to even; NaN and infinities stay."""
    words = numbers.view(np.uint32)
    up = words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))
    result: NDArray[Any] = np.where(np.isfinite(numbers), up & np.uint32(0xFFFF0000), words)
    return result.view(np.float32)
