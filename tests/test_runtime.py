"""The runtime against PyTorch: layers of every shape, whatever surrounds them, threads, the cache, other processors."""

import hashlib
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("llvmlite")

from principled.runtime import Target, compile
from principled.runtime import machine as machine_module


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRINCIPLED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def compiled(net, x, **options):
    """The network compiled without a warning: nothing was left to PyTorch as a whole."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="principled.runtime")
        return compile(net, x, **options)


def kernels(fast):
    """By layer, what runs it."""
    return {row.layer: row.kernel for row in fast.report() if row.layer[0] != "("}


def agrees(got, want):
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 1e-4 * want.abs().max().clamp(min=1e-6)


@torch.no_grad()
def emptied(net, zeros):
    """Zeros at random in every weight of more than one dimension, and statistics as after training."""
    for module in net.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() > 1:
            weight.mul_(torch.rand_like(weight) >= zeros)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return net.eval()


sizes = st.integers(1, 3)
convolutions = st.fixed_dictionaries({
    "kernel": st.tuples(st.integers(1, 5), st.integers(1, 5)),
    "stride": st.tuples(sizes, sizes),
    "padding": st.tuples(st.integers(0, 3), st.integers(0, 3)),
    "dilation": st.tuples(sizes, sizes),
    "image": st.tuples(st.integers(1, 34), st.integers(1, 34)),
    "channels": st.tuples(st.integers(1, 5), st.integers(1, 5)),
    "groups": st.sampled_from([1, 1, 2, 3]),
    "batch": st.sampled_from([1, 2, 8, 19]),
    "zeros": st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    "bias": st.booleans(),
})  # fmt: skip


@given(convolutions)
@example({
    "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "image": (7, 14), "channels": (3, 5),
    "groups": 1, "batch": 8, "zeros": 0.9, "bias": True,
})  # fmt: skip
def test_every_convolution(case):
    torch.manual_seed(0)
    groups = case["groups"]
    inputs, outputs = (groups * count for count in case["channels"])
    net = nn.Conv2d(
        inputs, outputs, case["kernel"], case["stride"], case["padding"], case["dilation"], groups, case["bias"]
    )
    x = torch.randn(case["batch"], inputs, *case["image"])
    emptied(net, case["zeros"])
    reach = [(k - 1) * d + 1 for k, d in zip(case["kernel"], case["dilation"], strict=True)]
    assume(all(s + 2 * p >= r for s, p, r in zip(case["image"], case["padding"], reach, strict=True)))
    fast = compiled(net, x[:1], threshold=1.0)
    assert fast.report()[-1].kernel == "sparse"
    with torch.no_grad():
        agrees(fast(x), net(x))


@given(
    shape=st.sampled_from([(), (5,), (3, 7)]),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 20),
    batch=st.sampled_from([1, 9, 70]),
    zeros=st.sampled_from([0.0, 0.9, 1.0]),
)
def test_every_linear_layer(shape, inputs, outputs, batch, zeros):
    torch.manual_seed(0)
    net = emptied(nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, 3)), zeros)
    x = torch.randn(batch, *shape, inputs)
    fast = compiled(net, x[:1], threshold=1.0)
    assert {row.kernel for row in fast.report()} == {"sparse"}
    with torch.no_grad():
        agrees(fast(x), net(x))


ACTIVATIONS = [nn.Identity, nn.ReLU, nn.ReLU6, nn.Hardswish]


class Residual(nn.Module):
    """Two linear layers, or convolutions of one pixel, whose results are added."""

    def __init__(self, make, activation):
        super().__init__()
        self.first, self.second, self.act = make(), make(), activation()

    def forward(self, x):
        y = self.first(x)
        return self.act(self.second(y) + y)


@given(
    width=st.integers(1, 40),
    plane=st.booleans(),
    batch=st.sampled_from([1, 9, 70]),
    bias=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
)
def test_single_pixels_whose_channels_have_lists_of_all_lengths(width, plane, batch, bias, activation):
    torch.manual_seed(0)
    make = (lambda: nn.Conv2d(width, width, 3, padding=1, bias=bias)) if plane else (
        lambda: nn.Linear(width, width, bias=bias))  # fmt: skip
    net = Residual(make, activation).eval()
    with torch.no_grad():
        for layer in (net.first, net.second):
            share = torch.rand(width).view(-1, *[1] * (layer.weight.dim() - 1))
            layer.weight.mul_(torch.rand_like(layer.weight) < share)
    x = torch.randn(batch, width, *([1, 1] if plane else []))
    fast = compiled(net, x[:1], threshold=1.0)
    assert {row.kernel for row in fast.report()} == {"sparse"}
    with torch.no_grad():
        agrees(fast(x), net(x))


def test_a_linear_layer_of_more_places_than_sixteen_bits_count():
    torch.manual_seed(0)
    net = emptied(nn.Linear(70_000, 3), 0.9)
    x = torch.randn(2, 70_000)
    fast = compiled(net, x, threshold=1.0)
    assert kernels(fast) == {"linear": "sparse"}
    with torch.no_grad():
        agrees(fast(x), net(x))


@given(
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    ceil=st.booleans(),
    image=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    batch=st.sampled_from([1, 8]),
    mean=st.booleans(),
)
def test_every_window(window, stride, padding, dilation, ceil, image, batch, mean):
    assume(padding <= window // 2)
    torch.manual_seed(0)
    pool = nn.AvgPool2d(window, stride, padding)
    if not mean:
        pool = nn.MaxPool2d(window, stride, padding, dilation, ceil_mode=ceil)
    net = emptied(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), pool), 0.5)
    x = torch.randn(batch, 2, *image)
    fast = compiled(net, x[:1], threshold=1.0)
    assert {row.kernel for row in fast.report()} == {"sparse"}
    with torch.no_grad():
        agrees(fast(x), net(x))


def test_a_padding_by_name_and_one_dimension():
    torch.manual_seed(0)
    image, line = torch.randn(9, 3, 10, 11), torch.randn(9, 3, 21)
    for net, x in (
        (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), image),
        (nn.Conv2d(3, 4, 3, padding="valid"), image),
        (nn.Conv1d(3, 4, 5, stride=2, padding=2, dilation=2), line),
        (nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 1)), line),
    ):
        emptied(net, 0.5)
        fast = compiled(net, x[:1], threshold=1.0)
        assert {row.kernel for row in fast.report()} == {"sparse"}
        with torch.no_grad():
            agrees(fast(x), net(x))


class Everything(nn.Module):
    """Branches that add and join, activations in place, pools, a part that branches on data, views."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.norm = nn.BatchNorm2d(8)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1, bias=False)
        self.branching = Branching()
        self.swish, self.pool = nn.Hardswish(), nn.MaxPool2d(3, 2, 1)
        self.last = nn.Linear(24 * 5 * 5, 7)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.first(x)
        y = F.relu(self.norm(x), inplace=True)
        y = self.left(y)
        y += self.right(x)
        z = self.swish(y)
        z = self.branching(z) + x
        joined = torch.cat([x, F.relu6(y), z], dim=1)
        return {"scores": self.last(self.drop(self.pool(joined).flatten(1))), "features": (y, z.mean((2, 3)))}


