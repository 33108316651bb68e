"""Chapter 3 as it was built: the folding figure moves with no kernel, fed by the runs that the page itself reports."""

import re

import pytest

pytestmark = pytest.mark.browser
PAGE = "03-soft-parameter-sharing"


@pytest.fixture
def chapter(browser, site):
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    heard = []
    page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.on("console", lambda m: heard.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: heard.append(str(e)))
    page.goto((site / "chapters" / f"{PAGE}.html").as_uri())
    page.wait_for_selector(".pa-folding[data-redraw-ms]")
    yield page
    page.close()
    assert heard == []


def shown_run(page):
    """The record behind what the figure shows now."""
    from lab.experiments.sharing import images as sharing
    from lab.runs import find

    run = re.search(r"run ([0-9a-f]{16})", page.locator(".pa-folding .pa-meta").inner_text())[1]
    return find({one.id: one for one in sharing.runs("quick")}[run])


def at(page, name):
    return int(page.locator(".pa-folding").get_attribute(f"data-{name}"))


def test_threshold_shows_every_fold_that_was_measured(chapter):
    folds = shown_run(chapter)["recording"]["folds"]
    chapter.get_by_role("slider", name="Threshold").focus()
    chapter.keyboard.press("Home")
    drawings = []
    for i, fold in enumerate(folds):
        assert at(chapter, "fold") == i
        error, again, layers, _ = (t.replace("\u202f", "") for t in chapter.locator(".pa-big").all_inner_texts())
        assert error == f"{100 * (1 - fold['score']):.1f}%"
        assert again == f"{100 * (1 - fold['score_bn']):.1f}%"
        assert int(layers) == fold["layers"] == chapter.locator(".pa-box").count()
        drawings.append(chapter.locator(".pa-network").inner_html())
        chapter.keyboard.press("ArrowRight")
    assert len(set(drawings)) == len(folds) >= 5  # each fold draws a network of its own


def test_mouse_reaches_the_ends_of_the_threshold(chapter):
    slider = chapter.get_by_role("slider", name="Threshold")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    seen = []
    for share in (0.005, 0.995):
        chapter.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        seen.append(at(chapter, "fold"))
    assert seen == [0, len(shown_run(chapter)["recording"]["folds"]) - 1]


def test_epochs_show_the_matrix_forming(chapter):
    moments = shown_run(chapter)["recording"]["moments"]
    epochs = chapter.get_by_role("slider", name="Epoch")
    epochs.focus()
    chapter.keyboard.press("Home")
    seen = []
    for i in range(len(moments)):
        assert at(chapter, "moment") == i
        seen.append(chapter.locator(".pa-matrix").inner_html())
        chapter.keyboard.press("ArrowRight")
    assert len(set(seen)) == len(moments) >= 5


def test_every_network_and_seed_of_the_page_can_be_chosen(chapter):
    from lab.experiments.sharing import images as sharing

    wanted = {one.id for one in [*sharing.shared("quick"), *sharing.swept("quick")]}
    network, seed = (chapter.get_by_role("combobox", name=name, exact=True) for name in ("Network", "Seed"))
    met = set()
    for name in network.locator("option").all_text_contents():
        network.select_option(label=name)
        for place in range(seed.locator("option").count()):
            seed.select_option(index=place)
            met.add(shown_run(chapter)["id"])
            assert shown_run(chapter)["recording"]["network"] == name
    assert met == wanted


def test_table_and_figure_come_from_the_same_runs(chapter):
    from lab.experiments.sharing import images as sharing
    from lab.runs import find

    accuracies = [find(one)["figures"]["accuracy"] for one in sharing.shared("quick")]
    name = sharing.shared("quick")[0].config["model"]
    row = chapter.locator("table tr", has=chapter.get_by_role("cell", name=name, exact=True)).filter(has_text="±")
    assert f"{1 - sum(accuracies) / len(accuracies):.1%} ±" in row.first.inner_text()
