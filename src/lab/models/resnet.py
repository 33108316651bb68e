"""ResNet-20 for CIFAR (He et al., 2016), in the form that Chapters 4 and 5 prune and quantise."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a skip; where the shape changes the skip is a bare 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        y += self.shortcut(
            x
        )  # in place, twice: on a CPU the memory traffic of this network costs more than its arithmetic
        return F.relu(y, inplace=True)


class ResNet(nn.Module):
    """A CIFAR ResNet of depth 6n + 2: three stages of n blocks with 16, 32 and 64 channels, images (N, 3, 32, 32).

    With n = 3 it has 272,282 parameters: 267,696 in its 19 convolutions of 3x3 (the maskable ones), the rest in
    BatchNorm, the two 1x1 shortcuts and the linear layer. Weights start Kaiming-normal over the fan-in (He et al.,
    2015): the thesis does not say how, and the author's public code starts them Xavier-normal.
    """

    def __init__(self, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
        self.blocks = nn.Sequential(*(Block(i, o, stride=2 if o > i else 1) for i, o in pairwise(widths)))
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(F.relu(self.norm(self.conv(x)), inplace=True))
        return self.linear(y.mean(dim=(2, 3)))


def resnet20(classes: int = 10) -> ResNet:
    """The ResNet-20 of Chapters 4 and 5."""
    return ResNet(3, classes)