class Branching(nn.Module):
    def forward(self, x):
        return x.sigmoid() if x.sum() > 0 else -x


def test_whatever_surrounds_a_layer():
    torch.manual_seed(0)
    net = emptied(Everything(), 0.7)
    x = torch.randn(19, 3, 10, 10)
    before, given_weights = x.clone(), {k: v.clone() for k, v in net.state_dict().items()}
    for threshold in (1.0, 0.0):
        fast = compiled(net, x[:2], threshold=threshold)
        for many in (1, 8, 19):
            got = fast(x[:many])
            with torch.no_grad():
                want = net(x[:many].clone())
            agrees(got["scores"], want["scores"])
            for a, b in zip(got["features"], want["features"], strict=True):
                agrees(a, b)
            assert not got["scores"].requires_grad
    assert torch.equal(x, before)
    assert all(torch.equal(v, given_weights[k]) for k, v in net.state_dict().items())
    assert net.first[2].inplace


def test_a_layer_that_writes_into_what_others_read():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.other = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.conv(x)
            return self.other(self.relu(y)) + y  # y is what ReLU left

    net = emptied(Writes(), 0.3)
    x = torch.randn(2, 3, 5, 5)
    fast = compiled(net, x, threshold=1.0)
    assert kernels(fast) == {"conv": "sparse", "other": "sparse"}
    with torch.no_grad():
        agrees(fast(x), net(x))


