"""Another library's network on photographs of clothes: transformers' ResNet-18, an eighth as wide, Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, islice

import torch
from torch import Tensor, nn

from lab.datasets.batches import batches, normalise
from lab.datasets.fashion import load_fashion
from lab.datasets.images import Images
from lab.utils.vision import torchvision  # noqa: F401  # transformers imports it, and this is the door to it

SIZE = 64
"""Images a batch."""


def network(seed: int = 0) -> nn.Module:
    """An untrained ``ResNetForImageClassification`` of 18 layers for grey images: 176,578 parameters."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(seed)
    widths = [8, 16, 32, 64]
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=widths, depths=[2, 2, 2, 2],
                          layer_type="basic", num_labels=10)  # fmt: skip
    return ResNetForImageClassification(config)


def in_a_row(net: nn.Module) -> nn.Sequential:
    """The modules of :func:`network` in the order of execution: images to scores, without a class for the outputs."""
    body = net.resnet
    layers = [layer for stage in body.encoder.stages for layer in stage.layers]
    return nn.Sequential(body.embedder.embedder, body.embedder.pooler, *layers, body.pooler, net.classifier)


def photographs(device: str = "cpu") -> tuple[Images, Images]:
    """3,000 for training and 1,000 to test on."""
    return load_fashion("train").to(device), load_fashion("test").to(device)


def stream(train: Images, steps: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """So many batches of shifted and mirrored images with their labels."""
    return islice(chain.from_iterable(batches(train, SIZE, seed, epoch) for epoch in count()), steps)


@torch.no_grad()
def right(net: nn.Module, test: Images) -> Tensor:
    """``(N,)`` bool: which test images the network names rightly."""
    was, net = net.training, net.eval()
    answers = [net(normalise(part, test)).logits.argmax(1) for part in test.images.split(250)]
    net.train(was)
    return torch.cat(answers) == test.labels
