"""Conv-6 (Frankle and Carbin, 2019): the small network of the supermask and ticket experiments (4.3.2)."""

from __future__ import annotations

from torch import Tensor, nn


class Conv6(nn.Module):
    """Three blocks of two 3x3 convolutions with ReLU and 2x2 max-pooling, then three linear layers; images (N, 3, 32,
    32).

    At width 1: channels 64, 128, 256, neurons 256, 256, 10, and 2,262,602 parameters, 2,261,184 of them weights. No
    normalisation, and biases start at 0, so that a supermask has nothing but the random weights; those start
    Glorot-normal (Frankle and Carbin).

    Args:
        classes: number of scores.
        width: factor of all channels and hidden neurons.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        sizes = [max(round(size * width), 1) for size in (64, 128, 256)]
        layers: list[nn.Module] = []
        for inputs, outputs in zip([3, *sizes[:-1]], sizes, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        hidden = sizes[-1]
        self.linear = nn.Sequential(
            nn.Linear(16 * hidden, hidden), nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, classes),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x).flatten(1))


def conv6(classes: int = 10, width: float = 1.0) -> Conv6:
    """The 6-layer CNN of Chapter 4."""
    return Conv6(classes, width)
