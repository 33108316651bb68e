"""Every moving figure of every page, worked by keyboard and by mouse, on light and on dark pages.

The figures are found, not listed: what the notebooks' outputs hold must be live on the built pages, and each control
that a figure has is driven: once with the keyboard, once with the mouse, one of them on a light page and the other on a
dark page, in turn from page to page. Marks of provenance and terms of the glossary are tried the same way.
"""

import re
from pathlib import Path

import nbformat
import pytest

from lab import figures
from lab.book.pages import ROOT

from .test_pages import Visit, pages

pytestmark = pytest.mark.browser

FIGURE = re.compile(r'<figure class="pa-widget[^"]*" data-key="([0-9a-f]+)"')
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))


def held(notebook):
    """The keys of the figures in a notebook's outputs."""
    cells = nbformat.read(notebook, as_version=4).cells
    texts = ["".join(out.get("data", {}).get("text/html", "")) for cell in cells for out in cell.get("outputs", [])]
    return FIGURE.findall("".join(texts))


MOVING = [f"chapters/{file.stem}" for file in CHAPTERS if held(file)]
WAYS = [  # a page, its colours, and how it is worked: all four pairs occur, each page in both colours and both ways
    (name, theme, how)
    for i, name in enumerate([*MOVING, "book/index"])
    for theme, how in zip(("light", "dark"), ("keyboard", "mouse")[:: 1 if i % 2 else -1], strict=True)
]


def test_none_is_missed(browser, site):
    kinds, seen = set(), 0
    for file in pages(site):
        name = file.relative_to(site).with_suffix("").as_posix()
        there = FIGURE.findall(file.read_text(encoding="utf-8"))
        if not there:
            assert name not in MOVING
            continue
        visit = Visit(browser, file)
        live = visit.page.evaluate("[...document.querySelectorAll('.pa-figure')].map((e) => e.className.split(' ')[1])")
        assert len(live) == len(there), name
        if name.startswith("chapters/"):
            assert len(held(ROOT / f"{name}.ipynb")) == len(live), name
        assert name in [*MOVING, "book/index"], name  # or nobody drives it below
        kinds |= set(live)
        seen += len(live)
        visit.close()
    assert len(kinds) == len(list(Path(figures.__file__).parent.glob("*/widget.js")))
    assert seen >= len(kinds)


HELPERS = """
window.pa = {
  drawing: (root) => [...root.querySelectorAll('svg, .pa-cursor')].map((e) => e.outerHTML)
    .concat([...root.querySelectorAll('canvas')].map((e) => e.toDataURL())).join(),
  voice: (root) => [...root.querySelectorAll('output, [aria-live=polite]')].map((e) => e.textContent).join('|'),
  name: (e) => (e.getAttribute('aria-label') || [...(e.labels ?? [])].map((l) => l.textContent).join(' ')
    || (e.matches('input, select') ? '' : e.textContent) || '').replace(/\\s+/g, ' ').trim(),
  seen: (e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled,
  controls: (root) => [...root.querySelectorAll('button, input, select, [tabindex]')].filter(pa.seen),
  light: (colour) => colour.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92
      : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0),
  colours: new Map(),
  rgba: (text) => { // of any CSS colour; read back once, which takes long
    if (pa.colours.has(text)) return pa.colours.get(text);
    const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
    context.fillStyle = text;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    pa.colours.set(text, [r, g, b, a / 255]);
    return pa.colours.get(text);
  },
  over: (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])),
  ground: (e, known = new Map()) => { // what a text stands on: boxes behind it, down to the page
    if (!e) return document.documentElement.dataset.theme === 'dark' ? [0, 0, 0] : [255, 255, 255];
    if (known.has(e)) return known.get(e);
    let colour = pa.ground(e.parentElement, known);
    if (!(e instanceof SVGElement)) colour = pa.over(pa.rgba(getComputedStyle(e).backgroundColor), colour);
    else if (e.tagName === 'text' && e.parentNode.matches('g[data-box]')) {
      const style = getComputedStyle(e.parentNode.querySelector(':scope > rect'));
      if (style.fill !== 'none') {
        const fill = pa.rgba(style.fill);
        colour = pa.over([...fill.slice(0, 3), fill[3] * style.fillOpacity], colour);
      }
    }
    known.set(e, colour);
    return colour;
  },
  ratio: (one, other) => {
    const [a, b] = [pa.light(one), pa.light(other)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  },
  contrasts: (root, known = new Map()) => [...root.querySelectorAll('*')]
    .filter((e) => pa.seen(e) && !e.closest('.pa-unseen, [disabled]') && [...e.childNodes].some((c) => c.nodeType === 3
        && c.data.trim()) && !e.closest('option, style, script'))
    .map((e) => {
      const style = getComputedStyle(e);
      const ground = pa.ground(e, known);
      const ink = pa.rgba(e instanceof SVGElement ? style.fill : style.color);
      return [pa.ratio(pa.over(ink, ground), ground), e.textContent.trim().slice(0, 40),
          String(e.getAttribute('class')), String(ink), String(ground)];
    }),
  ring: (e) => {
    const style = getComputedStyle(e);
    return style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth) * (pa.ratio(pa.rgba(style.outlineColor),
        pa.ground(e.parentElement ?? e)) >= 3);
  },
};
"""

