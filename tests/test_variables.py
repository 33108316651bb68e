"""What every relaxation's own variables must do: stay precise in any dtype, act when loaded or be refused, and say what
is lost.
"""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from principled import ContinuousMask, FixedPrecision, KeepZeros, Relaxed, SequentialMask, Smol, SoftSharing

NAMES = ("0.weight", "2.weight")
ALL = {
    "mask": lambda: ContinuousMask(0.1, where=nn.Linear),
    "filters": lambda: ContinuousMask(0.1, where=nn.Linear, shape="filter"),
    "reference": lambda: ContinuousMask(0.1, where=nn.Linear, variant="reference"),
    "sequential": lambda: SequentialMask(where=nn.Linear),
    "zeros": lambda: KeepZeros(where=nn.Linear),
    "smol": lambda: Smol(p_init=6),
    "smol, filters, power": lambda: Smol(granularity="filter", scale="power"),
    "fixed": lambda: FixedPrecision({name: torch.full((6, 6), 4) for name in NAMES}, scale=0.5),
    "sharing": lambda: SoftSharing(where=nn.Linear),
}
EACH = pytest.mark.parametrize("make", ALL.values(), ids=list(ALL))


def plain(dtype=torch.float32):
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)).to(dtype)
    with torch.no_grad():
        net[0].weight[0] = 0
    return net


def own(relaxed):
    """The numbers that are the relaxation's, not the network's: templates are weights."""
    named = [*relaxed.relaxations.named_parameters(), *relaxed.relaxations.named_buffers()]
    return {name: t for name, t in named if t.is_floating_point() and "templates" not in name}


def disturb(relaxed):
    """Other numbers in every variable, as training gives them."""
    with torch.no_grad():
        for p in relaxed.relaxations.parameters():
            p.add_(0.3 * torch.randn_like(p))
        relaxed.anneal(0.5, 4.0)
    return relaxed


@EACH
@pytest.mark.parametrize("late", [False, True], ids=["built", "cast"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_variables_stay_in_float32_and_weights_keep_their_dtype(make, dtype, late):
    relaxed = Relaxed(plain(dtype), make()) if not late else Relaxed(plain(), make()).to(dtype)
    disturb(relaxed).eval()
    assert {t.dtype for t in own(relaxed).values()} == {torch.float32}
    assert {p.dtype for p in relaxed.net.parameters()} == {dtype}
    wide = copy.deepcopy(relaxed).float()
    for weights, exact in ((relaxed.weights(), wide.weights()), (harden(relaxed), harden(wide))):
        assert {w.dtype for w in weights.values()} == {dtype}
        rounded = {name: w.to(dtype) for name, w in exact.items()}  # once; a mixture is one of rounded coefficients
        assert_close(weights, rounded, rtol=0, atol=0.02 if isinstance(relaxed.relaxations[0], SoftSharing) else 0)
    relaxed.train()
    (relaxed(torch.randn(3, 6, dtype=dtype)).float().square().mean() + relaxed.penalty()).backward()
    assert all(p.grad.dtype == p.dtype and p.grad.isfinite().all() for p in relaxed.parameters())
    assert {t.dtype for t in own(relaxed.double()).values()} == {torch.float64}


def harden(relaxed):
    with warnings.catch_warnings(action="ignore"):
        return {name: p.detach() for name, p in relaxed.harden().named_parameters()}


def test_bits_fall_in_bfloat16_as_they_do_in_float32():
    variables = []
    for dtype in (torch.float32, torch.bfloat16):
        relaxed = Relaxed(plain(dtype), Smol())
        optimizer = torch.optim.Adam([relaxed.relaxations[0].s], lr=1e-3)
        for _ in range(20):
            optimizer.zero_grad()
            relaxed.penalty().backward()
            optimizer.step()
        variables.append(relaxed.relaxations[0].s.detach())
    assert torch.equal(*variables)
    assert (variables[0] > Smol().s_init + 0.019).all()


def test_clipping_in_bfloat16_leaves_every_weight_where_it_feels_the_loss():
    relaxed = Relaxed(plain(torch.bfloat16), smol := Smol(p_init=12)).eval()
    with torch.no_grad():
        relaxed.net[0].weight.fill_(2.0)
    smol.clip_(dict(relaxed.net.named_parameters()))
    relaxed.weights()["0.weight"].float().sum().backward()
    assert (relaxed.net[0].weight.grad == 1).all()


@EACH
@pytest.mark.filterwarnings("ignore:the mask removes")
def test_dtypes_may_be_mixed_in_one_network(make):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 6), nn.Identity(), nn.Linear(6, 6, dtype=torch.bfloat16))

        def forward(self, x):
            return self.layers[2](self.layers[0](x).bfloat16())

    if isinstance(relaxation := make(), SoftSharing):
        with pytest.raises(ValueError, match="alike in shape, dtype and settings"):
            Relaxed(Mixed(), relaxation)
        relaxation = SoftSharing({"both": ["layers.0.weight", "layers.2.weight"]})
        with pytest.raises(ValueError, match=r"unequal dtypes: 'layers\.0\.weight' is torch\.float32, .*cast one"):
            Relaxed(Mixed(), relaxation)
        return
    if isinstance(relaxation, FixedPrecision):
        relaxation = FixedPrecision({f"layers.{name}": torch.full((6, 6), 4) for name in NAMES})
    relaxed = Relaxed(Mixed(), relaxation)
    relaxed(torch.randn(3, 6)).sum().backward()
    for weights in (relaxed.weights(), dict(relaxed.harden().named_parameters())):
        assert [weights[f"layers.{name}"].dtype for name in NAMES] == [torch.float32, torch.bfloat16]


