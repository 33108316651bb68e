"""Ticket searches as declared: what is declared, what a run records, and that a stop anywhere leaves no trace."""

import math
from contextlib import suppress

import pytest
import torch
from tiny_run import made_up
from torch import nn

from lab.experiments.sparsity import common as _sparse
from lab.experiments.sparsity import tickets
from lab.experiments.sparsity.selection import points
from lab.models import conv6
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError

TRAINING = {
    "epochs": 2, "finetune_epochs": 0, "batch_size": 32, "lr": 0.1, "momentum": 0.9, "nesterov": False,
    "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip
ADAM = TRAINING | {"optimizer": "adam", "lr": 1e-3}
METHODS = {
    "dense": {}, "cs": {"s_init": 0.0}, "seq-cs": {"rounds": 2}, "imp": {"rounds": 3}, "imp-c": {"rounds": 2},
    "iss": {"rounds": 2},
}  # fmt: skip


def narrow(classes):
    """A network of the kind, of a second's training."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    torch.set_num_threads(1)
    monkeypatch.setattr(_sparse, "load", made_up)
    monkeypatch.setitem(_sparse.NETWORKS, "resnet8", (narrow, _sparse.NETWORKS["resnet8"][1]))
    monkeypatch.setitem(_sparse.NETWORKS, "conv6-quarter", (lambda n: conv6(n, 0.06), (nn.Conv2d, nn.Linear)))
    monkeypatch.setenv("LAB_BUILD", str(tmp_path / "build"))


def tiny(name, seed=0, network="resnet20", **options):
    protocol = tickets.PROTOCOLS["conv6" if name == "iss" else network]["quick"]
    method = tickets.method_config(name, protocol, **METHODS[name] | options)
    training = ADAM if protocol["model"].startswith("conv6") else TRAINING
    config = {"model": protocol["model"], "data": "cifar10-mini", "training": training, "method": method}
    return Run("tickets", config, "short", seed)


def compute(run, path, stop=lambda: False, on_epoch=lambda epoch: None):
    return tickets.compute(run, torch.device("cpu"), path, on_epoch, stop)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once(profile):
    found = tickets.runs(profile)
    assert len({run.id for run in found}) == len(found)
    assert {run.config["method"]["name"] for run in found} == set(tickets.NAMES)


def test_the_paper_protocol_is_the_thesis_s():
    training = tickets.RESNET["paper"]["training"]
    assert [training["epochs"] * at for at in training["steps"]] == pytest.approx([56, 71])
    assert tickets.VGG["paper"]["training"]["batch_size"] == 64
    one = tickets.run("paper", "cs", s_init=0.0).config["method"]
    assert (one["rounds"], one["rewind_epoch"], one["rewind"], one["beta_final"], one["lambda"]) == (
        5,
        2,
        False,
        200,
        1e-8,
    )
    imp = tickets.run("paper", "imp").config["method"]
    assert (imp["rounds"], imp["rate"], imp["rewind"]) == (30, 0.2, True)
    assert not tickets.run("paper", "imp-c").config["method"]["rewind"]
    conv6 = tickets.run("paper", "imp", network="conv6").config["method"]
    assert (conv6["rate"], conv6["rate_linear"], conv6["rewind_epoch"]) == (0.15, 0.2, 0)
    assert len(tickets.RESNET["paper"]["s_init"]) == 11
    assert len(tickets.CONV6["paper"]["s_init"]) == 16


def test_other_seeds_repeat_all_of_the_paper_s_searches_and_the_middle_of_shorter_ones():
    def declared(profile, seed):
        return [r for r in tickets.searches(profile) if r.seed == seed]

    assert len(declared("paper", 0)) == len(declared("paper", 1)) == len(declared("paper", 2)) == 11 + 4
    names = [(r.config["method"]["name"], r.config["method"].get("s_init")) for r in declared("quick", 1)]
    assert names == [("dense", None), ("cs", 0.0), ("imp", None)]


def test_studies_vary_one_thing_at_a_time():
    for what, (values, settings) in tickets.STUDIES.items():
        found = tickets.study("paper", what)
        assert len(found) == len(values) * len(settings)
        methods = [run.config["method"] for run in found[: len(values)]]
        assert [m[what] for m in methods] == values
        rest = [{k: v for k, v in m.items() if k != what} for m in methods]
        assert all(r == rest[0] for r in rest)
    assert [r.config["method"]["rate"] for r in tickets.study("paper", "rate")] == [0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("magic", {}, "unknown search 'magic': choose one of dense, cs"),
        ("cs", {}, "cs needs an s_init"),
        ("cs", {"s_init": math.nan}, "s_init must be a finite number"),
        ("cs", {"s_init": 0.0, "rounds": 0}, "rounds must be at least 1, not 0"),
        ("cs", {"s_init": 0.0, "rewind_epoch": 4}, "rewind_epoch 4 lies beyond a round of 3 epochs"),
        ("cs", {"s_init": 0.0, "lambda": -1.0}, "lambda must not be negative"),
        ("imp", {"rate": 1.0}, "rate must lie between 0 and 1"),
        ("seq-cs", {"rate": 0.0}, "rate must lie between 0 and 1"),
    ],
)
def test_a_wrong_declaration_is_one_line(name, options, words):
    with pytest.raises(LabError, match=words):
        tickets.run("quick", name, **options)


def test_an_unknown_network_or_study_lists_the_known_ones():
    with pytest.raises(LabError, match="unknown network 'lenet': choose one of resnet20, vgg16, conv6"):
        tickets.run("quick", "dense", network="lenet")
    with pytest.raises(LabError, match="vgg16 has no searches at profile quick"):
        tickets.run("quick", "dense", network="vgg16")
    with pytest.raises(LabError, match="unknown study"):
        tickets.study("quick", "noise")


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_search_stopped_anywhere_ends_as_one_never_stopped(name, tmp_path):
    run, ticks = tiny(name), []
    straight = compute(run, tmp_path / "straight.pt", on_epoch=ticks.append)
    assert len(ticks) == tickets.epochs(run)
    calls = []

    def stop():
        calls.append(1)
        return len(calls) in (1, 4, 6, 9, 11)  # in the midst of epochs of several stages

    for _ in range(5):
        with suppress(Stopped):
            compute(run, tmp_path / "stopped.pt", stop)
    got = compute(run, tmp_path / "stopped.pt")
    assert got["figures"] == straight["figures"]
    assert got["curve"] == straight["curve"]
    same = zip(got["model"].state_dict().values(), straight["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"straight.pt", "stopped.pt"}  # no stage is left


def test_a_search_killed_between_its_stages_goes_on(tmp_path):
    run = tiny("imp-c")
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
    got = compute(run, tmp_path / "b.pt")
    assert (got["figures"], got["curve"]) == (straight["figures"], straight["curve"])


def test_imp_records_a_ticket_a_round_and_trains_once_for_two_of_them(tmp_path):
    run = tiny("imp", rounds=3)
    got = compute(run, tmp_path / "c.pt")
    record = {"id": run.id, "config": run.config, "figures": got["figures"]}
    found = points(record)
    assert [p.round for p in found] == [1, 2, 3]
    left, size = [], 4 * 27 + 8 * 36
    for _ in range(3):
        left.append((left[-1] if left else size) - round(0.2 * (left[-1] if left else size)))
    assert [p.sparsity for p in found] == pytest.approx([1 - n / size for n in left])
    assert got["figures"]["accuracy.round1"] == got["figures"]["accuracy_search.round2"]
    assert got["figures"]["sparsity"] == pytest.approx(found[-1].sparsity)
    assert got["figures"]["epochs"] == 6
    assert len(got["curve"]) == (3 + 1) * 2


@pytest.mark.filterwarnings("ignore:the mask removes")
def test_cs_states_exact_and_hardened_sparsity_and_its_last_ticket_is_the_model(tmp_path):
    got = compute(tiny("cs", s_init=-0.02), tmp_path / "c.pt")
    figures = got["figures"]
    for r in (1, 2):
        assert 0 <= figures[f"exact.round{r}"] <= figures[f"sparsity.round{r}"] <= 1
    weights = [got["model"][0].weight, got["model"][3].weight]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    assert figures["sparsity"] == pytest.approx(zeros) == pytest.approx(figures["sparsity.round2"])
    assert figures["sparsity.0"] == pytest.approx(float((weights[0] == 0).float().mean()))
    assert figures["accuracy"] == figures["accuracy.round2"]
    assert [row["beta"] for row in got["curve"] if not row["ticket"]][-1] == pytest.approx(200.0)


def test_momentum_goes_on_between_the_rounds_of_cs_and_the_schedule_starts_anew(tmp_path, monkeypatch):
    seen = []
    made = tickets.Round.optimizers

    def watched(self, net, training):
        optimizers = made(self, net, training)
        seen.append((self.config["name"], len(optimizers[0].state), [g["lr"] for g in optimizers[0].param_groups]))
        return optimizers

    monkeypatch.setattr(tickets.Round, "optimizers", watched)
    compute(tiny("cs"), tmp_path / "c.pt")
    lr_s = tickets.RESNET["quick"]["lr_s"]
    (_, first, rates), _, (_, second, again), _ = seen
    assert first == 0 < second
    assert rates == again == [0.1, lr_s]


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    compute(tiny("dense"), tmp_path / "c.pt")
    with pytest.raises(LabError, match=r"belongs to run .*, not to"):
        compute(tiny("dense", seed=1), tmp_path / "c.pt")