# What changes no drawing, or says it in its own way, and why.
NO_DRAWING = {
    "Speed": "how fast play will go",
    "Copy": "copies the command, and says so",
    "code": "a line that scrolls",
    "A picture of your own": "opens the system's list of files",
    "multiply the zeros too": "changes the times, and says so",
    "Re-check": "counts in words, and takes its time",
}
# What one press of a key moves by less than a drawing shows; the mouse goes further, and is to be seen.
SMALL_STEP = {"ε of the methods with a constant ε": "10⁻⁸ and 10⁻⁷ are nothing beside a gradient"}
PLAYS = re.compile("^(Play|Pause)")


FRAME = """() => new Promise((done) => {  // a frame of the browser's own: the page's clock stands still
  const room = document.body.appendChild(document.createElement('i'));
  new ResizeObserver((_, observer) => { observer.disconnect(); room.remove(); done(); }).observe(room);
})"""


def calm(page):
    """Until the figure neither draws nor speaks any more: no network is still answering, and longer than it rests
    before it speaks, on the page's own clock."""
    page.wait_for_selector(".pa-figure.pa-run:not([data-answered])", state="detached")  # on a real clock
    page.clock.run_for(1500)
    page.evaluate(FRAME)


def drive(page, figure, control, how):
    """One press of a control, as a reader of its kind does it."""
    tag, kind, role = control.evaluate("e => [e.tagName.toLowerCase(), e.type ?? '', e.getAttribute('role') ?? '']")
    if how == "keyboard":
        control.evaluate("e => e.focus()")
        if role == "radio":
            page.keyboard.press("ArrowRight")
        elif tag == "button":
            page.keyboard.press("Enter")
        elif kind == "checkbox":
            page.keyboard.press("Space")
        elif tag == "select":
            last = control.evaluate("e => e.selectedIndex === e.options.length - 1")
            page.keyboard.press("ArrowUp" if last else "ArrowDown")
        elif kind == "range":
            last = control.evaluate("e => Number(e.value) >= Number(e.max)")
            page.keyboard.press("ArrowLeft" if last else "ArrowRight")
        elif kind == "number":
            page.keyboard.press("ArrowUp")
            page.keyboard.press("Enter")
        else:  # a drawing: go one on, or back where there is no further
            before = page.evaluate("root => pa.drawing(root) + pa.voice(root)", figure)
            for key in ("ArrowRight", "ArrowLeft", "ArrowDown"):
                page.keyboard.press(key)
                page.clock.run_for(50)
                if page.evaluate("root => pa.drawing(root) + pa.voice(root)", figure) != before:
                    break
    elif tag == "select":
        many = control.evaluate("e => [e.selectedIndex, e.options.length]")
        control.select_option(index=(many[0] + 1) % many[1])  # the list of a select is the system's, not the page's
    elif kind == "range":
        box, at = control.bounding_box(), control.evaluate("e => (e.value - e.min) / (e.max - e.min)")
        control.click(position={"x": box["width"] * (0.2 if at > 0.5 else 0.8), "y": box["height"] / 2})
    elif kind == "number":
        control.fill(str(int(control.input_value()) + 1))
        control.press("Tab")
    elif role == "radio":
        control.evaluate("e => e.parentNode.querySelector('[aria-checked=false]').setAttribute('data-next', '')")
        figure.query_selector("[data-next]").click()
        page.evaluate("document.querySelectorAll('[data-next]').forEach((e) => e.removeAttribute('data-next'))")
    elif tag in ("svg", "canvas", "div"):
        box = control.bounding_box()
        for x, y in ((0.3, 0.4), (0.6, 0.6), (0.15, 0.8)):
            before = page.evaluate("root => pa.drawing(root) + pa.voice(root)", figure)
            control.hover(position={"x": box["width"] * x, "y": box["height"] * y})
            control.click(position={"x": box["width"] * x, "y": box["height"] * y})
            page.clock.run_for(50)
            if page.evaluate("root => pa.drawing(root) + pa.voice(root)", figure) != before:
                break
    else:
        control.click()


