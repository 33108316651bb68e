"""Every network of the book by its name in a configuration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from lab.utils.errors import LabError

from .activated import ActivatedResNet, activated_resnet20
from .conv6 import conv6
from .lstm import CharLSTM
from .mobile import mobilenetv2, mobilenetv2_narrow, shufflenet, shufflenet_narrow
from .resnet import ResNet, resnet20
from .resnet18 import resnet18
from .resnet50 import resnet50
from .small_cnn import SmallCNN
from .vgg import vgg16
from .wrn import wrn

_narrow = partial(CharLSTM, dropout=(0, 0, 0, 0))  # too small to want dropout

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet50-small-images": partial(resnet50, small_images=True),
    "ResNet-50": resnet50,
    "vgg16": vgg16,
    "conv6": conv6,
    "mobilenetv2": mobilenetv2,
    "shufflenet": shufflenet,
    "WRN 16-2": partial(wrn, 16, 2),
    "WRN 28-4": partial(wrn, 28, 4),
    "WRN 28-10": partial(wrn, 28, 10),
    # what profile quick can afford: fewer blocks, fewer channels
    "resnet8": partial(ResNet, 1),
    "resnet14": partial(ResNet, 2),
    "vgg16-quarter": partial(vgg16, width=0.25),
    "conv6-quarter": partial(conv6, width=0.25),
    "mobilenetv2-narrow": mobilenetv2_narrow,
    "shufflenet-narrow": shufflenet_narrow,
    "small CNN": lambda classes: SmallCNN(classes=classes),
    # activations that can be quantised (Table 5.5)
    "activated-resnet20": activated_resnet20,
    "activated-resnet8": partial(ActivatedResNet, 1),
    # language models of Table 6.2; their option ``batch`` is the number of sequences side by side
    "3xLSTM(300)": partial(CharLSTM, units=300),
    "3xLSTM(1000)": partial(CharLSTM, units=1000),
    "LSTM(48)": partial(_narrow, units=48, embedding=48, layers=1, init=0.3),
    "3xLSTM(64)": partial(_narrow, units=64, embedding=64, init=0.6),
    "3xLSTM(128)": partial(_narrow, units=128, embedding=128, init=0.6),
}
"""Name to a function of the number of classes, or of symbols."""


def build(name: str, classes: int = 10, **options: Any) -> nn.Module:
    """The plain network called ``name``, freshly drawn from torch's generator.

    Args:
        name: a key of :data:`NETWORKS`.
        classes: outputs of the last layer, a class or a symbol each; 10 is CIFAR-10's.
        **options: passed to the network's function.

    Raises:
        LabError: an unknown name; the line lists the known ones.
    """
    if name not in NETWORKS:
        raise LabError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](classes, **options)
