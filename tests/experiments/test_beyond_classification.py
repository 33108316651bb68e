"""A generator and a translator of few bits: what is declared, what a run ends with, claims, and what a page shows of
the records."""

import base64
import io
import math

import pytest
import torch
from made_up_records import page as page
from made_up_records import record
from PIL import Image
from tiny_run import made_up

from lab.datasets.translation import Corpus
from lab.experiments.beyond_classification import claims, generation, results, translation
from lab.experiments.optimizers import gan
from lab.models.translator import kind
from lab.runs import Run
from lab.utils.errors import LabError


def compute(run, path):
    return run.module.compute(run, torch.device("cpu"), path, lambda epoch: None, lambda: False)


# -- declarations and claims -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "epochs", "penalties"),
    [(generation, (130, 30), {2e-5, 1e-5, 5e-6, 2e-6, 1e-6}), (translation, (30, 20), {1e-9, 1e-8})],
)
def test_declarations_say_what_the_thesis_says(module, epochs, penalties):
    runs = module.runs("paper")
    assert len({r.id for r in runs}) == len(runs)
    assert {r.config["method"]["lambda"] for r in runs if r.config["method"]["name"] == "smol"} == penalties
    training = module.run("paper", "dense").config["training"]
    assert (training["epochs"], training["finetune_epochs"]) == epochs
    assert module.experiment.epochs(runs[0]) == sum(epochs)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: generation.run("quick", "smol"), "smol needs a lambda"),
        (lambda: generation.run("quick", "smol", **{"lambda": math.nan}), "lambda must be a finite number, at least 0"),
        (lambda: generation.run("quick", "lsq"), "unknown method 'lsq': choose one of dense, smol, bsq"),
        (lambda: translation.run("quick", "smol"), "smol needs a lambda, the price of a bit, such as 1e-8"),
        (lambda: translation.run("quick", "bsq"), "unknown method 'bsq': choose one of dense, smol"),
    ],
)
def test_a_wrong_declaration_is_one_line(wrong, words):
    with pytest.raises(LabError, match=words) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_every_claim_finds_its_runs_and_its_number():
    declared = claims.claims()
    assert {claim.experiment for claim in declared} == {"generation", "translation", "ggan"}
    for claim in declared:
        assert claim.needs("paper"), claim
        assert math.isfinite(claim.said)


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_generator_run_ends_with_the_generator_and_a_sheet(tmp_path, monkeypatch):
    monkeypatch.setattr(gan, "load", made_up)
    run = generation.run("quick", "smol", epochs=(1, 1), **{"lambda": 1e-4, "zero": True})
    training = run.config["training"] | {"samples": 64}
    result = compute(
        Run(run.experiment, {**run.config, "width": 4, "training": training}, "short", 0), tmp_path / "c.pt"
    )
    figures = result["figures"]
    assert {"fd", "fd_before_fixing", "fd_after_fixing", "bits", "share.0"} <= set(figures)
    zeros = sum(int((p == 0).sum()) for p in result["model"].parameters() if p.ndim > 1)
    size = sum(p.numel() for p in result["model"].parameters() if p.ndim > 1)
    assert figures["share.0"] == pytest.approx(zeros / size, abs=1e-3)
    assert Image.open(io.BytesIO(base64.b64decode(result["recording"]["samples"]))).size == (8 * 32, 4 * 32)


def test_a_translator_run_ends_with_scores_and_examples(tmp_path, monkeypatch):
    pairs = [(" ".join(words), " ".join(reversed(words))) for words in (["a", "b"], ["b", "c", "d"], ["d"], ["c", "a"])]
    corpus = Corpus(pairs * 3, pairs, pairs, "made-up", "0", tokenized=True)
    monkeypatch.setattr(translation, "load_parallel", lambda name: corpus)
    translation.words.cache_clear()
    run = translation.run("quick", "smol", **{"lambda": 1e-4})
    training = run.config["training"] | {"epochs": 1, "finetune_epochs": 1, "batch_size": 4}
    result = compute(Run(run.experiment, {**run.config, "training": training}, "short", 0), tmp_path / "c.pt")
    translation.words.cache_clear()
    figures = result["figures"]
    assert {"bleu", "chrf", "bleu_before_fixing", "bleu_after_fixing", "bits"} <= set(figures)
    assert {name for name in figures if name.startswith("bits.")} == {f"bits.{layers}" for layers in results.KINDS}
    assert figures["parameters"] == sum(p.numel() for p in result["model"].parameters())
    assert {kind(name) for name, _ in result["model"].named_parameters() if ".norm" not in name} == set(results.KINDS)
    assert [example["source"] for example in result["recording"]["examples"]] == [a for a, _ in pairs]


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def generators():
    picture = io.BytesIO()
    Image.new("RGB", (256, 128)).save(picture, "WEBP")
    sheet = {"samples": base64.b64encode(picture.getvalue()).decode()}
    few, more = (generation.run("quick", "smol", **{"lambda": lam, "zero": True}) for lam in (1e-4, 2e-5))
    return [
        record(generation.run("quick", "dense"), recording=sheet, fd=20.0, bits=32.0),
        record(few, recording=sheet, fd=25.0, bits=0.3, **{"share.0": 0.9}),
        record(more, recording=sheet, fd=22.0, bits=1.6, **{"share.0": 0.7}),
    ]


def test_generators_are_listed_drawn_and_judged(generators, page, capsys):
    results.generators(generators)
    assert page.columns("generator", "setting", "weights of no bits") == [
        ["full precision", "–", "–"], ["SMOL*", "λ = 0.0001", "90%"], ["SMOL*", "λ = 2e-05", "70%"],
    ]  # fmt: skip
    results.generated_images(generators)
    assert [ax.get_title("left") for ax in page.figures[0].axes] == ["32.0 bits a weight", "0.3 bits a weight"]
    results.distance_against_bits(generators, static=30.0)
    left = page.figures[1].axes[0]
    assert [0.3, 1.6] in [list(line.get_xdata()) for line in left.lines]
    results.generators_against_full(generators, static=30.0)
    said = capsys.readouterr().out
    assert "SMOL*, λ = 2e-05: 1.60 bits, distance +10%" in said
    assert "no verdict" in said
    assert "the nearest generator, 20.0, is nearer than static, 30.0" in said


def test_translators_are_listed_and_their_bits_drawn(page, capsys):
    parts = {f"bits.{layers}": bits for layers, bits in zip(results.KINDS, (3.0, 5.0, 6.0), strict=True)}
    few = translation.run("quick", "smol", **{"lambda": 2e-6})
    examples = [{"source": "Hund", "reference": "dog", "translation": "god"}] * 8
    records = [
        record(translation.run("quick", "dense"), bleu=18.0, chrf=26.0, bits=32.0, parameters=1234.0),
        record(few, None, {"examples": examples}, bleu=12.0, chrf=23.0, bits=4.0, **parts),
    ]
    results.corpus_and_size(records)
    assert capsys.readouterr().out == "emoji-names, 1,234 parameters\n"
    results.translators(records)
    assert page.columns("translator", "BLEU") == [["full precision", "18.0"], ["SMOL", "12.0"]]
    assert "λ = 2e-06, against full precision: -3.00, n = 1 and 1: no verdict" in capsys.readouterr().out
    results.bits_by_kind(records)
    assert [bar.get_width() for bar in page.figures[0].axes[0].patches] == [3.0, 5.0, 6.0]
    results.translations(records)
    assert page.columns("German", "a person", "the translator of few bits") == [["Hund", "dog", "god"]] * 6
