"""Translation as a :class:`lab.training.Task`: subwords, batches of sentences, cross-entropy with smoothed labels,
BLEU.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.datasets.batches import chance
from lab.datasets.translation import Corpus, Pair
from lab.utils.errors import LabError

from .device import autocast
from .interfaces import Config

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


class Vocabulary(Protocol):
    """Sentences to symbols and back; the first four symbols are :data:`SPECIAL`."""

    size: int

    def encode(self, sentence: str) -> list[int]:
        """Symbols of a sentence, its end not among them."""

    def decode(self, symbols: Sequence[int]) -> str:
        """The sentence of some symbols; special ones are left out."""


class Subwords:
    """Byte-pair encoding with one vocabulary for both languages (5.3.1), by the ``sentencepiece`` library; what
    training lacks is spelt in bytes.

    Args:
        sentences: to learn it from, the training sentences of both languages.
        size: symbols: 256 bytes, the special ones, every character, and what is merged of these.
    """

    def __init__(self, sentences: Sequence[str], size: int) -> None:
        import sentencepiece

        file = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences), model_writer=file, model_type="bpe", vocab_size=size,
                pad_id=PAD, bos_id=BEGIN, eos_id=END, unk_id=UNKNOWN, byte_fallback=True, character_coverage=1.0,
                normalization_rule_name="identity", num_threads=1, minloglevel=2,
            )  # fmt: skip
        except RuntimeError as error:
            why = " ".join(str(error).split())[-160:]
            raise LabError(
                f"no vocabulary of {size} symbols can be learned from {len(sentences)} sentences ({why})"
            ) from None
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())
        self.size = self._pieces.vocab_size()

    def encode(self, sentence: str) -> list[int]:
        """Symbols of a sentence."""
        return list(self._pieces.encode(sentence))

    def decode(self, symbols: Sequence[int]) -> str:
        """The sentence of some symbols."""
        return self._pieces.decode([i for i in symbols if i > UNKNOWN])


class Words:
    """The vocabulary of a corpus whose subwords are separated by spaces already, as fairseq prepares them."""

    def __init__(self, sentences: Sequence[str]) -> None:
        words = sorted({word for sentence in sentences for word in sentence.split()})
        self._words = [*SPECIAL, *words]
        self._number = {word: i for i, word in enumerate(self._words)}
        self.size = len(self._words)

    def encode(self, sentence: str) -> list[int]:
        """Symbols of a sentence; words that training did not have are ``<unk>``."""
        return [self._number.get(word, UNKNOWN) for word in sentence.split()]

    def decode(self, symbols: Sequence[int]) -> str:
        """The sentence, its subwords joined."""
        return " ".join(self._words[i] for i in symbols if i > END).replace("@@ ", "")


def vocabulary(corpus: Corpus, size: int) -> Vocabulary:
    """One vocabulary for both languages, from the training sentences."""
    sentences = [sentence for pair in corpus.train for sentence in pair]
    return Words(sentences) if corpus.tokenized else Subwords(sentences, size)


def bleu(translations: Sequence[str], wanted: Sequence[str], tokenized: bool = False) -> dict[str, float]:
    """Corpus BLEU and chrF by sacrebleu, 0 to 100. ``tokenized``: split at spaces alone, as fairseq scores IWSLT'14."""
    import sacrebleu

    if not translations or len(translations) != len(wanted):
        raise LabError(
            f"{len(translations)} translations for {len(wanted)} references: BLEU needs one for each, and at least one"
        )
    options = {"tokenize": "none", "force": True} if tokenized else {}
    return {
        "bleu": sacrebleu.corpus_bleu(list(translations), [list(wanted)], **options).score,
        "chrf": sacrebleu.corpus_chrf(list(translations), [list(wanted)]).score,
    }


