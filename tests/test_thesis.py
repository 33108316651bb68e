"""data/thesis: what it holds is what the thesis prints, and lab.datasets.thesis refuses files that are damaged."""

import csv
import hashlib
import math
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lab.datasets import thesis
from lab.utils.errors import LabError

TEXT = Path(os.environ.get("THESIS_TEXT", "thesis.txt"))

# How many numbers each table prints, spreads not counted: a file that lost rows is noticed without the text.
COUNTS = {"3.1": 63, "3.2": 63, "3.3": 48, "3.4": 12, "4.1": 12, "4.2": 42, "4.3": 46}
COUNTS |= {"5.1": 51, "5.2": 16, "5.3": 66, "5.4": 27, "5.5": 14, "5.6": 9, "5.7": 6, "6.1": 37, "6.2": 20}
UNITS = {"%", "bits", "x", "M parameters", "GPU days", "rounds", "templates", "layers", "probability"}
UNITS |= {"IS", "FID", "BLEU", "BPC"}


# ---- against the thesis's text


@cache
def text() -> str:
    return TEXT.read_text(encoding="utf-8")


@cache
def sections() -> dict[str, str]:
    body = text()[text().index("1.1 Overview\n\n") :]
    starts = [(m.start(), m[1]) for m in re.finditer(r"^(\d\.\d+(?:\.\d+)?) [A-Z]", body, re.M)]
    ends = [start for start, _ in starts[1:]] + [len(body)]
    bodies = {name: " ".join(body[a:b].split()) for (a, name), b in zip(starts, ends, strict=True)}
    return bodies | {"5.5.3": bodies["5.5.2"]}  # a page with that heading is missing from the text


WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "twice": 2, "half": 0.5}
SPELLED = re.compile(
    r"\\frac\{(?P<top>\d+)\}\{(?P<bottom>\d+)\}"
    r"|(?:(?P<factor>[\d.]+)\s*(?:\\cdot|×)\s*)?(?P<base>\d+)\^\{(?P<power>-?\d+)\}"
    r"|(?P<plain>[-+]?\d+(?:,\d{3})*(?:\.\d+)?)(?P<thousand>k\b)?"
    rf"|\b(?P<word>{'|'.join(WORDS)})\b"
)


def spelled(fragment: str) -> list[float]:
    """The numbers in a fragment of the thesis: 5,000 · 82k · 4 \\cdot 10^{-5} · \\frac{1}{3} · six."""
    numbers = []
    for m in SPELLED.finditer(fragment):
        if m["top"]:
            numbers.append(int(m["top"]) / int(m["bottom"]))
        elif m["base"]:
            numbers.append(float(m["factor"] or 1) * float(m["base"]) ** int(m["power"]))
        elif m["word"]:
            numbers.append(float(WORDS[m["word"]]))
        else:
            numbers.append(float(m["plain"].replace(",", "")) * (1000 if m["thousand"] else 1))
    return numbers


@pytest.mark.parametrize("fact", thesis.facts(), ids=lambda f: f.id)
def test_fact_has_the_value_it_quotes_in_the_section_it_names(fact):
    values = fact.value if isinstance(fact.value, tuple) else (fact.value,)
    assert values == pytest.approx(spelled(fact.printed), rel=1e-5)
    if TEXT.exists():  # without the text only the value and its quotation are held against each other
        at = 0
        for fragment in fact.printed.split(" … "):
            at = sections()[fact.where].find(fragment, at)
            assert at >= 0, f"section {fact.where} does not print {fragment!r}"
            at += len(fragment)


# ---- what the numbers say about each other: a misread digit breaks these


@pytest.mark.parametrize("name", COUNTS)
def test_schema(name):
    data = thesis.table(name)
    assert len(data) == COUNTS[name]
    assert data["value"].dtype == float
    assert np.isfinite(data["value"]).all()
    assert set(data["unit"]) <= UNITS
    wide = thesis.pivot(name)
    assert wide.notna().to_numpy().sum() == COUNTS[name]
    assert list(wide.index) == list(dict.fromkeys(data["row"]))


