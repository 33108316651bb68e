"""Chapter 5's experiments: what is declared, that each method ends at few bits, that a stop leaves no trace, that every
number has a claim."""

import base64
import copy
import math
from contextlib import suppress
from functools import partial

import pytest
import torch
from tiny_run import made_up
from torch import nn

from lab.baselines.activations import PACT, FixedBits, SmolA, put_activations
from lab.baselines.quantizers import FixedGrid
from lab.datasets import thesis
from lab.experiments.precision import (
    activations,
    claims,
    few_bits,
    imagenet,
    results,
    scales,
    small_networks,
    structure,
    weights,
)
from lab.models import ResNet, registry
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError
from principled import FixedPrecision, Relaxed, quantize
from principled.files.precision_map import decode_map

MODULES = (weights, small_networks, imagenet, activations, scales, structure)
TRAINING = {
    "epochs": 2, "finetune_epochs": 1, "batch_size": 32, "lr": 0.05, "finetune_lr": 0.01, "momentum": 0.9,
    "nesterov": True, "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip
SMOL = {"lambda": 1e-5, "lr_s": 0.5}
RUNS = {
    "dense": (weights, "dense", {}),
    "smol": (weights, "smol", SMOL),
    "smol*": (weights, "smol", SMOL | {"zero": True}),
    "smol-l": (weights, "smol", SMOL | {"granularity": "layer"}),
    "smol-blocks": (weights, "smol", SMOL | {"granularity": 16, "zero": "group", "allowed": [0, 1, 2, 4, 8]}),
    "retrain": (weights, "retrain", SMOL | {"shuffled": True}),
    "bsq": (weights, "bsq", {}),
    "slb": (weights, "slb", {"bits": 2}),
    "lq-nets": (weights, "lq-nets", {"bits": 2}),
    "dsq": (weights, "dsq", {"bits": 2}),
    "lsq": (weights, "lsq", {"bits": 2}),
    "PACT": (activations, "pact", {"bits": 2}),
    "SMOL-A": (activations, "smol-a", {"lambda": 1e-4}),
    "power": (scales, "smol", {"scale": "power", "lambda": 1e-4}),
}


@pytest.fixture
def small(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setattr("lab.experiments.base.load", made_up)
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setitem(registry.NETWORKS, "resnet20", partial(ResNet, 1))


def tiny(name, seed=0):
    """A declared quick run on a schedule short enough for a test, at a profile whose checkpoints belong to no
    source."""
    module, method, options = RUNS[name]
    run = module.run("quick", method, seed, **options)
    return Run(run.experiment, {**run.config, "training": TRAINING}, "short", seed)


def compute(run, path, stop=lambda: False):
    return run.module.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once_and_belongs_to_its_experiment(module, profile):
    runs = module.runs(profile)
    assert len({run.id for run in runs}) == len(runs)
    assert {(run.experiment, run.profile) for run in runs} <= {(module.experiment.name, profile)}
    assert all(module.experiment.epochs(run) > 0 for run in runs)
    assert runs or (module, profile) in [(imagenet, "quick"), (imagenet, "short"), (structure, "paper")]


def test_every_seed_repeats_the_headline_and_every_rival_runs_at_quick():
    for profile in ("quick", "short", "paper"):
        smol = [r for r in weights.runs(profile) if weights.headline(profile).items() <= r.config["method"].items()]
        assert {r.seed for r in smol} == set(weights.PROTOCOL[profile]["seeds"])
    assert {r.config["method"]["name"] for r in weights.runs("quick")} == set(few_bits.METHODS)


def test_the_penalties_of_short_reach_few_bits_in_the_pilot():
    measured, protocol = results.pilot_record(), weights.PROTOCOL["short"]
    grids = {"one precision a weight": protocol["lambda"], "one precision a layer": protocol["lambda_layer"]}
    for kind, penalties in grids.items():
        bits = [measured[f"{kind}, λ = {lam:g}, rate {protocol['lr_s']:g}"] for lam in penalties]
        assert bits == sorted(bits, reverse=True)
        assert 1.5 < bits[-1] < 2.5 < bits[0] < 4
    assert 1.5 < measured[f"blocks of 16, λ = {protocol['lambda_block']:g}, rate {protocol['lr_s']:g}"] < 3
    assert scales.PENALTIES["short"]["resnet20"] == protocol["lambda"]


def test_the_paper_protocol_is_the_thesis_s():
    training = weights.PROTOCOL["paper"]["training"]
    assert training["epochs"] + training["finetune_epochs"] == 650
    drops = [350 * at for at in training["steps"]] + [350 + 300 * at for at in training["finetune_steps"]]
    assert drops == pytest.approx([250, 500, 600])
    assert sorted(weights.PROTOCOL["paper"]["lambda"]) == [5e-7, 7e-7, 1e-6]


def test_the_division_of_the_epochs_moves_the_border_only():
    moved = weights.run("paper", "smol", search=100 / 650, **weights.headline("paper")).config["training"]
    assert (moved["epochs"], moved["finetune_epochs"]) == (100, 550)
    totals = {structure.experiment.epochs(run) for run in structure.runs("short")}
    assert totals == {weights.experiment.epochs(weights.run("short", "dense"))}
    assert len({r.seed for r in structure.runs("short") if r.config["method"].get("shuffled")}) == 3


def test_table_5_2_is_declared_as_5_3_3_says():
    training = {r.config["model"]: r.config["training"] for r in small_networks.runs("paper")}
    assert {name: t["weight_decay"] for name, t in training.items()} == {"mobilenetv2": 4e-5, "shufflenet": 5e-4}
    assert all(t["epochs"] + t["finetune_epochs"] == 650 and t["batch_size"] == 128 for t in training.values())
    assert small_networks.PENALTIES["paper"] == {"mobilenetv2": [2e-7, 1e-7], "shufflenet": [5e-8, 7e-10]}


def test_table_5_3_is_declared_as_5_3_3_says():
    eighteen, fifty = (imagenet.TRAINING[name] for name in ("resnet18", "resnet50"))
    assert (eighteen["epochs"], eighteen["finetune_epochs"]) == (120, 60)
    assert (fifty["epochs"], fifty["finetune_epochs"]) == (60, 40)
    drops = [120 * at for at in eighteen["steps"]] + [120 + 60 * at for at in eighteen["finetune_steps"]]
    assert drops == pytest.approx([45, 90, 150, 165])
    assert eighteen["finetune_lr"] == pytest.approx(0.1 * 0.1**2)  # the drops before it count
    assert [40 * at for at in fifty["finetune_steps"]] == pytest.approx([15, 30])
    runs = imagenet.runs("paper")
    assert all(("activations" in r.config["method"]) == (r.config["method"]["name"] != "dense") for r in runs)
    assert next(r.config["method"]["name"] for r in runs if r.config["model"] == "resnet50") == "dense"


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (partial(weights.run, "quick", "magic"), "unknown method 'magic': choose one of dense, smol"),
        (partial(weights.run, "quick", "smol"), "smol needs a lambda, the price of a bit"),
        (partial(weights.run, "quick", "smol", **{"lambda": -1.0}), "lambda must be a finite number, at least 0"),
        (partial(weights.run, "quick", "slb"), "slb needs bits"),
        (partial(small_networks.run, "quick", "dense", network="vgg16"), "unknown network 'vgg16': choose one of mob"),
        (partial(scales.run, "quick", "bsq"), "bsq has no scale of the weights"),
        (partial(structure.run, "paper", "smol"), "structure has no runs at profile paper"),
        (partial(structure.run, "quick", "smol", search=8), "search must be from 1 to 7 of 8 epochs, not 8"),
        (partial(imagenet.run, "short", "dense"), "ImageNet has no runs at profile short"),
        (partial(activations.run, "quick", "pact", bits=2.5), "PACT: bits must be a whole number"),
        (partial(activations.run, "quick", "smol-a"), "smol-a needs a lambda"),
        (partial(few_bits.method_config, "dense", {}, activations=3), "activations must be 4 bits"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_one_line(declare, words):
    with pytest.raises(LabError, match=words) as caught:
        declare()
    assert "\n" not in str(caught.value)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", sorted(set(RUNS) - {"smol", "smol-l", "smol-blocks", "power"}))  # as smol*
def test_a_run_stopped_anywhere_ends_as_one_never_stopped(name, tmp_path):
    run = tiny(name)
    straight = compute(run, tmp_path / "straight.pt")
    if trunk := run.module.trunk(run):
        trunk[1].unlink()  # else the search would not be interrupted
    calls, moments = [], (1, 3, 5)  # of six: in each epoch of three steps, after the first and the second

    def stop():
        calls.append(1)
        return len(calls) in moments

    for _ in moments:
        with suppress(Stopped):
            compute(run, tmp_path / "stopped.pt", stop)
    stopped = compute(run, tmp_path / "stopped.pt")
    assert stopped["figures"] == straight["figures"]
    same = zip(stopped["model"].state_dict().values(), straight["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.usefixtures("small")
def test_what_is_recorded_is_what_the_network_has(tmp_path):
    result = compute(tiny("smol*"), tmp_path / "c.pt")
    layers, figures = result["recording"]["layers"], result["figures"]
    maps = decode_map(base64.b64decode(result["recording"]["map"]), [tuple(layer["shape"]) for layer in layers])
    bits = sum(int(p.sum()) for p in maps) / sum(p.size for p in maps)
    assert figures["bits"] == pytest.approx(bits)
    assert 0 < figures["payload_bytes"] < bits * sum(p.size for p in maps) / 8 + 500  # entropy-coded, with its tables
    parts = sum(figures[part] for part in ("payload_bytes", "map_bytes", "rest_bytes"))
    assert figures["file_bytes"] == pytest.approx(parts, abs=1)
    state = result["model"].state_dict()
    assert all(
        ((state[f"{x['name']}.weight"] == 0).numpy() == (p == 0)).all() for x, p in zip(layers, maps, strict=True)
    )
    assert sum(value for name, value in figures.items() if name.startswith("share.")) == pytest.approx(1)


@pytest.mark.usefixtures("small")
def test_basins_are_measured_around_the_network_and_leave_it_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "headline", lambda profile: {"lambda": 1e-5})
    result = compute(tiny("smol"), tmp_path / "c.pt")
    basins, state = result["recording"]["basins"], result["model"].state_dict()
    assert [b["bits"] for b in basins] == sorted({b["bits"] for b in basins})
    for basin in basins:
        assert float(state[f"{basin['layer']}.weight"].flatten()[basin["index"]]) == basin["weight"]
        near = [loss for push, loss in zip(weights.PUSHES, basin["losses"], strict=True) if abs(push) < 0.01]
        assert near == pytest.approx([basin["loss"]] * len(near), abs=0.05)
    assert len({b["loss"] for b in basins}) == 1  # the unpushed network, each time


@pytest.mark.usefixtures("small")
def test_block_precisions_are_among_the_allowed_ones(tmp_path):
    figures = compute(tiny("smol-blocks"), tmp_path / "c.pt")["figures"]
    assert {int(name.split(".")[1]) for name in figures if name.startswith("share.")} <= {0, 1, 2, 4, 8}


@pytest.mark.usefixtures("small")
def test_a_scaled_network_holds_levels_of_its_scale(tmp_path):
    weight = compute(tiny("power"), tmp_path / "c.pt")["model"].convs[1].weight.detach()
    scale = 0.0625  # PyTorch starts within 1 / sqrt(16 * 9) = 0.083: the smallest power of two whose double holds that
    levels = [quantize(weight / scale, torch.full_like(weight, p, dtype=torch.int8)) * scale for p in range(1, 13)]
    assert torch.stack([level == weight for level in levels]).any(0).all()
    assert weight.abs().max() < 2 * scale


@pytest.mark.usefixtures("small")
def test_what_smol_a_records_is_what_the_network_has(tmp_path):
    result = compute(tiny("SMOL-A"), tmp_path / "c.pt")
    places = [m for m in result["model"].modules() if isinstance(m, FixedBits)]
    assert len(places) == 7
    assert not [m for m in result["model"].modules() if isinstance(m, SmolA | nn.ReLU)]
    assert result["figures"]["bits"] == pytest.approx(float(torch.cat([m.p.flatten() for m in places]).double().mean()))
    assert sum(v for k, v in result["figures"].items() if k.startswith("share.")) == pytest.approx(1)
    assert len([k for k in result["figures"] if k.startswith("bits.")]) == len(places)


def test_ranges_are_trained_with_a_decay_of_their_own_and_s_with_adam():
    config = activations.run("quick", "smol-a", **{"lambda": 1e-5}).config
    method = activations.METHODS["smol-a"](config["method"], torch.zeros(1, 3, 32, 32))
    net = method.relax(registry.build("activated-resnet8"))
    sgd, adam = method.optimizers(net, config["training"])
    assert [g["weight_decay"] for g in sgd.param_groups] == [config["training"]["weight_decay"], 2e-4]
    assert len(sgd.param_groups[1]["params"]) == 7
    shapes = [(16, 32, 32)] * 3 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2
    assert [tuple(s.shape) for s in adam.param_groups[0]["params"]] == shapes
    assert sum(len(g["params"]) for o in (sgd, adam) for g in o.param_groups) == len(list(net.parameters()))


def test_activations_of_four_bits_begin_with_fine_tuning():
    run = imagenet.run("paper", "lq-nets", bits=4)
    method = few_bits.method(run.config["method"], run.seed)
    layers = (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))  # the first and the last stay whole
    relaxed = method.relax(nn.Sequential(*layers, nn.ReLU6()))
    x = torch.rand(2, 3, 5, 5)
    assert len(relaxed(x).unique()) > 16
    values = (5 * method.fix(relaxed)(100 * x - 50)).unique()
    assert torch.allclose(values, values.round(), atol=1e-5)
    assert values.max() <= 15


def test_resnet50_asks_for_the_network_that_it_starts_from(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_BUILD", str(tmp_path))
    run = imagenet.run("paper", "smol", network="resnet50", **{"lambda": 1e-7})
    with pytest.raises(LabError, match="ResNet-50 starts from a trained network; first `python -m lab record"):
        imagenet.experiment.network(run)


@pytest.mark.parametrize("name", ["dorefa", "lsq", "dsq", "lq-nets", "slb"])
def test_given_bits_leave_the_first_and_the_last_layer_whole(name):
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3), nn.Linear(3, 1))
    config = weights.run("quick", name, bits=2).config["method"]
    plain = copy.deepcopy(net)
    fixed = few_bits.method(config, 0).fix(few_bits.method(config, 0).relax(net))
    hard = fixed.harden()
    assert torch.equal(hard[0].weight, plain[0].weight)
    assert torch.equal(hard[2].weight, plain[2].weight)
    assert not torch.equal(hard[1].weight, plain[1].weight)
    assert few_bits.measured_bits(fixed, hard)["bits"] == pytest.approx((8 * 32 + 6 * 2 + 3 * 32) / 17)


def test_bsq_requantises_every_hundred_epochs_at_paper():
    method = few_bits.method(weights.run("paper", "bsq").config["method"], 0)
    relaxed = method.relax(nn.Linear(4, 3))
    at = []
    for epoch in range(350):
        before = int(relaxed.requantised)
        method.step(relaxed, epoch / 350)
        at += [epoch] * (int(relaxed.requantised) - before)
    assert at == pytest.approx([100, 200, 300], abs=1)


def test_shuffled_precisions_keep_each_layer_s_count():
    method = few_bits.RetrainedWeights({"name": "retrain", "shuffled": True}, 3, lambda: ResNet(1))
    shapes = {n: p.shape for n, p in ResNet(1).named_parameters() if p.ndim > 1 and "shortcut" not in n}
    before = {name: torch.randint(0, 6, shape).to(torch.int8) for name, shape in shapes.items()}
    state = torch.random.get_rng_state()
    fixed = method.start_anew(before)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = fixed.relaxations[0].precision()
    assert all(torch.equal(before[n].flatten().sort()[0], after[n].flatten().sort()[0]) for n in before)
    assert any(not torch.equal(before[n], after[n]) for n in before)
    assert isinstance(fixed.relaxations[0], FixedPrecision)


def test_methods_that_differ_only_in_the_end_share_the_search():
    smol, star, retrain, layer, bsq = (
        weights.experiment.trunk(tiny(name)) for name in ("smol", "smol*", "retrain", "smol-l", "bsq")
    )
    declared = {weights.experiment.trunk(r) for r in weights.runs("quick") if r.config["method"]["name"] == "retrain"}
    assert declared == {weights.experiment.trunk(weights.run("quick", "smol", **weights.headline("quick")))}
    assert smol == star == retrain
    assert layer != smol
    assert bsq is None


def test_a_fixed_grid_by_hand():
    net = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.26, -0.9, 5.0, 0.1]]))
    relaxed = Relaxed(net, FixedGrid({"weight": (0.25, 2)}))
    out = relaxed(torch.eye(4))
    assert out.flatten().tolist() == [0.25, -0.75, 0.75, 0.0]
    out.sum().backward()
    # straight through, but not beyond the grid
    assert relaxed.net.weight.grad.flatten().tolist() == [1.0, 0.0, 0.0, 1.0]
    assert relaxed.harden().weight.flatten().tolist() == [0.25, -0.75, 0.75, 0.0]
    assert not Relaxed(net, FixedGrid({"weight": (0.25, 0)})).harden().weight.any()