def test_a_precision_beyond_the_dtype_is_refused_and_a_search_stops_at_it():
    with pytest.raises(ValueError, match=r"0\.weight: .* from 0 to 8, not 9 in bfloat16; quantise in float32"):
        Relaxed(plain(torch.bfloat16), FixedPrecision({name: torch.full((6, 6), 9) for name in NAMES}))
    relaxed = Relaxed(plain(torch.bfloat16), smol := Smol(p_init=12))
    assert all((p == 8).all() for p in smol.allocate(relaxed.weights()).values())
    fixed = Relaxed(plain(), FixedPrecision({name: torch.full((6, 6), 12) for name in NAMES})).half()
    with pytest.raises(ValueError, match=r"0\.weight: .* from 0 to 11, not 12 in float16"):
        fixed.harden()


@EACH
@pytest.mark.parametrize("old", [False, True], ids=["options", "without"])
@pytest.mark.filterwarnings("ignore:the mask removes")
def test_what_is_loaded_acts(make, old):
    relaxed, other, x = disturb(Relaxed(plain(), make())).eval(), Relaxed(plain(), make()).eval(), torch.randn(3, 6)
    state = relaxed.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())  # files and averages take tensors only
    if old:  # as saved before there were options
        del state["relaxations.0._extra_state"]
    torch.save(state, file := io.BytesIO())
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), relaxed(x))
    assert torch.equal(other.harden()(x), relaxed.harden()(x))
    assert torch.equal(other.penalty(), relaxed.penalty())


def halves(weights):
    return torch.arange(72).view(2, 36).unbind()


def turns(weights):
    return torch.arange(72).view(36, 2).T.contiguous().unbind()


