"""The runs of Chapter 5: what is declared, that each method ends at few bits, and that a stop leaves no trace."""

import base64
import math
from contextlib import suppress

import pytest
import torch
from tiny_run import made_up

from lab.baselines.fixed_grid import FixedGrid
from lab.experiments.precision import weights as precision
from lab.models import ResNet
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError
from principled import FixedPrecision, Relaxed
from principled.files.precision_map import decode_map

TRAINING = {
    "epochs": 3, "finetune_epochs": 2, "batch_size": 32, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
    "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip
METHODS = {
    "dense": {},
    "smol": {"lambda": 1e-5},
    "smol*": {"lambda": 1e-5, "zero": True},
    "smol-l": {"lambda": 1e-5, "granularity": "layer"},
    "smol-blocks": {"lambda": 1e-5, "granularity": 16, "zero": "group", "allowed": [0, 1, 2, 4, 8]},
    "retrain": {"lambda": 1e-5, "shuffled": True},
    "bsq": {},
    "slb": {"bits": 2},
    "lq-nets": {"bits": 2},
    "dsq": {"bits": 2},
    "lsq": {"bits": 2},
    "dorefa": {"bits": 2},
}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setattr(precision, "resnet20", lambda: ResNet(1))
    monkeypatch.setattr(precision, "load", made_up)
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))


def tiny(label, seed=0):
    name = "smol" if label.startswith("smol") else label
    protocol = precision.PROTOCOL["quick"] | {"lr_s": 0.5}
    method = precision.method_config(name, protocol, **METHODS[label])
    return Run(
        "precision",
        {"model": "resnet20", "data": "cifar10-mini", "training": TRAINING, "method": method},
        "short",
        seed,
    )


def compute(run, path, stop=lambda: False):
    return precision.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once_and_the_headline_is_repeated(profile):
    found = precision.runs(profile)
    assert len({run.id for run in found}) == len(found)
    seeds = set(precision.PROTOCOL[profile]["seeds"])
    smol = [r for r in found if r.config["method"].get("lambda") == precision.headline(profile)["lambda"]]
    assert {r.seed for r in smol} == seeds


def test_the_paper_protocol_is_the_thesis_s():
    training = precision.PROTOCOL["paper"]["training"]
    assert training["epochs"] + training["finetune_epochs"] == 650
    drops = [350 * at for at in training["steps"]] + [350 + 300 * at for at in training["finetune_steps"]]
    assert drops == pytest.approx([250, 500, 600])
    assert sorted(precision.PROTOCOL["paper"]["lambda"]) == [5e-7, 7e-7, 1e-6]


def test_the_division_of_the_epochs_moves_the_border_only():
    moved = precision.run("paper", "smol", search=100 / 650, **precision.headline("paper")).config["training"]
    assert (moved["epochs"], moved["finetune_epochs"]) == (100, 550)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("magic", {}, "unknown method 'magic': choose dense, smol"),
        ("smol", {}, "smol needs a lambda, the price of a bit"),
        ("smol", {"lambda": -1.0}, "lambda must not be negative"),
        ("smol", {"lambda": math.inf}, "lambda must be a finite number"),
        ("slb", {}, "slb needs bits"),
    ],
)
def test_a_wrong_declaration_is_one_line(name, options, words):
    with pytest.raises(LabError, match=words):
        precision.run("quick", name, **options)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", list(METHODS))
