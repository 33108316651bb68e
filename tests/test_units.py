"""Units: what goes together in residual, depthwise, grouped and attention layers, and that the shrunk network computes
the same with fewer of them."""

import sys

import pytest
import torch
import torch.nn.functional as F
from test_filters import unsettle
from torch import nn
from torch.testing import assert_close
from torchvision_operator import declare

from lab.models import ResNet, encoder
from lab.models.mobile import shufflenet_narrow
from principled import Relaxed
from principled.channels import Channels
from principled.filters import Structured, UnitMask, followed, without_dead_channels

declare()


def separable(width=8):
    """As in a MobileNet: expand, depthwise, project, around a skip."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm0 = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
            self.expand, self.norm1 = nn.Conv2d(width, 3 * width, 1, bias=False), nn.BatchNorm2d(3 * width)
            self.depthwise = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
            self.norm2 = nn.BatchNorm2d(3 * width)
            self.project, self.norm3 = nn.Conv2d(3 * width, width, 1, bias=False), nn.BatchNorm2d(width)
            self.head = nn.Linear(width, 3)

        def forward(self, x):
            x = F.relu(self.norm0(self.stem(x)))
            y = F.relu(self.norm2(self.depthwise(F.relu(self.norm1(self.expand(x))))))
            return self.head((x + self.norm3(self.project(y))).mean((2, 3)))

    return unsettle(Net())


def grouped():
    return unsettle(nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1, groups=4), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 3),
    ))  # fmt: skip


class Joined(nn.Module):
    """Two convolutions whose outputs are concatenated and normalised together."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), nn.BatchNorm2d(10)
        self.last = nn.ConvTranspose2d(10, 5, 2)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        y = F.relu(self.last(F.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1)))))
        return self.head(y.mean((2, 3)))


def vit():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=48, depth=2, num_heads=6, num_classes=3
    )


def bert():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=6, intermediate_size=40, vocab_size=50, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


class Encoder(nn.Module):
    """PyTorch's own Transformer layers, whose attention is as wide as its heads."""

    def __init__(self):
        super().__init__()
        self.layers, self.head = encoder(layers=2, width=32, heads=4), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.layers(x.flatten(2)[:, :, :32]).mean(1))


IMAGE = torch.randn(1, 3, 8, 8)
NETWORKS = {
    "residual": (lambda: unsettle(ResNet(1)), torch.randn(1, 3, 16, 16)),
    "depthwise": (separable, IMAGE),
    "grouped": (grouped, IMAGE),
    "joined": (lambda: unsettle(Joined()), IMAGE),
    "vision transformer": (vit, IMAGE),
    "PyTorch's encoder": (Encoder, IMAGE),
    "BERT": (bert, {"input_ids": torch.randint(0, 50, (1, 7))}),
}


def batch_of(example):
    if isinstance(example, dict):
        return {"input_ids": torch.randint(0, 50, (4, 9)), "attention_mask": (torch.arange(9) < 6).expand(4, 9).long()}
    return torch.randn(4, *example.shape[1:])


def outputs(net, x):
    with torch.no_grad():
        return net(**x).logits if isinstance(x, dict) else net(x)


