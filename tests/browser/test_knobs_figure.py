"""The knobs of a built page, from a file: by keyboard and by mouse they find the nearest recorded run, and words stay
words."""

import copy

import pytest
from page_tools import opened

from browser.test_every_widget import HELPERS
from browser.test_six_figures import FOREIGN, OUTSIDE, WORDS
from lab.figures.knobs.widget import KnobsWidget

pytestmark = pytest.mark.browser
STATE = {
    "title": "Yours",
    "knobs": [
        {"label": "start", "low": -0.15, "high": 0.05, "value": -0.1, "log": False, "whole": False},
        {"label": "rate", "low": 0.1, "high": 10.0, "value": 1.0, "log": True, "whole": False},
        {"label": "templates", "low": 1, "high": 4, "value": 2, "log": False, "whole": True},
    ],
    "x": {"label": "zeros", "scale": "share"},
    "y": {"label": "accuracy", "scale": "share"},
    "points": [
        {"values": [-0.1, 1.0, 2], "x": 0.9, "y": 0.35, "run": "a" * 16},
        {"values": [0.05, 1.0, 2], "x": 0.5, "y": 0.40, "run": "b" * 16},
        {"values": [-0.1, 10.0, 2], "x": 0.99, "y": 0.30, "run": "c" * 16},
        {"values": [-0.1, 1.0, 4], "x": 0.8, "y": 0.37, "run": "d" * 16},
    ],
}


@pytest.fixture
def show(browser, tmp_path):
    with opened(browser, tmp_path) as show:
        yield show


def said(page):
    return page.locator(".pa-said").inner_text().replace("\u202f", " ")


def test_the_knobs_find_the_nearest_run_by_keyboard_and_by_mouse(show):
    page = show(KnobsWidget(STATE))
    assert said(page).startswith("Recorded with these settings: start −0.1, rate 1, templates 2: zeros 90.0 %")
    page.get_by_role("slider", name="templates").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert f"templates 4: zeros 80.0 %, accuracy 37.0 % (run {'d' * 16})" in said(page)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    box = page.get_by_role("slider", name="start").bounding_box()
    page.mouse.click(box["x"] + 0.85 * box["width"], box["y"] + box["height"] / 2)
    assert said(page).startswith("The nearest recorded run: start 0.05, rate 1")
    page.get_by_role("slider", name="rate").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert page.get_by_role("slider", name="rate").get_attribute("aria-valuetext") == "10"
    assert page.locator(".pa-near").count() == 1


def test_the_readers_own_points_stand_beside(show):
    page = show(KnobsWidget(STATE, live=True, own=[{"values": [0.0, 1.0, 2], "x": 0.7, "y": 0.45}]))
    assert page.locator(".pa-own").count() == 1
    assert page.locator(".pa-knobs svg").get_by_text("yours").is_visible()
    assert page.get_by_role("slider").count() == 0  # with a kernel the knobs are outside


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(show, width, theme):
    page = show(KnobsWidget(STATE), theme=theme, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(HELPERS)
    assert [words for words in page.evaluate("pa.contrasts", page.query_selector(".pa-figure")) if words[0] < 4.5] == []
    assert page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("word", WORDS)
def test_words_stay_words(show, word):
    state = copy.deepcopy(STATE) | {"title": word}
    for holder in (*state["knobs"], state["x"], state["y"]):
        holder["label"] = word
    for point in state["points"]:
        point["run"] = word
    page = show(KnobsWidget(state))
    assert page.locator(".pa-title").inner_text() == word
    assert page.evaluate(FOREIGN) == []