def test_tables_are_those_that_were_read_twice_against_the_text():
    """Whoever mends a number looks at the print again, and says the new digest here."""
    content = b"".join(file.read_bytes() for file in sorted(thesis.FOLDER.glob("table-*.csv")))
    assert hashlib.sha256(content).hexdigest()[:16] == "772a449c7c41c4c0"


def test_files_are_all_there_and_small():
    assert thesis.tables() == list(COUNTS)
    assert sum(p.stat().st_size for p in thesis.FOLDER.iterdir()) < 120_000
    kinds = {"measurement", "ratio", "count", "setting"}
    assert {(f.chapter, f.kind) for f in thesis.facts()} == {(c, k) for c in (3, 4, 5, 6) for k in kinds}
    assert all(str(f.chapter) == f.where[0] for f in thesis.facts())
    assert set(thesis.corrections()["kind"]) == {"number", "formula", "setting"}
    assert (thesis.corrections()["chapter"].astype(str) == thesis.corrections()["where"].str[0]).all()


def test_digits_survive():
    assert thesis.pivot("3.1", "printed").loc["WRN 28-10 (dropout 0.0)", "Test error"] == "4.00"
    assert list(thesis.pivot("3.1"))[:3] == ["Templates", "Group size", "Dropout"]
    assert thesis.pivot("6.1", "spread").loc["AvaGradW", "CIFAR-100 WRN 28-10 test error"] == 0.37


# Parameters that the architectures' definitions give on CIFAR-10, counted by building the networks.
PARAMETERS = {"WRN 28-10": 36_479_194, "SWRN 28-10": 36_479_302, "SWRN 28-10-1": 12_287_212, "SWRN 28-10-2": 17_125_630}
PARAMETERS |= {"SWRN 28-14-2": 33_537_790, "SWRN 28-14": 71_470_918, "SWRN 28-18-2": 55_414_014}
PARAMETERS |= {"SWRN 28-18": 118_119_750, "SWRN 28-4-2": 2_752_510, "SWRN 28-6-2": 6_177_534}


def test_parameter_counts_are_the_counted_ones_cut_after_the_printed_digits():
    checked = set()
    for name, scale in (("3.1", 1), ("3.2", 1), ("3.3", 10)):
        for row, million in thesis.pivot(name)["Params (M)"].items():
            if (model := row.split(" (")[0]) in PARAMETERS:
                assert million == math.floor(PARAMETERS[model] / 1e6 * scale) / scale, (name, row)
                checked.add(model)
    assert checked == set(PARAMETERS)


def test_compression_of_shared_networks_follows_from_the_counts():
    for name in ("3.1", "3.2"):
        for row, ratio in thesis.pivot(name)["Compression ratio"].dropna().items():
            model = row.split(" (")[0]
            full = model.rsplit("-", 1)[0] if model.count("-") == 2 else model
            assert ratio == round(PARAMETERS[full] / PARAMETERS[model], 1)


def test_imp_keeps_four_fifths_a_round():
    wide = thesis.pivot("4.2")
    for row in wide.index[wide.index.str.startswith("IMP")]:
        for net in ("VGG-16", "ResNet-20"):
            assert wide.loc[row, f"{net} weights remaining"] == pytest.approx(
                100 * 0.8 ** wide.loc[row, f"{net} round"], abs=0.1
            )


def test_compression_is_32_over_bits_but_for_the_two_known_slips():
    slips = {}
    for name, nets in (("5.1", ("",)), ("5.3", ("ResNet-18 ", "ResNet-50 ")), ("5.6", ("",))):
        wide = thesis.pivot(name)
        for net in nets:
            bits, ratio = (wide[c[0].upper() + c[1:]] for c in (f"{net}bits per parameter", f"{net}compression ratio"))
            for row in bits.dropna().index:
                if abs(32 / bits[row] - ratio[row]) > 0.051:
                    slips[bits[row]] = (ratio[row], f"{32 / bits[row]:.2f}x")
    assert slips == {4.1: (7.0, "7.80x"), 5.3: (5.9, "6.04x")}
    listed = thesis.corrections().set_index("id")["corrected"]
    assert [listed["ratio-4-1-bits"], listed["ratio-5-3-bits"]] == ["7.80x", "6.04x"]


