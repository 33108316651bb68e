"""Chapter 4's experiments: what is declared, what a run records, and that a stop anywhere leaves no trace."""

import importlib.util
import math
from contextlib import suppress
from functools import partial

import pytest
import torch
from tiny_run import TRAINING, made_up
from torch import nn

from lab.datasets import load
from lab.experiments import base
from lab.experiments.sparsity import common, pruning, rivals, supermasks, tickets
from lab.experiments.sparsity.selection import points
from lab.models import ResNet, conv6
from lab.models.registry import NETWORKS
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError
from lab.utils.files import ROOT
from principled import KeepZeros, Relaxed

spec = importlib.util.spec_from_file_location("calibrate_sparsity", ROOT / "benchmarks" / "calibrate_sparsity.py")
calibrate_sparsity = importlib.util.module_from_spec(spec)
spec.loader.exec_module(calibrate_sparsity)

SEARCHED = {
    "epochs": 2, "finetune_epochs": 0, "batch_size": 32, "lr": 0.1, "momentum": 0.9, "nesterov": False,
    "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip
ONE_SHOT = {
    "l0": {"lambda": 1e-6, "draws": 2}, "netslim": {"target": 0.8},
    "amc": {"target": 0.5, "episodes": 3, "explore": 1, "images": 20}, "str": {"decay": 0.02}, "dnw": {"target": 0.9},
    "cs-filters": {"s_init": 0.0, "lr": 0.02}, "cs": {"s_init": -0.02}, "mp": {"target": 0.8}, "gmp": {"target": 0.8},
}  # fmt: skip
SEARCHES = {
    "dense": {}, "control": {}, "cs": {"s_init": 0.0}, "seq-cs": {"rounds": 2}, "imp": {"rounds": 3},
    "imp-c": {"rounds": 2}, "iss": {"rounds": 2},
}  # fmt: skip
MODULES = {"pruning": pruning, "methods": rivals, "tickets": tickets, "supermasks": supermasks}
RUNS = (
    [("methods", name) for name in ONE_SHOT]
    + [("tickets", name) for name in SEARCHES]
    + [("supermasks", name) for name in supermasks.METHODS]
)


def narrow(classes):
    """A network of the kind, of a second's training."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "load", made_up)
    for name in ("resnet20", "vgg16"):
        monkeypatch.setitem(NETWORKS, name, partial(ResNet, 1))
    monkeypatch.setitem(NETWORKS, "resnet8", narrow)
    monkeypatch.setitem(NETWORKS, "conv6-quarter", partial(conv6, width=0.06))
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))


def one_shot(name, seed=0, **options):
    network = "vgg16" if name in rivals.SAME else "resnet20"
    method = rivals.method_config(name, "quick", network, **ONE_SHOT.get(name, {}) | options)
    training = TRAINING | {"epochs": 2, "finetune_epochs": 1}
    return Run(
        "methods", {"model": network, "data": "cifar10-mini", "training": training, "method": method}, "short", seed
    )


def search(name, seed=0, network="resnet20", **options):
    protocol = tickets.PROTOCOLS["conv6" if name == "iss" else network]["quick"]
    method = tickets.method_config(name, protocol, **SEARCHES[name] | options)
    training = SEARCHED | ({"optimizer": "adam", "lr": 1e-3} if tickets.on_conv6(protocol) else {})
    config = {"model": protocol["model"], "data": "cifar10-mini", "training": training, "method": method}
    return Run("tickets", config, "short", seed)


def supermask(name, seed=0, **training):
    config = supermasks.run("quick", name, seed, s_init=0.0).config
    training = config["training"] | {"epochs": 2, "batch_size": 32} | training
    return Run("supermasks", {**config, "data": "cifar10-mini", "training": training}, "short", seed)


MAKE = {"methods": one_shot, "tickets": search, "supermasks": supermask}


def compute(run, path, stop=lambda: False, on_epoch=lambda epoch: None):
    return run.module.compute(run, torch.device("cpu"), path, on_epoch, stop)


def share_of_zeros(run, net):
    weights = [net.get_parameter(name) for name in common.masked_names(run, net)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once_and_every_method_runs(profile):
    for name, module in MODULES.items():
        runs = module.runs(profile)
        assert len({run.id for run in runs}) == len(runs)
        assert {run.experiment for run in runs} == {name}
        assert {run.config["method"]["name"] for run in runs} >= set(module.METHODS) - set(rivals.SAME)
    on_vgg = {run.config["method"]["name"] for run in rivals.runs(profile) if run.config["model"] == "vgg16"}
    assert on_vgg == (set(rivals.VGG_POINTS) if profile != "quick" else set())


def test_rivals_have_the_protocol_that_they_are_compared_under():
    for profile in ("quick", "short", "paper"):
        ours, theirs = rivals.run(profile, "netslim", target=0.9).config, pruning.run(profile, "dense").config
        assert all(ours[key] == theirs[key] for key in ("model", "data", "training"))


def test_the_settings_are_the_thesis_s():
    assert rivals.run("paper", "netslim", target=0.9).config["method"]["lambda"] == 1e-5
    assert rivals.run("paper", "netslim", network="vgg16", target=0.9).config["method"]["lambda"] == 1e-6
    imagenet = rivals.resnet50.runs("paper")
    s_init = [r.config["method"]["s_init"] for r in imagenet if r.config["method"]["name"] == "cs"]
    assert s_init == [0.0, -0.01, -0.02, -0.03, -0.05]
    training = imagenet[0].config["training"]
    assert [training["epochs"] * at for at in training["steps"]] == pytest.approx([30, 60])
    assert (training["batch_size"], training["weight_decay"]) == (256, 1e-4)
    training = tickets.RESNET["paper"]["training"]
    assert [training["epochs"] * at for at in training["steps"]] == pytest.approx([56, 71])
    assert tickets.VGG["paper"]["training"]["batch_size"] == 64
    cs = tickets.run("paper", "cs", s_init=0.0).config["method"]
    assert [cs[key] for key in ("rounds", "rewind_epoch", "rewind", "beta_final", "lambda")] == [5, 2, False, 200, 1e-8]
    imp = tickets.run("paper", "imp").config["method"]
    assert (imp["rounds"], imp["rate"], imp["rewind"]) == (30, 0.2, True)
    assert not tickets.run("paper", "imp-c").config["method"]["rewind"]
    on_conv6 = tickets.run("paper", "imp", network="conv6").config["method"]
    assert (on_conv6["rate"], on_conv6["rate_linear"], on_conv6["rewind_epoch"]) == (0.15, 0.2, 0)
    assert (len(tickets.RESNET["paper"]["s_init"]), len(tickets.CONV6["paper"]["s_init"])) == (11, 16)
    masks = [supermasks.run("paper", name, s_init=0.0).config for name in ("supermask", "ss")]
    assert [(c["training"]["epochs"], c["method"]["lr_s"], c["model"]) for c in masks] == [
        (100, 3e-4, "conv6"), (100, 100.0, "conv6"),
    ]  # fmt: skip


def test_other_seeds_repeat_all_of_the_paper_s_searches_and_the_middle_of_shorter_ones():
    def declared(profile, seed):
        return [r for r in tickets.searches(profile) if r.seed == seed]

    assert len(declared("paper", 0)) == len(declared("paper", 1)) == len(declared("paper", 2)) == 11 + 5
    names = [(r.config["method"]["name"], r.config["method"].get("s_init")) for r in declared("quick", 1)]
    assert names == [("dense", None), ("control", None), ("cs", 0.0), ("imp", None)]


@pytest.mark.parametrize("profile", ["short", "paper"])
def test_table_4_3_has_fine_tuned_networks_and_tickets_of_the_same_starts(profile):
    def starts(runs, key):
        return [r.config["method"].get("s_init") or r.config["method"].get("rate") for r in runs
                if r.config["method"]["name"] == key]  # fmt: skip

    pruned, searched = rivals.resnet50.runs(profile), tickets.resnet50.runs(profile)
    assert all(r.config["training"]["finetune_epochs"] > 0 for r in pruned)
    assert all(r.config["training"]["finetune_epochs"] == 0 for r in searched)
    assert {r.experiment for r in searched} == {"resnet50_tickets"}
    assert starts(pruned, "cs") == starts(searched, "cs")
    assert starts(searched, "imp") == [0.9, 0.95]
    assert len(starts(searched, "control")) == 1
    assert all(r.config["method"]["rounds"] == 1 for r in searched if r.config["method"]["name"] != "dense")


def test_decays_of_str_at_paper_are_on_a_way_as_long_as_the_published_ones():
    # 100 epochs of 5,004 steps at 0.256, five of warm-up and a cosine, momentum 0.875
    published = 0.256 * 5004 * (5 * 0.6 + 95 * 0.5) / (1 - 0.875)
    small, ways = (
        [r.config["method"]["decay"] * 0.1 * calibrate_sparsity.summed_rate(r.config) for r in runs
         if (r.config["model"], r.config["method"]["name"]) == (model, "str")]
        for model, runs in (("resnet20", rivals.runs("paper", (0,))), ("resnet50", rivals.resnet50.runs("paper")))
    )  # fmt: skip
    # decay alone carries a threshold from sigma(-3200) above sigma(-3200 / e^8) = 0.25; a decay of 1e-4 left it at
    # 3e-52
    assert min(small + ways) > 8
    for decay, way in ((2.251757813e-5, ways[1]), (3.051757813e-5, ways[2])):
        assert way == pytest.approx(decay * published, rel=0.01)


def test_a_pilot_takes_the_way_of_the_run_that_it_stands_for():
    run = rivals.run("paper", "str", decay=5e-4)
    small = calibrate_sparsity.pilot(run)
    # rates 0.1, 0.01 and 0.001 in 80, 40 and 40 epochs of 390 steps, ten times as much by momentum
    assert calibrate_sparsity.summed_rate(run.config) == pytest.approx(10 * 390 * 84.4, rel=1e-3)
    ways = [r.config["method"]["lr"] * calibrate_sparsity.summed_rate(r.config) for r in (run, small)]
    assert ways[0] == pytest.approx(ways[1])


def test_studies_vary_one_option_at_a_time():
    for option, (values, settings) in tickets.STUDIES.items():
        runs = tickets.study("paper", option)
        assert len(runs) == len(values) * len(settings)
        methods = [run.config["method"] for run in runs[: len(values)]]
        assert [m[option] for m in methods] == values
        rest = [{k: v for k, v in m.items() if k != option} for m in methods]
        assert all(r == rest[0] for r in rest)
    assert [r.config["method"]["rate"] for r in tickets.study("paper", "rate")] == [0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("experiment", "name", "options", "words"),
    [
        ("pruning", "magic", {}, "unknown method 'magic': choose one of dense, mp, gmp, cs"),
        ("pruning", "cs", {"s_init": 0.0, "beta_final": 0.0}, "beta_final must be above 0"),
        ("methods", "magic", {}, "unknown method 'magic': choose one of dense, mp"),
        ("methods", "netslim", {}, "netslim needs target"),
        ("methods", "l0", {}, "l0 needs lambda"),
        ("methods", "str", {}, "str needs decay"),
        ("methods", "l0", {"lambda": -1.0}, "lambda must not be negative"),
        ("methods", "dnw", {"target": 1.0}, "target must lie between 0 and 1"),
        ("methods", "cs-filters", {"s_init": math.nan}, "s_init must be a finite number"),
        ("methods", "cs", {"s_init": 0.0}, "cs on ResNet-20 is a run of the experiment pruning"),
        ("methods", "netslim", {"network": "vgg16", "target": 0.9}, "vgg16 has no runs at profile quick"),
        ("methods", "netslim", {"network": "resnet50", "target": 0.9}, "resnet50 has no runs at profile quick"),
        ("methods", "netslim", {"network": "lenet"}, "unknown network 'lenet'"),
        ("tickets", "magic", {}, "unknown method 'magic': choose one of dense, control, cs"),
        ("tickets", "cs", {}, "cs needs s_init"),
        ("tickets", "cs", {"s_init": 0.0, "rounds": 0}, "rounds must be at least 1, not 0"),
        ("tickets", "cs", {"s_init": 0.0, "rewind_epoch": 4}, "rewind_epoch 4 lies beyond a round of 3 epochs"),
        ("tickets", "imp", {"rate": 1.0}, "rate must lie between 0 and 1"),
        (
            "tickets",
            "dense",
            {"network": "lenet"},
            "unknown network 'lenet': choose one of resnet20, vgg16, conv6, resnet50",
        ),
        ("tickets", "dense", {"network": "vgg16"}, "vgg16 has no searches at profile quick"),
        ("supermasks", "supermask", {}, "supermask needs s_init"),
        ("supermasks", "ss", {"s_init": math.inf}, "s_init must be a finite number"),
    ],
)
def test_a_wrong_declaration_is_one_line(experiment, name, options, words):
    with pytest.raises(LabError, match=words) as error:
        MODULES[experiment].run("quick", name, **options)
    assert "\n" not in str(error.value)
    with pytest.raises(LabError, match="unknown study"):
        tickets.study("quick", "noise")


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("experiment", "name"), RUNS)
def test_a_run_stopped_anywhere_ends_as_one_never_stopped(experiment, name, tmp_path):
    run, ticks, calls = MAKE[experiment](name), [], []
    straight = compute(run, tmp_path / "straight.pt", on_epoch=ticks.append)
    assert len(ticks) == run.module.epochs(run)
    if trunk := run.module.trunk(run):
        trunk[1].unlink()  # else the search would not be interrupted

    def stop():
        calls.append(1)
        return len(calls) in (1, 4, 6, 9, 11)  # in the midst of epochs of several stages

    for _ in range(5):
        with suppress(Stopped):
            compute(run, tmp_path / "stopped.pt", stop)
    result = compute(run, tmp_path / "stopped.pt")
    assert calls
    assert (result["figures"], result["curve"]) == (straight["figures"], straight["curve"])
    same = zip(result["model"].state_dict().values(), straight["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert result["figures"]["sparsity"] == pytest.approx(share_of_zeros(run, result["model"]))
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} <= {"straight.pt", "stopped.pt"}  # no stage is left
    if "target" in run.config["method"]:
        assert result["figures"]["sparsity"] >= run.config["method"]["target"] - 0.01


def test_a_network_without_its_dead_filters_is_smaller_and_as_accurate(tmp_path):
    figures = compute(one_shot("cs-filters"), tmp_path / "c.pt")["figures"]
    assert figures["accuracy_shrunk"] == pytest.approx(figures["accuracy"], abs=0.02)
    assert figures["parameters_shrunk"] <= figures["parameters"]


def test_dense_searches_are_shared_where_only_the_end_differs():
    def trunk(name, **options):
        return rivals.experiment.trunk(one_shot(name, **options))

    assert trunk("netslim", target=0.8) == trunk("netslim", target=0.9) != trunk("netslim", seed=1)
    assert trunk("dnw") is None
    assert trunk("mp") == trunk("dense") != trunk("amc")
    dense = pruning.run("short", "dense")
    path = dense.checkpoint()
    trunk_of_pruning = dense.id, path.with_name(f"trunk-{path.name}")
    assert rivals.experiment.trunk(rivals.run("short", "amc", target=0.5)) == trunk_of_pruning
    assert pruning.experiment.trunk(pruning.run("short", "mp", target=0.9)) == trunk_of_pruning


def test_choices_within_training_do_not_see_the_test_images(tmp_path, monkeypatch):
    seen, score = [], rivals.accuracy

    def watched(net, images):
        seen.append(images)
        return score(net, images)

    monkeypatch.setattr(rivals, "accuracy", watched)
    compute(one_shot("l0"), tmp_path / "a.pt")
    compute(one_shot("amc"), tmp_path / "b.pt")
    train = made_up("", "train").images
    assert len(seen) == 2 + 3
    assert all(torch.equal(images.images, train[: len(images)]) for images in seen)


def test_gates_are_clamped_after_each_step_and_gone_in_fine_tuning():
    method = rivals.L0({"lambda": 1e-3, "open": 0.7, "draws": 1})
    net = method.relax(narrow(10))
    net.relaxations[0].log_alpha.data.fill_(-30.0)
    method.project(net)
    assert float(net.relaxations[0].log_alpha.detach().max()) == pytest.approx(math.log(0.01))
    method.project(Relaxed(net.harden(), KeepZeros()))


# -- ticket searches ---------------------------------------------------------------------------------------------------


def test_a_search_killed_between_its_stages_goes_on(tmp_path):
    run = search("imp-c")
    straight = compute(run, tmp_path / "a.pt")
    finished = tickets.Search._stage_done

    class Killed(Exception):
        pass

    for stage in ("search1", "ticket1", "search2", "ticket2"):

        def die(self, name, *rest, stage=stage):
            finished(self, name, *rest)
            if name == stage:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tickets.Search, "_stage_done", die)
            with pytest.raises(Killed):
                compute(run, tmp_path / "b.pt")
    result = compute(run, tmp_path / "b.pt")
    assert (result["figures"], result["curve"]) == (straight["figures"], straight["curve"])


def test_imp_records_a_ticket_a_round_and_trains_once_for_two_of_them(tmp_path):
    run = search("imp", rounds=3)
    result = compute(run, tmp_path / "c.pt")
    figures = result["figures"]
    tickets_of_rounds = points({"id": run.id, "config": run.config, "figures": figures})
    assert [p.round for p in tickets_of_rounds] == [1, 2, 3]
    left = size = 4 * 27 + 8 * 36
    for point in tickets_of_rounds:
        left -= round(0.2 * left)
        assert point.sparsity == pytest.approx(1 - left / size)
    assert figures["accuracy.round1"] == figures["accuracy_search.round2"]
    assert figures["sparsity"] == pytest.approx(tickets_of_rounds[-1].sparsity)
    assert figures["epochs"] == 6
    assert len(result["curve"]) == (3 + 1) * 2


def test_the_control_is_the_dense_network_trained_as_a_ticket_is(tmp_path):
    control = compute(search("control"), tmp_path / "a.pt")
    # a search that prunes less than one weight: the same iterate, the same batches, the same epochs
    nothing = compute(search("imp", rate=1e-6, rounds=1), tmp_path / "b.pt")
    dense = compute(search("dense"), tmp_path / "c.pt")
    assert nothing["figures"]["sparsity"] == control["figures"]["sparsity"] == 0
    assert control["curve"] == nothing["curve"]
    assert len(control["curve"]) == 2 * len(dense["curve"])  # a round, and the re-training
    same = zip(control["model"].state_dict().values(), nothing["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


@pytest.mark.filterwarnings("ignore:the mask removes")
def test_cs_states_exact_and_hardened_sparsity_and_its_last_ticket_is_the_model(tmp_path):
    run = search("cs", s_init=-0.02)
    result = compute(run, tmp_path / "c.pt")
    figures = result["figures"]
    for r in (1, 2):
        assert 0 <= figures[f"exact.round{r}"] <= figures[f"sparsity.round{r}"] <= 1
    assert share_of_zeros(run, result["model"]) == pytest.approx(figures["sparsity.round2"])
    assert figures["sparsity.0"] == pytest.approx(float((result["model"][0].weight == 0).float().mean()))
    assert figures["accuracy"] == figures["accuracy.round2"]
    assert [row["beta"] for row in result["curve"] if not row["ticket"]][-1] == pytest.approx(200.0)


def test_momentum_goes_on_between_the_rounds_of_cs_and_the_schedule_starts_anew(tmp_path, monkeypatch):
    seen = []
    made = tickets.Round.optimizers

    def watched(self, net, training):
        optimizers = made(self, net, training)
        seen.append((len(optimizers[0].state), [group["lr"] for group in optimizers[0].param_groups]))
        return optimizers

    monkeypatch.setattr(tickets.Round, "optimizers", watched)
    compute(search("cs"), tmp_path / "c.pt")
    (first, rates), _, (second, again), _ = seen
    assert first == 0 < second
    assert rates == again == [0.1, tickets.RESNET["quick"]["lr_s"]]


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    compute(search("dense"), tmp_path / "c.pt")
    with pytest.raises(LabError, match=r"is a checkpoint of run .*, not of"):
        compute(search("dense", seed=1), tmp_path / "c.pt")


# -- supermasks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", supermasks.METHODS)
def test_a_supermask_moves_no_weight(name, tmp_path):
    run = supermask(name)
    result = compute(run, tmp_path / "c.pt")
    torch.manual_seed(run.seed)
    start = supermasks.experiment.network(run).state_dict()
    for key, value in result["model"].state_dict().items():
        assert ((value == 0) | (value == start[key])).all()
    assert result["figures"]["exact"] <= result["figures"]["sparsity"] or name == "ss"


def test_a_mask_finds_a_network_in_random_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "load", load)  # real images
    monkeypatch.setitem(NETWORKS, "conv6-quarter", partial(conv6, width=0.12))
    figures = compute(supermask("supermask", epochs=3, batch_size=50), tmp_path / "c.pt")["figures"]
    assert figures["accuracy"] > figures["accuracy_random"] + 0.05
    assert 0.1 < figures["sparsity"] < 0.95
