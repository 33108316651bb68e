"""What holds of every structure of network under every relaxation: a small zoo, and, on request, timm's and
torchvision's.
"""

import copy
import inspect
import io

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import prune
from torch.testing import assert_close
from torch.utils.checkpoint import CheckpointError, checkpoint

from principled import ContinuousMask, FixedPrecision, KeepZeros, Relaxed, Smol, SoftSharing, find_s_init, fold
from principled.reweighted import copied, places


def WEIGHTS(name, module, parameter):
    return parameter.ndim > 1


class Net(nn.Module):
    """Three equal layers; subclasses change one thing each."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def block(self, x):
        return self.b(self.a(x).tanh()).tanh()

    def forward(self, x):
        return self.c(self.block(x))


class SharedModule(Net):
    def __init__(self):
        super().__init__()
        self.b = self.a


class TiedParameter(Net):
    def __init__(self):
        super().__init__()
        self.c.weight = self.a.weight


class Checkpointed(Net):
    """With dropout, so that the recomputation needs its random numbers; two blocks, the second inside the first's
    output.
    """

    reentrant = False

    def block(self, x):
        return nn.functional.dropout(super().block(x), 0.3, self.training)

    def forward(self, x):
        x = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.c(checkpoint(self.block, x, use_reentrant=self.reentrant))


class Cached(Net):
    """Attention biases as LeViT (a dict filled in eval) and TinyViT (computed by eval()) keep them, and a
    lazy table.
    """

    def __init__(self):
        super().__init__()
        self.bias, self.rows, self.table = nn.Parameter(torch.randn(2, 4)), {}, None

    def train(self, mode=True):
        super().train(mode)
        self.rows = {}
        if mode:
            self.__dict__.pop("doubled", None)
        else:
            self.doubled = self.bias * 2
        return self

    def forward(self, x):
        if self.training:
            return super().forward(x) + self.bias[0] * 3 + self.bias[1]
        if "row" not in self.rows:
            self.rows["row"] = self.bias[0]
        if self.table is None:
            self.table = self.bias[1].detach()
        return super().forward(x) + self.rows["row"] + self.doubled[0] + self.table


def hooked(hook):
    def make():
        net = Net()
        hook(net.a)
        return net

    return make


class Recurrent(Net):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 4)

    def block(self, x):
        return super().block(self.lstm(x)[0])

    def forward(self, x):
        return self.c(checkpoint(self.block, x, use_reentrant=False))


class Attention(Net):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x):
        return {"y": [super().forward(self.attention(x, x, x)[0])]}


class WithExtraState(Net):
    def __init__(self):
        super().__init__()
        self.note = "new"

    def get_extra_state(self):
        return {"note": self.note}

    def set_extra_state(self, state):
        self.note = state["note"]


class WritesItself(Net):
    """As torch_geometric's Linear: a state_dict method of its own."""

    class Layer(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            destination[prefix + "weight"], destination[prefix + "bias"] = self.weight.detach(), self.bias.detach()

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (self.Layer(4, 4) for _ in range(3))


def hardened():
    """What a relaxed network hardened to, zeros among its weights."""
    relaxed = Relaxed(Net(), ContinuousMask(0.0, WEIGHTS))
    with torch.no_grad():
        relaxed.relaxations[0].s.normal_()
    return relaxed.harden()


ZOO = {
    "plain": Net, "shared module": SharedModule, "tied parameter": TiedParameter, "checkpointed": Checkpointed,
    "cached": Cached,
    "prune": hooked(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "weight_norm": hooked(nn.utils.weight_norm),
    "spectral_norm": hooked(nn.utils.spectral_norm), "parametrized": hooked(nn.utils.parametrizations.weight_norm),
    "lstm": Recurrent,
    "attention": Attention, "extra state": WithExtraState, "own state_dict": WritesItself, "hardened": hardened,
}  # fmt: skip


def fixed(net):
    chosen = [name for name in places(net) if net.get_parameter(name).ndim > 1]
    return FixedPrecision({name: torch.full(net.get_parameter(name).shape, 3) for name in chosen})


RELAXATIONS = {
    "mask": lambda net: ContinuousMask(0.5, WEIGHTS),
    "smol": lambda net: Smol(3.0, where=WEIGHTS),
    "zeros": lambda net: KeepZeros(WEIGHTS),
    "fixed": fixed,
    "sharing": lambda net: SoftSharing(templates=2, where=WEIGHTS),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm|.*spectral_norm:FutureWarning")


@pytest.fixture(params=[(net, relaxation) for net in ZOO for relaxation in RELAXATIONS], ids=" - ".join)
def pair(request):
    """A network of the zoo and the same network relaxed, with variables that have moved."""
    torch.manual_seed(0)
    net = ZOO[request.param[0]]()
    relaxed = Relaxed(copied(net), RELAXATIONS[request.param[1]](net))
    with torch.no_grad():
        for variable in relaxed.relaxations.parameters():
            variable.add_(0.1 * torch.randn_like(variable))
            if request.param[1] == "mask":
                variable[::5] *= -1  # some are removed, of a row of four never all: weight_norm divides by its norm
    return net, relaxed


X = torch.linspace(-1, 1, 24).view(3, 2, 4)


def first(outputs):
    return outputs["y"][0] if isinstance(outputs, dict) else outputs


def run(net, seed=3):
    torch.manual_seed(seed)
    return first(net(X))


def by_hand(net, relaxed):
    """Output and gradients of the definition: effective weights first, then a forward pass of ``net`` that recomputes
    nothing.
    """
    plain = copied(net).train(relaxed.training)
    with torch.no_grad():
        for name, buffer in relaxed.net.named_buffers():  # spectral_norm's
            if buffer.numel():
                plain.get_buffer(name).copy_(buffer)
    torch.manual_seed(3)
    weights = relaxed.weights()
    weights = {place: weights[name] for name, each in places(plain).items() for place in each}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "checkpoint", lambda function, x, use_reentrant: function(x))
        if isinstance(plain, Cached):
            plain.train()
        out = first(functional_call(plain, weights, (X,), tie_weights=False))
    relaxed.zero_grad()
    out.square().sum().backward()
    return out, {name: p.grad for name, p in relaxed.named_parameters()}


def test_outputs_and_gradients_are_those_of_the_definition(pair):
    net, relaxed = pair
    want, gradients = by_hand(net, relaxed)
    relaxed.zero_grad()
    got = run(relaxed)
    got.square().sum().backward()
    assert_close(got, want)
    for name, parameter in relaxed.named_parameters():
        assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-6)
    if not isinstance(net, Checkpointed):  # dropout
        relaxed.eval()
        with torch.no_grad():
            evaluated = [run(relaxed) for _ in range(2)]
        assert torch.equal(*evaluated)
        assert_close(evaluated[0], by_hand(net, relaxed)[0])


def test_the_network_below_is_untouched(pair):
    _, relaxed = pair
    net = relaxed.net
    before, parameters = copy.deepcopy(net.state_dict()), list(net.parameters())
    keys = {path: set(vars(module)) for path, module in net.named_modules()}
    for mode in (False, True):
        relaxed.train(mode)
        run(relaxed).sum().backward()
        relaxed.harden()
    moved = (
        ("weight_u", "weight_v") if hasattr(net.a, "weight_u") else ()
    )  # spectral_norm's power iteration, in every forward pass
    for key, value in net.state_dict().items():
        assert key.endswith(moved) or key == "_extra_state" or torch.equal(value, before[key]), key
    assert all(old is new for old, new in zip(parameters, net.parameters(), strict=True))
    assert {path: set(vars(module)) for path, module in net.named_modules()} == keys


def test_harden_equals_a_fresh_network_with_its_state(pair):
    net, relaxed = pair
    for mode in (True, False, True):  # before an evaluation, in one, after it
        relaxed.train(mode)
        run(relaxed).sum().backward() if mode else run(relaxed)
        hard = relaxed.harden()
        assert type(hard) is type(net)
        assert [name for name, _ in hard.named_parameters()] == [name for name, _ in net.named_parameters()]
        for each in (True, False):
            fresh = copied(net)
            fresh.load_state_dict(hard.state_dict())
            assert torch.equal(run(hard.train(each)), run(fresh.train(each)))
        again = copied(net)
        again.load_state_dict(relaxed.harden().state_dict())
        assert torch.equal(run(relaxed.harden()), run(again.train(mode)))  # without a change of mode


def test_state_file_and_deepcopy_carry_everything(pair):
    _, relaxed = pair
    run(relaxed).sum().backward()
    relaxed.eval()
    other = copy.deepcopy(relaxed)
    state = relaxed.state_dict()
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor) and value.numel()]
    assert len({value.data_ptr() for value in tensors}) == len(tensors)  # each once: safetensors saves it
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(run(other.eval()), run(relaxed))
    assert torch.equal(run(copy.deepcopy(relaxed)), run(relaxed))


