"""Chapters as they were built: their figures move with no kernel, and say what the records say that the page names."""

import json
import re

import pytest

from lab import figures
from lab.book.pages import ROOT, workshop
from lab.experiments.combining import results as stacking
from lab.experiments.combining import stack as combining
from lab.experiments.optimizers import grids
from lab.experiments.precision import weights as precision
from lab.experiments.sharing import images as sharing
from lab.experiments.sparsity import pruning, tickets
from lab.figures.nonconvergence.simulator import RULES, simulate
from lab.runs import find, read, recorded_runs

pytestmark = pytest.mark.browser


@pytest.fixture
def chapter(browser, site):
    """Open a chapter and wait for a part of it; at the end nothing was asked of another host and nothing complained."""
    heard, contexts = [], []

    def go(name, part, **options):
        page = browser.new_context(viewport={"width": 1280, "height": 1400}, **options).new_page()
        contexts.append(page.context)
        page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or heard.append(r.url))
        page.on("console", lambda m: heard.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: heard.append(str(e)))
        page.goto((site / "chapters" / f"{name}.html").as_uri())
        page.wait_for_selector(part, state="attached")
        return page

    yield go
    for context in contexts:
        context.close()
    assert heard == []


def outputs(name):
    """The outputs of all cells of the chapter as it was built."""
    notebook = json.loads((workshop(ROOT) / "site-src" / "chapters" / f"{name}.ipynb").read_text())
    return [o for c in notebook["cells"] if c["cell_type"] == "code" for o in c["outputs"]]


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "chapters").glob("0[3-8]*.ipynb")))
def test_no_cell_warned(site, name):
    assert outputs(name)
    assert not [o for o in outputs(name) if o["output_type"] == "error" or o.get("name") == "stderr"]


# -- Chapter 3 ---------------------------------------------------------------------------------------------------------


def shown_run(page):
    """The record behind what the folding figure shows now."""
    run = re.search(r"run ([0-9a-f]{16})", page.locator(".pa-folding .pa-meta").inner_text())[1]
    return find({declared.id: declared for declared in sharing.runs("quick")}[run])


def test_every_network_and_seed_of_the_page_can_be_chosen(chapter):
    page = chapter("03-soft-parameter-sharing", ".pa-folding[data-redraw-ms]")
    wanted = {one.id for one in [*sharing.shared("quick"), *sharing.swept("quick")]}
    network, seed = (page.get_by_role("combobox", name=name, exact=True) for name in ("Network", "Seed"))
    met = set()
    for name in network.locator("option").all_text_contents():
        network.select_option(label=name)
        for place in range(seed.locator("option").count()):
            seed.select_option(index=place)
            met.add(shown_run(page)["id"])
            assert shown_run(page)["recording"]["network"] == name
    assert met == wanted


def test_table_and_figure_come_from_the_same_runs(chapter):
    page = chapter("03-soft-parameter-sharing", ".pa-folding[data-redraw-ms]")
    accuracies = [find(one)["figures"]["accuracy"] for one in sharing.shared("quick")]
    name = sharing.shared("quick")[0].config["model"]
    row = page.locator("table tr", has=page.get_by_role("cell", name=name, exact=True)).filter(has_text="±")
    assert f"{1 - sum(accuracies) / len(accuracies):.1%} ±" in row.first.inner_text()


# -- Chapter 4 ---------------------------------------------------------------------------------------------------------


def test_figure_and_text_come_from_one_run(chapter):
    page = chapter("04-sparsification", ".pa-annealing [type=range]")
    run = re.search(r"run ([0-9a-f]{16})", page.locator(".pa-annealing .pa-meta").inner_text())[1]
    recorded = {one.id: one for one in pruning.runs("quick")}
    record = find(recorded[run])
    foot = page.locator(".pa-annealing .pa-foot").inner_text().replace("\u202f", "")
    assert f"{100 * record['figures']['accuracy']:.1f}%" in foot
    assert f"{100 * record['figures']['sparsity']:.1f}%" in foot


