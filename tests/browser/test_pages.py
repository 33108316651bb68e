"""Every page of the built book, from a file: light enough, silent, asking no other host for anything, legible."""

import functools
import json
import re
import socket
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import pytest

from lab.book.pages import ROOT

pytestmark = pytest.mark.browser
HEAVIEST = 1.5e6  # bytes of a page with all it loads


READY = """!document.querySelector('.pa-widget .pa-still')
  && (!document.querySelector('.math.notranslate') || document.querySelector('.katex'))"""
"""Figures live, formulas drawn."""

TOO_WIDE = "document.documentElement.scrollWidth - innerWidth"
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Visit:
    """One page, opened, with what it loaded and what it complained about."""

    def __init__(self, browser, file, **context):
        self.sizes, self.foreign, self.complaints = {}, [], []
        self.page = browser.new_context(**context).new_page()
        self.page.on("request", self._requested)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())
        # not "networkidle": modules that come as data URLs sometimes count as requests that never end
        self.page.wait_for_load_state("load")
        self.page.wait_for_function(READY)
        self.page.evaluate("document.fonts.ready.then(() => null)")
        self.page.evaluate(TWO_FRAMES)

    def _requested(self, request):
        url = urlparse(request.url)
        if url.scheme == "file":
            file = Path(unquote(url.path))
            self.sizes[file] = file.stat().st_size if file.exists() else 0
        elif url.scheme not in ("data", "blob"):
            self.foreign.append(request.url)

    def close(self):
        self.page.context.close()


def pages(site):
    files = sorted(f for f in site.rglob("*.html") if "_static" not in f.parts and f != site / "index.html")
    assert len(files) >= 6
    return files