def test_a_run_stopped_anywhere_ends_as_one_never_stopped(label, tmp_path):
    run = tiny(label)
    straight = compute(run, tmp_path / "straight.pt")
    precision.trunk(run) and precision.trunk(run)[1].unlink()  # else the search would not be interrupted
    calls, moments = [], (2, 5, 9)

    def stop():
        calls.append(1)
        return len(calls) in moments

    for _ in moments:
        with suppress(Stopped):
            compute(run, tmp_path / "stopped.pt", stop)
    got = compute(run, tmp_path / "stopped.pt")
    assert got["figures"] == straight["figures"]
    same = zip(got["model"].state_dict().values(), straight["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_what_is_recorded_is_what_the_network_has(tmp_path):
    got = compute(tiny("smol*"), tmp_path / "c.pt")
    shapes = [tuple(layer["shape"]) for layer in got["recording"]["layers"]]
    maps = decode_map(base64.b64decode(got["recording"]["map"]), shapes)
    bits = sum(int(p.sum()) for p in maps) / sum(p.size for p in maps)
    assert got["figures"]["bits"] == pytest.approx(bits)
    assert got["figures"]["payload_bytes"] == pytest.approx(bits * sum(p.size for p in maps) / 8)
    whole = sum(got["figures"][part] for part in ("payload_bytes", "map_bytes", "rest_bytes"))
    assert got["figures"]["file_bytes"] == pytest.approx(whole, abs=1)
    weights = got["model"].state_dict()
    for layer, p in zip(got["recording"]["layers"], maps, strict=True):
        zeros = (weights[f"{layer['name']}.weight"] == 0).numpy()
        assert (zeros == (p == 0)).all()
    shares = sum(value for name, value in got["figures"].items() if name.startswith("share."))
    assert shares == pytest.approx(1)


def test_basins_are_measured_around_the_network_and_leave_it_alone(tmp_path, monkeypatch):
    run = tiny("smol")
    monkeypatch.setattr(precision, "headline", lambda profile: {"lambda": 1e-5})
    got = compute(run, tmp_path / "c.pt")
    basins = got["recording"]["basins"]
    assert [b["bits"] for b in basins] == sorted({b["bits"] for b in basins})
    weights = got["model"].state_dict()
    for basin in basins:
        assert float(weights[f"{basin['layer']}.weight"].flatten()[basin["index"]]) == basin["weight"]
        assert len(basin["losses"]) == len(precision.PUSHES)
        near = [loss for push, loss in zip(precision.PUSHES, basin["losses"], strict=True) if abs(push) < 0.01]
        assert near == pytest.approx([basin["loss"]] * len(near), abs=0.05)
    assert len({b["loss"] for b in basins}) == 1  # the unpushed network, each time


def test_block_precisions_are_among_the_allowed_ones(tmp_path):
    got = compute(tiny("smol-blocks"), tmp_path / "c.pt")
    shares = {int(name.split(".")[1]) for name in got["figures"] if name.startswith("share.")}
    assert shares <= {0, 1, 2, 4, 8}


def test_shuffled_precisions_keep_each_layer_s_count():
    method = precision.PrecisionMethod({"name": "retrain", "shuffled": True}, seed=3)
    shapes = {n: p.shape for n, p in ResNet(1).named_parameters() if p.ndim > 1 and "shortcut" not in n}
    before = {name: torch.randint(0, 6, shape).to(torch.int8) for name, shape in shapes.items()}
    state = torch.random.get_rng_state()
    fixed = method._anew(before)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = fixed.relaxations[0].precision()
    assert all(torch.equal(before[n].flatten().sort()[0], after[n].flatten().sort()[0]) for n in before)
    assert any(not torch.equal(before[n], after[n]) for n in before)
    assert isinstance(fixed.relaxations[0], FixedPrecision)


def test_methods_that_differ_only_in_the_end_share_the_search():
    smol, star, retrain, layer = (precision.trunk(tiny(n)) for n in ("smol", "smol*", "retrain", "smol-l"))
    assert smol == star == retrain
    assert layer != smol
    assert precision.trunk(tiny("bsq")) is None


# -- the grid that BSQ ends on -----------------------------------------------------------------------------------------


def test_a_fixed_grid_by_hand():
    net = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.26, -0.9, 5.0, 0.1]]))
    relaxed = Relaxed(net, FixedGrid({"weight": (0.25, 2)}))
    out = relaxed(torch.eye(4))
    assert out.flatten().tolist() == [0.25, -0.75, 0.75, 0.0]
    out.sum().backward()
    assert relaxed.net.weight.grad.flatten().tolist() == [
        1.0,
        0.0,
        0.0,
        1.0,
    ]  # straight through, but not beyond the grid
    assert relaxed.harden().weight.flatten().tolist() == [0.25, -0.75, 0.75, 0.0]


def test_a_grid_of_no_bits_is_zero():
    net = torch.nn.Linear(4, 1, bias=False)
    assert not Relaxed(net, FixedGrid({"weight": (0.25, 0)})).harden().weight.any()
