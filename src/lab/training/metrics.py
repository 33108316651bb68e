"""Figures of merit that are more than an average."""

from __future__ import annotations

from torch import Tensor

from lab.utils.errors import LabError


def f1(predicted: Tensor, true: Tensor) -> float:
    r"""The F1 score of a binary prediction, :math:`2 \sum_i y_i \hat y_i / (\sum_i y_i + \sum_i \hat y_i)`, from 0 to 1.

    ``predicted`` and ``true`` are boolean (or 0 and 1), of equal shape; all entries count as one set. (3.20) prints the
    formula without its factor 2, which would give a perfect prediction 0.5. Nothing to find and nothing found is 1.
    """
    if predicted.shape != true.shape:
        raise LabError(f"f1 compares equal shapes, not {tuple(predicted.shape)} and {tuple(true.shape)}")
    hits, total = int((predicted.bool() & true.bool()).sum()), int(predicted.bool().sum()) + int(true.bool().sum())
    return 2 * hits / total if total else 1.0
