"""Folding: what equal layers compute stays, each layer is held once, the program says what runs, bad
input is one line.
"""

import copy
import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lab.models import path_scnn, shared_encoder, swrn, swrn50_2
from principled import (
    ContinuousMask,
    Folded,
    Program,
    Relaxed,
    SoftSharing,
    fold,
    group_layers,
    layer_similarity,
    reparameterize,
)
from principled.folding import Loop, Step


def count(net):
    return sum(p.numel() for p in net.parameters())


def chain(layers=6, channels=3, templates=None):
    """Linear layers with biases and a nonlinearity: sign and scale of each weight matter."""
    modules = (m for _ in range(layers) for m in (nn.Linear(channels, channels), nn.Tanh()))
    net = nn.Sequential(*modules)
    names = [f"{2 * layer}.weight" for layer in range(layers)]
    return Relaxed(net, SoftSharing({"all": names}, templates))


def make_parallel(net, pattern):
    """Row l of each group's alpha becomes a multiple (negative ones too) of the row that first has its number."""
    scales = (1.0, -1.5, 2.0, 0.25, -0.7, 3.0, -1.0)
    with torch.no_grad():
        for alpha in net.relaxations[0].alpha.values():
            directions = torch.randn(max(pattern) + 1, alpha.shape[1], dtype=alpha.dtype)
            directions /= directions.norm(dim=1, keepdim=True)  # as long as a trained one
            for layer in range(len(alpha)):
                alpha[layer] = directions[pattern[layer % len(pattern)]] * scales[layer % len(scales)]
    return net


def settle(net, x):
    """Estimate BatchNorm's statistics."""
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(x)
    return net.eval()


# -- what a fold keeps ------------------------------------------------------------------------------------------------


# float32's own rounding over 40 layers of logits as large as 5 is 4e-6, so the deep network is compared in float64
@pytest.mark.parametrize(("depth", "dtype", "tolerance"), [(28, torch.float32, 1e-6), (40, torch.float64, 1e-12)])
def test_a_wide_resnet_with_parallel_coefficients_folds_without_loss(depth, dtype, tolerance):
    net = make_parallel(swrn(depth, 1, 4).to(dtype), pattern=(0, 1))
    x = torch.randn(16, 3, 32, 32, dtype=dtype)
    settle(net, x)
    folded = fold(net, 1.0)
    assert not folded.training
    with torch.no_grad():
        want, got = net(x), folded(x)
    assert want.abs().max() > 0.1
    assert_close(got, want, rtol=0, atol=tolerance)
    layers = (depth - 10) // 3
    saved = (layers - 2) * sum(channels * channels * 9 for channels in (16, 32, 64))  # two layers a stage are left
    assert count(folded) == count(net.harden()) - saved
    assert len(folded.program.layers) == len(folded.program.steps) - 3 * (layers - 2)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_each_execution_keeps_its_own_normalisation_and_statistics(training):
    net = make_parallel(path_scnn(7, 3, 4), pattern=(0,))
    x = torch.randn(3, 2, 8, 8)
    settle(net, x)
    net.train(training)
    folded = fold(net, 1.0)
    with torch.no_grad():
        for norm in (m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.copy_(torch.rand_like(norm.weight) + 0.5)
        for plain, its in zip(net.net.layers, folded.net.layers, strict=True):
            plain.norm.weight.copy_(its.norm.weight)
        assert_close(folded(x), net(x))
    assert_close(folded.net.layers[3].norm.running_mean, net.net.layers[3].norm.running_mean)


def test_sign_scale_and_bias_are_carried():
    net = make_parallel(chain().double(), pattern=(0, 1))
    x = torch.randn(5, 3, dtype=torch.float64)
    folded = fold(net, 1.0)
    assert_close(folded(x), net(x), rtol=0, atol=1e-14)
    assert [step.ratio for step in folded.program.steps] == pytest.approx([1, 1, 2, -1 / 6, -0.7, -2])
    assert [step.layer for step in folded.program.steps] == ["0.weight", "2.weight"] * 3
    assert count(folded) == 2 * 9 + 6 * 3  # two matrices; every execution has its own bias


def test_gradients_of_all_executions_add_up():
    net = make_parallel(chain(3, 2).double(), pattern=(0,))
    folded, x = fold(net, 1.0), torch.randn(4, 2, dtype=torch.float64)
    folded(x).square().sum().backward()
    unfolded = net.harden()
    unfolded(x).square().sum().backward()
    want = sum(step.ratio * unfolded.get_parameter(step.name).grad for step in folded.program.steps)
    assert_close(folded.net[0].weight.grad, want)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=7), st.floats(0, 1))