def test_a_forward_that_branches_on_data_runs_in_pytorch_and_says_so_once():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x) if x.sum() > 0 else x

    net, x = Whole().eval(), torch.ones(2, 3, 4, 4)
    with pytest.warns(UserWarning, match="branches on data") as caught:
        fast = compile(net, x)
    assert len(caught) == 1
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for given_x in (x, -x):
            assert torch.equal(fast(given_x), net(given_x))
    assert [row.kernel for row in fast.report()] == ["PyTorch"]


def test_what_has_hooks_or_another_forward_is_left_to_pytorch():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    hooked = nn.Conv2d(3, 3, 1)
    hooked.register_forward_hook(lambda module, args, output: output + 1)
    circular = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
    net = emptied(nn.Sequential(Doubled(3, 3, 1), hooked, circular, nn.Conv2d(3, 3, 1)), 0.5)
    x = torch.randn(2, 3, 6, 6)
    fast = compiled(net, x, threshold=1.0)
    ran = kernels(fast)
    assert (ran["1"], ran["2"], ran["3"]) == ("PyTorch", "PyTorch", "sparse")
    assert ran["mul"] == "PyTorch"  # what the first adds to its class
    with torch.no_grad():
        agrees(fast(x), net(x))


def test_pruned_by_pytorch_and_not_made_permanent():
    from torch.nn.utils import prune

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    prune.random_unstructured(net[0], "weight", 0.8)
    x = torch.randn(2, 3, 6, 6)
    fast = compiled(net, x, threshold=1.0)
    assert kernels(fast) == {"0": "PyTorch", "1": "PyTorch"}
    with torch.no_grad():
        agrees(fast(x), net(x))


def test_a_full_layer_of_few_products_is_walked_and_a_large_one_is_not():
    net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 2000)).eval()
    x = torch.randn(3, 64)
    fast = compiled(net, x, threshold=0.0)
    assert kernels(fast) == {"0": "sparse", "2": "dense"}
    with torch.no_grad():
        agrees(fast(x), net(x))


def test_a_threshold_decides_and_the_report_says_so():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()
    with torch.no_grad():
        net[2].weight.mul_(torch.rand_like(net[2].weight) < 0.1)
    x = torch.randn(1, 8, 9, 9)
    rows = {row.layer: row for row in compiled(net, x, threshold=0.5).report()}
    zeros = float((net[2].weight == 0).float().mean())
    assert (rows["0"].kernel, rows["2"].kernel) == ("dense", "sparse")
    assert (rows["0"].zeros, rows["2"].zeros) == (0.0, pytest.approx(zeros))
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    assert "sparse" in str(compiled(net, x, threshold=0.5).report())


def test_the_threshold_is_measured_once_and_kept(monkeypatch, tmp_path):
    from principled.runtime import thresholds

    monkeypatch.setenv("PRINCIPLED_CACHE", str(tmp_path))
    thresholds.measured.cache_clear()
    target = Target.host()
    known = thresholds.measured(target, 1)
    assert set(known) == set(thresholds.LAYERS)
    assert all(0 <= share <= 1 for share in known.values())
    thresholds.measured.cache_clear()
    monkeypatch.setattr(thresholds, "_crossing", None)  # a second measurement would fail
    assert thresholds.measured(target, 1) == known
    thresholds.measured.cache_clear()


