"""Chapter 3's tables, figures and verdicts, made from records.

A public function puts what it is named after on the page: a figure, a table, or sentences with the mark of their runs.
``records`` are those of :func:`lab.experiments.sharing.images.pictured`, of one profile. Similarity
matrices are in :mod:`.matrices`, the shortest paths in :mod:`.path_results`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Protocol

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lab import figures, runs
from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured
from lab.runs import Record
from lab.statistics import compare

from . import images, parts

WAYS = {
    "score": ("BatchNorm as trained", figures.DENSE, (1, 1)),
    "score_bn": ("BatchNorm re-estimated", figures.SHARING, ""),
    "score_tuned": ("and fine-tuned", parts.THIRD, ""),
}
"""The scores of a recorded fold: in words, their colour, their dashes."""


def with_folds(records: Sequence[Record]) -> list[Record]:
    """Records of the networks whose folds were measured: the headline's seeds, then the sweep of lambda."""
    return parts.chosen(records, images.shared, images.swept)


# -- sizes -------------------------------------------------------------------------------------------------------------


def parameter_counts() -> None:
    """Every (S)WRN of the thesis's tables: its parameters as counted, and in millions as each table prints them."""
    networks = images.rows() | {
        ("3.4", run.config["model"]): run.config["method"] | {"data": "imagenet"}
        for run in (images.imagenet(shared=False), images.imagenet(shared=True))
    }
    rows = []
    for (table, row), options in networks.items():
        count = images.parameters(*(options[key] for key in ("depth", "width", "templates", "data")))
        printed = thesis.pivot(table, "printed").loc[row, "Params (M)"]
        places = len(printed.partition(".")[2])
        cut = math.floor(count / 1e6 * 10**places) / 10**places
        rows.append(
            {"table": table, "network": " ".join(row.split()[:2]), "data": options["data"], "parameters": f"{count:,}"}
            | {"printed": printed, "cut": f"{cut:.{places}f}", "rounded": f"{count / 1e6:.{places}f}"}
        )
    counts = pd.DataFrame(rows)
    for table, same in counts.groupby("table"):
        ways = [way for way in ("cut", "rounded") if (same[way] == same["printed"]).all()]
        right = f"all of them right ({ways[0]})" if ways else "not all of them right"
        print(f"Table {table}: {len(same)} printed counts, {right}")
    counts["printed"] += " (" + counts["table"] + ")"
    grouped = counts.groupby(["network", "data", "parameters"], sort=False)["printed"].unique()
    figures.table(grouped.map(", ".join).rename("printed, in millions").reset_index())


# -- networks that were trained ----------------------------------------------------------------------------------------


def protocol(records: Sequence[Record]) -> None:
    """How many runs, on what data, how long."""
    config = records[0]["config"]
    print(f"profile {records[0]['profile']}: {len(records)} runs on {config['data']}")
    print(f"each {config['training']['epochs']} epochs in batches of {config['training']['batch_size']}")


def _unregularised(records: Sequence[Record]) -> pd.DataFrame:
    """Runs without the regulariser, a row each, the smallest network first; ``kind`` is WRN or SWRN."""
    table = runs.table(records)
    table = table[table["lambda"] == 0]
    kind = table["method"].str.split().str[0]
    return table.assign(kind=kind, error=1 - table["accuracy"]).sort_values(["parameters", "templates"])


def networks(records: Sequence[Record]) -> None:
    """Plain and shared networks, the smallest first: parameters, test error, mean similarity of two layers."""
    rows = [
        {
            "network": name,
            "parameters": f"{same['parameters'].iloc[0]:,.0f}",
            "test error": parts.spread(same["error"]),
            "mean similarity": "–" if same["similarity"].isna().all() else f"{same['similarity'].mean():.2f}",
            "runs": len(same),
        }
        for name, same in _unregularised(records).groupby("method", sort=False)
    ]
    parts.table(rows, records)


