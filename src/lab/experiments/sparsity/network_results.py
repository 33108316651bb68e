"""The pruned networks themselves: in which layers their zeros lie, and what their files weigh."""

from __future__ import annotations

import lzma
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from safetensors.torch import load_file, save_file
from torch import nn

from lab import figures
from lab.datasets import CLASSES, thesis
from lab.figures.frontier.state import METHODS
from lab.models.registry import build
from lab.runs import Record, Run, figures_of, runner
from principled.files import save

from . import curves

ONE_SHOT = ("mp", "gmp", "cs")


def kept_by_layer(records: Iterable[Record], keys: Sequence[str], least: float = 0.79) -> pd.DataFrame:
    """Weights kept (%) in each layer, a column a method: its most repeated point of ``least`` zeros or more."""
    columns = {}
    finished = curves.unique(records)
    for key in keys:
        settings: dict[str, list[Record]] = {}
        for r in curves.of_method(finished, key):
            if r["figures"]["sparsity"] >= least and r["experiment"] != "tickets":
                settings.setdefault(repr(sorted(r["config"]["method"].items())), []).append(r)
        if settings:
            same = max(settings.values(), key=lambda group: (len(group), group[0]["figures"]["sparsity"]))
            layers = [n for n in same[0]["figures"] if n.startswith("sparsity.")]
            columns[METHODS[key].name] = {
                layer.removeprefix("sparsity."): 100 * (1 - mean(r["figures"][layer] for r in same)) for layer in layers
            }
    return pd.DataFrame(columns)


def where_the_zeros_lie(records: Sequence[Record]) -> None:
    """Weights kept in each layer from the input on, a line a method: those of equal sparsity, and the others."""
    others = {"NetSlim": figures.SMOL, "STR": figures.SHARING, "DNW": figures.AVAGRAD, "AMC": figures.ACCENT}
    times = times_kept(records)
    panels = {"equal sparsity": ONE_SHOT, "as sparse as their runs": ("netslim", "str", "dnw", "amc")}
    with figures.style():
        fig, axes = plt.subplots(1, 2, sharey=True)
        for ax, (title, keys) in zip(axes, panels.items(), strict=True):
            kept = kept_by_layer(records, keys).clip(lower=0.02)  # a layer without any weight has no logarithm
            long = kept.reset_index(drop=True).reset_index(names="layer").melt("layer", var_name="method")
            sns.lineplot(
                long, x="layer", y="value", hue="method", palette=curves.COLOURS | others, ax=ax, **curves.DOTS
            )
            ax.set(yscale="log", title=title, xlabel="layer, from the input on", ylim=(0.015, 130))
            ax.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
            ax.legend()
        axes[0].set(ylabel="weights kept (%)")
    figures.show(
        fig,
        profile=records[0]["profile"],
        runs=records,
        alt="Share of weights kept in each of the 19 convolutions of a ResNet-20, from input to output, logarithmic, "
        f"a line a method. Of the first stage's weights MP keeps {times['MP']:.1f} times as many as CS, GMP "
        f"{times['GMP']:.1f} times.",
    )


def times_kept(records: Iterable[Record]) -> dict[str, float]:
    """How many times as many weights as CS each other method of one-shot pruning keeps in the first stage."""
    kept = kept_by_layer(records, ONE_SHOT)
    stage = kept[kept.index.str.startswith(("blocks.0.", "blocks.1.", "blocks.2."))].mean()
    return {rival: float(stage[rival] / stage["CS"]) for rival in ("MP", "GMP")}


def first_stage(records: Sequence[Record]) -> pd.DataFrame:
    """How many times as many weights as CS the others keep in the first stage, ours and the thesis's."""
    fact = thesis.fact("vgg-structure-first-blocks")
    rows = [
        {"from": "this book", "network": "ResNet-20", "rival": rival, "keeps": f"{times:.1f} times"}
        for rival, times in times_kept(records).items()
    ]
    rows.append(
        {"from": "thesis", "network": "VGG-16", "rival": "IMP", "keeps": f"about {fact.value:g} ({fact.printed!r})"}
    )
    return pd.DataFrame(rows)


def trained(runs: Sequence[Run], methods: Sequence[str], device: str) -> Iterator[nn.Module]:
    """The network of each method's first run; where only its record came with the book, it is trained here, once."""
    wanted = [next(run for run in runs if run.config["method"]["name"] == name) for name in methods]
    runner.execute([replace(run, network=True) for run in wanted], device)
    for run in wanted:
        net = build(run.config["model"], CLASSES[run.config["data"]])
        net.load_state_dict(load_file(run.model()))
        yield net.eval()


def accuracies_of_their_own(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """What the networks of :func:`trained` score themselves: another processor rounds otherwise than the record's."""
    wanted = {name: next(run for run in runs if run.config["method"]["name"] == name) for name in methods}
    own = (f"{name} {figures_of(run.model())['accuracy']:.1%}" for name, run in wanted.items())
    return f"test accuracy of these networks: {', '.join(own)}"


def forms(networks: Mapping[str, nn.Module]) -> pd.DataFrame:
    """Files of networks, plain, compressed and saved, with the weights they hold, compared with the first."""
    rows, whole = [], 0

    def kilo(size: int) -> str:
        return f"{size / 1000:,.0f}"

    with tempfile.TemporaryDirectory() as folder:
        for name, net in networks.items():
            path = Path(folder) / "net.safetensors"
            save_file(net.state_dict(), path)
            plain = path.read_bytes()
            whole = whole or len(plain)
            saved = save(Path(folder) / "net.principled", net).stat().st_size
            count = sum(p.numel() for p in net.parameters())
            rows.append(
                {
                    "form": name,
                    "weights": f"{count:,}",
                    "not 0": f"{sum(int((p != 0).sum()) for p in net.parameters()) / count:.1%}",
                    "plain, kB": kilo(len(plain)),
                    "zip, kB": kilo(len(zlib.compress(plain, 9))),
                    "xz, kB": kilo(len(lzma.compress(plain, preset=9 | lzma.PRESET_EXTREME))),
                    "saved, kB": kilo(saved),
                    "of dense": f"{saved / whole:.1%}",
                }
            )
    return pd.DataFrame(rows)