def test_a_fold_executes_proposition_3_1s_weights(pattern, threshold):
    torch.manual_seed(len(pattern))
    net = make_parallel(chain(len(pattern), 2, 4).double(), pattern)
    sharing = net.relaxations[0]
    groups = group_layers(layer_similarity(sharing.alpha["all"]), threshold)
    folded = fold(net, threshold)
    unfolded = net.harden()
    ratios, templates = reparameterize(sharing.alpha["all"], sharing.templates["all"], groups)
    with torch.no_grad():
        for name, weight in zip(sharing.groups["all"], torch.tensordot(ratios, templates, 1), strict=True):
            unfolded.get_parameter(name).copy_(weight)
    x = torch.randn(3, 2, dtype=torch.float64)
    assert_close(folded(x), unfolded(x))
    assert len(folded.program.layers) == max(groups) + 1
    assert count(folded) == (max(groups) + 1) * 4 + len(pattern) * 2


def test_a_layer_that_joins_no_other_keeps_its_weight_to_the_bit():
    net = make_parallel(chain(4), pattern=(0, 1, 0, 2))
    folded, plain = fold(net, 1.0), net.harden()
    assert torch.equal(folded.net[2].weight, plain[2].weight)
    assert torch.equal(folded.net[6].weight, plain[6].weight)


def test_zero_rows_stay_apart_until_all_become_one_and_then_still_compute_zero():
    net = make_parallel(chain(4).double(), pattern=(0, 1, 0, 2))
    with torch.no_grad():
        net.relaxations[0].alpha["all"][1] = 0
    x = torch.randn(3, 3, dtype=torch.float64)
    assert_close(fold(net, 1.0)(x), net(x))
    one = fold(net, 0.0)
    assert one.program.order == (0, 0, 0, 0)
    assert one.program.steps[1].ratio == 0
    with torch.no_grad():  # the first execution may be the layer of zeros as well
        net.relaxations[0].alpha["all"][0] = 0
    assert fold(net, 0.0).program.steps[0].ratio == 0


def test_the_layer_is_called_after_its_first_execution_in_the_network_however_rows_are_ordered():
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    relaxed = make_parallel(
        Relaxed(net, SoftSharing({"all": ["2.weight", "0.weight", "1.weight"]})), (0, 1, 0)
    ).double()
    folded, x = fold(relaxed, 1.0), torch.randn(3, 2, dtype=torch.float64)
    assert [step.layer for step in folded.program.steps] == ["0.weight", "1.weight", "1.weight"]
    assert_close(folded(x), relaxed(x))


def test_the_relaxed_network_is_left_as_it_is():
    net = make_parallel(chain(), pattern=(0,))
    before = copy.deepcopy(net.state_dict())
    folded = fold(net, 1.0)
    with torch.no_grad():
        folded.net[0].weight.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


# -- any network ------------------------------------------------------------------------------------------------------


def test_attention_folds_too():
    net = make_parallel(shared_encoder(3, 8, 2, templates=2, dropout=0).double(), pattern=(0, 1, 0)).eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    folded = fold(net, 1.0)
    assert_close(folded(x), net(x))
    per_layer = 24 * 8 + 8 * 8 + 2 * 32 * 8
    assert count(folded) == count(net.harden()) - per_layer
    assert folded.program.order[:4] == (0, 1, 2, 3)
    assert folded.program.order[8:] == (0, 1, 2, 3)


def test_a_loop_over_several_groups_is_one_loop():
    with torch.device("meta"):
        names = [name for group in swrn50_2(10).relaxations[0].groups.values() for name in group]
    assert len(names) == 36  # the twelve blocks that share, three convolutions each
    steps = [
        Step(f"{b}.{c}", f"1.{c}" if b else f"0.{c}", 1.0, c) for b in range(6) for c in ("reduce", "keep", "increase")
    ]
    program = Program(tuple(steps))
    assert program.loops == (Loop(3, 3, 5),)
    assert str(program) == "0 1 2 (3 4 5)x5"


def test_a_tied_weight_folds_under_all_its_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(2, 2, bias=False) for _ in range(3))
            self.c.weight = self.b.weight

        def forward(self, x):
            return self.c(self.b(self.a(x).tanh()).tanh())

    net = make_parallel(Relaxed(Tied(), SoftSharing({"all": ["a.weight", "b.weight"]})).double(), pattern=(0,))
    folded, x = fold(net, 1.0), torch.randn(3, 2, dtype=torch.float64)
    assert_close(folded(x), net(x))
    assert count(folded) == 4


# -- a folded network is an ordinary one ------------------------------------------------------------------------------


