"""Every table of data sorts by a press on a column's head, by mouse and by keyboard, and nothing else moves."""

import random

import pytest

from lab.book.pages import ROOT

from .test_pages import Visit, pages

pytestmark = pytest.mark.browser
STATIC = ROOT / "book" / "static"

COLUMNS = {  # rising, as the reader expects it; the table is written in another order
    "spread": ["9.7%", "39.4% ± 4.7%", "84.1 ± 0.5", "100.0 %", "–"],
    "file": ["900 kB", "1,105 kB", "1.2 MB", "–", ""],
    "told": ["λ = 1e-06", "λ = 8e-06", "λ = 1.6e-05", "sparsity = 80%", "–"],
    "signed": ["−6.9%", "-0.5%", "+0.0%", "+1.2%", "+11%"],
    "interval": ["8 [7, 9]", "13 [12, 15]", "69 [63, 74], n = 1000", "272,282", "quoted from others"],
    "power": ["2×10⁻⁸", "10⁻³", "0.5", "10²", "5 × 10³"],
    "section": ["3.2.4", "3.2.10", "3.10.1", "4.1", "4.10.2"],
    "name": ["AdamW", "SGD", "SWRN 28-1-3", "SWRN 28-10-1", "–"],
    "hour": ["2:00 Uhr", "10:15 Uhr", "Abend", "Morgen", "nan"],
}
ROWS = 5


@pytest.fixture
def sheet(browser, tmp_path):
    """A page with one table of :data:`COLUMNS` in chance order, first column the row's own name."""
    shuffled = {name: random.Random(name).sample(range(ROWS), ROWS) for name in COLUMNS}
    rows = "".join(
        f"<tr><td>row {i}</td>{''.join(f'<td>{COLUMNS[name][shuffled[name][i]]}</td>' for name in COLUMNS)}</tr>"
        for i in range(ROWS)
    )
    heads = "".join(f"<th>{name}</th>" for name in ["row", *COLUMNS])
    (tmp_path / "page.html").write_text(
        f'<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>t</title>'
        f'<link rel="stylesheet" href="{(STATIC / "custom.css").as_uri()}"><div class="bd-article"><div '
        'class="pa-table">'
        f'<table class="table"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></div>'
        f'<script defer src="{(STATIC / "tables.js").as_uri()}"></script>',
        encoding="utf-8",
    )
    page = browser.new_context().new_page()
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    page.context.close()


def column(page, name):
    at = ["row", *COLUMNS].index(name) + 1
    return [cell.strip() for cell in page.locator(f"tbody td:nth-child({at})").all_inner_texts()]


def gone(text):
    return text in ("", "–", "nan")


@pytest.mark.parametrize("how", ["mouse", "Enter", "Space"])
@pytest.mark.parametrize("name", COLUMNS)
def test_rising_falling_and_as_it_was(sheet, name, how):
    first = column(sheet, "row")
    button = sheet.get_by_role("button", name=name, exact=True)

    def press():
        if how == "mouse":
            button.click()
        else:
            button.focus()
            sheet.keyboard.press(how)
        return button.locator("..").get_attribute("aria-sort")

    assert press() == "ascending"
    assert column(sheet, name) == COLUMNS[name]
    assert press() == "descending"
    falling = column(sheet, name)
    there = [text for text in COLUMNS[name] if not gone(text)]
    words = [text for text in there if text == "quoted from others"]  # a word among numbers stays behind them
    assert falling == [t for t in reversed(there) if t not in words] + words + [t for t in COLUMNS[name] if gone(t)]
    assert press() == "none"
    assert column(sheet, "row") == first


def test_equal_rows_stay_as_they_were_and_one_column_sorts_at_a_time(sheet):
    sheet.evaluate(
        "document.querySelectorAll('tbody td:nth-child(2)').forEach((cell, i) => (cell.textContent = i % 2))"
    )
    press = sheet.get_by_role("button", name="spread", exact=True)
    press.click()
    assert column(sheet, "row") == ["row 0", "row 2", "row 4", "row 1", "row 3"]
    press.click()
    assert column(sheet, "row") == ["row 1", "row 3", "row 0", "row 2", "row 4"]
    sheet.get_by_role("button", name="file", exact=True).click()
    assert sheet.locator("th[aria-sort=ascending]").all_inner_texts() == ["file"]
    assert sheet.locator("th:not([aria-sort=none])").count() == 1


SORTABLE = ":is(.pa-table, .pa-board, .pa-runs, .pa-inside) table, table.pa-which"
UNSORTED = f"""() => [...document.querySelectorAll('.bd-article :is({SORTABLE})')].filter((table) =>
  table.querySelectorAll('tbody tr').length >= 4
      && table.querySelectorAll('th > button.pa-sort').length !== table.rows[0].cells.length)
  .map((table) => table.outerHTML.slice(0, 300))"""
