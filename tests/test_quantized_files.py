"""Packed files: every weight its own number of bits, bit-equal back, damage refused in one line."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lab.models import resnet20
from principled import FixedPrecision, Relaxed, Smol, fix_precision, quantize
from principled.files.precision_map import decode_map, encode_map
from principled.files.quantized import pack, precisions, read_bits, sizes, unpack, write_bits


def quantised(net, seed=0, mean=2.0, where=None):
    """A network at given average precision, filters and channels differing as trained maps have it."""
    source = torch.Generator().manual_seed(seed)
    precision = {}
    for name, weight in net.named_parameters():
        if weight.ndim > 1 and "shortcut" not in name:
            rows = torch.rand((weight.shape[0], *[1] * (weight.ndim - 1)), generator=source) * mean
            columns = torch.rand((1, weight.shape[1], *[1] * (weight.ndim - 2)), generator=source) * mean
            jitter = torch.rand(weight.shape, generator=source) + 0.2
            precision[name] = (jitter * (rows + columns)).round().clamp(0, 8).to(torch.int8)
    return Relaxed(net, FixedPrecision(precision))


def same(a, b):
    """Equal down to the sign of zero, and to what NaN holds."""
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].shape == b[name].shape
        assert a[name].contiguous().numpy().tobytes() == b[name].contiguous().numpy().tobytes(), name


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    torch.manual_seed(0)
    fixed = quantised(resnet20())
    fixed.train()
    fixed(torch.randn(4, 3, 32, 32))  # running statistics that are not 0 and 1
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    return fixed, path, pack(path, fixed, model="resnet20", about={"run": "0123"})


def test_bit_equal_back(packed):
    fixed, path, _ = packed
    net = unpack(path, resnet20())
    assert type(net) is type(fixed.net)
    same(net, fixed.harden())
    given_net = resnet20()
    before = given_net.linear.weight.detach().clone()
    same(unpack(path, given_net), fixed.harden())
    assert torch.equal(given_net.linear.weight, before)
    for name, p in fixed.relaxations[0].precision().items():
        assert torch.equal(precisions(path)[name], p)


def test_the_file_is_as_small_as_its_bits(packed):
    fixed, path, stated = packed
    assert stated == sizes(path)
    assert stated.payload_bits == sum(int(p.sum()) for p in fixed.relaxations[0].precision().values())
    assert stated.file_bytes == path.stat().st_size
    assert stated.weights == 268_336
    assert stated.kept_raw_bytes == sum(
        t.numel() * t.element_size() for n, t in fixed.net.state_dict().items() if n not in fixed.relaxations[0].names
    )
    assert stated.kept_bytes < stated.kept_raw_bytes
    assert stated.rest_bytes < 4096
    assert stated.file_bytes <= 1.05 * stated.payload_bits / 8 + stated.map_bits / 8 + stated.kept_bytes + 4096


def test_the_map_is_shorter_than_its_entropy_without_context(packed):
    fixed, _, stated = packed
    flat = torch.cat([p.flatten() for p in fixed.relaxations[0].precision().values()]).long()
    share = torch.bincount(flat).double() / len(flat)
    entropy = -(share[share > 0] * share[share > 0].log2()).sum() * len(flat)
    assert stated.map_bits < entropy


@pytest.mark.parametrize("granularity", ["layer", "filter", 32])
def test_two_bits_a_weight_in_groups_fit_in_90_kb(granularity, tmp_path):
    torch.manual_seed(0)
    smol = Smol(granularity=granularity)
    relaxed = Relaxed(resnet20(), smol)
    with torch.no_grad():
        if granularity == "layer":
            smol.s.zero_()
            smol.s[[0, -1]] = -3.0  # the first and the last layer get more, as in Figure 5.6
        else:
            smol.s.copy_(torch.randn_like(smol.s))
            smol.s -= smol.s.mean() + 0.4
    fixed = fix_precision(relaxed)
    stated = pack(tmp_path / "net.safetensors", fixed, model="resnet20")
    assert 1.9 < stated.payload_bits / stated.weights < 2.2
    assert stated.file_bytes <= 90_000
    same(unpack(tmp_path / "net.safetensors", resnet20()), fixed.harden())


def test_any_scale_and_other_tensors(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 3)
            self.b = nn.Conv1d(2, 4, 3, bias=False)
            self.register_buffer("flags", torch.tensor([True, False, True]))
            self.register_buffer("short", torch.randn(3, 2).to(torch.bfloat16))
            self.register_buffer("count", torch.tensor(7))
            self.register_buffer("empty", torch.zeros(0, 4))

    net = Odd()
    p = {"a.weight": torch.randint(0, 25, (3, 5)), "b.weight": torch.randint(0, 9, (4, 2, 3))}
    fixed = Relaxed(net, FixedPrecision(p, {"a.weight": 0.3, "b.weight": 4.0}))
    pack(tmp_path / "x", fixed)
    back = unpack(tmp_path / "x", net)
    for name, tensor in fixed.harden().state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)
    plain = fixed.harden()
    assert pack(tmp_path / "y", plain, p, fixed.relaxations[0].scales()) == sizes(tmp_path / "x")
    with pytest.raises(ValueError, match="does not fit a Linear"):
        unpack(tmp_path / "x", nn.Linear(5, 3))


def test_channels_last_packs_the_same(tmp_path):
    fixed = quantised(resnet20())
    pack(tmp_path / "a", fixed)
    pack(tmp_path / "b", fixed.to(memory_format=torch.channels_last))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bits_by_hand():
    data = write_bits(np.array([0b101, 0, 0b1, 0b11111111]), np.array([3, 0, 1, 8]))
    assert data == bytes([0b10111111, 0b11110000])
    assert read_bits(data, np.array([3, 0, 1, 8])).tolist() == [5, 0, 1, 255]
    with pytest.raises(ValueError, match="the payload has 2 bytes where the precision map asks for 3"):
        read_bits(data, np.array([3, 0, 1, 20]))


@given(st.lists(st.integers(0, 24), max_size=60), st.integers(0, 2**32 - 1))
def test_any_bits_come_back(widths, seed):
    widths = np.array(widths, np.int64)
    codes = np.random.default_rng(seed).integers(0, 1 << widths)
    data = write_bits(codes, widths)
    assert len(data) == -(-int(widths.sum()) // 8)
    assert np.array_equal(read_bits(data, widths), codes)


@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(0, 24),
    st.integers(0, 2**32 - 1),
)
def test_any_map_comes_back(shapes, highest, seed):
    source = np.random.default_rng(seed)
    maps = [source.integers(0, highest + 1, shape) for shape in shapes]
    for found, sent in zip(decode_map(encode_map(maps), [p.shape for p in maps]), maps, strict=True):
        assert np.array_equal(found, sent)


def test_each_kind_of_map_takes_its_own_form():
    source = np.random.default_rng(0)
    rough = source.poisson(source.uniform(0, 4, (64, 64, 1)), (64, 64, 9)).clip(0, 9)
    blocks = np.repeat(source.choice([1, 2, 4, 8], (64, 18)), 32, 1)  # blocks of 32
    regular = np.indices((64, 576)).sum(0) % 3 + 1  # every slice has the same mean
    for p, kind, at_most in (
        (rough, b"C", 12_500),
        (blocks, b"B", 400),
        (regular, b"L", 200),
        (regular * 0 + 2, b"B", 60),
    ):
        data = encode_map([p])
        assert data[:1] == kind
        assert len(data) <= at_most
        assert np.array_equal(decode_map(data, [p.shape])[0], p)


@pytest.mark.parametrize("at", [0, 9, 300, -2000, -1])
def test_an_altered_file_is_refused(packed, tmp_path, at):
    data = bytearray(packed[1].read_bytes())
    data[at] ^= 16
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(ValueError, match=r"altered|damaged|format") as caught:
        unpack(tmp_path / "bad", resnet20())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 7, 100, 20_000, -1])
def test_a_short_file_is_refused(packed, tmp_path, length):
    (tmp_path / "short").write_bytes(packed[1].read_bytes()[:length])
    with pytest.raises(ValueError, match="damaged or short") as caught:
        sizes(tmp_path / "short")
    assert "\n" not in str(caught.value)


def test_another_version_and_another_file_are_refused(packed, tmp_path):
    tensors = load_file(packed[1])
    save_file(tensors, tmp_path / "new", {"principled": '{"format": "principled-precisions-2"}'})
    with pytest.raises(ValueError, match="has format 'principled-precisions-2', and this version"):
        unpack(tmp_path / "new", resnet20())
    save_file({"x": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="has format None"):
        unpack(tmp_path / "other", resnet20())
    with pytest.raises(FileNotFoundError, match="missing"):
        unpack(tmp_path / "missing", resnet20())


def test_text_that_travels_along_is_sealed_too(packed, tmp_path):
    with safe_open(packed[1], "pt") as file:
        (seal,) = file.metadata().values()
    assert '"run": "0123"' in seal
    save_file(load_file(packed[1]), tmp_path / "forged", {"principled": seal.replace("0123", "4567")})
    with pytest.raises(ValueError, match="was altered"):
        unpack(tmp_path / "forged", resnet20())


def test_pack_refuses_what_the_file_could_not_give_back(tmp_path):
    net = nn.Linear(4, 1)
    p = {"weight": torch.full((1, 4), 3)}
    with pytest.raises(ValueError, match="weights that are on no level of their precision"):
        pack(tmp_path / "x", net, p)
    with torch.no_grad():
        net.weight.copy_(quantize(net.weight, p["weight"]))
    with pytest.raises(ValueError, match="needs the precision of each quantised weight"):
        pack(tmp_path / "x", net)
    with pytest.raises(ValueError, match="no weight 'w'"):
        pack(tmp_path / "x", net, {"w": p["weight"]})
    with pytest.raises(ValueError, match=r"precisions of shape \(4,\) for weights of \(1, 4\)"):
        pack(tmp_path / "x", net, {"weight": p["weight"][0]})
    with pytest.raises(ValueError, match="whole numbers from 0 to 24"):
        pack(tmp_path / "x", net, {"weight": p["weight"] - 4})
    with pytest.raises(ValueError, match="cannot pack a Smol network: fix its precisions first"):
        pack(tmp_path / "x", Relaxed(net, Smol()))
    with pytest.raises(ValueError, match="float32"):
        pack(tmp_path / "x", net.double(), p)
    assert not list(tmp_path.iterdir())