# -- what single structures and callers ask for -----------------------------------------------------------------------


def gradients(net, loss):
    net.zero_grad()
    torch.manual_seed(3)
    loss(net)
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


def two_forwards(net):
    (net(X) * net(net(X.flip(0)))).sum().backward()


def kept_graph(net):
    out = net(X).square().sum()
    out.backward(retain_graph=True)
    net(X).sum().backward()  # another in between
    out.backward()


def gradient_penalty(net):
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    slope.square().sum().backward()


@pytest.mark.parametrize("loss", [two_forwards, kept_graph, gradient_penalty])
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_checkpointing_with_several_passes(relaxation, loss, monkeypatch):
    torch.manual_seed(0)
    net = Relaxed(Checkpointed().eval(), RELAXATIONS[relaxation](Net()))
    net.net.eval()  # no dropout, but noise
    got = gradients(net, loss)
    monkeypatch.setitem(globals(), "checkpoint", lambda function, x, use_reentrant: function(x))
    for name, gradient in gradients(net, loss).items():
        assert_close(got[name], gradient, rtol=1e-6, atol=1e-6)


def test_checkpointing_in_a_folded_network(monkeypatch):
    net = Relaxed(Checkpointed(), SoftSharing(templates=1, where=WEIGHTS))
    with torch.no_grad():
        net.relaxations[0].alpha["4x4"].mul_(2)
    net = fold(net, 0.5)
    assert len(net.program.layers) == 1
    got = gradients(net, two_forwards)
    monkeypatch.setitem(globals(), "checkpoint", lambda function, x, use_reentrant: function(x))
    for name, gradient in gradients(net, two_forwards).items():
        assert_close(got[name], gradient, rtol=1e-6, atol=1e-6)