@pytest.mark.parametrize(("name", "theme", "how"), WAYS)
def test_every_control_of_every_figure(browser, site, name, theme, how):
    visit = Visit(browser, site / f"{name}.html", viewport={"width": 1280, "height": 900}, color_scheme=theme)
    page = visit.page
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.evaluate(HELPERS)
    for button in page.query_selector_all(".pa-run .pa-first"):  # networks answer in a worker, on a clock of its own
        button.click()
        page.wait_for_selector(".pa-run[data-answered]")
    page.clock.install()  # timers and frames come when the test says so: 200 controls would wait for minutes
    figures = page.query_selector_all(".pa-figure")
    wrong, driven = [], 0
    for figure in figures:
        calm(page)
        wrong += page.evaluate(DRAWINGS_WITHOUT_WORDS, figure)
        wrong += [("contrast", *one) for one in page.evaluate("pa.contrasts", figure) if one[0] < 4.5]
        wrong += walk(page, figure)
        controls = page.evaluate_handle("pa.controls", figure)
        for i in range(controls.evaluate("all => all.length")):
            control = controls.evaluate_handle("(all, i) => all[i]", i).as_element()
            if not control.evaluate(
                "e => e.isConnected && pa.seen(e) && (e.role !== 'radio' || e.ariaChecked === 'true')"
            ):
                continue  # drawn anew meanwhile, or reached through its group
            label = control.evaluate("e => e.tagName === 'CODE' ? 'code' : pa.name(e)")
            if control.evaluate("e => (e.options && e.options.length < 2) || (e.type === 'range' && e.max === e.min)"):
                continue  # one choice alone
            control.scroll_into_view_if_needed()
            before = [page.evaluate(f"pa.{what}", figure) for what in ("drawing", "voice")]
            drive(page, figure, control, how)
            if PLAYS.match(label):
                page.clock.run_for(700)
                if control.evaluate("e => pa.name(e)").startswith("Pause"):
                    control.click()
            calm(page)
            after = [page.evaluate(f"pa.{what}", figure) for what in ("drawing", "voice")]
            driven += 1
            if not label:
                wrong.append(("no name", control.evaluate("e => e.outerHTML.slice(0, 200)")))
            if control.evaluate("e => e.isConnected && e.matches('[type=checkbox], .pa-switches button')"):
                drive(page, figure, control, how)  # a switch goes back, or soon nothing is left to see
                calm(page)
            unseen = label.startswith(tuple(NO_DRAWING)) or (how == "keyboard" and label in SMALL_STEP)
            if not unseen and before[0] == after[0]:
                wrong.append(("the drawing stands still", label))
            if label not in ("Speed", "code") and before[1] == after[1]:
                wrong.append(("nothing is said", label, after[1][:200]))
        wrong += [("contrast at the end", *one) for one in page.evaluate("pa.contrasts", figure) if one[0] < 4.5]
    print(f"{name}, {theme}, {how}: {len(figures)} figures, {driven} controls")
    print(*wrong, sep="\n")
    assert wrong == []
    assert driven >= 2 * len(figures) > 0
    assert visit.complaints == []
    visit.close()


