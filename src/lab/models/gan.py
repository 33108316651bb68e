"""DCGAN's generator and discriminator for images of 32x32 (Sections 5.3.2 and 6.3.2); a geometric GAN is the same two,
trained with the hinge loss.

Source: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016; Lim and Ye, "Geometric GAN", 2017.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """Four transposed convolutions with batch norm and ReLU between them: noise (N, latent) to images (N, 3, 32, 32) in
    ±1.

    Args:
        latent: length of the noise vector; 100 is Radford et al.'s.
        width: channels before the last layer; twice and four times as many before that. 64 is Radford et al.'s unit;
            the thesis does not say its own.
    """

    def __init__(self, latent: int = 100, width: int = 64) -> None:
        super().__init__()
        self.latent = latent
        sizes = (latent, 4 * width, 2 * width, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False), nn.BatchNorm2d(b), nn.ReLU()
            )
            for i, (a, b) in enumerate(pairwise(sizes))
        )
        self.last = nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False)
        self.apply(_normal)

    def forward(self, z: Tensor) -> Tensor:
        """Images (N, 3, 32, 32) between -1 and 1."""
        h = z[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        return torch.tanh(self.last(h))


class Discriminator(nn.Module):
    """Four strided convolutions with batch norm (but for the first and the last) and LeakyReLU: images to a score (N,),
    high for real.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for a, b in pairwise(sizes):
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, bias=False))
        self.apply(_normal)

    def forward(self, x: Tensor) -> Tensor:
        """A score an image, (N,); its sigmoid is the probability of "real" where the loss is cross-entropy."""
        return self.layers(x).flatten()


class GAN(nn.Module):
    """The two together, so that one state_dict holds a whole run. Called, it generates."""

    def __init__(self, latent: int = 100, width: int = 64) -> None:
        super().__init__()
        self.latent = latent
        self.generator: nn.Module = Generator(latent, width)
        self.discriminator: nn.Module = Discriminator(width)

    def forward(self, z: Tensor) -> Tensor:
        """What the generator makes of ``z`` (N, latent)."""
        return self.generator(z)


def _normal(module: nn.Module) -> None:
    """Radford et al.'s start: weights from N(0, 0.02), scales of batch norm around 1."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
