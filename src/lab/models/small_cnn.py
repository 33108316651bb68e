"""A convolutional network small enough to be trained hundreds of times on one core: the grids over (alpha, epsilon)
need that.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three convolutions with BatchNorm and ReLU, their mean over the image, a linear layer; images (N, 3, 32, 32).

    The first convolution takes patches of 4x4 pixels, so that the costly part works on 8x8 and 4x4 positions: 24,682
    parameters for 10 classes. Weights start as PyTorch has them.
    """

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        shapes = ((4, 4, 0), (3, 2, 1), (3, 2, 1))  # kernel, stride, padding
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, *shape, bias=False) for i, o, shape in zip(widths, widths[1:], shapes, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in widths[1:])
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)), inplace=True)
        return self.linear(x.mean(dim=(2, 3)))