SMALL, RESNET18, RESNET50 = "SMOL (1.7/2.9 bits)", "SMOL* (2.3/2.2 bits)", "SMOL* (4.1 bits)"
LESS = {
    "smol-vs-bsq-resnet20-accuracy": ("5.1", "Test accuracy", "SMOL (2.1 bits)", "BSQ (2.7 bits)"),
    "smol-vs-bsq-resnet20-bits": ("5.1", "Bits per parameter", "BSQ (2.7 bits)", "SMOL (2.1 bits)"),
    "smol-zpa-vs-bsq-resnet20-accuracy": ("5.1", "Test accuracy", "SMOL* (1.7 bits)", "BSQ (2.7 bits)"),
    "smol-l-vs-bsq-resnet20-accuracy": ("5.1", "Test accuracy", "SMOL-L (2.4 bits)", "BSQ (2.7 bits)"),
    "smol-l-vs-bsq-resnet20-bits": ("5.1", "Bits per parameter", "BSQ (2.7 bits)", "SMOL-L (2.4 bits)"),
    "smol-vs-bsq-mobilenet-accuracy": ("5.2", "MobileNetV2 test accuracy", SMALL, "BSQ"),
    "smol-vs-bsq-mobilenet-bits": ("5.2", "MobileNetV2 bits per parameter", "BSQ", SMALL),
    "smol-vs-bsq-shufflenet-accuracy": ("5.2", "ShuffleNet test accuracy", SMALL, "BSQ"),
    "smol-vs-bsq-shufflenet-bits": ("5.2", "ShuffleNet bits per parameter", "BSQ", SMALL),
    "smol-vs-lq-resnet18-accuracy": ("5.3", "ResNet-18 test accuracy", RESNET18, "LQ-Nets (4.0 bits)"),
    "smol-vs-fp-resnet18": ("5.3", "ResNet-18 test accuracy", RESNET18, "FP"),
    "smol-vs-lq-resnet50": ("5.3", "ResNet-50 bits per parameter", "LQ-Nets (3.0 bits)", "SMOL* (0.8 bits)"),
    "smol-vs-fp-resnet50-accuracy": ("5.3", "ResNet-50 test accuracy", RESNET50, "FP"),
    "gan-fid-gain": ("5.4", "FID", "BSQ (2.8 bits)", "SMOL* (1.0 bits)"),
    "transformer-low-bleu": ("5.7", "BLEU", "FP", "SMOL (3.9 bits)"),
    "ch6-fid-gain": ("6.1", "CIFAR-10 GGAN FID", "Adam", "AvaGrad"),
}
"""Fact to the table, the column and the two rows whose difference it states."""


def difference(table, column, a, b):
    return thesis.value(table, a, column) - thesis.value(table, b, column)


def test_differences_stated_in_prose_are_the_tables():
    for fact, cells in LESS.items():
        assert thesis.fact(fact).value == pytest.approx(difference(*cells)), fact


