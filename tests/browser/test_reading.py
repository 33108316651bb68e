"""A reader's ways in: marks that open a figure's runs, the start page, hovers, errata, search, a page in print."""

import re

import pytest

from .test_pages import HEAVIEST, Visit, pages

pytestmark = pytest.mark.browser
CHAPTER = "chapters/03-soft-parameter-sharing.html"
OPEN = "document.querySelectorAll('.pa-runs:popover-open').length"


def test_every_figure_and_mark_leads_to_a_box(browser, site):
    seen = 0
    for file in pages(site):
        visit = Visit(browser, file)
        bare = visit.page.eval_on_selector_all(
            ".pa-plot, .pa-widget", "all => all.filter(e => !e.querySelector('.pa-origin')).length"
        )
        assert bare == 0, file.name
        lost = visit.page.eval_on_selector_all(
            ".pa-origin", "all => all.filter(e => !e.popoverTargetElement).map(e => e.outerHTML)"
        )
        assert lost == [], file.name
        seen += visit.page.locator(".pa-origin").count()
        visit.close()
    assert seen >= 40


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_mark_opens_by_mouse_by_key_and_by_touch(browser, site, theme, width):
    touch = width == 390
    visit = Visit(
        browser, site / CHAPTER, viewport={"width": width, "height": 844}, color_scheme=theme, has_touch=touch
    )
    page, mark = visit.page, visit.page.locator("#fig-cost .pa-origin")
    mark.scroll_into_view_if_needed()
    mark.tap() if touch else mark.click()
    box = page.locator(".pa-runs:popover-open")
    said = box.inner_text()
    for word in (
        "experiment",
        "sharing, profile quick",
        "seeds",
        "commit",
        "UTC",
        "method.templates",
        "python -m lab record",
    ):
        assert word in said, word
    place = box.bounding_box()
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    ink, ground = (
        page.evaluate(f"getComputedStyle(document.querySelector('.pa-runs:popover-open')).{what}")
        for what in ("color", "backgroundColor")
    )
    light = [sum(map(float, re.findall(r"\d+", colour)[:3])) for colour in (ink, ground)]
    assert abs(light[0] - light[1]) > 400  # legible in either mode
    page.keyboard.press("Escape")
    assert page.evaluate(OPEN) == 0
    mark.focus()
    page.keyboard.press("Enter")
    assert page.evaluate(OPEN) == 1
    box.locator(".pa-close").click()
    assert page.evaluate(OPEN) == 0
    assert visit.complaints == []
    visit.close()


def test_marks_work_where_no_script_runs(browser, site):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((site / CHAPTER).as_uri())
    mark = page.locator("#fig-cost .pa-origin")
    mark.click()
    assert page.locator(".pa-runs").filter(has_text="python -m lab record").filter(visible=True).count() == 1
    page.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_start_page_has_four_live_figures(browser, site, width):
    visit = Visit(browser, site / "book" / "index.html", viewport={"width": width, "height": 900})
    page = visit.page
    assert sum(visit.sizes.values()) < HEAVIEST
    assert page.locator(".pa-glance .pa-figure").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    slider = page.locator(".pa-glance .pa-annealing .pa-slider").first
    before = slider.get_attribute("aria-valuetext")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") != before
    rows = page.locator("table.pa-which tbody tr")
    assert rows.count() == 4
    for row in rows.all():
        assert re.search(r"\d", row.locator("td").last.inner_text())
        assert row.locator(".pa-origin").count() == 1
    for tab in page.locator(".sd-tab-set > label").all():
        tab.click()
        assert page.locator(".sd-tab-content:visible pre").count() == 1
    assert visit.complaints == []
    visit.close()


def test_terms_say_what_they_mean_and_lead_to_the_glossary(browser, site):
    visit = Visit(browser, site / "chapters" / "04-sparsification.html")
    terms = visit.page.eval_on_selector_all("a.pa-term", "all => all.map(e => [e.getAttribute('href'), e.title])")
    assert len(terms) >= 5
    words = visit.page.eval_on_selector_all(
        "a.pa-term", "all => all.map(e => [e.href, !!e.querySelector('.math')].join())"
    )
    assert len(words) == len(set(words))  # the word once a page, and its symbol once
    glossary = (site / "book" / "glossary.html").read_text(encoding="utf-8")
    for address, title in terms:
        assert f'id="{address.partition("#")[2]}"' in glossary, address
        assert len(title) > 20
    visit.close()


@pytest.mark.parametrize(
    ("words", "chapter"),
    [
        ("lottery ticket", "04-"),
        ("weight sharing", "03-"),
        ("quantization-aware training", "glossary"),
        ("L0", "04-|glossary"),
    ],
)
def test_search_finds_a_method_by_its_name_in_the_field(browser, site, words, chapter):
    visit = Visit(browser, site / "book" / "index.html")
    visit.page.goto((site / "search.html").as_uri() + "?q=" + words.replace(" ", "+"))
    visit.page.wait_for_selector("#search-results li a")
    hits = visit.page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.getAttribute('href'))")
    assert any(re.search(chapter, address) for address in hits), hits
    visit.close()


def test_a_page_in_print(browser, site, tmp_path):
    visit = Visit(browser, site / CHAPTER)
    page = visit.page
    page.emulate_media(media="print")
    for hidden in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", "button.copybtn"):
        assert page.locator(hidden).filter(visible=True).count() == 0, hidden
    boxes = page.locator(".pa-provenance .pa-runs")
    assert boxes.count() >= 4
    assert boxes.filter(visible=True).count() == boxes.count()  # what a mark opens stands at the end of the paper
    file = tmp_path / "page.pdf"
    page.pdf(path=file, format="A4")
    assert file.read_bytes().startswith(b"%PDF")
    visit.close()


def test_the_search_opens_by_key_on_any_page(browser, site):
    visit = Visit(browser, site / CHAPTER)
    visit.page.keyboard.press("Control+k")
    visit.page.keyboard.type("annealing")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector("#search-results li a")
    assert visit.page.locator("#search-results li a").count() > 0
    assert visit.complaints == []
    visit.close()
