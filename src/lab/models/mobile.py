"""MobileNetV2 and ShuffleNet for images of 32x32 pixels: the two small networks of Table 5.2.

The thesis names no sizes. It does say that MobileNetV2's shortcuts hold 1x1 convolutions with normalisation (5.3.3),
which the paper's do not; those of the widespread public CIFAR forms (github.com/kuangliu/pytorch-cifar) do, so both
networks here have the shapes of these forms, and their numbers of parameters to the unit.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""MobileNetV2 (Sandler et al., 2018, Table 2): expansion, channels, blocks, stride. The second stage has stride 1 here,
not 2.
"""


def _norm_conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel alone (3x3), narrow again without a ReLU; a skip where the stride
    is 1.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * inputs
        self.widen = _norm_conv(inputs, inner, 1)
        self.filter = _norm_conv(inner, inner, 3, stride, groups=inner)
        self.narrow = _norm_conv(inner, outputs, 1)
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = nn.Identity() if inputs == outputs else _norm_conv(inputs, outputs, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(self.relu(self.filter(self.relu(self.widen(x)))))
        return y if self.shortcut is None else y + self.shortcut(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 for images (N, 3, 32, 32): strides that leave 4x4 positions at the end, and plain ReLUs.

    2,296,922 parameters at full width with 10 classes. Weights start Kaiming-normal over the fan-out, as published.

    Args:
        classes: number of scores.
        width: factor on all channels (at least 4 remain); 1 is the thesis's.
        stages: what it is built of; default :data:`STAGES`.
    """

    def __init__(
        self, classes: int = 10, width: float = 1.0, stages: tuple[tuple[int, int, int, int], ...] = STAGES
    ) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(4, round(channels * width))

        self.stem = _norm_conv(3, scaled(32), 3)
        blocks, inputs = [], scaled(32)
        for expansion, channels, count, first in stages:
            for stride in (first, *[1] * (count - 1)):
                blocks.append(InvertedResidual(inputs, scaled(channels), expansion, stride))
                inputs = scaled(channels)
        self.blocks = nn.Sequential(*blocks)
        self.head = _norm_conv(inputs, scaled(1280), 1)
        self.linear = nn.Linear(scaled(1280), classes)
        self.relu = nn.ReLU(inplace=True)
        _start(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.relu(self.stem(x)))
        return self.linear(self.relu(self.head(y)).mean(dim=(2, 3)))


class ShuffleUnit(nn.Module):
    """A grouped 1x1 convolution, channels dealt out anew among the groups, a 3x3 one for each channel, a grouped 1x1.

    With stride 2 its result stands beside the pooled input, with stride 1 it is added to it (Zhang et al., 2018, Figure
    2).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first_groups: int) -> None:
        super().__init__()
        added = outputs - inputs if stride == 2 else outputs
        inner = added // 4
        self.first_groups, self.stride = first_groups, stride
        self.squeeze = _norm_conv(inputs, inner, 1, groups=first_groups)
        self.filter = _norm_conv(inner, inner, 3, stride, groups=inner)
        self.spread = _norm_conv(inner, added, 1, groups=groups)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = F.channel_shuffle(self.relu(self.squeeze(x)), self.first_groups)
        y = self.spread(self.filter(y))
        y = torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1) if self.stride == 2 else y + x
        return self.relu(y)


class ShuffleNet(nn.Module):
    """ShuffleNet (V1) for images (N, 3, 32, 32): three stages of units, no pooling before them.

    Args:
        classes: number of scores.
        channels: of the three stages; all multiples of 4 times ``groups``.
        blocks: units of the three stages; the first of each halves the image.
        groups: of the 1x1 convolutions. 2, with 200, 400 and 800 channels, is a row of the paper's Table 1.
        stem: channels of the first convolution, 1x1 as in the public CIFAR form.

    887,582 parameters as it stands. Weights start as in :class:`MobileNetV2`.
    """

    def __init__(
        self,
        classes: int = 10,
        channels: tuple[int, int, int] = (200, 400, 800),
        blocks: tuple[int, int, int] = (4, 8, 4),
        groups: int = 2,
        stem: int = 24,
    ) -> None:
        super().__init__()
        self.stem = _norm_conv(3, stem, 1)
        units = []
        for stage, ((inputs, outputs), count) in enumerate(zip(pairwise((stem, *channels)), blocks, strict=True)):
            # the first unit of all has few channels to group
            units.append(ShuffleUnit(inputs, outputs, 2, groups, groups if stage else 1))
            units += [ShuffleUnit(outputs, outputs, 1, groups, groups) for _ in range(count - 1)]
        self.units = nn.Sequential(*units)
        self.linear = nn.Linear(channels[-1], classes)
        self.relu = nn.ReLU(inplace=True)
        _start(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.units(self.relu(self.stem(x))).mean(dim=(2, 3)))


def _start(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def mobilenetv2(classes: int = 10) -> MobileNetV2:
    """The MobileNetV2 of Table 5.2."""
    return MobileNetV2(classes)


def shufflenet(classes: int = 10) -> ShuffleNet:
    """The ShuffleNet of Table 5.2, with 2 groups."""
    return ShuffleNet(classes)


def mobilenetv2_narrow(classes: int = 10) -> MobileNetV2:
    """What `quick` can afford: a quarter of the channels, five stages of one block, the image halved earlier."""
    return MobileNetV2(classes, 0.25, ((1, 16, 1, 2), (6, 24, 1, 1), (6, 32, 1, 2), (6, 64, 1, 1), (6, 96, 1, 2)))


def shufflenet_narrow(classes: int = 10) -> ShuffleNet:
    """What `quick` can afford: a fifth of the channels, six units."""
    return ShuffleNet(classes, (40, 80, 160), (2, 2, 2))
