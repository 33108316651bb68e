"""Saved networks beside what standard compressors make of the plain float32 file: ``python benchmarks/files.py``.

The plain file is the ``state_dict`` as safetensors. Against gzip -9, xz -9e, zstd -22 and brotli -11 stands
``principled.files.save``. The shipped networks were trained; all others have their initial weights (nothing is
downloaded) and are pruned by magnitude or rounded, which leaves other frequencies than training does: their rows say
so. Quantised weights are also held against the empirical entropy of their level numbers, given tensor and precision.
``--seconds`` times ResNet-50 alone, on one core.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import lzma
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import brotli
import numpy as np
import torch
import zstandard
from safetensors.torch import save as safetensors
from torch import Tensor, nn

from lab.book import benchmarks
from lab.models import resnet20
from lab.utils.files import ROOT
from principled import quantize
from principled.files import load, precisions, save, sizes
from principled.files.tables import bits

NEEDS = "timm, transformers, zstandard and brotli"
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda content: gzip.compress(content, 9),
    "xz -9e": lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
    "zstd -22": lambda content: zstandard.ZstdCompressor(22).compress(content),
    "brotli -11": lambda content: brotli.compress(content, quality=11),
}
SHIPPED = {"cs": 175, "gmp": 73, "mp": None, "smol": 127, "dense": 930}
"""The shipped networks by method, and the goal for each file, in kB."""


def torchvision_model(name: str) -> nn.Module:
    """A network of torchvision; a wheel of another build lacks operators that no image network here calls."""
    global _operators
    try:
        import torchvision
    except RuntimeError:
        _operators = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            _operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision.models.get_model(name, weights=None)


def timm_model(name: str) -> nn.Module:
    torchvision_model("squeezenet1_1")  # timm imports torchvision
    import timm

    return timm.create_model(name, pretrained=False)


def language_model() -> nn.Module:
    """A GPT-2 whose last layer is its embedding (tied)."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=4000, n_positions=128, n_embd=128, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


# -- fewer bits --------------------------------------------------------------------------------------------------------


def weights(net: nn.Module) -> Iterator[Tensor]:
    return (p.data for p in net.parameters() if p.ndim > 1)


def pruned(net: nn.Module, share: float) -> nn.Module:
    """A copy with the smallest weights of each matrix or convolution at zero."""
    net = copy.deepcopy(net)
    for w in weights(net):
        w.mul_(w.abs() > w.abs().flatten().kthvalue(max(1, round(share * w.numel()))).values)
    return net


def rounded(net: nn.Module, wide: int, each_filter: bool) -> nn.Module:
    """A copy whose matrices and convolutions are whole numbers of so many bits times a scale."""
    net = copy.deepcopy(net)
    for w in weights(net):
        size = w.abs().flatten(1).amax(1).view(-1, *[1] * (w.ndim - 1)) if each_filter else w.abs().max()
        scale = size / (2 ** (wide - 1) - 1 if wide > 1 else 1)
        w.copy_((w / scale).round() * scale)
    return net


def of_shared_bits(net: nn.Module, block: int) -> nn.Module:
    """A copy whose weights have 2 to 6 bits, the same in each block in a row: more where the block is larger."""
    net = copy.deepcopy(net)
    for w in weights(net):
        flat = w.flatten()
        blocks = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block).abs().amax(1)
        p = (7 + blocks.log2()).round().clamp(2, 6).to(torch.int8).repeat_interleave(block)[: len(flat)]
        w.copy_(quantize(flat.clamp(-1.9, 1.9), p).view_as(w))
    return net


