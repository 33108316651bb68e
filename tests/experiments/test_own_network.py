"""Chapter 8's data, readings and decisions, by hand."""

import pytest
import torch

from lab.datasets.definitions import KINDS, Sentences, encode, load_definitions, vocabulary
from lab.datasets.fashion import load_fashion
from lab.experiments.own_network import results
from lab.utils.errors import LabError
from lab.utils.files import ROOT


def test_as_many_photographs_of_each_class():
    train, test = load_fashion("train"), load_fashion("test")
    assert train.images.shape == (3000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [300] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    assert torch.equal(train.mean, test.mean)


@pytest.mark.parametrize(("load", "folder", "file"), [
    (load_fashion, "fashion-mini", "train.txt"), (load_definitions, "definitions", "train.tsv"),
])  # fmt: skip
def test_damaged_data_is_refused_and_the_line_says_what_to_do(load, folder, file, tmp_path):
    with pytest.raises(LabError, match=f"git checkout data/{folder}"):
        load("train", tmp_path)
    load_from = tmp_path / folder
    load_from.symlink_to(ROOT / "data" / folder)
    load("train", tmp_path)
    load_from.unlink()
    load_from.mkdir()
    for each in (ROOT / "data" / folder).iterdir():
        (load_from / each.name).write_bytes(each.read_bytes())
    content = (load_from / file).read_bytes()
    (load_from / file).write_bytes(content.replace(b"1", b"2", 1).replace(b"act", b"food", 1))
    with pytest.raises(LabError, match=r"is damaged .*git checkout"):
        load("train", tmp_path)


def test_as_many_definitions_of_each_kind_and_none_twice():
    train, test = load_definitions("train"), load_definitions("test")
    assert [train.labels.count(k) for k in range(len(KINDS))] == [400] * 8
    assert [test.labels.count(k) for k in range(len(KINDS))] == [100] * 8
    assert len({*train.texts, *test.texts}) == 4000


def test_words_are_numbered():
    numbers = vocabulary(Sentences(("a cat; a dog", "A cat's"), (0, 1)), at_least=2)
    assert numbers == {"a": 2, "cat": 3}
    assert encode(("Cat, a bird", "a"), numbers, 4).tolist() == [[3, 2, 1, 0], [2, 0, 0, 0]]


def network(name, right, size=1000, zeros=0.0):
    return results.Measured(name, torch.tensor(right, dtype=torch.bool), zeros, 32.0, 100, size)


DENSE = network("dense", [1] * 90 + [0] * 10)


def test_a_loss_on_many_inputs_is_a_loss_and_on_few_is_not():
    assert results.verdict(network("a", [0] * 5 + [1] * 85 + [0] * 10), DENSE) == "not told apart"  # p = 1/16
    assert results.verdict(network("a", [0] * 6 + [1] * 84 + [0] * 10), DENSE) == "worse"  # p = 1/32
    assert results.verdict(network("a", [1] * 96 + [0] * 4), DENSE) == "better"
    assert results.verdict(network("a", [0] * 8 + [1] * 90 + [0] * 2), DENSE) == "not told apart"  # 8 lost, 8 won


def test_the_smallest_that_is_not_worse_is_taken():
    measured = [
        DENSE,
        network("smallest", [0] * 30 + [1] * 60 + [0] * 10, 100),
        network("small", [1] * 90 + [0] * 10, 200),
        network("large", [1] * 90 + [0] * 10, 400),
        network("as large", [1] * 90 + [0] * 10, 1000),
    ]
    table = results.decisions(measured).set_index("network")
    assert table["decision"].tolist() == [
        "what the others are held against", "costs accuracy: train it longer, or ask for less", "take this one",
        "works; another is smaller", "works, and saves nothing",
    ]  # fmt: skip
    assert table.loc["small", "times smaller"] == "5.0"


def test_a_short_run_is_read():
    read = [results.reading(results.Trial("rate", 1, *run), 0.8) for run in
            ((0.0, 0.8), (1.0, 0.1), (0.9, 0.6), (0.8, 0.79))]  # fmt: skip
    assert [words.split()[0] for words in read] == ["nothing", "everything", "accuracy", "goes"]


def test_both_networks_are_what_the_chapter_says():
    from lab.experiments.own_network import clothes, sentences

    assert sum(p.numel() for p in clothes.network().parameters()) == 176_578
    texts, unseen = sentences.rows()
    assert (len(texts), len(unseen)) == (3200, 800)
    scores = sentences.right(sentences.network(), unseen)
    assert scores.shape == (800,)
