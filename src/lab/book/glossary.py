"""Terms and symbols, from one file: ``book/glossary.csv`` makes the glossary's page and the hovers on every other page.

On a page the first place of each term, and of each symbol, becomes a link to the glossary whose title is the meaning:
a mouse shows it, a finger or a key follows it. No script is involved.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "book/glossary.csv"
PAGE = "book/glossary"


@dataclass(frozen=True)
class Term:
    """A row of the file; ``also`` are the field's other names for it, by which the search finds the page."""

    term: str
    symbol: str
    meaning: str
    chapter: str
    also: str

    @property
    def anchor(self) -> str:
        """Its place on the glossary's page."""
        return "term-" + re.sub(r"[^a-z0-9]+", "-", self.term.lower()).strip("-")


def read(root: Path) -> list[Term]:
    """All terms, in the order of the alphabet."""
    with open(root / FILE, encoding="utf-8", newline="") as file:
        return sorted((Term(**row) for row in csv.DictReader(file)), key=lambda term: term.term.lower())


def page(terms: list[Term], chapters: dict[str, str]) -> str:
    """The glossary as markdown; ``chapters`` is a chapter's number to its document."""
    parts = [
        "# Notation and terms\n",
        "*What does this word mean here, and under which name does the field know it?*\n",
        "On other pages the first place of each of these carries a fine dotted line: hover for the meaning, follow "
        "it to come here.\n",
    ]
    for term in terms:
        also = f" Also: {term.also.replace(';', ',')}." if term.also else ""
        symbol = f" (${term.symbol}$)" if term.symbol else ""
        name = term.term if term.term[0].isupper() else term.term[0].upper() + term.term[1:]
        where = f" {{doc}}`Chapter {term.chapter} </{chapters[term.chapter]}>`." if term.chapter in chapters else ""
        parts.append(f"({term.anchor})=\n{name}{symbol}\n: {term.meaning[0].upper()}{term.meaning[1:]}.{also}{where}\n")
    return "\n".join(parts)


def link(doctree: Any, terms: list[Term], address: str) -> None:
    """Turn the first place of each term and symbol in the running text into a link with its meaning.

    Args:
        doctree: the page, as Sphinx has resolved it; changed in place.
        terms: of :func:`read`.
        address: the glossary's page as seen from this one.
    """
    from docutils import nodes

    left = {term.term.lower(): term for term in terms}
    symbols = {term.symbol: term for term in terms if term.symbol}
    for node in list(_running(doctree, nodes)):
        if isinstance(node, nodes.math):
            if (named := symbols.pop(node.astext().strip(), None)) is not None:
                reference = _reference(nodes, named, address)
                node.parent.replace(node, reference)
                reference += node
            continue
        if not left:
            continue
        pattern = re.compile(r"\b(" + "|".join(sorted(map(re.escape, left), key=len, reverse=True)) + r")\b", re.I)
        text, at, parts = node.astext(), 0, []
        for match in pattern.finditer(text):
            if (term := left.pop(match[0].lower(), None)) is None:
                continue
            reference = _reference(nodes, term, address)
            reference += nodes.Text(match[0])
            parts += [nodes.Text(text[at : match.start()]), reference]
            at = match.end()
        if parts:
            index = node.parent.index(node)
            node.parent[index : index + 1] = [*parts, nodes.Text(text[at:])]


def _running(doctree: Any, nodes: Any) -> Iterator[Any]:
    """Text and inline formulas of paragraphs; not of headings, links, code, captions, tables or titles of works."""
    closed = (
        nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.caption, nodes.table, nodes.raw,
        nodes.citation,
    )  # fmt: skip
    for paragraph in doctree.findall(nodes.paragraph):
        if _within(paragraph, closed):
            continue
        for node in paragraph.findall(lambda n: isinstance(n, nodes.Text | nodes.math)):
            if not _within(node, closed) and not isinstance(node.parent, nodes.math):
                yield node


def _within(node: Any, kinds: tuple[Any, ...]) -> bool:
    while (node := node.parent) is not None:
        if isinstance(node, kinds):
            return True
    return False


def _reference(nodes: Any, term: Term, address: str) -> Any:
    meaning = f"{term.term}: {term.meaning}"
    reference = nodes.reference("", "", internal=True, refuri=f"{address}#{term.anchor}", reftitle=meaning)
    reference["classes"].append("pa-term")
    return reference
