"""Relaxed: any network, any relaxation, several at once, and no trace left by harden()."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lab.models import ResNet
from principled import ContinuousMask, KeepZeros, Relaxation, Relaxed
from principled.relax import select
from principled.reweighted import owned_parameters


class Scaled(Relaxation):
    """Effective weight = scale * weight: the smallest relaxation with a variable and a penalty."""

    def __init__(self, scale=3.0, where=nn.Linear):
        super().__init__()
        self.where, self.scale = where, nn.Parameter(torch.tensor(scale))

    def bind(self, net, weights):
        self.names = tuple(select(net, self.where))

    def forward(self, weights):
        return {name: weights[name] * self.scale for name in self.names}

    def penalty(self):
        return self.scale**2


class OneForAll(Relaxation):
    """All selected weights, of one shape, become one free template: a relaxation that replaces."""

    replaces = True

    def __init__(self, where):
        super().__init__()
        self.where = where

    def bind(self, net, weights):
        self.names = tuple(select(net, self.where))
        self.template = nn.Parameter(weights[self.names[0]].clone())

    def forward(self, weights):
        return {name: 1 * self.template for name in self.names}


class TiedModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.decode = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, tokens):
        return self.decode(self.embed(tokens))


def mlp(width=3, depth=3):
    return nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())))


def count(net):
    return sum(p.numel() for p in net.parameters())


def masked(net, where, inputs, s_init=0.0):
    """Outputs of the relaxed network (mask 1/2), and of a copy whose selected weights were halved by hand."""
    relaxed = Relaxed(net, ContinuousMask(s_init, where))
    by_hand = copy.deepcopy(net)
    with torch.no_grad():
        for name in relaxed.relaxations[0].names:
            by_hand.get_parameter(name).mul_(0.5)
    return relaxed, relaxed(*inputs), by_hand(*inputs)


# -- any layer type ---------------------------------------------------------------------------------------------------

LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), lambda: (torch.randn(2, 4),)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3), lambda: (torch.randn(2, 2, 8),)),
    "conv2d-grouped": (lambda: nn.Conv2d(4, 4, 3, groups=2), lambda: (torch.randn(2, 4, 6, 6),)),
    "conv-transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2), lambda: (torch.randn(2, 2, 4, 4),)),
    "embedding": (lambda: nn.Embedding(5, 3), lambda: (torch.tensor([[0, 4], [2, 2]]),)),
    "lstm": (lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True), lambda: (torch.randn(5, 2, 4),)),
    "gru": (lambda: nn.GRU(4, 3), lambda: (torch.randn(5, 2, 4),)),
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), lambda: (torch.randn(2, 3, 8),) * 3),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        lambda: (torch.randn(2, 3, 8),),
    ),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("layer", LAYERS)
def test_any_layer_runs_on_effective_weights_and_hardens(layer, mode):
    make, draw = LAYERS[layer]
    net, inputs = make().train(mode == "train"), draw()
    with torch.set_grad_enabled(mode == "train"):
        relaxed, got, want = masked(net, lambda name, module, p: p.ndim > 1, inputs)
        hard = relaxed.harden()(*inputs)  # s = 0 is kept: the plain network again
        plain = net(*inputs)
    first = (lambda out: out[0]) if isinstance(got, tuple) else (lambda out: out)
    assert_close(first(got), first(want))
    assert_close(first(hard), first(plain))
    if mode == "train":
        first(got).square().sum().backward()
        assert relaxed.relaxations[0].s.grad.abs().sum() > 0


# -- where ------------------------------------------------------------------------------------------------------------


def test_where_takes_a_type_types_names_one_name_or_a_predicate():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    assert list(select(net, nn.Conv2d)) == ["0.weight", "1.weight"]
    assert list(select(net, (nn.Linear, nn.Conv2d))) == ["0.weight", "1.weight", "3.weight"]
    assert list(select(net, ["3.bias", "0.weight"])) == ["0.weight", "3.bias"]  # the network's order
    assert list(select(net, "3.weight")) == ["3.weight"]
    assert list(select(net, lambda name, module, p: p.ndim == 1)) == ["0.bias", "1.bias", "3.bias"]
    assert ContinuousMask().where("0.weight", net[0], net[0].weight)
    assert not ContinuousMask().where("1.weight", net[1], net[1].weight)  # 1x1
    assert not ContinuousMask().where("3.weight", net[3], net[3].weight)  # linear


def test_where_says_what_it_did_not_find():
    with pytest.raises(ValueError, match="Linear has no parameter named 'wieght'"):
        select(nn.Linear(2, 2), ["wieght"])
    with pytest.raises(
        ValueError, match=r"the default of `where`, .* selects no weight; they lie in Linear 100\.0%: .*=Linear"
    ):
        Relaxed(mlp(), ContinuousMask())
    net = nn.Sequential(nn.Conv1d(4, 4, 3), nn.LSTM(4, 4), nn.BatchNorm1d(4))  # 48 weights and 128
    says = r"where=\(Conv2d, Linear\) selects no weight; they lie in LSTM 72\.7%, Conv1d 27\.3%: .* where=LSTM$"
    with pytest.raises(ValueError, match=says):  # what was passed is not proposed
        select(net, (nn.Conv2d, nn.Linear))
    with pytest.raises(ValueError, match=r"where=<lambda> selects no weight; .*: pass for instance where=LSTM"):
        select(net, lambda name, module, p: False)
    with pytest.raises(ValueError, match=r"where=\(BatchNorm1d\) .* there is no other parameter of two or more dim"):
        select(net[2], nn.BatchNorm1d)


def test_next_to_nothing_is_a_warning_that_names_the_other_layers():
    net = nn.ModuleDict({"rnn": nn.LSTM(32, 32), "head": nn.Linear(32, 2)})
    with pytest.warns(
        UserWarning, match=r"where=\(Linear\) selects 0\.8% of the weights; they lie in LSTM 99\.2%, Linear 0\.8%"
    ):
        Relaxed(net, ContinuousMask(where=nn.Linear))
    for deliberate in (["head.weight"], lambda name, module, p: name == "head.weight", (nn.Linear, nn.LSTM)):
        with warnings.catch_warnings(action="error"):
            select(net, deliberate)


def test_a_parameter_has_one_name_and_one_owner():
    names = [name for name, _, _ in owned_parameters(TiedModel())]
    assert names == ["embed.weight"]
    assert [name for name, _, _ in owned_parameters(nn.Linear(2, 2))] == ["weight", "bias"]


# -- construction -----------------------------------------------------------------------------------------------------


def test_relaxed_wants_a_relaxation_and_a_fresh_one():
    with pytest.raises(ValueError, match="at least one relaxation"):
        Relaxed(mlp())
    mask = ContinuousMask(where=nn.Linear)
    Relaxed(mlp(), mask)
    with pytest.raises(RuntimeError, match="ContinuousMask is bound to a network already"):
        Relaxed(mlp(), mask)


def test_a_relaxation_without_its_methods_says_which_one_is_missing():
    with pytest.raises(TypeError, match="Relaxation does not say how to bind"):
        Relaxed(mlp(), Relaxation())
    with pytest.raises(TypeError, match="Relaxation does not say how forward"):
        Relaxation().forward({})
    assert Relaxation().penalty() == 0


# -- stacks -----------------------------------------------------------------------------------------------------------


def test_relaxations_apply_in_order_and_penalties_add():
    net = nn.Linear(2, 2, bias=False)
    relaxed = Relaxed(net, ContinuousMask(where=nn.Linear), Scaled())
    assert_close(relaxed.weights()["weight"], net.weight * 0.5 * 3)
    assert_close(relaxed.penalty(), torch.tensor(4 * 0.5 + 9))
    assert_close(relaxed.harden().weight, net.weight * 1 * 3)


def test_zeros_below_are_kept_above():
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight[0, 0] = 0
    relaxed = Relaxed(net, KeepZeros(nn.Linear), ContinuousMask(-1.0, nn.Linear))
    assert relaxed.weights()["weight"][0, 0] == 0
    assert (relaxed.harden().weight == 0).all()


def test_what_replaces_weights_is_counted_truly_and_hardens_to_a_plain_network():
    net = mlp(width=3, depth=4)
    like = copy.deepcopy(net)
    shared = Relaxed(net, OneForAll(nn.Linear))
    assert count(shared) == 3 * 3 + 4 * 3  # one template, four biases
    assert not any(key.endswith("weight") for key in shared.state_dict())
    x = torch.randn(5, 3)
    hard = shared.harden()
    assert type(hard) is nn.Sequential
    assert {k: v.shape for k, v in hard.state_dict().items()} == {k: v.shape for k, v in like.state_dict().items()}
    assert not list(hard.buffers())
    assert_close(hard(x), shared(x))
    assert count(hard) == count(like)
    shared(x).sum().backward()
    assert shared.relaxations[0].template.grad is not None


def test_a_mask_stacks_on_what_replaces_weights():
    net = mlp(depth=2)
    both = Relaxed(net, OneForAll(nn.Linear), ContinuousMask(where=nn.Linear))
    template = both.relaxations[0].template
    assert_close(both.weights()["2.weight"], template / 2)
    assert both.relaxations[1].s.numel() == 2 * 9
    with torch.no_grad():
        both.relaxations[1].s[:9] = -1
    hard = both.harden()
    assert (hard[0].weight == 0).all()
    assert_close(hard[2].weight, template)


def test_replacing_an_lstms_weights_reaches_its_flat_weights():
    net = nn.LSTM(3, 3)
    relaxed = Relaxed(net, OneForAll(nn.LSTM))
    x = torch.randn(4, 1, 3)
    hard = relaxed.harden()
    assert_close(hard(x)[0], relaxed(x)[0])
    assert torch.equal(hard.weight_ih_l0, hard.weight_hh_l0)
    assert {n for n, _ in hard.named_parameters()} == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}


def test_tied_weights_are_relaxed_once_and_stay_tied():
    net, tokens = TiedModel(), torch.tensor([1, 2])
    plain = net(tokens)
    relaxed = Relaxed(net, ContinuousMask(where=nn.Embedding))
    assert relaxed.relaxations[0].s.numel() == 20
    assert_close(relaxed(tokens), plain / 4)  # half the weight, used twice
    hard = relaxed.harden()
    assert hard.embed.weight is hard.decode.weight


def test_tied_weights_are_replaced_under_every_name():
    relaxed, tokens = Relaxed(TiedModel(), OneForAll(nn.Embedding)), torch.tensor([1, 2])
    assert count(relaxed) == 20
    with torch.no_grad():
        relaxed.relaxations[0].template.fill_(1.0)
    assert_close(relaxed(tokens), torch.full((2, 5), 4.0))
    relaxed.double().float()  # conversions give each buffer a tensor of its own
    assert_close(relaxed(tokens), torch.full((2, 5), 4.0))
    hard = relaxed.harden()
    assert hard.embed.weight is hard.decode.weight
    assert_close(hard(tokens), relaxed(tokens))


# -- harden -----------------------------------------------------------------------------------------------------------


def test_harden_leaves_the_relaxed_network_alone_and_keeps_buffers():
    relaxed = Relaxed(ResNet(1), ContinuousMask(-0.1))
    images = torch.randn(4, 3, 32, 32)
    relaxed(images)  # moves BatchNorm's statistics
    before = copy.deepcopy(relaxed.state_dict())
    hard = relaxed.harden()
    assert type(hard) is ResNet
    assert_close(hard.norm.running_mean, relaxed.net.norm.running_mean)
    assert (hard.conv.weight == 0).all()
    with torch.no_grad():
        hard.linear.weight.zero_()
    assert all(torch.equal(before[k], v) for k, v in relaxed.state_dict().items())
    assert all(p.requires_grad and p.is_leaf for p in hard.parameters())


def test_a_double_harden_is_a_harden():
    relaxed = Relaxed(mlp(), ContinuousMask(where=nn.Linear))
    with torch.no_grad():
        relaxed.relaxations[0].s.normal_()
    once = relaxed.harden()
    twice = Relaxed(once, KeepZeros(nn.Linear)).harden()
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))


# -- an ordinary module -----------------------------------------------------------------------------------------------


def drawn(seed, network=mlp, where=nn.Linear):
    torch.manual_seed(seed)
    relaxed = Relaxed(network(), ContinuousMask(where=where))
    with torch.no_grad():
        relaxed.relaxations[0].s.normal_()
    relaxed.anneal(0.1 * seed, 200.0)
    return relaxed


def test_dtype_and_device_move_with_the_module():
    relaxed = Relaxed(mlp().double(), ContinuousMask(where=nn.Linear))
    assert relaxed.relaxations[0].s.dtype == relaxed.relaxations[0].beta.dtype == torch.float64
    relaxed.to(torch.float32)
    assert relaxed(torch.randn(1, 3)).dtype == torch.float32
    with torch.device("meta"):
        on_meta = Relaxed(mlp(), ContinuousMask(where=nn.Linear))
    assert on_meta(torch.empty(2, 3, device="meta")).shape == (2, 3)


def test_effective_kernels_keep_the_networks_memory_layout():
    net = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)
    for relaxation in (ContinuousMask(), KeepZeros()):
        effective = Relaxed(copy.deepcopy(net), relaxation).weights()["weight"]
        assert effective.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("network", "where", "shape"), [(mlp, nn.Linear, (5, 3)), (lambda: ResNet(1), None, (2, 3, 8, 8))]
)
def test_vmap_over_stacked_states_equals_one_by_one(network, where, shape):
    nets = [drawn(seed, network, where).eval() for seed in (1, 2, 3)]
    x = torch.randn(shape)
    parameters, buffers = stack_module_state(nets)
    base = copy.deepcopy(nets[0]).to("meta")
    together = vmap(lambda p, b: functional_call(base, (p, b), (x,)))(parameters, buffers)
    assert_close(together, torch.stack([net(x) for net in nets]))
    gradients = vmap(torch.func.grad(lambda p, b: functional_call(base, (p, b), (x,)).square().sum()))(
        parameters, buffers
    )
    for i, net in enumerate(nets):
        net(x).square().sum().backward()
        assert_close(gradients["relaxations.0.s"][i], net.relaxations[0].s.grad)


def compiled(net):
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return torch.compile(net, backend=counting, fullgraph=True), graphs


def test_one_graph_and_no_recompilation_while_the_temperature_rises():
    relaxed = Relaxed(ResNet(1), ContinuousMask(-0.05), Scaled(1.5))
    fast, graphs = compiled(relaxed)
    x = torch.randn(2, 3, 8, 8)
    for progress in (0.0, 0.5, 1.0):
        relaxed.anneal(progress, 200.0)
        relaxed.eval()
        assert_close(fast(x), relaxed(x))
    assert len(graphs) == 1


@pytest.mark.slow
def test_compiled_code_computes_the_same_loss_and_gradients():
    torch._dynamo.reset()
    relaxed = drawn(3)
    x = torch.randn(6, 3)

    def loss(x):
        return relaxed(x).square().mean() + 1e-3 * relaxed.penalty()

    want = loss(x)
    want.backward()
    gradient = relaxed.relaxations[0].s.grad.clone()
    relaxed.zero_grad()
    try:
        got = torch.compile(loss, fullgraph=True)(x)
    except Exception as e:
        if "compiler" in str(e).lower() and "C++" in str(e):
            pytest.skip("torch.compile finds no C++ compiler on this machine: install g++ to run this test")
        raise
    got.backward()
    assert_close(got, want)
    assert_close(relaxed.relaxations[0].s.grad, gradient)


def test_what_is_printed_says_how_much_is_relaxed():
    net = ResNet(1)
    masked = sum(p.numel() for p in select(net, ContinuousMask().where).values())
    every = sum(p.numel() for p in net.parameters())
    printed = str(Relaxed(net, ContinuousMask(), Scaled()))
    assert f"ContinuousMask on {masked:,} of {every:,} weights, in 7 tensors" in printed
    assert f"Scaled on 640 of {every:,} weights, in 1 tensors" in printed


class Checkpointed(nn.Module):
    """Two layers computed again in the backward pass, around or inside a wrapper of their own."""

    def __init__(self, again, inner=None):
        super().__init__()
        self.a, self.b, self.again = inner or nn.Linear(6, 6), nn.Linear(6, 6), again

    def part(self, x):
        return torch.tanh(self.b(torch.tanh(self.a(x))))

    def forward(self, x):
        return 2 * (checkpoint(self.part, x, use_reentrant=False) if self.again else self.part(x))


@pytest.mark.parametrize("inside", [False, True], ids=["wrapped twice", "wrapper inside"])
def test_wrappers_in_wrappers_give_the_same_gradient_under_activation_checkpointing(inside):
    def gradients(again):
        torch.manual_seed(0)
        first = ContinuousMask(0.1, where=nn.Linear)
        net = Checkpointed(again, Relaxed(nn.Linear(6, 6), first)) if inside else Relaxed(Checkpointed(again), first)
        relaxed = Relaxed(net, ContinuousMask(-0.05, where=lambda name, module, p: p.ndim > 1))
        relaxed(torch.randn(4, 6)).square().sum().backward()
        assert not any("weight" in vars(module) for module in relaxed.modules())  # nothing is left standing
        return {name: p.grad for name, p in relaxed.named_parameters()}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, msg=name)