DRAWINGS_WITHOUT_WORDS = """(root) => [root, ...root.querySelectorAll('svg, canvas')]
  .filter((e) => e.tagName !== 'svg' || !e.parentElement.closest('svg'))
  .filter((e) => pa.seen(e) && !e.closest('[aria-hidden=true]') && !(e !== root
      && e.closest('[role=application][aria-label]')))
  .filter((e) => (e.getAttribute('aria-label') ?? '').length < 20 || !e.getAttribute('role'))
  .map((e) => ['no words', e.outerHTML.slice(0, 200)])
  .concat([...root.querySelectorAll('.pa-room > svg[aria-hidden]')].filter((e) =>
      !e.closest('[role=application][aria-label]')).map((e) => ['hidden drawing', e.outerHTML.slice(0, 200)]))"""


def walk(page, figure):
    """Tab from the place before the figure to the one behind it: every control is met once, with a ring around it."""
    page.evaluate("""(root) => {
      for (const [where, id] of [['beforebegin', 'pa-first'], ['afterend', 'pa-last']]) {
        root.insertAdjacentHTML(where, `<button id="${id}">x</button>`);
      }
      document.getElementById('pa-first').focus();
      for (const e of pa.controls(root)) delete e.dataset.met;
    }""", figure)  # fmt: skip
    wrong = []
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "pa-last":
            break
        width = page.evaluate("(document.activeElement.dataset.met = '', pa.ring(document.activeElement))")
        if width < 2:
            wrong.append(("no ring", page.evaluate("document.activeElement.outerHTML.slice(0, 200)")))
    else:
        wrong.append(("the keyboard does not leave",))
    wrong += page.evaluate("""(root) => {
      const missed = pa.controls(root).filter((e) => !('met' in e.dataset) && !(e.role === 'radio'
          && e.ariaChecked !== 'true'));
      document.getElementById('pa-first').remove();
      document.getElementById('pa-last').remove();
      return missed.map((e) => ['not reached', e.outerHTML.slice(0, 200)]);
    }""", figure)  # fmt: skip
    return wrong


TERMS = """[...document.querySelectorAll('a.pa-term')].map((term) => {
  term.focus();
  return [pa.ring(term), getComputedStyle(term).boxShadow, getComputedStyle(term, '::after').content, term.title,
      document.documentElement.scrollWidth - innerWidth];
})"""
"""Each term of the glossary in turn, focused: its ring, what it says then, and by how much the page got too wide."""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_marks_and_terms_by_keyboard(browser, site, theme):
    visit = Visit(browser, site / "chapters" / "04-sparsification.html", color_scheme=theme)
    page = visit.page
    page.evaluate(HELPERS)
    page.keyboard.press("Tab")  # from here on the focus is the keyboard's
    for mark in page.query_selector_all(".pa-origin"):
        mark.focus()
        assert mark.evaluate("pa.ring") >= 2
        assert "Where this comes from" in mark.evaluate("pa.name")
        page.keyboard.press("Enter")
        box = page.locator(".pa-runs:popover-open")
        assert box.count() == 1
        assert box.evaluate("e => Math.min(...pa.contrasts(e).map(([ratio]) => ratio))") >= 4.5
        page.keyboard.press("Escape")
        assert box.count() == 0
        assert mark.evaluate("e => e === document.activeElement")
    terms = page.query_selector_all("a.pa-term")
    assert len(terms) >= 5
    for rings, shadow, said, title, wide in page.evaluate(TERMS):
        assert rings >= 1 or shadow != "none"
        assert said.strip('"').replace('\\"', '"') == title
        assert wide <= 0
    assert (
        min(
            page.evaluate(
                "[...document.querySelectorAll('a.pa-term, .pa-note')].flatMap((e) => "
                "pa.contrasts(e.parentElement)).map(([n]) => n)"
            )
        )
        >= 4.5
    )
    visit.close()
