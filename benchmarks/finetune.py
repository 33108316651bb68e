"""How to compress a trained network in a few epochs, and what it costs in accuracy: ``python benchmarks/finetune.py``.

A ResNet-20 is trained for 15 epochs on the embedded images at 16x16 pixels, then compressed in 5, once with each
setting and seed; beside it the same network is fine-tuned dense for the same epochs with the same batches and rates.

* ContinuousMask, to 90 % zeros: for each rate of s and each trained network :func:`principled.find_s_init` looks for
  its s_init, as somebody would who has that network alone.
* Smol: for each price of a bit, three epochs of search and two of fine-tuning at fixed precisions.

Differences are in percentage points of test accuracy, with the interval of ``lab.statistics.compare``.
"""

import argparse
import copy
import itertools
import time
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from lab.book import benchmarks
from lab.datasets import load
from lab.datasets.batches import batches
from lab.models import resnet20
from lab.statistics import Comparison, compare
from lab.training import accuracy
from principled import ContinuousMask, KeepZeros, Relaxed, Schedule, Smol, average_bits, find_s_init, train_smol

NEEDS = "a quarter of an hour of a core that has nothing else to do"
TRAIN, TEST = load("cifar10-mini-16", "train"), load("cifar10-mini-16", "test")
DECAY = 5e-4
SPARSITY = 0.9


def stream(seed: int, epochs: int, batch: int):
    """Augmented batches of as many epochs."""
    return itertools.chain.from_iterable(batches(TRAIN, batch, seed, epoch) for epoch in range(epochs))


def descend(net: nn.Module, seed: int, epochs: int, batch: int, rate: float, schedule: Schedule | None = None, **of_s):
    """Nesterov SGD with a cosine to 0; the mask's variables at a rate of their own, which stays."""
    variables = {id(p) for p in net.relaxations.parameters()} if isinstance(net, Relaxed) else set()
    weights = [p for p in net.parameters() if id(p) not in variables]
    masks = [p for p in net.parameters() if id(p) in variables]
    sgd = torch.optim.SGD(weights, lr=rate, momentum=0.9, nesterov=True, weight_decay=DECAY)
    optimizers = [sgd, torch.optim.SGD(masks, momentum=0.9, nesterov=True, **of_s)] if masks else [sgd]
    steps = epochs * (len(TRAIN) // batch)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)
    net.train()
    for images, labels in stream(seed, epochs, batch):
        loss = F.cross_entropy(net(images), labels)
        (loss if schedule is None else loss + schedule.penalty()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        falling.step()
        if schedule is not None:
            schedule.step()
    return net


def kept(name: str, make, asked) -> nn.Module:
    """What ``make`` trains; where it lies in the folder of networks it is not trained again."""
    file = asked.networks and asked.networks / f"{name}.pt"
    if file and file.exists():
        net = resnet20().to(memory_format=torch.channels_last)
        net.load_state_dict(torch.load(file, weights_only=True))
        return net
    net = make()
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), file)
    return net


def trained(seed: int, asked) -> nn.Module:
    """A ResNet-20 after its training."""
    torch.manual_seed(seed)
    return descend(resnet20().to(memory_format=torch.channels_last), seed, asked.epochs, asked.batch, 0.1)


def masked(net: nn.Module, s_init: float, rate_of_s: float, seed: int, asked) -> nn.Module:
    """A trained network pruned: all epochs but the last under the mask, the last on what is left."""
    relaxed = Relaxed(copy.deepcopy(net), ContinuousMask(s_init))
    return settle(search(relaxed, rate_of_s, asked.lam, seed, asked), seed, asked)


