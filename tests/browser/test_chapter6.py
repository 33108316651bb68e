"""Chapter 6 and its proofs as they were built: both figures work with no kernel, theorems keep the thesis's numbers."""

import json
import re

import pytest

from .test_pages import TWO_FRAMES

pytestmark = pytest.mark.browser
PAGES = ("06-avagrad", "06b-proofs")


@pytest.fixture
def opened(browser, site):
    """Open a page; at the end nothing was asked of another host and nothing complained."""
    heard, contexts = [], []

    def go(name, width=1280):
        page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        contexts.append(page.context)
        page.on("request", lambda r: heard.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.on("console", lambda m: heard.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: heard.append(str(e)))
        page.goto((site / "chapters" / f"{name}.html").as_uri())
        page.wait_for_selector(".katex", state="attached")
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


def built(name):
    from lab.book.pages import ROOT, workshop

    notebook = json.loads((workshop(ROOT) / "site-src" / "chapters" / f"{name}.ipynb").read_text())
    return [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]


def test_map_and_text_come_from_the_same_runs(opened):
    page = opened("06-avagrad")
    grid = page.locator(".pa-grids").first
    grid.wait_for()
    named = set(re.findall(r"\b[0-9a-f]{16}\b", grid.inner_text()))
    from lab.experiments.optimizers import grids
    from lab.runs import find

    declared = [run for profile in grids.PROTOCOL for run in grids.runs(profile) if run.id in named]
    found = [record for run in declared if (record := find(run))]
    assert len(found) == len(named) >= 2
    text = page.inner_text("article")
    for record in found:
        name, cells = record["config"]["method"]["name"], record["figures"]["cells"]
        assert re.search(rf"{name}: {cells:.0f} x {record['config']['model']}", text)


def test_simulator_runs_in_the_page(opened):
    page = opened("06-avagrad")
    simulator = page.locator(".pa-simulator")
    simulator.scroll_into_view_if_needed()
    page.wait_for_function("+document.querySelector('.pa-simulator').dataset.t >= 200000")
    from lab.figures.nonconvergence.simulator import RULES, simulate

    seen = json.loads(simulator.get_attribute("data-total"))
    ours = simulate(RULES, steps=200_000, seeds=4, points=5).mean_square[:, -1]
    for rule, total, squares in zip(RULES, seen, ours, strict=True):  # other samples, the same problem
        assert total / 200_000 == pytest.approx(squares.mean(), abs=6 * squares.std() + 0.01), rule.name


def test_theorems_keep_their_numbers(opened):
    titles = opened("06b-proofs").locator(".admonition-title").all_inner_texts()
    numbered = [m[1] for t in titles if (m := re.match(r"((?:Theorem|Lemma|Corollary) [\d.]+)", t))]
    assert numbered == [
        "Theorem 6.1", *(f"Lemma 6.{k}" for k in range(1, 7)), "Theorem 6.2", "Corollary 6.1", "Theorem 6.3",
        "Corollary 6.2",
    ]  # fmt: skip
    links = opened("06-avagrad").locator("article a", has_text=re.compile(r"^(Theorem|Lemma|Corollary) 6\.\d$"))
    assert links.count() >= 5
    for i in range(links.count()):
        assert "06b-proofs.html#" in links.nth(i).get_attribute("href")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_a_phone(opened, name):
    page = opened(name, width=390)
    page.evaluate(TWO_FRAMES)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", PAGES)
def test_notebook_that_was_built_holds_no_error(name):
    outputs = built(name)
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]


def test_every_lemma_was_tried():
    said = "".join("".join(o.get("text", "")) for o in built("06b-proofs"))
    for name in ("Lemma 6.3", "Lemma 6.4", "Lemma 6.5", "Lemma 6.6", "Theorem 6.2", "Corollary 6.1", "Corollary 6.2"):
        assert re.search(rf"{name}[^\n]*: [\d,]+ cases hold", said), name
