"""Tables, figures and verdicts of the page beyond classification: a generator and a translator of few bits.

Each function takes finished records of one profile and puts a table, a figure or a few sentences on the page.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from math import isnan, nan

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from PIL import Image

from lab import figures, runs
from lab.datasets import thesis
from lab.experiments.precision.frames import curves, label, setting
from lab.runs import Record
from lab.statistics import compare
from lab.training import scores

MARKERS = {"SMOL": "o", "SMOL*": "s", "BSQ": "v"}
KINDS = ("embeddings", "attention", "feed-forward")
FULL = "full precision"


def networks(records: Sequence[Record]) -> pd.DataFrame:
    """A row a run: :func:`lab.runs.table` with ``label`` (the method) and ``setting`` (its penalty)."""
    table = runs.table(records)
    methods = [record["config"]["method"] for record in records]
    table["label"] = [FULL if method["name"] == "dense" else label({"zero": False} | method) for method in methods]
    table["setting"] = [setting(method) for method in methods]
    return table


def few_bits(records: Sequence[Record]) -> Record:
    """The run of SMOL that ended with the fewest bits."""
    smol = [record for record in records if record["config"]["method"]["name"] == "smol"]
    return min(smol, key=lambda record: record["figures"]["bits"])


def generators(records: Sequence[Record]) -> None:
    """Each generator with its bits, the share of weights that have none, and its distance to real images."""
    table = networks(records)
    zeros = table.get("share.0", pd.Series(nan, table.index))
    shown = pd.DataFrame(
        {
            "generator": table["label"],
            "setting": table["setting"],
            "bits a weight": table["bits"].map("{:.2f}".format),
            "weights of no bits": zeros.map(lambda share: "–" if isnan(share) else f"{share:.0%}"),
            scores.NAME: table["fd"].map("{:.1f}".format),
            "seed": table["seed"],
        }
    )
    figures.table(shown, profile=records[0]["profile"], runs=records)


def generated_images(records: Sequence[Record]) -> None:
    """What the full generator and the one of fewest bits make of the same noise, side by side."""
    first = [record for record in records if record["seed"] == records[0]["seed"]]
    full = next(record for record in first if record["config"]["method"]["name"] == "dense")
    shown = (full, few_bits(first))
    alt = (
        "Two sheets of 32 generated images from the same noise, left by the generator of full precision, right by "
        "the one of fewest bits. At profile quick both show blurred, checkered patches and no objects; the right one "
        "has fewer colours."
    )
    image_sheets(shown, [f"{record['figures']['bits']:.1f} bits a weight" for record in shown], alt)


def image_sheets(records: Sequence[Record], titles: Sequence[str], alt: str, share: float = 1.0) -> None:
    """The sheets of generated images that two or more runs ended with, or the upper ``share`` of each, side by side
    under their titles."""
    with figures.style():
        fig, axes = plt.subplots(1, len(records), figsize=(3.7 * len(records), 0.4 + 1.9 * share))
        for ax, record, title in zip(axes, records, titles, strict=True):
            sheet = Image.open(io.BytesIO(base64.b64decode(record["recording"]["samples"])))
            ax.imshow(sheet.crop((0, 0, sheet.width, round(share * sheet.height))), interpolation="none")
            ax.set(xticks=(), yticks=(), title=title)
            ax.grid(False)
    figures.show(fig, profile=records[0]["profile"], runs=records, alt=alt)


def printed_distances() -> pd.DataFrame:
    """Table 5.4 of the thesis: ``label``, ``bits`` and ``fd``, which there is FID."""
    table = thesis.table("5.4").pivot(index="row", columns="column", values="value").reset_index()
    table["label"] = [FULL if row.startswith("FP") else row.split(" (")[0] for row in table["row"]]
    return table.rename(columns={"Bits per parameter": "bits", "FID": "fd"})


def distance_against_bits(records: Sequence[Record], static: float) -> None:
    """Distance to real images over bits a weight, with that of television ``static``; beside it the thesis's FID."""
    table, printed = networks(records), printed_distances()
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.0))
        for ax, frame in ((left, table), (right, printed)):
            for distance in frame[frame["label"] == FULL]["fd"]:
                ax.axhline(distance, color=figures.DENSE, linestyle=":")
            curves(ax, frame, "bits", "fd", hollow=ax is right, markers=MARKERS)
        left.axhline(static, color=figures.MP, linestyle="-.", linewidth=1)
        left.annotate("static", (0.5, 0.8 * static), xycoords=("axes fraction", "data"), color=figures.MP)
        left.set(title="This book", ylabel=scores.NAME, xlabel="bits a weight", xlim=(0, None))
        left.set_ylim(0, 1.15 * max(static, table["fd"].max()))
        right.set(title="Thesis, Table 5.4", ylabel="FID", xlabel="bits a weight")
        figures.legend_below(right, left)
    alt = (
        "Distance to real images against average bits a weight, lower is better. Left, this book's runs in the "
        "features of a ResNet-20; right, the thesis's FID, where SMOL lies below BSQ at every number of bits. Dotted: "
        "full precision; dash-dotted: television static."
    )
    figures.show(fig, profile=records[0]["profile"], runs=records, alt=alt)


