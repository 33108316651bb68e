"""One small file for any network: bit for bit back, as small as its entropy allows, and readable by thirty lines."""

import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_networks import pruned_resnet20, quantised, same_bits
from torch import nn

from lab.models import resnet20
from lab.utils.files import ROOT
from principled import FixedPrecision, Folded, Relaxed, SoftSharing, fold, quantize
from principled.files import change, fold_batchnorm, load, meta, precisions, program, save, sizes
from principled.files.__main__ import main
from principled.files.coder import Reader
from principled.files.container import read_container
from principled.files.tables import Table, bits, clusters
from principled.smol_training import Quantised


def same_state(state, net):
    """Equal bit for bit, but for the sign of zeros."""
    own = net if isinstance(net, dict) else net.state_dict()
    assert list(state) == list(own)
    for name, tensor in own.items():
        tensor = tensor.detach()
        plain = torch.where(tensor == 0, torch.zeros_like(tensor), tensor)
        assert same_bits(state[name], plain), name


def form(path, name):
    return next(row.form for row in sizes(path).rows if row.name == name)


# -- any network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.0, 0.8, 0.95, 0.999])
def test_a_network_comes_back_bit_for_bit_into_its_own_class(tmp_path, sparsity):
    net = pruned_resnet20(sparsity)
    path = save(tmp_path / "net.principled", net, meta={"model": "resnet20"})
    same_state(load(path), net)
    into = resnet20()
    assert load(path, into) is into
    same_state(into.state_dict(), net)
    assert meta(path) == {"model": "resnet20"}
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(into.eval()(images), net.eval()(images))


def test_quantised_networks_keep_their_precisions_whatever_says_so(tmp_path):
    torch.manual_seed(0)
    fixed = quantised(resnet20())
    plain, own = fixed.harden(), fixed.relaxations[0]
    done = Quantised(plain, own.precision(), own.scales())
    contents = []
    for net in (fixed, done, plain):
        path = save(tmp_path / "net", net)
        contents.append(path.read_bytes())
        same_state(load(path), plain)
        assert load(path, resnet20()).linear.weight.equal(plain.linear.weight)
        read = precisions(path)
        assert read.keys() == own.precision().keys() or net is plain
        assert len(read) > 15
        assert all(torch.equal(own.precision()[name], p) for name, p in read.items())
    assert contents[0] == contents[1]
    assert len(contents[2]) <= len(contents[0])


def test_a_scale_that_is_no_power_of_two_is_kept(tmp_path):
    net, p = nn.Linear(200, 20), torch.randint(0, 9, (20, 200))
    fixed = Relaxed(net, FixedPrecision({"weight": p}, 0.37))
    same_state(load(save(tmp_path / "net", fixed)), fixed.harden())
    assert torch.equal(precisions(tmp_path / "net")["weight"], p.to(torch.int8))


@pytest.mark.parametrize("most", [12, 20, 24])
def test_levels_of_many_bits(tmp_path, most):
    p = torch.randint(0, most + 1, (30, 100))
    weight = quantize(torch.randn(30, 100).clamp(-1.9, 1.9), p)
    net = nn.Linear(100, 30, bias=False)
    net.weight.data = weight
    same_state(load(save(tmp_path / "net", Quantised(net, {"weight": p}, {"weight": 1.0}))), net)


def test_shared_folded_and_tied_networks(tmp_path):
    shared = Relaxed(resnet20(), SoftSharing(templates=1))
    with torch.no_grad():
        for alpha in shared.relaxations[0].alpha.values():
            alpha.add_(0.1)
    same_state(load(save(tmp_path / "shared", shared)), shared)
    folded = fold(shared, 0.9)
    again = Folded(resnet20(), program(save(tmp_path / "folded", folded)))
    load(tmp_path / "folded", again)
    same_state(again.state_dict(), folded)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(images), folded.eval()(images))
    layer = nn.Linear(64, 64)
    tied = nn.Sequential(layer, nn.ReLU(), layer)
    path = save(tmp_path / "tied", tied)
    same_state(load(path), tied)
    assert [row.form for row in sizes(path).rows] == ["float", "float", "same", "same"]
    assert path.stat().st_size < 64 * 64 * 4
    assert program(tmp_path / "folded") == folded.program
    with pytest.raises(ValueError, match="no folded network"):
        program(path)


TYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int8", "uint8", "bool", "complex64", "float8_e4m3fn"]


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(TYPES),
    st.sampled_from([0.0, 0.1, 1.0]),
)
def test_any_tensor_comes_back(tmp_path_factory, seed, dtype, density):
    source = torch.Generator().manual_seed(seed)
    shape = torch.randint(0, 40, (int(torch.randint(0, 4, (1,), generator=source)),), generator=source).tolist()
    tensor = torch.randn(shape, generator=source) * 9 * (torch.rand(shape, generator=source) < density)
    net = nn.Module()
    net.register_buffer("t", tensor.to(getattr(torch, dtype)))
    path = save(tmp_path_factory.mktemp("any") / "t", net)
    back = load(path)["t"]
    assert back.dtype == net.t.dtype
    assert back.shape == net.t.shape
    signed = dtype.startswith("float8") or not net.t.is_floating_point()
    wanted = net.t if signed else torch.where(net.t == 0, torch.zeros_like(net.t), net.t)
    assert same_bits(back, wanted)


def test_infinities_nan_subnormals_and_channels_last(tmp_path):
    net = nn.Conv2d(3, 200, 3)
    net.weight.data.mul_(torch.rand_like(net.weight) < 0.3)  # the negative ones become -0.0
    assert torch.signbit(net.weight[net.weight == 0]).any()
    net.weight.data.flatten()[:6] = torch.tensor(
        [float("nan"), float("inf"), -float("inf"), -1e-45, 1e-39, torch.finfo(torch.float32).max]
    )
    net = net.to(memory_format=torch.channels_last)
    same_state(load(save(tmp_path / "net", net)), net)
    assert not torch.signbit(load(tmp_path / "net")["weight"].flatten()[6:][net.weight.flatten()[6:] == 0]).any()


