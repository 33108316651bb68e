"""The networks of the shortest-paths task (3.3.2): a chain of equal convolutions, plain and with soft parameter
sharing.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lab.utils.errors import LabError
from principled import Relaxed, SoftSharing


class Layer(nn.Module):
    """A 3x3 convolution, BatchNorm and ReLU, and a skip over all three."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm(self.conv(x)), inplace=True)


class PathCNN(nn.Module):
    """``depth`` layers: 1x1 from two channels to ``channels``, depth - 2 of 3x3, 1x1 to one; grids (N, 2, H, W) to
    logits (N, H, W).

    The thesis's networks have 22 and 100 layers of 32 channels. Only the two 1x1 convolutions carry a bias.
    """

    def __init__(self, depth: int = 22, channels: int = 32) -> None:
        super().__init__()
        if depth < 3:
            raise LabError(f"the paths network has at least 3 layers, not {depth}; the thesis has 22 and 100")
        self.first = nn.Conv2d(2, channels, 1)
        self.layers = nn.Sequential(*(Layer(channels) for _ in range(depth - 2)))
        self.last = nn.Conv2d(channels, 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(self.first(x))).squeeze(1)


def path_cnn(depth: int = 22, channels: int = 32) -> PathCNN:
    """The CNN of the shortest-paths task."""
    return PathCNN(depth, channels)


def path_scnn(depth: int = 22, templates: int | None = None, channels: int = 32) -> Relaxed:
    """The same with soft sharing: one group, ``"layers"``, of all 3x3 convolutions; by default a template a layer, as
    3.3.2 has it.
    """
    net = path_cnn(depth, channels)
    names = [f"layers.{layer}.conv.weight" for layer in range(depth - 2)]
    return Relaxed(net, SoftSharing({"layers": names}, templates))