def generators_against_full(records: Sequence[Record], static: float) -> None:
    """How far each generator is from full precision, and whether any is nearer to real images than ``static``."""
    table = networks(records)
    full = table[table["label"] == FULL]["fd"]
    quantised = table[table["label"] != FULL]
    settings = list(quantised.groupby(["setting", "label"], sort=False))
    for (price, name), part in sorted(settings, key=lambda item: -item[1]["bits"].mean()):
        result = compare(part["fd"], full, comparisons=len(settings))
        print(f"{name}, {price}: {part['bits'].mean():.2f} bits, distance {part['fd'].mean() / full.mean() - 1:+.0%}")
        print(f"  against full precision: {result}")
    nearest = table["fd"].min()
    word = "nearer than" if nearest < 0.9 * static else "no nearer than"
    print(f"the nearest generator, {nearest:.1f}, is {word} static, {static:.1f}")
    few, whole = (thesis.value("5.4", row, "FID") for row in ("SMOL* (0.2 bits)", "FP (160 epochs)"))
    print(f"thesis, 0.2 bits: FID {few / whole - 1:+.0%} against full precision")
    figures.mark(records)


def corpus_and_size(records: Sequence[Record]) -> None:
    """One line: the corpus and the number of parameters."""
    print(f"{records[0]['data']['name']}, {records[0]['figures']['parameters']:,.0f} parameters")


def translators(records: Sequence[Record]) -> None:
    """Bits, BLEU and chrF of each translator, the verdicts on chrF, and the thesis's Table 5.7."""
    table = networks(records)
    shown = pd.DataFrame(
        {
            "translator": table["label"],
            "setting": table["setting"],
            "bits a weight": table["bits"].map("{:.2f}".format),
            "BLEU": table["bleu"].map("{:.1f}".format),
            "chrF": table["chrf"].map("{:.1f}".format),
        }
    )
    figures.table(shown, profile=records[0]["profile"], runs=records)
    full, settings = table[table["label"] == FULL], list(table[table["label"] != FULL].groupby("setting"))
    for price, part in settings:
        result = compare(part["chrf"], full["chrf"], comparisons=len(settings))
        print(f"chrF of SMOL, {price}, against full precision: {result}")
    for row, cells in thesis.table("5.7").groupby("row", sort=False):
        values = cells.set_index("column")["value"]
        print(f"thesis, {row}: {values['Bits per parameter']:g} bits, BLEU {values['BLEU']:g} on IWSLT'14")


def bits_by_kind(records: Sequence[Record]) -> None:
    """Average bits of embeddings, attention and feed-forward layers, a bar for each penalty."""
    table = networks(records)
    table = table[table["label"] != FULL].drop(columns="bits").rename(columns={f"bits.{kind}": kind for kind in KINDS})
    frame = table.melt("setting", KINDS, var_name="layers", value_name="bits")
    several = frame["setting"].nunique() > 1
    with figures.style():
        fig, ax = plt.subplots(figsize=(7.4, 2.4))
        shades = sns.light_palette(figures.SMOL, frame["setting"].nunique() + 1, reverse=True)[:-1]
        sns.barplot(
            frame, x="bits", y="layers", hue="setting", palette=shades if several else [figures.SMOL], saturation=1,
            errorbar=None, legend=several, ax=ax,
        )  # fmt: skip
        for bars in ax.containers:
            ax.bar_label(bars, fmt="%.2f", padding=3)
        ax.set(xlabel="bits a weight", ylabel="", xlim=(0, 8))
        ax.grid(False, axis="y")
    alt = (
        "Average bits a weight of a translator's embeddings, attention and feed-forward layers as horizontal "
        "bars, from a start of 8 bits."
    )
    figures.show(fig, profile=records[0]["profile"], runs=records, alt=alt)


def translations(records: Sequence[Record], count: int = 6) -> None:
    """The first ``count`` test pairs as a person and as the translator of fewest bits translates them."""
    examples = pd.DataFrame(few_bits(records)["recording"]["examples"][:count])
    columns = {"source": "German", "reference": "a person", "translation": "the translator of few bits"}
    figures.table(examples[list(columns)].rename(columns=columns), profile=records[0]["profile"], runs=records)