def test_its_state_has_each_layer_once_and_loads_into_a_network_made_from_the_program():
    net = make_parallel(path_scnn(8, 2, 4), pattern=(0, 1))
    x = torch.randn(2, 2, 6, 6)
    folded = settle(fold(net, 1.0), x)
    kernels = [key for key in folded.state_dict() if key.endswith("conv.weight")]
    assert kernels == ["net.layers.0.conv.weight", "net.layers.1.conv.weight"]
    written = json.dumps([step._asdict() for step in folded.program.steps])
    again = Folded(path_scnn(8, 2, 4).harden(), Program(tuple(Step(**step) for step in json.loads(written)))).eval()
    again.load_state_dict(folded.state_dict())
    assert torch.equal(again(x), folded(x))
    assert torch.equal(copy.deepcopy(folded)(x), folded(x))
    assert folded.double()(x.double()).dtype == torch.float64


def test_it_trains_on_and_its_layers_stay_one():
    folded = fold(make_parallel(chain(), pattern=(0, 1)), 1.0)
    x, target = torch.randn(32, 3), torch.rand(32, 3) - 0.5
    optimizer = torch.optim.Adam(folded.parameters(), lr=0.05)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        losses.append((folded(x) - target).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]
    assert len([p for p in folded.parameters() if p.ndim == 2]) == 2


def test_it_compiles_to_one_graph():
    folded, graphs = fold(make_parallel(chain(), pattern=(0, 1)), 1.0), []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    x = torch.randn(2, 3)
    assert_close(torch.compile(folded, backend=counting, fullgraph=True)(x), folded(x))
    assert len(graphs) == 1


def test_a_mask_on_a_folded_layer_masks_every_execution():
    folded = fold(make_parallel(path_scnn(6, 2, 4), pattern=(0, 1)), 1.0)
    masked = Relaxed(folded, ContinuousMask())
    mask = masked.relaxations[0]
    assert mask.names == ("net.layers.0.conv.weight", "net.layers.1.conv.weight")
    with torch.no_grad():
        mask.s.fill_(-1.0)
        masked.anneal(1.0, 200.0)
    hard = masked.harden()
    assert hard.net.layers[0].conv.weight.abs().sum() == 0
    x = torch.randn(2, 2, 6, 6)
    assert_close(hard(x), masked(x))
    with torch.no_grad():
        folded.net.layers[0].conv.weight.zero_()
        folded.net.layers[1].conv.weight.zero_()
    assert_close(folded(x), hard(x))


# -- the program ------------------------------------------------------------------------------------------------------


def program(order):
    names = {}
    steps = [Step(f"{i}", names.setdefault(layer, f"{i}"), 1.0, "all") for i, layer in enumerate(order)]
    return Program(tuple(steps))


def test_figure_3_6s_second_stage():
    """Layers 3 and 4 in a loop (red), then back to layer 1 and on to layer 4 (green); two own layers come first."""
    stage = program([0, 1, 2, 3, 4, 5, 4, 5, 2, 3, 4, 5])
    assert stage.order == (0, 1, 2, 3, 4, 5, 4, 5, 2, 3, 4, 5)
    assert stage.jumps == ((6, 5, 4), (8, 5, 2))
    assert stage.loops == (Loop(start=4, length=2, times=2),)
    assert str(stage) == "0 1 2 3 (4 5)x2 2 3 4 5"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_loops_are_repetitions_and_jumps_go_back(order):
    made = program(order)
    assert len(made.layers) == len(set(order))
    end = 0
    for loop in made.loops:
        assert loop.start >= end
        assert loop.times > 1
        end = loop.start + loop.length * loop.times
        body = made.order[loop.start : loop.start + loop.length]
        assert made.order[loop.start : end] == body * loop.times
        assert made.order[end : end + loop.length] != body
    unrolled, text = [], str(made)
    for body, times, single in re.findall(r"\(([\d ]+)\)x(\d+)|(\d+)", text):
        unrolled += [int(i) for i in body.split()] * int(times) if body else [int(single)]
    assert tuple(unrolled) == made.order  # what is printed is what runs
    assert all(made.order[i] == to and made.order[i - 1] == of and to <= of for i, of, to in made.jumps)
    assert len(made.jumps) == sum(b <= a for a, b in zip(made.order, made.order[1:], strict=False))


# -- a target instead of a threshold ----------------------------------------------------------------------------------


def graded():
    """Two groups of four layers; within a group similarity falls from layer to layer, in the second faster."""
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(8)))
    relaxed = Relaxed(
        net, SoftSharing({"a": [f"{i}.weight" for i in range(4)], "b": [f"{i}.weight" for i in range(4, 8)]}, 2)
    )
    with torch.no_grad():
        for alpha, step in zip(relaxed.relaxations[0].alpha.values(), (0.1, 0.2), strict=True):
            angles = torch.tensor([0.0, 1.0, 2.5, 4.5]) * step
            alpha.copy_(torch.stack([angles.cos(), angles.sin()], 1))
    return relaxed