def test_every_page_is_light_silent_alone_and_fits(browser, site):
    weights, drawn, numbered = {}, 0, 0
    for file in pages(site):
        visit = Visit(browser, file, viewport={"width": 390, "height": 844})
        page, name = visit.page, file.relative_to(site).as_posix()
        weights[name] = sum(visit.sizes.values())
        assert visit.foreign == [], name
        for address in page.eval_on_selector_all("script[src], link[href][rel=stylesheet], img[src]", SOURCES):
            assert not address.startswith(("http:", "https:", "//")), (name, address)
        assert page.eval_on_selector_all(".math.notranslate", BROKEN) == [], name
        drawn += page.locator(".katex").count()
        numbered += page.locator(".eqno").count()
        if chapter := re.match(
            r"0*(\d+[a-z]?)-", file.name
        ):  # 06b- continues Chapter 6; 99- is the errata page, which has none
            wanted = [] if chapter[1] == "99" else [f"{chapter[1]}."]
            assert [words.strip() for words in page.locator("h1 .section-number").all_inner_texts()] == wanted, name
        assert page.evaluate(TOO_WIDE) <= 0, name
        for width in (768, 1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            page.evaluate(TWO_FRAMES)  # figures are drawn anew
            assert page.evaluate(TOO_WIDE) <= 0, (name, width)
        assert visit.complaints == [], name
        visit.close()
    print(json.dumps(weights, indent=1))
    assert max(weights.values()) <= HEAVIEST, weights
    assert drawn > 50
    assert numbered >= 4


def test_no_page_can_ask_another_host(browser, site):
    everywhere = sorted(f for f in site.rglob("*.html") if "_static" not in f.parts)
    for file in everywhere:
        policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', file.read_text("utf-8"))
        bare = file == site / "index.html"  # only sends its reader on to the first page
        assert bare or (policy and not re.search(r"https?:|\*", policy[1])), file
    visit = Visit(browser, site / "chapters" / "04-sparsification.html")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host = f"127.0.0.1:{server.getsockname()[1]}"
        image = f"document.body.append(Object.assign(new Image(), {{src: 'http://{host}/x.png'}}))"
        for attempt in (
            f"import('http://{host}/x.js')",
            f"fetch('http://{host}/x')",
            f"new WebSocket('ws://{host}/')",
            image,
        ):
            with visit.page.expect_console_message(lambda message: "Content Security Policy" in message.text):
                visit.page.evaluate(f"async () => {{ try {{ await {attempt} }} catch {{ }} }}")
            with pytest.raises(BlockingIOError):  # nobody called
                server.accept()
    visit.close()


SOURCES = "all => all.map(e => e.getAttribute('src') || e.getAttribute('href'))"
BROKEN = "all => all.filter(e => !e.querySelector('.katex') || e.querySelector('.katex-error')).map(e => e.textContent)"


def test_a_formula_is_referred_to_by_its_number(browser, site):
    visit = Visit(browser, site / "chapters" / "01-introduction.html")
    reference = visit.page.locator("a.reference[href='#equation-one-weight']").first
    assert reference.inner_text() == "(1.1)"
    assert visit.page.locator("#equation-one-weight .eqno").inner_text().startswith("(1.1)")
    visit.close()


def test_light_and_dark(browser, site):
    visit = Visit(browser, site / "chapters" / "01-introduction.html", color_scheme="light")
    page, seen = visit.page, {}
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        theme = page.evaluate("document.documentElement.dataset.theme")
        seen[theme] = page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
                      getComputedStyle(document.querySelector('.pa-plot svg text')).fill,
                      getComputedStyle(document.querySelector('.pa-plot')).backgroundColor,
                      getComputedStyle(document.documentElement).getPropertyValue('--pa-cs').trim()]"""
        )
    assert set(seen) == {"light", "dark"}
    brightness = {theme: [sum(numbers(c)) for c in colours[:2]] for theme, colours in seen.items()}
    assert brightness["light"][0] > 700 > 200 > brightness["light"][1]  # dark figure text on a light page
    assert brightness["dark"][0] < 100 < 600 < brightness["dark"][1]
    assert {seen[theme][2] for theme in seen} == {"rgba(0, 0, 0, 0)"}
    assert seen["light"][3] != seen["dark"][3]
    visit.close()


def numbers(colour):
    return [float(n) for n in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def test_search_from_a_file(browser, site):
    visit = Visit(browser, site / "book" / "index.html")
    visit.page.goto((site / "search.html").as_uri() + "?q=sparsification")
    visit.page.wait_for_selector("#search-results li a")
    hits = visit.page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.getAttribute('href'))")
    assert any("chapters/" in address for address in hits)
    assert visit.foreign == []
    assert visit.complaints == []
    visit.close()


def test_code_can_be_copied(browser, site):
    permissions = ["clipboard-read", "clipboard-write"]
    visit = Visit(browser, site / "book" / "how-to.html", permissions=permissions)
    visit.page.locator("div.highlight").first.hover()
    visit.page.locator("button.copybtn").first.click()
    visit.page.wait_for_selector("button.copybtn.success")
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == visit.page.locator("div.highlight pre").first.inner_text().strip()
    visit.close()


def test_figures_have_words(browser, site):
    visit = Visit(browser, site / "chapters" / "02-notation-and-background.html")
    labels = visit.page.eval_on_selector_all("svg[role=img]", "all => all.map(e => e.getAttribute('aria-label') || '')")
    assert len(labels) == 2
    assert min(map(len, labels)) > 60
    visit.close()


def code_of(notebook):
    return [cell.source for cell in nbformat.reads(notebook, as_version=4).cells if cell.cell_type == "code"]


def test_a_notebook_is_downloaded(browser, site):
    """Saved under its name where a server gives the book; opened as a file, a browser may show it, but shows it
    whole."""
    name = "chapters/05-precision"
    here = code_of((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))
    handler = functools.partial(Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_context(accept_downloads=True).new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/{name}.html")
        page.locator(".dropdown-download-buttons .dropdown-toggle").click()
        with page.expect_download() as waiting:
            page.locator("a.btn-download-source-button").click()
        assert waiting.value.suggested_filename == "05-precision.ipynb"
        assert code_of(waiting.value.path().read_text(encoding="utf-8")) == here
        page.context.close()
        server.shutdown()
    visit = Visit(browser, site / f"{name}.html")
    visit.page.locator(".dropdown-download-buttons .dropdown-toggle").click()
    with visit.page.context.expect_page() as opened:
        visit.page.locator("a.btn-download-source-button").click()
    assert code_of(opened.value.evaluate("document.body.textContent")) == here
    visit.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
