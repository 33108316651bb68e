"""The simulator's Python side: what it hands to the page, and what it refuses."""

import re

import pytest

from lab.figures.nonconvergence.simulator import RULES, THESIS, Problem, Rule
from lab.figures.nonconvergence.widget import NonconvergenceWidget
from lab.utils.errors import LabError


def test_stands_where_section_6_5_1_stands():
    widget = NonconvergenceWidget()
    values = widget.values()
    assert values["state"]["C"] == THESIS.C
    assert [rule["name"] for rule in values["state"]["rules"]] == [rule.name for rule in RULES]
    assert values["alphas"] == [rule.alpha for rule in RULES]
    assert (values["eps"], values["beta2"], values["beta1"], values["delta"]) == (1e-8, 0.99, 0, THESIS.delta)
    assert values["grow"]
    assert values["shown"] == list(range(len(RULES)))
    # every value that it stands at first is a stop of its slider
    choices = values["state"]["choices"]
    for name in ("eps", "beta1", "beta2", "delta"):
        assert values[name] in choices[name]
    assert all(any(alpha == pytest.approx(stop) for stop in choices["alpha"]) for alpha in values["alphas"])


def test_tells_the_problem_where_no_script_runs():
    page = NonconvergenceWidget().static_html()
    assert f"{THESIS.stationary:.4f}" in page
    for rule in RULES:
        assert rule.name in page
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", page)


def test_same_settings_same_bytes():
    assert NonconvergenceWidget(seed=3).static_html() == NonconvergenceWidget(seed=3).static_html()
    assert NonconvergenceWidget(seed=3).static_html() != NonconvergenceWidget(seed=4).static_html()


def test_own_rules_and_problem():
    rules = [Rule("one", "delayed", alpha=0.01, eps=0.1, beta2=0.9), Rule("<b>", "adam", 1.0, power=0.5, fixed=True)]
    widget = NonconvergenceWidget(rules, problem=Problem(C=99, delta=2), start=0.5)
    assert (widget.eps, widget.beta2, widget.delta, widget.grow) == (0.1, 0.9, 2, False)
    assert "<b>" not in widget.static_html()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"eps": 0.0}, r"eps is 0\.0; it must be above 0"),
        ({"beta1": 1.0}, r"beta1 is 1\.0; it must be in \[0, 1\)"),
        ({"beta2": -0.1}, r"beta2 is -0\.1"),
        ({"seed": -1}, "seed is -1; it must be from 0"),
        ({"steps": 10}, "steps is 10; it must be from 1,000"),
        ({"shown": [0, 9]}, r"shown is \[0, 9\]; it must be different indices from 0 to 4"),
        ({"rules": []}, "needs one rule or more"),
        ({"start": 2.0}, r"start is 2\.0; it must be in \[0, 1\]"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, says):
    with pytest.raises(LabError, match=says) as caught:
        NonconvergenceWidget(**settings)
    assert "\n" not in str(caught.value)


def test_later_changes_are_checked_too():
    widget = NonconvergenceWidget()
    with pytest.raises(LabError, match="one step size above 0 for each of 5"):
        widget.alphas = [1.0]
    with pytest.raises(LabError, match="delta is 999"):
        widget.delta = 999.0
