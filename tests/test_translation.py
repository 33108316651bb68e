"""Translation: what is read, that subwords lose nothing, how large the network is, what BLEU is, that a stopped run
goes on."""

import gzip
import hashlib
import shutil

import pytest
import torch
import torch.nn.functional as F

from lab.datasets import checksum, fetch
from lab.datasets import translation as parallel
from lab.datasets.images import data_root
from lab.datasets.translation import Corpus, load_parallel
from lab.experiments.beyond_classification import translation
from lab.models.translator import Translator, kind, positions
from lab.training import Stopped, Trainer
from lab.training.translation import BEGIN, END, PAD, UNKNOWN, Subwords, Translation, Words, bleu, vocabulary
from lab.utils.errors import LabError
from principled.relax import Relaxed


def test_the_embedded_pairs_are_whole_and_apart():
    corpus = load_parallel("emoji-names")
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [1907, 200, 200]
    assert ("weißes Fragezeichen", "white question mark") in corpus.train + corpus.valid + corpus.test
    assert not set(corpus.train) & set(corpus.test)
    assert corpus.checksum == checksum("emoji-names")
    stated = (data_root() / "emoji-names" / "checksums.txt").read_text().split()
    assert dict(zip(stated[1::2], stated[::2], strict=True)) == {f"{k}.tsv": v for k, v in parallel.EMOJI.items()}


def test_a_damaged_or_missing_corpus_is_one_line(tmp_path):
    shutil.copytree(data_root() / "emoji-names", tmp_path / "emoji-names")
    (tmp_path / "emoji-names" / "test.tsv").write_text("Hund\tcat\n")
    with pytest.raises(LabError, match=r"test.tsv is not the text .* run `git checkout data/emoji-names`"):
        load_parallel("emoji-names", tmp_path)
    with pytest.raises(LabError, match=r"train.de is missing: run `python -m lab data multi30k --from FOLDER`"):
        load_parallel("multi30k", tmp_path)
    with pytest.raises(LabError, match="nothing is downloaded for iwslt14: run"):
        fetch("iwslt14", tmp_path)
    with pytest.raises(LabError, match="unknown corpus 'wmt14': choose one of emoji-names, multi30k, iwslt14"):
        load_parallel("wmt14")


def corpus_of(monkeypatch, folder, name, counts, packed=False):
    """A corpus in the layout of ``name``, made up, and known to the loader."""
    folder.mkdir()
    files = {"multi30k": ("train", "val", "test_2016_flickr"), "iwslt14": parallel.SPLITS}[name]
    digests = {}
    for file, count in zip(files, counts, strict=True):
        for side, word in (("de", "Hun@@ d"), ("en", "do@@ g")):
            text = "".join(f"{word} {file} {i}\n" for i in range(count)).encode()
            digests[f"{file}.{side}"] = hashlib.sha256(text).hexdigest()
            path = folder / f"{file}.{side}"
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text))
            else:
                path.write_bytes(text)
    if name == "multi30k":
        monkeypatch.setattr(parallel, "MULTI30K", digests)
    else:
        monkeypatch.setattr(parallel, "IWSLT14", dict(zip(files, counts, strict=True)))


