"""Records of Chapter 5 as tables of data: what a row is called, its means over seeds, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan, nan
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from lab import figures, runs
from lab.runs import Record

NAMES = {
    "dense": "dense", "smol": "SMOL", "bsq": "BSQ", "lq-nets": "LQ-Nets", "slb": "SLB", "dsq": "DSQ", "lsq": "LSQ",
    "dorefa": "DoReFa", "pact": "PACT", "smol-a": "SMOL-A",
}  # fmt: skip
MARKERS = {
    "SMOL": "o", "SMOL*": "s", "SMOL-L": "^", "BSQ": "v", "LQ-Nets": "P", "SLB": "X", "DSQ": "D", "LSQ": "p",
    "DoReFa": "h",
}  # fmt: skip
ORDER = ("dense", *MARKERS)
"""Methods as a table lists them; blocks of any size follow."""
COLOURS = dict.fromkeys(("SMOL", "SMOL*", "SMOL-L"), figures.SMOL) | {
    "BSQ": figures.MP, "LQ-Nets": figures.DENSE, "SLB": figures.GMP, "DSQ": figures.SHARING, "LSQ": figures.AVAGRAD,
    "DoReFa": figures.ACCENT,
}  # fmt: skip
MEASURED = ("bits", "accuracy", "accuracy_before_fixing", "accuracy_after_fixing", "file_bytes")
"""Figures of a record of which :func:`means` takes the mean; a record may lack all but the first two."""


def label(method: dict[str, object]) -> str:
    """A method as a reader calls it: ``SMOL*`` with zero precision, ``SMOL-L`` by layer, ``blocks of 16``."""
    if method["name"] != "smol":
        return NAMES[str(method["name"])]
    granularity = method.get("granularity", "weight")
    if granularity != "weight":
        return "SMOL-L" if granularity == "layer" else f"blocks of {granularity}"
    return "SMOL*" if method["zero"] else "SMOL"


def setting(method: dict[str, object]) -> str:
    """What the user of a method sets: a penalty, or the bits."""
    if "lambda" in method:
        return f"λ = {method['lambda']:g}"
    return f"{method['bits']} bits" if "bits" in method else "–"


def networks(records: Sequence[Record]) -> pd.DataFrame:
    """A row a run, but for re-trained precisions: :func:`lab.runs.table` with ``label`` and ``setting``."""
    records = [record for record in records if record["config"]["method"]["name"] != "retrain"]
    table = runs.table(records)
    methods = [record["config"]["method"] for record in records]
    labels = [label(method) for method in methods]
    order = [*ORDER, *sorted(set(labels) - set(ORDER))]
    table["label"] = pd.Categorical(labels, order, ordered=True)
    table["setting"] = [setting(method) for method in methods]
    for column in (*MEASURED, "lambda"):
        table[column] = table.get(column, nan)
    return table


def of_protocol(records: Sequence[Record]) -> list[Record]:
    """The runs that search for as many epochs as the first one (5.5.2 divides the epochs otherwise)."""
    epochs = records[0]["config"]["training"]["epochs"]
    return [record for record in records if record["config"]["training"]["epochs"] == epochs]


def contest(records: Sequence[Record]) -> pd.DataFrame:
    """:func:`networks` of the protocol's runs."""
    return networks(of_protocol(records))


def means(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    """Means over seeds of :data:`MEASURED`; ``spread`` of the accuracy; ``n`` runs."""
    grouped = table.groupby(list(by), observed=True, sort=False, dropna=False)
    spread = grouped["accuracy"].agg(spread="std", n="size")
    columns = grouped[list(MEASURED)].mean().join(spread).reset_index()
    return columns.sort_values([by[0], "bits"], ascending=[True, False], ignore_index=True, kind="stable")


def first_seed(records: Sequence[Record], **options: object) -> list[Record]:
    """The runs of SMOL of the first seed whose method has these options."""
    methods = [(r, r["config"]["method"]) for r in records if r["seed"] == records[0]["seed"]]
    return [r for r, method in methods if method["name"] == "smol" and options.items() <= method.items()]


def families(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The networks of the precision map, by how precisions are shared; few, as the page holds every weight of each."""
    return {
        "one a layer": first_seed(records, granularity="layer"),
        "blocks of 16": first_seed(records, granularity=16),
        "one a weight": first_seed(records, granularity="weight", zero=False)[:1],
        "with zero precision": first_seed(records, granularity="weight", zero=True)[::2],
    }


def percent(mean: float, spread: float = nan) -> str:
    """A share as ``31.0%``, or ``31.0% ± 0.1%`` if several runs have a spread; a dash where nothing was measured."""
    if isnan(mean):
        return "–"
    return f"{mean:.1%}" if isnan(spread) else f"{mean:.1%} ± {spread:.1%}"


CELLS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "network": lambda t: t["model"],
    "method": lambda t: t["label"],
    "setting": lambda t: t["setting"],
    "range": lambda t: t["scale"].map({1.0: "±2", "power": "power of two"}).fillna("–"),
    "bits a weight": lambda t: t["bits"].map("{:.2f}".format),
    "bits an activation": lambda t: t["bits"].map("{:.2f}".format),
    "packed file": lambda t: t["file_bytes"].map(figures.kilobytes),
    "end of search": lambda t: t["accuracy_before_fixing"].map(percent),
    "right after fixing": lambda t: t["accuracy_after_fixing"].map(percent),
    "test accuracy": lambda t: list(map(percent, t["accuracy"], t.get("spread", pd.Series(nan, t.index)))),
    "runs": lambda t: t["n"],
}
"""Columns of the chapter's tables, each from a frame of :func:`networks` or :func:`means`."""


def show(frame: pd.DataFrame, columns: Sequence[str], records: Sequence[Record], **more: Any) -> None:
    """A table of these :data:`CELLS`, then of ``more`` columns; underscores in their names become spaces."""
    cells = {name: CELLS[name](frame) for name in columns} | {k.replace("_", " "): v for k, v in more.items()}
    figures.table(pd.DataFrame(cells), profile=records[0]["profile"], runs=records)


def budget(records: Sequence[Record]) -> None:
    """How many runs there are and for how many epochs each searches and fine-tunes."""
    training = records[0]["config"]["training"]
    print(f"profile {records[0]['profile']}: {len(records)} runs")
    print(f"each {training['epochs']} epochs of search and {training['finetune_epochs']} of fine-tuning")


def curves(ax: Axes, frame: pd.DataFrame, x: str, y: str, hollow: bool, markers: dict[str, str] | None = None) -> None:
    """A line for each method in ``frame["label"]``; hollow and dashed where the thesis measured."""
    markers = MARKERS if markers is None else markers
    frame = frame[frame["label"].isin(list(markers))].assign(label=lambda f: f["label"].astype(str))
    names = [name for name in markers if name in set(frame["label"])]
    look = {"linestyle": "--", "markerfacecolor": "none"} if hollow else {}
    sns.lineplot(
        frame, x=x, y=y, hue="label", style="label", hue_order=names, style_order=names, palette=COLOURS,
        markers=markers, dashes=False, errorbar=None, markeredgecolor="auto", markeredgewidth=1.2, ax=ax, **look,
    )  # fmt: skip
    ax.get_legend().set_title("")
