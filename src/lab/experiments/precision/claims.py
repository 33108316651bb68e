"""Precisions on a ResNet-20 (``lab.experiments.precision.weights``): Table 5.1, Table 5.6, and what Sections 5.4.1, 5.4.4 and 5.5 make of them.

The thesis names the penalties of SMOL's three rows. Which penalties its two rows with zero precision had it does not say:
they are taken to be the two largest, which give the fewest bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any

from lab.datasets import thesis
from lab.experiments.claims import Claim, Measured, average, difference
from lab.runs import Record, Run

from . import weights as precision

# row of Table 5.1: method, and which of the protocol's penalties (ascending) it stands for
SMOL = {
    "SMOL (2.8 bits)": (0, {}),
    "SMOL (2.5 bits)": (1, {}),
    "SMOL (2.1 bits)": (2, {}),
    "SMOL* (1.7 bits)": (1, {"zero": True}),
    "SMOL* (1.3 bits)": (2, {"zero": True}),
    "SMOL-L (3.2 bits)": (0, {"granularity": "layer"}),
    "SMOL-L (2.4 bits)": (-1, {"granularity": "layer"}),
}
FIXED = {
    "LQ-Nets (1.0 bits)": ("lq-nets", 1),
    "LQ-Nets (2.0 bits)": ("lq-nets", 2),
    "LQ-Nets (3.0 bits)": ("lq-nets", 3),
    "SLB (1.0 bits)": ("slb", 1),
    "SLB (2.0 bits)": ("slb", 2),
    "DSQ (1.0 bits)": ("dsq", 1),
}
RETRAINED = {"Re-trained with same precisions": False, "Re-trained with shuffled precisions": True}
BITS, ACCURACY, RATIO = "Bits per parameter", "Test accuracy", "Compression ratio"
POINTS, POINTS_WHY = 0.6, "about the distance between neighbouring rows of the table"
WIDE, WIDE_WHY = 0.3, "half the distance between neighbouring penalties"

TIMES, TIMES_WHY = 2.0, "what half the distance between neighbouring penalties is as a ratio"

Wanted = Callable[[str], Sequence[Run]]
Measure = Callable[[Sequence[Record]], Measured | str]


def claims() -> list[Claim]:
    """Every row of Tables 5.1 and 5.6 that this book can run, and the comparisons of the text."""
    found = [*_cells("5.1", "BSQ-FP", _of("dense"), bits=False)]
    for row, (index, options) in SMOL.items():
        found += _cells("5.1", row, _smol(index, **options))
    for row, (method, bits) in FIXED.items():
        found += _cells("5.1", row, _of(method, bits=bits), bits=False)
    found += _cells("5.1", "BSQ (2.7 bits)", _of("bsq"))
    found += _cells("5.6", "Original (SMOL)", _smol(1))
    for row, shuffled in RETRAINED.items():
        found += _cells("5.6", row, partial(_retrained, shuffled), bits=False)
    kept, shuffled, bsq, smol = partial(_retrained, False), partial(_retrained, True), _of("bsq"), _smol(2)
    found.append(
        _order("5.6", "Re-trained with same precisions", "Re-trained with shuffled precisions", kept, shuffled)
    )
    found.append(_order("5.1", "SMOL (2.1 bits)", "BSQ (2.7 bits)", smol, bsq))
    found.append(_order("5.1", "SMOL* (1.7 bits)", "BSQ (2.7 bits)", _smol(1, zero=True), bsq))
    found.append(_fact("smol-bits-high-penalty", smol))
    found.append(_fact("smol-bits-low-penalty", _smol(0)))
    return [*found, *_retrained_bits(), *_statements(), *_energy()]


def reasons() -> dict[tuple[str, str, str] | str, str]:
    """Why what has no claim has none."""
    found: dict[tuple[str, str, str] | str, str] = {}
    for row in FIXED:
        found |= dict.fromkeys(
            [("5.1", row, BITS), ("5.1", row, RATIO)], "told to the method, not found by it: a setting"
        )
    for row in ("BSQ-FP", "LQ-FP"):
        found |= dict.fromkeys([("5.1", row, BITS), ("5.1", row, RATIO)], "true by definition: 32 bits")
    found["5.1", "LQ-FP", ACCURACY] = "full precision as LQ-Nets' authors trained it: this book's own has a row"
    why = "a second penalty of BSQ, which the thesis does not state: its other row is run"
    found |= dict.fromkeys([("5.1", "BSQ (3.2 bits)", column) for column in (BITS, RATIO, ACCURACY)], why)
    arithmetic = "exact arithmetic: Chapter 5 computes it, no run is needed"
    examples = (
        "smol-example-s-init",
        "smol-example-limit",
        "zpa-example-value",
        "zpa-example-error-0",
        "zpa-example-error-2",
    )
    found |= dict.fromkeys(examples, arithmetic)
    hardware = "estimates of hardware, taken as they are: what follows from them has rows of its own"
    found |= dict.fromkeys(("energy-power", "energy-latency", "energy-overhead"), hardware)
    example = "one layer of one network of the thesis: Chapter 5 shows the same layer of this book's networks"
    found |= dict.fromkeys(("energy-bsq-bits", "energy-smol-bits"), example)
    found["balance-needed"] = "read from Figure 5.7 without numbers: Chapter 5 draws the divisions that this book ran"
    found["shuffle-accuracy"] = "the two numbers are cells of Table 5.6, which have rows of their own"
    return found


def ratio(wanted: Wanted) -> Measure:
    """A measure: how many times smaller than 32 bits the weights are, on average over the seeds."""

    def measure(found: Sequence[Record]) -> Measured | str:
        got = average("bits", wanted)(found)
        if isinstance(got, str):
            return got
        ratios = [precision.FULL / r["figures"]["bits"] for r in found if r["id"] in got.runs]
        return Measured(mean(ratios), stdev(ratios) if len(ratios) > 1 else None, len(ratios), got.runs)

    return measure


def _retrained_bits() -> list[Claim]:
    found = []
    for row, wanted in [("Original (SMOL)", _smol(1)), *((r, partial(_retrained, s)) for r, s in RETRAINED.items())]:
        if row in RETRAINED:
            bits = average("bits", wanted)
            found.append(Claim("precision", bits, wanted, "5.6", row, BITS, tolerance=WIDE, reason=WIDE_WHY))
        found.append(Claim("precision", ratio(wanted), wanted, "5.6", row, RATIO, tolerance=TIMES, reason=TIMES_WHY))
    return found


def _statements() -> list[Claim]:
    """Section 5.4.1 on ResNet-20, and the bits of Section 5.5.2."""
    found, bsq = [], _of("bsq")
    for fact, one in (
        ("smol-vs-bsq-resnet20", _smol(2)),
        ("smol-zpa-vs-bsq-resnet20", _smol(1, zero=True)),
        ("smol-l-vs-bsq-resnet20", _smol(-1, granularity="layer")),
    ):
        found += compared("precision", fact, one, bsq)
    ratios = ratio(_smol(1, zero=True))
    fact = "smol-zpa-ratio-resnet20"
    found.append(Claim("precision", ratios, _smol(1, zero=True), fact=fact, tolerance=TIMES, reason=TIMES_WHY))
    bits = average("bits", _late)
    found.append(Claim("precision", bits, _late, fact="balance-bits", tolerance=WIDE, reason=WIDE_WHY))
    return found


def compared(experiment: str, fact: str, one: Wanted, other: Wanted) -> list[Claim]:
    """Two statements, ``<fact>-accuracy`` and ``<fact>-bits``: how much more accurate ``one`` is, and with how many bits fewer."""

    def needs(profile: str) -> list[Run]:
        return [*one(profile), *other(profile)]

    better = difference(average("accuracy", one, 100), average("accuracy", other, 100))
    fewer = difference(average("bits", other), average("bits", one))
    return [
        Claim(experiment, better, needs, fact=f"{fact}-accuracy", tolerance=POINTS, reason=POINTS_WHY),
        Claim(experiment, fewer, needs, fact=f"{fact}-bits", tolerance=WIDE, reason=WIDE_WHY),
    ]


def _late(profile: str) -> list[Run]:
    """Figure 5.7 from 300 of 650 epochs on; at ``short`` the divisions are runs of another experiment."""
    if profile != "paper":
        return []
    lam = precision.headline(profile)["lambda"]
    plain = {"name": "smol", "zero": False, "granularity": "weight", "lambda": lam}
    return [
        run
        for run in precision.runs(profile)
        if plain.items() <= run.config["method"].items() and run.config["training"]["epochs"] >= 300 and run.seed == 0
    ]


def _energy() -> list[Claim]:
    """Section 5.4.4, recomputed from its own shares and costs: no run is needed."""
    why = "the printed shares are rounded"

    def claim(fact: str, value: Callable[[float, float], float], tolerance: float) -> Claim:
        return Claim(
            "precision", lambda found: Measured(value(*energy()), None, 0, ()), lambda profile: [], fact=fact,
            tolerance=tolerance, reason=why,
        )  # fmt: skip

    return [
        claim("energy-power-share", lambda power, delay: 100 * power, 0.2),
        claim("energy-latency-gain", lambda power, delay: 100 * (1 - delay), 1.0),
        claim("energy-saving", lambda power, delay: 100 * (1 - power * delay), 0.2),
    ]


def energy() -> tuple[float, float]:
    """Power and latency of the thesis's mixture of 1, 2 and 3 bits, over 2 bits throughout (5.4.4)."""
    shares = thesis.fact("energy-smol-bits").value
    assert isinstance(shares, tuple)
    return relative_cost({bits: share / 100 for bits, share in enumerate(shares, start=1)})


