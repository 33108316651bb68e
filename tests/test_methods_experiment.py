"""One-shot pruning by all other methods: what is declared, what a run records, and that a stop anywhere leaves no trace."""

import math
from contextlib import suppress

import pytest
import torch
from tiny_run import TRAINING, made_up

from lab.experiments.sparsity import common as _sparse
from lab.experiments.sparsity import pruning
from lab.experiments.sparsity import rivals as methods
from lab.models import ResNet
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError
from principled.relax import is_spatial_convolution

METHODS = {
    "l0": {"lambda": 1e-6, "draws": 2}, "netslim": {"target": 0.8},
    "amc": {"target": 0.5, "episodes": 3, "explore": 1, "images": 20}, "str": {"decay": 0.02}, "dnw": {"target": 0.9},
    "cs-filters": {"s_init": 0.0, "lr": 0.02}, "cs": {"s_init": -0.02}, "mp": {"target": 0.8}, "gmp": {"target": 0.8},
}  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setattr(_sparse, "load", made_up)
    for name in ("resnet20", "vgg16"):
        monkeypatch.setitem(_sparse.NETWORKS, name, (lambda n: ResNet(1, n), is_spatial_convolution))
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))


def tiny(name, seed=0, **options):
    network = "vgg16" if name in methods.SAME else "resnet20"
    method = methods.method_config(name, "quick", network, **METHODS.get(name, {}) | options)
    training = TRAINING | {"epochs": 2, "finetune_epochs": 1}
    config = {"model": network, "data": "cifar10-mini", "training": training, "method": method}
    return Run("methods", config, "short", seed)


def compute(run, path, stop=lambda: False):
    return methods.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once(profile):
    found = methods.runs(profile)
    assert len({run.id for run in found}) == len(found)
    on = {(run.config["model"], run.config["method"]["name"]) for run in found}
    assert {name for model, name in on if model == "resnet20"} == set(methods.POINTS[profile]) >= {"dense", "l0", "amc"}
    assert {name for model, name in on if model == "vgg16"} == (
        set(methods.VGG_POINTS) if profile != "quick" else set()
    )


def test_a_run_has_the_protocol_of_the_runs_it_is_compared_with():
    for profile in ("quick", "short", "paper"):
        mine, theirs = methods.run(profile, "netslim", target=0.9).config, pruning.run(profile, "dense").config
        assert {k: mine[k] for k in ("model", "data", "training")} == {
            k: theirs[k] for k in ("model", "data", "training")
        }


def test_the_settings_are_the_thesis_s():
    assert methods.run("paper", "netslim", target=0.9).config["method"]["lambda"] == 1e-5
    assert methods.run("paper", "netslim", network="vgg16", target=0.9).config["method"]["lambda"] == 1e-6
    found = methods.imagenet_runs()
    assert [r.config["method"]["s_init"] for r in found if r.config["method"]["name"] == "cs"] == [
        0.0,
        -0.01,
        -0.02,
        -0.03,
        -0.05,
    ]
    training = found[0].config["training"]
    assert [training["epochs"] * at for at in training["steps"]] == pytest.approx([30, 60])
    assert (training["batch_size"], training["weight_decay"]) == (256, 1e-4)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("magic", {}, "unknown method 'magic': choose one of dense, mp"),
        ("netslim", {}, "netslim needs target"),
        ("l0", {}, "l0 needs lambda"),
        ("str", {}, "str needs decay"),
        ("cs-filters", {}, "cs-filters needs s_init"),
        ("l0", {"lambda": -1.0}, "lambda must not be negative"),
        ("dnw", {"target": 1.0}, "target must lie between 0 and 1"),
        ("amc", {"target": 0.0}, "target must lie between 0 and 1"),
        ("cs-filters", {"s_init": math.nan}, "s_init must be a finite number"),
        ("cs", {"s_init": 0.0}, "cs on ResNet-20 is a run of the experiment pruning"),
        ("netslim", {"network": "vgg16", "target": 0.9}, "vgg16 has no runs at profile quick: choose short or paper"),
        (
            "netslim",
            {"network": "resnet50", "target": 0.9},
            "resnet50 has no runs at profile quick: choose short or paper",
        ),
        ("netslim", {"network": "lenet"}, "unknown network 'lenet'"),
    ],
)
def test_a_wrong_declaration_is_one_line(name, options, words):
    with pytest.raises(LabError, match=words):
        methods.run("quick", name, **options)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_run_stopped_anywhere_ends_as_one_never_stopped(name, tmp_path):
    run = tiny(name)
    straight = compute(run, tmp_path / "straight.pt")
    if methods.trunk(run):
        methods.trunk(run)[1].unlink()  # else the search would not be interrupted
    calls = []

    def stop():
        calls.append(1)
        return len(calls) in (1, 4, 6)  # twice in the search, once in the fine-tuning

    for _ in range(3):
        with suppress(Stopped):
            compute(run, tmp_path / "stopped.pt", stop)
    got = compute(run, tmp_path / "stopped.pt")
    assert len(calls) >= 6
    assert got["figures"] == straight["figures"]
    assert got["curve"] == straight["curve"]
    same = zip(got["model"].state_dict().values(), straight["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    figures = got["figures"]
    weights = [got["model"].get_parameter(n) for n in _sparse.masked_names(run, got["model"])]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    assert figures["sparsity"] == pytest.approx(zeros)
    target = run.config["method"].get("target")
    if target:
        assert zeros >= target - 0.01
    if name == "cs-filters":
        assert figures["accuracy_shrunk"] == pytest.approx(figures["accuracy"], abs=0.02)
        assert figures["parameters_shrunk"] <= figures["parameters"]


def test_searches_are_shared_where_only_the_end_differs():
    slim = [methods.trunk(tiny("netslim", target=t)) for t in (0.8, 0.9)]
    assert slim[0] == slim[1]
    assert methods.trunk(tiny("netslim", seed=1)) != slim[0]
    assert methods.trunk(tiny("dnw")) is None
    assert methods.trunk(tiny("mp")) == methods.trunk(tiny("dense")) != methods.trunk(tiny("amc"))
    declared = methods.run("short", "amc", target=0.5)
    dense = pruning.run("short", "dense")
    path = dense.checkpoint()
    assert methods.trunk(declared) == (dense.id, path.with_name(f"trunk-{path.name}"))  # as pruning itself has it


def test_choices_within_training_do_not_see_the_test_images(tmp_path, monkeypatch):
    seen, score = [], methods.accuracy

    def watched(net, images):
        seen.append(images)
        return score(net, images)

    monkeypatch.setattr(methods, "accuracy", watched)
    compute(tiny("l0"), tmp_path / "a.pt")
    compute(tiny("amc"), tmp_path / "b.pt")
    train = made_up("", "train").images
    assert len(seen) == 2 + 3
    assert all(torch.equal(images.images, train[: len(images)]) for images in seen)