def test_a_backward_pass_that_raises_leaves_nothing_in_the_network():
    net = Relaxed(Checkpointed(), ContinuousMask(0.0, WEIGHTS))
    x = X.clone().requires_grad_()
    seen = []

    def fail(gradient):
        seen.append("weight" in vars(net.net.c))
        raise ValueError("out of memory, say")

    x.register_hook(fail)
    with pytest.raises(ValueError, match="out of memory"):
        net(x).sum().backward()
    assert seen == [True]
    assert not any("weight" in vars(module) for module in net.modules())


class Reentrant(Checkpointed):
    reentrant = True


@pytest.mark.parametrize("relaxed", [True, False], ids=["relaxed", "folded"])
def test_reentrant_checkpointing_is_refused_before_the_first_step(relaxed):
    net = Relaxed(Reentrant(), SoftSharing(templates=1, where=WEIGHTS))
    with torch.no_grad():
        net.relaxations[0].alpha["4x4"].mul_(2)
    net = net if relaxed else fold(net, 0.5)
    with pytest.raises(RuntimeError, match=r"^\w+ needs activation checkpointing with use_reentrant=False [^\n]*$"):
        net(X.clone().requires_grad_())


class Named(Net):
    def __init__(self):
        super().__init__()
        self.config = {"layers": 3}

    def forward(self, pixels, scale=2.0):
        return super().forward(pixels) * scale

    def generate(self, pixels):
        return self(pixels) + self.a.weight.sum()


def folded():
    net = Relaxed(Named(), SoftSharing(templates=1, where=WEIGHTS))
    with torch.no_grad():
        net.relaxations[0].alpha["4x4"].mul_(2)
    return fold(net, 0.5)


@pytest.mark.parametrize(
    "make", [lambda: Relaxed(Named(), ContinuousMask(0.0, WEIGHTS)), folded], ids=["relaxed", "folded"]
)
def test_a_wrapper_is_called_like_the_network_inside(make):
    net = make().eval()
    assert list(inspect.signature(net.forward).parameters) == ["pixels", "scale"]
    assert net.config == {"layers": 3}
    want = net(X)
    assert_close(net.generate(X), want + net._feed().get("a.weight", net.net.a.weight).sum())
    with pytest.raises(AttributeError, match="no attribute 'a'"):  # a layer on its own would run on its own weights
        net.a  # noqa: B018
    dynamic = {"pixels": {0: torch.export.Dim("length", min=2)}}
    exported = torch.export.export(net, (X,), dynamic_shapes=dynamic)
    assert_close(exported.module()(X), want)
    assert exported.graph_signature.user_inputs == ("pixels",)
    assert_close(torch.jit.trace(net, (X,))(X.flip(0)), net(X.flip(0)))
    with pytest.raises(RuntimeError, match=r"^torch.fx.symbolic_trace records [^\n]*: use torch.export.export$"):
        torch.fx.symbolic_trace(net)


