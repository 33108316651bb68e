"""Chapter 5 as it was built: the precision map moves with no kernel, fed by the runs that the page itself reports."""

import json
import re

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def chapter(browser, site):
    page = browser.new_page()
    heard = []
    page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    page.on("console", lambda m: heard.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: heard.append(str(e)))
    page.goto((site / "chapters" / "05-precision.html").as_uri())
    page.wait_for_selector(".pa-precision[data-drawn]")
    yield page
    page.close()
    assert heard == []


def drawn(page):
    figure = page.locator(".pa-precision")
    run = re.search(r"run ([0-9a-f]{16})", figure.locator(".pa-meta").inner_text())[1]
    return run, figure.locator(".pa-stats").inner_text().replace("\u202f", "")


def test_every_network_shows_its_own_record(chapter):
    from lab.experiments.precision import weights as precision
    from lab.runs import find

    declared = {run.id: run for run in precision.runs("quick")}
    seen = {}
    for family in chapter.locator(".pa-precision .pa-steer [role=radio]").all():
        family.click()
        slider = chapter.get_by_role("slider", name="Penalty on bits")
        slider.focus()
        chapter.keyboard.press("Home")
        for _ in range(int(slider.get_attribute("max")) + 1):
            run, stats = drawn(chapter)
            figures = find(declared[run])["figures"]
            assert f"{figures['bits']:.2f}" in stats
            assert f"{figures['file_bytes'] / 1000:.1f}kB" in stats
            assert f"{100 * figures['accuracy']:.1f}%" in stats
            seen[run] = stats
            chapter.keyboard.press("ArrowRight")
    assert len(seen) >= 6


def test_a_layer_is_chosen_and_a_weight_named(chapter):
    profile = chapter.locator(".pa-precision .pa-means")
    profile.scroll_into_view_if_needed()
    box = profile.bounding_box()
    chapter.mouse.click(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
    chapter.wait_for_function("document.querySelector('.pa-precision').dataset.drawn.endsWith('-19')")
    assert chapter.locator(".pa-precision .pa-layer").inner_text().startswith("linear: 10 filters")
    chapter.locator(".pa-map canvas").focus()
    chapter.keyboard.press("ArrowRight")
    assert re.match(
        r"filter 1, input 1: (\d bits?|absent)", chapter.locator(".pa-precision output.pa-tell").first.inner_text()
    )


def test_a_push_is_read_from_the_record(chapter):
    from lab.experiments.precision import weights as precision
    from lab.runs import find

    record = next(r for run in precision.runs("quick") if precision.is_filmed(run) and (r := find(run)))
    tell = chapter.locator(".pa-second output")
    for i, basin in enumerate(record["recording"]["basins"]):
        chapter.locator(".pa-second [role=radio]").nth(i).click()
        chapter.get_by_role("slider", name="Push of the weight").focus()
        chapter.keyboard.press("End")
        assert f"in {basin['layer']}, pushed by 1: loss {basin['losses'][-1]:.4f}" in tell.inner_text()


def test_notebook_that_was_built_holds_no_error():
    from lab.book.pages import ROOT, workshop

    notebook = json.loads((workshop(ROOT) / "site-src" / "chapters" / "05-precision.ipynb").read_text())
    outputs = [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
