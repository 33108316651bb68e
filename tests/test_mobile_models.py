"""The networks of Tables 5.2, 5.3 and 5.5 have their sizes to the unit, and their shapes."""

import pytest
import torch
from torch import nn

from lab.models import ResNet
from lab.models.activated import ActivatedResNet
from lab.models.mobile import ShuffleNet, mobilenetv2, mobilenetv2_narrow, shufflenet, shufflenet_narrow
from lab.models.resnet18 import resnet18
from principled.relax import select
from principled.smol import is_quantisable


def count(net):
    return sum(p.numel() for p in net.parameters())


def conv(inputs, outputs, kernel=1, groups=1):
    """Weights of a convolution without bias, and scale and shift of the normalisation after it."""
    return inputs // groups * outputs * kernel**2 + 2 * outputs


def test_mobilenetv2_by_the_paper_s_table():
    # Sandler et al. (2018), Table 2: expansion, channels, repeats; (*) strides 1, 1, 2, 2, 1, 2, 1 in the CIFAR form
    table = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    total, inputs = conv(3, 32, 3), 32
    for expansion, channels, repeats, stride in table:
        for i in range(repeats):
            inner = expansion * inputs
            total += conv(inputs, inner) + conv(inner, inner, 3, groups=inner) + conv(inner, channels)
            total += conv(inputs, channels) if inputs != channels and (i > 0 or stride == 1) else 0  # its shortcut
            inputs = channels
    total += conv(320, 1280) + 1280 * 10 + 10
    with torch.device("meta"):
        assert count(mobilenetv2()) == total == 2_296_922


@pytest.mark.parametrize(
    ("groups", "channels", "total"), [(2, (200, 400, 800), 887_582), (3, (240, 480, 960), 862_768)]
)
def test_shufflenet_by_the_paper_s_table(groups, channels, total):
    # Zhang et al. (2018), Table 1: stages of 4, 8 and 4 units; a quarter of the channels inside a unit
    weights, inputs = conv(3, 24), 24
    for stage, (outputs, units) in enumerate(zip(channels, (4, 8, 4), strict=True)):
        for unit in range(units):
            added = outputs - inputs if unit == 0 else outputs
            inner = added // 4
            weights += conv(inputs, inner, groups=1 if stage == unit == 0 else groups)
            weights += conv(inner, inner, 3, groups=inner) + conv(inner, added, groups=groups)
            inputs = outputs
    weights += channels[-1] * 10 + 10
    with torch.device("meta"):
        assert count(ShuffleNet(10, channels, groups=groups)) == weights == total


def test_resnet18_has_basic_blocks_and_the_published_size():
    with torch.device("meta"):
        net, small = resnet18(), resnet18(200, small_images=True)
        assert small(torch.empty(2, 3, 32, 32)).shape == (2, 200)
    assert count(net) == 11_689_512
    kernels = {m.kernel_size for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and "layer" in name}
    assert kernels == {(3, 3), (1, 1)}
    ones = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert ones
    assert all("downsample" in name for name in ones)


@pytest.mark.parametrize("make", [mobilenetv2, shufflenet, mobilenetv2_narrow, shufflenet_narrow])
def test_a_score_a_class_gradients_everywhere_and_images_stay(make):
    torch.manual_seed(0)
    net, images = make(7), torch.randn(4, 3, 32, 32)
    before = images.clone()
    out = net(images)
    assert out.shape == (4, 7)
    out.square().sum().backward()
    assert torch.equal(images, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_shortcuts_of_mobilenetv2_stay_whole_and_shufflenet_has_none():
    with torch.device("meta"):
        mobile, shuffle = mobilenetv2(), shufflenet()
    chosen = select(mobile, is_quantisable)
    left = {name for name, p in mobile.named_parameters() if p.ndim > 1} - set(chosen)
    assert len(left) == 4  # where the stride is 1 and the channels change: to 16, 24, 96 and 320
    assert all(".shortcut." in name for name in left)
    assert {name for name, p in shuffle.named_parameters() if p.ndim > 1} == set(select(shuffle, is_quantisable))


def test_shuffling_mixes_the_groups():
    torch.manual_seed(0)
    net = ShuffleNet(10, (40, 80, 160), (1, 2, 1))
    unit = net.units[2].eval()  # stride 1, 80 channels in two groups
    x = torch.randn(1, 80, 4, 4)
    moved = x.clone()
    moved[:, :40] += 1.0
    changed = ((unit(moved) - moved - unit(x) + x).abs().amax((0, 2, 3)) > 1e-6)[40:]
    assert changed.any()  # the second group's result hears the first group's input


def test_relus_as_modules_change_nothing():
    torch.manual_seed(3)
    plain = ResNet(2)
    torch.manual_seed(3)
    with_modules = ActivatedResNet(2)
    assert {n: p.shape for n, p in plain.named_parameters()} == {n: p.shape for n, p in with_modules.named_parameters()}
    assert sum(isinstance(m, nn.ReLU) for m in with_modules.modules()) == 13
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(plain(images), with_modules(images))