def test_nan_and_infinities_pass_where_a_weight_is_not_zero():
    net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.5, -1.0]]).view(2, 2, 1, 1))
    x = torch.zeros(1, 2, 1, 4)
    x[0, 0, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])
    with torch.no_grad():
        want = net(x)
    for many in (1, 8):
        got = compiled(net, torch.ones_like(x), threshold=1.0)(x.repeat(many, 1, 1, 1))
        assert torch.equal(got, want.repeat(many, 1, 1, 1).nan_to_num(nan=-1)) or got.isnan().any()
        torch.testing.assert_close(got, want.repeat(many, 1, 1, 1), equal_nan=True)
    x = x.flip(1)  # the first output skips what is not finite; PyTorch multiplies it with zero
    got = compiled(net, torch.ones_like(x), threshold=1.0)(x)
    assert got[0, 0].isfinite().all()
    with torch.no_grad():
        assert net(x)[0, 0].isnan().any()
        torch.testing.assert_close(got[0, 1], net(x)[0, 1], equal_nan=True)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_a_linear_layer_meets_nan_and_infinities_where_a_weight_is_not_zero(number):
    torch.manual_seed(0)
    net = nn.Linear(9, 11, bias=False).eval()
    with torch.no_grad():
        net.weight.mul_(torch.rand(11, 9) < torch.rand(11, 1))
    fast = compiled(net, torch.ones(1, 9), threshold=1.0)
    x = torch.ones(9, 9).diagonal_scatter(torch.full((9,), number))  # in another place in each image
    want = torch.where(net.weight != 0, net.weight * x.unsqueeze(1), 0).sum(2).detach()
    assert (want.isfinite().sum(0) > 0).any()
    torch.testing.assert_close(torch.cat([fast(image) for image in x.split(1)]), want, equal_nan=True)
    torch.testing.assert_close(fast(x.repeat(8, 1)), want.repeat(8, 1), equal_nan=True)


def test_a_nan_wins_a_maximum():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(3, 2, 1)).eval()
    net[0].weight.data.fill_(1.0)
    x = torch.randn(1, 1, 9, 9)
    fast = compiled(net, x, threshold=1.0)
    x[0, 0, 4, 4] = torch.nan
    x[0, 0, 0, 0] = -torch.inf
    with torch.no_grad():
        for many in (1, 8):
            y = x.repeat(many, 1, 1, 1)
            torch.testing.assert_close(fast(y), net(y), equal_nan=True)


def test_one_in_a_thread_called_from_four():
    torch.manual_seed(0)
    net = emptied(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)), 0.8)
    inputs = [torch.randn(n, 3, 12, 12) for n in (1, 3, 8, 21)]
    with torch.no_grad():
        wanted = [net(x) for x in inputs]
    made, wrong = [], []
    worker = threading.Thread(target=lambda: made.append(compile(net, inputs[0], threads=2, threshold=1.0)))
    worker.start()
    worker.join()

    def call(x, want):
        for _ in range(40):
            got = made[0](x)
            if not torch.allclose(got, want, atol=1e-4):
                wrong.append(x.shape)

    workers = [threading.Thread(target=call, args=pair) for pair in zip(inputs, wanted, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_code_comes_from_the_cache_and_a_damaged_one_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("PRINCIPLED_CACHE", str(tmp_path))
    made = []
    library = machine_module.Library
    monkeypatch.setattr("principled.runtime.program.Library", lambda *args: made.append(library(*args)) or made[-1])
    net, x = emptied(nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()), 0.5), torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        want = net(x)
    agrees(compiled(net, x, threshold=1.0)(x), want)
    (file,) = tmp_path.glob("*.o")
    whole = file.read_bytes()
    assert hashlib.sha256(whole[32:]).digest() == whole[:32]
    agrees(compiled(net, x, threshold=1.0)(x), want)
    for damage in (whole[: len(whole) // 2], b"", whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
        file.write_bytes(damage)
        agrees(compiled(net, x, threshold=1.0)(x), want)
        assert file.read_bytes() == whole
    assert [each.from_cache for each in made] == [False, True, False, False, False]


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRINCIPLED_CACHE", str(tmp_path / "file" / "below"))
    net, x = emptied(nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()), 0.5), torch.randn(1, 2, 6, 6)
    fast = compiled(net, x, threshold=1.0)
    assert kernels(fast) == {"0": "sparse"}
    with torch.no_grad():
        agrees(fast(x), net(x))


def test_the_networks_weights_are_let_go():
    net = emptied(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)), 0.9)
    x = torch.randn(1, 32, 8, 8)
    kept = sum(int((p != 0).sum()) for p in net.parameters())
    fast = compiled(net, x, threshold=1.0)
    activation = 4 * 32 * (8 + 1) * (8 + 1)
    assert fast.memory <= 1.1 * (8 * kept + 3 * activation)


