"""What zeros buy in time: Chapter 4's figure and table, from the record of ``benchmarks/runtime.py``."""

from __future__ import annotations

import re
from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator

from lab import figures
from lab.figures import measured

OWN = re.compile(r"principled, (\d+)% zeros")
Case = dict[str, float]


def cases(runtime: measured.Measured) -> dict[str, Case]:
    """Microseconds an image by network and batch, then by engine, as the benchmark names them."""
    by_case: dict[str, Case] = {}
    for ratio in runtime["ratios"]:
        if ratio["unit"] == "µs an image":
            case, _, engine = ratio["name"].partition(": ")
            by_case.setdefault(case, {})[engine] = ratio["value"]
    return by_case


def own(case: Case) -> list[tuple[float, float]]:
    """``(share of zeros, microseconds)`` of the compiled network, by zeros."""
    return sorted((int(match[1]) / 100, time) for name, time in case.items() if (match := OWN.fullmatch(name)))


def dense(case: Case) -> Case:
    """Engines that compute every product in float32."""
    return {name: time for name, time in case.items() if not OWN.fullmatch(name) and not name.endswith("int8")}


def crossing(case: Case) -> float | None:
    """The share of zeros from which on the compiled network is ahead of every dense float32 engine.

    None where it is not, at any measured share; between two shares a straight line is drawn.
    """
    best, points = min(dense(case).values()), own(case)
    if points[-1][1] >= best:
        return None
    for (zeros, time), (later, less) in reversed(list(pairwise(points))):
        if time >= best:
            return zeros + (later - zeros) * (time - best) / (time - less)
    return points[0][0]


def latency_against_zeros(case: str = "ResNet-20, batch 1") -> None:
    """Time against zeros: a line that falls, beside engines for which a zero is a number like any other."""
    runtime = measured.read("runtime")
    engines = cases(runtime)[case]
    zeros, times = zip(*own(engines), strict=True)
    others = sorted((time, name) for name, time in engines.items() if not OWN.fullmatch(name))
    with figures.style():
        fig, axes = plt.subplots()
        axes.plot([100 * share for share in zeros], times, marker="o", label="principled.runtime")
        for number, (time, name) in enumerate(others, 1):
            style = ":" if name.endswith("int8") else "--"
            axes.axhline(time, color=f"C{number}", linestyle=style, label=name)
        if (cross := crossing(engines)) is not None:
            axes.axvline(100 * cross, color="0.5", linewidth=0.8)
        axes.set(xlabel="zeros (%)", ylabel="µs an image", yscale="log", title=case)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_minor_formatter("")
        axes.legend()
        figures.legend_below(axes, columns=2)
    figures.show(
        fig,
        alt="Time of one image against the share of zeros, on a logarithmic axis: the compiled sparse network's falls, "
        "those of the dense engines are level lines.",
        benchmark="runtime",
    )
    print(measured.circumstances(runtime))


def speedups() -> pd.DataFrame:
    """For each network and batch: the best dense engine, and how many times faster the compiled network is."""
    rows = []
    for name, case in cases(measured.read("runtime")).items():
        best = min(dense(case), key=lambda engine: dense(case)[engine])
        small = [time for engine, time in case.items() if engine.endswith("int8")]
        cross = crossing(case)
        for zeros, time in own(case):
            if zeros >= 0.8:
                rows.append({
                    "network": name, "zeros": f"{zeros:.0%}", "µs an image": f"{time:,.0f}",
                    "fastest dense": f"{best}, {case[best]:,.0f} µs", "times faster": f"{case[best] / time:.1f}",
                    "than int8": f"{min(small) / time:.1f}" if small else "–",
                    "ahead from": "–" if cross is None else f"{cross:.0%} zeros",
                })  # fmt: skip
    return pd.DataFrame(rows)