def error_against_parameters(records: Sequence[Record]) -> None:
    """Test error against size, with a bar of one standard deviation; beside it the thesis's Table 3.1."""
    table = _unregularised(records)
    points = pd.DataFrame({"x": table["parameters"] / 1e3, "y": 100 * table["error"], "kind": table["kind"]})
    printed = thesis.pivot("3.1").filter(like="WRN", axis="index")
    printed = printed.assign(kind=printed.index.str.split().str[0])
    look = {"hue": "kind", "palette": {"WRN": figures.DENSE, "SWRN": figures.SHARING}}
    with figures.style():
        fig, (measured, right) = plt.subplots(1, 2)
        sns.lineplot(
            points, x="x", y="y", errorbar="sd", err_style="bars", err_kws={"capsize": 3}, ax=measured,
            hue_order=["WRN", "SWRN"], **look, **parts.DOTS,
        )  # fmt: skip
        measured.set(title="This book", xlabel="parameters (thousands)", ylabel="test error (%)")
        measured.legend()
        hollow = figures.THESIS | {"linestyle": ""}
        sns.lineplot(printed, x="Params (M)", y="Test error", estimator=None, legend=False, ax=right, **look, **hollow)
        for line in right.get_lines():
            line.set_markeredgecolor(line.get_color())
        right.set(title="Thesis, Table 3.1", xlabel="parameters (millions)", ylabel="", xscale="log")
        right.set_xticks([10, 20, 50, 100], labels=["10", "20", "50", "100"])
        right.xaxis.set_minor_formatter("")
    parts.show(
        fig,
        records,
        "Left: test error against parameters for a Wide ResNet and its shared forms with fewer and more templates, "
        "as measured here. Right: the same from the thesis's Table 3.1, where shared networks lie below the plain one "
        "or level with it at fewer parameters.",
    )


def shared_against_plain(records: Sequence[Record]) -> None:
    """Whether the shared network's test error differs from the plain one's, and how large it is beside it."""
    shared, plain = (parts.chosen(records, declared) for declared in (images.shared, images.plain))
    error, other = ([1 - r["figures"]["accuracy"] for r in same] for same in (shared, plain))
    better = compare(error, other).verdict == "lower"
    share = shared[0]["figures"]["parameters"] / plain[0]["figures"]["parameters"]
    names = [same[0]["config"]["model"] for same in (shared, plain)]
    verdict = parts.verdict(f"test error of {names[0]}", error, names[1], other)
    size = f"{names[0]} has {share:.0%} of the parameters, and is {'' if better else 'not '}shown to be better"
    parts.say(f"{verdict}\n  {size}", [*shared, *plain])


# -- folds -------------------------------------------------------------------------------------------------------------


def _folds(records: Iterable[Record]) -> pd.DataFrame:
    """The recorded folds, a row each: ``seed``, ``place`` (0 is unfolded), ``last`` (the run's last place), ``level``,
    ``layers`` and ``parameters`` left, and the scores of :data:`WAYS` (NaN where not measured)."""
    rows = []
    for record in records:
        folds = record["recording"]["folds"]
        for place, fold in enumerate(folds):
            known = {key: fold.get(key) for key in ("level", "layers", "parameters", *WAYS)}
            rows.append({"seed": record["seed"], "place": place, "last": len(folds) - 1} | known)
    return pd.DataFrame(rows).astype(dict.fromkeys(WAYS, float))


def error_of_folds(records: Sequence[Record]) -> None:
    """What folds cost: test error against layers left (mean and range) and against parameters left (each seed)."""
    shared = parts.chosen(records, images.shared)
    folds = _folds(shared).rename(columns={way: words for way, (words, _, _) in WAYS.items()})
    words, colours, dashes = zip(*WAYS.values(), strict=True)
    scores = folds.melt(["seed", "layers", "parameters"], words, "form", "score").dropna()
    scores = scores.assign(error=100 * (1 - scores["score"]), thousands=scores["parameters"] / 1e3)
    tuned = scores["form"] == words[-1]  # only some folds were fine-tuned: no line may join them
    look = {"y": "error", "hue": "form", "palette": dict(zip(words, colours, strict=True))}
    lines = look | {"data": scores[~tuned], "style": "form", "dashes": dict(zip(words, dashes, strict=True))}
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(6.4, 3.6))
        sns.lineplot(x="layers", errorbar=parts.RANGE, err_kws={"linewidth": 0}, ax=left, **lines)
        sns.lineplot(x="thousands", units="seed", estimator=None, linewidth=1, legend=False, ax=right, **lines)
        for axes, x in ((left, "layers"), (right, "thousands")):
            sns.scatterplot(scores[tuned], x=x, s=36, linewidth=0, legend=axes is left and "brief", ax=axes, **look)
        right.axvline(shared[0]["figures"]["parameters"] / 1e3, color="black", linewidth=0.8, linestyle="--")
        left.set(xlabel="layers left", ylabel="test error (%)", title="Mean and range")
        right.set(xlabel="parameters left (thousands)", title="Each seed")
        for axes in (left, right):
            axes.invert_xaxis()
        figures.legend_below(left, columns=3)
    parts.show(
        fig,
        shared,
        "Test error of the folded network against the layers left (left) and the parameters left (right): as folded, "
        "with BatchNorm re-estimated, and for some folds after fine-tuning.",
    )


