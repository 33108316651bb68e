r"""Numbers of p signed bits (5.2.1): the quantiser Q(w, p), precision zero, and precisions that hardware has.

With the bit values :math:`v_j = 2^{1-j}` a number of p bits is :math:`\sum_j \pm v_j`: an odd multiple of
:math:`2^{1-p}` within :math:`\pm(2 - 2^{1-p})`. No two precisions have a level in common, and none of them has zero:
that is what precision 0 is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

MAX_BITS = 24
"""A level of p bits needs p bits of mantissa, and float32 has 24: beyond, rounding the weight changes nothing."""


def bits_held(dtype: torch.dtype) -> int:
    """Most bits whose levels ``dtype`` holds: 24 in float32 and wider, 11 in float16, 8 in bfloat16."""
    return min(MAX_BITS, 1 - round(math.log2(torch.finfo(dtype).eps)))


def spacing(p: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    r""":math:`2^{1-p}`, half the distance between two levels of p bits, exactly, for integers p from 0 to 24.

    The exponent is written into the number's bits: ``exp2`` is allowed to be wrong in the last place, and is slower.
    """
    if dtype == torch.float64:
        return ((1024 - p.to(torch.int64)) << 52).view(torch.float64)
    return ((128 - p.to(torch.int32)) << 23).view(torch.float32).to(dtype)


def nearest_level(w: Tensor, p: Tensor) -> Tensor:
    """:func:`quantize` without its checks, for training steps: traceable, no host synchronisation, and under ``vmap``
    from PyTorch 2.13 on (earlier ones do not batch a view of another type)."""
    half = spacing(p, w.dtype)
    # For p = 0 both limits are +0, and so is the level. What is NaN stays NaN.
    return torch.clamp((2 * torch.floor(w * (0.5 / half)) + 1) * half, half - 2, 2 - half)


def check_precision(p: Tensor, where: str = "quantize", dtype: torch.dtype = torch.float32) -> None:
    """Refuse precisions that are not whole numbers of bits from 0 to what ``dtype`` holds
    (``ValueError``, one line).
    """
    if p.dtype.is_floating_point or p.dtype.is_complex or p.dtype == torch.bool:
        raise ValueError(f"{where}: precisions must be an integer tensor, not {p.dtype}; round or floor them first")
    most = bits_held(dtype)
    if p.numel() and not 0 <= int(p.min()) <= int(p.max()) <= most:
        worst = int(p.min()) if int(p.min()) < 0 else int(p.max())
        wider = f" in {str(dtype)[6:]}; quantise in float32" if 0 < worst <= MAX_BITS else ""
        raise ValueError(f"{where}: a precision is a number of bits from 0 to {most}, not {worst}{wider}")


def check_finite(w: Tensor, where: str) -> None:
    """Refuse weights that are NaN or infinite (``ValueError``, one line)."""
    if not bool(torch.isfinite(w).all()):
        bad = int((~torch.isfinite(w)).sum())
        raise ValueError(f"{where}: {bad} of {w.numel()} weights are NaN or infinite; did the training diverge?")


def quantize(w: Tensor, p: Tensor) -> Tensor:
    r"""The number of p bits nearest to w, element-wise: :math:`Q(w, p) = 2^{1-p}\,(2\lfloor w\,2^{p-2}\rfloor + 1)`,
    clipped.

    Halfway between two levels the upper one is taken; outside of :math:`\pm(2 - 2^{1-p})` the outermost. p = 0 gives 0
    (5.2.4).

    Args:
        w: weights, any shape, floating point; their range is :math:`\pm 2` (5.18): divide by a scale otherwise.
        p: integer tensor that broadcasts with ``w``, in bits, 0 to 24; to 11 in float16 and 8 in bfloat16, which hold
            no finer levels.

    Raises:
        ValueError: p fractional, negative or above that, or a weight that is not finite. These two checks read the
            tensors back; inside ``torch.compile`` they are left out.
    """
    if not torch.compiler.is_compiling():
        check_precision(p, dtype=w.dtype)
        check_finite(w, "quantize")
    return nearest_level(w, p)


def zero_precision(w: Tensor, p: Tensor, groups: Tensor | None = None) -> Tensor:
    r"""Zero Precision Allocation (5.2.4): p, with 0 wherever zero is at least as near to w as its level is.

    Element-wise that is :math:`|w| \le |w - Q(w, p)|`, which for p of at least 1 means :math:`|w| \le 2^{-p}`.
    (Algorithm 5 prints <.)

    Args:
        w, p: as for :func:`quantize`, of one shape.
        groups: integer ids, shape of ``w``; given, a group gives up its bits only as a whole, where its squared error
            does not grow. For precisions that weights must share, such as blocks.
    """
    check_precision(p, "zero_precision")
    check_finite(w, "zero_precision")
    if groups is None:
        # 2^-p; |w - Q| rounds in float32, this comparison does not
        return torch.where(w.abs() <= spacing(p, w.dtype) / 2, torch.zeros_like(p), p)
    ids, zeros = groups.flatten(), torch.zeros(int(groups.max()) + 1, dtype=torch.float64, device=w.device)
    exact = w.flatten().double()
    gain = exact.square() - (exact - nearest_level(exact, p.flatten())).square()
    return torch.where((zeros.index_add(0, ids, gain) <= 0)[ids].view_as(p), torch.zeros_like(p), p)


def restrict(p: Tensor, allowed: Iterable[int] = (0, 1, 2, 4, 8), direction: Literal["up", "nearest"] = "up") -> Tensor:
    """Precisions that hardware has (5.6.2): ``"up"`` takes the next allowed one, so that no error grows; ``"nearest"``
    the nearest, the higher one of two. What is above the largest becomes the largest. Zero stays zero where 0 is
    allowed.
    """
    check_precision(p, "restrict")
    steps = torch.tensor(sorted(set(allowed)), dtype=torch.int64)
    if not len(steps):
        raise ValueError("restrict: no precision is allowed; pass for instance allowed=(0, 1, 2, 4, 8)")
    check_precision(steps, "restrict")
    if direction not in ("up", "nearest"):
        raise ValueError(f"restrict: direction must be up or nearest, not {direction!r}")
    bounds = steps if direction == "up" else (steps[1:] + steps[:-1] - 1) // 2  # the last p that rounds down
    chosen = torch.bucketize(p.to(torch.int64), bounds.to(p.device)).clamp(max=len(steps) - 1)
    return steps.to(p.device)[chosen].to(p.dtype)


def average_bits(precision: Mapping[str, Tensor]) -> float:
    """Bits per weight over all tensors of a precision map, the thesis's bpp (the map itself is not counted)."""
    total = sum(p.numel() for p in precision.values())
    if not total:
        raise ValueError("average_bits: the precision map is empty")
    return sum(int(p.sum(dtype=torch.int64)) for p in precision.values()) / total