def test_a_search_copies_networks_that_were_evaluated_with_gradients():
    net = ZOO["prune"]()
    net(X).sum().backward()
    assert find_s_init(
        net, 0.5, lambda relaxed: relaxed.relaxations[0].s.data.copy_(torch.arange(-24, 24)), where=WEIGHTS
    )


def test_weights_that_hooks_compute_follow_the_hardened_ones():
    for structure in ("prune", "weight_norm", "spectral_norm"):
        relaxed = Relaxed(ZOO[structure](), ContinuousMask(0.1, WEIGHTS))
        hard = relaxed.eval().harden()
        weight = hard.a.weight.clone()
        hard.eval()(X)
        assert torch.equal(weight, hard.a.weight)


# -- other people's networks ------------------------------------------------------------------------------------------

SAMPLE = (
    "resnet18", "resnetv2_50", "densenet121", "efficientnet_b0", "mobilenetv3_small_050", "convnext_atto",
    "regnetx_002", "repvgg_a0", "vit_tiny_patch16_224",
    "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "levit_128s", "tiny_vit_5m_224",
    "efficientvit_m0", "efficientformerv2_s0", "mixer_s32_224",
    "resmlp_12_224", "coat_lite_tiny", "crossvit_9_240", "cait_xxs24_224", "poolformer_s12", "ghostnet_050",
    "hrnet_w18_small", "mobilevit_xxs", "edgenext_xx_small",
    "torchvision:alexnet", "torchvision:vgg11_bn", "torchvision:squeezenet1_1",
    "torchvision:shufflenet_v2_x0_5", "torchvision:mnasnet0_5", "torchvision:vit_b_32",
)  # fmt: skip


def others(name):
    library, _, model = name.rpartition(":")
    if library:
        return pytest.importorskip("torchvision").models.get_model(model, weights=None, num_classes=10)
    return pytest.importorskip("timm").create_model(model, num_classes=10)


def checkpoints(net, x):
    """Whether the plain network can: some have no checkpointing, LeViT's cache in eval is filled once and not again."""
    try:
        net.set_grad_checkpointing()
        net(x).sum().backward()
    except (AttributeError, AssertionError, CheckpointError):
        return False
    return True


def relax(net, relaxation):
    """The network relaxed: eight bits, as three let an untrained DenseNet overflow; AlexNet has no layers alike."""
    if relaxation == "smol":
        return Relaxed(copied(net), Smol(8.0, where=WEIGHTS))
    try:
        return Relaxed(copied(net), RELAXATIONS[relaxation](net))
    except ValueError as e:
        if relaxation == "sharing" and "are alike" in str(e):
            pytest.skip(str(e))
        raise


@pytest.mark.zoo
@pytest.mark.parametrize("relaxation", ["mask", "smol", "sharing"])
@pytest.mark.parametrize("name", SAMPLE)
def test_other_peoples_networks(name, relaxation):
    torch.manual_seed(0)
    net = others(name)
    side = getattr(net, "default_cfg", {}).get("input_size", (3, 224, 224))[-1]
    x = torch.randn(2, 3, side, side)
    relaxed = relax(net, relaxation).eval()
    if checkpoints(copied(net).eval(), x):
        relaxed.net.set_grad_checkpointing()  # timm's is non-reentrant
    weights = relaxed.weights()
    plain = copied(net).eval()
    want = functional_call(
        plain, {p: weights[n] for n, each in places(plain).items() for p in each}, (x,), tie_weights=False
    )
    want.square().sum().backward()
    by_definition = {n: p.grad for n, p in relaxed.named_parameters()}
    relaxed.zero_grad()
    got = relaxed(x)
    got.square().sum().backward()
    assert_close(got, want)
    for n, p in relaxed.named_parameters():
        if p.grad is not None:
            assert (p.grad - by_definition[n]).norm() <= 1e-3 * by_definition[n].norm() + 1e-6, n
    hard = relaxed.harden()
    fresh = others(name)
    fresh.load_state_dict(hard.state_dict())
    with torch.no_grad():
        assert torch.equal(hard(x), fresh.eval()(x))
    assert [n for n, _ in hard.named_parameters()] == [n for n, _ in net.named_parameters()]
    twin = copy.deepcopy(relaxed)
    twin.load_state_dict(relaxed.state_dict())
