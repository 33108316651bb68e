"""ResNet-50 (4.4.3: Table 4.3): methods of :mod:`lab.experiments.methods` on ImageNet at profile ``paper``.

At ``short`` the images are Tiny-ImageNet at 32x32, 200 classes, and the network is the form for small images: a stand-in, whose
figures are compared with each other and never with the thesis's. An experiment of its own, since few have the data.
"""

from __future__ import annotations

from ..runs import Run
from .methods import check as check
from .methods import compute as compute
from .methods import epochs as epochs
from .methods import imagenet_runs
from .methods import trunk as trunk

EXPERIMENT, CHAPTER = "resnet50", 4
POINT = ("s_init", "target", "decay")


def runs(profile: str, seeds: tuple[int, ...] = (0,)) -> list[Run]:
    """Table 4.3's pruned networks, none at ``quick``."""
    return [run for seed in seeds for run in imagenet_runs(profile, seed)]