def test_a_linear_layer_takes_six_bytes_a_weight():
    torch.manual_seed(0)
    net = emptied(nn.Linear(1024, 1024), 0.9)
    kept = int((net.weight != 0).sum())
    assert compiled(net, torch.randn(1, 1024), threshold=1.0).memory <= 1.1 * (6 * kept + 2 * 4 * 1024)


SETS = ["", "-avx512f", "-avx512f,-avx2", "-avx512f,-avx2,-fma", "-avx512f,-avx2,-avx,-fma"]


@pytest.mark.parametrize("features", SETS)
def test_every_instruction_set_that_the_machine_has(features):
    torch.manual_seed(0)
    target = Target.host(features)
    net = emptied(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1), nn.Flatten(),
                                nn.Linear(4 * 25, 5)), 0.6)  # fmt: skip
    x = torch.randn(17, 3, 10, 10)
    fast = compiled(net, x, threshold=1.0, target=target)
    assert set(kernels(fast).values()) == {"sparse"}
    with torch.no_grad():
        agrees(fast(x), net(x))
        agrees(fast(x[:1]), net(x[:1]))


def test_one_text_gives_the_vectors_of_other_processors():
    from principled.runtime.kernels import Abreast, Weighted, text_of
    from principled.runtime.layout import Pads, plane, tiles

    binding = machine_module.llvm()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    for triple, cpu, lanes, most, register in (
        ("x86_64-unknown-linux-gnu", "skylake-avx512", 16, 30, "zmm"),
        ("x86_64-unknown-linux-gnu", "haswell", 8, 14, "ymm"),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", 4, 30, ".4s"),
    ):
        place = plane(16, 32, 32, Pads(1, 1), lanes)
        kinds = {Weighted(tile, 1, "relu", False) for tile, _ in tiles(place.row, place, 1, lanes, most)}
        for text in (text_of(kinds), text_of({Abreast(lanes, 16, "relu", False)})):
            module = binding.parse_assembly(text)
            machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
            module.triple = triple
            assembly = machine.emit_assembly(module)
            fused = [line for line in assembly.splitlines() if "fmadd" in line or "fmla" in line]
            assert any(register in line for line in fused), (triple, cpu)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 9, 8), "compiled for float32 of shape"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), "got float64"),
    ],
)
def test_another_image_is_refused_in_one_line(x, message):
    fast = compiled(nn.Conv2d(3, 3, 1).eval(), torch.zeros(1, 3, 8, 8), threshold=1.0)
    with pytest.raises(ValueError, match=message) as raised:
        fast(x)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_compiled_is_refused_in_one_line():
    with pytest.raises(ValueError, match="in evaluation"):
        compile(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="first dimension"):
        compile(nn.Conv2d(3, 3, 1).eval(), torch.zeros(3))


def test_without_llvmlite_there_is_one_line(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "llvmlite", None)
    machine_module.llvm.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"pip install principled\[runtime\]"):
        compile(nn.Conv2d(3, 3, 1).eval(), torch.zeros(1, 3, 8, 8))


def test_an_empty_batch():
    fast = compiled(nn.Conv2d(3, 4, 1).eval(), torch.zeros(1, 3, 8, 8), threshold=1.0)
    assert fast(torch.zeros(0, 3, 8, 8)).shape == (0, 4, 8, 8)
