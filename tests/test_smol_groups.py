"""SMOL's groups and scales: which weights share a precision, and in which range the levels lie."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_smol import line, numbers
from torch import nn
from torch.testing import assert_close

from lab.models import resnet20
from principled import Relaxed, Smol

# -- groups -----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.up = nn.ConvTranspose2d(3, 2, 2)
        self.shortcut = nn.Conv2d(2, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(7, 5)

    def forward(self, x):
        return self.linear(self.up(F.relu(self.norm(self.conv(x)) + self.shortcut(x)[..., 1:-1, 1:-1])).mean((1, 2)))


def test_by_default_neither_shortcuts_nor_normalisation_nor_biases_are_quantised():
    smol = Smol()
    Relaxed(Small(), smol)
    assert smol.names == ("conv.weight", "up.weight", "linear.weight")
    assert Relaxed(resnet20(), Smol()).relaxations[0].s.numel() == 267_696 + 640


@pytest.mark.parametrize(
    ("granularity", "sizes"),
    [
        ("filter", [18] * 3 + [12] * 2 + [7] * 5),  # a transposed convolution has its filters on axis 1
        ("layer", [54, 24, 35]),
        (16, [16, 16, 16, 6, 16, 8, 16, 16, 3]),
        ([torch.arange(0, 113, 2), torch.arange(1, 113, 2)], [57, 56]),
        (lambda weights: [torch.arange(54), torch.arange(54, sum(w.numel() for w in weights.values()))], [54, 59]),
    ],
    ids=["filter", "layer", "block", "own", "function"],
)
def test_groups_share_a_precision(granularity, sizes):
    smol = Smol(granularity=granularity)
    relaxed = Relaxed(Small(), smol)
    assert smol.sizes.tolist() == sizes
    with torch.no_grad():
        smol.s.copy_(torch.linspace(-4, 1, len(sizes)))
    bits = torch.log2(1 + torch.exp(-smol.s.detach()))
    assert_close(relaxed.penalty().detach(), (bits * torch.tensor(sizes)).sum())
    smol.count = "groups"
    assert_close(relaxed.penalty().detach(), bits.sum())
    flat = torch.cat([p.flatten() for p in smol.precision().values()])
    assert torch.equal(flat, (1 + torch.floor(bits))[smol.group].to(torch.int8))
    relaxed.penalty().backward()
    relaxed(torch.randn(2, 2, 8, 8))
    assert torch.isfinite(smol.s.grad).all()


def test_filters_of_a_transposed_convolution():
    smol = Smol(granularity="filter", where="up.weight")
    Relaxed(Small(), smol)
    with torch.no_grad():
        smol.s.copy_(torch.tensor([0.0, -math.log(7)]))
    p = smol.precision()["up.weight"]
    assert (p[:, 0] == 2).all()
    assert (p[:, 1] == 4).all()


def test_noise_within_a_group_differs_and_its_size_does_not():
    relaxed, smol = line((0.0,) * 1000, granularity="layer")
    with torch.no_grad():
        smol.s.fill_(0.0)
    seen = relaxed.weights()["weight"]
    assert seen.unique().numel() > 900
    assert 0.49 < seen.abs().max() <= 0.5
    seen.square().sum().backward()
    assert smol.s.grad.shape == (1,)


# -- scales -----------------------------------------------------------------------------------------------------------


def test_a_scale_moves_the_range_and_every_level():
    relaxed, smol = line((3.0, -0.2, 8.0), (0.0, 0.0, 0.0), scale=4.0)
    assert_close(relaxed.harden().weight, numbers(2.0, -2.0, 6.0)[None])  # 4 Q(w / 4, 2)
    assert_close(relaxed.eval().weights()["weight"], numbers(3.0, -0.2, 6.0)[None])  # clipped to 4 x 1.5
    smol.clip_(dict(relaxed.net.named_parameters()))
    assert relaxed.net.weight.abs().max() == 6


def test_power_of_two_scales():
    net = nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1))
    with torch.no_grad():
        for layer, peak in zip(net, (0.3, 4.0, 0.0), strict=True):
            layer.weight.copy_(torch.tensor([[peak, -peak / 2]]))
    smol = Smol(scale="power")
    relaxed = Relaxed(net, smol)
    assert smol.scales() == {"0.weight": 0.25, "1.weight": 2.0, "2.weight": 1.0}
    assert relaxed.harden()[0].weight.abs().max() <= 0.5
    again = Relaxed(nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1)), Smol(scale="power"))
    again.load_state_dict(relaxed.state_dict())
    assert again.relaxations[0].scales() == smol.scales()  # the scale is part of the state
