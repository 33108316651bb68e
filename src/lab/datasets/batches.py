"""A set of images as augmented batches on its device, and where their chance comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from .augment import crop_flip, draw_crop_flip, draw_square, fill_square
from .images import Images


def chance(seed: int, *moment: int) -> int:
    """A seed for one moment of one run: equal for equal arguments, on every machine."""
    digest = hashlib.blake2b(repr((seed, *moment)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def normalise(images: Tensor, data: Images) -> Tensor:
    """uint8 (N, 3, H, W) to centred floats in the layout that convolutions like best."""
    mean, std = (v.to(images.device).view(1, -1, 1, 1) * 255 for v in (data.mean, data.std))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def draws(
    data: Images, size: int, seed: int, epoch: int, start: int = 0, hole: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """What chance says about each batch of an epoch, from step ``start`` on: its images, crops, flips and holes, int64
    (size,) each.

    A last, short batch is dropped. Before each batch the global generators are seeded for dropout and noise.
    """
    source = torch.Generator(data.images.device)
    order = torch.randperm(len(data), generator=source.manual_seed(chance(seed, epoch)), device=data.images.device)
    for step, chosen in enumerate(order.split(size)[: len(data) // size]):
        if step >= start:
            moment = chance(seed, epoch, step)
            torch.manual_seed(moment)
            source.manual_seed(moment)
            crop = draw_crop_flip(size, source, _pad(data))
            yield chosen, *crop, *(draw_square(size, *data.images.shape[2:], source) if hole else ())


def _pad(data: Images) -> int:
    """4 pixels on images of 32 (3.3.1, 4.3, 6.3), the same share of others."""
    return data.images.shape[2] // 8


def assemble(data: Images, drawn: tuple[Tensor, ...], hole: int = 0) -> tuple[Tensor, Tensor]:
    """A batch from its :func:`draws`: cropped, flipped, normalised images with a blank square of side ``hole``, and
    labels."""
    chosen, top, left, flip, *centre = drawn
    images = normalise(crop_flip(data.images[chosen], top, left, flip.bool(), _pad(data)), data)
    return fill_square(images, *centre, hole) if hole else images, data.labels[chosen]


def batches(
    data: Images, size: int, seed: int, epoch: int, start: int = 0, hole: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's augmented batches, on the device: :func:`assemble` of all :func:`draws`."""
    return (assemble(data, drawn, hole) for drawn in draws(data, size, seed, epoch, start, hole))
