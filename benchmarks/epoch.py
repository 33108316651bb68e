"""One epoch of ResNet-20: the loop that most people write, and ``lab.training``. ``python benchmarks/epoch.py``.

The usual loop reads PIL images through torchvision's transforms in a DataLoader with two workers and trains in float32.
``lab.training`` keeps the set on the device as uint8, augments a batch at once, and uses bfloat16 where the machine
gains by it. Both train the same network on the same images with the same optimizer settings, in turns, in this one run,
each contender in a fresh process that warms up first. ``lab.runs.runner`` computes several runs at once, one
single-threaded process a core: that is the third contender, in epochs a second over all.
"""

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from unittest import mock

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lab.book import benchmarks
from lab.datasets import Images, load
from lab.experiments.sparsity import pruning
from lab.models import resnet20
from lab.runs.runner import available_cores
from lab.runs.worker import LARGE_PAGES, keep_memory
from lab.training import Classification, Trainer, gains_from_bf16

BATCH = 128
WARM_UP = 3 * BATCH
SETTINGS = {
    "epochs": 1, "finetune_epochs": 0, "batch_size": BATCH, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
    "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip


def first(count: int) -> Images:
    """``count`` training images: the embedded ones, as often as needed (what they show does not change the time)."""
    data = load("cifar10-mini", "train")
    chosen = torch.arange(count) % len(data)
    return dataclasses.replace(data, images=data.images[chosen], labels=data.labels[chosen])


class Pictures(Dataset):
    def __init__(self, data: Images, transform):
        self.pixels, self.labels = data.images.permute(0, 2, 3, 1).numpy(), data.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def usual(count: int, device: str = "cpu"):
    """What a tutorial has: a Dataset of PIL images, transforms, a DataLoader, float32."""
    from lab.utils.vision import torchvision

    data, T = first(count), torchvision.transforms
    normalise = T.Normalize(data.mean.tolist(), data.std.tolist())
    pictures = Pictures(
        data, T.Compose([T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), normalise])
    )
    net = resnet20().to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def epoch() -> None:
        loader = DataLoader(
            pictures, BATCH, shuffle=True, num_workers=2, drop_last=True, multiprocessing_context="fork"
        )
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()

    return epoch


def ours(count: int):
    """One epoch of ``lab.training``, its bookkeeping included; two test images keep the evaluation out of the time."""
    data, test = first(count), first(2)

    def epoch() -> None:
        Trainer(
            "timing", resnet20(), pruning.method({"name": "dense"}), SETTINGS, Classification((data, test), SETTINGS)
        ).run()

    return epoch


def together(barrier) -> None:
    global ready
    ready = barrier


def contender(which: str, count: int, threads: int) -> tuple[float, float, float]:
    torch.set_num_threads(threads)
    if which == "ours":
        keep_memory()  # as each process of lab.runs.runner does
    make = {"usual": usual, "ours": ours}[which]
    make(WARM_UP)()
    epoch = make(count)
    ready.wait(300)
    start, used = time.time(), os.times()
    epoch()
    end, left = time.time(), os.times()
    return start, end, sum(left[:4]) - sum(used[:4])  # the loader's workers included


def measure(which: str, count: int, threads: int, processes: int = 1) -> tuple[float, float]:
    """Wall and CPU seconds of an epoch; of several processes at once, their time over their number."""
    context = multiprocessing.get_context("spawn")
    pages = LARGE_PAGES if which == "ours" else {}
    with (
        mock.patch.dict(os.environ, pages),
        ProcessPoolExecutor(processes, context, together, (context.Barrier(processes),)) as pool,
    ):
        work = [pool.submit(contender, which, count, threads) for _ in range(processes)]
        starts, ends, used = zip(*(future.result() for future in work), strict=True)
    return (max(ends) - min(starts)) / processes, sum(used) / processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5120, help="images of the epoch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="turns of each contender (default: %(default)s)")
    benchmarks.option(parser)
    options = parser.parse_args()
    report = benchmarks.Report(__file__)
    cores = available_cores()
    precision = "bfloat16" if gains_from_bf16(torch.device("cpu")) else "float32"
    print(
        f"torch {torch.__version__}, {cores} cores; an epoch of {options.images} images in batches of {BATCH}; ours: "
        f"{precision}"
    )
    contenders = {
        f"usual loop, 1 process, {cores} threads, 2 workers": ("usual", cores, 1),
        f"lab.training, 1 process, {cores} threads": ("ours", cores, 1),
        f"lab.training, {cores} processes at once, 1 thread each": ("ours", 1, cores),
    }
    seconds = {name: [] for name in contenders}
    for _ in range(options.repeats):
        for name, (which, threads, processes) in contenders.items():
            seconds[name].append(measure(which, options.images, threads, processes))
    medians = {name: [statistics.median(t) for t in zip(*seen, strict=True)] for name, seen in seconds.items()}
    usual_wall, usual_cpu = next(iter(medians.values()))
    for name, (wall, cpu) in medians.items():
        print(
            f"{name}: {wall:.1f} s an epoch, {usual_wall / wall:.2f}x as fast; CPU {cpu:.1f} s, "
            f"{usual_cpu / cpu:.2f}x less"
        )
        if name in list(contenders)[1:]:
            report.ratio(f"{name}: times as fast as the usual loop", usual_wall / wall, at_least=3)
            report.ratio(f"{name}: times less processor time", usual_cpu / cpu)
    report.write(options.json)


if __name__ == "__main__":
    main()
