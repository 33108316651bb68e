"""What a reader who does not see a page is told: of each picture, control and heading, on every built page."""

import re

import pytest

from .test_every_widget import HELPERS
from .test_pages import TOO_WIDE, Visit, pages

pytestmark = pytest.mark.browser

FOUND = """() => {
  const shown = (e) => e.checkVisibility() && !e.closest('[aria-hidden=true]');
  const refers = (e) => (e.getAttribute('aria-labelledby') ?? '').split(' ').map((id) =>
      document.getElementById(id)?.textContent ?? '').join(' ');
  const name = (e) => [e.getAttribute('aria-label'), refers(e), ...[...(e.labels ?? [])].map((l) => l.textContent),
      e.getAttribute('alt'), e.title,
    e.matches('input, select, textarea') ? e.placeholder : e.textContent,
    e.matches('[type=submit], [type=button]') ? e.value : '', e.querySelector?.('img')?.alt].map((s) =>
        (s ?? '').trim()).find(Boolean) ?? '';
  const all = (selector) => [...document.querySelectorAll(selector)].filter(shown);
  const look = (e) => [name(e), e.outerHTML.slice(0, 160)];
  return {
    pictures: [...all('img').map((e) => [e.getAttribute('alt') ?? '', e.outerHTML.slice(0, 160)]),
        ...all('svg[role=img], canvas, [role=img]:not(img)').map(
      (e) => [e.getAttribute('aria-label') || refers(e) || e.querySelector?.(':scope > title')?.textContent || '',
          e.outerHTML.slice(0, 160)])],
    bare: all('svg').filter((e) => !e.closest(`[role=img], [role=application], [role=group][tabindex], button,
      a, .katex`)
      && e.ownerSVGElement === null
      && !e.hasAttribute('role')).map((e) => e.outerHTML.slice(0, 160)),
    controls: all(`button, input:not([type=hidden]), select, textarea, summary, [role=button],
      [role=radio], [role=application]`).map(look),
    links: all('a[href]').map(look),
    regions: all('[role=dialog], [role=region], [role=application], [role=group], [role=radiogroup]').map(
      (e) => [e.getAttribute('aria-label') || refers(e), e.outerHTML.slice(0, 160)]),
    lang: document.documentElement.lang, title: document.title,
    headings: all('h1, h2, h3, h4, h5, h6').map((e) => [Number(e.tagName[1]), e.textContent.trim().slice(0, 60)]),
    twice: [...document.querySelectorAll('[for], [popovertarget], [aria-labelledby], [aria-controls], a[href^="#"]')]
      .flatMap((e) => ['for', 'popovertarget', 'aria-labelledby', 'aria-controls', 'href'].flatMap((at) =>
          (e.getAttribute(at) ?? '').replace(/^#/, '').split(' ')))
      .filter((id) => id && document.querySelectorAll(`[id="${CSS.escape(id)}"]`).length > 1),
    skip: (() => {
      const link = document.querySelector('#pst-skip-link a, a#pst-skip-link, a.skip-link, #pst-skip-link');
      const target = (link?.getAttribute('href')
        ?? link?.querySelector?.('a')?.getAttribute('href') ?? '').replace(/^#/, '');
      return target && !!document.getElementById(target);
    })(),
  };
}"""
NO_WORDS = re.compile(r"^\S+\.(png|svg|jpe?g|webp|gif)$|\b0x[0-9a-f]{6,}\b|<[\w.]+ (object )?at |^_images/", re.I)
"""A file's name or a memory address tells nobody anything."""


def test_nothing_is_without_words(browser, site):
    wrong, pictures, controls = [], 0, 0
    for file in pages(site):
        visit = Visit(browser, file, viewport={"width": 1280, "height": 844})
        assert visit.page.evaluate(TOO_WIDE) <= 0, file.name
        name, wordless = file.relative_to(site).as_posix(), visit.page.evaluate(FOUND)
        pictures += len(wordless["pictures"])
        controls += len(wordless["controls"])
        for kind in ("pictures", "controls", "links", "regions"):
            wrong += [(name, kind, html) for words, html in wordless[kind] if not words or NO_WORDS.search(words)]
        wrong += [(name, "a drawing without a role", html) for html in wordless["bare"]]
        wrong += [(name, "what is pointed at stands twice", one) for one in wordless["twice"]]
        levels = [level for level, _ in wordless["headings"]]
        if levels.count(1) != 1 or levels[0] != 1:
            wrong.append((name, "one h1, and first", wordless["headings"][:4]))
        for (before, _), (after, words) in zip(wordless["headings"], wordless["headings"][1:], strict=False):
            if after > before + 1:
                wrong.append((name, f"from h{before} to h{after}", words))
        if wordless["lang"] != "en" or not wordless["title"].strip() or NO_WORDS.search(wordless["title"]):
            wrong.append((name, "language or title", wordless["lang"], wordless["title"]))
        if not wordless["skip"]:
            wrong.append((name, "no way past the menus"))
        visit.close()
    print(f"{pictures} pictures and {controls} controls have words")
    print(*wrong, sep="\n")
    assert wrong == []
    assert pictures >= 30
    assert controls >= 200


@pytest.mark.parametrize(
    ("words", "tells"),
    [("fig3.png", False), ("<Figure size 640x480 at 0x7f1c2ab0>", False), ("_images/a.svg", False),
    ("Accuracy over sparsity", True)],
)  # fmt: skip
def test_what_counts_as_words(words, tells):
    assert (not NO_WORDS.search(words)) == tells


def test_the_way_past_the_menus_is_the_first_stop(browser, site):
    visit = Visit(browser, site / "chapters" / "04-sparsification.html")
    page = visit.page
    page.keyboard.press("Tab")
    assert "skip to main content" in page.evaluate("document.activeElement.textContent.toLowerCase()")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash === '#main-content'")
    page.keyboard.press("Tab")
    assert page.evaluate("!!document.activeElement.closest('main, #main-content')")
    visit.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_code_can_be_read(browser, site, theme):
    visit = Visit(browser, site / "chapters" / "04-sparsification.html", color_scheme=theme)
    visit.page.evaluate(HELPERS)
    visit.page.evaluate("document.querySelectorAll('details').forEach((e) => (e.open = true))")
    inks = visit.page.evaluate("[...document.querySelectorAll('div.highlight')].flatMap((e) => pa.contrasts(e))")
    assert len(inks) > 1000
    print(f"{theme}: {len(inks)} words of code, contrast {min(ink[0] for ink in inks):.2f} and more")
    assert sorted({(ink[2], round(ink[0], 2), ink[3]) for ink in inks if ink[0] < 4.5}) == []
    visit.close()
