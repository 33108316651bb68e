"""Supermasks as declared: frozen weights stay, a run records what it found, and a stop anywhere leaves no trace."""

import math
from contextlib import suppress

import pytest
import torch
from tiny_run import made_up
from torch import nn

from lab.datasets import load
from lab.experiments.sparsity import common as _sparse
from lab.experiments.sparsity import supermasks
from lab.models import conv6
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError


@pytest.fixture(autouse=True)
def small(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(_sparse, "load", made_up)
    monkeypatch.setitem(_sparse.NETWORKS, "conv6-quarter", (lambda n: conv6(n, 0.06), (nn.Conv2d, nn.Linear)))


def tiny(name, s_init=0.0, seed=0, **training):
    protocol = supermasks.PROTOCOL["quick"]
    method = supermasks.method_config(name, protocol, s_init=s_init)
    training = {"epochs": 2, "batch_size": 32, "lr": 0.1} | supermasks.CONSTANT | training
    config = {"model": protocol["model"], "data": "cifar10-mini", "training": training, "method": method}
    return Run("supermasks", config, "short", seed)


def compute(run, path, stop=lambda: False):
    return supermasks.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once(profile):
    found = supermasks.runs(profile)
    assert len({run.id for run in found}) == len(found)
    assert {run.config["method"]["name"] for run in found} == {"supermask", "ss"}


def test_the_paper_protocol_is_the_thesis_s():
    cs, ss = supermasks.run("paper", "supermask", s_init=0.0), supermasks.run("paper", "ss", s_init=0.0)
    assert cs.config["training"]["epochs"] == 100
    assert (cs.config["method"]["lr_s"], ss.config["method"]["lr_s"]) == (3e-4, 100.0)
    assert cs.config["model"] == "conv6"


@pytest.mark.parametrize("name", ["supermask", "ss"])
def test_a_run_stopped_anywhere_ends_as_one_never_stopped_and_moves_no_weight(name, tmp_path):
    run = tiny(name)
    straight = compute(run, tmp_path / "a.pt")
    calls = []

    def stop():
        calls.append(1)
        return len(calls) in (1, 3)

    for _ in range(2):
        with suppress(Stopped):
            compute(run, tmp_path / "b.pt", stop)
    got = compute(run, tmp_path / "b.pt")
    assert got["figures"] == straight["figures"]
    start = _sparse.network(run).state_dict()
    for key, value in got["model"].state_dict().items():
        assert torch.equal(value, straight["model"].state_dict()[key])
        assert ((value == 0) | (value == start[key])).all()  # a weight is its start, or gone
    zeros = [got["model"].get_parameter(n) == 0 for n in _sparse.masked_names(run, got["model"])]
    share = sum(int(z.sum()) for z in zeros) / sum(z.numel() for z in zeros)
    assert got["figures"]["sparsity"] == pytest.approx(share)
    assert got["figures"]["exact"] <= got["figures"]["sparsity"] or name == "ss"


def test_a_mask_finds_a_network_in_random_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(_sparse, "load", load)  # real images
    monkeypatch.setitem(_sparse.NETWORKS, "conv6-quarter", (lambda n: conv6(n, 0.12), (nn.Conv2d, nn.Linear)))
    run = tiny("supermask", epochs=3, batch_size=50)
    figures = compute(run, tmp_path / "c.pt")["figures"]
    assert figures["accuracy"] > figures["accuracy_random"] + 0.05
    assert 0.1 < figures["sparsity"] < 0.95


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("imp", {"s_init": 0.0}, "unknown method 'imp': choose supermask or ss"),
        ("supermask", {}, "supermask needs an s_init"),
        ("ss", {"s_init": math.inf}, "s_init must be a finite number"),
        ("supermask", {"s_init": 0.0, "lambda": -1.0}, "lambda must not be negative"),
    ],
)
def test_a_wrong_declaration_is_one_line(name, options, words):
    with pytest.raises(LabError, match=words):
        supermasks.run("quick", name, **options)
