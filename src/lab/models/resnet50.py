"""ResNet-50 (He et al., 2016) as torchvision builds it, and a form of it for small images."""

from __future__ import annotations

from torch import nn


def resnet50(classes: int = 1000, small_images: bool = False) -> nn.Module:
    """The ResNet-50 of 4.3.2, from torchvision, untrained: 25,557,032 parameters with 1,000 classes.

    Its 53 convolutions hold 23,454,912 weights. Most kernels are 1x1, so masks need ``where=nn.Conv2d``.

    Args:
        classes: number of scores.
        small_images: for images of 32 to 64 pixels a side: the first convolution is 3x3 without stride and the pooling
            after it is gone, since the original's first layers would leave them a single pixel.
    """
    from lab.utils.vision import torchvision

    net: nn.Module = torchvision.models.resnet50(weights=None, num_classes=classes)
    return for_small_images(net) if small_images else net


def for_small_images(net: nn.Module) -> nn.Module:
    """A torchvision ResNet with a first convolution of 3x3 without stride, and no pooling after it;
    changed in place.
    """
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net
