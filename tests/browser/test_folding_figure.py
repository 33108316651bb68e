"""The folding figure in a real browser, from a file, with no kernel and no network: by mouse, by keyboard, in both
modes."""

import copy

import pytest
from page_tools import opened
from tiny_folding import record

from lab.figures.folding.recording import program, similarities
from lab.figures.folding.widget import FoldingWidget

pytestmark = pytest.mark.browser
HOSTILE = '<img src=x onerror="document.title=1">'
LAST = 9  # folds of 3 x 4 layers, from 0


@pytest.fixture(scope="module")
def records():
    """Two seeds of one network, really trained and folded, and a copy of the first under a hostile name."""
    first, second = record(images=40), record(seed=1, images=40)
    third = copy.deepcopy(first) | {"id": HOSTILE, "seed": 5}
    third["recording"]["network"] = HOSTILE
    for i in (0, 4, LAST):  # fine-tuning is dear, so runs do it for some folds alone
        third["recording"]["folds"][i]["score_tuned"] = 0.5
    return [first, second, third]


@pytest.fixture
def figure(records):
    return FoldingWidget.from_records(records, title=f"A network folds {HOSTILE}")


@pytest.fixture
def show(browser, tmp_path):
    with opened(browser, tmp_path, height=1400) as show:
        yield show


def at(page, name):
    return int(page.locator(".pa-folding").first.get_attribute(f"data-{name}"))


def numbers(page):
    return [text.replace("\u202f", " ") for text in page.locator(".pa-big").all_inner_texts()]


def threshold(page):
    return page.get_by_role("slider", name="Threshold: layers at least this similar become one")


def text_of(page, nth):
    """What the figure says under the matrix (0) or under the network (1)."""
    return page.locator(".pa-told").nth(nth).inner_text()


def test_threshold_by_keyboard_shows_each_measured_fold(show, figure, records):
    page = show(figure)
    folds = records[0]["recording"]["folds"]
    slider = threshold(page)
    slider.focus()
    page.keyboard.press("Home")
    drawings = set()
    for i, one in enumerate(folds):
        assert at(page, "fold") == i
        error, again, layers, parameters = numbers(page)
        assert error == f"{100 * (1 - one['score']):.1f} %"
        assert again == f"{100 * (1 - one['score_bn']):.1f} %"
        assert int(layers) == one["layers"] == page.locator(".pa-box").count()
        assert parameters == f"{one['parameters'] / 1000:.3g} k"
        said = slider.get_attribute("aria-valuetext").replace("\u202f", " ")
        assert f"{one['layers']} layers" in said
        assert f"test error {error} as folded, {again} with BatchNorm re-estimated" in said
        # the paths back are those of the program: one drawn for each pair of layers
        jumps = {(source, to) for _, source, to in program(records[0]["recording"], one).jumps}
        assert page.locator(".pa-path:has(rect)").count() == len(jumps)
        drawings.add(page.locator(".pa-network").inner_html() + page.locator(".pa-matrix").inner_html())
        page.keyboard.press("ArrowRight")
    assert at(page, "fold") == LAST
    assert len(drawings) == len(folds)


def test_mouse_on_slider_and_on_the_cost(show, figure):
    page = show(figure)
    threshold(page).focus()
    page.keyboard.press("Home")
    before = numbers(page)
    for target, share in ((".pa-cost input.pa-slider", 0.45), (".pa-timeline .pa-axis", 0.97)):
        box = page.locator(target).first.bounding_box()
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2, steps=5)
        page.mouse.up()
        assert numbers(page) != before
        before = numbers(page)
    assert at(page, "fold") >= LAST - 1


def test_a_cell_names_its_layers_and_merges_them(show, figure, records):
    page = show(figure)
    threshold(page).focus()
    page.keyboard.press("Home")
    matrix = page.locator(".pa-matrix")
    names = records[0]["recording"]["groups"]["stage1"]
    similarity = similarities(records[0]["recording"])[-1][1]["stage1"]
    matrix.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"):  # the first only enters
        page.keyboard.press(key)
    layers = [name.removesuffix(".weight") for name in names]
    assert text_of(page, 0) == f"Layer 2, {layers[1]}, and layer 3, {layers[2]}: similarity {similarity[1, 2]:.3f}"
    page.keyboard.press("Enter")
    chosen = records[0]["recording"]["folds"][at(page, "fold")]["grouping"]["stage1"].split()
    before = records[0]["recording"]["folds"][at(page, "fold") - 1]["grouping"]["stage1"].split()
    assert chosen[1] == chosen[2]
    assert before[1] != before[2]
    assert "one layer: " in text_of(page, 0)
    page.keyboard.press("Escape")
    assert text_of(page, 0).startswith("One layer: ")
    # and by mouse
    threshold(page).focus()
    page.keyboard.press("Home")
    box = page.locator(".pa-matrix g > rect").nth(3).bounding_box()  # row 1, column 4
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    assert text_of(page, 0).startswith(
        f"Layer 1, {layers[0]}, and layer 4, {layers[3]}: similarity {similarity[0, 3]:.3f}"
    )
    assert page.locator(".pa-box.pa-hot").count() == 2
    page.mouse.click(box["x"] + 9, box["y"] + 9)
    chosen = records[0]["recording"]["folds"][at(page, "fold")]["grouping"]["stage1"].split()
    assert chosen[0] == chosen[3]