def test_the_frontier_opens_runs_that_are_recorded(chapter):
    page = chapter("04-sparsification", ".pa-annealing [type=range]")
    declared = {one.id: one for module in (pruning, tickets) for one in module.runs("quick")}
    figure = page.locator(".pa-frontier")
    figure.locator(".pa-field").focus()
    page.keyboard.press("End")
    opened = set()
    for _ in range(figure.locator(".pa-dot").count()):
        card = figure.locator(".pa-card").inner_text().replace("\u202f", " ")
        if match := re.search(r"\b[0-9a-f]{16}\b", card):
            run = match[0]
            record = find(declared[run]) if run in declared else read(next(recorded_runs().glob(f"*/{run}.json")))
            stated = {f"{100 * v:.1f} %" for k, v in record["figures"].items() if k.startswith("accuracy")}
            assert re.search(r"Result\s+([\d.]+ %)", card)[1] in stated
            assert f"--run {run}" in card
            opened.add(run)
        page.keyboard.press("ArrowLeft")
    assert len(opened) >= 10


# -- Chapter 5 ---------------------------------------------------------------------------------------------------------


def drawn(page):
    figure = page.locator(".pa-precision")
    run = re.search(r"run ([0-9a-f]{16})", figure.locator(".pa-meta").inner_text())[1]
    return run, figure.locator(".pa-stats").inner_text().replace("\u202f", "")


def test_every_network_shows_its_own_record(chapter):
    page = chapter("05-precision", ".pa-precision[data-drawn]")
    declared = {run.id: run for run in precision.runs("quick")}
    seen = {}
    for family in page.locator(".pa-precision .pa-steer [role=radio]").all():
        family.click()
        slider = page.get_by_role("slider", name="Penalty on bits", exact=True)  # the panel below has one, too
        slider.focus()
        page.keyboard.press("Home")
        for _ in range(int(slider.get_attribute("max")) + 1):
            run, stats = drawn(page)
            figures = find(declared[run])["figures"]
            assert f"{figures['bits']:.2f}" in stats
            assert f"{figures['file_bytes'] / 1000:.1f}kB" in stats
            assert f"{100 * figures['accuracy']:.1f}%" in stats
            seen[run] = stats
            page.keyboard.press("ArrowRight")
    assert len(seen) >= 6


def test_a_push_is_read_from_the_record(chapter):
    page = chapter("05-precision", ".pa-precision[data-drawn]")
    record = next(r for run in precision.runs("quick") if precision.is_filmed(run) and (r := find(run)))
    tell = page.locator(".pa-second output")
    for i, basin in enumerate(record["recording"]["basins"]):
        page.locator(".pa-second [role=radio]").nth(i).click()
        page.get_by_role("slider", name="Push of the weight").focus()
        page.keyboard.press("End")
        assert f"in {basin['layer']}, pushed by 1: loss {basin['losses'][-1]:.4f}" in tell.inner_text()


# -- Chapter 6 ---------------------------------------------------------------------------------------------------------


def test_map_and_text_come_from_the_same_runs(chapter):
    page = chapter("06-avagrad", ".katex")
    grid = page.locator(".pa-grids").first
    grid.wait_for()
    named = set(re.findall(r"\b[0-9a-f]{16}\b", grid.inner_text()))
    declared = [run for profile in grids.PROTOCOL for run in grids.runs(profile) if run.id in named]
    records = [record for run in declared if (record := find(run))]
    assert len(records) == len(named) >= 2
    text = page.inner_text("article")
    for record in records:
        name, cells = record["config"]["method"]["name"], record["figures"]["cells"]
        assert re.search(rf"{name}: {cells:.0f} x {record['config']['model']}", text)


def test_simulator_runs_in_the_page(chapter):
    page = chapter("06-avagrad", ".katex")
    simulator = page.locator(".pa-simulator")
    simulator.scroll_into_view_if_needed()
    page.wait_for_function("+document.querySelector('.pa-simulator').dataset.t >= 200000")
    seen = json.loads(simulator.get_attribute("data-total"))
    ours = simulate(RULES, steps=200_000, seeds=4, points=5).mean_square[:, -1]
    for rule, total, squares in zip(RULES, seen, ours, strict=True):  # other samples, the same problem
        assert total / 200_000 == pytest.approx(squares.mean(), abs=6 * squares.std() + 0.01), rule.name


