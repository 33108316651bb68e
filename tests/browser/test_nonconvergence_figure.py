"""The simulator of (6.13) in a real browser: its steps are Python's, its controls work by mouse and keyboard."""

import base64
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from page_tools import opened

from lab.figures.nonconvergence.simulator import RULES, THESIS, Problem, Rule, simulate
from lab.figures.nonconvergence.widget import NonconvergenceWidget

from .test_pages import TWO_FRAMES

pytestmark = pytest.mark.browser
KINDS = (
    *RULES,
    Rule("AvaGrad", "avagrad", alpha=5e-5),
    Rule("growing, alpha fixed", "adam", 1e-2, 1e-3, 0.5, fixed=True),
)


@pytest.fixture
def show(browser, tmp_path):
    with opened(browser, tmp_path) as open_page:
        yield open_page


def mulberry32(seed):
    """The page's generator, a number in [0, 1) at a time."""
    a = seed & 0xFFFFFFFF
    while True:
        a = (a + 0x6D2B79F5) & 0xFFFFFFFF
        t = ((a ^ a >> 15) * (1 | a)) & 0xFFFFFFFF
        t = (((t + (((t ^ t >> 7) * (61 | t)) & 0xFFFFFFFF)) & 0xFFFFFFFF) ^ t) & 0xFFFFFFFF
        yield (t ^ t >> 14) / 2**32


def transcribed(rule, *, steps, seed, problem=THESIS, eps=None, beta1=0.0, beta2=0.99, start=1.0):
    """(6.4) to (6.7) for one method, with a first moment: every iterate, and the sum of squared expected gradients."""
    draw, w, m, v, largest, total = mulberry32(seed), start, 0.0, 0.0, 0.0, 0.0
    iterates = []
    for t in range(1, steps + 1):
        total += (problem.p * problem.C * w - (1 - problem.p)) ** 2
        g = problem.C * w if next(draw) < problem.p else -1.0
        m = beta1 * m + (1 - beta1) * g
        before, v = v, beta2 * v + (1 - beta2) * g * g
        largest = max(largest, v)
        eps_t = rule.eps * t**rule.power if rule.power else (rule.eps if eps is None else eps)
        divisor = {"adam": v, "amsgrad": largest, "delayed": before}.get(rule.kind)
        alpha_t = rule.alpha * eps_t if rule.power and not rule.fixed else rule.alpha
        step = rule.alpha * m if divisor is None else alpha_t * m / (math.sqrt(divisor) + eps_t)
        w = min(1.0, max(0.0, w - step))
        iterates.append(w)
    return iterates, total


def in_page(page, widget, rules, steps, record=1, **settings):
    """Iterates (every ``record`` steps) and sums that the page's own module computes."""
    source = base64.b64encode(widget._esm.encode()).decode()
    values = widget.values()
    asked = {key: values[key] for key in ("alphas", "eps", "beta1", "beta2", "delta", "seed", "grow")} | settings
    asked |= {"C": widget.state["C"], "start": widget.state["start"], "steps": steps}
    asked["rules"] = [{"kind": r.kind, "eps": r.eps, "power": r.power} for r in rules]
    return page.evaluate(
        """async ([source, asked, record]) => {
          const { simulation } = await import('data:text/javascript;base64,' + source);
          const sim = simulation(asked);
          const seen = sim.methods.map(() => []);
          while (sim.t < sim.steps) {
            sim.advance(record);
            sim.methods.forEach((one, i) => seen[i].push(one.w));
          }
          return [seen, sim.methods.map((one) => one.total)];
        }""",
        [source, asked, record],
    )


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_every_step_is_the_transcription_s(show, beta1):
    rules, steps = [rule for rule in KINDS if not rule.fixed], 6000
    widget = NonconvergenceWidget(rules, beta1=beta1, seed=5)
    iterates, totals = in_page(show(widget), widget, rules, steps)
    for rule, seen, total in zip(rules, iterates, totals, strict=True):
        expected, sum_ = transcribed(rule, steps=steps, seed=5, beta1=beta1)
        assert len(seen) == steps
        assert np.abs(np.subtract(seen, expected)).max() < 1e-9, rule.name
        assert total == pytest.approx(sum_, rel=1e-9)
        assert min(expected) < 1 - 1e-5, rule.name  # it moved: the comparison says something


def test_fixed_rate_beside_a_growing_epsilon(show):
    rule = KINDS[-1]
    widget = NonconvergenceWidget([rule], seed=2)
    (seen,), _ = in_page(show(widget), widget, [rule], 3000)
    expected, _ = transcribed(rule, steps=3000, seed=2)
    assert np.abs(np.subtract(seen, expected)).max() < 1e-9


def test_agrees_with_the_vectorised_simulator(show, monkeypatch):
    """lab.figures.nonconvergence.simulator, fed with the page's random numbers, on 20,000 steps and a problem of
    another delta."""
    problem, steps = Problem(delta=0.5), 20_000

    class Generator:
        def __init__(self, seed):
            self.draw = mulberry32(seed)

        def random(self, shape):
            return np.array([next(self.draw) for _ in range(math.prod(shape))]).reshape(shape)

    monkeypatch.setattr("lab.figures.nonconvergence.simulator.np.random.default_rng", Generator)
    trace = simulate(RULES, steps=steps, seeds=1, seed=9, problem=problem)
    widget = NonconvergenceWidget(problem=problem, seed=9)
    iterates, totals = in_page(show(widget), widget, RULES, steps)
    for i in range(len(RULES)):
        assert np.abs(np.array(iterates[i])[trace.t - 1] - trace.w[i, :, 0]).max() < 1e-9
        assert totals[i] / steps == pytest.approx(trace.mean_square[i, -1, 0], rel=1e-9)