PRESS_ALL = f"""() => [...document.querySelectorAll('.bd-article :is({SORTABLE})')].flatMap((table) => {{
  [...table.tBodies[0].rows].forEach((row, place) => Object.assign(row, {{ place }}));
  const read = () => [...table.tBodies[0].rows].map((row) => row.place).join();
  const sorted = () => read().split(',').sort().join();
  const [first, rows] = [read(), sorted()];
  return [...table.querySelectorAll('th > button')].map((button) => {{
    const states = [1, 2, 3].map(() => {{
      button.click();
      return button.parentNode.getAttribute('aria-sort') + (sorted() === rows ? '' : ', rows lost');
    }});
    return [...states, read() === first];
  }});
}})"""
"""Every head of every table pressed three times: what it says of itself, and whether the rows then stand as at
first."""


def test_every_table_of_data_in_the_book(browser, site):
    pressed = 0
    for file in pages(site):
        visit = Visit(browser, file)
        assert visit.page.evaluate(UNSORTED) == [], file.name
        for said in visit.page.evaluate(PRESS_ALL):
            assert said == ["ascending", "descending", "none", True], file.name
            pressed += 1
        assert visit.complaints == []
        visit.close()
    assert pressed >= 100


def test_the_scoreboards_claims_sort_too(browser, site):
    visit = Visit(browser, site / "book" / "scoreboard.html")
    page = visit.page
    board = page.locator("#chapter-6-optimization .pa-board:has(> .pa-head button)").first  # all of it is numbers
    titles = lambda: board.locator("summary > :first-child").all_inner_texts()  # noqa: E731
    numbers = lambda: [float(t.split()[0]) for t in board.locator("[data-is=thesis]").all_inner_texts()]  # noqa: E731
    first = titles()
    assert len(first) >= 4
    head = board.locator(".pa-head")
    assert head.get_attribute("aria-hidden") is None
    button = head.get_by_role("button", name="thesis")
    button.focus()
    page.keyboard.press("Enter")
    assert numbers() == sorted(numbers())
    assert head.get_by_role("button", name="thesis, sorted, rising", exact=True).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    assert numbers() == sorted(numbers(), reverse=True)
    page.keyboard.press("Enter")
    assert titles() == first
    visit.close()


PLACES = f"""() => [...document.querySelectorAll('.bd-article :is({SORTABLE})')].filter((table) =>
    table.getClientRects().length
  && !table.querySelector('.math')).map((table) => [...table.rows[0].cells, table].map((one) => {{
    const box = one.getBoundingClientRect();
    return [box.width, box.height].map((n) => n.toFixed(1)).join();
  }}).join(' '))"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["book/scoreboard", "chapters/04-sparsification", "chapters/05-precision"])
def test_nothing_shifts(browser, site, name, width):
    visit = Visit(browser, site / f"{name}.html", viewport={"width": width, "height": 900})
    page = visit.page
    with_arrows = page.evaluate(PLACES)
    assert len(with_arrows) >= 1
    page.locator("th > .pa-sort:visible").first.click()
    assert page.evaluate(PLACES) == with_arrows
    page.evaluate("document.querySelectorAll('th > .pa-sort').forEach((one) => one.replaceWith(...one.childNodes))")
    assert page.locator("th > .pa-sort").count() == 0
    assert page.evaluate(PLACES) == with_arrows
    visit.close()


def test_what_was_read_without_scripts_is_read_as_before(browser, site):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((site / "chapters" / "05-precision.html").as_uri())
    assert page.locator(".pa-table table").count() >= 3
    assert page.locator(".pa-sort").count() == 0
    page.context.close()


ARROW = "getComputedStyle(document.querySelector('.pa-table .pa-sort'), '::after')"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_focus_is_seen_and_paper_has_no_arrows(browser, site, theme):
    visit = Visit(browser, site / "chapters" / "05-precision.html", color_scheme=theme)
    page = visit.page
    button = page.locator(".pa-table .pa-sort").first
    colour = button.evaluate("e => getComputedStyle(e).color")
    page.locator(".pa-table .pa-origin").first.focus()
    page.keyboard.press("Tab")
    assert button.evaluate("e => e === document.activeElement")
    assert button.evaluate("e => getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth") == "solid2px"
    assert button.evaluate("e => getComputedStyle(e.parentNode).color") == colour  # looks as the head did
    assert page.evaluate(f"{ARROW}.width") != "auto"
    page.emulate_media(media="print")
    assert page.evaluate(f"{ARROW}.display") == "none"
    visit.close()
