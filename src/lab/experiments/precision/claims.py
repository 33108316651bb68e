"""Chapter 5's tables and statements, and the runs that measure them: weights (Tables 5.1 and 5.6, Sections 5.4.4 and
5.5), small networks (Table 5.2), ImageNet (Table 5.3), activations (Table 5.5).

The thesis names penalties and does not always say which gave which row. Taken here: of Table 5.1 the two rows with zero
precision have the two largest penalties, which give the fewest bits; of Table 5.3 the larger penalty gives fewer bits,
and zero precision fewer than none. For activations it states no penalty: those are this book's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lab.datasets import thesis
from lab.experiments.claims import (
    Claim,
    Measure,
    Measured,
    Needs,
    Reasons,
    average,
    both,
    counted,
    difference,
    no_run,
    over_seeds,
    stated,
)
from lab.runs import Record, Run
from lab.statistics import compare

from . import activations, imagenet, small_networks, weights
from .few_bits import FULL

TOLERANCES = {
    "accuracy": (0.25, "less than half of what SMOL gains on BSQ in Table 5.1"),
    "bits": (0.15, "half the distance between neighbouring penalties"),
    "ratio": (0.7, "what half the distance between neighbouring penalties is as a ratio"),
}
"""Of each kind of number, and why so much. A stated difference has half of itself, if that is less."""

COLUMNS = {"accuracy": "Test accuracy", "bits": "Bits per parameter", "ratio": "Compression ratio"}
SETTING = "a setting of the method, not a result"
DEFINITION = "true by definition: 32 bits"


# -- which runs stand for a row ----------------------------------------------------------------------------------------


def runs_of(
    experiment: Any, *, penalty: Callable[[str], float] | None = None, model: str | None = None, **options: Any
) -> Needs:
    """All declared seeds of a method: the runs whose configuration has these options.

    Args:
        experiment: the module that declares them.
        penalty: the profile's penalty, where the row has one.
        model: the network, where the experiment has several.
    """

    def needs(profile: str) -> list[Run]:
        wanted = options | ({} if penalty is None else {"lambda": penalty(profile)})
        of_model = (run for run in experiment.runs(profile) if model in (None, run.config["model"]))
        return [run for run in of_model if wanted.items() <= run.config["method"].items()]

    return needs


def weights_of(name: str, **options: Any) -> Needs:
    """Runs on a ResNet-20 at the thesis's division of the epochs between search and fine-tuning."""
    declared = runs_of(weights, name=name, **options)

    def needs(profile: str) -> list[Run]:
        epochs = weights.PROTOCOL[profile]["training"]["epochs"]
        return [run for run in declared(profile) if run.config["training"]["epochs"] == epochs]

    return needs


def smol(index: int, granularity: str = "weight", zero: bool = False) -> Needs:
    """SMOL on a ResNet-20 at one of the protocol's penalties, ascending."""
    penalties = "lambda_layer" if granularity == "layer" else "lambda"

    def penalty(profile: str) -> float:
        return float(weights.PROTOCOL[profile][penalties][index])

    return weights_of("smol", penalty=penalty, granularity=granularity, zero=zero, allowed=None)


def late(profile: str) -> list[Run]:
    """Figure 5.7 from 300 of 650 epochs on; at the other profiles the divisions are runs of another experiment."""
    if profile != "paper":
        return []
    searches = runs_of(weights, name="smol", zero=False, granularity="weight", **weights.headline(profile))(profile)
    return [run for run in searches if run.config["training"]["epochs"] >= 300 and run.seed == 0]