def relative_cost(shares: Mapping[int, float]) -> tuple[float, float]:
    """Power and latency of multiplications by weights of 1, 2 and 3 bits, over those by 2 bits throughout (5.4.4).

    Args:
        shares: bits to the share of the weights that have them. Weights of no bits cost nothing; the estimate has no costs above 3 bits, and
            such shares count as nothing.
    """
    ratios = []
    for fact in ("energy-power", "energy-latency"):
        more = thesis.fact(fact).value
        assert isinstance(more, tuple)
        cost = dict(enumerate((1.0, *more), start=1))
        ratios.append(sum(share * cost.get(bits, 0.0) for bits, share in shares.items()) / cost[2])
    return ratios[0], ratios[1]


def _cells(table: str, row: str, wanted: Wanted, bits: bool = True) -> list[Claim]:
    accuracy = average("accuracy", wanted, 100)
    cells = [Claim("precision", accuracy, wanted, table, row, ACCURACY, tolerance=POINTS, reason=POINTS_WHY)]
    if bits:
        cells.append(
            Claim("precision", average("bits", wanted), wanted, table, row, BITS, tolerance=WIDE, reason=WIDE_WHY)
        )
        if table == "5.1":
            cells.append(
                Claim("precision", ratio(wanted), wanted, table, row, RATIO, tolerance=TIMES, reason=TIMES_WHY)
            )
    return cells


