"""ResNet-50 (4.4.3: Table 4.3): methods of :mod:`lab.experiments.sparsity.rivals` on ImageNet at profile ``paper``.

At ``short`` the images are Tiny-ImageNet at 32x32, 200 classes, and the network is the form for small images: a stand-in, whose
figures are compared with each other and never with the thesis's. An experiment of its own, since few have the data.
"""

from __future__ import annotations

from lab.runs import Run

from .rivals import check as check
from .rivals import compute as compute
from .rivals import epochs as epochs
from .rivals import imagenet_runs
from .rivals import trunk as trunk

EXPERIMENT, CHAPTER = "resnet50", 4
POINT = ("s_init", "target", "decay")


def runs(profile: str, seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """Table 4.3's pruned networks, none at ``quick``."""
    return [run for seed in seeds for run in imagenet_runs(profile, seed)]
