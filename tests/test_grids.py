"""Grids over (alpha, epsilon): what is declared, that neighbours change nothing, that a stop leaves no trace."""

import math
from contextlib import suppress
from functools import partial

import pytest
import torch
from tiny_run import made_up

from lab.baselines.optimizers import build
from lab.datasets.text import Text
from lab.experiments.optimizers import grids
from lab.figures.grid import recording as grid_maps
from lab.models import registry
from lab.models.lstm import CharLSTM
from lab.models.small_cnn import SmallCNN
from lab.runs import Run
from lab.training import Classification, Stopped, rate
from lab.utils.errors import LabError

TRAINING = {"epochs": 2, "batch_size": 16} | grids.STEPS
ALPHAS, EPSILONS = [1e-3, 1e-1, 1.0], [1e-8, 1e-2]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(grids, "load", made_up)
    monkeypatch.setitem(registry.NETWORKS, "small CNN", partial(SmallCNN, 4))


def tiny(name="Adam", **training):
    method = {"name": name, "revision": 1, "alphas": ALPHAS, "epsilons": EPSILONS}
    config = {"model": "small CNN", "data": "cifar10-mini", "validation": 32, "training": TRAINING | training}
    return Run("grids", config | {"method": method}, "quick", 0)


def compute(run, path, stop=lambda: False):
    return grids.experiment.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)


def sweep(name, cells, together, training=TRAINING, net=None):
    task = Classification(grids.held_out(made_up("made-up", "train"), 32), training)
    torch.manual_seed(0)
    return grids.Sweep("x", net or SmallCNN(4), name, cells, training, task, together)


def test_the_axes_are_the_thesis_s():
    assert (len(grids.ALPHAS), len(grids.EPSILONS)) == (21, 21)
    assert grids.ALPHAS[:3] + grids.ALPHAS[-1:] == [5e-7, 1e-6, 5e-6, 5000]
    assert grids.EPSILONS[:3] + grids.EPSILONS[-1:] == [1e-8, 2e-8, 1e-7, 100]
    assert grids.TEXT_ALPHAS[:2] + grids.TEXT_ALPHAS[-1:] == [2e-4, 1e-3, 20]
    assert (grids.TEXT_EPSILONS[0], grids.TEXT_EPSILONS[-1]) == (1e-8, 100)


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_grid_is_declared_once(profile):
    declared = grids.runs(profile)
    assert len({run.id for run in declared}) == len(declared)
    assert {run.config["method"]["name"] for run in declared} >= {"Adam", "AvaGrad"}
    for part in ("images", "text") if profile != "quick" else ("images",):
        assert {r.config["data"] in grids.TEXTS for r in grids.runs(profile, part=part)} == {part == "text"}


def test_at_profile_paper_every_adaptive_method_has_both_grids_with_441_settings_on_images():
    declared = grids.runs("paper", part="images")
    assert {run.config["method"]["name"] for run in declared} == set(grids.ADAPTIVE)
    assert {grids.experiment.epochs(run) for run in declared} == {441 * 200}
    belief = next(r for r in grids.runs("paper", part="text") if r.config["method"]["name"] == "AdaBelief")
    assert belief.config["method"]["epsilons"][0] == pytest.approx(1e-16)


def test_a_cell_is_an_ordinary_training_with_that_alpha_and_epsilon():
    training, (alpha, eps) = TRAINING, (0.1, 1e-2)
    one = sweep("AvaGrad", [(alpha, eps)], 1)
    net = SmallCNN(4)
    net.load_state_dict(one.net.state_dict())
    ((*_, score, root_v),) = one.run()
    task = one.task
    optimizer = build("AvaGrad", net.parameters(), alpha, eps, training["weight_decay"])
    for epoch in range(training["epochs"]):
        for step, batch in enumerate(task.batches(0, epoch, 0)):
            optimizer.param_groups[0]["lr"] = alpha * rate(training, (epoch + step / task.steps) / training["epochs"])
            optimizer.zero_grad()
            task.loss(net, batch).backward()
            optimizer.step()
    assert score == task.evaluate(net)
    assert root_v == grid_maps.median_root_v(optimizer)


@pytest.mark.parametrize("name", ["Adam", "AvaGrad", "AdaShift"])
def test_how_many_stand_side_by_side_changes_nothing(name):
    cells = [(alpha, eps) for eps in EPSILONS for alpha in ALPHAS]
    assert sweep(name, cells, 1).run() == sweep(name, cells, 4).run()


