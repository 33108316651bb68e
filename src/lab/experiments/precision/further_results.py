"""Chapter 5 beyond the weights of a ResNet-20: small networks, activations, and weights of another range."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lab import figures
from lab.datasets import thesis
from lab.runs import Record

from .frames import contest, means, networks, setting, show


def small_networks(records: Sequence[Record], resnet20_records: Sequence[Record]) -> None:
    """What MobileNetV2 and ShuffleNet lose against their dense form, here and in the thesis, beside a ResNet-20."""
    points = means(networks(records), "model", "label", "setting")
    dense = points[points["label"] == "dense"].set_index("model")["accuracy"]
    loss = (points["accuracy"] - points["model"].map(dense)).map("{:+.1%}".format)
    columns = ("network", "method", "setting", "bits a weight", "packed file", "right after fixing", "test accuracy")
    show(points, (*columns, "runs"), records, against_dense=loss)
    table = contest(resnet20_records)
    smol = table[table["label"] == "SMOL"]
    near = smol.loc[(smol["bits"] - 2.5).abs().idxmin()]
    change = near["accuracy"] - table[table["label"] == "dense"]["accuracy"].mean()
    print(f"ResNet-20 beside them: {near['bits']:.2f} bits, {change:+.1%} against dense")
    for name in ("MobileNetV2", "ShuffleNet"):
        full, few = (thesis.value("5.2", row, f"{name} test accuracy") for row in ("FP", "SMOL (1.7/2.9 bits)"))
        bits = thesis.value("5.2", "SMOL (1.7/2.9 bits)", f"{name} bits per parameter")
        print(f"thesis, {name}: {bits} bits, {few - full:+.1f} points against dense")


def activation_bits(records: Sequence[Record]) -> None:
    """Bits an activation, learned by SMOL-A or set for PACT, and the accuracy of each network."""
    points = means(networks(records), "label", "setting").sort_values("bits")
    origin = points["label"].astype(str).map({"SMOL-A": "learned", "PACT": "set"}).fillna("–")
    columns = ("method", "setting", "bits an activation", "right after fixing", "test accuracy", "runs")
    show(points, columns, records, bits_are=origin)
    learned, given = "SMOL-A (1.8 bits)", "PACT (2.0 bits)"
    gain = thesis.value("5.5", learned, "Test accuracy") - thesis.value("5.5", given, "Test accuracy")
    print(f"thesis: {learned} is {gain:+.1f} points over {given}")


def bits_by_relu(records: Sequence[Record]) -> None:
    """Mean bits of each ReLU of the first seed's SMOL-A networks, from the image to the scores."""
    rows = []
    for record in records:
        method, layers = record["config"]["method"], [n for n in record["figures"] if n.startswith("bits.")]
        if method["name"] == "smol-a" and record["seed"] == records[0]["seed"]:
            places = sorted(layers, key=lambda name: (name != "bits.relu", name))
            bits = [record["figures"][name] for name in places]
            rows += [{"ReLU": i, "bits": b, "penalty": setting(method)} for i, b in enumerate(bits, start=1)]
    frame = pd.DataFrame(rows)
    with figures.style():
        fig, ax = plt.subplots(figsize=(7.4, 2.6))
        shades = sns.light_palette(figures.SMOL, frame["penalty"].nunique() + 1)[1:]
        several = frame["penalty"].nunique() > 1
        sns.lineplot(
            frame, x="ReLU", y="bits", hue="penalty", palette=shades if several else [figures.SMOL], marker="o",
            markeredgewidth=0, legend="full" if several else False, ax=ax,
        )  # fmt: skip
        ax.set(xlabel="ReLU, from the image to the scores", ylabel="mean bits", xticks=sorted(set(frame["ReLU"])))
        ax.set_ylim(0, 1.1 * frame["bits"].max())
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Mean bits of the units of each ReLU of the network, from first to last, as SMOL-A learned them.",
    )


def ranges(records: Sequence[Record]) -> None:
    """Networks whose weights range over ±2, or over a power of two that each tensor chooses."""
    table = networks(records)
    table["scale"] = table["scale"].astype(object)
    table = table.sort_values(["model", "label", "lambda", "file_bytes"], ascending=[True, True, True, False])
    columns = ("network", "method", "setting", "range", "bits a weight", "packed file", "right after fixing")
    show(table, (*columns, "test accuracy"), records)
