"""The (alpha, epsilon) map in a real browser, on a small real grid."""

import numpy as np
import pytest
import tiny_grid
from page_tools import opened

from lab import runs
from lab.experiments.optimizers import grids
from lab.figures.grid.recording import grid_state
from lab.figures.grid.widget import GridWidget, value

pytestmark = pytest.mark.browser
TRIALS = 24


@pytest.fixture(scope="module")
def state():
    return grid_state(tiny_grid.records(), title="Adam and AvaGrad over α and ε", walks=tiny_grid.walks(TRIALS))


@pytest.fixture
def show(browser, tmp_path):
    with opened(browser, tmp_path) as open_page:
        yield open_page


def enlarged(state, times=3):
    """The same maps with every cell several times: as many cells as the thesis's grid has."""
    axis = lambda values: np.geomspace(values[0], values[-1], times * len(values)).tolist()  # noqa: E731
    grow = lambda rows: [[cell for cell in row for _ in range(times)] for row in rows for _ in range(times)]  # noqa: E731
    maps = []
    for one in state["maps"]:
        grids = {key: grow(one[key]) for key in ("mean", "spread", "root_v", "diverged", "missing")}
        maps.append(
            one
            | grids
            | {
                "alphas": axis(one["alphas"]),
                "epsilons": axis(one["epsilons"]),
                "values": list(map(grow, one["values"])),
            }
            | {"best": [times * i for i in one["best"]]}
            | {key: [[times * n for n in edge] for edge in one[key]] for key in ("border", "ridge")}
        )
    return state | {"maps": maps, "walks": []}


def said(state, number):
    return value(state, number).replace("%", " %")


def text_of(page):
    return page.locator(".pa-grids .pa-told").inner_text().replace("\u202f", " ")


def spot(page, state, m, row, column):
    """The middle of a cell on the screen."""
    one = state["maps"][m]
    box = page.locator(".pa-map").nth(m).locator("rect").nth(row * len(one["alphas"]) + column).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_cell_tells_its_runs_by_mouse(show, state):
    page = show(GridWidget(state))
    for m, one in enumerate(state["maps"]):
        row, column = one["best"]
        page.mouse.move(*spot(page, state, m, row, column))
        words = text_of(page)
        assert f"{one['optimizer']}: {said(state, one['mean'][row][column])}" in words
        for run, values in zip(one["runs"], one["values"], strict=True):
            assert f"seed {run['seed']} {said(state, values[row][column])}" in words
        assert "adaptive" in words
    page.mouse.move(5, 5)
    assert "Choose a cell" in text_of(page)
    lost = next((r, c) for r, cells in enumerate(state["maps"][0]["diverged"]) for c, n in enumerate(cells) if n == 2)
    page.mouse.move(*spot(page, state, 0, *lost))
    assert "Adam: diverged with all 2 seeds" in text_of(page)
    page.mouse.move(*spot(page, state, 1, 0, 0))
    assert "AvaGrad: not run" in text_of(page)


def test_a_click_keeps_a_cell_and_frames_it_on_both_maps(show, state):
    page = show(GridWidget(state))
    page.mouse.click(*spot(page, state, 0, 3, 2))
    page.mouse.move(5, 5)
    assert page.locator(".pa-grids").get_attribute("data-cell") == "0.01 0.01"
    frames = [page.locator(".pa-map").nth(m).locator(".pa-frame").last for m in (0, 1)]
    places = []
    for m, frame in enumerate(frames):
        box = frame.bounding_box()
        x, y = spot(page, state, m, 3, 2)
        places.append((abs(box["x"] + box["width"] / 2 - x), abs(box["y"] + box["height"] / 2 - y)))
    assert max(max(place) for place in places) < 2


def test_keyboard_walks_over_the_map(show, state):
    page = show(GridWidget(state))
    one = state["maps"][1]
    row, column = one["best"]
    page.get_by_role("application").nth(1).focus()
    page.keyboard.press("ArrowLeft")  # the first key goes to the best cell
    cell = page.locator(".pa-grids")
    at = lambda r, c: f"{one['alphas'][c]:g} {one['epsilons'][r]:g}"  # noqa: E731
    seen = lambda: " ".join(f"{float(n):g}" for n in cell.get_attribute("data-cell").split())  # noqa: E731
    assert seen() == at(row, column)
    for key, dr, dc in (("ArrowLeft", 0, -1), ("ArrowUp", 1, 0), ("ArrowRight", 0, 1), ("ArrowDown", -1, 0)):
        page.keyboard.press(key)
        row, column = row + dr, column + dc
        assert seen() == at(row, column)
    for _ in range(20):
        page.keyboard.press("ArrowUp")
    assert seen() == at(len(one["epsilons"]) - 1, column)
    page.keyboard.press("Home")
    assert seen() == at(*one["best"])
    page.keyboard.press("Escape")
    assert cell.get_attribute("data-cell") == ""