def test_a_grid_stopped_anywhere_ends_as_one_never_stopped(tmp_path, monkeypatch):
    monkeypatch.setitem(grids.PROTOCOL["quick"], "together", 4)
    straight = compute(tiny("AvaGrad"), tmp_path / "straight.pt")
    calls, moments = [], (1, 4, 8)

    def stop():
        calls.append(1)
        return len(calls) in moments

    for _ in moments:
        with suppress(Stopped):
            compute(tiny("AvaGrad"), tmp_path / "stopped.pt", stop)
    got = compute(tiny("AvaGrad"), tmp_path / "stopped.pt")
    assert (got["figures"], got["recording"]) == (straight["figures"], straight["recording"])
    assert got["seconds"] > 0


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    compute(tiny("Adam"), tmp_path / "c.pt")
    with pytest.raises(LabError, match="is a checkpoint of run"):
        compute(tiny("AvaGrad"), tmp_path / "c.pt")


def test_a_diverged_cell_has_no_score_and_leaves_the_others_alone():
    def net():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))

    both = sweep("Adam", [(1e-3, 1e-8), (3e37, 1e-8)], 2, net=net()).run()
    assert both[0] == sweep("Adam", [(1e-3, 1e-8)], 1, net=net()).run()[0]
    assert both[1][2:] == (None, None)
    figures = grids.figures(both, "accuracy")
    assert (figures["accuracy"], figures["alpha"], figures["diverged"], figures["within_1"]) == (
        both[0][2],
        1e-3,
        1,
        0.5,
    )
    with pytest.raises(LabError, match="every cell of the grid diverged"):
        grids.figures(both[1:], "accuracy")


def test_what_is_recorded_is_a_grid_that_the_map_reads(tmp_path):
    got = compute(tiny("Adam"), tmp_path / "c.pt")
    grid = got["recording"]["grid"]
    assert grid_maps.grid_state([{"id": "0" * 16, "seed": 0, "profile": "quick"} | got], title="t")
    assert got["figures"]["accuracy"] == pytest.approx(max(max(row) for row in grid["score"]), abs=1e-3)
    assert all(root > 0 for row in grid["root_v"] for root in row)


def test_the_same_images_are_held_out_whatever_the_seed_and_none_is_trained_on():
    data = made_up("made-up", "train")
    (rest, held), (again, same) = grids.held_out(data, 32), grids.held_out(data, 32)
    assert len(held) == 32
    assert torch.equal(held.images, same.images)
    assert torch.equal(rest.labels, again.labels)
    images = {image.numpy().tobytes() for image in data.images}
    assert images == {i.numpy().tobytes() for part in (rest, held) for i in part.images}
    with pytest.raises(LabError, match="cannot hold 96 of 96 images out"):
        grids.held_out(data, 96)


def test_a_grid_on_text_scores_bits_per_character(tmp_path, monkeypatch):
    letters = torch.randint(0, 5, (600,), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(grids, "load_text", lambda name: Text(letters, letters[:99], letters[:99], "abcde", name, "00"))
    small = partial(CharLSTM, units=8, embedding=6, dropout=(0, 0, 0, 0))
    monkeypatch.setitem(registry.NETWORKS, "3xLSTM(64)", small)
    run = grids.run("short", "Adam", part="text")
    method = dict(run.config["method"]) | {"alphas": ALPHAS, "epsilons": EPSILONS}
    training = dict(run.config["training"]) | {"batch_size": 8, "bptt": 10}
    got = compute(Run("grids", dict(run.config) | {"method": method, "training": training}, "short", 0), tmp_path / "c")
    assert got["recording"]["grid"]["metric"] == "BPC"
    best = min(min(row) for row in got["recording"]["grid"]["score"])
    assert got["figures"]["bpc"] == pytest.approx(best, abs=1e-3)
    assert best < math.log2(5) + 0.2


def test_a_wrong_declaration_is_one_line():
    with pytest.raises(LabError, match="there are grids for Adam, AMSGrad"):
        grids.run("quick", "SGD")
    with pytest.raises(LabError, match="no grid of 'text' at profile quick"):
        grids.run("quick", "Adam", part="text")