def test_prose_quotes_the_tables():
    imagenet, cifar100 = "ImageNet ResNet-50 validation error", "CIFAR-100 WRN 28-10 test error"
    how = "Re-trained with {} precisions"
    quoted = {
        "swrn-28-18-2-error": ("3.1", "Test error", ["SWRN 28-18-2"]),
        "nas-swrn-error": ("3.3", "Test error", ["SWRN 28-10-2"]),
        "gan-fid-bsq": ("5.4", "FID", ["BSQ (3.9 bits)"]),
        "shuffle-accuracy": ("5.6", "Test accuracy", [how.format("shuffled"), how.format("same")]),
        "ch6-imagenet-better": ("6.1", imagenet, ["Adam", "AMSGrad", "RAdam", "AvaGrad", "AvaGradW"]),
        "ch6-c100-better": ("6.1", cifar100, ["Adam", "AMSGrad", "AdaShift", "AvaGrad", "AvaGradW"]),
        "ch6-bpc": ("6.2", "3xLSTM(1000) test BPC", ["AvaGrad", "AvaGradW", "Adam"]),
    }
    for fact, (table, column, rows) in quoted.items():
        assert np.atleast_1d(thesis.fact(fact).value).tolist() == [thesis.value(table, row, column) for row in rows], (
            fact
        )
    errors = thesis.pivot("6.1")[imagenet].dropna()
    adaptive = errors.drop("SGD")
    assert thesis.fact("ch6-imagenet-count").value == ((adaptive < errors["SGD"]).sum(), len(adaptive))


def test_ratios_stated_in_prose():
    wrn, swrn = "WRN 28-10 (dropout 0.0)", "SWRN 28-10 (dropout 0.0)"
    less = [100 * difference(t, "Test error", wrn, swrn) / thesis.value(t, wrn, "Test error") for t in ("3.1", "3.2")]
    assert thesis.fact("swrn-28-10-relative-error").value == pytest.approx(less, abs=0.06)  # 2.44 is printed as 2.5
    kept_cs, kept_gmp = (100 - thesis.value("4.1", m, "ResNet-20") for m in ("CS", "GMP"))
    assert thesis.fact("cs-vs-gmp-resnet20").value == pytest.approx(100 * (1 - kept_cs / kept_gmp))


def test_epochs_of_ticket_search_multiply_out():
    f = {k: thesis.fact(k).value for k in ("ticket-epochs", "cs-rounds", "cs-runs", "imp-rounds", "imp-long-rounds")}
    assert thesis.fact("cs-epochs-parallel").value == f["cs-rounds"] * f["ticket-epochs"] == 425
    assert thesis.fact("imp-epochs").value == f["imp-rounds"] * f["ticket-epochs"] == 2550
    assert thesis.fact("cs-epochs-sequential").value == f["cs-rounds"] * f["cs-runs"] * f["ticket-epochs"] == 4675
    assert thesis.fact("imp-long-epochs").value == f["imp-long-rounds"] * f["ticket-epochs"]
    assert math.prod(thesis.fact("tuning-grid").value) == thesis.fact("ch6-grid-size").value


def test_energy_of_5_4_4_holds_up_to_rounding():
    share = np.array(thesis.fact("energy-smol-bits").value) / 100
    power, latency = (np.array([1, *thesis.fact(f"energy-{x}").value]) for x in ("power", "latency"))
    bsq = int(thesis.fact("energy-bsq-bits").value)  # bits; bits 1, 2, 3 stand at 0, 1, 2
    p, t = share @ power / power[bsq - 1], share @ latency / latency[bsq - 1]
    # Worked out independently by enumeration: power ratio, latency ratio, their product.
    assert [p, t, p * t] == pytest.approx([0.5758921161825725, 0.6489267015706807, 0.37371177141491596])
    listed = thesis.corrections().set_index("id")["corrected"].astype(str)
    for id, exact in (("energy-power", p), ("energy-latency", 1 - t), ("energy-saving", 1 - p * t)):
        assert listed[id] == f"{100 * exact:.1f}"
    stated = [thesis.fact(k).value for k in ("energy-power-share", "energy-latency-gain", "energy-saving")]
    assert stated == pytest.approx([100 * p, 100 * (1 - t), 100 * (1 - p * t)], abs=0.9)