class Translation:
    """Batches of sentences of about one length, and BLEU of greedy translations of the test sentences.

    Args:
        corpus: German and English.
        words: its vocabulary.
        training: ``batch_size`` sentences; ``smoothing`` of the labels; ``longest`` sentence in symbols that is trained
            on.
        device: where to train.
    """

    metric = "bleu"

    def __init__(self, corpus: Corpus, words: Vocabulary, training: Config, device: torch.device) -> None:
        self.corpus, self.words, self.device = corpus, words, device
        self.size, self.smoothing = training["batch_size"], training["smoothing"]
        pairs = [(words.encode(a), words.encode(b)) for a, b in corpus.train]
        self.pairs = [pair for pair in pairs if max(map(len, pair)) < training["longest"]]
        self.steps = len(self.pairs) // self.size
        if self.steps == 0:
            raise LabError(
                f"{corpus.name} has {len(self.pairs)} pairs, fewer than one batch of {self.size}: lower batch_size"
            )

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Source (N, S) and target (N, T), padded. Each epoch's pairs are dealt anew; all chance comes from (seed,
        epoch, step).
        """
        source = torch.Generator().manual_seed(chance(seed, epoch))
        order = torch.randperm(len(self.pairs), generator=source)[: self.steps * self.size].tolist()
        near = [
            order[i : i + 50 * self.size] for i in range(0, len(order), 50 * self.size)
        ]  # sorted within: little padding
        order = [i for part in near for i in sorted(part, key=lambda i: (len(self.pairs[i][1]), len(self.pairs[i][0])))]
        for step, place in enumerate(torch.randperm(self.steps, generator=source).tolist()):
            if step >= start:
                torch.manual_seed(chance(seed, epoch, step))
                chosen = [self.pairs[i] for i in order[place * self.size :][: self.size]]
                yield (
                    _padded([[*a, END] for a, _ in chosen], self.device),
                    _padded([[BEGIN, *b, END] for _, b in chosen], self.device),
                )

    def loss(self, net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy a symbol, with smoothed labels."""
        source, target = batch
        with autocast(self.device):
            logits = net(source, target[:, :-1])
        return F.cross_entropy(
            logits.float().flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, label_smoothing=self.smoothing
        )

    def evaluate(self, net: nn.Module) -> float:
        """BLEU of the test sentences."""
        return self.scores(net)["bleu"]

    def scores(self, net: nn.Module) -> dict[str, float]:
        """BLEU and chrF of the test sentences."""
        wanted = [b.replace("@@ ", "") if self.corpus.tokenized else b for _, b in self.corpus.test]
        return bleu(self.translate(net, self.corpus.test), wanted, self.corpus.tokenized)

    @torch.no_grad()
    def translate(self, net: Any, pairs: Sequence[Pair], size: int = 100) -> list[str]:
        """Greedy translations of the German sides. ``net`` is a :class:`lab.models.translator.Translator`, relaxed or
        not.
        """
        net = net.harden() if hasattr(net, "harden") else net  # what is deployed, and what has encode and decode
        training = net.training
        net.eval()
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
        translations = [""] * len(pairs)
        for part in (order[i : i + size] for i in range(0, len(order), size)):
            source = _padded([[*self.words.encode(pairs[i][0]), END] for i in part], self.device)
            for i, symbols in zip(part, self._greedy(net, source).tolist(), strict=True):
                translations[i] = self.words.decode(symbols[: symbols.index(END)] if END in symbols else symbols)
        net.train(training)
        return translations

    def _greedy(self, net: Any, source: Tensor) -> Tensor:
        with autocast(self.device):
            memory = net.encode(source)
            made = source.new_full((len(source), 1), BEGIN)
            done = torch.zeros(len(source), dtype=torch.bool, device=self.device)
            for _ in range(2 * source.shape[1] + 10):
                following = net.decode(*memory, made)[:, -1].argmax(1)
                made = torch.cat([made, following[:, None]], 1)
                done |= following == END
                if bool(done.all()):
                    break
        return made[:, 1:]


def _padded(rows: list[list[int]], device: torch.device) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], device=device)