def search(relaxed: Relaxed, rate_of_s: float, lam: float, seed: int, asked) -> Relaxed:
    epochs = asked.finetune - 1
    schedule = Schedule(relaxed, epochs * (len(TRAIN) // asked.batch), lam)
    return descend(relaxed, 1000 + seed, epochs, asked.batch, asked.rate, schedule, lr=rate_of_s)


def trial(relaxed: Relaxed, rate_of_s: float, seed: int, asked, say) -> None:
    """What ``find_s_init`` trains: as the final run, until the mask is hardened."""
    search(relaxed, rate_of_s, asked.lam, seed, asked)
    mask = relaxed.relaxations[0]
    say(f"  rate of s {rate_of_s:g}, s_init {mask.s_init:.4g}: {mask.sparsity():.1%} zeros")


def settle(relaxed: Relaxed, seed: int, asked) -> nn.Module:
    fixed = Relaxed(relaxed.harden(), KeepZeros())
    return descend(fixed, 2000 + seed, 1, asked.batch, asked.rate / 4).harden()


def dense(net: nn.Module, seed: int, asked) -> nn.Module:
    """The same epochs with the same batches and rates, nothing taken away."""
    tuned = descend(copy.deepcopy(net), 1000 + seed, asked.finetune - 1, asked.batch, asked.rate)
    return descend(tuned, 2000 + seed, 1, asked.batch, asked.rate / 4)


def quantised(net: nn.Module, lam: float, seed: int, asked):
    """A trained network at learned precisions: three fifths of the epochs search, the rest fine-tunes."""
    a_epoch = len(TRAIN) // asked.batch
    found = round(0.6 * asked.finetune) * a_epoch
    return train_smol(
        net, lambda net, each: F.cross_entropy(net(each[0]), each[1]), stream(1000 + seed, asked.finetune, asked.batch),
        lam=lam, steps=(found, asked.finetune * a_epoch - found), smol=Smol(scale="power"), lr_s=asked.rate_of_bits,
        optimizer=lambda weights: torch.optim.SGD(weights, asked.rate, 0.9, nesterov=True, weight_decay=DECAY),
    )  # fmt: skip


def zeros(net: nn.Module) -> float:
    """Share of the 3x3 kernels' weights that are zero."""
    kernels = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[-1] > 1]
    return sum(int((w == 0).sum()) for w in kernels) / sum(w.numel() for w in kernels)


def points(nets: list[nn.Module]) -> list[float]:
    return [100 * accuracy(net, TEST) for net in nets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="networks trained (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=15, help="of their training (default: %(default)s)")
    parser.add_argument("--finetune", type=int, default=5, help="epochs of compressing (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="images in a batch (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.02, help="of the weights, at first (default: %(default)s)")
    parser.add_argument("--networks", type=Path, metavar="FOLDER", help="keep the trained networks, or take them")
    parser.add_argument("--lam", type=float, default=1e-8, help="price of the mask (default: %(default)s)")
    parser.add_argument("--rates-of-s", type=float, nargs="*", default=[1.0, 3.0], help="(default: %(default)s)")
    parser.add_argument("--prices", type=float, nargs="*", default=[1e-6, 4e-6], help="of a bit (default: %(default)s)")
    parser.add_argument("--rate-of-bits", type=float, default=0.05, help="Adam's, for Smol (default: %(default)s)")
    benchmarks.option(parser)
    asked = parser.parse_args()
    report = benchmarks.Report(__file__)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:4.0f} s] {text}", flush=True)

    def keep(label: str, compared: Comparison, **target: float) -> None:
        """Note a setting's accuracy, and write down what is known: a run that is broken off leaves what it measured."""
        name = f"{label}: accuracy over dense fine-tuned alike, {compared.interval(1)}"
        report.ratio(name, compared.difference, unit="points", **target)
        report.write(asked.json)

    starts = [
        kept(f"{asked.epochs}-{asked.batch}-{seed}", lambda seed=seed: trained(seed, asked), asked)
        for seed in range(asked.seeds)
    ]
    say(f"trained {asked.epochs} epochs: " + ", ".join(f"{a:.1f} %" for a in points(starts)))
    control = points([
        kept(f"dense-{asked.finetune}-{asked.rate}-{seed}", lambda net=net, seed=seed: dense(net, seed, asked), asked)
        for seed, net in enumerate(starts)
    ])  # fmt: skip
    say(f"fine-tuned dense {asked.finetune} epochs: " + ", ".join(f"{a:.1f} %" for a in control))
    report.ratio(f"accuracy, trained {asked.epochs} epochs", sum(points(starts)) / len(starts), unit="%")
    report.ratio(f"accuracy, then fine-tuned dense {asked.finetune}", sum(control) / len(control), unit="%")

    for rate_of_s in asked.rates_of_s:
        try:
            places = [
                find_s_init(
                    net, SPARSITY, partial(trial, rate_of_s=rate_of_s, seed=seed, asked=asked, say=say), tolerance=0.01,
                    most=8,
                )
                for seed, net in enumerate(starts)
            ]  # fmt: skip
        except ValueError as error:  # this rate does not reach it in so few steps
            say(f"rate of s {rate_of_s:g}: {error}")
            continue
        inits = [place.s_init for place in places]
        nets = [masked(net, s, rate_of_s, seed, asked) for seed, (net, s) in enumerate(zip(starts, inits, strict=True))]
        compared = compare(points(nets), control)
        share = 100 * sum(map(zeros, nets)) / len(nets)
        label = f"ContinuousMask, rate of s {rate_of_s:g}, s_init {min(inits):.3g} to {max(inits):.3g}"
        trials = sum(len(place.runs) for place in places)
        say(f"{label}: {share:.1f} % zeros, accuracy over dense in points {compared}; {trials} trials")
        report.ratio(f"{label}: zeros", share, unit="%")
        keep(label, compared, at_least=-1)
    for price in asked.prices:
        done = [quantised(net, price, seed, asked) for seed, net in enumerate(starts)]
        compared = compare(points([each.net for each in done]), control)
        bits = sum(average_bits(each.precision) for each in done) / len(done)
        label = f"Smol, price of a bit {price:g}, rate {asked.rate_of_bits:g}"
        say(f"{label}: {bits:.2f} bits, accuracy over dense in points {compared}")
        report.ratio(f"{label}: average bits", bits, unit="bits")
        keep(label, compared)


if __name__ == "__main__":
    main()
