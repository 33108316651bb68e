"""Whole filters: what a filter's mask takes along, and that the shrunk network is the same function, smaller and
cheaper.
"""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from lab.models import ResNet
from principled import Relaxed
from principled.filters import FilterMask, Structured, followers, without_dead_channels


def chain(width=8, classes=3):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(width * 16, classes),
    )  # fmt: skip


def unsettle(net):
    """Normalisation as after training: statistics, scales and shifts of all sizes."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.bias.data, module.running_mean):
                value.normal_()
            module.running_var.uniform_(0.5, 2)
    return net


IMAGE = torch.randn(1, 3, 8, 8)


def test_followers_are_found_by_running_not_by_name():
    net = ResNet(1)
    by_layer = followers(net, torch.randn(1, 3, 32, 32))
    assert by_layer["conv"] == ["norm"]
    assert by_layer["blocks.1.conv2"] == ["blocks.1.norm2"]
    assert "blocks.1.shortcut" not in by_layer  # nothing normalises it
    assert net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_filter_takes_its_bias_and_its_normalisation_along():
    net = Relaxed(unsettle(chain(2)), FilterMask(IMAGE))
    mask = net.relaxations[0]
    assert mask.s.shape == (6,)
    with torch.no_grad():
        mask.s.copy_(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0]))
    hard = net.harden()
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        value = hard.get_parameter(name)
        assert (value[1] == 0).all()
        assert (value[0] != 0).all()
    assert (hard[7].bias[0] == 0) & (hard[7].bias[1] != 0)
    hard.eval()
    assert (hard[:3](IMAGE)[:, 1] == 0).all()  # not only constant: gone
    assert mask.sparsity() == pytest.approx((27 + 18) / (54 + 36 + 36))
    assert net.penalty().item() == pytest.approx(sum(1 / (1 + math.exp(-s)) for s in mask.s.tolist()))


@pytest.mark.parametrize("dead", [0.0, 0.5, 0.9])
def test_a_shrunk_chain_is_the_same_function(dead):
    net = Structured(unsettle(chain()), IMAGE)
    with torch.no_grad():
        net.relaxations[0].s.copy_(torch.where(torch.rand(24) < dead, -1.0, 1.0))
    hard, small = net.harden().eval(), net.harden(shrink=True).eval()
    x = torch.randn(4, 3, 8, 8)
    assert_close(small(x), hard(x), rtol=1e-4, atol=1e-5)
    kept = [max(int(part.sum()), 1) for part in net.relaxations[0].hard().split(8)]
    assert [small[i].out_channels for i in (0, 4, 7)] == kept
    assert small[10].in_features == 16 * kept[-1]
    assert [m.requires_grad for m in small.parameters()] == [True] * len(list(small.parameters()))


def test_in_a_residual_network_inner_channels_go_and_the_stream_stays_unless_all_agree():
    torch.manual_seed(2)
    net = Structured(unsettle(ResNet(1)), torch.randn(1, 3, 32, 32), where=nn.Conv2d)
    mask = net.relaxations[0]
    with torch.no_grad():
        for name, part in mask.split(mask.s).items():
            if name == "blocks.0.conv1.weight":
                part[:10] = -1.0  # within a block
            if name in ("blocks.2.conv2.weight", "blocks.2.shortcut.weight"):
                part[:7] = -1.0  # everything that writes to the last stage's stream
            if name == "blocks.1.conv2.weight":
                part[:5] = -1.0  # one of two writers
    hard, small = net.harden().eval(), net.harden(shrink=True).eval()
    assert small.blocks[0].conv1.out_channels == 6
    assert small.blocks[2].conv2.out_channels == 64 - 7
    assert small.linear.in_features == 64 - 7
    assert small.blocks[1].conv2.out_channels == 32
    x = torch.randn(3, 3, 32, 32)
    assert_close(small(x), hard(x), rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in hard.parameters())


def test_a_layer_with_no_filter_left_keeps_one_dead_one():
    net = Structured(unsettle(chain()), IMAGE)
    with torch.no_grad():
        net.relaxations[0].s[8:16] = -1.0
    small = net.harden(shrink=True).eval()
    assert small[4].out_channels == 1
    assert_close(small(IMAGE), net.harden().eval()(IMAGE))


def test_a_shrunk_network_computes_as_much_less_as_filters_are_gone():
    net = Structured(chain(96), IMAGE)
    with torch.no_grad():
        for part in net.relaxations[0].s.split(96):
            part[: 3 * 24] = -1.0

    def operations(network):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(IMAGE)
        return counter.get_total_flops()

    hard, small = net.harden().eval(), net.harden(shrink=True).eval()
    assert operations(small) < 0.1 * operations(hard)  # a quarter in, a quarter out


def test_structured_training_makes_filters_go():
    torch.manual_seed(4)
    net = Structured(chain(), IMAGE, s_init=0.0)
    mask = net.relaxations[0]
    optimizer = torch.optim.SGD([{"params": net.net.parameters()}, {"params": [mask.s], "lr": 0.2}], lr=0.05)
    x, y = torch.randn(32, 3, 8, 8), torch.arange(32) % 3
    for t in range(30):
        net.anneal(t / 30, 100.0)
        optimizer.zero_grad()
        (F.cross_entropy(net(x), y) + 0.003 * net.penalty()).backward()
        optimizer.step()
    small = net.harden(shrink=True)
    assert 0 < mask.sparsity() < 1
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.net.parameters())


def test_without_torch_pruning_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ValueError, match="needs torch-pruning: pip install torch-pruning"):
        without_dead_channels(chain(), IMAGE)
