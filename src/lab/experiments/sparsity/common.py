"""What the experiments of Chapter 4 share: networks by name, their data, and which of their weights are masked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from lab.datasets import CLASSES, SIDE, Images, load
from lab.models import ResNet, conv6, resnet20, resnet50, vgg16
from lab.runs import Run
from lab.training import Classification, Task
from lab.utils.errors import LabError
from principled.relax import Where, is_spatial_convolution, select

NETWORKS: dict[str, tuple[Callable[[int], nn.Module], Where]] = {
    "resnet20": (resnet20, is_spatial_convolution),
    "vgg16": (vgg16, is_spatial_convolution),
    "conv6": (conv6, (nn.Conv2d, nn.Linear)),
    "resnet50": (resnet50, nn.Conv2d),
    "resnet50-small-images": (partial(resnet50, small_images=True), nn.Conv2d),
    # what `quick` can afford: fewer blocks, a quarter of the channels
    "resnet8": (partial(ResNet, 1), is_spatial_convolution),
    "vgg16-quarter": (partial(vgg16, width=0.25), is_spatial_convolution),
    "conv6-quarter": (partial(conv6, width=0.25), (nn.Conv2d, nn.Linear)),
}
"""By the name under ``model`` in a configuration: from the number of classes to the plain network, and what is masked in it."""


def network(run: Run) -> nn.Module:
    """The plain network of a run, started from its seed."""
    torch.manual_seed(run.seed)
    return NETWORKS[run.config["model"]][0](CLASSES[run.config["data"]])


def where(run: Run) -> Where:
    """Which weights the run masks."""
    return NETWORKS[run.config["model"]][1]


def masked_names(run: Run, net: nn.Module) -> tuple[str, ...]:
    """The same as names."""
    return tuple(select(net, where(run)))


def task(run: Run, device: torch.device) -> Task:
    """What the run learns."""
    training = run.config["training"]
    if run.config["data"] == "imagenet":
        from lab.training.imagenet import ImageNet

        return ImageNet(device, training)
    data = load(run.config["data"], "train").to(device), load(run.config["data"], "test").to(device)
    return Classification(data, training)


def example(run: Run, device: torch.device) -> torch.Tensor:
    """An image's place, to see the network's shapes with."""
    side = SIDE[run.config["data"]]
    return torch.zeros(1, 3, side, side, device=device)


def first_images(images: Images, count: int) -> Images:
    """The first ``count`` images as they are: what choices within training are scored on, never the test's."""
    return dataclasses.replace(images, images=images.images[:count], labels=images.labels[:count])


def check(run: Run) -> None:
    """Refuse what the user can mend before anything is computed."""
    if run.config["data"] == "imagenet":
        from lab.training.imagenet import folders

        folders()
    else:
        load(run.config["data"], "test")


def known_network(name: str) -> str:
    """``name``, if it is one of :data:`NETWORKS`; else a line that lists them."""
    if name not in NETWORKS:
        raise LabError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}")
    return name