def test_pact_and_smol_a_find_their_places_in_any_network():
    with pytest.raises(LabError, match="has no ReLU module to replace"):
        put_activations(ResNet(1), torch.zeros(1, 3, 32, 32), lambda shape: PACT(2))
    shared = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(3, 4, 1), shared, nn.Conv2d(4, 5, 1), shared)
    with pytest.raises(LabError, match="runs at 2 shapes: give each place a ReLU module of its own"):
        put_activations(twice, torch.zeros(1, 3, 8, 8), lambda shape: PACT(2))


# -- claims ------------------------------------------------------------------------------------------------------------


def test_every_claim_names_declared_runs_of_its_experiment():
    for claim in claims.claims():
        needed = claim.needs("paper")
        assert needed or claim.fact.startswith("energy-"), claim
        assert {run.experiment for run in needed} <= {claim.experiment}
        assert math.isfinite(claim.said)


def test_every_number_of_these_tables_and_sections_has_a_claim_or_a_reason():
    known, declared = claims.reasons(), claims.claims()
    cells = {(c.table, c.row, c.column) for c in declared} | set(known)
    for table in ("5.1", "5.2", "5.3", "5.5", "5.6"):
        for cell in thesis.table(table).to_dict("records"):
            assert (table, cell["row"], cell["column"]) in cells
    facts = {c.fact for c in declared} | set(known)
    sections = ("5.2.4", "5.4.1", "5.4.4", "5.5.1", "5.5.2", "5.5.3")
    for fact in thesis.facts():
        if fact.where in sections and fact.kind in ("measurement", "ratio"):
            assert fact.id in facts, fact.id


def test_the_energy_of_the_thesis_s_mixture():
    power, latency = claims.energy()
    assert power == pytest.approx((0.74 + 0.245 * 2.41 + 0.015 * 3.83) / 2.41)
    assert latency == pytest.approx((0.74 + 0.245 * 1.91 + 0.015 * 2.10) / 1.91)
    # weight by weight: 0.74 + 0.245 x 2.41 x 1.91 + 0.015 x 3.83 x 2.10, over 2.41 x 1.91
    shares = {1: 0.74, 2: 0.245, 3: 0.015}
    assert claims.relative_energy(shares) == pytest.approx(1.98841 / 4.6031, abs=1e-5)
    assert 1 - claims.relative_energy(shares) == pytest.approx(0.568, abs=5e-4)
    assert 1 - power * latency == pytest.approx(0.626, abs=5e-4)
