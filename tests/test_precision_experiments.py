"""Chapter 5 beyond a ResNet-20's weights: other networks, activations, ranges, structure. What is declared, and that runs end well."""

import math
from contextlib import suppress
from functools import partial

import pytest
import torch
from tiny_run import made_up
from torch import nn

from lab.baselines.activations import PACT, FixedBits, SmolA
from lab.datasets import thesis
from lab.experiments.claims import every, reasons
from lab.experiments.precision import activations, scales, structure
from lab.experiments.precision import claims_activations as activation_claims
from lab.experiments.precision import claims_imagenet as imagenet_claims
from lab.experiments.precision import claims_small_networks as mobile_claims
from lab.experiments.precision import common as _precise
from lab.experiments.precision import imagenet as imagenet_bits
from lab.experiments.precision import small_networks as mobile
from lab.experiments.precision import weights as precision
from lab.experiments.precision.claims import energy
from lab.models import ResNet
from lab.models.activated import ActivatedResNet
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError
from principled import quantize

EXPERIMENTS = (mobile, imagenet_bits, activations, scales, structure)
TRAINING = {
    "epochs": 3, "finetune_epochs": 2, "batch_size": 32, "lr": 0.05, "finetune_lr": 0.01, "momentum": 0.9,
    "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip


@pytest.fixture
def small(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    for module in (_precise, activations):
        monkeypatch.setattr(module, "load", made_up)
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setitem(activations.MODELS, "resnet8", lambda: ActivatedResNet(1))


def declared(module, run):
    """``run`` with a schedule short enough for a test, at a profile whose checkpoints belong to no source."""
    return Run(module.EXPERIMENT, {**run.config, "training": TRAINING}, "short", run.seed)


def compute(module, run, path, stop=lambda: False):
    return module.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", EXPERIMENTS)
@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once_and_belongs_to_its_experiment(module, profile):
    found = module.runs(profile)
    assert len({run.id for run in found}) == len(found)
    assert {(run.experiment, run.profile) for run in found} <= {(module.EXPERIMENT, profile)}
    assert all(module.epochs(run) > 0 for run in found)
    assert found or (module, profile) in [(imagenet_bits, "quick"), (imagenet_bits, "short"), (structure, "paper")]


def test_table_5_2_is_declared_as_5_3_3_says():
    training = {r.config["model"]: r.config["training"] for r in mobile.runs("paper")}
    assert {name: t["weight_decay"] for name, t in training.items()} == {"mobilenetv2": 4e-5, "shufflenet": 5e-4}
    assert all(t["epochs"] + t["finetune_epochs"] == 650 and t["batch_size"] == 128 for t in training.values())
    assert mobile.PENALTIES["paper"] == {"mobilenetv2": [2e-7, 1e-7], "shufflenet": [5e-8, 7e-10]}


def test_table_5_3_is_declared_as_5_3_3_says():
    eighteen, fifty = (imagenet_bits.TRAINING[name] for name in ("resnet18", "resnet50"))
    assert (eighteen["epochs"], eighteen["finetune_epochs"], fifty["epochs"], fifty["finetune_epochs"]) == (
        120,
        60,
        60,
        40,
    )
    drops = [120 * at for at in eighteen["steps"]] + [120 + 60 * at for at in eighteen["finetune_steps"]]
    assert drops == pytest.approx([45, 90, 150, 165])
    assert eighteen["finetune_lr"] == pytest.approx(0.1 * 0.1**2)  # the drops before it count
    assert [40 * at for at in fifty["finetune_steps"]] == pytest.approx([15, 30])
    runs = imagenet_bits.runs("paper")
    assert all(("activations" in r.config["method"]) == (r.config["method"]["name"] != "dense") for r in runs)
    assert next(r.config["method"]["name"] for r in runs if r.config["model"] == "resnet50") == "dense"


def test_the_division_of_the_epochs_leaves_their_number():
    totals = {structure.epochs(r) for r in structure.runs("short")}
    assert totals == {precision.epochs(precision.run("short", "dense"))}
    shuffled = [r for r in structure.runs("short") if r.config["method"].get("shuffled")]
    assert len({r.seed for r in shuffled}) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(mobile.run, "quick", "dense", network="vgg16"), "unknown network 'vgg16': choose mobilenetv2, shufflenet"),
        (partial(mobile.run, "quick", "smol"), "smol needs a lambda"),
        (partial(scales.run, "quick", "bsq"), "bsq has no scale of the weights"),
        (partial(structure.run, "paper", "smol"), "structure has no runs at profile paper"),
        (partial(structure.run, "quick", "dense"), "unknown method 'dense': choose smol or retrain"),
        (partial(structure.run, "quick", "smol", search=8), "search must be from 1 to 7 of 8 epochs, not 8"),
        (partial(imagenet_bits.run, "short", "dense"), "ImageNet has no runs at profile short"),
        (partial(imagenet_bits.run, "paper", "lq-nets", bits=4, network="resnet34"), "unknown network 'resnet34'"),
        (partial(activations.run, "quick", "pact"), "pact needs bits, the precision of every activation"),
        (partial(activations.run, "quick", "pact", bits=2.5), "PACT: bits must be a whole number"),
        (partial(activations.run, "quick", "smol-a"), "smol-a needs a lambda"),
        (partial(activations.run, "quick", "smol-a", **{"lambda": -1.0}), "lambda must be a finite number, at least 0"),
        (partial(activations.run, "quick", "smol-a", **{"lambda": math.nan}), "lambda must be a finite number"),
        (partial(activations.run, "quick", "relu"), "unknown method 'relu': choose dense, pact or smol-a"),
        (partial(_precise.method_config, "dense", {}, activations=3), "activations must be 4 bits"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_one_line(make, words):
    with pytest.raises(LabError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


# -- runs --------------------------------------------------------------------------------------------------------------

PIECES = {
    "mobilenetv2": (mobile, partial(mobile.run, "quick", "smol", **{"lambda": 1e-4})),
    "shufflenet, BSQ": (mobile, partial(mobile.run, "quick", "bsq", network="shufflenet")),
    "PACT": (activations, partial(activations.run, "quick", "pact", bits=2)),
    "SMOL-A": (activations, partial(activations.run, "quick", "smol-a", **{"lambda": 1e-4})),
    "power": (scales, partial(scales.run, "quick", "smol", scale="power", **{"lambda": 1e-4})),
    "shuffled": (structure, partial(structure.run, "quick", "retrain", shuffled=True)),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("piece", PIECES)
def test_a_run_stopped_anywhere_ends_as_one_never_stopped(piece, tmp_path):
    module, make = PIECES[piece]
    run = declared(module, make())
    straight = compute(module, run, tmp_path / "straight.pt")
    if trunk := precision.trunk(run):
        trunk[1].unlink()  # else the search would not be interrupted
    calls, moments = [], (2, 5, 9)

    def stop():
        calls.append(1)
        return len(calls) in moments

    for _ in moments:
        with suppress(Stopped):
            compute(module, run, tmp_path / "stopped.pt", stop)
    got = compute(module, run, tmp_path / "stopped.pt")
    assert got["figures"] == straight["figures"]
    same = zip(got["model"].state_dict().values(), straight["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.usefixtures("small")
def test_a_scaled_network_holds_levels_of_its_scale(tmp_path):
    got = compute(
        scales, declared(scales, scales.run("quick", "smol", scale="power", **{"lambda": 1e-4})), tmp_path / "c.pt"
    )
    weight = got["model"].convs[1].weight.detach()
    scale = 0.0625  # PyTorch starts within 1 / sqrt(16 * 9) = 0.083: the smallest power of two whose double holds that
    on = torch.zeros_like(weight, dtype=torch.bool)
    for bits in range(1, 13):
        on |= quantize(weight / scale, torch.full_like(weight, bits, dtype=torch.int8)) * scale == weight
    assert on.all()
    assert weight.abs().max() < 2 * scale


@pytest.mark.usefixtures("small")
def test_what_smol_a_records_is_what_the_network_has(tmp_path):
    run = declared(activations, activations.run("quick", "smol-a", **{"lambda": 1e-4}))
    got = compute(activations, run, tmp_path / "c.pt")
    places = [m for m in got["model"].modules() if isinstance(m, FixedBits)]
    assert len(places) == 7
    assert not [m for m in got["model"].modules() if isinstance(m, SmolA | nn.ReLU)]
    every_unit = torch.cat([m.p.flatten() for m in places]).double()
    assert got["figures"]["bits"] == pytest.approx(float(every_unit.mean()))
    assert sum(v for k, v in got["figures"].items() if k.startswith("share.")) == pytest.approx(1)
    assert len([k for k in got["figures"] if k.startswith("bits.")]) == len(places)


def test_ranges_are_trained_with_a_decay_of_their_own_and_s_with_adam():
    config = activations.run("quick", "smol-a", **{"lambda": 1e-5}).config
    method = activations.ActivationMethod(config["method"], torch.zeros(1, 3, 32, 32))
    net = method.relax(ActivatedResNet(1))
    sgd, adam = method.optimizers(net, config["training"])
    assert [g["weight_decay"] for g in sgd.param_groups] == [config["training"]["weight_decay"], 2e-4]
    assert len(sgd.param_groups[1]["params"]) == 7
    assert [tuple(s.shape) for s in adam.param_groups[0]["params"]] == [
        (16, 32, 32), (16, 32, 32), (16, 32, 32), (32, 16, 16), (32, 16, 16), (64, 8, 8), (64, 8, 8),
    ]  # fmt: skip
    everything = sum(len(g["params"]) for o in (sgd, adam) for g in o.param_groups)
    assert everything == len(list(net.parameters()))


def test_activations_of_four_bits_begin_with_fine_tuning():
    run = imagenet_bits.run("paper", "lq-nets", bits=4)
    method = _precise.Quantised(run)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6())
    relaxed = method.relax(net)
    x = torch.rand(2, 3, 5, 5)
    assert len(relaxed(x).unique()) > 16
    fixed = method.fix(relaxed)
    values = (5 * fixed(100 * x - 50)).unique()
    assert torch.allclose(values, values.round(), atol=1e-5)
    assert values.max() <= 15


def test_resnet50_asks_for_the_network_that_it_starts_from(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_BUILD", str(tmp_path))
    run = imagenet_bits.run("paper", "smol", network="resnet50", **{"lambda": 1e-7})
    with pytest.raises(
        LabError, match="ResNet-50 starts from a trained network; first `python -m lab record"
    ) as caught:
        imagenet_bits.compute(run, torch.device("cpu"), tmp_path / "c.pt", lambda e: None, lambda: False)
    assert "\n" not in str(caught.value)


def test_shuffling_keeps_the_counts():
    p = torch.randint(0, 6, (8, 3, 3)).to(torch.int8)
    source = torch.Generator().manual_seed(1)
    assert torch.equal(_precise.dealt(p, source).flatten().sort()[0], p.flatten().sort()[0])
    assert not torch.equal(_precise.dealt(p, source), p)


# -- claims ------------------------------------------------------------------------------------------------------------


def test_every_claim_of_these_tables_names_declared_runs():
    for module in (mobile_claims, activation_claims, imagenet_claims):
        for claim in module.claims():
            needed = claim.needs("paper")
            assert needed, claim
            assert {run.experiment for run in needed} == {claim.experiment}
            assert isinstance(claim.said, float)


def test_every_number_of_these_tables_and_sections_has_a_claim_or_a_reason():
    known, found = reasons(), every()
    cells = {(c.table, c.row, c.column) for c in found}
    for table in ("5.1", "5.2", "5.3", "5.5", "5.6"):
        for cell in thesis.table(table).to_dict("records"):
            key = (table, cell["row"], cell["column"])
            assert key in cells or key in known, key
    facts = {c.fact for c in found}
    sections = ("5.2.4", "5.4.1", "5.4.4", "5.5.1", "5.5.2", "5.5.3")
    for fact in thesis.facts():
        if fact.where in sections and fact.kind in ("measurement", "ratio"):
            assert fact.id in facts or fact.id in known, fact.id


def test_the_energy_of_the_thesis_s_mixture():
    power, delay = energy()
    assert power == pytest.approx((0.74 + 0.245 * 2.41 + 0.015 * 3.83) / 2.41)
    assert delay == pytest.approx((0.74 + 0.245 * 1.91 + 0.015 * 2.10) / 1.91)


def test_pact_and_smol_a_find_their_places_in_any_network():
    net = ResNet(1)
    with pytest.raises(LabError, match="has no ReLU module to replace"):
        activations.put_activations(net, torch.zeros(1, 3, 32, 32), lambda shape: PACT(2))
    shared = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 5, 1), shared)
    with pytest.raises(LabError, match="runs at 2 shapes: give each place a ReLU module of its own"):
        activations.put_activations(twice, torch.zeros(1, 3, 8, 8), lambda shape: PACT(2))
