"""Continuous Sparsification beside PQuantML 0.1's, on one network and budget: ``python benchmarks/pquantml.py``.

Both start from the same weights, see the same batches and steps, with the same s_init, rate of s and final temperature;
quantisation is switched off in the peer. Printed for each: sparsity, accuracy before and after the mask is made hard,
and how much hardening changed the kept weights and the network's output. The peer multiplies its soft mask by 1 /
sigma(s_init) and leaves that factor out of the hard one.

The peer needs an environment of its own, for what it pulls in; this project's source is put on its path:

    python -m venv peer && peer/bin/pip install torch==2.13.0 'pquant-ml[torch]==0.1.0' pillow requests tqdm
    fastjsonschema pandas safetensors PYTHONPATH=src peer/bin/python benchmarks/pquantml.py
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.book import benchmarks
from lab.datasets import load
from lab.datasets.batches import batches, normalise
from lab.models.small_cnn import SmallCNN
from lab.training import accuracy
from principled import ContinuousMask, Relaxed
from principled.relax import select

INSTALL = (
    "pquant-ml is not installed here: python -m venv peer && peer/bin/pip install torch==2.13.0 "
    "'pquant-ml[torch]==0.1.0'"
)
NEEDS = "PQuantML in an environment of its own, as the script's first lines tell"
FINAL, LR_S = 200.0, 2.0


def steps(
    net: nn.Module, mask: list[nn.Parameter], penalty: Callable[[], Tensor], before: Callable[[int, int], None], asked
) -> None:
    """The budget, equal for both: Nesterov SGD, s without weight decay."""
    own = {id(p) for p in mask}
    weights = [p for p in net.parameters() if id(p) not in own]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": 5e-4}, {"params": mask, "lr": LR_S}], lr=0.1, momentum=0.9, nesterov=True
    )
    images = load("cifar10-mini", "train")
    for epoch in range(asked.epochs):
        for i, (x, y) in enumerate(batches(images, 64, seed=asked.seed, epoch=epoch)):
            before(epoch, i)
            loss = F.cross_entropy(net(x), y) + 1e-8 * penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def ours(start: nn.Module, asked, variant: str):
    net = Relaxed(copy.deepcopy(start), ContinuousMask(asked.s_init, variant=variant, where=nn.Conv2d))
    each = len(load("cifar10-mini", "train")) // 64

    def before(epoch: int, i: int) -> None:
        net.anneal((epoch * each + i) / (asked.epochs * each - 1), FINAL)

    steps(net, list(net.relaxations.parameters()), net.penalty, before, asked)
    net.anneal(1.0, FINAL)
    names = net.relaxations[0].names
    soft = {name: net.weights()[name].detach().clone() for name in names}
    hard = net.harden().eval()
    settled = net.relaxations[0].s.detach().abs() > 0.1  # sigma(20) is 1 to float32
    return net.eval(), hard, soft, {n: hard.get_parameter(n).detach() for n in names}, settled


def theirs(start: nn.Module, asked):
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import pquant
        from pquant.core.torch import layers
    except ImportError:
        raise SystemExit(f"error: {INSTALL}") from None
    config = pquant.cs_config()
    config.quantization_parameters.enable_quantization = False
    config.quantization_parameters.quantize_input = False
    config.pruning_parameters.threshold_init = asked.s_init
    config.pruning_parameters.final_temp = FINAL
    config.pruning_parameters.disable_pruning_for_layers = ["linear"]
    net = pquant.add_compression_layers(copy.deepcopy(start), config, (1, 3, 32, 32))
    layers.post_pretrain_functions(net, config)
    convs = {f"{name}.weight": module for name, module in net.named_modules() if isinstance(module, layers.PQConv2d)}
    masks = [module.pruning_layer.s for module in convs.values()]
    epoch_now = 0

    def before(epoch: int, i: int) -> None:
        nonlocal epoch_now
        if epoch != epoch_now:  # its temperature rises once an epoch
            layers.post_epoch_functions(net, epoch_now, asked.epochs)
            epoch_now = epoch

    def penalty() -> Tensor:
        return sum(torch.norm(m.pruning_layer.get_mask().reshape(-1), p=1) for m in convs.values())

    steps(net, masks, penalty, before, asked)
    net.eval()
    soft = {name: (m.pruning_layer.get_mask() * m._weight).detach().clone() for name, m in convs.items()}
    hard = copy.deepcopy(net)
    layers.pre_finetune_functions(hard)
    after = {
        f"{name}.weight": (m.pruning_layer.mask * m._weight).detach()
        for name, m in hard.named_modules()
        if isinstance(m, layers.PQConv2d)
    }
    settled = torch.cat([s.detach().abs().flatten() for s in masks]) > 0.1
    return net, hard, soft, after, settled


@torch.no_grad()
def tell(name: str, result, seconds: float, report: benchmarks.Report) -> None:
    net, hard, soft, after, settled = result
    test = load("cifar10-mini", "test")
    images = normalise(test.images[:256], test)
    kept = torch.cat([a.flatten() for a in after.values()])
    before = torch.cat([s.flatten() for s in soft.values()])
    chosen = (kept != 0) & settled
    factor = (before[chosen] / kept[chosen]).median()
    change = (kept[chosen] - before[chosen]).norm() / before[chosen].norm()
    output = (hard(images) - net(images)).norm() / net(images).norm()
    print(f"{name}: {float((kept == 0).float().mean()):.1%} zeros, {seconds:.0f} s")
    report.ratio(f"{name}: kept weights, soft over hard", float(factor))
    report.ratio(f"{name}: change of the output at hardening, over its norm", float(output), unit="")
    print(f"  accuracy {accuracy(net, test):.1%} soft, {accuracy(hard, test):.1%} hardened")
    print(
        f"  of the {int(chosen.sum()):,} kept weights whose mask is settled, soft over hard {float(factor):.4f}: "
        f"they change by {float(change):.1e} of their norm"
    )
    print(
        f"  the network's output changes by {float(output):.1e} of its norm (the masks that are not settled included)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--s-init", type=float, default=-0.1)
    parser.add_argument("--seed", type=int, default=0)
    benchmarks.option(parser)
    asked = parser.parse_args()
    report = benchmarks.Report(__file__)
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    start = SmallCNN()
    count = sum(w.numel() for w in select(start, nn.Conv2d).values())
    print(f"torch {torch.__version__}; {count:,} masked weights, {asked.epochs} epochs, s_init = {asked.s_init:g}")
    print(f"1 / sigma(s_init) = {1 / torch.sigmoid(torch.tensor(asked.s_init)):.4f}")
    sides = {
        "ours, variant thesis": lambda: ours(start, asked, "thesis"),
        "ours, variant reference": lambda: ours(start, asked, "reference"),
        "PQuantML": lambda: theirs(start, asked),
    }
    for name, side in sides.items():
        began = time.perf_counter()
        result = side()
        tell(name, result, time.perf_counter() - began, report)
    report.write(asked.json)


if __name__ == "__main__":
    main()
