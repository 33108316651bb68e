"""Sharing that starts from a trained network: what it keeps, what it leaves out, and one line for each bad input."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lab.datasets import load
from lab.models import resnet20
from lab.training import normalise
from lab.utils.files import ROOT
from principled import ContinuousMask, Relaxed, SoftSharing, files, fold, layer_similarity
from principled.templates import from_weights

START = "from weights"


def convolutions(layers=4, channels=3):
    return nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers)))


@pytest.fixture(scope="module")
def trained():
    """The dense ResNet-20 that the book trained and ships."""
    return files.load(next((ROOT / "data/models").glob("pruning-dense-*")), resnet20()).eval()


def test_as_many_templates_as_layers_compute_the_same(trained):
    data = load("cifar10-mini", "test")
    images = normalise(data.images[::10], data)
    net = Relaxed(copy.deepcopy(trained), SoftSharing(start=START)).eval()
    with torch.no_grad():
        assert_close(net(images), trained(images), rtol=0, atol=1e-5)
        assert_close(net.harden().eval()(images), trained(images), rtol=0, atol=1e-5)
    assert all(error < 1e-6 for error in net.relaxations[0].start_error.values())


def test_fewer_are_the_nearest_in_least_squares_and_the_error_is_stated(trained):
    net = Relaxed(copy.deepcopy(trained), SoftSharing(templates=2, start=START))
    (sharing,) = net.relaxations
    weights = net.weights()
    for group, names in sharing.groups.items():
        rows = torch.stack([trained.get_parameter(name).detach().flatten() for name in names]).double()
        mixed = torch.stack([weights[name].detach().flatten() for name in names]).double()
        values = torch.linalg.svdvals(rows)
        least = (values[2:].square().sum() / values.square().sum()).sqrt().item()  # Eckart and Young, 1936
        assert (mixed - rows).norm() / rows.norm() == pytest.approx(least, rel=1e-5)
        assert sharing.start_error[group] == pytest.approx(least, rel=1e-5)
        assert f"{least:.2g} of their norm left out at the start" in sharing.extra_repr()
    assert "starts from the weights that its layers had" in repr(net)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_no_other_templates_and_coefficients_leave_less(layers, k, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(2, 3, dtype=torch.float64, generator=generator) for _ in range(layers)]
    templates, alpha, error, rank = from_weights(weights, k)
    rows = torch.stack(weights).flatten(1)
    assert (templates.shape, alpha.shape, rank) == ((k, 2, 3), (layers, k), min(layers, 6))
    assert error == pytest.approx(float((alpha @ templates.flatten(1) - rows).detach().norm() / rows.norm()))
    if k >= rank:
        assert error < 1e-12
    for _ in range(3):  # the best coefficients for templates near those found leave no less
        near = templates.flatten(1) + 0.1 * torch.randn(k, 6, dtype=torch.float64, generator=generator)
        best = rows @ torch.linalg.pinv(near)
        assert error <= (best @ near - rows).norm() / rows.norm() + 1e-12


def test_rows_are_as_similar_as_the_weights_and_parallel_layers_fold_at_once():
    net = convolutions(3)
    with torch.no_grad():
        net[2].weight.copy_(-1.5 * net[0].weight)
    with pytest.warns(UserWarning, match="its 3 weights have rank 2"):
        shared = Relaxed(copy.deepcopy(net), SoftSharing(start=START))
    rows = torch.stack([layer.weight.detach().flatten() for layer in net])
    (alpha,) = shared.relaxations[0].alpha.values()
    assert_close(layer_similarity(alpha.detach()), layer_similarity(rows))
    folded = fold(shared, threshold=0.99)
    x = torch.randn(2, 3, 5, 5)
    assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in net.parameters())


def test_it_learns_from_where_it_starts():
    torch.manual_seed(0)
    net = convolutions(4)
    x = torch.randn(8, 3, 6, 6)
    y = net(x).detach()
    shared = Relaxed(copy.deepcopy(net), SoftSharing(templates=2, start=START))
    anew = Relaxed(copy.deepcopy(net), SoftSharing(templates=2))
    losses = [[], []]
    for model, history in zip((shared, anew), losses, strict=True):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(30):
            loss = F.mse_loss(model(x), y)
            history.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[0][0] < losses[1][0]
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_weights_dtype_and_layout_are_kept(dtype):
    net = convolutions().to(dtype=dtype, memory_format=torch.channels_last)
    shared = Relaxed(copy.deepcopy(net), SoftSharing(start=START))
    for name, weight in shared.weights().items():
        if name.endswith("weight"):
            assert weight.dtype == dtype
            assert weight.is_contiguous(memory_format=torch.channels_last)
            assert_close(weight, net.get_parameter(name), rtol=4 * torch.finfo(dtype).eps, atol=0.01)


def test_more_templates_than_layers_keep_the_network_and_can_learn():
    net = convolutions(2)
    shared = Relaxed(copy.deepcopy(net), SoftSharing(templates=5, start=START))
    x = torch.randn(2, 3, 5, 5)
    assert_close(shared(x), net(x))
    (alpha,) = shared.relaxations[0].alpha.values()
    shared(x).sum().backward()
    assert (alpha.grad[:, 2:] != 0).all()


def test_a_mask_on_top_masks_what_the_network_was():
    net = convolutions()
    shared = Relaxed(copy.deepcopy(net), SoftSharing(start=START), ContinuousMask(0.0))
    assert_close(shared.weights()["1.weight"], 0.5 * net[1].weight)


def test_the_default_draws_anew_whatever_the_weights():
    torch.manual_seed(3)
    by_default = Relaxed(convolutions(), SoftSharing()).state_dict()
    torch.manual_seed(3)
    asked = Relaxed(convolutions(), SoftSharing(start="new")).state_dict()
    assert all(torch.equal(by_default[name], asked[name]) for name in by_default)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_equal_weights_are_one_line_and_the_network_as_it_was():
    net = convolutions(3)
    with torch.no_grad():
        for layer in net:
            layer.weight.copy_(net[0].weight)
    with pytest.warns(UserWarning, match="its 3 weights are equal up to their scale, so 1 of 3 templates reproduce"):
        shared = Relaxed(copy.deepcopy(net), SoftSharing(start=START))
    x = torch.randn(2, 3, 5, 5)
    assert_close(shared(x), net(x))
    assert fold(shared, 0.99)(x).shape == x.shape
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = Relaxed(copy.deepcopy(net), SoftSharing(templates=1, start=START))
    assert_close(one(x), net(x))


def test_weights_without_a_start_are_one_line_each():
    for value, line in ((0.0, "all weights are 0, which is no start"), (float("nan"), "NaN or infinite")):
        net = convolutions(2)
        with torch.no_grad():
            for layer in net:
                layer.weight.fill_(value)
        with pytest.raises(ValueError, match=line):
            Relaxed(net, SoftSharing(start=START))
    with pytest.raises(ValueError, match="on the meta device and has no numbers to start from"):
        Relaxed(convolutions().to("meta"), SoftSharing(start=START))
    with pytest.raises(ValueError, match='start must be "new" or "from weights", not \'weights\''):
        SoftSharing(start="weights")


@pytest.mark.parametrize("start", ["new", START])
def test_mixed_devices_and_dtypes_are_one_line(start):
    for change, line in (("meta", "unequal devices: '0.weight' is on cpu, '1.weight' on meta"), ("bf", "dtypes")):
        net = convolutions(2)
        net[1] = net[1].to("meta") if change == "meta" else net[1].bfloat16()
        with pytest.raises(ValueError, match=line):
            Relaxed(net, SoftSharing({"both": ["0.weight", "1.weight"]}, start=start))


def test_nothing_to_share_is_one_line():
    with pytest.raises(ValueError, match="no two of the 1 selected weights of Conv2d are alike"):
        Relaxed(nn.Conv2d(3, 3, 3), SoftSharing(start=START))
