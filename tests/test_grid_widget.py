"""Grids over (alpha, epsilon): what a run records, what the map makes of several, and what both refuse."""

import copy
import math

import numpy as np
import pytest
import tiny_grid
import torch

from lab.figures.grid.recording import (
    Table,
    border,
    grid_recording,
    grid_state,
    median_root_v,
    ridge,
    table,
)
from lab.figures.grid.widget import GridWidget, value
from lab.figures.widget import to_json
from lab.utils.errors import LabError
from principled import AvaGrad, DelayedAdam

AXES = {"alphas": [0.1, 1.0, 10.0], "epsilons": [0.01, 1.0]}
NAMED = {"optimizer": "Adam", "network": "net", "metric": "accuracy"}
HOSTILE = '</script><img src=x onerror="document.title=1">&\u2028'


def record(cells, seed=0, profile="quick", **named):
    recording = grid_recording(**(NAMED | AXES | named), cells=cells)
    return {"id": f"{seed:016x}", "seed": seed, "profile": profile, "recording": recording}


def test_numbers_by_hand():
    """Two seeds over six cells: one cell diverged once, one twice, one was not run."""
    first = [
        (0.1, 0.01, 0.5, 0.1),
        (1.0, 0.01, 0.8, 0.1),
        (10.0, 0.01, None, None),
        (0.1, 1.0, 0.4, 0.1),
        (10.0, 1.0, 0.3, 0.4),
    ]
    second = [(0.1, 0.01, 0.7, 0.4), (1.0, 0.01, math.nan, 7.0), (10.0, 0.01, math.inf, None), (0.1, 1.0, 0.4, 0.4)]
    made = table([record(first, 0), record(second, 1)], "Adam")
    assert made.mean == pytest.approx(np.array([[0.4, 0.2, math.nan], [0.6, math.nan, 0.7]]), nan_ok=True)
    assert made.spread == pytest.approx(
        np.array([[math.sqrt(0.02), math.nan, math.nan], [0, math.nan, math.nan]]), nan_ok=True
    )
    assert made.finished.tolist() == [[2, 1, 0], [2, 0, 1]]
    assert made.diverged.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert made.root_v[0, 0] == pytest.approx(0.2)  # sqrt(0.1 * 0.4)
    one = grid_state([record(first, 0), record(second, 1)], title="by hand")["maps"][0]
    assert one["missing"] == [[0, 0, 0], [0, 2, 1]]
    assert one["best"] == [0, 1]
    assert one["mean"][0][2] is None


def test_bits_per_character_stay_as_they_are():
    made = record([(0.1, 0.01, 1.4, None), (1.0, 0.01, 1.2, None)], metric="BPC")
    state = grid_state([made], title="language")
    assert state["maps"][0]["mean"][0][:2] == [1.4, 1.2]
    assert state["maps"][0]["best"] == [0, 1]
    assert "1.200" in GridWidget(state).alt


def test_the_median_is_of_the_rates_that_a_step_used():
    torch.manual_seed(0)
    gradients = [torch.randn(5), torch.randn(3, 2)]
    for method, corrected in ((torch.optim.Adam, True), (AvaGrad, False), (DelayedAdam, False)):
        weights = [torch.zeros(5, requires_grad=True), torch.zeros(3, 2, requires_grad=True)]
        optimizer = method(weights, lr=0.1, betas=(0.9, 0.99))
        with pytest.raises(LabError, match="holds no second moment"):
            median_root_v(optimizer)
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g
        optimizer.step()
        magnitude = torch.cat([g.flatten() for g in gradients]).abs().median().item()
        assert median_root_v(optimizer) == pytest.approx(magnitude * (1 if corrected else math.sqrt(0.01)), rel=1e-4)


def test_border_and_ridge_by_hand():
    nan = np.full((3, 2), np.nan)
    none = np.zeros((3, 2), dtype=np.int64)
    eps, alphas = np.array([0.01, 0.1, 1.0]), np.array([1.0, 10.0])
    # sqrt(v) 0.05 in the left column: adaptive below, SGD-like from 0.1 on; 0.5 in the right one, not recorded at 1
    grids = Table(alphas, eps, nan, nan, none, none, np.array([[0.05, 0.5], [0.05, 0.5], [0.05, np.nan]]))
    assert border(grids) == [[0, 1, 1, 1], [1, 1, 1, 2]]
    # through the cell at alpha 1, eps 0.01: alpha = (0.05 + eps) / 0.06, so 2.5 at eps 0.1 and 17.5, off the map, at 1
    points = np.array(ridge(grids, [0, 0], normalised=False))
    assert points[0] == pytest.approx([0.5, 0.5])
    at = points[points[:, 1] == 1.5][0]
    assert at[0] == pytest.approx(0.5 + math.log10(2.5), abs=1e-3)
    assert points[:, 1].max() < 2.5
    assert np.unique(np.array(ridge(grids, [0, 0], normalised=True))[:, 0]).tolist() == [0.5]
    assert ridge(grids, [2, 1], normalised=False) == []


