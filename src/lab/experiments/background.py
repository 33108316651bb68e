"""Figures of Chapters 1 and 2, where nothing is trained on data: one weight, one file, one small regression."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

from lab import figures
from principled.sparsity import CURVES


def relaxed_cost(objective: Callable[[Tensor], Tensor]) -> None:
    """The step and three sigmoids of growing temperature; beside them the cost of one weight under each.

    Args:
        objective: from a mask in [0, 1] to its cost, element by element.
    """
    s = torch.linspace(-2, 2, 401)
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2)
        for beta, shade in {1: 0.35, 4: 0.6, 16: 1.0}.items():
            mask = CURVES["sigmoid"](beta * s)
            for ax, values in ((left, mask), (right, objective(mask))):
                ax.plot(s, values, color=figures.CS, alpha=shade, label=f"β = {beta}")
        for side, step in ((s[s < 0], 0.0), (s[s >= 0], 1.0)):
            mask = torch.full_like(side, step)
            for ax, values in ((left, mask), (right, objective(mask))):
                ax.plot(side, values, color="black", linestyle=":", label=None if step else "step")
        left.set(title="The mask σ(βs)", xlabel="mask variable s")
        right.set(title="What it costs", xlabel="mask variable s", ylim=(0.35, 1.05))
        left.legend(loc="upper left")
    figures.show(
        fig,
        alt="Left: sigmoid curves of s for temperatures 1, 4 and 16 approach a step from 0 to 1 at s = 0. Right: the "
        "cost of one weight under each curve slopes from 1 on the left through a shallow dip below 0.5 to 0.5 on the "
        "right, ever closer to a two-level step.",
    )


def entropy(kept: np.ndarray) -> np.ndarray:
    """Bits per weight without which no code says which are kept, where a share ``kept`` is kept in no pattern."""
    dropped = 1 - kept
    return -kept * np.log2(kept) - np.where(dropped > 0, dropped * np.log2(np.maximum(dropped, 1e-12)), 0)


def storage(weights: int) -> None:
    """Bits per weight against the share that is kept, under three codes for the places of the kept weights, and the
    bound.
    """
    kept = np.geomspace(0.005, 1, 200)
    curves = {
        "values alone": (32 * kept, figures.DENSE, "--"),
        "with indices": ((32 + math.ceil(math.log2(weights))) * kept, figures.MP, "-"),
        "with a bitmap": (32 * kept + 1, figures.CS, "-"),
        "lower bound (entropy)": (32 * kept + entropy(kept), figures.SMOL, "-"),
    }
    with figures.style():
        fig, ax = plt.subplots()
        ax.axhline(32, color=figures.DENSE, linestyle=":")
        ax.text(0.0052, 34.5, "dense, 32 bits", color=figures.DENSE)
        for name, (bits, colour, line) in curves.items():
            ax.plot(kept, bits, color=colour, linestyle=line, label=name)
        ax.set(xscale="log", xlabel="share of weights kept")
        ax.set(yscale="log", ylabel="bits per weight of the dense network")
        ax.set_xticks([0.01, 0.1, 1], ["1 %", "10 %", "100 %"])
        ax.set_yticks([0.25, 1, 4, 16, 64], ["¼", "1", "4", "16", "64"])
        ax.minorticks_off()
        ax.legend(loc="lower right")
    figures.show(
        fig,
        alt="Bits per weight against the share of weights kept, both axes logarithmic. Values alone fall in "
        "proportion; "
        "with indices they fall in parallel but higher; with a bitmap the curve flattens at one bit; the entropy bound "
        "runs just above the values alone.",
    )


def chosen_masks(errors: Tensor, sizes: Tensor, chosen: Iterable[int]) -> None:
    """Mean squared error of every mask by the weights that it keeps: range, best of each size, and the masks chosen.

    Args:
        errors: of each mask.
        sizes: weights that each mask keeps; masks of none are left out.
        chosen: indices of the masks that the relaxation chose.
    """
    masks = pd.DataFrame({"kept": sizes, "error": errors}).query("kept > 0")
    best = masks.groupby("kept")["error"].agg(["min", "max"])
    picked = masks.loc[sorted(set(chosen))]
    with figures.style():
        fig, ax = plt.subplots()
        ax.vlines(best.index, best["min"], best["max"], color=figures.DENSE, alpha=0.5, linewidth=5)
        ax.plot(best.index, best["min"], color=figures.DENSE, label="best of each size (all tried)", **figures.BOOK)
        sns.scatterplot(
            picked, x="kept", y="error", marker="s", s=100, facecolor="none", edgecolor=figures.CS, linewidth=2,
            label="what the relaxation chose", legend=False, zorder=3, ax=ax,
        )  # fmt: skip
        ax.set(xlabel="weights kept", ylabel="mean squared error", yscale="log", xticks=best.index)
        ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
        ax.minorticks_off()
        fig.legend(loc="outside upper right", ncols=2)
    figures.show(
        fig,
        alt=f"Mean squared error against the number of weights kept, from 1 to {best.index.max()}. Grey bars show the "
        "range over all masks of a size, a grey line the best of each size. Blue squares mark the relaxation's "
        "choices; "
        "they lie on the line.",
    )
