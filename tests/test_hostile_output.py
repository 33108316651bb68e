"""Words that mean harm stay words in what is static: tables, captions, marks and their boxes, the scoreboard.

The corpus is :data:`hostile.WORDS`, sixteen words; each place takes each of them, and 100 texts joined by chance from
them and from any characters. What a place makes of such a text has the same elements and attributes as what it makes of
"word".
"""

import copy
import html

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from hostile import HOSTILE, WORDS, Shape
from hypothesis import given, settings
from test_provenance import PLACE

from lab import figures, runs
from lab.book import scoreboard
from lab.experiments.claims import Claim, Measured
from lab.experiments.sparsity import pruning
from lab.figures import provenance
from lab.figures.provenance import TURNS
from lab.runs import Record


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("LAB_RUNS", str(tmp_path_factory.mktemp("runs")))
    yield runs.write(pruning.run("short", "cs"), "finished", {"figures": {"accuracy": 0.9, "sparsity": 0.5}}, PLACE)
    patch.undo()


def bad(record: Record, word: str) -> Record:
    """A record with the word in each field that a reader sees."""
    record = copy.deepcopy(record)
    record |= {"experiment": word, "profile": word, "id": word}
    record["data"]["name"] = word
    record["provenance"] |= dict.fromkeys(("device", "precision", "torch", "commit", "recorded"), word)
    record["config"]["method"] |= {"name": word, word: word}
    record["figures"] |= {word: 0.5}
    return record


def caught(monkey, draw):
    said = []
    monkey.setattr("IPython.display.display", lambda data, raw: said.append(data["text/html"]))
    draw()
    return said[0]


def table(word, record, monkey):
    frame = pd.DataFrame({word: [word, "–"], "number": [1.0, 2.0]})
    return caught(monkey, lambda: figures.table(frame, profile=word, runs=[bad(record, word)]))


def figure(word, record, monkey):
    fig, _ = plt.subplots(figsize=(1, 1))
    return caught(monkey, lambda: figures.show(fig, alt=word, profile=word, runs=[bad(record, word)]))


def box(word, record, monkey):
    return provenance.mark([bad(record, word), record])


def appendix(word, record, monkey):
    return provenance.appendix([provenance.details([bad(record, word)], [word])])


def button(word, record, monkey):
    return provenance.button([word])


def group(word, record, monkey):
    return scoreboard._group(scoreboard.Row(4, word, "not run", word, numbers=((word, word),)))


def claim(word, record, monkey):
    """A claim whose measure speaks of runs with such words; its number is real."""
    one = Claim("pruning", lambda _: None, lambda _: [], "4.1", "MP", "ResNet-20", tolerance=2, reason=word)
    measured = Measured((79.5, 80.5), ("x",), note=word)
    row = scoreboard.Row(4, word, "not run", word, one, measured, "short")
    return scoreboard._claim(row, {"x": record | {"provenance": record["provenance"] | {"device": word}}})


PLACES = [table, figure, box, appendix, button, group, claim]


def check(place, word, record):
    with pytest.MonkeyPatch.context() as monkey:
        made, usual = (place(text, record, monkey) for text in (word, "word"))
    shape, harmless = Shape(made), Shape(usual)
    assert shape.elements == harmless.elements
    assert shape.comments == harmless.comments
    said = " ".join(html.unescape(" ".join(shape.words)).split())
    named = " ".join(word.translate(TURNS).split())
    assert html.unescape(named) in html.unescape(said)
    assert not set(made) & {chr(sign) for sign in TURNS}
    if place not in (table, figure):  # those are outputs of cells; these stand in a block of markdown
        assert "````" not in made.removeprefix("````{raw} html\n").removesuffix("\n````")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("word", WORDS)
def test_each_word_in_each_place(place, word, good):
    check(place, word, good)


@pytest.mark.parametrize(
    "place", [p for p in PLACES if p is not figure]
)  # a drawing takes too long; it shares its escaping
def test_any_words_in_each_place(place, good):
    count = []

    @settings(max_examples=100)
    @given(word=HOSTILE)
    def one(word):
        count.append(word)
        check(place, word, good)

    one()
    print(f"{place.__name__}: {len(WORDS)} words of the corpus, {len(count)} joined by chance")
    assert len(set(count)) >= 50