def weights_of(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.filterwarnings("ignore:the mask removes")
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_a_unit_mask_prunes_leaves_the_network(name, share):
    make, example = NETWORKS[name]
    net = Structured(make(), example, mask=UnitMask)
    (mask,) = net.relaxations
    with torch.no_grad():
        mask.s.copy_(torch.where(torch.rand(len(mask.s)) < share, -1.0, 1.0))
        for name, part in mask.split(mask.s).items():  # a stream of which nothing is left keeps one dead unit
            if (part < 0).all():
                mask.s[mask.ids[list(mask.names).index(name)]] = 1.0
    hard, small = net.harden().eval(), net.harden(shrink=True).eval()
    x = batch_of(example)
    assert_close(outputs(small, x), outputs(hard, x), rtol=1e-4, atol=1e-5)
    assert type(small) is type(hard)
    if share:
        assert weights_of(small) < (1 - share / 3) * weights_of(hard)
        left = without_dead_channels(small, example)  # nothing dead is left to take
        assert weights_of(left) >= 0.97 * weights_of(small)
    else:
        assert weights_of(small) == weights_of(hard)


def streams(name):
    make, example = NETWORKS[name]
    net = make()
    return {stream.root: stream for stream in Channels(followed(net), example).streams()}


def test_a_residual_stream_is_one_unit_a_channel():
    found = streams("residual")["conv"]
    assert {"conv.weight", "norm.weight", "norm.bias", "blocks.0.conv2.weight", "blocks.0.norm2.bias"} == {
        name for name in found.writers if not name.startswith("blocks.0.norm2.w")
    }
    assert found.count == 16


def test_a_depthwise_kernel_goes_with_the_filter_before_it():
    found = streams("depthwise")["expand"]
    assert {name.partition(".")[0] for name in found.writers} == {"expand", "norm1", "depthwise", "norm2"}
    assert found.count == 24


def test_a_grouped_convolution_loses_the_same_filter_of_each_group():
    found = streams("grouped")
    assert (found["0"].count, found["3"].count, found["6"].count) == (3, 6, 6)
    assert found["3"].units.tolist() == [0, 1, 2, 3, 4, 5] * 4
    assert "9" not in found  # the output


def test_heads_are_units_with_queries_keys_and_values():
    fused = streams("vision transformer")["blocks.0.attn.qkv"]
    assert (fused.count, fused.attention) == (6, "blocks.0.attn")
    assert fused.units.tolist() == [head for _ in range(3) for head in range(6) for _ in range(8)]
    found = streams("BERT")
    apart = found["bert.encoder.layer.0.attention.self.query"]
    assert apart.count == 6
    assert {name.split(".")[-2] for name in apart.writers} == {"query", "key", "value"}
    assert found["bert.encoder.layer.0.intermediate.dense"].count == 40
    assert not any("output" in name for name in found)  # LayerNorm reads those streams


def test_a_head_that_goes_is_told_to_its_attention():
    net = Structured(vit(), IMAGE, mask=UnitMask, where=lambda name, module, p: "qkv" in name)
    (mask,) = net.relaxations
    assert len(mask.s) == 12
    with torch.no_grad():
        mask.s.fill_(1.0)[:4] = -1.0
    small = net.harden(shrink=True)
    assert [block.attn.num_heads for block in small.blocks] == [2, 6]
    assert small.blocks[0].attn.proj.in_features == 16
    assert small.blocks[0].attn.qkv.out_features == 48


def test_training_makes_units_go():
    torch.manual_seed(1)
    net = Structured(separable(), IMAGE, s_init=0.0, mask=UnitMask)
    (mask,) = net.relaxations
    optimizer = torch.optim.SGD([{"params": net.net.parameters()}, {"params": [mask.s], "lr": 0.2}], lr=0.02)
    x, y = torch.randn(32, 3, 8, 8), torch.arange(32) % 3
    for t in range(30):
        net.anneal(t / 30, 100.0)
        optimizer.zero_grad()
        (F.cross_entropy(net(x), y) + 0.01 * net.penalty()).backward()
        optimizer.step()
    assert 0 < mask.sparsity() < 1
    assert weights_of(net.harden(shrink=True)) < weights_of(net.net)
    kernels = [p for name, p in net.harden().named_parameters() if name in mask.names and p.ndim > 1]
    zeros = sum(int((w == 0).flatten(1).all(1).sum()) * w[0].numel() for w in kernels)
    assert mask.sparsity() == pytest.approx(zeros / sum(w.numel() for w in kernels))


def test_the_mask_moves_and_is_loaded_like_any_other():
    net, again = (Structured(separable(), IMAGE, mask=UnitMask) for _ in range(2))
    with torch.no_grad():
        net.relaxations[0].s.normal_()
    again.load_state_dict(net.state_dict())
    assert_close(again(IMAGE), net(IMAGE))
    assert net.double()(IMAGE.double()).dtype == torch.float64
    assert net.relaxations[0].ids.dtype == torch.int64


# -- bad input --------------------------------------------------------------------------------------------------------


def test_nothing_to_take_out_is_one_line():
    with pytest.raises(ValueError, match="Sequential: nothing of what `where` selects could be taken out as a whole"):
        Relaxed(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), UnitMask(IMAGE))


def test_a_network_that_cannot_be_followed_is_one_line():
    net = Structured(shufflenet_narrow(), torch.randn(1, 3, 32, 32), mask=UnitMask)  # it shuffles channels of groups
    with torch.no_grad():
        net.relaxations[0].s[::2] = -1.0
    with pytest.raises(ValueError, match="computes something else once its dead channels are gone") as error:
        net.harden(shrink=True)
    assert "\n" not in str(error.value)


def test_an_example_on_another_device_is_one_line():
    with pytest.raises(ValueError, match="the network is on cpu and the example on meta: move both to one device"):
        Structured(separable(), IMAGE.to("meta"), mask=UnitMask)
    with pytest.raises(ValueError, match="the network is on meta and the example on cpu"):
        without_dead_channels(separable().to("meta"), IMAGE)


def test_a_function_that_zero_does_not_pass_is_one_line():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        net[0].weight[:4] = net[0].bias[:4] = 0
    with pytest.raises(ValueError, match=r"computes something else once its dead channels are gone: use harden\(\)"):
        without_dead_channels(net, IMAGE)


def test_without_torch_pruning_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ValueError, match="needs torch-pruning: pip install torch-pruning"):
        UnitMask(IMAGE).bind(separable(), dict(separable().named_parameters()))
