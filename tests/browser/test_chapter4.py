"""Chapter 4 as it was built: its figures are fed by the runs that the page itself reports."""

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


def test_figure_and_text_come_from_one_run(chapter):
    run = re.search(r"run ([0-9a-f]{16})", chapter.locator(".pa-annealing .pa-meta").inner_text())[1]
    from lab.experiments.sparsity import pruning
    from lab.runs import find

    recorded = {one.id: one for one in pruning.runs("quick")}
    record = find(recorded[run])
    foot = chapter.locator(".pa-annealing .pa-foot").inner_text().replace("\u202f", "")
    assert f"{100 * record['figures']['accuracy']:.1f}%" in foot
    assert f"{100 * record['figures']['sparsity']:.1f}%" in foot


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
