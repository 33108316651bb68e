"""Files made by somebody who means harm: parts that agree with their digest and contradict each other. Each is read, or
refused in one line; none ends in another error, hangs, or takes the machine's memory.

Of each kind of file 150 are made by chance (hypothesis, a fixed seed), beside the ones that are spelled out.
"""

import json
import lzma
import resource
import struct
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from test_quantized_files import quantised
from torch import nn

from lab.runs import Damaged, read
from lab.utils.errors import LabError
from principled.files import quantized as quantized_files
from principled.files import sparse as packing

MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 255, 2**20, 2**31, 2**40, 2**63, 10**30, -1, 1.5, None, True, "x", [], {}])
ROOM = 2**30  # bytes that reading a hostile file of a few kB may add


@pytest.fixture(autouse=True)
def _bounded_memory():
    """An allocation beyond ROOM fails at once: what asks for it fails its test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as sizes:
        now = int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4))


def shaken(draw, data: bytes) -> bytes:
    """``data`` with a few bytes changed, cut out or put in."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.sampled_from(["set", "cut", "put", "end"]))
        if what == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif what == "put":
            data[at:at] = draw(st.binary(max_size=40))
        else:
            del data[at:]
    return bytes(data)


def twisted(draw, value):
    """A JSON value with one of its leaves replaced, or one entry dropped or doubled."""
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 5)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: twisted(draw, value[key])}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        change = draw(st.integers(0, 7))
        middle = [] if change == 0 else [value[at]] * 2 if change == 1 else [twisted(draw, value[at])]
        return value[:at] + middle + value[at + 1 :]
    return draw(NUMBERS | st.text(max_size=8))


# -- a precision for every weight
# ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def precise(tmp_path_factory):
    path = tmp_path_factory.mktemp("precise") / "net"
    quantized_files.pack(path, quantised(small()))
    return path.read_bytes()


def resealed(content: bytes, change) -> bytes:
    """The file with its parts changed and its digest made right again."""
    tensors = load_tensors(content)
    parts = {name: tensors[name].numpy().tobytes() if name in tensors else b"" for name in quantized_files.PARTS}
    parts = change(parts)
    seal = {"format": quantized_files.FORMAT, "digest": quantized_files._digest(parts, {}), "about": {}}
    kept = {k: torch.frombuffer(bytearray(v), dtype=torch.uint8) for k, v in parts.items() if v}
    return save_tensors(kept, {"principled": json.dumps(seal, sort_keys=True)})


def packed_layout(layout) -> bytes:
    return lzma.compress(json.dumps(layout).encode(), format=lzma.FORMAT_ALONE)


def layout_of(parts):
    return json.loads(lzma.decompress(parts["layout"]))


def survives(path, content):
    """Each way to read the file gives something or one line; returns the lines. The network is never read where a look
    is refused."""
    path.write_bytes(content)
    looks = (quantized_files.sizes, quantized_files.precisions, lambda p: quantized_files.unpack(p, small()))
    return lines_of(looks, path)


def lines_of(looks, path):
    """The lines with which ``looks`` refuse the file; the last one, which makes the network, is the strictest."""
    said = []
    for look in looks:
        try:
            look(path)
            refused = False
        except (ValueError, OSError, LabError) as error:
            said.append(one_line(error))
            refused = True
    assert refused or not said, said
    return said


@MANY
@given(data=st.data())
def test_parts_that_agree_with_their_digest_alone(precise, tmp_path, data):
    def change(parts):
        name = data.draw(st.sampled_from(quantized_files.PARTS))
        if name == "layout":
            return parts | {name: packed_layout(twisted(data.draw, layout_of(parts)))}
        if name == "kept":
            return parts | {name: zlib.compress(shaken(data.draw, zlib.decompress(parts[name])))}
        return parts | {name: shaken(data.draw, parts[name])}

    survives(tmp_path / "net", resealed(precise, change))


BOMB = bytes(2**28)


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: {"kept": zlib.compress(BOMB)},
        lambda parts: {"map": b"L" + lzma.compress(BOMB, format=lzma.FORMAT_ALONE, preset=0)},
        lambda parts: {"layout": lzma.compress(b" " * len(BOMB), format=lzma.FORMAT_ALONE, preset=0)},
        lambda parts: {"map": b"B" + bytes(8) + parts["map"]},
        lambda parts: {"map": b"B\1\0\0\0\0\0\0\0" * 5000 + parts["map"]},
        lambda parts: {"layout": packed_layout(layout_of(parts) | {"weights": [["0.weight", [2**14, 2**15], 1.0]]})},
        lambda parts: {"layout": packed_layout(layout_of(parts) | {"kept": [["0.bias", "load", [8]]]})},
        lambda parts: {"layout": b"[" * 100_000},
        lambda parts: {"layout": lzma.compress(b"[" * 100_000, format=lzma.FORMAT_ALONE)},
    ],
    ids=[
        "zlib bomb",
        "map bomb",
        "layout bomb",
        "blocks of nothing",
        "blocks of blocks",
        "too large",
        "no type",
        "no lzma",
        "deep",
    ],
)
def test_what_is_spelled_out_is_refused(precise, tmp_path, change):
    said = survives(tmp_path / "net", resealed(precise, lambda parts: parts | change(parts)))
    assert said
    assert all("contradicts itself" in line or "precision map" in line for line in said), said


# -- zeros -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    path, net = tmp_path_factory.mktemp("sparse") / "net", small()
    with torch.no_grad():
        net[0].weight.mul_(net[0].weight > 0.1)
        net[3].weight.mul_(net[3].weight > 0.2)
    packing.pack(net, path, {"model": "small"})
    return path.read_bytes()


@MANY
@given(data=st.data())
def test_sparse_files_whose_header_was_twisted(sparse, tmp_path, data):
    n = struct.unpack("<Q", sparse[:8])[0]
    header = json.loads(sparse[8 : 8 + n])
    told = header["__metadata__"]
    if data.draw(st.booleans()):
        told["layout"] = json.dumps(twisted(data.draw, json.loads(told["layout"])))
    else:
        header = twisted(data.draw, header)
    text = json.dumps(header).encode()
    (tmp_path / "net").write_bytes(struct.pack("<Q", len(text)) + text + sparse[8 + n :])
    lines_of((packing.sizes, packing.metadata, packing.unpack), tmp_path / "net")


# -- records -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    from lab.utils.files import ROOT

    return next((ROOT / "data" / "runs" / "pruning").glob("*.json"))


@MANY
@given(data=st.data())
def test_records_that_were_twisted_or_shaken(record, tmp_path, data):
    content = json.loads(record.read_text("utf-8"))
    content.pop("recording", None)
    text = json.dumps(twisted(data.draw, content)).encode()
    path = tmp_path / record.name
    path.write_bytes(shaken(data.draw, text) if data.draw(st.booleans()) else text)
    try:
        assert read(path)["id"] == record.stem
    except Damaged as error:
        one_line(error)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "1" * 100_000, '{"schema": 1e999}', "null", '"x"', "\ud800".encode("utf-8", "surrogatepass")],
)
def test_records_that_are_none(record, tmp_path, text):
    path = tmp_path / record.name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Damaged):
        read(path)
