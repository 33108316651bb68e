"""The shortest-paths task against a search written cell by cell; its networks; F1 with its factor 2."""

import json
from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lab.datasets.shortest_paths import CURRICULUM, curriculum, pack, paths, shortest, unpack
from lab.models import path_cnn, path_scnn
from lab.training.metrics import f1
from lab.utils.errors import LabError

KNOWN = json.loads((Path(__file__).parent / "fixtures/soft_sharing.json").read_text())["f1"]
FOUR = [(0, 1), (1, 0), (0, -1), (-1, 0)]
EIGHT = [*FOUR, (1, 1), (1, -1), (-1, 1), (-1, -1)]


def distances(free, start, neighbours):
    """Breadth-first search in a list of lists: {cell: steps}."""
    found, queue = {start: 0}, deque([start])
    while queue:
        at = queue.popleft()
        for dy, dx in neighbours:
            y, x = at[0] + dy, at[1] + dx
            if 0 <= y < len(free) and 0 <= x < len(free[0]) and free[y][x] and (y, x) not in found:
                found[y, x] = found[at] + 1
                queue.append((y, x))
    return found


def by_hand(walls, a, b, neighbours):
    """Length of a shortest path (0 if there is none) and the cells on one."""
    free = [[not wall for wall in row] for row in walls]
    ahead, back = distances(free, a, neighbours), distances(free, b, neighbours)
    if b not in ahead:
        return 0, set()
    return ahead[b], {cell for cell in ahead if cell in back and ahead[cell] + back[cell] == ahead[b]}


def cells(grid):
    return {tuple(cell) for cell in grid.nonzero().tolist()}


@pytest.mark.parametrize(("moves", "neighbours"), [("manhattan", FOUR), ("diagonal", EIGHT)])
@pytest.mark.parametrize(("distance", "obstacles"), [(2, 0.1), (10, 0.1), (10, 0.45), (200, 0.3)])
def test_every_label_is_what_a_search_by_hand_finds(moves, neighbours, distance, obstacles):
    size = 12
    data = paths(60, distance, seed=3, size=size, obstacles=obstacles, moves=moves)
    for (queries, walls), label, length in zip(data.inputs, data.labels, data.lengths, strict=True):
        (a, b) = cells(queries)
        steps, on_path = by_hand(walls.tolist(), a, b, neighbours)
        assert steps == length > 0
        assert cells(label) == on_path
        assert {a, b} <= on_path
        assert not (label & walls.bool()).any()
        apart = [abs(p - q) for p, q in zip(a, b, strict=True)]
        assert 1 <= (sum(apart) if moves == "manhattan" else max(apart)) <= distance
        assert cells(walls).isdisjoint({a, b})


def test_a_maze_by_hand():
    rows = ["A.#.",
            ".##.",
            "...B",
            "#..."]  # fmt: skip
    grid = torch.tensor([[ord(c) for c in row] for row in rows])[None]
    start, end, wall = (pack(grid == ord(c)) for c in "AB#")
    label, length = shortest(start, end, ~wall & 15, "manhattan")
    assert length.tolist() == [5]
    assert cells(unpack(label, 4)[0]) == {(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3)}
    label, length = shortest(start, end, ~wall & 15, "diagonal")
    assert length.tolist() == [4]
    assert cells(unpack(label, 4)[0]) == {
        (0, 0), (1, 0), (2, 1), (2, 2), (3, 2), (2, 3),
    }  # fmt: skip


def test_no_way_through_is_length_0_and_no_path():
    start, end = torch.tensor([[1, 0, 0]]), torch.tensor([[0, 0, 4]])
    label, length = shortest(start, end, torch.tensor([[7, 0, 7]]), "diagonal")
    assert length.tolist() == [0]
    assert label.abs().sum() == 0


def test_the_last_column_of_the_largest_grid_is_a_column_like_the_others():
    data = paths(40, 200, seed=1, size=62, obstacles=0.3)
    assert data.labels[:, :, 61].any()
    for (queries, walls), length in zip(data.inputs[:5], data.lengths, strict=False):
        a, b = cells(queries)
        assert by_hand(walls.tolist(), a, b, FOUR)[0] == length


@given(st.integers(1, 62), st.integers(1, 9))
def test_packing_is_reversible(columns, rows):
    grid = torch.rand(3, rows, columns) < 0.5
    assert torch.equal(unpack(pack(grid), columns), grid)