def networks() -> Iterator[tuple[str, nn.Module, float, int | None]]:
    """Name, network, the most that its file may take of the best compressor's, the goal in kB."""
    for method, goal in SHIPPED.items():
        (path,) = (ROOT / "data" / "models").glob(f"*-{method}-*")
        yield f"shipped ResNet-20, {method}", load(path, resnet20()), 1.0 if method == "dense" else 0.88, goal
    (path,) = (ROOT / "data" / "models").glob("*-dense-*")
    yield (
        "shipped ResNet-20, dense, rounded to 2 to 6 bits in blocks of 32",
        of_shared_bits(load(path, resnet20()), 32),
        0.8,
        None,
    )
    torch.manual_seed(0)
    shuffle, squeeze = torchvision_model("shufflenet_v2_x0_5"), torchvision_model("squeezenet1_1")
    mobile, tied = timm_model("mobilenetv3_small_050"), language_model()
    for share in (0.8, 0.9, 0.95):
        yield f"ShuffleNet v2, initial weights, {share:.0%} zeros", pruned(shuffle, share), 0.88, None
    yield "SqueezeNet, initial weights, 90% zeros", pruned(squeeze, 0.9), 0.88, None
    yield "MobileNet v3, initial weights, 2 bits a tensor", rounded(mobile, 2, False), 0.88, None
    yield "MobileNet v3, initial weights, 4 bits a filter", rounded(mobile, 4, True), 0.88, None
    yield "SqueezeNet, initial weights, 4 bits a filter", rounded(squeeze, 4, True), 0.88, None
    yield "GPT-2, tied, initial weights, dense", tied, 1.0, None
    yield "GPT-2, tied, initial weights, 90% zeros", pruned(tied, 0.9), 0.88, None


# -- what is measured --------------------------------------------------------------------------------------------------


def plain(net: nn.Module) -> bytes:
    """The state as safetensors, a tied tensor once."""
    state = net.state_dict(keep_vars=True)
    once = {id(tensor): name for name, tensor in reversed(state.items())}
    return safetensors({name: state[name].detach().contiguous() for name in once.values()})


def over_entropy(path: Path) -> float | None:
    """Bytes of coded level numbers and of all tables over their entropy given tensor and precision."""
    state, spent = load(path), sizes(path)
    entropy = 0.0
    for name, p in precisions(path).items():
        entropy += sum(bits(np.unique(state[name][p == each], return_counts=True)[1]) for each in p.unique()) / 8
    coded = sum(row.coded for row in spent.rows if row.form == "levels")
    return (coded + spent.tables) / entropy if entropy else None


def seconds(report: benchmarks.Report) -> None:
    """Saving and loading a ResNet-50."""
    net = torchvision_model("resnet50")
    taken: dict[str, list[float]] = {"saving": [], "loading": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net"
        for _ in range(3):
            for what, act in (("saving", lambda: save(path, net)), ("loading", lambda: load(path, net))):
                start = time.perf_counter()
                act()
                taken[what].append(time.perf_counter() - start)
    for what, each in taken.items():
        print(f"{what} a ResNet-50: {statistics.median(each):.2f} s")
        report.ratio(f"{what} a ResNet-50, one core", statistics.median(each), at_most=5, unit="s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="networks whose name has one of these words")
    parser.add_argument("--seconds", action="store_true", help="time ResNet-50 alone")
    benchmarks.option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = benchmarks.Report(__file__)
    if not options.seconds:
        print(f"{'kB':60} {'plain':>8}" + "".join(f"{name:>11}" for name in COMPRESSORS) + f"{'saved':>9}  of best")
        for name, net, at_most, goal in networks():
            if options.only and not any(word in name for word in options.only):
                continue
            content = plain(net)
            compressed = {kind: len(act(content)) for kind, act in COMPRESSORS.items()}
            best = min(compressed, key=compressed.__getitem__)
            with tempfile.TemporaryDirectory() as folder:
                path = save(Path(folder) / "net", net)
                saved, level = path.stat().st_size, over_entropy(path)
            cells = "".join(f"{size / 1000:11,.1f}" for size in compressed.values())
            line = f"{name:60} {len(content) / 1000:8,.1f}{cells}{saved / 1000:9,.1f}  {saved / compressed[best]:.3f}"
            print(line, flush=True)
            report.ratio(f"{name}: the plain file", len(content) / 1000, unit="kB")
            report.ratio(f"{name}: the best compressor's, {best}", compressed[best] / 1000, unit="kB")
            report.ratio(f"{name}: saved", saved / 1000, at_most=goal, unit="kB")
            report.ratio(f"{name}: saved, over the best compressor's", saved / compressed[best], at_most=at_most)
            if level is not None:
                report.ratio(f"{name}: level numbers with all tables, over their entropy", level, at_most=1.03)
    seconds(report)
    report.write(options.json)


if __name__ == "__main__":
    main()
