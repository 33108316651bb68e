"""Augmentation of a whole batch at once, on the device that holds it: random crops, flips and cutout.

Each augmentation is three functions. The one named for what it does (``crop_flip``, ``fill_square``) is pure: given
every image's draw it contains no randomness, no loop over images and no wait for the device, so it can be compiled or
captured in a CUDA graph. ``draw_crop_flip`` and ``draw_square`` make the draws from a generator, and
``random_crop_flip`` and ``cutout`` are both in one. The draws are made where the generator lives: a CPU generator gives
the same augmentation on every device, at the price of a small copy; one on the images' own device needs none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop_flip(x: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Pad each image with zeros, cut a window of its old size out at random, mirror every other one (He et al., 2016).

    ``x`` is (N, C, H, W) of any dtype; dtype and memory format are kept. ``pad`` (default 4, the protocol of sections
    3.3.1, 4.3 and 6.3) is in pixels on each side. Pass raw uint8 images: the usual torchvision pipeline pads before it
    normalises, so its border is black. On normalised images the border would be the mean colour, which is another
    augmentation.
    """
    top, left, flip = (draw.to(x.device, non_blocking=True) for draw in draw_crop_flip(len(x), generator, pad))
    return crop_flip(x, top, left, flip.bool(), pad)


def draw_crop_flip(n: int, generator: torch.Generator, pad: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """``top``, ``left`` and ``flip`` (0 or 1) for ``n`` images, int64 (n,) each, where the generator lives."""
    top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=generator, device=generator.device)
    return top, left, torch.randint(0, 2, (n,), generator=generator, device=generator.device)


def crop_flip(x: Tensor, top: Tensor, left: Tensor, flip: Tensor, pad: int = 4) -> Tensor:
    """A window of each image of the zero-padded ``x`` (N, C, H, W).

    Its corner is ``top``, ``left`` (int64 (N,), 0 to 2·pad); it is mirrored left to right where ``flip`` (bool (N,)).
    """
    n, c, h, w = x.shape
    rows = top[:, None] + torch.arange(h, device=x.device)
    columns = torch.arange(w, device=x.device)
    columns = left[:, None] + torch.where(flip[:, None], w - 1 - columns, columns)
    # One gather over flattened planes: all channels of an image share its h·w positions.
    positions = (rows[:, :, None] * (w + 2 * pad) + columns[:, None, :]).view(n, 1, h * w).expand(n, c, h * w)
    padded = F.pad(x, (pad, pad, pad, pad)).reshape(n, c, (h + 2 * pad) * (w + 2 * pad))
    out = padded.gather(2, positions).view(n, c, h, w)
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        out = out.contiguous(memory_format=torch.channels_last)
    return out


def cutout(x: Tensor, generator: torch.Generator, size: int = 16) -> Tensor:
    """Set one square of ``size`` × ``size`` pixels in each image to 0 (DeVries and Taylor, 2017; thesis, Table 3.3).

    ``x`` is (N, C, H, W), *normalised*, so that 0 is the mean colour. The square's centre is any pixel, so part of the
    square may lie outside the image; default 16 as in the thesis's experiments on CIFAR-10. dtype and memory format
    are kept; ``x`` is not changed.
    """
    draws = draw_square(len(x), x.shape[2], x.shape[3], generator)
    return fill_square(x, *(draw.to(x.device, non_blocking=True) for draw in draws), size)


def draw_square(n: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``row`` and ``column`` of the square's centre for ``n`` images, int64 (n,) each, where the generator lives."""
    row = torch.randint(0, height, (n,), generator=generator, device=generator.device)
    return row, torch.randint(0, width, (n,), generator=generator, device=generator.device)


def fill_square(x: Tensor, row: Tensor, column: Tensor, size: int = 16) -> Tensor:
    """``x`` (N, C, H, W) with one square of zeros in each image.

    The square begins ``size // 2`` pixels above and left of its ``row``, ``column`` (int64 (N,)).
    """

    def inside(centre: Tensor, length: int) -> Tensor:
        distance = torch.arange(length, device=x.device) - (centre[:, None] - size // 2)
        return (distance >= 0) & (distance < size)

    hole = inside(row, x.shape[2])[:, None, :, None] & inside(column, x.shape[3])[:, None, None, :]
    return x.clone().masked_fill_(hole, 0)  # the out-of-place form would lose channels_last
