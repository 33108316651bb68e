"""What masks with one variable a weight have in common: which weights, and one vector for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from principled.relax import Relaxation, Where, is_spatial_convolution, select
from principled.reweighted import Weights


class VectorMask(Relaxation):
    """Effective weights are factors times weights, the factors of all layers being slices of one vector.

    Args:
        where: which weights carry a factor, as for :class:`principled.ContinuousMask`.
    """

    def __init__(self, where: Where | None = None) -> None:
        super().__init__()
        self.where: Where = is_spatial_convolution if where is None else where

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Choose the weights, then :meth:`start`."""
        self.names = tuple(select(net, self.where))
        self._shapes = {name: tuple(weights[name].shape) for name in self.names}
        self.start(sum(math.prod(shape) for shape in self._shapes.values()), weights[self.names[0]])

    def start(self, size: int, like: Tensor) -> None:
        """Make the variables: ``size`` of them, of the dtype and device of ``like``."""
        raise TypeError(f"{type(self).__name__} does not say what it starts with")

    def split(self, flat: Tensor) -> Weights:
        """``(d,)`` to ``{name: part}`` in the weights' shapes."""
        parts = flat.split([math.prod(shape) for shape in self._shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def scaled(self, weights: Weights, factors: Tensor) -> Weights:
        """Weights times ``(d,)`` factors."""
        return {name: weights[name] * part for name, part in self.split(factors).items()}