def price_of_folds(records: Sequence[Record]) -> None:
    """Test error without a fold, halfway, and folded to one layer a group, in each of :data:`WAYS`.

    Then in sentences: what re-estimating BatchNorm gives back, and whether one layer a group costs error after
    fine-tuning.
    """
    shared = parts.chosen(records, images.shared)
    folds = _folds(shared)
    places = {"none": 0 * folds["last"], "halfway": (folds["last"] + 1) // 2, "one layer a group": folds["last"]}
    rows = []
    for name, place in places.items():
        at = folds[folds["place"] == place]
        errors = {words: parts.spread(1 - at[way]) for way, (words, _, _) in WAYS.items()}
        rows.append({"fold": name, "layers": f"{at['layers'].mean():.0f}"} | errors)
    parts.table(rows, shared)
    gain = (folds["score_bn"] - folds["score"]).groupby(folds["layers"]).mean()
    print(f"re-estimating BatchNorm takes off up to {gain.max():.1%} of test error,\n  at {gain.idxmax()} layers")
    tuned = folds.dropna(subset=["score_tuned"])
    whole, loop = (list(1 - tuned[tuned["place"] == place]["score_tuned"]) for place in (0, tuned["last"]))
    if loop:
        print(parts.verdict("fine-tuned, one layer a group", loop, "no fold", whole))


def smallest_folds(records: Sequence[Record], allowed: Sequence[float] = (0.0, 0.01, 0.02, 0.05)) -> None:
    """For each seed the smallest fold whose error, BatchNorm re-estimated, rises by no more than is allowed."""
    shared = parts.chosen(records, images.shared)
    rows = []
    for rise in allowed:
        row = {"more error allowed": f"{rise:.0%}"}
        for seed, folds in _folds(shared).groupby("seed"):
            whole = folds.iloc[0]
            least = folds[folds["score_bn"] >= whole["score_bn"] - rise].nsmallest(1, "parameters").iloc[0]
            share = least["parameters"] / whole["parameters"]
            row[f"seed {seed}"] = f"{least['layers']:.0f} layers, {share:.0%} ({least['level']:.2f})"
        rows.append(row)
    parts.table(rows, shared)


# -- similarity matrices -----------------------------------------------------------------------------------------------


# -- the recurrence regulariser ----------------------------------------------------------------------------------------


def loops_against_lambda(records: Sequence[Record]) -> None:
    """What lambda does: how alike layers become, and the test error in each of :data:`FORMS`, re-estimated."""
    swept = parts.chosen(records, images.swept)
    table = runs.table(swept)
    table = table.assign(**{"λ": [f"{x:g}" for x in table["lambda"]]})
    points = [
        {"λ": name, "form": form, "error": 100 * (1 - fold["score_bn"])}
        for record, name in zip(swept, table["λ"], strict=True)
        for form, fold in forms(record).items()
    ]
    errors = pd.DataFrame(points)
    with figures.style():
        fig, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.6))
        sns.lineplot(table, x="λ", y="similarity", color=figures.SHARING, ax=left, **parts.DOTS)
        left.set(ylim=(0, 1.05), ylabel="mean similarity", title="How alike")
        colours = dict(zip(errors["form"].unique(), (figures.DENSE, figures.SHARING, parts.THIRD), strict=True))
        sns.lineplot(errors, x="λ", y="error", hue="form", palette=colours, ax=right, **parts.DOTS)
        right.set(ylabel="test error (%)", title="At what price")
        figures.legend_below(right, columns=3)
    parts.show(
        fig,
        swept,
        "Left: the mean similarity of two layers against lambda. Right: test error of the network that is not folded, "
        "of its fold at threshold 0.9 and of its fold to one layer a group, against lambda.",
    )


def price_of_lambda(records: Sequence[Record]) -> None:
    """For each lambda: mean similarity, layers left at 0.9, and the error that loops add, re-estimated."""
    swept = parts.chosen(records, images.swept)
    rows = []
    for record in swept:
        whole, folded, loops = forms(record).values()
        rows.append(
            {
                "λ": f"{record['config']['method']['lambda']:g}",
                "similarity": f"{record['figures']['similarity']:.2f}",
                "layers left at 0.9": f"{folded['layers']:.0f}",
                "one layer a stage costs": f"{whole['score_bn'] - loops['score_bn']:+.1%}",
            }
        )
    parts.table(rows, swept)