def test_colours_follow_the_values(show, state):
    """Over both maps: the better the value, the further its colour from the page's; the same value, the same colour."""
    for theme in ("light", "dark"):
        page = show(GridWidget(state), theme=theme)
        # as painted, through a canvas: colours come as oklab
        light = page.evaluate("""() => {
          const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
          const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
          return [...document.querySelectorAll('.pa-map')].map((map) => [...map.querySelectorAll('rect.pa-cell')]
              .map((cell) => {
            paint.fillStyle = getComputedStyle(cell).fill;
            paint.fillRect(0, 0, 1, 1);
            const [r, g, b] = paint.getImageData(0, 0, 1, 1).data;
            return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
          }));
        }""")
        pairs = []
        for one, cells in zip(state["maps"], light, strict=True):
            values = [value for row in one["mean"] for value in row if value is not None]
            assert len(values) == len(cells)
            pairs += zip(values, cells, strict=True)
        pairs.sort()
        lights = np.array([shade for _, shade in pairs]) * (1 if theme == "light" else -1)
        assert (np.diff(lights) > -0.004).all()  # falls or rises throughout, to within a step of 8-bit colour
        assert abs(lights[-1] - lights[0]) > 0.5


def test_cells_that_exploded_do_not_take_the_colours_of_the_others(show):
    """The recorded maps on text, where the worst cell is a thousand times worse than the best."""
    records = [runs.find(run) for run in grids.runs("short", part="text")]
    state = grid_state(records, title="Adam and AvaGrad on text")
    cells = sorted(value for one in state["maps"] for row in one["mean"] for value in row)
    best, median = cells[0], cells[len(cells) // 2]
    assert cells[-1] > 100 * median
    page = show(GridWidget(state))
    steps = page.locator(".pa-step").all_inner_texts()
    assert steps[0] == f"{best:.3f}"
    assert steps[-1] == f"≥ {best + 2 * (median - best):.3f}"
    filled = [
        page.locator(".pa-map").nth(m).locator("rect").nth(row * 17 + column).evaluate("e => getComputedStyle(e).fill")
        for m, one in enumerate(state["maps"])
        for row, values in enumerate(one["mean"])
        for column, value in enumerate(values)
        if value < median
    ]
    assert len(set(filled)) > len(filled) / 3  # the better half of all cells, each in about a colour of its own


def test_a_search_is_played(show, state):
    page = show(GridWidget(state))
    page.clock.install()
    figure = page.locator(".pa-grids")
    assert page.locator(".pa-here:visible").count() == 0
    page.get_by_role("button", name="Play near").click()
    page.clock.run_for(60_000)
    assert figure.get_attribute("data-trial") == str(TRIALS)
    for m, one in enumerate(state["maps"]):
        trials = state["walks"][0]["trials"][m]
        lowest = min(one["mean"][r][c] for r, c in trials if one["mean"][r][c] is not None)
        gap = lowest - one["mean"][one["best"][0]][one["best"][1]]
        expected = "at its best" if gap == 0 else f"{value(state, gap)[:-1]} points above its best"
        assert f"{one['optimizer']} {expected}" in page.locator(".pa-search .pa-where").inner_text().replace(
            "\u202f", " "
        )
        box = page.locator(".pa-here").nth(m).bounding_box()
        x, y = spot(page, state, m, *trials[-1])
        assert abs(box["x"] + box["width"] / 2 - x) < 2
        assert abs(box["y"] + box["height"] / 2 - y) < 2


def test_the_slider_goes_trial_by_trial_and_the_menu_chooses_the_sampler(show, state):
    page = show(GridWidget(state))
    figure = page.locator(".pa-grids")
    slider = page.get_by_label("Trials of the search")
    slider.focus()
    for i in range(1, 5):
        page.keyboard.press("ArrowRight")
        assert figure.get_attribute("data-trial") == str(i)
        assert slider.get_attribute("aria-valuetext").startswith(f"Trial {i} of {TRIALS}")
    tried = page.locator(".pa-tried").first.get_attribute("d")
    page.get_by_label("Search", exact=True).select_option("far")
    assert (figure.get_attribute("data-walk"), figure.get_attribute("data-trial")) == ("1", "0")
    slider = page.get_by_label("Trials of the search")
    slider.focus()
    page.keyboard.press("End")
    assert figure.get_attribute("data-trial") == str(TRIALS)
    assert page.locator(".pa-tried").first.get_attribute("d") != tried
    box = page.locator(".pa-timeline").bounding_box()
    page.mouse.click(box["x"] + 100, box["y"] + 30)
    assert 0 < int(figure.get_attribute("data-trial")) < TRIALS


def test_each_optimizer_keeps_its_colour(show, state):
    alone = state | {"maps": state["maps"][1:], "walks": [w | {"trials": w["trials"][1:]} for w in state["walks"]]}
    read = "getComputedStyle([...document.querySelectorAll('.pa-gap')].at(-1)).stroke"
    both, one = show(GridWidget(state)), show(GridWidget(alone))
    assert both.evaluate(read) == one.evaluate(read)
    first = "getComputedStyle(document.querySelector('.pa-gap')).stroke"
    assert both.evaluate(first) != both.evaluate(read)
