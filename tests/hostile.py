"""Words that mean harm, for tests of whatever shows the words of others: a run's name, a note, a setting, a caption."""

from html.parser import HTMLParser

from hypothesis import strategies as st

WORDS = (
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(2)>',
    "'><svg onload=alert(3)>",
    "</script><script>alert(4)</script>",
    "<!--<script>alert(5)",
    "</style></text></svg><iframe src=javascript:alert(6)>",
    '" onfocus="alert(7)" autofocus x="',
    "javascript:alert(8)",
    "</td></tr></table></div></details><form action=//x>",
    "````\n# a heading\n````{raw} html\n<script>alert(9)</script>",
    "{{ 7*7 }} $\\href{javascript:alert(10)}{x}$ [x](javascript:alert(11))",
    "&lt;script&gt;alert(12)&lt;/script&gt;",
    "\u202etxt.exe\u2066 \u200f",
    "W" * 3000,
    "<![CDATA[<svg/onload=alert(13)>]]>",
    "</div><!--/pa-runs-->",
)
"""Sixteen: markup in each place where it could begin, comments, ends of what is around, markdown, maths, an escape
escaped, a reversed reading, a word that no line holds, and the mark at which :mod:`lab.figures.provenance` cuts."""

PIECE = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
HOSTILE = st.lists(PIECE, min_size=1, max_size=3).map("".join).filter(str.strip)
"""One to three pieces of the corpus and of any text, joined."""


class Shape(HTMLParser):
    """What a browser would make of ``html``: its elements with their attributes' names, and all its words."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.words, self.comments = [], [], 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.words += [value for _, value in attributes if value]

    def handle_endtag(self, tag):
        self.elements.append(f"/{tag}")

    def handle_comment(self, data):
        self.comments += 1

    def handle_data(self, data):
        self.words.append(data)
