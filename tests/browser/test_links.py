"""Every link of the built book leads somewhere, every image and script is there, every citation has its entry."""

import json
import re
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup

pytestmark = pytest.mark.browser  # it needs the built book, though no browser

LINKS = {("a", "href"), ("area", "href")}
"""What a reader follows; all else that names an address is loaded by the page itself."""
LOADED = {
    "link": ("href",), "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",),
    "embed": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "track": ("src",), "object": ("data",), "input": ("src",),
    "form": ("action",),
    "use": ("href", "xlink:href"), "image": ("href", "xlink:href"), "base": ("href",), "body": ("background",),
}  # fmt: skip
NAMES_IDS = (
    "for",
    "list",
    "form",
    "popovertarget",
    "aria-controls",
    "aria-labelledby",
    "aria-describedby",
    "aria-details",
)
URL = re.compile(r"""url\(\s*(['"]?)(.*?)\1\s*\)""")
CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


class Page:
    """A page's ids, and what it refers to."""

    def __init__(self, text: str) -> None:
        soup = BeautifulSoup(text, "lxml")
        self.ids = defaultdict(list)
        for tag in soup.find_all(id=True):
            self.ids[tag["id"]].append(tag)
        self.names = {tag["name"] for tag in soup.find_all("a", attrs={"name": True})}
        self.links, self.loads, self.inside = [], [], []
        for tag in soup.find_all(True):
            self.links += [tag[name] for kind, name in LINKS if tag.name == kind and tag.has_attr(name)]
            for name in LOADED.get(tag.name, ()):
                value = tag.get(name, "")
                parts = [part.split()[0] for part in value.split(",") if part.strip()] if name == "srcset" else [value]
                self.loads += [part for part in parts if part]
            self.loads += [match[2] for match in URL.finditer(str(tag.get("style", "")))]
            self.inside += [one for name in NAMES_IDS if tag.has_attr(name) for one in str(tag[name]).split()]
            if tag.name == "meta" and str(tag.get("http-equiv", "")).lower() == "refresh":
                self.links.append(str(tag["content"]).partition("url=")[2].strip())
            if tag.name == "style":
                self.loads += [match[2] for match in URL.finditer(tag.get_text())]
            for name in ("clip-path", "mask", "fill", "stroke", "filter", "marker-end", "marker-start"):
                self.inside += [match[2].removeprefix("#") for match in URL.finditer(str(tag.get(name, "")))]
        self.entries = {tag["id"] for tag in soup.find_all(attrs={"role": "doc-biblioentry"})}


def check(site: Path) -> tuple[list[str], set[str]]:
    """What is wrong, a line each, and the addresses elsewhere that the pages link to."""
    wrong, elsewhere = [], set()
    pages = {
        file.resolve(): Page(file.read_text("utf-8"))
        for file in sorted(site.rglob("*.html"))
        if "_static" not in file.parts
    }
    for file, page in pages.items():
        here = file.relative_to(site.resolve()).as_posix()
        for one, tags in page.ids.items():  # two figures may define the same mark in the same words
            if len(set(map(str, tags))) > 1 or (len(tags) > 1 and tags[0].name not in ("path", "clippath")):
                wrong.append(f"{here}: the id {one!r} stands there {len(tags)} times")
        wrong += [f"{here}: names the id {one!r}, which it lacks" for one in page.inside if one not in page.ids]
        for address, loads in [*((a, False) for a in page.links), *((a, True) for a in page.loads)]:
            what = f"{here}: {address[:100]!r}"
            parts = urlsplit(address)
            if parts.scheme == "data" and loads:
                continue
            if parts.scheme or parts.netloc:
                if loads or parts.scheme not in ("http", "https") or not parts.netloc:
                    wrong.append(f"{what} {'is loaded from elsewhere' if loads else 'is no link to a page'}")
                elsewhere.add(address)
                continue
            path, fragment = urldefrag(address)
            target = (file.parent / unquote(path.partition("?")[0])).resolve() if path.partition("?")[0] else file
            if not target.is_relative_to(site.resolve()):
                wrong.append(f"{what} leads out of the book")
            elif not target.is_file():
                wrong.append(f"{what} leads to no file")
            elif fragment and target in pages and unquote(fragment) not in {*pages[target].ids, *pages[target].names}:
                wrong.append(f"{what} leads to no place on that page")
    for sheet in sorted(site.rglob("*.css")):
        for match in URL.finditer(sheet.read_text("utf-8")):
            if (
                not match[2].startswith(("data:", "#"))
                and not (sheet.parent / match[2].partition("?")[0].partition("#")[0]).is_file()
            ):
                wrong.append(f"{sheet.relative_to(site)}: {match[2]!r} leads to no file")
    return wrong, elsewhere


def test_every_link_leads_somewhere_and_everything_loaded_is_here(site):
    wrong, elsewhere = check(site)
    print(json.dumps(sorted(elsewhere), indent=1))
    assert not wrong, "\n".join(wrong)


def test_every_citation_leads_to_its_entry(site):
    entries = Page((site / "book" / "bibliography.html").read_text("utf-8")).entries
    cited, pages = set(), 0
    for source in sorted((site / "_sources").glob("*/*")):
        text = source.read_text("utf-8")
        if source.suffix == ".ipynb":
            text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
        keys = {key.strip() for citation in CITED.findall(text) for key in citation.split(",")}
        page = Page((site / source.parent.name / f"{source.stem}.html").read_text("utf-8"))
        reached = {link.rpartition("#")[2] for link in page.links} & entries
        assert len(reached) == len(keys), (source.name, sorted(keys))
        cited |= keys
        pages += bool(keys)
    assert pages > 3
    assert len(entries) == len(cited)  # nothing is listed that no page cites


FAULTS = {
    "leads to no file": '<a href="gone.html">x</a>',
    "leads to no place on that page": '<a href="other.html#gone">x</a>',
    "'#nowhere' leads to no place": '<a href="#nowhere">x</a>',
    "'image.png' leads to no file": '<img src="image.png" alt="x">',
    "'large.png' leads to no file": '<img srcset="large.png 2x" alt="x">',
    "leads out of the book": '<a href="../secret.html">x</a>',
    "is loaded from elsewhere": '<script src="https://example.org/x.js"></script>',
    "'//example.org/x.css' is loaded": '<link rel="stylesheet" href="//example.org/x.css">',
    "'http://example.org/x.png' is loaded": '<div style="background: url(http://example.org/x.png)">x</div>',
    "is no link to a page": '<a href="javascript:alert(1)">x</a>',
    "stands there 2 times": '<p id="a">x</p><p id="a">x</p>',
    "names the id 'box'": '<button popovertarget="box">x</button>',
    "names the id 'shade'": '<svg><path clip-path="url(#shade)"/></svg>',
    "'gone.woff2' leads to no file": None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "secret.html").write_text("<p>x</p>")
    (site / "other.html").write_text('<a name="old">x</a>')
    good = '<p id="here">x</p><a href="other.html#old">x</a><a href="#here">x</a><a href="https://example.org/">x</a>'
    good += '<img src="data:image/png;base64,AA==" alt="x"><svg><path id="m" d="M 0 0"/><path id="m" d="M 0 0"/></svg>'
    (site / "page.html").write_text(good)
    assert check(site) == ([], {"https://example.org/"})
    (site / "page.html").write_text(good + (FAULTS[fault] or ""))
    if FAULTS[fault] is None:
        (site / "own.css").write_text("@font-face { src: url('gone.woff2') }")
    wrong, _ = check(site)
    assert len(wrong) == 1
    assert fault in wrong[0]
