"""Whole networks, at nine tenths of zeros, compiled: the book's, hardened and folded ones, torchvision's and timm's."""

import warnings

import pytest
import torch
from torch import nn

pytest.importorskip("llvmlite")

from lab.models.registry import build
from principled import ContinuousMask, Relaxed, SoftSharing, fold
from principled.runtime import compile


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRINCIPLED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@torch.no_grad()
def emptied(net, zeros=0.9):
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            size = module.weight.abs()
            module.weight.mul_(size > size.flatten().kthvalue(max(round(zeros * size.numel()), 1)).values)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def equal_outputs(net, x, threshold=0.5):
    """Compiled without leaving the whole to PyTorch, and equal to 1e-4 of the largest output; returns it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="principled.runtime")
        fast = compile(net, x[:1], threshold=threshold)
    with torch.no_grad():
        want = net(x)
    assert (fast(x) - want).abs().max() <= 1e-4 * want.abs().max()
    return fast


BOOK = (
    "resnet8",
    "vgg16-quarter",
    "WRN 16-2",
    "mobilenetv2-narrow",
    "shufflenet-narrow",
    "small CNN",
    "activated-resnet8",
)


@pytest.mark.parametrize("name", BOOK)
def test_the_books_networks(name):
    torch.manual_seed(0)
    fast = equal_outputs(emptied(build(name)), torch.randn(9, 3, 32, 32))
    kinds = [row.kernel for row in fast.report()]
    assert kinds.count("sparse") > kinds.count("PyTorch")


def test_a_hardened_network():
    torch.manual_seed(0)
    net = Relaxed(build("resnet8"), ContinuousMask(s_init=0.0))
    nn.init.normal_(net.relaxations[0].s)
    hard = net.harden().eval()
    rows = equal_outputs(hard, torch.randn(2, 3, 16, 16)).report()
    assert any(row.zeros is not None and 0.4 < row.zeros < 0.6 for row in rows)


def test_a_folded_network_executes_a_layer_again():
    torch.manual_seed(0)
    body = [nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()) for _ in range(4)]
    plain = nn.Sequential(nn.Conv2d(3, 6, 1), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    net = Relaxed(plain, SoftSharing(templates=1))
    for alpha in net.relaxations[0].alpha.values():
        nn.init.constant_(alpha, 1.5)  # as training leaves them: not where they started
    equal_outputs(fold(net, threshold=0.9).eval(), torch.randn(9, 3, 8, 8), threshold=1.0)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 20)

    def forward(self, tokens):
        return self.out(torch.relu(self.mix(self.embed(tokens))))


def test_a_network_that_reads_words():
    torch.manual_seed(0)
    net, tokens = emptied(Words()), torch.randint(20, (9, 5))
    fast = equal_outputs(net, tokens)
    assert [row.kernel for row in fast.report()].count("sparse") >= 2
    with pytest.raises(ValueError, match="compiled for int64"):
        fast(tokens.float())


TORCHVISION = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "densenet121", "googlenet",
               "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_x_400mf", "convnext_tiny")  # fmt: skip
TIMM = ("resnet26d", "vit_tiny_patch16_224", "convnext_atto", "efficientnet_lite0", "mixer_s32_224", "dla34")


DECLARED = []
"""Declarations of operators, which live as long as this list."""


def other_peoples(library, name):
    """A network of another library; where torchvision's compiled part does not load, its operators are declared."""
    try:
        torchvision = pytest.importorskip("torchvision")
    except RuntimeError:
        DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
        for operator in ("nms", "qnms"):
            DECLARED[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision = pytest.importorskip("torchvision")
    if library == "torchvision":
        return torchvision.models.get_model(name, weights=None)
    return pytest.importorskip("timm").create_model(name)


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("library", "name"), [("torchvision", name) for name in TORCHVISION] + [("timm", name) for name in TIMM]
)
def test_other_peoples_networks(library, name):
    torch.manual_seed(0)
    net = emptied(other_peoples(library, name))
    fast = equal_outputs(net, torch.randn(2, 3, 224, 224))
    assert any(row.kernel == "sparse" for row in fast.report())
