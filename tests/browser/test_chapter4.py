"""Chapter 4 as it was built: the annealing figure moves with no kernel, fed by the run that the page itself reports."""

import json
import re

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def chapter(browser, site):
    page = browser.new_page()
    heard = []
    page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.on("console", lambda m: heard.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: heard.append(str(e)))
    page.goto((site / "chapters" / "04-sparsification.html").as_uri())
    page.wait_for_selector(".pa-annealing [type=range]")
    yield page
    page.close()
    assert heard == []


def test_slider_moves_the_figure(chapter):
    figure, slider = chapter.locator(".pa-annealing"), chapter.locator(".pa-annealing [type=range]")
    slider.focus()
    chapter.keyboard.press("Home")
    seen = []
    for _ in range(30):
        curve = figure.locator(".pa-curve").first.get_attribute("d")
        seen.append((figure.get_attribute("data-position"), figure.locator(".pa-stats").inner_text(), curve))
        chapter.keyboard.press("ArrowRight")
    moments = dict.fromkeys(seen)
    assert len(moments) == len({position for position, _, _ in seen}) >= 10  # each moment draws something of its own
    assert len({curve for _, _, curve in moments}) == len(moments)


def test_figure_and_text_come_from_one_run(chapter):
    run = re.search(r"run ([0-9a-f]{16})", chapter.locator(".pa-annealing .pa-meta").inner_text())[1]
    from lab.experiments.sparsity import pruning
    from lab.runs import find

    recorded = {one.id: one for one in pruning.runs("quick")}
    record = find(recorded[run])
    foot = chapter.locator(".pa-annealing .pa-foot").inner_text().replace("\u202f", "")
    assert f"{100 * record['figures']['accuracy']:.1f}%" in foot
    assert f"{100 * record['figures']['sparsity']:.1f}%" in foot


def test_mouse_reaches_the_ends(chapter):
    slider = chapter.locator(".pa-annealing [type=range]")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    positions = []
    for share in (0.01, 0.99):
        chapter.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        positions.append(int(chapter.locator(".pa-annealing").get_attribute("data-position")))
    assert positions[0] == 0 < positions[1]
    assert "200" in chapter.locator(".pa-annealing .pa-stats").inner_text()


def test_the_frontier_opens_runs_that_are_recorded(chapter):
    from lab.experiments.sparsity import pruning, tickets
    from lab.runs import find, read, recorded_runs

    declared = {one.id: one for module in (pruning, tickets) for one in module.runs("quick")}
    figure = chapter.locator(".pa-frontier")
    figure.locator(".pa-field").focus()
    chapter.keyboard.press("End")
    opened = set()
    for _ in range(figure.locator(".pa-dot").count()):
        card = figure.locator(".pa-card").inner_text().replace("\u202f", " ")
        if found := re.search(r"\b[0-9a-f]{16}\b", card):
            run = found[0]
            record = find(declared[run]) if run in declared else read(next(recorded_runs().glob(f"*/{run}.json")))
            stated = {f"{100 * v:.1f} %" for k, v in record["figures"].items() if k.startswith("accuracy")}
            assert re.search(r"Result\s+([\d.]+ %)", card)[1] in stated
            assert f"--run {run}" in card
            opened.add(run)
        chapter.keyboard.press("ArrowLeft")
    assert len(opened) >= 10


def test_notebook_that_was_built_holds_no_error():
    from lab.book.pages import ROOT, workshop

    notebook = json.loads((workshop(ROOT) / "site-src" / "chapters" / "04-sparsification.ipynb").read_text())
    outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
