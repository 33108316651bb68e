"""Networks with zeros and with precisions, as the tests of files save them."""

import torch

from lab.baselines import MagnitudeMask
from lab.models import resnet20
from principled import FixedPrecision, Relaxed


def pruned_resnet20(sparsity):
    """Random weights, really pruned: magnitudes ranked over all maskable layers, then hardened."""
    net = Relaxed(resnet20(), MagnitudeMask())
    net.relaxations[0].prune(net.weights(), sparsity)
    return net.harden()


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bytes(a.contiguous().view(-1).view(torch.uint8).numpy())
        == bytes(b.contiguous().view(-1).view(torch.uint8).numpy())
    )


def quantised(net, seed=0, mean=2.0, where=None):
    """A network at given average precision, filters and channels differing as trained maps have it."""
    source = torch.Generator().manual_seed(seed)
    precision = {}
    for name, weight in net.named_parameters():
        if weight.ndim > 1 and "shortcut" not in name:
            rows = torch.rand((weight.shape[0], *[1] * (weight.ndim - 1)), generator=source) * mean
            columns = torch.rand((1, weight.shape[1], *[1] * (weight.ndim - 2)), generator=source) * mean
            jitter = torch.rand(weight.shape, generator=source) + 0.2
            precision[name] = (jitter * (rows + columns)).round().clamp(0, 8).to(torch.int8)
    return Relaxed(net, FixedPrecision(precision))