def test_a_number_of_parameters_is_reached_with_the_fewest_merges_the_most_similar_first():
    net = graded()
    full = count(net.harden())
    assert count(fold(net, parameters=full)) == full
    folded = fold(net, parameters=full - 4 * 2 - 1)  # a merge saves 4: three are needed
    assert count(folded) == full - 12
    # cosines of the angles between neighbours: a 0.1 0.15 0.2, b 0.2 0.3 0.4
    assert folded.program.order == (0, 0, 1, 1, 2, 2, 3, 4)
    assert count(fold(net, parameters=full - 24)) == full - 24
    with pytest.raises(ValueError, match=r"no fold has 10 parameters or fewer: with one layer a group 24 are left"):
        fold(net, parameters=10)


def test_an_error_is_kept_and_a_group_that_costs_too_much_does_not_stop_the_other():
    net = graded()
    seen = []

    def evaluate(folded):  # pretend that only group b can bear it
        seen.append(folded)
        return 0.5 if len(set(folded.program.order[:4])) < 3 else 0.1

    folded = fold(net, error=0.2, evaluate=evaluate)
    assert len(set(folded.program.order[:4])) == 3
    assert len(set(folded.program.order[4:])) == 1
    assert evaluate(folded) <= 0.2
    assert len(seen) <= 1 + 6 + 1
    with pytest.raises(ValueError, match=r"no fold has an error of 0\.05 or less: unfolded, the network's is 0\.1"):
        fold(net, error=0.05, evaluate=evaluate)


def test_a_threshold_may_be_given_a_group():
    folded = fold(graded(), {"b": 0.0})
    assert folded.program.order == (0, 1, 2, 3, 4, 4, 4, 4)
    with pytest.raises(ValueError, match="there is no group 'c'; there are a, b"):
        fold(graded(), {"c": 0.5})


# -- bad input --------------------------------------------------------------------------------------------------------


def one_line(match):
    """The pattern of an error of one line that holds ``match``."""
    return "^[^\n]*" + match + "[^\n]*$"


@pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan")])
def test_a_threshold_outside_0_to_1(threshold):
    with pytest.raises(ValueError, match=one_line("threshold is a similarity between 0 and 1")):
        fold(graded(), threshold)


def test_an_untrained_network():
    with pytest.raises(
        ValueError, match=one_line("this network was not trained: its coefficients are those it started with")
    ):
        fold(chain(), 0.5)


def test_a_hardened_or_a_plain_network():
    with pytest.raises(
        ValueError,
        match=one_line(
            r"Sequential has no coefficients to fold by: fold Relaxed\(net, SoftSharing\(...\)\), before harden"
        ),
    ):
        fold(graded().harden(), 0.5)
    with pytest.raises(ValueError, match=one_line("Relaxed has no coefficients")):
        fold(Relaxed(nn.Linear(2, 2), ContinuousMask(where=nn.Linear)), 0.5)


def test_a_folded_network():
    with pytest.raises(ValueError, match=one_line("this network is folded already")):
        fold(fold(graded(), 0.5), 0.5)


def test_a_mask_on_shared_layers():
    net = Relaxed(path_scnn(5, 2, 2).harden(), SoftSharing(templates=2), ContinuousMask())
    with pytest.raises(
        ValueError,
        match=one_line(r"ContinuousMask acts on shared weights, .* fold first, then Relaxed\(folded, ContinuousMask"),
    ):
        fold(make_parallel(net, (0,)), 0.5)


def test_a_mask_elsewhere_is_hardened_into_the_fold():
    base = make_parallel(path_scnn(5, 2, 2), (0,))
    net = Relaxed(base.harden(), SoftSharing(templates=2), ContinuousMask(s_init=-1.0, where=["last.weight"]))
    folded = fold(make_parallel(net, (0,)), 1.0)
    assert folded.net.last.weight.abs().sum() == 0
    assert len(folded.program.layers) == 3


def test_no_target_or_two():
    with pytest.raises(ValueError, match=one_line("fold takes one of threshold, parameters and error")):
        fold(graded())
    with pytest.raises(ValueError, match=one_line("fold takes one of threshold, parameters and error")):
        fold(graded(), 0.5, parameters=10)
    with pytest.raises(ValueError, match=one_line("needs evaluate=")):
        fold(graded(), error=0.1)


def test_a_network_without_numbers():
    with torch.device("meta"):
        net = chain()
    with pytest.raises(ValueError, match=one_line("meta device")):
        fold(net, 0.5)