@pytest.mark.parametrize(
    ("saved", "other", "says"),
    [
        (ContinuousMask(where=nn.Linear), ContinuousMask(where=nn.Linear, curve="erf"), "curve 'sigmoid', .* 'erf'"),
        (ContinuousMask(where=nn.Linear, variant="reference"), ContinuousMask(where=nn.Linear), "variant 'reference'"),
        (
            ContinuousMask(0.1, where=nn.Linear, variant="reference"),
            ContinuousMask(0.2, where=nn.Linear, variant="reference"),
            "s_init 0.1, this network has 0.2",
        ),
        (ContinuousMask(where=nn.Linear), ContinuousMask(where=nn.Linear, shape="filter"), "shape 'weight'"),
        (ContinuousMask(where=NAMES[0]), ContinuousMask(where=NAMES[1]), "weights '0.weight', .* '2.weight'"),
        (SequentialMask(0.2, where=nn.Linear), SequentialMask(0.3, where=nn.Linear), "rate 0.2, .* 0.3"),
        (SequentialMask(where=nn.Linear), ContinuousMask(where=nn.Linear), "relaxation 'SequentialMask'"),
        (KeepZeros(NAMES[0]), KeepZeros(NAMES[1]), "weights '0.weight'"),
        (Smol(granularity="filter"), Smol(granularity=6), "granularity 'filter', .* 6"),
        (Smol(granularity=halves), Smol(granularity=turns), "granularity"),
        (Smol(count="groups"), Smol(), "count 'groups'"),
        (Smol(zero=True), Smol(), "zero True, .* False"),
        (SoftSharing({"a": NAMES}), SoftSharing({"a": NAMES[::-1]}), "weights '0.weight', .* '2.weight'"),
        (SoftSharing({"a": NAMES}), SoftSharing({"b": NAMES}), "groups {'a'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_that_would_mean_something_else_is_refused(saved, other, says):
    saved, other = Relaxed(plain(), saved), Relaxed(plain(), other)
    before = copy.deepcopy(other.relaxations.state_dict())
    with pytest.raises(RuntimeError, match=f"the state_dict was saved with {says}") as caught:
        other.load_state_dict(saved.state_dict())
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in other.relaxations.state_dict().items())


@pytest.mark.parametrize("make", [Smol, lambda **o: FixedPrecision({n: torch.full((6, 6), 4) for n in NAMES}, **o)])
@pytest.mark.parametrize(("saved", "built"), [(4.0, 1.0), (1.0, 4.0)])
def test_a_loaded_scale_acts(make, saved, built):
    relaxed, other = (Relaxed(plain(), make(scale=scale)).eval() for scale in (saved, built))
    with torch.no_grad():
        relaxed.net[0].weight.mul_(10)
    other.load_state_dict(relaxed.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(other(x), relaxed(x))
    assert torch.equal(other.harden()(x), relaxed.harden()(x))
    assert not torch.equal(Relaxed(relaxed.net, make(scale=built)).eval()(x), relaxed(x))


def test_weights_beyond_the_range_are_said_once_with_the_remedy():
    net = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 4))
    with torch.no_grad():
        net[0].weight.zero_()[:2] = -3.0
        net[1].weight.zero_()[0, 0] = 2.5
    with pytest.warns(UserWarning, match=r'20\.00% .* 0\.weight \(and of 1 other tensors.*scale="power"') as caught:
        Relaxed(net, Smol())
    assert len(caught) == 1
    with warnings.catch_warnings(action="error"):
        Relaxed(net, Smol(scale="power"))


def sunk(relaxed):
    with torch.no_grad():
        relaxed.net[0].weight.fill_(1e-3)
        if isinstance(relaxed.relaxations[0], ContinuousMask):
            relaxed.relaxations[0].s[:36] = -1.0
    return relaxed


@pytest.mark.parametrize(
    "make",
    [
        ALL["mask"],
        lambda: Smol(p_init=2, zero=True),
        lambda: FixedPrecision({"0.weight": torch.zeros(6, 6, dtype=torch.int8), "2.weight": torch.full((6, 6), 4)}),
    ],
    ids=["mask", "smol", "fixed"],
)
def test_a_layer_that_hardens_to_nothing_is_named(make):
    relaxed = Relaxed(plain(), make())
    with torch.no_grad():
        relaxed.net[2].weight.fill_(1.0)
    with pytest.warns(UserWarning, match=r"0\.weight: nothing but biases") as caught:
        sunk(relaxed).harden()
    assert len(caught) == 1


@pytest.mark.parametrize("make", [ALL["mask"], ALL["filters"], ALL["smol"], ALL["smol, filters, power"]])
def test_nan_in_s_is_named(make):
    relaxed = Relaxed(plain(), make())
    with torch.no_grad():
        relaxed.relaxations[0].s[-1] = torch.nan
    if isinstance(relaxed.relaxations[0], Smol):
        with pytest.raises(ValueError, match=r"s of 2\.weight holds NaN"):
            relaxed.harden()
    else:
        with pytest.warns(UserWarning, match=r"1 of (6|36) entries of s for 2\.weight are NaN, which counts as pruned"):
            relaxed.harden()


@pytest.mark.parametrize(("templates", "says"), [(1, "47% of their"), (2, "nothing is saved"), (None, "nothing is")])
def test_sharing_says_what_it_saves_and_where_it_starts(templates, says):
    shown = str(Relaxed(plain(), SoftSharing({"both": NAMES}, templates)))
    assert f"both: 2 layers, {templates or 2} templates: {says}" in shown
    assert "starts from new templates" in shown
