"""Networks of every kind leave for ONNX Runtime and torch.export, and compute there what they compute here."""

import sys

import numpy as np
import pytest
import torch
from small_network import Net
from torch import nn

from principled import ContinuousMask, Relaxed, Smol, SoftSharing, fix_precision, fold
from principled.export import to_onnx, whole_numbers
from principled.smol_training import Quantised

IMAGES = torch.linspace(-1, 1, 2 * 36).view(2, 1, 6, 6)
MORE = torch.linspace(-2, 1, 5 * 36).view(5, 1, 6, 6)


def masked():
    relaxed = Relaxed(Net(), ContinuousMask())
    with torch.no_grad():
        relaxed.relaxations[0].s.copy_(torch.arange(36 + 3 * 144) % 3 - 1.5)
    return relaxed


def shared():
    relaxed = Relaxed(Net(), SoftSharing(templates=2))
    with torch.no_grad():
        (alpha,) = relaxed.relaxations[0].alpha.values()
        alpha.copy_(torch.tensor([[1.0, 0.0], [-0.5, 0.0], [0.0, 1.0]]))
    return relaxed


def quantised(bits, granularity="filter", net=None, **options):
    """Precisions from 2 to ``bits``, in turn."""
    relaxed = Relaxed(net or Net(), Smol(granularity=granularity, **options))
    (smol,) = relaxed.relaxations
    with torch.no_grad():
        p = torch.arange(smol.s.numel()) % (bits - 1) + 2.01
        smol.s.copy_(-torch.log(2 ** (p - 1) - 1))
    return fix_precision(relaxed)


KINDS = {
    "plain": Net,
    "hardened": lambda: masked().harden(),
    "relaxed": masked,
    "shared": shared,
    "folded": lambda: fold(shared(), 0.9),
    "quantised": lambda: quantised(6),
}


