"""The annealing figure in a real browser, from a file, with no kernel and no network."""

import math

import numpy as np
import pytest
from page_tools import opened

from lab.figures.annealing.recording import Snapshot
from lab.figures.annealing.widget import AnnealingWidget

pytestmark = pytest.mark.browser
LAYERS = {"conv1": 400, "blocks.0.conv1": 1600, '<img src=x onerror="document.title=1">': 3000}
LAST = 10


def figure(seed: int = 0) -> AnnealingWidget:
    rng = np.random.default_rng(seed)
    s = rng.normal(-0.05, 0.06, sum(LAYERS.values()))
    moments = [
        Snapshot(p, 15 * p, 200**p, s * (0.1 + p), 0.1 + 0.4 * math.sqrt(p))
        for p in (i / LAST for i in range(LAST + 1))
    ]
    return AnnealingWidget.from_snapshots(
        moments, LAYERS, title="A mask anneals", profile="test", run=f"seed {seed}", hardened=(0.49, 0.8), dense=0.5
    )


@pytest.fixture
def show(browser, tmp_path):
    with opened(browser, tmp_path) as show:
        yield show


def position(page, nth=0):
    return int(page.locator(".pa-annealing").nth(nth).get_attribute("data-position"))


def drawing(page, nth=0):
    """What the eye sees: the numbers, the curve, the bars."""
    root = page.locator(".pa-annealing").nth(nth)
    shapes = "e => [...e.querySelectorAll('.pa-curve, .pa-bar, .pa-gone')].map(n => n.outerHTML).join()"
    return root.locator(".pa-stats").inner_text(), root.evaluate(shapes)


def test_keyboard(show):
    one = figure()
    page = show(one)
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    assert position(page) == 0
    seen = [drawing(page)]
    for i in range(1, LAST + 1):
        page.keyboard.press("ArrowRight")
        assert position(page) == i
        moment = one.state["snapshots"][i]
        said = slider.get_attribute("aria-valuetext").replace("\u202f", " ")
        assert f"test accuracy {100 * moment['accuracy']:.1f} %" in said
        assert f"{100 * moment['sparsity']:.1f} % at zero" in said
        seen.append(drawing(page))
    assert len({shapes for _, shapes in seen}) == LAST + 1
    page.keyboard.press("ArrowRight")
    assert position(page) == LAST
    page.keyboard.press("Home")
    assert drawing(page) == seen[0]
    page.keyboard.press("End")
    assert drawing(page) == seen[-1]


def test_mouse_on_slider_and_on_the_curves(show):
    page = show(figure())
    before = drawing(page)
    for target, fraction in (("input.pa-slider", 0.1), (".pa-timeline .pa-grid >> nth=0", 0.75)):
        box = page.locator(target).bounding_box()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + fraction * box["width"], box["y"] + box["height"] / 2, steps=6)
        page.mouse.up()
        assert abs(position(page) - fraction * LAST) <= 1
        assert drawing(page) != before
        before = drawing(page)


def test_play_runs_to_the_end_and_stops(show):
    page = show(figure())
    page.clock.install()
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(60_000)
    assert position(page) == LAST
    page.get_by_role("button", name="Play").click()  # plays again from the start
    assert position(page) == 0
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(60_000)
    assert position(page) == 0


def test_layers_tell_their_names(show):
    one = figure()
    page = show(one)
    chart = page.locator(".pa-layers")
    said = page.locator(".pa-said")
    chart.focus()
    for i, name in enumerate(LAYERS):
        page.keyboard.press("ArrowRight")
        share = 100 * one.state["snapshots"][one.position]["zero_share"][i]
        assert said.inner_text().replace("\u202f", " ") == f"{name}: {share:.1f} %"
    assert page.title() == "figures"  # the hostile name stayed text
    assert page.locator(".pa-figure img").count() == 0
    chart.evaluate("node => node.blur()")
    box = page.locator(".pa-track").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    assert said.inner_text().startswith("conv1: ")


def test_two_figures_alike_and_one_other_on_a_page(show):
    page = show(figure(), figure(), figure(seed=1))
    start = position(page, 1)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("Home")
    assert position(page, 0) == 0
    assert position(page, 1) == start
    assert drawing(page, 0) != drawing(page, 1) != drawing(page, 2)
    assert page.locator(".pa-still").count() == 0


def test_reduced_motion_has_no_transition(show):
    read = "getComputedStyle(document.querySelector('.pa-gone')).transitionDuration"
    assert show(figure(), reduced_motion="reduce").evaluate(read) == "0s"
    assert show(figure(), reduced_motion="no-preference").evaluate(read) != "0s"