def test_equal_networks_give_equal_bytes(tmp_path):
    net, said = pruned_resnet20(0.9), {"run": "1", "model": "resnet20"}
    save(tmp_path / "a", net, meta=said)
    save(tmp_path / "b", net, meta=dict(reversed(said.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# -- the forms, and what they take -------------------------------------------------------------------------------------


def test_each_kind_of_tensor_takes_its_form(tmp_path):
    torch.manual_seed(0)
    net = nn.Module()
    usual = torch.randn(64, 300)
    net.register_buffer("usual", usual)
    net.register_buffer("ternary", torch.where(usual > 1, 0.3, torch.where(usual > 0.2, -0.123, 0.0)))
    step = usual.abs().amax(1, keepdim=True) / 7
    net.register_buffer("filters", (usual / step).round() * step)
    net.register_buffer("bits", quantize(usual.clamp(-1.9, 1.9), torch.randint(0, 9, usual.shape)))
    net.register_buffer("again", usual.clone())
    net.register_buffer("mask", torch.ones(300, 300, dtype=torch.bool).tril())
    path = save(tmp_path / "net", net)
    same_state(load(path), net)
    rows = {row.name: row for row in sizes(path).rows}
    forms = {name: row.form for name, row in rows.items()}
    assert forms == {"usual": "float", "ternary": "palette", "filters": "scaled", "bits": "levels", "again": "same",
                     "mask": "bytes"}  # fmt: skip
    spent = {name: row.coded + row.precisions + row.raw for name, row in rows.items()}
    count = usual.numel()
    assert spent["usual"] < 0.9 * 4 * count
    assert spent["ternary"] < 1.01 * bits(np.unique(net.ternary, return_counts=True)[1]) / 8 + 20
    assert spent["filters"] < 4.1 * count / 8 + 4 * 64
    assert spent["mask"] < 2000


def test_sizes_add_up_to_the_file(tmp_path):
    net = resnet20()
    for tensor in net.state_dict().values():  # fresh normalisations are all the same
        tensor.normal_() if tensor.is_floating_point() else tensor.fill_(3)
    path = save(tmp_path / "net", quantised(net))
    spent = sizes(path)
    assert spent.file == path.stat().st_size
    rows = sum(row.coded + row.precisions + row.raw for row in spent.rows)
    assert abs(spent.file - spent.header - rows) < 16
    assert 0 < spent.tables < spent.header
    assert spent.plain == sum(t.numel() * t.element_size() for t in resnet20().state_dict().values())


def test_level_numbers_take_at_most_3_percent_above_their_entropy():
    """Given tensor and precision, over the shipped network with a precision for every weight; tables included."""
    (path,) = (ROOT / "data" / "models").glob("precision-smol-*")
    state, precision = load(path), precisions(path)
    entropy = 0.0
    for name, p in precision.items():
        for each in p.unique():
            entropy += bits(np.unique(state[name][p == each], return_counts=True)[1]) / 8
    spent = sizes(path)
    coded = sum(row.coded for row in spent.rows if row.form == "levels")
    assert coded + spent.tables <= 1.03 * entropy, (coded, spent.tables, entropy)


@pytest.mark.parametrize(
    ("method", "at_most"), [("cs", 175_000), ("gmp", 73_000), ("dense", 930_000), ("smol", 127_000)]
)
def test_the_shipped_networks_are_as_small_as_was_computed(method, at_most):
    (path,) = (ROOT / "data" / "models").glob(f"*-{method}-*")
    assert sizes(path).file <= at_most


def test_contexts_share_a_table_where_two_do_not_pay():
    source = np.random.default_rng(0)
    few = np.stack([np.bincount(source.poisson(3, 30), minlength=20) for _ in range(6)])
    assert len(clusters(few)[1]) == 1
    many = np.stack([np.bincount(source.poisson(mean, 9000), minlength=90) for mean in (3, 3, 40)])
    numbers, tables = clusters(many)
    assert len(tables) == 2
    assert numbers[0] == numbers[1] != numbers[2]
    even = np.full((2, 256), 40)
    assert clusters(even, 8) == ([-1, -1], [])


# -- a reader of one's own ---------------------------------------------------------------------------------------------


class ByTheBook:
    """The coder and its tables as docs/file-format.md has them, in whole numbers; stands in for constriction's."""

    def __init__(self, path):
        content = path.read_bytes()
        text, count = (int.from_bytes(content[at : at + 4], "little") for at in (40, 44))
        self.tables = json.loads(zlib.decompress(content[48 : 48 + text]))["tables"]
        self.words = np.frombuffer(content[48 + text : 48 + text + 4 * count], "<u4").tolist()
        self.state = 0
        for _ in range(2):
            if self.words:
                self.state = self.state * 2**32 + self.words.pop()

    def table(self, text):
        k, total, sums = 0, 0, [0]
        for letter in text:
            k = (k + ord(letter) - 35) % 65
            total += [16, 19, 23, 27][(k - 1) % 4] * 2 ** ((k - 1) // 4) if k else 0
            sums.append(total)
        return [i + c * (2**24 - len(text)) // total for i, c in enumerate(sums)]

    def decode(self, count, number):
        first, text = self.tables[number]
        shares, symbols = self.table(text), []
        for _ in range(count if len(text) > 1 else 0):
            q = self.state % 2**24
            i = next(i for i in range(len(text)) if q < shares[i + 1])
            self.state = self.state // 2**24 * (shares[i + 1] - shares[i]) + q - shares[i]
            if self.state < 2**32 and self.words:
                self.state = self.state * 2**32 + self.words.pop()
            symbols.append(first + i)
        return symbols or [first] * count


def test_thirty_lines_of_whole_numbers_read_what_the_library_wrote(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(32, 9))
    net[2].weight.data *= torch.rand_like(net[2].weight) < 0.2
    path = save(tmp_path / "net", quantised(net, where=None))
    stated = load(path)
    book, tables = ByTheBook(path), read_container(path).tables
    numbers = {id(table): number for number, table in enumerate(tables)}
    for table, (_, text) in zip(tables, book.tables, strict=True):
        assert np.array_equal(np.diff(book.table(text)), table.shares())
        numbers[table] = tables.index(table)
    decoded = 0

    def decode(self, count, table):
        nonlocal decoded
        decoded += count
        return np.array(book.decode(count, numbers[table]), np.int32)

    monkeypatch.setattr(Reader, "decode", decode)
    monkeypatch.setattr(Reader, "close", lambda self: None)
    for name, tensor in load(path).items():
        assert torch.equal(tensor, stated[name]), name
    assert decoded > 1000
    assert book.state == 0
    assert not book.words


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=300).filter(any))
def test_every_table_is_read_as_it_was_written(counts):
    table = Table.of(np.array(counts))
    assert Table.read(table.first, table.text) == table
    assert int(table.shares().sum()) == 2**24
    assert int(table.shares().min()) > 0


# -- values in fewer bits ----------------------------------------------------------------------------------------------


def test_fewer_bits_are_smaller_and_say_what_they_change(tmp_path):
    torch.manual_seed(0)
    net, images = resnet20().eval(), torch.randn(8, 3, 32, 32)
    size, changes = {}, {}
    for values in ("float32", "bfloat16", "int8"):
        path = save(tmp_path / values, net, values=values)
        size[values], changes[values] = path.stat().st_size, change(path, net, images)
    assert changes["float32"].largest == 0
    assert changes["float32"].same_choice == 1
    assert 0 < changes["bfloat16"].relative < changes["int8"].relative < 0.2
    assert size["int8"] < 0.31 * size["float32"]
    assert size["bfloat16"] < 0.55 * size["float32"]
    assert "choose alike" in str(changes["int8"])
    kept = load(tmp_path / "bfloat16")
    assert all(
        torch.equal(kept[n], t.bfloat16().to(t.dtype)) for n, t in net.state_dict().items() if t.is_floating_point()
    )
    assert torch.equal(load(tmp_path / "int8")["norm.running_var"], net.norm.running_var)
    with pytest.raises(ValueError, match="values is one of float32, bfloat16, int8, not 'int4'"):
        save(tmp_path / "x", net, values="int4")


def test_a_normalisation_is_folded_into_its_convolution(tmp_path):
    torch.manual_seed(0)
    net = resnet20()
    for _ in range(3):
        net(torch.randn(16, 3, 32, 32))  # running statistics that are not 0 and 1
    images = torch.randn(4, 3, 32, 32)
    lean = fold_batchnorm(net.eval())
    assert not [m for m in lean.modules() if isinstance(m, nn.BatchNorm2d)]
    assert torch.allclose(lean(images), net(images), atol=1e-4)
    assert save(tmp_path / "lean", lean).stat().st_size < save(tmp_path / "net", net).stat().st_size
    again = load(tmp_path / "lean", fold_batchnorm(resnet20().eval()))
    assert torch.equal(again(images), lean(images))
    with pytest.raises(ValueError, match="no BatchNorm"):
        fold_batchnorm(nn.Linear(2, 2))


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_another_network_is_refused_by_its_tensor_and_shape(tmp_path):
    path = save(tmp_path / "net", resnet20())
    for net, line in (
        (resnet20(100), r"linear.weight has shape \[10, 64\] in the file and \[100, 64\] in the network"),
        (nn.Linear(2, 2), "this Linear: that has no tensor 'conv.weight'"),
        (resnet20().double(), "conv.weight is float32 in the file and torch.float64 in the network"),
    ):
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        with pytest.raises(ValueError, match=line) as caught:
            load(path, net)
        assert "\n" not in str(caught.value)
        assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    small = nn.Module()
    small.register_buffer("t", torch.ones(2))
    with pytest.raises(ValueError, match="the file has no tensor 'weight'"):
        load(save(tmp_path / "t", nn.Module()), nn.Linear(2, 2))


def test_what_a_file_cannot_keep_is_refused_by_name(tmp_path):
    net = nn.Module()
    net.register_buffer("odd", torch.ones(3, 3).to_sparse())
    with pytest.raises(ValueError, match=r"odd is float32, torch\.sparse_coo"):
        save(tmp_path / "x", net)
    with pytest.raises(ValueError, match="weight is on the meta device"):
        save(tmp_path / "x", nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match=r"meta of .* is text to text"):
        save(tmp_path / "x", nn.Linear(2, 2), meta={"epochs": 3})
    p = {"weight": torch.full((1, 4), 3)}
    with pytest.raises(ValueError, match="weight has weights that are on no level of their precision"):
        save(tmp_path / "x", Quantised(nn.Linear(4, 1), p, {"weight": 1.0}))
    with pytest.raises(ValueError, match="no weight 'w' for its precision"):
        save(tmp_path / "x", Quantised(nn.Linear(4, 1), {"w": p["weight"]}, {}))
    assert not list(tmp_path.iterdir())


def test_the_command_prints_the_table_or_one_line(tmp_path, capsys):
    path = save(tmp_path / "net", pruned_resnet20(0.9), meta={"run": "0123"})
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "run 0123" in out
    assert f"file {path.stat().st_size:,} bytes" in out
    path.write_bytes(path.read_bytes()[:-1])
    assert main([str(path)]) == 1
    assert "was altered or cut short" in capsys.readouterr().err
    assert main([]) == 2


ALONE = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in HIDE:
            raise ModuleNotFoundError(f"No module named {root!r}", name=root)

HIDE = {"lab", "safetensors", "fastjsonschema", "pandas", "scipy", "torchvision"} | set(sys.argv[2:])
sys.meta_path.insert(0, Hidden())
import torch
from principled.files import load, save
net = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.BatchNorm1d(20))
print(torch.equal(load(save(sys.argv[1], net))["0.weight"], net[0].weight))
"""


def test_it_needs_numpy_and_the_coder_alone_and_says_so(tmp_path):
    command = [sys.executable, "-c", ALONE, str(tmp_path / "net")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.stdout == "True\n", run.stderr
    run = subprocess.run([*command, "constriction"], capture_output=True, text=True, timeout=120, check=False)
    assert run.stderr.splitlines()[-1].endswith("principled.files needs constriction: pip install 'principled[files]'")