SMOL_ROWS = {
    "SMOL (2.8 bits)": smol(0),
    "SMOL (2.5 bits)": smol(1),
    "SMOL (2.1 bits)": smol(2),
    "SMOL* (1.7 bits)": smol(1, zero=True),
    "SMOL* (1.3 bits)": smol(2, zero=True),
    "SMOL-L (3.2 bits)": smol(0, "layer"),
    "SMOL-L (2.4 bits)": smol(-1, "layer"),
}
GIVEN_ROWS = {
    "LQ-Nets (1.0 bits)": weights_of("lq-nets", bits=1),
    "LQ-Nets (2.0 bits)": weights_of("lq-nets", bits=2),
    "LQ-Nets (3.0 bits)": weights_of("lq-nets", bits=3),
    "SLB (1.0 bits)": weights_of("slb", bits=1),
    "SLB (2.0 bits)": weights_of("slb", bits=2),
    "DSQ (1.0 bits)": weights_of("dsq", bits=1),
}
SAME, SHUFFLED = "Re-trained with same precisions", "Re-trained with shuffled precisions"
RETRAINED_ROWS = {SAME: weights_of("retrain", shuffled=False), SHUFFLED: weights_of("retrain", shuffled=True)}
SMALL = {"mobilenetv2": "MobileNetV2", "shufflenet": "ShuffleNet"}
LARGE: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "resnet18": ("ResNet-18", {
        "FP": {"name": "dense"},
        "SMOL* (2.3/2.2 bits)": {"name": "smol", "index": 0, "zero": True},
        "SMOL (4.2/5.3 bits)": {"name": "smol", "index": 0, "zero": False},
        "SMOL (4.5 bits)": {"name": "smol", "index": 1, "zero": False},
        "LQ-Nets (4.0 bits)": {"name": "lq-nets", "bits": 4},
        "DSQ": {"name": "dsq", "bits": 4},
        "SLB": {"name": "slb", "bits": 2},
    }),
    "resnet50": ("ResNet-50", {
        "FP": {"name": "dense"},
        "SMOL* (0.8 bits)": {"name": "smol", "index": 0, "zero": True},
        "SMOL* (4.1 bits)": {"name": "smol", "index": 1, "zero": True},
        "SMOL (4.2/5.3 bits)": {"name": "smol", "index": 1, "zero": False},
        "LQ-Nets (4.0 bits)": {"name": "lq-nets", "bits": 4},
        "BSQ (3.3 bits)": {"name": "bsq"},
    }),
}  # fmt: skip
"""Networks of Table 5.3: its name there, and its rows by the method's options; ``index`` counts the penalties, largest
first."""
SMOL_A = {"SMOL-A (2.9 bits)": 0, "SMOL-A (2.5 bits)": 1, "SMOL-A (1.8 bits)": 2}
"""Rows of Table 5.5: which of the penalties, ascending."""
PACT = {"PACT (2.0 bits)": 2, "PACT (3.0 bits)": 3, "PACT (5.0 bits)": 5}


# -- one claim ---------------------------------------------------------------------------------------------------------


def measure(kind: str, needs: Needs, note: str = "") -> Measure:
    """A kind of number over the seeds: ``accuracy`` in percent, ``bits``, ``ratio`` is 32 over bits."""
    if kind == "ratio":
        return over_seeds(lambda record: FULL / record["figures"]["bits"], needs, note)
    return average(kind, needs, 100 if kind == "accuracy" else 1, note=note)


def lossless(ratio: Measure, accuracy: Measure, dense: Measure) -> Measure:
    """A compression ratio, if by Welch's interval no accuracy is lost to the dense network; else why it is none."""

    def measured(records: Sequence[Record]) -> Measured | str:
        parts = [measure(records) for measure in (ratio, accuracy, dense)]
        if missing := [part for part in parts if isinstance(part, str)]:
            return missing[0]
        number, ours, full = (part for part in parts if isinstance(part, Measured))
        comparison = compare(ours.values, full.values)
        if comparison.verdict in ("lower", "no verdict"):
            return f"compressed {number.value:.1f} times, accuracy less the dense network's: {comparison}"
        return Measured(
            number.values, number.runs, against=full.runs, note=f"accuracy less the dense network's: {comparison}"
        )

    return measured


def cell(
    experiment: str, kind: str, needs: Needs, table: str, row: str, column: str = "", note: str = ""
) -> Claim:  # fmt: skip
    """A number of a table; ``column`` where it is not that of :data:`COLUMNS`."""
    tolerance, reason = TOLERANCES[kind]
    column = column or COLUMNS[kind]
    return Claim(experiment, measure(kind, needs, note), needs, table, row, column, tolerance=tolerance, reason=reason)


def statement(experiment: str, fact: str, kind: str, a: Needs, b: Needs | None = None, main: str = "") -> Claim:
    """A number of the text: of ``a``, or by how much ``a`` is above ``b``."""
    tolerance, reason = TOLERANCES[kind]
    number, needs = measure(kind, a), a
    if b is not None:
        number, needs = difference(number, measure(kind, b)), both(a, b)
        if (half := stated(fact) / 2) < tolerance:
            tolerance, reason = half, "half of the stated difference"
    return Claim(experiment, number, needs, fact=fact, tolerance=tolerance, reason=reason, main=main)


