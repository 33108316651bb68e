"""The networks have the thesis's sizes."""

import pytest
import torch
from torch import nn

from lab.models import resnet20
from principled.relax import is_spatial_convolution, select


def test_resnet20_has_the_sizes_of_chapter_4():
    net = resnet20()
    assert sum(p.numel() for p in net.parameters()) == 272_282
    maskable = select(net, is_spatial_convolution)
    assert len(maskable) == 19
    assert sum(w.numel() for w in maskable.values()) == 267_696
    shortcuts = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert [(m.in_channels, m.out_channels, m.bias) for m in shortcuts] == [(16, 32, None), (32, 64, None)]


@pytest.mark.parametrize("classes", [10, 100])
def test_resnet20_gives_a_score_a_class(classes):
    net = resnet20(classes)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, classes)
    with torch.device("meta"):
        assert resnet20(classes)(torch.empty(2, 3, 32, 32)).shape == (2, classes)


def test_the_start_is_kaiming_normal_over_the_fan_in_and_seeded():
    torch.manual_seed(1)
    net = resnet20()
    kernel = net.blocks[8].conv2.weight  # 64 x 64 x 3 x 3
    assert kernel.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    torch.manual_seed(1)
    again = resnet20()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert (net.linear.bias != again.linear.bias).sum() == 0


def test_images_do_not_change_and_gradients_reach_every_parameter():
    net, images = resnet20(), torch.randn(4, 3, 32, 32)
    before = images.clone()
    net(images).square().sum().backward()
    assert torch.equal(images, before)  # in-place relu and add touch their own results only
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