def data(page):
    """What the first figure says of itself: step, iterates and sums of squared gradients, one a method."""
    values = page.locator(".pa-simulator").first.evaluate("node => ({ ...node.dataset })")
    return values | {"w": json.loads(values["w"]), "total": json.loads(values["total"]), "steps": int(values["t"])}


def rest(page):
    page.wait_for_function(
        "(node => node.dataset.mode === '' && Number(node.dataset.t) > 0)(document.querySelector('.pa-simulator'))"
    )
    return data(page)


def test_what_is_shown_is_what_section_6_5_1_says(show):
    """Adam's mean squared gradient stays near delta^2 = 1; that of the others falls far below it."""
    page = show(NonconvergenceWidget())
    shown = rest(page)
    means = [total / 200_000 for total in shown["total"]]
    assert means[0] > 0.9
    assert max(means[1:]) < 0.2
    rows = page.locator(".pa-method .pa-result").all_inner_texts()
    assert all(f"w = {w:.3f}" in row for w, row in zip(shown["w"], rows, strict=True))
    said = page.locator(".pa-simulator output").text_content()
    assert "After 200,000 steps with ε = 10⁻⁸ and the samples of seed 1: Adam w 1.000" in said


def test_keyboard_moves_every_slider(show):
    page = show(NonconvergenceWidget())
    before = rest(page)
    for label in (
        "ε of the methods with a constant ε",
        "Decay of the second moment",
        "Decay of the first moment",
        "δ: the expected gradient at w = 1",
        "Step size of Delayed Adam",
    ):
        slider = page.get_by_label(label, exact=True)
        slider.focus()
        said = slider.get_attribute("aria-valuetext")
        page.keyboard.press("ArrowRight")
        now = rest(page)
        assert slider.get_attribute("aria-valuetext") != said
        assert now["total"] != before["total"], label
        before = now
    page.get_by_role("button", name="As in the book").click()
    assert rest(page)["total"] == rest(show(NonconvergenceWidget()))["total"]


def test_mouse_on_a_slider(show):
    page = show(NonconvergenceWidget())
    before = rest(page)
    box = page.get_by_label("Step size of Adam", exact=True).bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
    assert rest(page)["total"][0] != before["total"][0]
    assert rest(page)["total"][1:] == before["total"][1:]  # its own step size alone


def test_methods_can_be_left_out(show):
    page = show(NonconvergenceWidget())
    rest(page)
    drawn = "[...document.querySelectorAll('.pa-of-square .pa-line')].filter((n) => n.style.display !== 'none').length"
    assert page.evaluate(drawn) == len(RULES)
    page.get_by_label("AMSGrad", exact=True).focus()
    page.keyboard.press("Space")
    rest(page)
    assert page.evaluate(drawn) == len(RULES) - 1
    assert page.locator(".pa-method .pa-result").nth(1).inner_text() == ""


def test_growing_epsilon_with_a_fixed_rate_stands_still(show):
    page = show(NonconvergenceWidget())
    assert rest(page)["w"][3] < 0.9
    page.get_by_label("the step size grows with").uncheck()
    assert rest(page)["w"][3] > 0.99


def test_play_draws_step_by_step_and_pauses(show):
    page = show(NonconvergenceWidget(steps=200_000))
    rest(page)
    page.get_by_label("Speed").select_option("2000")  # 100 seconds: also a slow machine pauses in time
    page.get_by_role("button", name="Play the simulation").click()
    seen = [data(page)["steps"]]
    for _ in range(3):
        page.wait_for_function("before => +document.querySelector('.pa-simulator').dataset.t > before", arg=seen[-1])
        seen.append(data(page)["steps"])
    page.get_by_role("button", name="Pause the simulation").click()
    page.get_by_role("button", name="Play the simulation").wait_for()
    assert all(a <= b for a, b in pairwise(seen))
    still = data(page)["steps"]
    assert 0 < still < 200_000
    for _ in range(3):
        page.evaluate(TWO_FRAMES)
    assert data(page)["steps"] == still
    page.get_by_label("Speed").select_option("Infinity")
    page.get_by_role("button", name="Play the simulation").click()  # goes on to the end
    page.wait_for_function("document.querySelector('.pa-simulator').dataset.t === '200000'")


def test_reduced_motion_goes_to_the_end_at_once(show):
    page = show(NonconvergenceWidget(), reduced_motion="reduce")
    rest(page)
    page.get_by_role("button", name="Play the simulation").click()
    assert page.get_by_role("button", name="Pause the simulation").count() == 0
    assert rest(page)["steps"] == 200_000


def test_same_seed_same_samples_and_no_nonsense_seed(show):
    page = show(NonconvergenceWidget(steps=20_000), NonconvergenceWidget(steps=20_000))
    first, second = (page.locator(".pa-simulator").nth(i) for i in (0, 1))
    rest(page)
    page.wait_for_function("[...document.querySelectorAll('.pa-simulator')].every((n) => n.dataset.t === '20000')")
    assert first.get_attribute("data-total") == second.get_attribute("data-total")
    box = page.get_by_label("Seed of the samples").first
    box.fill("-4")
    box.press("Enter")
    assert box.input_value() == "1"


@pytest.mark.parametrize("width", [360, 1280])
def test_no_control_lies_over_its_neighbour(show, width):
    page = show(NonconvergenceWidget(steps=20_000), width=width)
    rest(page)
    names = page.locator(".pa-method").evaluate_all(
        "rows => rows.map((row) => [...row.children].map((n) => { const b = n.getBoundingClientRect(); return "
        "[b.left, b.top, b.right, b.bottom]; }))"
    )
    for boxes in names:
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                assert a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