def test_epochs_show_the_matrix_forming_and_say_where_no_fold_was_measured(show, figure):
    page = show(figure)
    epochs = page.get_by_role("slider", name="Epoch of the matrix")
    last = page.locator(".pa-matrix").inner_html()
    epochs.focus()
    page.keyboard.press("Home")
    assert at(page, "moment") == 0
    assert page.locator(".pa-matrix").inner_html() != last
    assert numbers(page) == ["–"] * 4
    assert page.get_by_text("At epoch 0 no fold was measured").is_visible()
    assert not page.locator(".pa-network").is_visible()
    assert "no fold measured" in epochs.get_attribute("aria-valuetext")
    page.get_by_role("button", name="Go to epoch 6").press("Enter")
    assert at(page, "moment") == 2
    assert page.locator(".pa-network").is_visible()
    assert page.locator(".pa-matrix").inner_html() == last


def test_menus_choose_network_seed_and_stage(show, figure, records):
    page = show(figure)
    network, seed, stage = (
        page.get_by_role("combobox", name=name, exact=True) for name in ("Network", "Seed", "Stage")
    )
    assert network.locator("option").all_text_contents() == ["SWRN-22-1-3", HOSTILE]
    assert seed.locator("option").all_text_contents() == ["0", "1"]
    threshold(page).focus()
    page.keyboard.press("End")
    before = page.locator(".pa-matrix").inner_html()
    seed.focus()
    page.keyboard.press("1")  # as one types in a menu
    page.keyboard.press("Tab")
    assert at(page, "run") == 1
    assert at(page, "fold") == LAST
    assert f"run {records[1]['id']}" in page.locator(".pa-meta").inner_text()
    assert page.locator(".pa-matrix").inner_html() != before
    seen = {page.locator(".pa-matrix").inner_html()}
    for i, name in enumerate(("stage1", "stage2", "stage3")):
        stage.select_option(name)
        assert at(page, "group") == i
        assert f"layers of {name} are" in page.locator(".pa-chart .pa-label").first.inner_text()
        seen.add(page.locator(".pa-matrix").inner_html())
    assert len(seen) == 3
    page.get_by_role("button", name="stage2").click()
    assert stage.input_value() == "1"
    network.select_option(HOSTILE)
    assert at(page, "run") == 2
    assert page.locator("circle.pa-tuned").count() == 3
    threshold(page).focus()
    page.keyboard.press("End")
    assert page.get_by_text("fine-tuned 50.0").is_visible()
    page.keyboard.press("ArrowLeft")
    assert not page.get_by_text("fine-tuned 50.0").is_visible()
    assert "NaN" not in page.locator(".pa-folding").inner_html()
    assert page.title() == "figures"  # hostile names stayed text
    assert page.locator(".pa-figure img").count() == 0


def test_walk_along_the_order_of_execution(show, figure, records):
    page = show(figure)
    threshold(page).focus()
    page.keyboard.press("End")
    done = program(records[0]["recording"], records[0]["recording"]["folds"][-1])
    beside = records[0]["recording"]["aside"]
    steps = [step for step in done.steps if step.name not in beside]
    page.locator(".pa-network").focus()
    back = 0
    for i, step in enumerate(steps):
        page.keyboard.press("ArrowRight")
        said = text_of(page, 1)
        assert f"Step {i + 1} of {len(steps)}: {step.name.removesuffix('.weight')} runs" in said
        if step.layer != step.name:
            assert f"first run as {step.layer.removesuffix('.weight')}" in said
        assert page.locator(".pa-box.pa-hot").count() == 1
        back += "Back by path" in said
    assert back == len(done.jumps)
    page.keyboard.press("Escape")
    assert text_of(page, 1) == ""
    page.locator(".pa-box", has_text="A").first.hover()
    assert text_of(page, 1).startswith("Layer A, executed 4 times: stages.0.1.conv1, ")


def test_play_folds_to_the_end_and_stops(show, figure):
    page = show(figure)
    page.clock.install(time=0)
    page.clock.pause_at(1000)  # an installed clock runs by itself until it is paused
    threshold(page).focus()
    page.keyboard.press("Home")
    page.get_by_role("button", name="Play: fold further").click()
    page.clock.run_for(60_000)
    assert at(page, "fold") == LAST
    page.get_by_role("button", name="Play: the matrix").click()
    assert at(page, "moment") == 0
    page.clock.run_for(60_000)
    assert at(page, "moment") == 2
