"""How much faster is a network in PyTorch itself once its pruned units are out: ``python benchmarks/filters.py``.

Five kinds of network carry a ``UnitMask`` of which a share is switched off at random, as a trained one would have it.
Compared are the hardened network, which multiplies by its zeros, and the same one physically smaller: time of a forward
pass, in turns, and multiplications. Their outputs must agree.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from integrations import declare_operators
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lab.book import benchmarks
from lab.models import resnet20
from lab.models.mobile import mobilenetv2
from principled.filters import Structured, UnitMask, run

NEEDS = "timm and transformers (`pip install timm 'transformers[torch]'`)"


def resnext() -> nn.Module:
    """A residual network whose 3x3 convolutions have eight groups."""
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, groups=8, width_per_group=8)


def vision_transformer() -> nn.Module:
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=4, num_heads=6, num_classes=10)


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=8, intermediate_size=1024, vocab_size=1000)
    )


def words(batch: int) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(0, 1000, (batch, 64))}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "ResNet-20 (residual streams)": (resnet20, lambda batch: torch.randn(batch, 3, 32, 32)),
    "MobileNetV2 (depthwise)": (mobilenetv2, lambda batch: torch.randn(batch, 3, 32, 32)),
    "ResNeXt (grouped)": (resnext, lambda batch: torch.randn(batch, 3, 64, 64)),
    "vision transformer (heads, hidden units)": (vision_transformer, lambda batch: torch.randn(batch, 3, 64, 64)),
    "BERT (heads, hidden units)": (bert, words),
}


def switch_off(mask: UnitMask, share: float) -> None:
    """A random share of all units, evenly over the layers; at least one of each stays."""
    with torch.no_grad():
        mask.s.copy_(torch.where(torch.rand(len(mask.s)) < share, -1.0, 1.0))
        for name, part in mask.split(mask.s).items():
            if bool((part < 0).all()):
                mask.s[mask.ids.split(mask._sizes)[mask.names.index(name)][0]] = 1.0


def tensors(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.logits


def multiplications(net: nn.Module, x: Any) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(net, x)
    return counter.get_total_flops() / 2


def seconds(net: nn.Module, x: Any) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        run(net, x)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.6, help="of the units switched off (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="inputs at once (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each (default: %(default)s)")
    benchmarks.option(parser)
    asked = parser.parse_args()
    report = benchmarks.Report(__file__)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    declare_operators()
    for name, (make, inputs) in NETWORKS.items():
        torch.manual_seed(0)
        net, x = make(), inputs(asked.batch)
        relaxed = Structured(net, inputs(1), mask=UnitMask)
        switch_off(relaxed.relaxations[0], asked.share)
        hard, small = relaxed.harden().eval(), relaxed.harden(shrink=True).eval()
        with torch.inference_mode():
            torch.testing.assert_close(tensors(run(small, x)), tensors(run(hard, x)), rtol=1e-3, atol=1e-3)
        ratios = []
        for _ in range(2 + asked.repeats):
            ratios.append(seconds(hard, x) / seconds(small, x))
        faster = statistics.median(ratios[2:])
        fewer = multiplications(hard, x) / multiplications(small, x)
        print(f"{name}: {faster:.2f} times as fast, {fewer:.2f} times fewer multiplications", flush=True)
        report.ratio(f"{name}: {asked.share:.0%} of units out, hardened over shrunk, time", faster, at_least=1)
        report.ratio(f"{name}: multiplications, hardened over shrunk", fewer)
    report.write(asked.json)


if __name__ == "__main__":
    main()