def test_a_real_grid_shows_what_section_6_4_2_says():
    """Small epsilon: Adam's best alpha stays. Large epsilon: it grows with epsilon. AvaGrad's stays throughout."""
    adam, avagrad = (table(tiny_grid.records(), name) for name in tiny_grid.OPTIMIZERS)
    low, high = 1, len(tiny_grid.EPSILONS) - 1
    best = [np.nanargmin(made.mean, axis=1) for made in (adam, avagrad)]
    assert best[0][low] == best[0][low + 1]
    assert best[0][high] - best[0][low] >= 2
    assert len(set(best[1][1:].tolist())) == 1
    # the predicted border lies where epsilon passes the recorded second moments
    row = adam.epsilons.tolist().index(0.1)
    assert adam.root_v[row, 2] < 0.1
    assert adam.root_v[1, 2] > adam.epsilons[1]


def test_widget_from_records():
    widget = GridWidget.from_records(tiny_grid.records(), title="Adam and AvaGrad", walks=tiny_grid.walks())
    state = widget.state
    assert [one["optimizer"] for one in state["maps"]] == ["Adam", "AvaGrad"]
    assert all(one["missing"][0][0] == 2 for one in state["maps"])
    assert any(cell == 2 for one in state["maps"] for row in one["diverged"] for cell in row)
    assert [walk["sampler"] for walk in state["walks"]] == ["near", "far"]
    for m, one in enumerate(state["maps"]):
        row, column = one["best"]
        assert value(state, one["mean"][row][column]) in widget.alt
        assert one["border"]
        row, column = state["walks"][0]["trials"][m][0]
        trial = next(walk for walk in tiny_grid.walks() if walk["optimizer"] == one["optimizer"])["trials"][0]
        assert (one["alphas"][column], one["epsilons"][row]) == trial
    rows = widget.table(state)
    assert len(rows) == 1 + 2 * len(tiny_grid.EPSILONS)
    assert len(to_json(state)) < 20_000
    assert widget.static_html() == GridWidget(copy.deepcopy(state)).static_html()


def test_adam_stands_first_whoever_ran_first():
    state = grid_state(tiny_grid.records()[::-1], title="t", walks=tiny_grid.walks()[::-1])
    assert [one["optimizer"] for one in state["maps"]] == ["Adam", "AvaGrad"]
    assert [run["seed"] for run in state["maps"][0]["runs"]] == [0, 1]
    straight = grid_state(tiny_grid.records(), title="t", walks=tiny_grid.walks())
    assert state["maps"] == straight["maps"]
    assert state["walks"] == straight["walks"][::-1]


def test_one_optimizer_alone_and_no_walk():
    widget = GridWidget.from_records(tiny_grid.records()[:1], title="Adam, one seed")
    assert widget.state["walks"] == []
    assert all(spread is None for row in widget.state["maps"][0]["spread"] for spread in row)
    assert "one seed" in widget.static_html()


def test_hostile_text_stays_text():
    made = record([(0.1, 0.01, 0.5, None), (1.0, 0.01, 0.6, None)], optimizer=HOSTILE, network=HOSTILE)
    page = GridWidget.from_records([made], title=HOSTILE).static_html()
    assert "<img" not in page


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metric": "loss"}, "metric is one of accuracy, BPC, not 'loss'"),
        ({"alphas": [1.0, 0.1, 10.0]}, "alphas must be two or more numbers above 0, rising"),
        ({"epsilons": [0.0, 1.0]}, "epsilons must be two or more numbers above 0, rising"),
        ({"cells": [(0.1, 0.01, 0.5, None)] * 2}, "alpha=0.1, epsilon=0.01 is given twice"),
        ({"cells": [(0.3, 0.01, 0.5, None)]}, r"alpha 0\.3 is not on the grid; nearest is 0\.1"),
        ({"cells": [(0.1, 0.01, 51.0, None)]}, "the score 51 at alpha=0.1, epsilon=0.01 is no accuracy: give 0 to 1"),
    ],
)
def test_bad_recordings_are_refused(change, says):
    with pytest.raises(LabError, match=says):
        grid_recording(**(NAMED | AXES | {"cells": []} | change))


def test_records_that_do_not_belong_together_are_refused():
    cells = [(0.1, 0.01, 0.5, None)]
    one = record(cells, 0)
    for others, says in (
        ([], "none of these records holds a grid"),
        ([one, record(cells, 0)], "both Adam, seed 0"),
        ([one, record(cells, 1, network="other")], "differ in network"),
        ([one, record(cells, 1, profile="paper")], "two profiles"),
        ([one, record(cells, 1, alphas=[0.1, 1.0])], "different alphas"),
        ([record([(0.1, 0.01, None, None)])], "there is nothing to compare"),
    ):
        with pytest.raises(LabError, match=says):
            grid_state(others, title="")
    for walk, says in (
        ({"optimizer": "SGD"}, "whose grid is not here: Adam"),
        ({"trials": [(0.2, 0.01)]}, r"alpha 0\.2 is not on the grid"),
    ):
        walks = [{"optimizer": "Adam", "sampler": "GLD", "seed": 0, "trials": [(0.1, 0.01)]} | walk]
        with pytest.raises(LabError, match=says):
            grid_state([one], title="", walks=walks)


def test_walk_and_trial_exist():
    state = grid_state(tiny_grid.records(), title="t", walks=tiny_grid.walks(12))
    widget = GridWidget(state, walk=1, trial=12)
    assert (widget.walk, widget.trial) == (1, 12)
    with pytest.raises(LabError, match="trial 13 was not recorded; choose one from 0 to 12"):
        widget.trial = 13
    with pytest.raises(LabError, match="walk 2 was not recorded"):
        widget.walk = 2
