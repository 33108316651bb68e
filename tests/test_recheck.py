"""A shipped model is held against its record: what agrees passes, every kind of disagreement is metadata apart."""

import argparse
import json
import math
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from lab import runs
from lab.baselines import MagnitudeMask
from lab.datasets import load
from lab.experiments.precision import activations, few_bits
from lab.experiments.precision import weights as precision_runs
from lab.experiments.sparsity import pruning, rivals
from lab.experiments.sparsity.selection import layer_zeros, zeros
from lab.models import resnet20
from lab.models.activated import ActivatedResNet
from lab.runs import recheck
from lab.training import accuracy
from lab.utils.errors import LabError
from lab.utils.files import save_model
from principled import Relaxed, Smol, fix_precision
from principled.files import meta, save
from principled.relax import is_spatial_convolution, select

PROVENANCE = {
    "source": "0", "commit": None, "dirty": None, "torch": "2", "cuda": None, "python": "3", "device": "a CPU",
    "precision": "float32", "threads": 1, "seconds": 1.0, "recorded": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@cache
def untrained(sparsity, seed):
    torch.manual_seed(seed)
    net = Relaxed(resnet20(), MagnitudeMask())
    net.relaxations[0].prune(net.weights(), sparsity)
    net = net.harden()
    data = load("cifar10-mini", "train")  # BatchNorm has seen images, so that the classes it says differ
    net.train()
    with torch.no_grad():
        net((data.images[:256].float() / 255 - 0.5) / 0.25)
    return net


@cache
def measured(net):
    return accuracy(net, load("cifar10-mini", "test"))


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A folder of records and one of trained networks, apart from the real ones; the embedded images stand for the full
    set."""
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(recheck.datasets, "load", lambda name, split: load("cifar10-mini", split))
    return tmp_path


def recorded(run, net, **figures):
    """Leave ``net`` and its record as a finished run does."""
    names = tuple(select(net, is_spatial_convolution))
    true = {"accuracy": measured(net), "sparsity": zeros(net, names)}
    true |= {f"sparsity.{name}": share for name, share in layer_zeros(net, names).items()}
    save_model(run.model(), net)
    return runs.write(run, "finished", {"figures": true | figures}, PROVENANCE)


@pytest.fixture
def shipped(book):
    """One pruned model, shipped."""
    run = pruning.run("short", "mp", target=0.9)
    recorded(run, untrained(0.9, seed=1))
    return run, recheck.ship(run.id, book / "models")


@pytest.fixture
def shipped_precisions(book):
    """One network with a precision for every weight, shipped."""
    torch.manual_seed(2)
    relaxed = Relaxed(untrained(0.0, seed=2), Smol(p_init=6, zero=True))
    with torch.no_grad():
        relaxed.relaxations[0].s.normal_(-2.5, 1.0)
    fixed = fix_precision(relaxed)
    precision = fixed.relaxations[0].precision()
    run = precision_runs.run("short", "smol", **{"lambda": 1e-6, "zero": True})
    net = fixed.harden()
    save_model(run.model(), net)
    figures = {"accuracy": measured(net)} | few_bits.bits_of(precision)
    recording = precision_runs.precision_recording(precision)
    runs.write(run, "finished", {"figures": figures, "recording": recording}, PROVENANCE)
    return run, net, recheck.ship(run.id, book / "models")


def test_a_quantised_network_ships_with_its_own_number_of_bits_and_agrees(shipped_precisions, book):
    run, net, path = shipped_precisions
    assert path.stat().st_size < 200_000 < sum(4 * p.numel() for p in net.parameters())
    (result,) = recheck.recheck(book / "models", data="cifar10-mini")
    assert result.agrees, result.verdict
    assert result.run == run.id
    assert result.rechecked == measured(net)


def test_a_quantised_network_whose_record_has_other_bits_disagrees(shipped_precisions, book):
    run, _, _ = shipped_precisions
    record = json.loads(run.path().read_text())
    record["figures"]["bits"] += 0.01
    run.path().write_text(json.dumps(record))
    (result,) = recheck.recheck(book / "models", data="cifar10-mini")
    assert not result.agrees
    assert "bits a weight, the file has others" in result.verdict


def test_a_quantised_file_that_was_altered_is_told(shipped_precisions, book):
    _, _, path = shipped_precisions
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))
    (result,) = recheck.recheck(book / "models", data="cifar10-mini")
    assert not result.agrees
    assert "was altered" in result.verdict


def test_ship_packs_the_recorded_network_with_what_a_user_needs(shipped, book):
    run, path = shipped
    assert path.name == f"pruning-mp-{run.id}.principled"
    assert path.stat().st_size <= recheck.LARGEST
    metadata = meta(path)
    assert {key: metadata[key] for key in ("run", "experiment", "method", "model")} == {
        "run": run.id, "experiment": "pruning", "method": "mp", "model": "resnet20",
    }  # fmt: skip
    assert torch.equal(torch.tensor(json.loads(metadata["mean"])), load("cifar10-mini", "test").mean)
    assert metadata["classes"].split(",") == list(load("cifar10-mini", "test").classes)
    assert sorted(p.name for p in (book / "build" / "packed").iterdir()) == []


def test_a_model_agrees_with_its_record(shipped, book):
    [result] = recheck.recheck(book / "models", data="cifar10-mini")
    assert result.agrees, result.verdict
    assert result.images == 1000
    assert result.recorded == pytest.approx(result.rechecked, abs=0.03)
    assert "agrees" in recheck.table([result])


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"accuracy": 0.5}, "DISAGREES ("),
        ({"sparsity": 0.899}, "DISAGREES: sparsity is 0.899999"),
        ({"sparsity.blocks.8.conv2": 0.5}, "DISAGREES: sparsity.blocks.8.conv2 is"),
        ({"sparsity.blocks.99.conv2": 0.5}, "layers are not those of the network"),
    ],
)
def test_a_record_that_says_otherwise_disagrees(shipped, book, figures, why):
    run, _ = shipped
    record = json.loads(run.path().read_text())
    record["figures"] |= figures
    run.path().write_text(json.dumps(record))
    [result] = recheck.recheck(book / "models", data="cifar10-mini")
    assert not result.agrees
    assert why in result.verdict


def test_what_is_wrong_with_one_model_does_not_stop_the_others(shipped, book):
    _, path = shipped
    folder = path.parent
    (folder / "a-cut.principled").write_bytes(path.read_bytes()[:5000])
    save(folder / "b-unknown.principled", resnet20(), meta={"run": "0" * 16})
    save(folder / "c-nameless.principled", resnet20())
    results = recheck.recheck(folder, data="cifar10-mini")
    assert [r.agrees for r in results] == [False, False, False, True]
    assert "cut short" in results[0].verdict
    assert f"no record of run {'0' * 16}" in results[1].verdict
    assert "none named" in results[2].verdict
    assert len(recheck.recheck(folder, data="cifar10-mini", limit=2)) == 2


def test_another_networks_weights_under_a_runs_name_disagree(shipped, book):
    _, path = shipped
    save(path, untrained(0.9, seed=7), meta=meta(path))
    [result] = recheck.recheck(book / "models", data="cifar10-mini")
    assert not result.agrees


def test_the_command_exits_with_1_when_a_model_disagrees(shipped, book, capsys):
    run, _ = shipped
    options = argparse.Namespace(models=book / "models", data="cifar10-mini", limit=None)
    assert recheck.main(options) == 0
    out = capsys.readouterr().out
    assert "embedded images" in out
    assert "1,000 images" in out
    run.path().unlink()
    assert recheck.main(options) == 1
    with pytest.raises(LabError, match="holds no model"):
        recheck.recheck(book / "nothing")


def test_ship_refuses_what_it_cannot_stand_for(book):
    with pytest.raises(LabError, match="no record of run abc"):
        recheck.ship("abc", book / "models")
    run = pruning.run("short", "mp", target=0.5)
    net = untrained(0.5, seed=3)
    recorded(run, net)
    with pytest.raises(LabError, match="above 300,000: too large"):
        recheck.ship(run.id, book / "models")
    save_model(run.model(), untrained(0.6, seed=3))
    with pytest.raises(LabError, match="DISAGREES: sparsity"):
        recheck.ship(run.id, book / "models")
    save_model(run.model(), net, {"figures": json.dumps({"accuracy": 0.1})})  # trained again, and not the recorded one
    with pytest.raises(LabError, match=f"is of another training than the record of run {run.id}"):
        recheck.ship(run.id, book / "models")
    run.model().unlink()
    with pytest.raises(LabError, match="is missing"):
        recheck.ship(run.id, book / "models")
    assert not (book / "models").exists()


def test_the_dense_reference_may_be_large_and_without_names_all_that_fit_are_shipped(book, capsys, monkeypatch):
    recorded(pruning.run("short", "dense", seed=0), untrained(0.0, seed=3))
    recorded(pruning.run("short", "dense", seed=1), untrained(0.0, seed=4))
    recorded(pruning.run("short", "mp", target=0.98), untrained(0.98, seed=4))
    options = argparse.Namespace(runs=[])
    folder = book / "models"
    monkeypatch.setattr(recheck, "FOLDER", folder)
    assert recheck.ship_main(options) == 0
    assert sorted(p.name.split("-")[1] for p in folder.iterdir()) == ["dense", "mp"]
    assert "too large" in capsys.readouterr().err


def test_without_names_what_no_recheck_knows_is_passed_over_with_a_line(book, capsys, monkeypatch):
    recorded(pruning.run("short", "mp", target=0.98), untrained(0.98, seed=4))
    other = rivals.run("short", "mp", network="vgg16", target=0.9)
    recorded(other, untrained(0.9, seed=1))
    acts = activations.run("short", "pact", bits=2)
    net = activations.METHODS["pact"](acts.config["method"], torch.zeros(1, 3, 32, 32)).relax(ActivatedResNet())
    save_model(acts.model(), net)
    runs.write(acts, "finished", {"figures": {"accuracy": 0.1, "bits": 2.0}}, PROVENANCE)
    monkeypatch.setattr(recheck, "FOLDER", book / "models")
    assert recheck.ship_main(argparse.Namespace(runs=[])) == 0
    assert len(list((book / "models").iterdir())) == 1
    said = capsys.readouterr().err
    assert f"run {other.id} is of vgg16 on cifar10, which no re-check knows" in said
    assert f"run {acts.id} has tensors that a plain resnet20 has not" in said
    with pytest.raises(LabError, match="which no re-check knows"):
        recheck.ship_main(argparse.Namespace(runs=[other.id]))


def test_networks_are_known_by_the_names_of_the_configurations():
    from lab.experiments.precision import small_networks as mobile

    names = {run.config["model"] for run in mobile.runs("short")}
    assert names <= set(recheck.NETWORKS)
    with torch.device("meta"):
        assert all(recheck.network(name, 10)(torch.zeros(1, 3, 32, 32)).shape == (1, 10) for name in recheck.NETWORKS)


@pytest.mark.parametrize(("recorded", "measured", "agrees"), [
    (0.9123, 0.9123, True), (0.9123, 0.9133, True), (0.9123, 0.9113, True), (0.9123, 0.9134, False), (0.9123, 0.9112,
    False),
])  # fmt: skip
def test_on_the_full_set_ten_images_are_the_limit(recorded, measured, agrees):
    assert recheck.judge(recorded, measured, 10_000)[0] is agrees


@pytest.mark.parametrize("share", [0.1, 0.5, 0.915, 1.0, 0.0])
def test_the_interval_holds_999_of_1000_draws_and_no_smaller_one_does(share):
    n = 1000
    low, high = recheck.interval(share, n)

    def odds(k):
        return math.comb(n, k) * share**k * (1 - share) ** (n - k)

    assert sum(odds(k) for k in range(low)) <= 0.0005
    assert sum(odds(k) for k in range(high + 1, n + 1)) <= 0.0005
    assert low == n or sum(odds(k) for k in range(low + 1)) > 0.0005
    assert high == 0 or sum(odds(k) for k in range(high, n + 1)) > 0.0005


def test_a_trained_network_with_a_tied_weight_is_kept_and_read_back(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3))
    net[2].weight = net[0].weight
    save_model(tmp_path / "net.safetensors", net)
    read = load_file(tmp_path / "net.safetensors")
    assert read.keys() == net.state_dict().keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in net.state_dict().items())