def test_theorems_keep_their_numbers(chapter):
    titles = chapter("06b-proofs", ".katex").locator(".admonition-title").all_inner_texts()
    numbered = [m[1] for t in titles if (m := re.match(r"((?:Theorem|Lemma|Corollary) [\d.]+)", t))]
    assert numbered == [
        "Theorem 6.1", *(f"Lemma 6.{k}" for k in range(1, 7)), "Theorem 6.2", "Corollary 6.1", "Theorem 6.3",
        "Corollary 6.2",
    ]  # fmt: skip
    links = chapter("06-avagrad", ".katex").locator(
        "article a", has_text=re.compile(r"^(Theorem|Lemma|Corollary) 6\.\d$")
    )
    assert links.count() >= 5
    for i in range(links.count()):
        assert "06b-proofs.html#" in links.nth(i).get_attribute("href")


def test_every_lemma_was_tried(site):
    said = "".join("".join(o.get("text", "")) for o in outputs("06b-proofs"))
    for name in ("Lemma 6.3", "Lemma 6.4", "Lemma 6.5", "Lemma 6.6", "Theorem 6.2", "Corollary 6.1", "Corollary 6.2"):
        assert re.search(rf"{name}[^\n]*: [\d,]+ cases hold", said), name


# -- Chapter 7 ---------------------------------------------------------------------------------------------------------


FIGURES = ("fig-staircase", "fig-multiply", "fig-bytes")


@pytest.fixture(scope="module")
def records():
    """The records behind the page, and their means."""
    there = [record for run in combining.runs("quick") if (record := find(run))]
    assert len(there) == 22
    return there, stacking.points(there)


def test_every_figure_says_in_words_what_the_records_hold(chapter, records):
    page = chapter("07-combining", ".katex")
    _, points = records
    alts = {}
    for name in FIGURES:
        figure = page.locator(f"#{name}")
        assert figure.locator("figcaption").inner_text().strip()
        alts[name] = figure.locator("svg[role=img]").get_attribute("aria-label")
    steps = re.findall(r"[\d.]+ [kM]B, [\d.]+%", alts["fig-staircase"])
    assert len(steps) == len(stacking.path(points)) >= 3
    for _, stack in stacking.products(points).iterrows():
        assert f"{stack['expected']:.1f} expected, {stack['measured']:.1f} measured" in alts["fig-multiply"]
    smallest = stacking.spent(points).iloc[-1]
    for part, name in stacking.PARTS.items():
        assert f"{name} {figures.kilobytes(smallest[part])}" in alts["fig-bytes"]


def test_marks_open_the_runs(chapter, records):
    page = chapter("07-combining", ".katex")
    there, _ = records
    for name in FIGURES:
        mark = page.locator(f"#{name} .pa-origin")
        mark.scroll_into_view_if_needed()
        mark.click()
        box = page.locator(".pa-runs:popover-open")
        said = box.inner_text()
        assert "combining, profile quick" in said
        assert "python -m lab record --experiment combining" in said
        assert set(re.findall(r"\b[0-9a-f]{16}\b", said)) >= {record["id"] for record in there}
        page.keyboard.press("Escape")
        assert box.count() == 0


def test_the_table_is_that_of_the_records(chapter, records):
    page = chapter("07-combining", ".katex")
    table = page.locator(".pa-table table").first
    head = [cell.strip() for cell in table.locator("thead th").all_inner_texts()]
    rows = [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in table.locator("tbody tr").all()]
    expected = stacking.table(stacking.points(records[0]))
    assert [re.sub(r"\W*$", "", h) for h in head] == [re.sub(r"\W*$", "", c) for c in expected.columns]
    assert rows == [[str(value) for value in row] for row in expected.itertuples(index=False)]


def test_recorded_runs_are_shown_or_said_to_be_missing(chapter):
    page = chapter("07-combining", ".katex")
    wanted = combining.runs("short")
    longer = [record for run in wanted if (record := find(run))]
    section = page.locator("section").filter(has=page.locator("h2", has_text="Does it hold on all of CIFAR-10?")).last
    text = section.inner_text()
    assert f"{len(longer)} of {len(wanted)} runs are recorded" in text
    command = "python -m lab record --experiment combining --profile short --device cuda"
    assert (command in text) == (len(longer) < len(wanted))
    assert section.locator(".pa-table table").count() == (1 if longer else 0)