def test_worked_examples():
    # Similarities of the example (3.15), computed from its coefficients; the thesis cuts after two decimals.
    exact = {"lsm-example-row-1": [1, 0.05659684799706787, 1, 0.05659684799706787, 0.15555555555555545]}
    exact["lsm-example-row-2"] = [0.05659684799706787, 1, 0.05659684799706783, 1, 0.4074973055788885]
    for id, row in exact.items():
        assert thesis.fact(id).value == tuple(math.floor(100 * x + 1e-9) / 100 for x in row)
    b = list(thesis.fact("b-example-row-3").value)
    assert [b[0], -b[1], *b[2:]] == pytest.approx([-0.4, -0.3, 0.7, -0.1])  # the sign that corrections.csv mends
    # s that gives 8 bits, and its perturbation limit.
    assert -math.log(thesis.fact("smol-example-s-init").value) == pytest.approx(-4.844187086458591)
    assert thesis.fact("smol-s-init").value == round(-4.844187086458591, 2)
    assert thesis.fact("smol-example-limit").value == pytest.approx(0.007812500000000002)


# ---- unknown names and damaged files: one line that says what and what to do


@pytest.mark.parametrize(
    ("call", "listed"),
    [
        (lambda: thesis.table("4.9"), "4.1, 4.2, 4.3"),
        (lambda: thesis.table("../facts"), "4.1, 4.2, 4.3"),
        (lambda: thesis.pivot("4.1", "colour"), "value, unit"),
        (lambda: thesis.value("4.1", "cs", "ResNet-20"), "NetSlim, CS"),
        (lambda: thesis.value("4.1", "CS", "ResNet-50"), "VGG-16, ResNet-20"),
        (lambda: thesis.value("6.1", "AdaShift", "ImageNet ResNet-50 validation error"), "CIFAR-10 GGAN FID"),
        (lambda: thesis.fact("fold-error"), "fold-40-8-8-error"),
    ],
)
def test_unknown_name_lists_what_exists(call, listed):
    with pytest.raises(LabError) as e:
        call()
    assert listed in str(e.value)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 700


@pytest.fixture
def copy(tmp_path, monkeypatch):
    for p in thesis.FOLDER.glob("*.csv"):
        (tmp_path / p.name).write_bytes(p.read_bytes())
    monkeypatch.setattr(thesis, "FOLDER", tmp_path)
    return tmp_path


def change(path, line, cell, new):
    rows = list(csv.reader(path.open(newline="", encoding="utf-8")))
    rows[line][cell] = new
    with path.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(rows)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: change(p, 3, 2, "5O.0"), "'5O.0' as its value"),
        (lambda p: change(p, 3, 2, "nan"), "'nan' as its value"),
        (lambda p: change(p, 3, 5, "1.5"), "'1.5' as its n"),
        (lambda p: change(p, 4, 1, "VGG-16") or change(p, 4, 0, "AMC"), "repeats AMC / VGG-16"),
        (lambda p: change(p, 0, 0, "line"), "expected the columns"),
        (lambda p: p.write_text(p.read_text().replace(",thesis,", ",the,sis,", 1)), "cells instead of 9"),
        (lambda p: p.write_text(p.read_text().split("\n")[0]), "rows below"),
        (lambda p: p.write_bytes(b""), "is damaged"),
        (lambda p: p.write_text(p.read_text() + '"'), "is damaged"),
        (lambda p: p.write_bytes(b"\x89PNG\xff\xfe"), "is damaged"),
        (lambda p: (p.unlink(), p.mkdir()), "cannot be read"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_damaged_table_is_named_in_one_line(copy, harm, said):
    harm(copy / "table-4-1.csv")
    with pytest.raises(LabError, match=r"table-4-1\.csv.*git checkout") as e:
        thesis.table("4.1")
    assert said in str(e.value)
    assert "\n" not in str(e.value)
    assert len(thesis.table("4.2")) == COUNTS["4.2"]  # the others still load


@pytest.mark.parametrize(("file", "load"), [("facts.csv", thesis.facts), ("corrections.csv", thesis.corrections)])
def test_damaged_or_missing_facts_and_corrections(copy, file, load):
    change(copy / file, 1, 1, "three")
    with pytest.raises(LabError, match=f"{file} is damaged: row 1 has 'three' as its chapter"):
        load()
    (copy / file).unlink()
    with pytest.raises(LabError, match=f"{file} cannot be read"):
        load()