def _order(table: str, row: str, other: str, one: Wanted, two: Wanted) -> Claim:
    measure = difference(average("accuracy", one, 100), average("accuracy", two, 100))
    return Claim(
        "precision", measure, lambda profile: [*one(profile), *two(profile)], table, row, ACCURACY, versus=other
    )


def _fact(fact: str, wanted: Wanted) -> Claim:
    return Claim("precision", average("bits", wanted), wanted, fact=fact, tolerance=WIDE, reason=WIDE_WHY)


def _of(name: str, **options: Any) -> Wanted:
    """All declared seeds of a method with these options, at the thesis's division of the epochs."""

    def wanted(profile: str) -> list[Run]:
        epochs = precision.PROTOCOL[profile]["training"]["epochs"]
        return [
            run
            for run in precision.runs(profile)
            if run.config["method"]["name"] == name
            and run.config["training"]["epochs"] == epochs
            and all(run.config["method"][key] == value for key, value in options.items())
        ]

    return wanted


def _smol(index: int, **options: Any) -> Wanted:
    plain = {"zero": False, "granularity": "weight", "allowed": None}
    penalties = "lambda_layer" if options.get("granularity") == "layer" else "lambda"
    return lambda profile: _of("smol", **plain | options, **{"lambda": precision.PROTOCOL[profile][penalties][index]})(
        profile
    )


def _retrained(shuffled: bool, profile: str) -> Sequence[Run]:
    return _of("retrain", shuffled=shuffled)(profile)