@pytest.mark.parametrize("name", ["multi30k", "iwslt14"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_corpus_comes_from_a_folder_whole(name, packed, tmp_path, monkeypatch):
    corpus_of(monkeypatch, tmp_path / "from", name, (5, 3, 2), packed)
    assert fetch(name, tmp_path / "data", tmp_path / "from") == tmp_path / "data" / name
    shutil.rmtree(tmp_path / "from")
    corpus = load_parallel(name, tmp_path / "data")
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [5, 3, 2]
    assert corpus.train[4][0].endswith("train 4")
    assert corpus.tokenized == (name == "iwslt14")
    assert fetch(name, tmp_path / "data", None).is_dir()  # there already


@pytest.mark.parametrize("name", ["multi30k", "iwslt14"])
def test_a_folder_that_lacks_a_line_is_refused_and_leaves_nothing(name, tmp_path, monkeypatch):
    corpus_of(monkeypatch, tmp_path / "from", name, (5, 3, 2))
    path = tmp_path / "from" / "train.en"
    path.write_text("".join(path.read_text().splitlines(True)[:-1]))
    with pytest.raises(LabError, match=r"SHA-256 differs|5 German and 4 English lines in train, not 5 each"):
        fetch(name, tmp_path / "data", tmp_path / "from")
    assert not (tmp_path / "data").exists()


def test_subwords_lose_nothing():
    corpus = load_parallel("emoji-names")
    words = vocabulary(corpus, 600)
    assert words.size == 600
    for sentence in (*(s for pair in corpus.test for s in pair), "日本 und Łódź"):
        symbols = words.encode(sentence)
        assert words.decode(symbols) == sentence
        assert not {PAD, BEGIN, END, UNKNOWN} & set(symbols)
    assert words.encode("Hund") == vocabulary(corpus, 600).encode("Hund")  # learned twice, the same
    with pytest.raises(LabError, match="no vocabulary of 100 symbols can be learned from 2 sentences"):
        Subwords(["ein Hund", "a dog"], 100)


def test_words_of_a_prepared_corpus_are_joined_again():
    words = Words(["der gro@@ ße Hund", "the dog"])
    assert words.decode(words.encode("der gro@@ ße Hund")) == "der große Hund"
    assert words.encode("der Kater")[1] == UNKNOWN
    assert words.size == 4 + 6


def test_the_translator_has_fairseqs_size():
    # transformer_iwslt_de_en with its dictionaries of 8,848 and 6,632 symbols: 39,469,056, layer by layer
    with torch.device("meta"):
        net = Translator(8848, 6632)
    attention, inner = 4 * (512 * 512 + 512), 512 * 1024 + 1024 + 1024 * 512 + 512
    layers = 6 * (attention + inner + 2 * 1024) + 6 * (2 * attention + inner + 3 * 1024)
    assert sum(p.numel() for p in net.parameters()) == 512 * (8848 + 6632) + layers == 39_469_056


def test_dropout_acts_where_fairseqs_recipe_has_it():
    net = Translator(12, 12, 8, 2, 16, 1, dropout=0.3)
    rates = {name: m.p for name, m in net.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert {name: p for name, p in rates.items() if p == 0} == {
        f"{s}.layers.0.dropout": 0 for s in ("encoder", "decoder")
    }
    assert len(rates) == 3 + 4
    assert {m.dropout for m in net.modules() if isinstance(m, torch.nn.MultiheadAttention)} == {0.0}


def test_decay_is_decoupled_by_hand():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    weight.grad = torch.tensor([5.0])
    translation.adam([weight], {"lr": 0.1, "betas": [0.9, 0.98], "weight_decay": 0.5}).step()
    # 2 * (1 - 0.1 * 0.5), then a first step of Adam: the rate itself, whatever the gradient's size
    assert weight.item() == pytest.approx(1.9 - 0.1, abs=1e-6)


def small(size=12, **options):
    torch.manual_seed(1)
    return Translator(size, size, **{"width": 8, "heads": 2, "inner": 16, "layers": 2, "dropout": 0.0} | options)


def test_the_future_and_the_padding_are_not_seen():
    net = small().eval()
    source, target = torch.randint(4, 12, (2, 5)), torch.randint(4, 12, (2, 6))
    logits = net(source, target)
    assert logits.shape == (2, 6, 12)
    changed = target.clone()
    changed[:, 4:] = 4 + (changed[:, 4:] - 3) % 8
    torch.testing.assert_close(net(source, changed)[:, :4], logits[:, :4])
    assert not torch.allclose(net(source, changed)[:, 4:], logits[:, 4:])
    longer = torch.cat([source, torch.full((2, 3), PAD)], 1)
    torch.testing.assert_close(net(longer, target), logits)


def test_positions_by_hand():
    encoded = positions(3, 4, torch.device("cpu"))  # rates 1 and 1/10,000
    angles = torch.tensor([[0, 0], [1, 1e-4], [2, 2e-4]])
    torch.testing.assert_close(encoded, torch.cat([angles.sin(), angles.cos()], 1))


def test_bleu_by_hand():
    assert bleu(["A dog bit a man."], ["A dog bit a man."]) == {"bleu": pytest.approx(100), "chrf": pytest.approx(100)}
    # by hand: of 5, 4, 3, 2 n-grams 4, 3, 2, 1 are right
    assert bleu(["a b c d e"], ["a b c d f"])["bleu"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # "a b c d" against "a b c d e": all n-grams are right, a brevity penalty of exp(1 - 5/4)
    assert bleu(["a b c d"], ["a b c d e"], tokenized=True)["bleu"] == pytest.approx(100 * 2.718281828 ** (1 - 5 / 4))
    with pytest.raises(LabError, match="1 translations for 2 references"):
        bleu(["a"], ["a", "b"])


TRAINING = translation.PROTOCOL["quick"]["training"] | {"epochs": 2, "finetune_epochs": 1, "batch_size": 4}
PAIRS = [(" ".join(words), " ".join(reversed(words))) for words in (["a", "b"], ["b", "c", "d"], ["d"], ["c", "a"])]


def task(pairs=PAIRS, training=TRAINING):
    corpus = Corpus(pairs * 3, pairs, pairs, "made-up", "0", tokenized=True)
    return Translation(corpus, vocabulary(corpus, 0), training, torch.device("cpu"))


def test_batches_hold_each_pair_once_and_the_loss_is_cross_entropy():
    own = task()
    drawn = list(own.batches(0, 0, 0))
    assert len(drawn) == own.steps == 3
    said = sorted(own.words.decode(row.tolist()) for source, _ in drawn for row in source)
    assert said == sorted(a for a, _ in PAIRS * 3)
    for (source, target), (again, _) in zip(drawn[1:], own.batches(0, 0, 1), strict=True):
        assert torch.equal(source, again)
        assert set(target[:, 0].tolist()) == {BEGIN}
        assert all(END in row for row in target.tolist())
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(drawn, own.batches(0, 1, 0), strict=True))
    net, (source, target) = small(8).eval(), drawn[0]
    own.smoothing = 0.0
    logits = net(source, target[:, :-1]).log_softmax(-1)
    by_hand = [-logits[i, t, s] for i, row in enumerate(target[:, 1:]) for t, s in enumerate(row) if s != PAD]
    torch.testing.assert_close(own.loss(net, drawn[0]), torch.stack(by_hand).mean(), rtol=2e-2, atol=0)


def test_it_learns_to_translate_four_sentences():
    own, net = task(), small(8)
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    for epoch in range(80):
        for batch in own.batches(0, epoch, 0):
            own.loss(net, batch).backward()
            adam.step()
            adam.zero_grad()
    assert own.translate(net, PAIRS) == [b for _, b in PAIRS]
    assert net.training


def run_of(path, stop=lambda: False):
    config = translation.run("quick", "smol", **{"lambda": 1e-4}).config["method"]
    method = translation.METHODS["smol"](config, seed=0)
    return Trainer("run", small(8, dropout=0.1), method, TRAINING, task(), seed=2, checkpoint=path, stop=stop)


@pytest.mark.parametrize("after", [1, 4, 7])  # in the first epoch, in the second, while fine-tuning
def test_a_stopped_run_ends_as_an_undisturbed_one(after, tmp_path):
    whole = run_of(None)
    whole.run()
    steps = iter(range(100))
    with pytest.raises(Stopped):
        run_of(tmp_path / "c.pt", lambda: next(steps) == after - after // 3 - 1).run()
    again = run_of(tmp_path / "c.pt")
    assert again.epoch * again.steps + again.step == after
    again.run()
    assert again.curve == whole.curve
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[key]), key


def test_all_but_layer_normalisation_is_quantised():
    trainer = run_of(None)
    fixed = trainer.run()
    assert isinstance(fixed, Relaxed)
    precision = fixed.relaxations[0].precision()
    plain = fixed.harden()
    left = {name for name, _ in plain.named_parameters()} - set(precision)
    assert left == {name for name, _ in plain.named_parameters() if ".norm" in name}
    assert {kind(name) for name in precision} == {"embeddings", "attention", "feed-forward"}
    bits = translation.bits_by_kind(precision)
    total = sum(p.numel() for p in precision.values())
    assert bits["bits"] == pytest.approx(sum(float(p.sum()) for p in precision.values()) / total)
    table = precision["target.weight"]
    assert torch.equal(
        F.embedding(torch.arange(8), plain.target.weight), plain.target.weight
    )  # tied: one table, one precision
    assert table.shape == plain.target.weight.shape


def test_a_corpus_smaller_than_a_batch_is_one_line():
    with pytest.raises(LabError, match="made-up has 12 pairs, fewer than one batch of 50"):
        task(training=TRAINING | {"batch_size": 50})
