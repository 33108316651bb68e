"""The frontier in a real browser, from a file, with no kernel and no network: points, switches, axes, the run behind a
point."""

import math
import re

import pytest
from page_tools import opened

from lab.figures.frontier.widget import FrontierWidget

pytestmark = pytest.mark.browser
HOSTILE = '<img src=x onerror="document.title=1">'


def run(seed, accuracy, sparsity, command="LAB_RUNS=_build/repeated python -m lab record --run it"):
    return {
        "id": f"{seed:016x}", "experiment": "pruning", "seed": seed, "data": "cifar10", "accuracy": accuracy,
        "sparsity": sparsity,
        "configuration": {"method": f"name cs, s_init -0.{seed}", "training": "epochs 3"},
        "device": f"processor {seed}",
        "commit": f"{seed:x}" * 40, "changed": seed == 2, "seconds": 30.0 + 3600 * seed,
        "recorded": f"2026-01-0{seed + 1}T03:04:05+00:00", "command": command,
    }  # fmt: skip


def point(method, protocol, sparsity, accuracy, runs=None, setting="", **change):
    made = {
        "method": method, "protocol": protocol, "series": f"{method} {protocol}", "setting": setting,
        "accuracy": accuracy,
        "sparsity": sparsity, "accuracy_spread": None, "sparsity_spread": None,
    }  # fmt: skip
    if protocol == "thesis":
        return made | {"printed": {"row": f"row of {method}", "source": "Table 4.9 (p. 1)"}}
    return made | {"runs": runs or [run(0, accuracy, sparsity)]} | change


def state():
    seeds = [run(seed, 0.80 + 0.02 * seed, 0.88 + 0.02 * seed) for seed in range(3)]
    spread = {"accuracy_spread": 0.02, "sparsity_spread": 0.02}
    return {
        "title": HOSTILE,
        "methods": [
            {"key": "dense", "name": "dense", "colour": "dense"},
            {"key": "cs", "name": "CS", "colour": "cs"},
            {"key": "mp", "name": HOSTILE, "colour": "mp"},
        ],
        "protocols": ["quick", "short", "thesis"],
        "strip": "Printed without an accuracy: sparsity alone",
        "networks": [
            {
                "name": "ResNet-20",
                "points": [
                    point("dense", "short", 0.0, 0.9),
                    point("mp", "short", 0.5, 0.85, [run(7, 0.85, 0.5, None)]),
                    point("cs", "thesis", 0.8, 0.91),
                    point("mp", "quick", 0.85, 0.4),
                    point("cs", "short", 0.9, 0.82, seeds, "s_init = -0.05", **spread),
                    point("mp", "thesis", 0.95, None),
                    point("cs", "short", 0.99, 0.7, setting="s_init = -0.2"),
                ],
            },
            {"name": "VGG-16", "points": [point("cs", "thesis", 0.9, 0.93), point("mp", "thesis", 0.99, 0.92)]},
        ],
    }


@pytest.fixture
def show(browser, tmp_path):
    with opened(browser, tmp_path) as show:

        def until_drawn(figure, **options):
            page = show(figure, **options)
            page.wait_for_selector("[data-drawn]")
            return page

        yield until_drawn


def text_of(page, where=".pa-card"):
    return re.sub(r"[\u202f\u00a0]", " ", page.locator(where).inner_text())


def places(page):
    """Where the marks of the points stand, in the page's pixels, in the order in which they are drawn."""
    return page.locator(".pa-dot").evaluate_all(
        "marks => marks.map((m) => { const b = m.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height "
        "/ 2]; })"
    )


def number_opened(page):
    return int(page.locator(".pa-frontier").get_attribute("data-point"))


def test_keys_go_from_point_to_point_and_open_each(show):
    page = show(FrontierWidget(state(), point=4))
    field = page.get_by_role("group", name="Test accuracy against sparsity, 7 points")
    field.focus()
    page.keyboard.press("Home")
    seen = [number_opened(page)]
    for _ in range(7):
        page.keyboard.press("ArrowRight")
        seen.append(number_opened(page))
    assert seen == [0, 1, 2, 3, 4, 5, 6, 6]
    page.keyboard.press("ArrowUp")  # the next more accurate one than 70 %
    assert number_opened(page) == 4
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert number_opened(page) == 3
    page.keyboard.press("End")
    assert number_opened(page) == 6
    assert "99.0 %" in text_of(page, ".pa-stats")
    front = page.locator(".pa-front").bounding_box()  # the chosen mark lies above all others, where it belongs
    assert (front["x"] + front["width"] / 2, front["y"] + front["height"] / 2) == pytest.approx(
        places(page)[6], abs=0.5
    )


def test_a_point_opens_its_runs_seed_by_seed(show):
    page = show(FrontierWidget(state(), point=4))
    assert text_of(page, ".pa-card output.pa-label").startswith(
        "CS, s_init = −0.05: 90.0 % ± 2.0 % zeros, test accuracy 82.0 % ± 2.0 %"
    )
    assert "n = 3" in text_of(page, ".pa-stats")
    card = text_of(page)
    for part in (
        "0000000000000000, experiment pruning, seed 0",
        "80.0 % with 88.0 % zeros",
        "ResNet-20 on cifar10",
        "name cs, s_init −0.0",
        "epochs 3",
        "processor 0",
        "30.0 s, ended 2026-01-01 03:04:05 UTC",
        "000000000000",
    ):
        assert part in card
    assert page.locator(".pa-command code").inner_text() == state()["networks"][0]["points"][4]["runs"][0]["command"]
    page.get_by_role("radio", name="0", exact=True).focus()
    page.keyboard.press("ArrowLeft")  # round the corner to the last seed
    card = text_of(page)
    assert "seed 2" in card
    assert "84.0 % with 92.0 % zeros" in card
    assert "2 h 1 min" in card
    assert "with changes that were not committed" in card
    page.keyboard.press("ArrowLeft")
    assert "seed 1" in text_of(page)