def order(
    experiment: str, a: Needs, b: Needs, table: str, row: str, versus: str, column: str = "", main: str = ""
) -> Claim:  # fmt: skip
    """Which of two rows is more accurate."""
    number = difference(measure("accuracy", a), measure("accuracy", b))
    column = column or COLUMNS["accuracy"]
    return Claim(experiment, number, both(a, b), table, row, column, versus=versus, main=main)


def compared(experiment: str, fact: str, a: Needs, b: Needs, main: str = "") -> list[Claim]:
    """Two statements, ``<fact>-accuracy`` and ``<fact>-bits``: how much more accurate ``a`` is, and with how many bits
    fewer."""
    return [
        statement(experiment, f"{fact}-accuracy", "accuracy", a, b, main),
        statement(experiment, f"{fact}-bits", "bits", b, a),
    ]


# -- all of them -------------------------------------------------------------------------------------------------------


def claims() -> list[Claim]:
    """Every number of the chapter that this book can run, and the comparisons of the text."""
    return [*_weights(), *_energy(), *_activations(), *_imagenet(), *_small_networks()]


def _weights() -> list[Claim]:
    bsq, dense, few = weights_of("bsq"), weights_of("dense"), SMOL_ROWS["SMOL (2.1 bits)"]
    zero, original = SMOL_ROWS["SMOL* (1.7 bits)"], SMOL_ROWS["SMOL (2.5 bits)"]
    mixed = {"5.1": SMOL_ROWS | {"BSQ (2.7 bits)": bsq}, "5.6": RETRAINED_ROWS | {"Original (SMOL)": original}}
    claims = [
        cell("precision", kind, needs, table, row)
        for table, rows in mixed.items()
        for row, needs in rows.items()
        for kind in TOLERANCES
    ]
    claims += [
        cell("precision", "accuracy", runs, "5.1", row) for row, runs in (GIVEN_ROWS | {"BSQ-FP": dense}).items()
    ]
    tolerance, reason = TOLERANCES["ratio"]
    ratio = lossless(
        *(measure(kind, runs) for kind, runs in (("ratio", zero), ("accuracy", zero), ("accuracy", dense)))
    )
    return [
        *claims,
        order(
            "precision", RETRAINED_ROWS[SAME], RETRAINED_ROWS[SHUFFLED], "5.6", SAME, SHUFFLED,
            main="Where the bits are matters: shuffled precisions re-train to less accuracy",
        ),
        order("precision", few, bsq, "5.1", "SMOL (2.1 bits)", "BSQ (2.7 bits)"),
        order("precision", zero, bsq, "5.1", "SMOL* (1.7 bits)", "BSQ (2.7 bits)"),
        statement("precision", "smol-bits-high-penalty", "bits", few),
        statement("precision", "smol-bits-low-penalty", "bits", SMOL_ROWS["SMOL (2.8 bits)"]),
        *compared(
            "precision", "smol-vs-bsq-resnet20", few, bsq,
            "On ResNet-20 SMOL is more accurate than BSQ, with fewer bits",
        ),
        *compared("precision", "smol-zpa-vs-bsq-resnet20", zero, bsq),
        *compared(
            "precision", "smol-l-vs-bsq-resnet20", SMOL_ROWS["SMOL-L (2.4 bits)"], bsq,
            "Even with one precision a layer it is",
        ),
        Claim(
            "precision", ratio, both(zero, dense), fact="smol-zpa-ratio-resnet20", tolerance=tolerance, reason=reason,
            main="With zero precision SMOL compresses ResNet-20 this much at full-precision accuracy",
        ),
        Claim(
            "precision", average("bits", late, note="a run a division of the epochs, not repetitions of one"), late,
            fact="balance-bits", tolerance=0.15, reason="half the distance between neighbouring penalties",
        ),
    ]  # fmt: skip


def _energy() -> list[Claim]:
    """Section 5.4.4, recomputed from its own shares and costs: no run is needed."""
    power, latency = energy()
    shares = thesis.fact("energy-smol-bits").value
    assert isinstance(shares, tuple)
    weight_by_weight = relative_energy({bits: share / 100 for bits, share in enumerate(shares, start=1)})
    product = (
        f"the product of two averages, as in the thesis; weight by weight it is {100 * (1 - weight_by_weight):.1f} %"
    )

    def claim(fact: str, value: float, tolerance: float, note: str = "", main: str = "") -> Claim:
        reason = "the printed shares are rounded"
        measure = counted(lambda: value, note)
        return Claim("precision", measure, no_run, fact=fact, tolerance=tolerance, reason=reason, main=main)

    return [
        claim("energy-power-share", 100 * power, 0.2),
        claim("energy-latency-gain", 100 * (1 - latency), 1.0),
        claim(
            "energy-saving",
            100 * (1 - power * latency),
            0.2,
            product,
            "A layer of mixed bits takes this much less energy",
        ),
    ]


