"""Wide ResNets (Zagoruyko and Komodakis, 2016), plain and with soft parameter sharing, as Chapter 3 trains them."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from lab.utils.errors import LabError
from principled import Relaxed, SoftSharing


class Block(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, dropout between them, and a skip.

    Where the width changes the skip is a bare 1x1 convolution of the *normalised* input, as in the author's public
    code.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x), inplace=True)
        skip = x if self.shortcut is None else self.shortcut(y)
        y = F.relu(self.norm2(self.conv1(y)), inplace=True)
        return self.conv2(self.dropout(y)) + skip


class WideResNet(nn.Module):
    """A Wide ResNet for CIFAR of ``depth`` 6n + 4 layers: three stages of n blocks with 16, 32 and 64 times ``width``
    channels.

    Images are (N, 3, 32, 32), the result (N, classes). ``dropout`` acts between the two convolutions of a block (the
    thesis's tables have 0 and 0.3). Weights start Kaiming-normal over the fan-in. WRN-28-10 has 36,479,194 parameters.
    Raises LabError for another depth, or a width below 1.
    """

    def __init__(self, depth: int, width: int, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise LabError(f"a Wide ResNet has 6n + 4 layers, not {depth}: choose 10, 16, 22, 28, 34, 40 ...")
        if width < 1:
            raise LabError(f"a Wide ResNet's width is at least 1, not {width}")
        blocks = (depth - 4) // 6
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        widths = (16, 16 * width, 32 * width, 64 * width)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(Block(i, o, stride, dropout), *(Block(o, o, 1, dropout) for _ in range(blocks - 1)))
                for (i, o), stride in zip(pairwise(widths), (1, 2, 2), strict=True)
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.stages(self.conv(x))), inplace=True)
        return self.linear(y.mean(dim=(2, 3)))


def wrn(depth: int, width: int, classes: int = 10, dropout: float = 0.0) -> WideResNet:
    """WRN-``depth``-``width`` for CIFAR."""
    return WideResNet(depth, width, classes, dropout)


def swrn(depth: int, width: int, templates: int | None = None, classes: int = 10, dropout: float = 0.0) -> Relaxed:
    """SWRN-``depth``-``width``-``templates``: a group a stage, ``"stage1"`` to ``"stage3"``, of (depth - 10) / 3
    convolutions.

    The first convolution and each stage's first block stay outside (3.3.2). ``templates=None`` is as many as a group
    has layers, the thesis's SWRN-L-w. Raises LabError for a depth whose stages have nothing to share, or no template.
    """
    net = wrn(depth, width, classes, dropout)
    if depth < 16:
        raise LabError(f"SWRN-{depth} has one block a stage and nothing to share: choose a depth of 16 or more")
    if templates is not None and templates < 1:
        raise LabError(f"SWRN-{depth}-{width} cannot have {templates} templates: choose 1 (one loop) or more")
    groups = {
        f"stage{s + 1}": [f"stages.{s}.{block}.conv{c}.weight" for block in range(1, len(stage)) for c in (1, 2)]
        for s, stage in enumerate(net.stages)
    }
    return Relaxed(net, SoftSharing(groups, templates))


def wrn50_2(classes: int = 1000) -> nn.Module:
    """WRN-50-2 for ImageNet, images (N, 3, 224, 224): torchvision's, with 68,883,240 parameters for 1000 classes."""
    from lab.utils.vision import torchvision  # here, because its import takes longer than all of ours

    return torchvision.models.wide_resnet50_2(num_classes=classes)


def swrn50_2(classes: int = 1000, templates: int | None = None) -> Relaxed:
    """SWRN-50-2 for ImageNet: four stages of three groups, ``"stage1_reduce"``, ``"stage1_keep"``,
    ``"stage1_increase"``, ...

    A group is the same convolution of a stage's blocks, its first block left out (3.3.2). ``templates=None``, the
    thesis's choice, is as many as layers, so no parameter is saved. Templates start as torchvision's convolutions do,
    which they replace: Kaiming-normal over the fan-out.
    """
    net = wrn50_2(classes)
    groups = {
        f"stage{s}_{kind}": [f"layer{s}.{block}.conv{c}.weight" for block in range(1, blocks)]
        for s, blocks in enumerate((3, 4, 6, 3), start=1)
        for c, kind in enumerate(("reduce", "keep", "increase"), start=1)
    }
    sharing = SoftSharing(groups, templates)
    shared = Relaxed(net, sharing)
    for group in sharing.templates.values():
        for template in group:
            nn.init.kaiming_normal_(template, mode="fan_out", nonlinearity="relu")
    return shared
