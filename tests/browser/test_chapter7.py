"""Chapter 7 as it was built: figures say in words what they draw, marks open runs, the table is the records'."""

import re

import pytest

pytestmark = pytest.mark.browser
FIGURES = ("fig-staircase", "fig-multiply", "fig-bytes")


@pytest.fixture(params=[(390, "light"), (1280, "dark")], ids=["phone", "laptop"])
def chapter(request, browser, site):
    width, theme = request.param
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme).new_page()
    heard = []
    page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    page.on("console", lambda m: heard.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: heard.append(str(e)))
    page.goto((site / "chapters" / "07-combining.html").as_uri())
    page.wait_for_selector(".katex", state="attached")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.context.close()
    assert heard == []


@pytest.fixture(scope="module")
def records():
    """The records behind the page, and their means."""
    from lab import runs
    from lab.experiments.combining import results as stacking
    from lab.experiments.combining import stack as combining

    found = [record for run in combining.runs("quick") if (record := runs.find(run))]
    assert len(found) == 22
    return found, stacking.points(found)


def test_every_figure_says_in_words_what_the_records_hold(chapter, records):
    from lab.experiments.combining import results as stacking

    _, points = records
    alts = {}
    for name in FIGURES:
        figure = chapter.locator(f"#{name}")
        assert figure.locator("figcaption").inner_text().strip()
        alts[name] = figure.locator("svg[role=img]").get_attribute("aria-label")
    steps = re.findall(r"[\d.]+ [kM]B, [\d.]+%", alts["fig-staircase"])
    assert len(steps) == len(stacking.path(points)) >= 3
    for _, stack in stacking.products(points).iterrows():
        assert f"{stack['expected']:.1f} expected, {stack['measured']:.1f} measured" in alts["fig-multiply"]
    smallest = stacking.spent(points).iloc[-1]
    for part, name in stacking.PARTS.items():
        assert f"{name} {stacking.kilobytes(smallest[part])}" in alts["fig-bytes"]


def test_marks_open_the_runs(chapter, records):
    found, _ = records
    for name in FIGURES:
        mark = chapter.locator(f"#{name} .pa-origin")
        mark.scroll_into_view_if_needed()
        mark.click()
        box = chapter.locator(".pa-runs:popover-open")
        said = box.inner_text()
        assert "combining, profile quick" in said
        assert "python -m lab record --experiment combining" in said
        assert set(re.findall(r"\b[0-9a-f]{16}\b", said)) >= {record["id"] for record in found}
        chapter.keyboard.press("Escape")
        assert box.count() == 0


def test_the_table_is_that_of_the_records(chapter, records):
    from lab.experiments.combining import results as stacking

    table = chapter.locator(".pa-table table").first
    head = [cell.strip() for cell in table.locator("thead th").all_inner_texts()]
    rows = [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in table.locator("tbody tr").all()]
    expected = stacking.table(stacking.points(records[0]))
    assert [re.sub(r"\W*$", "", h) for h in head] == [re.sub(r"\W*$", "", c) for c in expected.columns]
    assert rows == [[str(value) for value in row] for row in expected.itertuples(index=False)]


def test_recorded_runs_are_shown_or_said_to_be_missing(chapter):
    from lab import runs
    from lab.experiments.combining import stack as combining

    wanted = combining.runs("short")
    longer = [record for run in wanted if (record := runs.find(run))]
    section = (
        chapter.locator("section").filter(has=chapter.locator("h2", has_text="Does it hold on all of CIFAR-10?")).last
    )
    text = section.inner_text()
    assert f"{len(longer)} of {len(wanted)} runs are recorded" in text
    command = "python -m lab record --experiment combining --profile short --device cuda"
    assert (command in text) == (len(longer) < len(wanted))
    assert section.locator(".pa-table table").count() == (1 if longer else 0)


def test_solutions_open(chapter):
    solutions = chapter.locator("details.hide").filter(has_text="Show the solution")
    assert solutions.count() == 3
    first = solutions.first
    first.locator("summary").click()
    assert "at most" in first.inner_text()