def energy() -> tuple[float, float]:
    """Power and latency of the thesis's mixture of 1, 2 and 3 bits, over 2 bits throughout (5.4.4)."""
    shares = thesis.fact("energy-smol-bits").value
    assert isinstance(shares, tuple)
    return relative_cost({bits: share / 100 for bits, share in enumerate(shares, start=1)})


def relative_cost(shares: Mapping[int, float]) -> tuple[float, float]:
    """Power and latency of multiplications by weights of 1, 2 and 3 bits, over those by 2 bits throughout (5.4.4).

    Args:
        shares: bits to the share of the weights that have them. Weights of no bits cost nothing; the estimate has no
            costs above 3 bits, and such shares count as nothing.
    """
    ratios = []
    for cost in _costs():
        ratios.append(sum(share * cost.get(bits, 0.0) for bits, share in shares.items()) / cost[2])
    return ratios[0], ratios[1]


def relative_energy(shares: Mapping[int, float]) -> float:
    """Energy over that of 2 bits throughout: the average over the weights of power times latency.

    The thesis multiplies the two averages of :func:`relative_cost` (5.4.4), which says less than it costs.
    """
    power, latency = _costs()
    spent = sum(share * power.get(bits, 0.0) * latency.get(bits, 0.0) for bits, share in shares.items())
    return spent / (power[2] * latency[2])


def _costs() -> list[dict[int, float]]:
    """Power and latency of a multiplication by a weight of 1, 2 and 3 bits, in units of 1 bit (5.4.4)."""
    costs = []
    for fact in ("energy-power", "energy-latency"):
        more = thesis.fact(fact).value
        assert isinstance(more, tuple)
        costs.append(dict(enumerate((1.0, *more), start=1)))
    return costs


def _activations() -> list[Claim]:
    def penalty(index: int) -> Callable[[str], float]:
        return lambda profile: sorted(activations.PENALTIES[profile])[index]

    rows = {"FP": runs_of(activations, name="dense")}
    rows |= {row: runs_of(activations, penalty=penalty(index), name="smol-a") for row, index in SMOL_A.items()}
    rows |= {row: runs_of(activations, name="pact", bits=bits) for row, bits in PACT.items()}
    note = "the penalty is this book's: the thesis states none"
    pairs = {
        (
            "SMOL-A (1.8 bits)",
            "PACT (2.0 bits)",
        ): "SMOL finds precisions for activations too: more accurate than PACT's",
        ("SMOL-A (2.9 bits)", "PACT (3.0 bits)"): "",
    }
    return [
        *(cell("activations", "accuracy", needs, "5.5", row) for row, needs in rows.items()),
        *(cell("activations", "bits", rows[row], "5.5", row, "Bits per activation", note=note) for row in SMOL_A),
        *(
            order("activations", rows[row], rows[versus], "5.5", row, versus, main=main)
            for (row, versus), main in pairs.items()
        ),
    ]


def imagenet_row(network: str, row: str) -> Needs:
    """The runs of a row of Table 5.3."""
    options = dict(LARGE[network][1][row])
    index = options.pop("index", None)
    penalty = None if index is None else lambda profile: imagenet.LAMBDA[network][index]
    return runs_of(imagenet, penalty=penalty, model=network, **options)


def _imagenet() -> list[Claim]:
    claims = []
    for network, (name, rows) in LARGE.items():
        for row, options in rows.items():
            measured = ("accuracy", "bits", "ratio") if options["name"] in ("smol", "bsq") else ("accuracy",)
            for kind in measured:
                column = f"{name} {COLUMNS[kind].lower()}"
                claims.append(cell("imagenet_bits", kind, imagenet_row(network, row), "5.3", row, column))

    def said(fact: str, kind: str, network: str, row: str, other: str = "", main: str = "") -> Claim:
        versus = imagenet_row(network, other) if other else None
        return statement("imagenet_bits", fact, kind, imagenet_row(network, row), versus, main)

    few, lq = "SMOL* (2.3/2.2 bits)", "LQ-Nets (4.0 bits)"
    gain = "On ImageNet SMOL leaves a ResNet-18 more accurate than LQ-Nets, with fewer bits"
    return [
        *claims,
        said("smol-vs-lq-resnet18-accuracy", "accuracy", "resnet18", few, lq, gain),
        said("smol-vs-lq-resnet18-bits", "bits", "resnet18", lq, few),
        said("smol-vs-fp-resnet18", "accuracy", "resnet18", few, "FP"),
        said(
            "smol-resnet50-bits", "bits", "resnet50", "SMOL* (0.8 bits)",
            main="A ResNet-50 on ImageNet needs fewer bits a weight than a binary network",
        ),
        said("smol-vs-fp-resnet50-bits", "bits", "resnet50", "SMOL* (4.1 bits)"),
        said("smol-vs-fp-resnet50-accuracy", "accuracy", "resnet50", "SMOL* (4.1 bits)", "FP"),
    ]  # fmt: skip


