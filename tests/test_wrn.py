"""Wide ResNets, plain and shared: the sizes of the thesis's tables to the unit, on the meta device, and one line of
error.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lab.models import swrn, swrn50_2, wrn, wrn50_2
from lab.utils.errors import LabError

PUBLIC = json.loads((Path(__file__).parent / "fixtures/soft_sharing.json").read_text())["parameters"]

# what the definitions of 3.3.2 give for the rows of Tables 3.1 to 3.3
SHARED = {
    (28, 10, None): 36_479_302, (28, 10, 1): 12_287_212, (28, 10, 2): 17_125_630, (28, 14, 2): 33_537_790,
    (28, 14, None): 71_470_918, (28, 18, 2): 55_414_014, (28, 18, None): 118_119_750, (28, 4, 2): 2_752_510,
    (28, 6, 2): 6_177_534,
}  # fmt: skip


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_wrn_28_10_has_the_tables_size():
    with torch.device("meta"):
        assert count(wrn(28, 10)) == 36_479_194


@pytest.mark.parametrize("name", SHARED, ids=lambda name: "-".join(map(str, name)))
def test_shared_networks_have_the_tables_sizes(name):
    with torch.device("meta"):
        net = swrn(*name)
        assert count(net) == SHARED[name]
        assert net(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", PUBLIC)
def test_shared_networks_have_the_public_codes_sizes(name):
    depth, width, templates = map(int, name.split()[1].split("-"))
    with torch.device("meta"):
        assert count(swrn(depth, width, templates)) == PUBLIC[name]


@pytest.mark.parametrize(("depth", "layers"), [(16, 2), (28, 6), (40, 10)])
def test_a_stage_shares_all_but_its_first_block(depth, layers):
    net = swrn(depth, 1, 2)
    groups = net.relaxations[0].groups
    assert [len(names) for names in groups.values()] == [layers] * 3  # (L - 10) / 3
    assert groups["stage2"][0] == "stages.1.1.conv1.weight"
    assert not any(".0.conv" in name for names in groups.values() for name in names)


def test_wrn_50_2_has_twelve_groups_and_saves_nothing():
    with torch.device("meta"):
        plain, shared = wrn50_2(), swrn50_2()
        assert shared(torch.empty(1, 3, 64, 64)).shape == (1, 1000)
    assert count(plain) == 68_883_240
    groups = shared.relaxations[0].groups
    assert [len(names) for names in groups.values()] == [2, 2, 2, 3, 3, 3, 5, 5, 5, 2, 2, 2]
    assert count(shared) == count(plain) + sum(len(names) ** 2 for names in groups.values())


def test_swrn_50_2_starts_at_the_scale_of_what_its_templates_replace():
    plain, shared = dict(wrn50_2(10).named_parameters()), swrn50_2(10)
    weights = shared.weights()
    names = [name for group in shared.relaxations[0].groups.values() for name in group]
    assert len(names) == 36
    for name in names:
        assert weights[name].std().item() == pytest.approx(plain[name].std().item(), rel=0.03), name
    reduce = weights["layer1.1.conv1.weight"]  # 128 filters of 256 x 1 x 1
    assert reduce.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.03)


@pytest.mark.parametrize("classes", [10, 100])
def test_a_score_a_class_and_images_stay(classes):
    net, images = wrn(10, 1, classes), torch.randn(2, 3, 32, 32)
    before = images.clone()
    net(images).square().sum().backward()
    assert net(images).shape == (2, classes)
    assert torch.equal(images, before)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_dropout_acts_in_training_alone_and_only_inside_blocks():
    net, images = swrn(16, 1, 2, dropout=0.3), torch.randn(4, 3, 32, 32)
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [0.3] * 6
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))


def test_weights_start_kaiming_normal_over_the_fan_in():
    net = wrn(10, 4)
    kernel = net.stages[2][0].conv2.weight  # 256 x 256 x 3 x 3
    assert kernel.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert net.linear.bias.abs().sum() == 0


def test_the_skip_of_a_wider_block_is_a_convolution_of_the_normalised_input():
    net = wrn(10, 1)
    block = net.stages[1][0]
    with torch.no_grad():
        block.conv2.weight.zero_()
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), block.shortcut(block.norm1(x).relu()))
    assert net.stages[0][0].shortcut is None  # 16 to 16 channels


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wrn(29, 1), r"a Wide ResNet has 6n \+ 4 layers, not 29: choose 10, 16"),
        (lambda: wrn(4, 1), r"not 4"),
        (lambda: wrn(10, 0), "width is at least 1, not 0"),
        (lambda: swrn(10, 1), "SWRN-10 has one block a stage and nothing to share"),
        (lambda: swrn(16, 1, 0), "SWRN-16-1 cannot have 0 templates"),
    ],
)
def test_bad_sizes_are_one_line(make, message):
    with pytest.raises(LabError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