@pytest.fixture
def session():
    """Run an ONNX file in ONNX Runtime: its first output, and the session."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def run(path, **inputs):
        opened = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (first, *_) = opened.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return torch.from_numpy(first), opened

    return run


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "relaxed"])
def test_torch_export_takes_it_as_it_is(kind):
    net = KINDS[kind]().eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(net, (IMAGES,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(MORE), net(MORE))


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_computes_the_same(kind, session, tmp_path):
    torch.manual_seed(0)
    net = KINDS[kind]()
    to_onnx(tmp_path / "net.onnx", net, IMAGES)
    outputs, opened = session(tmp_path / "net.onnx", pixels=MORE)
    expected = (net.harden() if isinstance(net, Relaxed) else net).eval()(MORE)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    assert [i.name for i in opened.get_inputs()] == ["pixels"]


def tensors(path):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(path)).graph
    kinds = [onnx.TensorProto.DataType.Name(each.data_type) for each in graph.initializer]
    return dict(zip([each.name for each in graph.initializer], kinds, strict=True)), [n.op_type for n in graph.node]


@pytest.mark.parametrize(
    ("bits", "kind", "granularity"), [(3, "int4", "weight"), (7, "int8", "filter"), (8, "int16", "weight")]
)
def test_quantised_weights_are_whole_numbers(bits, kind, granularity, session, tmp_path):
    net = quantised(bits, granularity, scale="power")  # each range is full
    report = to_onnx(tmp_path / "net.onnx", net, IMAGES)
    kinds, operations = tensors(tmp_path / "net.onnx")
    assert report.floating == {}
    assert set(report.whole.values()) <= {"int4", "int8", "int16"}
    assert kind in report.whole.values()
    assert operations.count("DequantizeLinear") == 5
    assert not [name for name in kinds if name.endswith(".weight") and "middle.0.0" in name]
    outputs, _ = session(tmp_path / "net.onnx", pixels=MORE)
    torch.testing.assert_close(outputs, net.harden().eval()(MORE), rtol=1e-4, atol=1e-5)


def test_a_weight_of_more_bits_stays_in_float_and_a_line_says_so(session, tmp_path):
    net = quantised(12, "layer")
    report = to_onnx(tmp_path / "net.onnx", net, IMAGES)
    bits = {name: int(p.max()) for name, p in net.relaxations[0].precision().items()}
    assert set(report.floating) == {name for name, most in bits.items() if most > 8}
    net = quantised(12, "weight")
    report = to_onnx(tmp_path / "net.onnx", net, IMAGES)
    assert "first.weight stays in float: its precisions reach 12 bits" in str(report)
    outputs, _ = session(tmp_path / "net.onnx", pixels=MORE)
    torch.testing.assert_close(outputs, net.harden().eval()(MORE), rtol=1e-4, atol=1e-5)


def test_what_train_smol_returns_and_a_transposed_convolution(session, tmp_path):
    class Up(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(1, 3, 2)

        def forward(self, pixels):
            return self.up(pixels)

    fixed = quantised(4, net=Up(), scale=0.3)
    (last,) = fixed.relaxations
    done = Quantised(fixed.harden(), last.precision(), last.scales())
    assert list(to_onnx(tmp_path / "net.onnx", done, IMAGES).whole) == ["up.weight"]
    outputs, _ = session(tmp_path / "net.onnx", pixels=MORE)
    torch.testing.assert_close(outputs, done.net(MORE), rtol=1e-4, atol=1e-5)


def test_whole_numbers_by_hand():
    weight = torch.tensor([[0.5, -1.5, 0.75], [0.0, 0.0, 0.0]])  # levels of 2, 2 and 3 bits; and of none
    p = torch.tensor([[2, 2, 3], [0, 0, 0]])
    numbers, steps = whole_numbers(weight, p, 1.0, 0)
    assert numbers.tolist() == [[2, -6, 3], [0, 0, 0]]
    assert steps.tolist() == [0.25, 1.0]
    with pytest.raises(ValueError, match="on no level"):
        whole_numbers(weight + 0.1, p, 1.0, 0)


def test_one_example_is_enough_for_a_batch_of_any_length(session, tmp_path):
    net = Net().eval()
    to_onnx(tmp_path / "net.onnx", net, IMAGES[:1])
    for images in (MORE, MORE[:1]):
        outputs, _ = session(tmp_path / "net.onnx", pixels=images)
        torch.testing.assert_close(outputs, net(images), rtol=1e-4, atol=1e-5)


def test_keywords_name_the_inputs(session, tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)

        def forward(self, tokens, weights):
            return (self.embed(tokens) * weights[..., None]).sum(1)

    net, inputs = Two(), {"tokens": torch.ones(1, 3, dtype=torch.int64), "weights": torch.ones(1, 3)}
    to_onnx(tmp_path / "net.onnx", net, inputs)
    more = {name: tensor.expand(4, 3).contiguous() for name, tensor in inputs.items()}
    outputs, opened = session(tmp_path / "net.onnx", **more)
    assert {i.name for i in opened.get_inputs()} == {"tokens", "weights"}
    torch.testing.assert_close(outputs, net(**more))


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_is_named(tmp_path):
    pytest.importorskip("onnxscript")
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), Deciding()))
    with pytest.raises(ValueError, match=r"^1\.1 of Sequential \(Deciding\) cannot be exported .*do not depend"):
        to_onnx(tmp_path / "net.onnx", net, IMAGES)
    assert not (tmp_path / "net.onnx").exists()


class Odd(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_an_operation_that_onnx_lacks_is_named(tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match=r"^1 of Sequential \(Odd\) has an operation without a form in ONNX"):
        to_onnx(tmp_path / "net.onnx", nn.Sequential(nn.Conv2d(1, 2, 3), Odd()), IMAGES)


def test_a_network_is_left_as_it_was(tmp_path):
    pytest.importorskip("onnxscript")
    net = Net().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    to_onnx(tmp_path / "net.onnx", net, IMAGES)
    assert all(module.training for module in net.modules())
    assert all(np.array_equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_without_the_libraries_a_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"pip install 'principled\[onnx\]'"):
        to_onnx(tmp_path / "net.onnx", Net(), IMAGES)
