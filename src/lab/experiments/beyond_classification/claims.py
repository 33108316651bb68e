"""Beyond classification: Table 5.4 (generators), Table 5.7 (a translator), and the column of Table 6.1 that compares
optimizers on a GAN.

FID and Inception Score are measured at profile paper alone, with the Inception network that the user brings. What the
smaller profiles measure, a distance in the features of a ResNet-20, is on another scale and stands for neither; BLEU on
Multi30k, the translator's corpus at short, is another number too. The thesis says which penalty gave 0.2, 0.5 and 1.7
bits; the rows of 1.0 and 3.5 bits are taken to be the next two. BSQ's one stated penalty is taken for its row of fewer
bits; ours searches from the start of training, where the thesis's starts from 30 epochs at full precision, within the
same 160. For the translator the thesis names no penalty: the larger of this book's two is taken for the row of fewer
bits, and where its bits land is part of what is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from lab.experiments.claims import Claim, Measured, Needs, Reasons, average, both, difference
from lab.experiments.optimizers import gan as ggan
from lab.runs import Record, Run

from . import generation, translation

SMOL: dict[str, tuple[float, bool]] = {
    "SMOL* (0.2 bits)": (2e-5, True),
    "SMOL* (0.5 bits)": (1e-5, True),
    "SMOL* (1.0 bits)": (5e-6, True),
    "SMOL* (3.5 bits)": (2e-6, True),
    "SMOL (1.7 bits)": (1e-5, False),
}
"""Row of Table 5.4: penalty, and whether precisions may be zero."""
DENSE = {"FP (30 epochs)": 30, "FP (160 epochs)": 160}
TRANSLATORS = {"FP": None, "SMOL (3.9 bits)": 1, "SMOL (5.8 bits)": 0}
"""Row of Table 5.7: which of the protocol's penalties, ascending."""
BITS, FID, SCORE = "Bits per parameter", "FID", "Inception Score"
TOLERANCES = {
    BITS: ("bits", 0.15, "half the distance between the two rows of fewest bits"),
    FID: ("fid", 2.0, "about half the distance between neighbouring rows"),
    SCORE: ("inception_score", 0.2, "about what ten parts of 1,000 images leave open"),
}
COLUMN = "CIFAR-10 GGAN FID"


def claims() -> list[Claim]:
    """All of Table 5.4 but BSQ's second row, what the text makes of it, the GGAN column, and Table 5.7."""
    return [*_generators(), *_optimizers(), *_translators()]


def generators(profile: str, reduced: bool = False, epochs: int | None = None, **options: Any) -> list[Run]:
    """The declared runs of a row of Table 5.4; below ``paper``, where there is no FID, only if ``reduced``."""
    if profile != "paper" and not reduced:
        return []
    runs = [run for run in generation.runs(profile) if options.items() <= run.config["method"].items()]
    return [run for run in runs if epochs in (None, generation.experiment.epochs(run))]


def _generators() -> list[Claim]:
    rows = {row: (partial(generators, name="dense", epochs=epochs), (FID, SCORE)) for row, epochs in DENSE.items()}
    for row, (penalty, zero) in SMOL.items():
        rows[row] = (partial(generators, name="smol", zero=zero, **{"lambda": penalty}), (BITS, FID, SCORE))
    rows["BSQ (2.8 bits)"] = (partial(generators, name="bsq"), (BITS, FID, SCORE))
    claims = []
    for row, (runs, columns) in rows.items():
        for column in columns:
            figure, tolerance, reason = TOLERANCES[column]
            needs = partial(runs, reduced=column == BITS)
            measure = average(figure, needs)
            claims.append(Claim("generation", measure, needs, "5.4", row, column, tolerance=tolerance, reason=reason))
    row, other = "SMOL* (1.0 bits)", "BSQ (2.8 bits)"
    main = "A GAN's generator of fewer bits than BSQ's draws better images"
    claims.append(_against("generation", "fid", rows[row][0], rows[other][0], "5.4", row, FID, other, main))
    extreme = partial(rows["SMOL* (0.2 bits)"][0], reduced=True)
    for fact in ("dcgan-smallest", "gan-extreme-bits"):
        claims.append(Claim("generation", average("bits", extreme), extreme, fact=fact, at_most=True))
    return claims


