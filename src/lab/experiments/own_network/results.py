"""What Chapter 8's own trainings gave, as tables: three short runs of each knob, and the decision at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from torch import Tensor, nn

from lab import figures
from principled import summary
from principled.files import save
from principled.smol_training import Quantised

LEVEL = 0.05
"""Of the test that calls a difference one."""


# -- three short runs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """A short run: which knob was at which value, the share of zeros, and how many test images were named rightly."""

    knob: str
    value: float | None
    zeros: float
    accuracy: float


def reading(trial: Trial, dense: float) -> str:
    """In words what a short run says; ``dense`` is the accuracy before, between 0 and 1."""
    if trial.zeros < 0.02:
        return "nothing is pruned: a lower start, or a higher rate or price"
    if trial.zeros > 0.995:
        return "everything is pruned: a higher start or rate, or a lower price"
    lost = dense - trial.accuracy
    return "accuracy falls: less of it, or more steps" if lost > 0.03 else "goes on from here"


def trials(runs: Iterable[Trial], dense: float) -> pd.DataFrame:
    """Short runs as a reader sees them."""
    return pd.DataFrame(
        {
            "knob": run.knob,
            "value": "" if run.value is None else f"{run.value:g}",
            "zeros": f"{run.zeros:.1%}",
            "accuracy": f"{run.accuracy:.1%}",
            "reading": reading(run, dense),
        }
        for run in runs
    )


# -- measured networks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A finished network: which test inputs it gets right, what it holds, and the bytes of its file."""

    name: str
    right: Tensor
    zeros: float
    bits: float
    stored: int
    file_bytes: int

    @property
    def accuracy(self) -> float:
        """Between 0 and 1."""
        return float(self.right.double().mean())


def measure(name: str, net: nn.Module | Quantised, right: Callable[[nn.Module], Tensor]) -> Measured:
    """Save a network, and say what it holds and what it gets right; ``right`` answers for a plain network."""
    total = summary(net).total
    with tempfile.TemporaryDirectory() as folder:
        size = Path(save(Path(folder) / "net.principled", net)).stat().st_size
    answers = right(net.net if isinstance(net, Quantised) else net)
    return Measured(name, answers, total.zeros / total.stored, total.bits or 0.0, total.stored, size)


def verdict(network: Measured, dense: Measured) -> str:
    """``worse``, ``better`` or ``not told apart``: a sign test on the inputs that only one of the two gets right."""
    from scipy.stats import binomtest

    lost = int((dense.right & ~network.right).sum())
    won = int((network.right & ~dense.right).sum())
    if lost == won or binomtest(lost, lost + won).pvalue >= LEVEL:
        return "not told apart"
    return "worse" if lost > won else "better"


def decisions(measured: Sequence[Measured]) -> pd.DataFrame:
    """What to take, from what was measured; the first network is the dense one that the others are held against."""
    dense, *others = measured
    verdicts = {network.name: verdict(network, dense) for network in others}
    kept = [network for network in others if verdicts[network.name] != "worse"]
    smallest = min(kept, key=lambda network: network.file_bytes, default=dense)
    rows = []
    for network in measured:
        ratio = dense.file_bytes / network.file_bytes
        if network is dense:
            advice = "what the others are held against"
        elif verdicts[network.name] == "worse":
            advice = "costs accuracy: train it longer, or ask for less"
        elif network is smallest:
            advice = "take this one"
        else:
            advice = "works; another is smaller" if ratio > 1.02 else "works, and saves nothing"
        rows.append(
            {
                "network": network.name,
                "accuracy": f"{network.accuracy:.1%}",
                "against dense": "" if network is dense else verdicts[network.name],
                "zeros": f"{network.zeros:.0%}",
                "bits": f"{network.bits:.1f}",
                "file": f"{network.file_bytes / 1000:,.0f} kB",
                "times smaller": f"{ratio:.1f}",
                "decision": advice,
            }
        )
    return pd.DataFrame(rows)


def plane(measured: Sequence[Measured], what: str, profile: str) -> None:
    """Accuracy over the size of the file, a dot a network, with the interval that so few test inputs leave."""
    with figures.style():
        fig, ax = plt.subplots(figsize=(5.6, 3.6))
        for number, network in enumerate(measured):
            error = 196 * (network.accuracy * (1 - network.accuracy) / len(network.right)) ** 0.5
            colour = figures.DENSE if number == 0 else figures.ACCENT
            x, y = network.file_bytes / 1000, 100 * network.accuracy
            ax.errorbar(x, y, error, color=colour, marker="o", linestyle="none", capsize=3)
            ax.annotate(network.name, (x, y), (7, 5), textcoords="offset points")
        ax.set(xscale="log", xlabel="file (kB)", ylabel=f"test {what} named rightly (%)")
        ax.margins(x=0.25)
    text = "; ".join(f"{n.name}: {n.file_bytes / 1000:,.0f} kB, {n.accuracy:.1%}" for n in measured)
    figures.show(fig, alt=f"Accuracy over the size of the file, a dot a network. {text}.", profile=profile)


def speeds(calls: dict[str, Callable[[], Any]], times: int = 15) -> pd.DataFrame:
    """How fast the same batch goes through several programs, side by side: medians, the first one's as 1."""
    from statistics import median
    from time import perf_counter

    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(times):
        for name, call in calls.items():
            start = perf_counter()
            call()
            taken[name].append(perf_counter() - start)
    first = median(next(iter(taken.values())))
    return pd.DataFrame({"program": name, "times faster": f"{first / median(t):.1f}"} for name, t in taken.items())
