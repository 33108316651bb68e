"""Records with a real folding, for tests: a small Wide ResNet with shared layers, some steps of training on embedded
images.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.optim.swa_utils import update_bn

from lab.datasets import load
from lab.datasets.batches import batches
from lab.figures.folding.recording import alphas, folding_recording
from lab.models import swrn
from lab.training import accuracy, normalise


def trained(depth=22, width=1, templates=3, seed=0, steps=6, noise=0.25):
    """A network and its history. Few steps move alpha little, so we lean it towards two directions a
    group, with noise.
    """
    torch.manual_seed(seed)
    net = swrn(depth, width, templates)
    data = load("cifar10-mini", "train")
    sharing = net.relaxations[0]
    history = [(0, alphas(net))]
    target = {}
    for group, alpha in sharing.alpha.items():
        pattern = torch.randn(2, alpha.shape[1])[torch.arange(len(alpha)) % 2]
        pattern = pattern * torch.tensor([1.0, 1.0, -1.0])[torch.arange(len(alpha)) % 3, None]
        target[group] = pattern / pattern.norm(dim=1, keepdim=True) + noise * torch.randn_like(alpha)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step, (x, y) in enumerate(batches(data, 32, seed, 0)):
        if step == steps:
            break
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for group, alpha in sharing.alpha.items():
                alpha.lerp_(target[group], 2 / steps)
        if step == steps // 2:
            history.append((steps // 2, alphas(net)))
    return net, history, steps


def record(seed=0, network="SWRN-22-1-3", images=100, identity=None, **settings):
    """A record of the parts that the figure reads, with everything in ``recording`` measured."""
    net, history, epoch = trained(seed=seed, **settings)
    train, test = load("cifar10-mini", "train"), load("cifar10-mini", "test")
    some = replace(test, images=test.images[:images], labels=test.labels[:images])
    known = [(normalise(train.images[: 2 * images], train),)]
    recording = folding_recording(
        net, history, epoch=epoch, network=network,
        evaluate=lambda one: accuracy(one, some),
        reestimate=lambda one: update_bn(known, one),
    )  # fmt: skip
    return {"id": identity or f"{seed:016x}", "profile": "quick", "seed": seed, "recording": recording}
