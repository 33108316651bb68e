"""The precision map in a real browser, from a file, with no kernel and no network: by mouse, by keyboard, in both
modes."""

import base64
import math
import zlib

import numpy as np
import pytest
from page_tools import opened

from lab.figures.precision_map.widget import PrecisionWidget

pytestmark = pytest.mark.browser
HOSTILE = '<img src=x onerror="document.title=1">'
LAYERS = [
    {"name": "conv", "shape": [8, 3, 3, 3]},
    {"name": HOSTILE, "shape": [16, 8, 3, 3]},
    {"name": "blocks.1.conv1", "shape": [32, 16, 3, 3]},
    {"name": "linear", "shape": [10, 32]},
]
SIZES = [math.prod(layer["shape"]) for layer in LAYERS]
PUSHES = [-1.0, -0.25, -0.0625, 0.0625, 0.25, 1.0]


def maps(seed, mean):
    rng = np.random.default_rng(seed)
    return [rng.poisson(mean + 2 * (i == 0), size).clip(0, 9).astype(np.uint8) for i, size in enumerate(SIZES)]


def network(seed, mean):
    precisions = maps(seed, mean)
    payload = sum(int(p.sum()) for p in precisions) / 8
    return {
        "run": f"{seed:016x}", "seed": 0, "lambda": 10.0**-seed, "bits": 8 * payload / sum(SIZES),
        "accuracy": 0.4 - 0.02 * seed,
        "bytes": {"file": payload + 1500, "payload": payload, "map": 500, "rest": 1000},
        "means": [float(p.mean()) for p in precisions],
        "map": base64.b64encode(zlib.compress(np.concatenate(precisions).tobytes())).decode(),
    }  # fmt: skip


def state():
    basins = [
        {
            "layer": "conv",
            "index": 3,
            "bits": bits,
            "weight": 0.5,
            "loss": 1.0,
            "losses": [1 + bits * x * x for x in PUSHES],
        }
        for bits in (1, 3, 6)
    ]
    return {
        "title": "Where the bits went", "profile": "test", "layers": LAYERS, "dense": 0.45,
        "families": [
            {"name": "one precision a layer", "networks": [network(7, 3.0)]},
            {"name": "a precision a weight", "networks": [network(s, m) for s, m in ((4, 3.0), (5, 1.5), (6, 0.6))]},
        ],
        "basins": {"run": "r" * 16, "pushes": PUSHES, "weights": basins},
    }  # fmt: skip


@pytest.fixture
def show(browser, tmp_path):
    with opened(browser, tmp_path) as show:

        def until_drawn(figure, **options):
            page = show(figure, **options)
            drawn(page, f"{figure.family}-{figure.position}-{figure.layer}")
            return page

        yield until_drawn


def drawn(page, what):
    page.wait_for_function(f"document.querySelector('[data-drawn]')?.dataset.drawn === '{what}'")


def pixels(page):
    return page.evaluate("document.querySelector('.pa-map canvas').toDataURL()")


def text_of(page):
    return page.locator(".pa-stats").inner_text().replace("\u202f", " ")


