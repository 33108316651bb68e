"""A packed network comes back bit for bit, is as small as its zeros allow, and nothing altered passes."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lab.baselines import MagnitudeMask
from lab.models import resnet20
from lab.utils.files import save_model
from principled import Relaxed
from principled.files import sparse as packing


def pruned_resnet20(sparsity):
    """Random weights, really pruned: magnitudes ranked over all maskable layers, then hardened."""
    net = Relaxed(resnet20(), MagnitudeMask())
    net.relaxations[0].prune(net.weights(), sparsity)
    return net.harden()


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and bytes(a.contiguous().view(-1).view(torch.uint8).numpy())
        == bytes(b.contiguous().view(-1).view(torch.uint8).numpy())
    )


def test_a_95_percent_sparse_resnet20_takes_at_most_15_percent_of_the_dense_file(tmp_path):
    net = pruned_resnet20(0.95)
    sizes = packing.pack(net, tmp_path / "net.safetensors", {"model": "resnet20"})
    figure = f"95 % sparse ResNet-20: {sizes.file:,} of {sizes.dense:,} bytes, {sizes.share:.2%}"
    print(figure)
    assert sizes.file == os.path.getsize(tmp_path / "net.safetensors"), figure
    save_model(tmp_path / "dense", resnet20())
    assert sizes.dense == os.path.getsize(tmp_path / "dense")
    assert sizes.share <= 0.15, figure
    stored = sum(row.values + row.side for row in sizes.rows)
    assert sizes.file == sizes.header + stored
    assert packing.sizes(tmp_path / "net.safetensors") == sizes


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.95, 0.999])
def test_what_comes_back_is_bit_equal_and_computes_the_same(tmp_path, sparsity):
    net, path = pruned_resnet20(sparsity), tmp_path / "net.safetensors"
    packing.pack(net, path)
    tensors = packing.unpack(path)
    assert set(tensors) == set(net.state_dict())
    for name, tensor in net.state_dict().items():
        plain = torch.where(tensor == 0, torch.zeros_like(tensor), tensor)  # but for the sign of zeros
        assert same_bits(tensors[name], plain), name
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(packing.load_into(resnet20(), path).eval()(images), net.eval()(images))


def test_the_smallest_form_is_taken(tmp_path):
    net = nn.ModuleDict({name: nn.Linear(100, 100, bias=False) for name in ("all", "most", "few", "none")})
    for name, kept in (("most", 0.5), ("few", 0.02), ("none", 0.0)):
        net[name].weight.data *= torch.rand(100, 100) < kept
    rows = {row.name: row for row in packing.pack(net, tmp_path / "a").rows}
    assert {name: row.form for name, row in rows.items()} == {
        "all.weight": "dense", "most.weight": "bitmap", "few.weight": "gaps", "none.weight": "gaps",
    }  # fmt: skip
    assert rows["most.weight"].side == 10_000 // 8
    assert rows["few.weight"].nonzero <= rows["few.weight"].side < 10_000 // 8
    assert rows["none.weight"].side == 10_000 // 255


@given(st.lists(st.tuples(st.sampled_from([0, 1, 253, 254, 255, 256, 510, 600]), st.booleans()), max_size=6))
def test_gaps_of_any_length_come_back(pieces):
    kept = np.concatenate([np.zeros(0, bool), *(np.append(np.zeros(n, bool), [True] * one) for n, one in pieces)])
    code = packing._gaps(kept)
    assert np.array_equal(packing._places(code, len(kept)), np.flatnonzero(kept))
    with pytest.raises(ValueError, match="do not fit"):
        packing._places(code, len(kept) + 255)


@given(st.integers(0, 2**32 - 1), st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64]))
def test_any_small_tensor_comes_back(tmp_path_factory, seed, dtype):
    source = torch.Generator().manual_seed(seed)
    shape = torch.randint(0, 40, (int(torch.randint(0, 3, (1,), generator=source)),), generator=source).tolist()
    tensor = (torch.randn(shape, generator=source) * 9 * (torch.rand(shape, generator=source) < 0.1)).to(dtype)
    net = nn.Module()
    net.register_buffer("t", tensor)
    path = tmp_path_factory.mktemp("any") / "t"
    packing.pack(net, path)
    assert torch.equal(packing.unpack(path)["t"], tensor)
    assert packing.unpack(path)["t"].dtype == dtype


def test_infinities_and_nan_survive_and_the_sign_of_a_masked_zero_does_not(tmp_path):
    net = nn.Linear(200, 4, bias=False)
    net.weight.data.mul_(0)  # the negative ones become -0.0
    assert torch.signbit(net.weight).any()
    net.weight.data[0, :3] = torch.tensor([float("nan"), float("inf"), -1e-45])
    packing.pack(net, tmp_path / "a")
    back = packing.unpack(tmp_path / "a")["weight"]
    assert same_bits(back[0, :3], net.weight.data[0, :3])
    assert not torch.signbit(back[1:]).any()


def test_equal_networks_give_equal_bytes_whatever_the_order_of_the_metadata(tmp_path):
    net, told = pruned_resnet20(0.9), {"run": "1", "model": "resnet20", "experiment": "pruning", "classes": "10"}
    for name, metadata in (("a", told), ("b", dict(reversed(told.items())))):
        packing.pack(net, tmp_path / name, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert packing.metadata(tmp_path / "a") == told


def test_tied_weights_are_written_once_and_come_back_under_each_name(tmp_path):
    shared = nn.Linear(64, 64)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    sizes = packing.pack(net, tmp_path / "a")
    assert [row.name for row in sizes.rows] == ["0.bias", "0.weight"]
    back = packing.unpack(tmp_path / "a")
    assert torch.equal(back["2.weight"], shared.weight)
    assert set(back) == set(net.state_dict())


def test_channels_last_and_strided_weights_keep_their_places(tmp_path):
    net = pruned_resnet20(0.9).to(memory_format=torch.channels_last)
    packing.pack(net, tmp_path / "a")
    assert torch.equal(packing.unpack(tmp_path / "a")["blocks.8.conv2.weight"], net.blocks[8].conv2.weight)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    torch.manual_seed(0)
    packing.pack(pruned_resnet20(0.95), path, {"run": "0123456789abcdef"})
    return path


def refused(path):
    with pytest.raises(ValueError, match=r"packed|altered|cut short|another") as error:
        packing.unpack(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.01, 0.1, 0.5, 0.9, 0.99999])
def test_a_file_cut_short_is_refused(packed, tmp_path, share):
    content = packed.read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
    assert "cut short" in refused(tmp_path / "cut")


def test_one_flipped_bit_anywhere_is_refused(packed, tmp_path):
    content, tried = packed.read_bytes(), 0
    for place in [0, 7, 9, *torch.randint(len(content), (60,)).tolist(), len(content) - 1]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(torch.randint(8, ()))
        if bytes(flipped[8:]).strip() == content[8:].strip():
            continue
        (tmp_path / "altered").write_bytes(flipped)
        refused(tmp_path / "altered")
        tried += 1
    assert tried > 50  # the others fell on the blanks after the header


def test_altered_metadata_is_refused(packed, tmp_path):
    content = packed.read_bytes()
    (tmp_path / "other").write_bytes(content.replace(b"0123456789abcdef", b"f123456789abcdef"))
    assert "digest" in refused(tmp_path / "other")


def with_header(content, change):
    n = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + n])
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + n :]


@pytest.mark.parametrize(
    "layout",
    ["", "[]", "{}", '{"conv.weight":{}}', '{"conv.weight":{"form":"gaps","shape":[1000000000000]}}',
     '{"a":{"form":"tied","to":"b"}}',
     '{"conv.weight":{"form":"bitmap","shape":[-1]}}', '{"conv.weight":{"form":"bitmap","shape":["x"]}}'],
)  # fmt: skip
def test_a_made_up_layout_is_refused(packed, tmp_path, layout):
    (tmp_path / "odd").write_bytes(with_header(packed.read_bytes(), lambda told: told.update(layout=layout)))
    assert "altered" in refused(tmp_path / "odd")


def test_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save

    (tmp_path / "plain").write_bytes(save(resnet20().state_dict()))
    assert "no packed network" in refused(tmp_path / "plain")
    torch.save(resnet20().state_dict(), tmp_path / "pickle")
    refused(tmp_path / "pickle")
    (tmp_path / "text").write_text("weights: none\n" * 100)
    refused(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="missing"):
        packing.unpack(tmp_path / "missing")


def test_another_network_and_bad_metadata_are_refused(packed, tmp_path):
    with pytest.raises(ValueError, match="another network than ResNet") as error:
        packing.load_into(resnet20(100), packed)
    assert "\n" not in str(error.value)
    for metadata in ({"digest": "mine"}, {"seed": 3}):
        with pytest.raises(ValueError, match="give text"):
            packing.pack(nn.Linear(2, 2), tmp_path / "a", metadata)
    assert not (tmp_path / "a").exists()


def test_the_command_prints_where_the_bytes_go(packed, capsys):
    assert packing.main([str(packed)]) == 0
    out = capsys.readouterr().out
    assert f"file {os.path.getsize(packed):,} bytes" in out
    assert "of the dense file's" in out
    assert "run 0123456789abcdef" in out
    assert packing.main([str(packed.parent / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: [Errno 2] No such file")


# -- compressed sparse rows --------------------------------------------------------------------------------------------


def test_csr_layers_give_the_same_outputs():
    net = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 100, bias=False), nn.ReLU(), nn.Linear(100, 10))
    for layer in (net[0], net[2]):
        layer.weight.data *= torch.rand_like(layer.weight) > 0.95
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sparse = packing.to_csr(net)
    assert [type(module).__name__ for module in sparse] == ["CSRLinear", "ReLU", "CSRLinear", "ReLU", "Linear"]
    for shape in ((5, 300), (2, 7, 300)):
        x = torch.randn(shape)
        assert (sparse(x) - net(x)).abs().max() <= 1e-6
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.allclose(sparse(x).float(), net(x).float(), atol=0.05)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert list(sparse[0].parameters()) == []
    assert sparse[0].values.numel() == int((net[0].weight != 0).sum())


def test_csr_leaves_dense_layers_and_refuses_a_share_that_is_none():
    assert type(packing.to_csr(nn.Linear(20, 20))) is nn.Linear
    assert type(packing.to_csr(nn.Linear(20, 20), at_least=0.0)) is packing.CSRLinear
    with pytest.raises(ValueError, match="between 0 and 1"):
        packing.to_csr(nn.Linear(2, 2), at_least=95)
