"""What Chapter 6 shows of its theory: who solves problem (6.13), and how fast gradients fall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lab import figures
from lab.figures.nonconvergence.simulator import Trace
from lab.statistics import compare

from .convergence import GradientCurve, slope

SOLID, DASHED, DOTTED = "", (4, 2), (1, 1.5)
RULE_LOOKS = {
    "Adam": (figures.ADAM, SOLID),
    "AMSGrad": (figures.SMOL, SOLID),
    "Delayed Adam": (figures.AVAGRAD, SOLID),
    "Adam, growing ε": (figures.ADAM, DASHED),
    "SGD": (figures.SGD, DOTTED),
    "Adam, ε = 1e-8": (figures.ADAM, SOLID),
    "Adam, ε = √t": (figures.ADAM, DASHED),
    "Delayed Adam, ε = 1": (figures.SMOL, SOLID),
    "AvaGrad, ε = 1": (figures.AVAGRAD, SOLID),
}
"""Colour and dashes of the rules of Figures 6.7 and of the rates."""


def where_methods_end(trace: Trace) -> None:
    """A table: for each method its rate, the mean squared gradient over all steps (mean and spread over seeds), the
    last w."""
    rows = [
        {
            "method": rule.name,
            "rate α": f"{rule.alpha:g}" + (" · ε" if rule.power else ""),
            "mean squared gradient": f"{squares.mean():.3f} ± {squares.std(ddof=1):.3f}",
            "last w": f"{w.mean():.3f}",
        }
        for rule, squares, w in zip(trace.rules, trace.mean_square[:, -1], trace.w[:, -1], strict=True)
    ]
    figures.table(pd.DataFrame(rows))


def iterates(trace: Trace, stationary: float) -> None:
    """Two curves a method over log t, mean over seeds with the range from lowest to highest: mean squared gradient, and
    w.

    A reader sees Adam stay at w = 1 while the others come down to the stationary point.
    """
    index = pd.MultiIndex.from_product([[rule.name for rule in trace.rules], trace.t, range(trace.w.shape[2])])
    frame = pd.DataFrame({"gradient": trace.mean_square.ravel(), "w": trace.w.ravel()}, index)
    frame = frame.rename_axis(["method", "t", "seed"]).reset_index()
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2)
        for ax, y, bar in ((left, "gradient", ("pi", 100)), (right, "w", None)):
            sns.lineplot(frame, x="t", y=y, errorbar=bar, ax=ax, err_kws={"linewidth": 0}, **_looks(trace.rules))
        right.axhline(stationary, color="black", linestyle=":", linewidth=1)
        right.text(1.5, stationary - 0.06, "w*")
        left.set(xscale="log", yscale="log", xlabel="step t", ylabel="", title="mean of ‖∇f(w)‖²")
        right.set(xscale="log", xlabel="step t", ylabel="", title="iterate w", ylim=(0, 1.05))
        figures.legend_below(left, right, columns=3)
    alt = (
        "Left: mean squared gradient up to step t on problem 6.13, both axes logarithmic. Adam stays at one; AMSGrad, "
        "Delayed Adam, Adam with growing epsilon and SGD fall together. Right: Adam's iterate stays at 1, the others "
        "come down to the stationary point near one half."
    )
    figures.show(fig, alt=alt)


def delayed_against_growing(trace: Trace) -> None:
    """One line: whether the two repairs, a delay and a growing epsilon, differ in the mean squared gradient."""
    kinds = [(rule.kind, rule.power > 0) for rule in trace.rules]
    ends = dict(zip(kinds, trace.mean_square[:, -1], strict=True))
    difference = compare(ends["delayed", False], ends["adam", True])
    print(f"Delayed Adam minus growing eps: {difference.interval(4)}, {difference.verdict}")


def slopes(curves: Iterable[GradientCurve]) -> None:
    """A line a rule: its gradient at the first and the last horizon, the slope in log-log, how far above it the
    theorem's bound lies."""
    for curve in curves:
        fitted, ends = slope(curve), curve.mean_square.mean(1)[[0, -1]]
        bound = "" if curve.bound is None else f"; bound {curve.bound[-1] / ends[1]:,.0f}x higher"
        interval = f"slope {fitted.slope:+.2f} [{fitted.low:+.2f}, {fitted.high:+.2f}]"
        print(f"{curve.rule.name:>18}: {ends[0]:.2f} to {ends[1]:.2f}, {interval}{bound}")


def gradient_against_steps(curves: Sequence[GradientCurve]) -> None:
    """Mean squared gradient against the steps of a run, both logarithmic, one line a rule, and a guide of slope
    -1/2."""
    frame = pd.DataFrame(
        {"method": curve.rule.name, "T": steps, "gradient": value}
        for curve in curves
        for steps, values in zip(curve.horizons, curve.mean_square, strict=True)
        for value in values
    )
    steps = np.array(curves[0].horizons)
    guide = curves[0].mean_square[0].mean() * (steps[0] / steps) ** 0.5
    with figures.style():
        fig, ax = plt.subplots()
        rules = [curve.rule for curve in curves]
        sns.lineplot(frame, x="T", y="gradient", errorbar="sd", marker="o", markeredgewidth=0, ax=ax, **_looks(rules))
        ax.plot(steps, 0.45 * guide, color="black", linewidth=1, alpha=0.6)
        ax.text(steps[2], 0.36 * guide[2], "1/√T")
        ax.set(xscale="log", yscale="log", xlabel="steps T of a run", ylabel="E ‖∇f‖²")
        ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
        ax.minorticks_off()
        figures.legend_below(ax, columns=2, suffix={c.rule.name: f": slope {slope(c).slope:+.2f}" for c in curves})
    alt = (
        "Mean squared gradient against the number of steps, both logarithmic. Adam with a tiny epsilon is a level "
        "line; Adam with growing epsilon, Delayed Adam, AvaGrad and SGD fall in parallel with a line of slope "
        "minus one half."
    )
    figures.show(fig, alt=alt)


def _looks(rules: Iterable[Any]) -> dict[str, Any]:
    names = [rule.name for rule in rules]
    palette, dashes = ({name: RULE_LOOKS[name][i] for name in names} for i in (0, 1))
    return {"hue": "method", "style": "method", "palette": palette, "dashes": dashes}
