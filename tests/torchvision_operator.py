"""Torchvision beside a torch that it was not built for: what imports it here needs its operators' names alone."""

import torch

LIBRARIES = []
"""Kept alive: a library's operators go with it."""


def declare() -> None:
    """Let ``import torchvision`` succeed where its operators could not be loaded."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        LIBRARIES.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            LIBRARIES[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
