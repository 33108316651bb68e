"""VGG-16, Conv-6 and ResNet-50 have the thesis's sizes, to the unit."""

import pytest
import torch
from torch import nn

from lab.models import conv6, resnet50, vgg16
from principled.relax import is_spatial_convolution, select


def sizes(net, where):
    chosen = select(net, where)
    return sum(p.numel() for p in net.parameters()), len(chosen), sum(p.numel() for p in chosen.values())


def test_vgg16():
    with torch.device("meta"):
        net = vgg16()
    assert sizes(net, is_spatial_convolution) == (14_724_042, 13, 14_710_464)
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [10]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 13


def test_conv6():
    with torch.device("meta"):
        net = conv6()
    assert sizes(net, (nn.Conv2d, nn.Linear)) == (2_262_602, 9, 2_261_184)
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [64, 64, 128, 128, 256, 256]
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [256, 256, 10]


def test_resnet50():
    with torch.device("meta"):
        net, small = resnet50(), resnet50(200, small_images=True)
    assert sizes(net, nn.Conv2d) == (25_557_032, 53, 23_454_912)
    assert sizes(small, nn.Conv2d) == (23_910_152, 53, 23_447_232)


@pytest.mark.parametrize("make", [vgg16, conv6])
@pytest.mark.parametrize(("classes", "width"), [(10, 0.25), (100, 0.125)])
def test_a_score_a_class_and_gradients_everywhere(make, classes, width):
    net = make(classes, width)
    images = torch.randn(4, 3, 32, 32)
    before = images.clone()
    out = net(images)
    assert out.shape == (4, classes)
    out.square().sum().backward()
    assert torch.equal(images, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in net.named_parameters() if "weight" in name)


def test_small_images_keep_their_size_in_a_small_resnet50():
    with torch.device("meta"):
        net, images = resnet50(200, small_images=True), torch.empty(2, 3, 32, 32)
        shapes = []
        for stage in (net.layer1, net.layer4):
            stage.register_forward_hook(lambda m, i, o: shapes.append(o.shape[-1]))
        assert net(images).shape == (2, 200)
    assert shapes == [32, 4]
