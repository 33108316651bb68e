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
from saved_networks import quantised
from torch import nn

from lab.runs import Damaged, read
from lab.utils.errors import LabError
from lab.utils.files import ROOT
from principled import quantize
from principled.files import load, meta, precisions, save, sizes
from principled.files import quantized as quantized_files
from principled.files.container import seal

MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 255, 2**20, 2**31, 2**40, 2**63, 10**30, -1, 1.5, None, True, "x", [], {}])
OLDER = ROOT / "tests/fixtures/older"
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
def precise():
    return (OLDER / "quantised.safetensors").read_bytes()


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
    return lines_of((meta, precisions, lambda p: load(p, small())), path)


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
def sparse():
    return (OLDER / "sparse.safetensors").read_bytes()


@MANY
@given(data=st.data())
def test_sparse_files_whose_header_was_twisted(sparse, tmp_path, data):
    n = struct.unpack("<Q", sparse[:8])[0]
    header = json.loads(sparse[8 : 8 + n])
    metadata = header["__metadata__"]
    if data.draw(st.booleans()):
        metadata["layout"] = json.dumps(twisted(data.draw, json.loads(metadata["layout"])))
    else:
        header = twisted(data.draw, header)
    text = json.dumps(header).encode()
    (tmp_path / "net").write_bytes(struct.pack("<Q", len(text)) + text + sparse[8 + n :])
    lines_of((meta, load), tmp_path / "net")


# -- the format of today -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every form in one file: floats with zeros, a palette, whole numbers, levels with classes, a copy, a blob."""
    torch.manual_seed(0)
    net = quantised(small()).harden()
    usual = torch.randn(16, 40)
    step = usual.abs().amax(1, keepdim=True) / 7
    p = torch.arange(64)[:, None] // 8 + torch.randint(2, (64, 160))
    for name, tensor in {
        "usual": usual * (usual > 0), "again": usual * (usual > 0), "palette": usual.sign() * 0.3,
        "scaled": (usual / step).round() * step, "halves": usual.half(), "mask": torch.ones(40, 40).tril().bool(),
        "levels": quantize(usual.repeat(4, 4).clamp(-1.9, 1.9), p),
    }.items():  # fmt: skip
        net.register_buffer(name, tensor)
    path = save(tmp_path_factory.mktemp("saved") / "net", net, meta={"model": "small"})
    assert {row.form for row in sizes(path).rows} == {"float", "palette", "scaled", "levels", "same", "bytes"}
    return path.read_bytes()


def unsealed(content: bytes):
    """Header, words, raw section with the blob."""
    text, words = (int.from_bytes(content[at : at + 4], "little") for at in (40, 44))
    header = json.loads(zlib.decompress(content[48 : 48 + text]))
    return header, content[48 + text : 48 + text + 4 * words], content[48 + text + 4 * words :]


def sealed(header, words: bytes, raw: bytes) -> bytes:
    text = header if isinstance(header, bytes) else zlib.compress(json.dumps(header).encode())
    return seal(text, words[: len(words) // 4 * 4], raw)


def readings(path):
    def into(path):
        load(path, small())

    return lines_of((meta, sizes, precisions, load, into), path)


@MANY
@given(data=st.data())
def test_files_whose_digest_alone_is_right(saved, tmp_path, data):
    header, words, raw = unsealed(saved)
    what = data.draw(st.sampled_from(["header", "header", "words", "raw"]))
    if what == "header":
        header = twisted(data.draw, header)
    elif what == "words":
        words = shaken(data.draw, words)
    else:
        raw = shaken(data.draw, raw)
    (tmp_path / "net").write_bytes(sealed(header, words, raw))
    readings(tmp_path / "net")


@MANY
@given(data=st.data())
def test_files_that_were_shaken_are_refused(saved, tmp_path, data):
    content = shaken(data.draw, saved)
    if content != saved:
        (tmp_path / "net").write_bytes(content)
        assert len(readings(tmp_path / "net")) == 5


def changed(content, **args):
    """The file with arguments of its tensors changed: ``form={key: value}``."""
    header, words, raw = unsealed(content)
    for tensor in header["tensors"]:
        tensor[4] |= args.get(tensor[3], {})
    return sealed(header, words, raw)


def reshaped(content, name, shape):
    header, words, raw = unsealed(content)
    for tensor in header["tensors"]:
        if tensor[0] == name:
            tensor[2] = shape
    return sealed(header, words, raw)


def with_header(content, **parts):
    header, words, raw = unsealed(content)
    return sealed(header | parts, words, raw)


HOSTILE = {
    "header bomb": lambda c: sealed(zlib.compress(BOMB), *unsealed(c)[1:]),
    "blob bomb": lambda c: with_header(c, blob=len(zlib.compress(BOMB)))[:-20] + zlib.compress(BOMB),
    "deep": lambda c: sealed(zlib.compress(b"[" * 100_000), *unsealed(c)[1:]),
    "too large": lambda c: reshaped(c, "usual", [2**30, 2**30]),
    "beyond any tensor": lambda c: reshaped(c, "usual", [2**62, 2**62, 0]),
    "as large as may be": lambda c: reshaped(c, "usual", [2**23]),
    "negative": lambda c: reshaped(c, "usual", [-1]),
    "a palette of gigabytes": lambda c: changed(c, palette={"n": 2**40}),
    "no palette": lambda c: changed(c, palette={"n": 0}),
    "scales of gigabytes": lambda c: changed(c, scaled={"n": 2**40}),
    "blocks of nothing": lambda c: changed(c, levels={"block": 0}),
    "blocks below nothing": lambda c: changed(c, levels={"block": -3}),
    "blocks of all": lambda c: changed(c, levels={"block": 2**70}),
    "no such table": lambda c: changed(c, float={"m": [99, 99, 99]}),
    "no planes": lambda c: changed(c, float={"m": []}),
    "classes of nothing": lambda c: changed(c, levels={"p": {"t": [0, 0], "r": "", "c": ""}}),
    "tied to itself": lambda c: changed(c, same={"as": "again"}),
    "tied to nothing": lambda c: changed(c, same={"as": "nobody"}),
    "a table of nothing": lambda c: with_header(c, tables=[[0, "###"]] * 99),
    "a table too heavy": lambda c: with_header(c, tables=[[0, "c" + "#" * 5000]] * 99),
    "a long table": lambda c: with_header(c, tables=[[0, "$" + "#" * 2**17]] * 99),
    "tables of gigabytes": lambda c: with_header(c, tables=[[2**60, "$$"]] * 99),
    "nothing": lambda c: with_header(c, tensors=[]),
    "no text": lambda c: with_header(c, meta={"a": 1}),
    "a longer section": lambda c: seal(*sections(c, more=b"\0" * 8)),
}  # fmt: skip


def sections(content, more):
    header, words, raw = unsealed(content)
    return zlib.compress(json.dumps(header).encode()), words, more + raw


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_spelled_out_is_refused_by_every_reader(saved, tmp_path, how):
    (tmp_path / "net").write_bytes(HOSTILE[how](saved))
    lines = readings(tmp_path / "net")
    assert lines, "it was read"
    assert all("contradicts itself" in line or "altered" in line or "another network" in line for line in lines), lines


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.001, 0.1, 0.5, 0.99999])
def test_a_saved_file_cut_short_is_refused(saved, tmp_path, share):
    (tmp_path / "net").write_bytes(saved[: int(share * len(saved))])
    lines = readings(tmp_path / "net")
    assert len(lines) == 5
    assert all("cut short" in line for line in lines)


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
