"""Values in fewer bits than they were trained in, for those who accept a change of the outputs: say how large it is."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .loading import load

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


@dataclass(frozen=True)
class Change:
    """How far a saved network's outputs on a batch are from those of the network itself."""

    largest: float
    """The largest difference of two outputs."""
    relative: float
    """The root of the mean squared difference over that of the outputs."""
    same_choice: float
    """Share of the rows (of all but the last axis) whose largest output is the same one."""

    def __str__(self) -> str:
        return (
            f"outputs differ by at most {self.largest:.3g}, by {self.relative:.2%} of their size on average; "
            f"{self.same_choice:.2%} choose alike"
        )


@torch.no_grad()
def change(path: str | Path, net: nn.Module, *batch: Tensor) -> Change:
    """What ``save(..., values="bfloat16")`` or ``"int8"`` did to the outputs: run both in evaluation, and compare.

    Args:
        path: the file.
        net: the network that was saved; it is left as it is.
        batch: what it is called with. Its output is a tensor.
    """
    own = copy.deepcopy(net).eval()
    before = own(*batch).double()
    after = load(path, own)(*batch).double()
    differs = (after - before).abs()
    choose = after.argmax(-1) == before.argmax(-1) if before.ndim else torch.ones(1)
    size = before.square().mean().sqrt()
    return Change(
        float(differs.max()),
        float(differs.square().mean().sqrt() / size) if size else 0.0,
        float(choose.double().mean()),
    )


@torch.no_grad()
def fold_batchnorm(net: nn.Module) -> nn.Module:
    """A copy for evaluation in which each BatchNorm is part of the convolution or linear layer before it.

    Its four vectors become one bias. A pair is known by its place: both are children of one ``nn.Sequential`` in turn,
    or of any module under names that say so (``conv1`` and ``norm1`` or ``bn1``, ``conv`` and ``norm`` or ``bn``), with
    as many channels. What PyTorch's ``torch.nn.utils.fusion`` makes of a pair is what the copy has; a layer that was
    folded away is an ``nn.Identity``. Outputs differ by rounding: check them with your own batch.

    Raises:
        ValueError: no such pair.
    """
    net = copy.deepcopy(net).eval()
    pairs = [(parent, first, second) for parent in net.modules() for first, second in _pairs(parent)]
    if not pairs:
        raise ValueError(f"this {type(net).__name__} has no BatchNorm right after a convolution or linear layer")
    for parent, first, second in pairs:
        layer, norm = parent.get_submodule(first), parent.get_submodule(second)
        fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        setattr(parent, first, fuse(layer, norm))  # type: ignore[type-var, arg-type]
        setattr(parent, second, nn.Identity())
    return net


def _pairs(parent: nn.Module) -> list[tuple[str, str]]:
    children = dict(parent.named_children())
    names = list(children)
    if isinstance(parent, nn.Sequential):
        tried = list(pairwise(names))
    else:
        tried = [(name, name.replace("conv", short)) for name in names if "conv" in name for short in ("norm", "bn")]
    layers, norms = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear), (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return [
        (first, second)
        for first, second in tried
        if isinstance(layer := children[first], layers)
        and isinstance(norm := children.get(second), norms)
        and norm.running_mean is not None
        and norm.num_features == len(layer.weight)
    ]
