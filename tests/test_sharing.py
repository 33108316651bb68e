"""Soft parameter sharing: properties, any network, and one line for each bad input."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from lab.models import encoder, path_scnn, shared_encoder, swrn, wrn
from principled import (
    ContinuousMask,
    Relaxed,
    SoftSharing,
    decay_groups,
    group_layers,
    groupings,
    layer_similarity,
    recurrence,
    reparameterize,
)


def convolutions(layers=4, channels=3):
    return nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers)))


def count(net):
    return sum(p.numel() for p in net.parameters())


# -- similarity and groups --------------------------------------------------------------------------------------------

rows = st.integers(1, 6).flatmap(
    lambda k: st.lists(
        st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=k, max_size=k), min_size=1, max_size=7
    )
)


@given(rows)
def test_similarity_is_symmetric_between_0_and_1_and_1_on_its_diagonal(alpha):
    similarity = layer_similarity(torch.tensor(alpha, dtype=torch.float64))
    assert (similarity >= 0).all()
    assert (similarity <= 1).all()
    assert (similarity.diagonal() == 1).all()
    assert_close(similarity, similarity.T)


@given(rows, st.floats(0, 1))
def test_groups_hold_only_similar_layers_and_a_lower_threshold_only_joins(alpha, threshold):
    similarity = layer_similarity(torch.tensor(alpha, dtype=torch.float64))
    groups = torch.tensor(group_layers(similarity, threshold))
    together = groups[:, None] == groups
    assert (similarity[together] >= threshold - 1e-12).all()
    lower = torch.tensor(group_layers(similarity, threshold / 2))
    assert (lower[:, None] == lower)[together].all()
    first_seen = list(dict.fromkeys(groups.tolist()))
    assert first_seen == list(range(len(first_seen)))
    assert group_layers(similarity, 0) == [0] * len(alpha)


@given(rows, st.floats(0.05, 0.95))
def test_every_two_groups_that_stay_apart_have_a_pair_below_the_threshold(alpha, threshold):
    similarity = layer_similarity(torch.tensor(alpha, dtype=torch.float64))
    groups = torch.tensor(group_layers(similarity, threshold))
    for a in range(int(groups.max()) + 1):
        for b in range(a):
            assert similarity[groups == a][:, groups == b].min() < threshold


def test_the_dendrogram_by_hand():
    similarity = torch.tensor([[1, 0.9, 0.2], [0.9, 1, 0.6], [0.2, 0.6, 1]], dtype=torch.float64)
    assert groupings(similarity) == [(1.0, [0, 1, 2]), (0.9, [0, 0, 1]), (0.2, [0, 0, 0])]  # complete, so not 0.6
    assert group_layers(similarity, 0.5) == [0, 0, 1]
    assert groupings(torch.ones(1, 1)) == [(1.0, [0])]


def test_scale_and_sign_do_not_matter_to_similarity():
    alpha = torch.randn(6, 3, dtype=torch.float64)
    scaled = alpha * torch.tensor([1.0, -2, 0.5, -1e-6, 1e6, 3])[:, None]
    assert_close(layer_similarity(alpha), layer_similarity(scaled))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_of_equal_direction_group_at_threshold_1(dtype):
    direction = torch.randn(8, dtype=dtype)
    alpha = torch.stack([direction * scale for scale in (1, -1.5, 3e-4, 1 / 3)] + [torch.randn(8, dtype=dtype)])
    assert group_layers(layer_similarity(alpha), 1) == [0, 0, 0, 0, 1]


def test_a_row_of_zeros_is_similar_to_itself_alone_and_stops_no_gradient():
    alpha = torch.tensor([[0.0, 0], [1, 1], [0, 0], [1, 0]], dtype=torch.float64, requires_grad=True)
    similarity = layer_similarity(alpha)
    assert similarity[0].tolist() == [1, 0, 0, 0]
    assert group_layers(similarity, 1e-9)[:3] == [0, 1, 2]
    recurrence(alpha).backward()
    assert alpha.grad.isfinite().all()
    assert (alpha.grad[[0, 2]] == 0).all()
    ratios, b = reparameterize(alpha, torch.eye(2, dtype=torch.float64), [0, 0, 0, 0])
    assert ratios[[0, 2]].tolist() == [[0], [0]]  # joined with others it still computes zeros
    assert (ratios @ b)[[0, 2]].abs().sum() == 0
    assert reparameterize(torch.zeros(2, 3), torch.eye(3), [0, 0])[1].tolist() == [[0, 0, 0]]


@given(rows, st.floats(0, 1))
def test_reparameterize_has_one_entry_a_row_and_is_the_nearest_such_mixture(alpha, threshold):
    alpha = torch.tensor(alpha, dtype=torch.float64)
    groups = group_layers(layer_similarity(alpha), threshold)
    ratios, b = reparameterize(alpha, torch.eye(alpha.shape[1], dtype=torch.float64), groups)
    assert ratios.shape == (len(alpha), max(groups) + 1)
    assert ((ratios != 0).sum(1) <= 1).all()
    for g in range(max(groups) + 1):
        members = [layer for layer, group in enumerate(groups) if group == g]
        values = torch.linalg.svdvals(alpha[members])  # the best rank one leaves all but the first singular value
        left = (ratios[members] @ b - alpha[members]).square().sum()
        assert_close(left, values[1:].square().sum(), rtol=1e-6, atol=1e-12)


def test_the_regulariser_is_minus_the_similarities_and_its_descent_makes_one_loop():
    net = Relaxed(convolutions(), SoftSharing(templates=3))
    sharing = net.relaxations[0]
    (alpha,) = sharing.alpha.values()
    assert_close(net.penalty(), -recurrence(alpha))
    with torch.no_grad():
        alpha.copy_(torch.randn(4, 3))  # rows at an exact right angle have no gradient to leave it by
    optimizer = torch.optim.SGD(sharing.alpha.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        net.penalty().backward()
        optimizer.step()
    assert net.penalty().item() == pytest.approx(-16, abs=1e-3)
    assert group_layers(layer_similarity(alpha), 0.999) == [0, 0, 0, 0]


# -- the relaxation ---------------------------------------------------------------------------------------------------


def test_effective_weights_are_3_11_whatever_the_memory_layout():
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        net = Relaxed(convolutions().to(memory_format=layout), SoftSharing(templates=2))
        sharing = net.relaxations[0]
        ((group, names),) = sharing.groups.items()
        want = torch.einsum("lk,koihw->loihw", sharing.alpha[group], sharing.templates[group])
        for name, weight in zip(names, want, strict=True):
            got = net.weights()[name]
            assert_close(got, weight)
            assert got.is_contiguous(memory_format=layout)


def test_the_layout_changes_no_number_and_can_change_later():
    made = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        made.append(Relaxed(convolutions().to(memory_format=layout), SoftSharing(templates=2)))
    plain, last = made
    x = torch.randn(2, 3, 5, 5)
    assert_close(plain(x), last(x))
    want = plain(x)
    moved = plain.to(memory_format=torch.channels_last)
    weight = moved.weights()["0.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(moved(x), want)
    assert moved.double().relaxations[0].templates["3x3x3x3"].dtype == torch.float64


def test_parameters_are_counted_truly():
    net = convolutions(6)
    plain = count(net)
    relaxed = Relaxed(net, SoftSharing(templates=2))
    assert count(relaxed) == plain - 6 * 81 + 2 * 81 + 6 * 2
    assert not [name for name, _ in relaxed.named_parameters() if name.endswith("weight")]
    assert count(relaxed.harden()) == plain


def test_auto_groups_what_could_stand_in_for_each_other():
    net = nn.ModuleDict(
        {
            "first": nn.Conv2d(3, 8, 3),
            "a": nn.Conv2d(8, 8, 3, padding=1),
            "b": nn.Conv2d(8, 8, 3, padding=1),
            "strided": nn.Conv2d(8, 8, 3, padding=1, stride=2),
            "dilated1": nn.Conv2d(8, 8, 3, padding=2, dilation=2),
            "dilated2": nn.Conv2d(8, 8, 3, padding=2, dilation=2),
            "grouped": nn.Conv2d(16, 8, 3, padding=1, groups=2),
            "transposed": nn.ConvTranspose2d(8, 8, 3, padding=1),
            "pointwise1": nn.Conv2d(8, 8, 1),
            "pointwise2": nn.Conv2d(8, 8, 1),
        }
    )
    sharing = Relaxed(net, SoftSharing()).relaxations[0]
    assert sharing.groups == {"8x8x3x3": ("a.weight", "b.weight"), "8x8x3x3-2": ("dilated1.weight", "dilated2.weight")}
    assert sharing.alpha["8x8x3x3"].shape == (2, 2)  # by default a template a layer


def test_auto_finds_the_stages_of_a_wide_resnet_and_the_layers_of_a_transformer():
    sharing = Relaxed(wrn(28, 2), SoftSharing(templates=2)).relaxations[0]
    # auto also takes the first block's second convolution, which is of the same shape; the thesis leaves it out
    assert [len(names) for names in sharing.groups.values()] == [7, 7, 7]
    sharing = shared_encoder(layers=3, width=8, heads=2).relaxations[0]
    assert {group: len(names) for group, names in sharing.groups.items()} == {
        "24x8": 3, "8x8": 3, "32x8": 3, "8x32": 3,
    }  # fmt: skip


def test_attention_with_other_heads_is_another_layer():
    net = nn.ModuleList([nn.MultiheadAttention(8, heads) for heads in (2, 2, 4)])
    sharing = Relaxed(net, SoftSharing(where=lambda name, module, p: p.ndim > 1)).relaxations[0]
    assert sharing.groups["24x8"] == ("0.in_proj_weight", "1.in_proj_weight")


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_shared_transformer_runs_and_hardens(training):
    net = shared_encoder(layers=3, width=8, heads=2, templates=2, dropout=0).train(training)
    x = torch.randn(2, 5, 8)
    out = net(x)
    assert count(net) < count(encoder(3, 8, 2))
    assert_close(net.harden()(x), out)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_harden_gives_the_plain_network_with_the_mixtures():
    net = swrn(16, 1, 1)
    x = torch.randn(2, 3, 32, 32)
    plain = net.harden()
    assert type(plain) is type(net.net)
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in wrn(16, 1).named_parameters()}
    assert_close(plain(x), net(x))
    kernels = [plain.get_parameter(name) for name in net.relaxations[0].groups["stage1"]]
    assert_close(layer_similarity(torch.stack(kernels).flatten(1)), torch.ones(2, 2))  # one template: one direction


def test_a_mask_on_top_masks_each_layers_mixture():
    net = Relaxed(convolutions(), SoftSharing(templates=1), ContinuousMask())
    sharing, mask = net.relaxations
    assert mask.s.numel() == 4 * 81
    with torch.no_grad():
        mask.s[: 2 * 81] = -1.0  # the first two layers
    plain = net.harden()
    assert (plain[0].weight == 0).all()
    assert_close(
        plain[3].weight, (sharing.alpha["3x3x3x3"] @ sharing.templates["3x3x3x3"].flatten(1))[3].view(3, 3, 3, 3)
    )
    net(torch.randn(1, 3, 4, 4)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    groups = decay_groups(net, 5e-4)
    assert {id(p) for p in groups[1]["params"]} == {id(mask.s), *(id(a) for a in sharing.alpha.values())}


def test_decay_groups_spare_alpha_alone_and_miss_no_parameter():
    net = swrn(16, 1, 2)
    decayed, free = decay_groups(net, 5e-4)
    assert (decayed["weight_decay"], free["weight_decay"]) == (5e-4, 0.0)
    assert [id(p) for p in free["params"]] == [id(p) for p in net.relaxations[0].alpha.values()]
    assert len(decayed["params"]) + len(free["params"]) == len(list(net.parameters()))
    names = {id(p): name for name, p in net.named_parameters()}
    assert any("norm" in names[id(p)] for p in decayed["params"])
    assert any("templates" in names[id(p)] for p in decayed["params"])
    torch.optim.SGD([decayed, free], lr=0.1)


def test_state_travels_and_the_copy_is_trained():
    torch.manual_seed(1)
    net = swrn(16, 1, 2)
    sharing = net.relaxations[0]
    assert not sharing.trained()
    state = {key: value + 0.1 if "alpha" in key else value for key, value in net.state_dict().items()}
    torch.manual_seed(2)
    other = swrn(16, 1, 2)
    other.load_state_dict(state)
    assert other.relaxations[0].trained()
    assert "relaxations.0.alpha.stage1" in state
    assert copy.deepcopy(net)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_it_compiles_to_one_graph():
    net, graphs = path_scnn(5, 2, 4), []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    x = torch.randn(2, 2, 6, 6)
    got = torch.compile(net, backend=counting, fullgraph=True)(x)
    assert len(graphs) == 1
    assert_close(got, net(x))
    products = [node for node in graphs[0].graph.nodes if "matmul" in str(node.target)]
    assert len(products) == 1  # one a group, not one a layer


def test_vmap_runs_many_networks_at_once():
    nets = [Relaxed(convolutions(3), SoftSharing(templates=2)) for _ in range(3)]
    params, buffers = stack_module_state(nets)
    x = torch.randn(3, 2, 3, 5, 5)
    got = vmap(lambda p, b, x: functional_call(nets[0], (p, b), (x,)))(params, buffers, x)
    assert_close(got, torch.stack([net(x) for net, x in zip(nets, x, strict=True)]))


def test_it_learns():
    """Three layers of one template fit a target that three such layers made."""
    net = Relaxed(convolutions(3, 2), SoftSharing(templates=1))
    x = torch.randn(8, 2, 6, 6)
    target = Relaxed(convolutions(3, 2), SoftSharing(templates=1))(x).detach()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(F.mse_loss(net(x), target))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


# -- bad input --------------------------------------------------------------------------------------------------------

BAD = {
    "unequal shapes": (
        {"a": ["0.weight", "4.weight"]}, 2,
        r"group 'a' has unequal shapes: '0.weight' is \(3, 3, 3, 3\), '4.weight' is \(2, 3, 3, 3\); split the group",
    ),
    "no template": ({"a": ["0.weight", "1.weight"]}, 0, "group 'a' cannot have 0 templates; the least is 1"),
    "no template, auto": ("auto", 0, "group '3x3x3x3' cannot have 0 templates"),
    "twice in a group": ({"a": ["0.weight", "0.weight"]}, 2, "'0.weight' is named twice, in group 'a' and in 'a'"),
    "twice": ({"a": ["0.weight"], "b": ["1.weight", "0.weight"]}, 2, "named twice, in group 'a' and in 'b'"),
    "unknown": ({"a": ["0.wieght"]}, 2, "group 'a': Sequential has no parameter named '0.wieght'"),
    "a dot": ({"a.b": ["0.weight"]}, 2, "'a.b' cannot name a group: no dot"),
    "a method": ({"keys": ["0.weight"]}, 2, "'keys' cannot name a group"),
    "a bias": ({"a": ["0.bias", "1.bias"]}, 2, "only weights of two or more dimensions share"),
    "no group": ({}, 2, "groups is empty"),
    "an empty group": ({"a": []}, 2, "group 'a' is empty"),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "k", "message"), BAD.values(), ids=list(BAD))
def test_bad_groups_are_one_clear_line(groups, k, message):
    net = nn.Sequential(*convolutions(), nn.Conv2d(3, 2, 3))
    with pytest.raises(ValueError, match=message) as error:
        Relaxed(net, SoftSharing(groups, k))
    assert "\n" not in str(error.value)
    assert net[0].weight.shape == (3, 3, 3, 3)  # the network is as it was


def test_nothing_to_share_is_said():
    with pytest.raises(ValueError, match="no two of the 1 selected weights of Conv2d are alike in shape, dtype and"):
        Relaxed(nn.Conv2d(3, 3, 3), SoftSharing())
    with pytest.raises(ValueError, match='groups is "auto" or a dict'):
        SoftSharing("stages")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_similarity(threshold):
    with pytest.raises(ValueError, match=r"threshold is a similarity between 0 and 1, not"):
        group_layers(torch.eye(3), threshold)


def test_similarities_are_square_and_finite():
    with pytest.raises(ValueError, match=r"a similarity matrix is \(L, L\), not \(3, 2\)"):
        groupings(torch.ones(3, 2))
    with pytest.raises(ValueError, match="not finite"):
        groupings(layer_similarity(torch.full((2, 2), float("nan"))))


def test_reparameterize_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"not \(5, 4\), \(3, 3\) and 5"):
        reparameterize(torch.ones(5, 4), torch.eye(3), [0, 1, 0, 1, 2])
    with pytest.raises(ValueError, match="numbered 0 to n - 1 without gaps"):
        reparameterize(torch.ones(5, 4), torch.eye(4), [0, 1, 0, 1, 3])
