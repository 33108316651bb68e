"""VGG-16 for CIFAR (Simonyan and Zisserman, 2015), the variant of 4.3.2: normalised, with one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

PLAN = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")


class VGG(nn.Module):
    """Thirteen 3x3 convolutions, each with BatchNorm and ReLU, in five stages that end in 2x2 max-pooling; images (N,
    3, 32, 32).

    At width 1 it has 14,724,042 parameters, 14,710,464 of them in the convolutions (the maskable ones), which carry no
    bias. (4.5.4 speaks of 16 convolutions; VGG-16 has 13.) Weights start Kaiming-normal over the fan-in, as this book's
    ResNet-20.

    Args:
        classes: number of scores.
        width: factor of every layer's channels.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for entry in PLAN:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
                continue
            outputs = max(round(entry * width), 1)
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).flatten(1))


def vgg16(classes: int = 10, width: float = 1.0) -> VGG:
    """The VGG-16 of Chapter 4."""
    return VGG(classes, width)