def test_copy_puts_the_command_on_the_clipboard_or_marks_it(show):
    page = show(FrontierWidget(state(), point=4))
    page.get_by_role("button", name="Copy").click()
    page.wait_for_function("document.querySelector('.pa-again output').textContent !== ''")
    if text_of(page, ".pa-again output").startswith("Marked"):
        assert page.evaluate("getSelection().toString()") == page.locator(".pa-command code").inner_text()


def test_a_press_opens_the_point_or_the_seed_under_it(show):
    page = show(FrontierWidget(state(), point=0))
    for i, (x, y) in enumerate(places(page)):
        page.mouse.click(x, y)
        assert number_opened(page) == i
    seeds = page.locator(".pa-seed").evaluate_all(
        "all => all.map((s) => [s.getBoundingClientRect().x + 2, s.getBoundingClientRect().y + 2])"
    )
    assert len(seeds) == 3
    page.mouse.click(*seeds[2])
    assert number_opened(page) == 4
    assert "seed 2" in text_of(page)
    page.mouse.move(*places(page)[6])
    assert "s_init = −0.2: 99.0 % zeros" in text_of(page, ".pa-hint")


def test_a_printed_point_names_its_table_and_one_without_accuracy_stands_above(show):
    page = show(FrontierWidget(state(), point=5))
    assert "Table 4.9 (p. 1)" in text_of(page)
    assert "accuracy not printed" in text_of(page, ".pa-card output.pa-label")
    assert page.locator(".pa-command").is_hidden()
    assert page.locator(".pa-hollow.pa-dot").count() == 2
    heights = [y for _, y in places(page)]
    assert min(range(7), key=heights.__getitem__) == 5
    assert page.locator(".pa-room text", has_text="Printed without an accuracy: sparsity alone").count() == 1


def test_a_run_that_is_no_longer_declared_says_so(show):
    page = show(FrontierWidget(state(), point=1))
    assert page.locator(".pa-command").is_hidden()
    assert "declares no such run any more" in text_of(page)


def test_methods_and_protocols_are_switched_off_and_on(show):
    page = show(FrontierWidget(state(), point=4))
    cs = page.get_by_role("button", name="CS", exact=True)
    assert cs.get_attribute("aria-pressed") == "true"
    cs.focus()
    page.keyboard.press("Enter")
    assert cs.get_attribute("aria-pressed") == "false"
    assert page.locator(".pa-dot").count() == 4
    assert "switched off above" in text_of(page, ".pa-card output.pa-label")
    page.get_by_role("group", name="Test accuracy").focus()
    page.keyboard.press("ArrowRight")
    assert number_opened(page) == 0  # from a hidden point to the first one shown
    page.get_by_role("button", name="thesis, printed").click()
    assert page.locator(".pa-dot").count() == 3
    assert page.locator(".pa-room text", has_text="Printed without").count() == 0
    for name in ("quick", "short"):
        page.get_by_role("button", name=name, exact=True).click()
    assert page.locator(".pa-dot").count() == 0
    assert page.locator(".pa-room text", has_text="Every point is switched off").count() == 1
    page.get_by_role("button", name="short", exact=True).click()
    cs.click()
    assert page.locator(".pa-dot").count() == 4


def test_the_logit_axis_spreads_what_is_sparse(show):
    page = show(FrontierWidget(state(), protocols_off=["quick"]))
    across = lambda: [x for x, _ in places(page)]  # noqa: E731
    linear = across()
    assert (linear[5] - linear[4]) / (linear[1] - linear[0]) == pytest.approx(0.04 / 0.5, abs=0.005)
    page.get_by_role("radio", name="logit").click()
    page.wait_for_selector("[data-drawn='0-logit']")
    logit = across()
    assert logit[0] < logit[1] < logit[2] < logit[3] < logit[4] < logit[5]  # no zeros at all stands left of the break
    far = lambda s: math.log10(s / (1 - s))  # noqa: E731
    ratio = (far(0.99) - far(0.9)) / (far(0.9) - far(0.8))
    assert (logit[5] - logit[3]) / (logit[3] - logit[2]) == pytest.approx(ratio, abs=0.02)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("[data-drawn='0-linear']")
    assert across() == linear


def test_another_network_opens_its_sparsest_point(show):
    page = show(FrontierWidget(state(), point=4))
    page.get_by_role("radio", name="VGG-16").click()
    assert number_opened(page) == 1
    assert "VGG-16 · printed in the thesis" in text_of(page, ".pa-meta")
    assert page.get_by_role("button", name="dense", exact=True).count() == 0  # nothing of it to switch
    page.keyboard.press("ArrowLeft")
    assert number_opened(page) == 6


def test_colours_follow_the_theme(show):
    page = show(FrontierWidget(state()))
    fill = "getComputedStyle(document.querySelectorAll('.pa-dot')[6]).fill"
    assert page.evaluate(fill) == "rgb(0, 114, 178)"
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"{fill} === 'rgb(86, 180, 233)'")
