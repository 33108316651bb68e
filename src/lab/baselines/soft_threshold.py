"""Soft Threshold Reparameterization (STR; Kusupati et al., 2020): a learned threshold for each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from principled.relax import Relaxation, Where, is_spatial_convolution, select
from principled.reweighted import Weights


class SoftThreshold(Relaxation):
    r"""Effective weights :math:`\mathrm{sign}(w)\,\mathrm{relu}(|w| - \sigma(s_l))`: zero below the layer's threshold,
    and drawn towards zero by it above.

    Args:
        s_init: start of every layer's ``s``. Far below 0 the threshold starts near 0. The paper takes -3200 for a long
            schedule, in which weight decay carries ``s`` up to where thresholds matter; a short one needs it nearer.
        where: which weights, as for :class:`principled.ContinuousMask`.

    Attributes:
        s: ``(layers,)`` Parameter. Weight decay on it is what makes the network sparse: it draws ``s`` to 0, where the
            threshold is 1/2, against the loss. A stronger decay gives a sparser network; there is no penalty.
    """

    def __init__(self, s_init: float = -3200.0, where: Where | None = None) -> None:
        super().__init__()
        if not math.isfinite(s_init):
            raise ValueError(f"s_init must be a finite number, not {s_init}; the paper starts at -3200")
        self.s_init = float(s_init)
        self.where: Where = is_spatial_convolution if where is None else where
        self.register_parameter("s", None)

    def bind(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """One threshold a layer."""
        self.names = tuple(select(net, self.where))
        like = weights[self.names[0]]
        self.s = nn.Parameter(torch.full((len(self.names),), self.s_init, dtype=like.dtype, device=like.device))

    def forward(self, weights: Weights) -> Weights:
        """Soft-thresholded weights, zeros exact."""
        thresholds = torch.sigmoid(self.s).unbind()
        return {
            name: torch.sign(weights[name]) * torch.relu(weights[name].abs() - threshold)
            for name, threshold in zip(self.names, thresholds, strict=True)
        }