def test_the_curriculum_is_the_theses():
    phases = curriculum(count=300)
    assert [phase.distance for phase in phases] == [2, 4, 6, 8, 10] == list(CURRICULUM)
    for phase in phases:
        assert phase.inputs.shape == (300, 2, 32, 32)
        assert phase.inputs.dtype == torch.uint8
        assert phase.labels.shape == (300, 32, 32)
        assert (phase.inputs[:, 0].sum((1, 2)) == 2).all()
        assert phase.inputs[:, 1].float().mean().item() == pytest.approx(0.1, abs=0.005)
        assert len(phase) == 300


def test_query_points_are_uniform_over_all_near_pairs():
    queries = paths(20_000, 2, size=4, obstacles=0.0).inputs[:, 0].flatten(1)
    pairs, counts = queries.unique(dim=0, return_counts=True)
    near = sum(1 <= abs(i // 4 - j // 4) + abs(i % 4 - j % 4) <= 2 for i in range(16) for j in range(i))
    assert len(pairs) == near
    expected = 20_000 / near
    assert ((counts - expected) ** 2 / expected).sum().item() < near + 4 * (2 * near) ** 0.5  # chi-squared, 4 sigma


def test_equal_seeds_give_equal_grids_and_other_seeds_others():
    a, b, c = paths(50, 6, seed=1), paths(50, 6, seed=1), paths(50, 6, seed=2)
    assert torch.equal(a.inputs, b.inputs)
    assert torch.equal(a.labels, b.labels)
    assert not torch.equal(a.inputs, c.inputs)
    first, second = curriculum(20, seed=0), curriculum(20, seed=1)
    grids = {phase.inputs.numpy().tobytes() for phase in (*first, *second)}
    assert len(grids) == 10


def test_a_set_moves_as_a_whole():
    moved = paths(3).to("cpu")
    assert moved.distance == 2
    assert moved.inputs.device == moved.labels.device == moved.lengths.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 63}, "a grid has 2 to 62 cells a side, not 63"),
        ({"size": 1}, "not 1"),
        ({"count": 0}, "at least one grid"),
        ({"distance": 0}, "a distance of 1"),
        ({"obstacles": 0.9}, "obstacles is a probability up to 0.5"),
        ({"moves": "knight"}, "moves must be manhattan or diagonal, not 'knight'"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(LabError, match=message) as error:
        paths(**{"count": 3, **arguments})
    assert "\n" not in str(error.value)


# -- its networks -----------------------------------------------------------------------------------------------------


def test_the_networks_have_the_theses_layers():
    net = path_cnn(22)
    kernels = [m.kernel_size[0] for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [1] + [3] * 20 + [1]
    shared = path_scnn(22).relaxations[0]
    assert shared.alpha["layers"].shape == (20, 20)
    with torch.device("meta"):
        assert path_scnn(100, 2).relaxations[0].alpha["layers"].shape == (98, 2)


def test_the_networks_give_a_logit_a_cell_and_skip_every_layer():
    net = path_cnn(5, 8)
    grids = paths(4).inputs.float()
    assert net(grids).shape == (4, 32, 32)
    with torch.no_grad():
        for layer in net.layers:
            layer.conv.weight.zero_()  # BatchNorm of zeros is its bias, 0: only the skips are left
    torch.testing.assert_close(net(grids), net.last(net.first(grids)).squeeze(1))
    with pytest.raises(LabError, match="at least 3 layers, not 2"):
        path_cnn(2)


# -- F1 ---------------------------------------------------------------------------------------------------------------


def test_f1_has_its_factor_2():
    true, predicted = torch.tensor(KNOWN["y"]), torch.tensor(KNOWN["yhat"])
    assert f1(predicted, true) == pytest.approx(KNOWN["standard"])
    assert f1(predicted, true) == pytest.approx(2 * KNOWN["thesis_3.20"])
    assert f1(true, true) == 1 == 2 * KNOWN["thesis_3.20_for_perfect_prediction"]
    assert f1(1 - true, true) == 0
    assert f1(torch.zeros(3), torch.zeros(3)) == 1
    with pytest.raises(LabError, match=r"f1 compares equal shapes, not \(2,\) and \(3,\)"):
        f1(torch.zeros(2), torch.zeros(3))
