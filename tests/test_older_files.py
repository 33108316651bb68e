"""Files of earlier versions are read bit for bit, and damage to them is refused in one line.

``fixtures/older`` holds one of each format as those versions wrote it, and beside it the same tensors as they are.
"""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from saved_networks import same_bits
from torch import nn

from lab.models import resnet20
from lab.utils.files import ROOT
from principled.files import load, meta, precisions
from principled.files.quantized import read_bits

OLDER = ROOT / "tests/fixtures/older"
BOTH = pytest.mark.parametrize("kind", ["sparse", "quantised"])


def content(kind):
    return (OLDER / f"{kind}.safetensors").read_bytes()


def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4))


def refused(path):
    with pytest.raises(ValueError, match=r"cut short|damaged|altered|packed network|format") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


@BOTH
def test_every_tensor_comes_back(kind):
    plain = load_file(OLDER / f"{kind}-plain.safetensors")
    state = load(OLDER / f"{kind}.safetensors")
    bits = {name: plain.pop(f"precision:{name}") for name in state if f"precision:{name}" in plain}
    assert state.keys() == plain.keys()
    assert all(same_bits(state[name], tensor) for name, tensor in plain.items())
    read = precisions(OLDER / f"{kind}.safetensors")
    assert read.keys() == bits.keys()
    assert all(torch.equal(read[name], p) for name, p in bits.items())


def test_what_they_say_of_themselves_is_read():
    assert meta(OLDER / "sparse.safetensors") == {"model": "small"}
    assert meta(OLDER / "quantised.safetensors") == {"run": "0123"}


def test_a_network_of_ones_own_is_filled():
    net, plain = small(), load_file(OLDER / "quantised-plain.safetensors")
    assert load(OLDER / "quantised.safetensors", net) is net
    assert all(torch.equal(tensor, plain[name]) for name, tensor in net.state_dict().items())
    for kind in ("quantised", "sparse"):
        with pytest.raises(ValueError, match="does not fit this ResNet"):
            load(OLDER / f"{kind}.safetensors", resnet20())


@BOTH
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.9995])
def test_a_file_cut_short_is_refused(kind, share, tmp_path):
    whole = content(kind)
    (tmp_path / "cut").write_bytes(whole[: int(share * len(whole))])
    refused(tmp_path / "cut")


@BOTH
def test_one_flipped_bit_anywhere_is_refused(kind, tmp_path):
    whole, tried = content(kind), 0
    for place in [0, 7, 9, *torch.randint(len(whole), (60,)).tolist(), len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(torch.randint(8, ()))
        if bytes(flipped[8:]).strip() == whole[8:].strip():
            continue
        (tmp_path / "altered").write_bytes(flipped)
        refused(tmp_path / "altered")
        tried += 1
    assert tried > 50  # the others fell on the blanks after the header


@BOTH
def test_what_they_say_of_themselves_is_sealed_too(kind, tmp_path):
    old, new = {"sparse": (b"small", b"large"), "quantised": (b"0123", b"4567")}[kind]
    assert content(kind).count(old) == 1
    (tmp_path / "forged").write_bytes(content(kind).replace(old, new))
    assert "altered" in refused(tmp_path / "forged")


@pytest.mark.parametrize(
    "layout",
    ["", "[]", "{}", '{"gaps":{}}', '{"gaps":{"form":"gaps","shape":[1000000000000]}}',
     '{"a":{"form":"tied","to":"b"}}', '{"0.weight":{"form":"bitmap","shape":[-1]}}',
     '{"0.weight":{"form":"bitmap","shape":["x"]}}'],
)  # fmt: skip
def test_a_made_up_layout_is_refused(layout, tmp_path):
    whole = content("sparse")
    n = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + n])
    header["__metadata__"]["layout"] = layout
    text = json.dumps(header).encode()
    (tmp_path / "odd").write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + n :])
    assert "altered" in refused(tmp_path / "odd")


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "plain").write_bytes(save(resnet20().state_dict()))
    assert "no packed network" in refused(tmp_path / "plain")
    torch.save(resnet20().state_dict(), tmp_path / "pickle")
    refused(tmp_path / "pickle")
    (tmp_path / "text").write_text("weights: none\n" * 100)
    refused(tmp_path / "text")
    newer = {"principled": '{"format": "principled-precisions-2"}'}
    save_file(load_file(OLDER / "quantised.safetensors"), tmp_path / "newer", newer)
    assert "has format 'principled-precisions-2', and this version" in refused(tmp_path / "newer")
    with pytest.raises(FileNotFoundError, match="missing"):
        load(tmp_path / "missing")


def test_bits_by_hand():
    data, widths = bytes([0b10111111, 0b11110000]), np.array([3, 0, 1, 8])
    assert read_bits(data, widths).tolist() == [0b101, 0, 0b1, 0b11111111]
    with pytest.raises(ValueError, match="the payload has 2 bytes where the precision map asks for 3"):
        read_bits(data, np.array([3, 0, 1, 20]))
