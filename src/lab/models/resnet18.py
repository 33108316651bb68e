"""ResNet-18 (He et al., 2016) as torchvision builds it, and a form of it for small images."""

from __future__ import annotations

from torch import nn

from .resnet50 import for_small_images


def resnet18(classes: int = 1000, small_images: bool = False) -> nn.Module:
    """The ResNet-18 of 5.3.2, from torchvision, untrained: 11,689,512 parameters with 1,000 classes.

    Its blocks are basic ones, two 3x3 convolutions, as published (He et al., 2016, Table 1); the thesis says
    "bottleneck".

    Args:
        classes: number of scores.
        small_images: for images of 32 to 64 pixels a side: the first convolution is 3x3 without stride and the pooling
            after it is gone, since the original's first layers would leave them a single pixel.
    """
    from lab.utils.vision import torchvision

    net: nn.Module = torchvision.models.resnet18(weights=None, num_classes=classes)
    return for_small_images(net) if small_images else net