def _small_networks() -> list[Claim]:
    def penalty(network: str, index: int, profile: str) -> float:
        return small_networks.PENALTIES[profile][network][index]

    claims = []
    for network, name in SMALL.items():
        options: dict[str, dict[str, Any]] = {"FP": {"name": "dense"}, "BSQ": {"name": "bsq"}}
        for index, row in enumerate(("SMOL (1.5/1.8 bits)", "SMOL (1.7/2.9 bits)")):
            options[row] = {"name": "smol", "penalty": partial(penalty, network, index)}
        rows = {row: runs_of(small_networks, model=network, **method) for row, method in options.items()}
        for row, needs in rows.items():
            for kind in ("accuracy",) if row == "FP" else ("accuracy", "bits"):
                claims.append(cell("mobile", kind, needs, "5.2", row, f"{name} {COLUMNS[kind].lower()}"))
        more, bsq = rows["SMOL (1.7/2.9 bits)"], rows["BSQ"]
        claims.append(order("mobile", more, bsq, "5.2", "SMOL (1.7/2.9 bits)", "BSQ", f"{name} test accuracy"))
        main = f"On {name} SMOL is more accurate than BSQ, with fewer bits"
        claims += compared("mobile", f"smol-vs-bsq-{network.removesuffix('v2')}", more, bsq, main)
    return claims


# -- what has no claim -------------------------------------------------------------------------------------------------


def reasons() -> Reasons:
    """Why what has no claim has none."""
    bits, ratio, accuracy = COLUMNS["bits"], COLUMNS["ratio"], COLUMNS["accuracy"]
    reasons: Reasons = {("5.1", row, column): SETTING for row in GIVEN_ROWS for column in (bits, ratio)}
    reasons |= {("5.1", row, column): DEFINITION for row in ("BSQ-FP", "LQ-FP") for column in (bits, ratio)}
    reasons["5.1", "LQ-FP", accuracy] = "full precision as LQ-Nets' authors trained it: this book's own has a row"
    second = "a second penalty of BSQ, which the thesis does not state: its other row is run"
    reasons |= {("5.1", "BSQ (3.2 bits)", column): second for column in (bits, ratio, accuracy)}
    hardware = "estimates of hardware, taken as they are: what follows from them has rows of its own"
    reasons |= dict.fromkeys(("energy-power", "energy-latency", "energy-overhead"), hardware)
    example = "one layer of one network of the thesis, which is not published"
    reasons |= dict.fromkeys(("energy-bsq-bits", "energy-smol-bits"), example)
    reasons["balance-needed"] = "read from Figure 5.7, which prints no number"
    reasons["shuffle-accuracy"] = "the two numbers are cells of Table 5.6, which have rows of their own"
    reasons |= {("5.2", "FP", f"{name} bits per parameter"): DEFINITION for name in SMALL.values()}
    reasons |= {("5.5", row, "Bits per activation"): SETTING for row in PACT}
    reasons["5.5", "FP", "Bits per activation"] = DEFINITION
    reasons["smol-vs-lq-resnet50"] = "compares with LQ-Nets at 3 bits, whose activations have a rule of their own"
    for row, column in thesis.table("5.3")[["row", "column"]].itertuples(index=False):
        reasons["5.3", row, column] = _imagenet_reason(row, column)
    return reasons


def _imagenet_reason(row: str, column: str) -> str:
    if column.endswith("bits per activation"):
        return "a setting, which the declared runs take from here"
    if row == "FP":
        return DEFINITION
    if row == "LQ-Nets (3.0 bits)":
        return "its activations have 3 bits by a rule of their own: this book's have the 4 of 5.3.2"
    if row in ("BSQ (3.7 bits)", "SMOL* (2.3/2.2 bits)"):
        return "a further penalty, which the thesis does not state"
    return SETTING