def test_keys_go_along_networks_layers_and_weights(show):
    figure = PrecisionWidget(state())
    page = show(figure)
    many, middle, few = figure.state["families"][1]["networks"]
    assert f"{middle['bits']:.2f}" in text_of(page)
    page.get_by_role("slider", name="Penalty on bits").focus()
    page.keyboard.press("ArrowRight")
    drawn(page, "1-2-2")
    assert f"{few['bits']:.2f}" in text_of(page)
    assert f"{few['bytes']['file'] / 1000:.1f} kB" in text_of(page)
    assert f"{100 * few['accuracy']:.1f} %" in text_of(page)
    page.keyboard.press("Home")
    drawn(page, "1-0-2")
    assert f"{many['bits']:.2f}" in text_of(page)
    page.get_by_role("group", name="Mean bits of each layer").focus()
    before = pixels(page)
    page.keyboard.press("ArrowRight")
    drawn(page, "1-0-3")
    assert pixels(page) != before
    assert "linear: 10 filters (down) × 32 inputs (across)" in page.locator(".pa-layer").inner_text()
    page.locator(".pa-map canvas").focus()
    page.keyboard.press("ArrowRight")
    bits = int(maps(4, 3.0)[3][0])
    said = page.locator("output.pa-tell").first
    assert said.inner_text().startswith("filter 1, input 1: " + (f"{bits} bit" if bits else "absent"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    bits = int(maps(4, 3.0)[3][33])
    assert said.inner_text().startswith("filter 2, input 2: " + (f"{bits} bit" if bits else "absent"))


def test_the_mouse_names_the_weight_under_it_and_zero_is_not_painted(show):
    page = show(PrecisionWidget(state(), family=1, position=2, layer=2))
    canvas = page.locator(".pa-map canvas")
    p = maps(6, 0.6)[2].reshape(32, 16, 3, 3)
    size = canvas.evaluate("e => [e.clientWidth, e.clientHeight]")
    cell = size[0] / 48
    assert size == [48 * cell, 96 * cell]
    seen, places = [], ((0, 0), (10, 7), (50, 20), (95, 47), (33, 31), (61, 5), (20, 44), (71, 13))
    for row, column in places:
        bits = int(p[row // 3, column // 3, row % 3, column % 3])
        canvas.hover(position={"x": (column + 0.4) * cell, "y": (row + 0.4) * cell})
        said = page.locator("output.pa-tell").first.inner_text()
        assert said.startswith(
            f"filter {row // 3 + 1}, input {column // 3 + 1}, row {row % 3 + 1}, column {column % 3 + 1}"
        )
        assert said.endswith("absent (0 bits)" if bits == 0 else f"{bits} bit" + "s" * (bits > 1))
        seen.append(bits)
    whole = canvas.evaluate("e => [e.width, [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data]]")
    width, data = whole[0], np.array(whole[1]).reshape(-1, 4)
    scale, shades = width / size[0], {}
    for (row, column), bits in zip(places, seen, strict=True):
        shade = tuple(data[int((row + 0.4) * cell * scale) * width + int((column + 0.4) * cell * scale)])
        assert (shade[3] == 0) == (bits == 0)
        assert shades.setdefault(bits, shade) == shade
    assert len(set(shades.values())) == len(shades) > 1


def test_families_by_mouse_and_by_keys(show):
    page = show(PrecisionWidget(state()))
    page.get_by_role("radio", name="one precision a layer").click()
    drawn(page, "0-0-2")
    assert page.get_by_role("slider", name="Penalty on bits").is_disabled()
    page.keyboard.press("ArrowRight")
    drawn(page, "1-0-2")
    assert page.get_by_role("radio", name="a precision a weight").get_attribute("aria-checked") == "true"
    box = page.locator(".pa-means").bounding_box()
    page.mouse.click(box["x"] + 40, box["y"] + box["height"] / 2)
    drawn(page, "1-0-0")


def test_a_weight_is_pushed_by_mouse_and_by_keys(show):
    page = show(PrecisionWidget(state()))
    tell = page.locator(".pa-second output")
    push = page.get_by_role("slider", name="Push of the weight")
    push.focus()
    page.keyboard.press("End")
    assert "A weight of 3 bits in conv, pushed by 1: loss 4.0000, +3.0000; beyond its noise." in tell.inner_text()
    page.get_by_role("radio", name="1 bit", exact=True).click()
    assert "pushed by 1: loss 2.0000, +1.0000; within its noise." in tell.inner_text()
    box = page.locator(".pa-basin").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 50, box["y"] + 60, steps=5)
    page.mouse.up()
    assert "pushed by −1:" in tell.inner_text()


def test_it_paints_anew_when_the_theme_changes(show):
    page = show(PrecisionWidget(state()))
    before = pixels(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function("was => document.querySelector('.pa-map canvas').toDataURL() !== was", arg=before)
    assert pixels(page) != before
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_function("was => document.querySelector('.pa-map canvas').toDataURL() === was", arg=before)
