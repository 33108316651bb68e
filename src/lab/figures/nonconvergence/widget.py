"""Chapter 6's simulator of (6.13): where Adam walks away from the stationary point. It runs in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

from .simulator import RULES, THESIS, Problem, Rule

MANTISSAS = (1, 2, 5)
CHOICES: dict[str, list[float]] = {
    "alpha": [m * 10.0**e for e in range(-6, 3) for m in MANTISSAS] + [1000.0],
    "eps": [10.0**e for e in range(-8, 4)],
    "beta1": [0.0, 0.5, 0.8, 0.9, 0.95, 0.99],
    "beta2": [0.0, 0.5, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999],
    "delta": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
}
"""Where the sliders stop. A widget made in Python may hold other numbers; the sliders then stand at the nearest."""


HERE = Path(__file__).parent


class NonconvergenceWidget(Widget):
    r"""The iterates of Adam and its relatives on problem (6.13), and the mean of :math:`\|\nabla f(w)\|^2` (Figure
    6.7), live.

    A reader chooses ε, β₁, β₂, δ, the samples' seed, which methods run, and a step size for each. All methods see the
    same samples, so that two of them differ by nothing else. The steps are those of
    :mod:`lab.figures.nonconvergence.simulator` with :math:`\beta_1` added (no bias correction); the samples come from
    the generator mulberry32, one number a step.

    Args:
        rules: the methods, and where their sliders stand first.
        problem: its C stays, its delta is where the slider stands first.
        start: w_1.
        title: what the figure is called.
        eps, beta2: for all methods whose ε is constant. Default: those of the first rule, as the rules share them.
        beta1: decay of the first moment. Default 0, as in Section 6.5.1.
        seed: of the samples, from 0.
        steps: T. Default 200,000, 400 rare samples of (6.13).
        shown: indices of the methods that run. Default: all.
        grow: whether a rule with a growing ε_t keeps alpha_t in step with it (Corollary 6.1). Default: as the rules
            say.

    Raises:
        LabError: a setting out of its range, with the range.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)
    _schema = HERE / "widget.schema.json"

    alphas = traitlets.List(traitlets.Float()).tag(sync=True)
    eps = traitlets.Float().tag(sync=True)
    beta1 = traitlets.Float().tag(sync=True)
    beta2 = traitlets.Float().tag(sync=True)
    delta = traitlets.Float().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    steps = traitlets.Int().tag(sync=True)
    shown = traitlets.List(traitlets.Int()).tag(sync=True)
    grow = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        rules: Sequence[Rule] = RULES,
        *,
        problem: Problem = THESIS,
        start: float = 1.0,
        title: str = "Adam walks away from the stationary point, and who does not",
        eps: float | None = None,
        beta1: float = 0.0,
        beta2: float | None = None,
        seed: int = 1,
        steps: int = 200_000,
        shown: Sequence[int] | None = None,
        grow: bool | None = None,
        **traits: Any,
    ) -> None:
        if not rules:
            raise LabError(
                "the simulator needs one rule or more; RULES of lab.figures.nonconvergence.simulator are Figure 6.7's"
            )
        if not 0 <= start <= 1:
            raise LabError(f"start is {start}; it must be in [0, 1], where problem (6.13) lives")
        constant = [rule for rule in rules if rule.power == 0] or list(rules)
        state = {
            "title": title,
            "C": float(problem.C),
            "start": float(start),
            "rules": [{"name": rule.name, "kind": rule.kind, "eps": rule.eps, "power": rule.power} for rule in rules],
            "choices": CHOICES,
        }
        self._first = (problem, tuple(rules))
        super().__init__(
            state,
            alphas=[rule.alpha for rule in rules],
            eps=constant[0].eps if eps is None else eps,
            beta1=beta1,
            beta2=constant[0].beta2 if beta2 is None else beta2,
            delta=problem.delta,
            seed=seed,
            steps=steps,
            shown=list(range(len(rules)) if shown is None else shown),
            grow=not any(rule.fixed for rule in rules) if grow is None else grow,
            **traits,
        )

    @traitlets.validate("alphas", "eps", "beta1", "beta2", "delta", "seed", "steps", "shown")
    def _check_setting(self, proposal: traitlets.Bunch) -> Any:
        name, value = proposal.trait.name, proposal.value
        problem, rules = self._first
        good, rule = {
            "alphas": (
                lambda: len(value) == len(rules) and all(0 < alpha < math.inf for alpha in value),
                f"one step size above 0 for each of {len(rules)} methods",
            ),
            "eps": (lambda: 0 < value < math.inf, "above 0"),
            "beta1": (lambda: 0 <= value < 1, "in [0, 1)"),
            "beta2": (lambda: 0 <= value < 1, "in [0, 1)"),
            "delta": (lambda: 0 < value < problem.C, f"between 0 and C = {problem.C:g}"),
            "seed": (lambda: 0 <= value < 2**32, "from 0 to 2**32 - 1"),
            "steps": (lambda: 1000 <= value <= 10_000_000, "from 1,000 to 10,000,000"),
            "shown": (
                lambda: len(set(value)) == len(value) and all(0 <= i < len(rules) for i in value),
                f"different indices from 0 to {len(rules) - 1}",
            ),
        }[name]
        if not good():
            raise LabError(f"{name} is {value}; it must be {rule}")
        return value

    def describe(self, state: dict[str, Any]) -> str:
        problem, rules = self._first
        return (
            f"{state['title']}: a simulation of problem (6.13) with C = {problem.C:g} and δ = {problem.delta:g}. One "
            f"sample in {1 / problem.p:g} has the gradient C w, all others -1; the expected gradient is zero at w = "
            f"{problem.stationary:.4f} and {problem.delta:g} at w = 1, where the iterates start at {state['start']:g}. "
            f"The methods: {', '.join(rule.name for rule in rules)}."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        rows = [("Method", "α", "ε", "β₂")]
        for rule in self._first[1]:
            eps = f"{rule.eps:g}" + (f" t^{rule.power:g}" if rule.power else "")
            rate = f"{rule.alpha:g}" + (" ε_t" if rule.power and not rule.fixed else "")
            plain = rule.kind in ("plain", "avagrad")
            rows.append((rule.name, rate, "none" if plain else eps, "none" if plain else f"{rule.beta2:g}"))
        return rows