def _against(
    experiment: str, figure: str, a: Needs, b: Needs, table: str, row: str, column: str, versus: str, main: str
) -> Claim:  # fmt: skip
    """Which of two rows has the larger figure."""
    measure = difference(average(figure, a), average(figure, b))
    return Claim(experiment, measure, both(a, b), table, row, column, versus=versus, main=main)


def _optimizers() -> list[Claim]:
    reason = "about the spread that repeated GANs have at this size"
    claims = [
        Claim(
            "ggan", partial(_best, row), partial(_column, row), "6.1", row, COLUMN, tolerance=3.0, reason=reason,
            whole=True,
        )
        for row in ggan.OPTIMIZERS
    ]  # fmt: skip
    measure = difference(partial(_best, "AvaGrad"), partial(_best, "Adam"))
    needs = both(partial(_column, "AvaGrad"), partial(_column, "Adam"))
    main = "A GAN trained by AvaGrad draws better images than one trained by Adam"
    return [*claims, Claim("ggan", measure, needs, "6.1", "AvaGrad", COLUMN, versus="Adam", whole=True, main=main)]


def _column(optimizer: str, profile: str) -> list[Run]:
    runs = ggan.runs(profile) if profile == "paper" else []
    return [run for run in runs if run.config["method"]["name"] == optimizer]


def _best(optimizer: str, records: Sequence[Record]) -> Measured | str:
    """The lowest FID over the optimizer's cells, as the column has it."""
    records = [r for r in records if r["config"]["method"]["name"] == optimizer and "fid" in r["figures"]]
    if not records:
        return "no run is recorded with FID"
    best = min(records, key=lambda record: record["figures"]["fid"])
    method = best["config"]["method"]
    note = f"best of {len(records)} cells: alpha = {method['alpha']:g}, epsilon = {method['epsilon']}"
    return Measured((best["figures"]["fid"],), (best["id"],), note=note)


def _translators() -> list[Claim]:
    """BLEU of each row, the bits of SMOL's, and that little is lost at 3.9 bits."""
    half = "half of what 3.9 bits cost in the table"
    between = "half the distance between the two rows; the penalties are this book's"
    claims = []
    for row, index in TRANSLATORS.items():
        needs = partial(translators, index)
        claims.append(
            Claim("translation", average("bleu", needs), needs, "5.7", row, "BLEU", tolerance=0.1, reason=half)
        )
        if index is not None:
            bits = average("bits", needs)
            claims.append(Claim("translation", bits, needs, "5.7", row, BITS, tolerance=0.95, reason=between))
    few, full = partial(translators, 1), partial(translators, None)
    main = "A Transformer of 3.9 bits a weight translates only a little worse"
    return [*claims, _against("translation", "bleu", few, full, "5.7", "SMOL (3.9 bits)", "BLEU", "FP", main)]


def translators(index: int | None, profile: str) -> list[Run]:
    """The declared runs of a row of Table 5.7, at ``paper`` alone."""
    if profile != "paper":
        return []
    penalty = None if index is None else translation.PROTOCOL[profile]["lambda"][index]
    return [run for run in translation.runs(profile) if run.config["method"].get("lambda") == penalty]


def reasons() -> Reasons:
    """Why what has no claim has none."""
    second = "the thesis gives BSQ one penalty and two rows: what the second one had is not stated"
    nothing = "true by definition: nothing is quantised"
    follows = "follows from cells of Table {}, which have rows of their own here"
    why: Reasons = {("5.4", "BSQ (3.9 bits)", column): second for column in (BITS, FID, SCORE)}
    why |= {("5.4", row, BITS): nothing for row in DENSE} | {("5.7", "FP", BITS): nothing}
    facts = {
        "5.4": ("dcgan-zpa-saving", "dcgan-zpa-example", "gan-fid-bsq", "gan-fid-smol", "gan-fid-bits", "gan-fid-gain",
                "gan-fid-gain-bits"),
        "6.1": ("ch6-fid-gain", "ch6-fid-avagrad-adam"),
        "5.7": ("transformer-match-bits", "transformer-match-ratio", "transformer-low-bits", "transformer-low-ratio",
                "transformer-low-bleu"),
    }  # fmt: skip
    for table, names in facts.items():
        why |= dict.fromkeys(names, follows.format(table))
    cell = "of the runs of Adam's row in Table 6.1, whose best cell is named there once they are recorded"
    return why | dict.fromkeys(("ch6-gan-adam-alpha", "ch6-gan-adam-epsilon"), cell)