# -- shortest paths ----------------------------------------------------------------------------------------------------


# -- beside the thesis -------------------------------------------------------------------------------------------------


class Judged(Protocol):
    """What is read of a row of the scoreboard."""

    @property
    def claim(self) -> Claim | None: ...
    @property
    def measured(self) -> Measured | None: ...
    @property
    def profile(self) -> str: ...


COLUMNS = {"Params (M)": "millions", "Training time": "GPU days", "Test error": "thesis"}


def beside(board: Iterable[Judged], name: str, *, by_error: bool = False) -> None:
    """One of the thesis's tables, and this book's measurements of its test errors from the rows of the scoreboard."""
    rows = {
        row.claim.row: row
        for row in board
        if row.claim and (row.claim.table, row.claim.column, row.claim.versus) == (name, "Test error", "")
    }
    printed = thesis.pivot(name, "printed")
    source = thesis.table(name).groupby("row")["source"].first()
    measured = []
    for network in printed.index:
        row = rows.get(network)
        if row is None or row.measured is None:
            measured.append("–" if source[network] == "thesis" else f"quoted from {source[network]}")
            continue
        spread = f" ± {row.measured.spread:.2f}" if row.measured.spread is not None else ""
        measured.append(f"{row.measured.value:.2f}{spread} ({row.profile}, n = {row.measured.n})")
    shown = printed.filter(COLUMNS).rename(columns=COLUMNS).assign(**{"this book": measured})
    shown = shown.rename_axis("network").reset_index().rename_axis(columns=None)
    figures.table(shown.sort_values("thesis") if by_error else shown)


def recorded(experiment: str) -> list[Record]:
    """What is recorded on whole data, finished, of the most demanding profile that there is; empty if nothing is."""
    finished = [record for record in runs.recorded(experiment) if record["state"] == "finished"]
    for profile in ("paper", "short"):
        if records := [record for record in finished if record["profile"] == profile]:
            return records
    return []


FORMS = ("not folded", "folded at 0.9", "one layer a group")


def forms(record: Record) -> dict[str, dict[str, Any]]:
    """A network in its :data:`FORMS`: ``parameters``, ``layers``, and the scores of :data:`WAYS` that are recorded.

    All scores of one name have had the same treatment, whatever the form. A plain network has the first form alone.
    """
    if "folds" in record.get("recording", {}):
        folds = record["recording"]["folds"]
        whole = folds[0] | {
            "parameters": record["figures"]["parameters"]
        }  # what is stored before a layer gets its own weights
        measured = (whole, images.fold_at(record["recording"], images.THRESHOLD), folds[-1])
        return {form: dict.fromkeys(WAYS) | fold for form, fold in zip(FORMS, measured, strict=True)}
    score = _score(record)
    scores = {way: record["figures"].get(score + way.removeprefix("score")) for way in WAYS}
    return {FORMS[0]: {"parameters": record["figures"]["parameters"], "layers": None} | scores}


def _score(record: Record) -> str:
    return "f1" if "f1" in record["figures"] else "accuracy"


def larger_networks(records: Sequence[Record]) -> None:
    """Networks in their :data:`FORMS`, a row each: weights, and the score in each of :data:`WAYS` over seeds.

    Then for each shared network whether its loops score otherwise than itself, both fine-tuned alike.
    """
    rows, tuned = [], {}
    ordered = sorted(records, key=lambda r: (-r["figures"]["parameters"], r["config"]["method"]["name"]))
    for name, same in groupby(ordered, key=lambda record: str(record["config"]["method"]["name"])):
        by_seed = [forms(record) for record in same]
        for form in by_seed[0]:
            seeds = pd.DataFrame([each[form] for each in by_seed])
            shown = {words: parts.spread(seeds[way]) for way, (words, _, _) in WAYS.items()}
            rows.append(
                {"network": name, "form": form, "weights": f"{seeds['parameters'].mean():,.0f}"}
                | shown
                | {"n": len(seeds)}
            )
            tuned[name, form] = seeds["score_tuned"].dropna().tolist()
    parts.table(rows, records)
    for name in dict.fromkeys(row["network"] for row in rows):
        whole, loops = (tuned.get((name, form)) for form in (FORMS[0], FORMS[-1]))
        if whole and loops:
            print(parts.verdict(f"{_score(records[0])} of {name} fine-tuned, {FORMS[-1]}", loops, FORMS[0], whole))
