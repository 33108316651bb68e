"""Terms: one file, a page made from it, and a link from the first place of each on every other page."""

import re

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from lab.book import glossary
from lab.utils.files import ROOT


@pytest.fixture(scope="module")
def terms():
    return glossary.read(ROOT)


def test_terms_are_unique_and_say_something(terms):
    assert len({t.anchor for t in terms}) == len(terms) >= 25
    chapters = {int(file.name[:2]) for file in (ROOT / "chapters").glob("0[1-9]-*.ipynb")}
    assert len({t.symbol for t in terms if t.symbol}) == sum(bool(t.symbol) for t in terms)
    for term in terms:
        assert len(term.meaning.split()) >= 4, term.term
        assert int(term.chapter) in chapters


def test_the_page_holds_every_term_and_the_fields_names_for_it(terms):
    page = glossary.page(terms, {"4": "chapters/04-sparsification"})
    for term in terms:
        assert f"({term.anchor})=" in page
        assert all(name.strip() in page for name in term.also.split(";"))
    for name in ("lottery ticket", "quantization-aware training", "weight sharing", "L0"):
        assert re.search(name, page, re.I)
    assert "{doc}`Chapter 4 </chapters/04-sparsification>`" in page


def test_the_first_place_in_running_text_becomes_a_link(terms):
    source = (
        "Sparsity title\n==============\n\nThe ``mask`` of Sparsity, a mask. A mask again, :math:`\\lambda`, "
        ":math:`\\lambda`, masked.\n"
    )
    tree = publish_doctree(source)
    glossary.link(tree, terms, "../book/glossary.html")
    links = [(n.astext(), n["refuri"]) for n in tree.findall(nodes.reference)]
    assert links == [
        ("Sparsity", "../book/glossary.html#term-sparsity"),
        ("mask", "../book/glossary.html#term-mask"),
        (r"\lambda", "../book/glossary.html#term-penalty-weight"),
    ]
    assert tree.astext().startswith("Sparsity title")
    text = "".join(p.astext() for p in tree.findall(nodes.paragraph))
    assert text == r"The mask of Sparsity, a mask. A mask again, \lambda, \lambda, masked."  # nothing is lost
