"""BatchNorm after the weights have changed by other means than training: its statistics, taken anew from training data.

A folded layer computes with the mean of several layers' weights, so what its normalisation expects is a little off. Its
running mean and variance can be had again from a few hundred images, without a label and without a gradient.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from .device import autocast
from .interfaces import Task


def reestimate(net: nn.Module, task: Task, seed: int = 0, batches: int = 40) -> nn.Module:
    """Replace the running statistics of all BatchNorm layers of ``net``, in place, by those over training batches.

    Args:
        net: any network; it is returned, its weights and its mode as they were. One without BatchNorm stays as it is.
        task: where the batches come from, augmented as in training, because so were those that it was trained with.
        seed: of the batches.
        batches: how many, at most an epoch's. A mean over 5,000 images is exact enough: the default is 40 of 128.
    """
    with autocast(task.device), torch.random.fork_rng():
        update_bn(islice(task.batches(seed, 0, 0), batches), net)
    return net
