"""From a page to its notebook: with a repository's address the buttons lead to the right files, without one there are
none."""

import os
import re
import shlex
from html import unescape
from urllib.parse import parse_qs, urlparse

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from lab.book import glossary, pages
from lab.book.pages import ROOT
from lab.book.site import WRITTEN

ADDRESS = "https://github.com/someone/book"
PAGES = {
    "chapters/01-one": "# One\n\nWords.",
    "book/index": "# Start\n\nWords.",
    "book/scoreboard": "# Written\n\nWords.",
}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A book of three pages, built as the whole is, for a repository's address."""
    done = {}

    def built(address):
        if address not in done:
            root = tmp_path_factory.mktemp("book")
            stage = root / "stage"
            files = {}
            config = (ROOT / "_config.yml").read_text(encoding="utf-8")
            assert config.count('  url: ""') == 1
            files["_config.yml"] = config.replace('  url: ""', f'  url: "{address}"')
            files["_toc.yml"] = "format: jb-book\nroot: book/index\nchapters:\n" + "".join(
                f"  - file: {p}\n" for p in PAGES if p != "book/index"
            )
            for file in (ROOT / "book" / "static").rglob("*"):
                if file.is_file():
                    files[file.relative_to(ROOT).as_posix()] = file.read_bytes()
            files["book/references.bib"] = (ROOT / "book" / "references.bib").read_bytes()
            for page, text in PAGES.items():
                if page.startswith("chapters/"):
                    text = nbformat.writes(new_notebook(cells=[new_markdown_cell(text, id="one")]))
                files[f"{page}.{'ipynb' if page.startswith('chapters/') else 'md'}"] = text
            pages.mirror(files, stage)
            done[address] = pages.press(stage, root).parent
        return done[address]

    return built


def links(page):
    return [unescape(one) for one in re.findall(r'<a[^>]* href="([^"]*)"', page.read_text(encoding="utf-8"))]


def outside(page):
    return [one for one in links(page) if one.startswith("http")]


def test_without_an_address_no_button_leads_out(build):
    site = build("")
    for page in PAGES:
        assert outside(site / f"{page}.html") == []
        assert "btn-launch" not in (site / f"{page}.html").read_text(encoding="utf-8")


def test_with_an_address_each_button_leads_to_its_own_file(build):
    site = build(ADDRESS)
    for page in PAGES:
        there, file = outside(site / f"{page}.html"), f"{page}.{'ipynb' if page.startswith('chapters/') else 'md'}"
        assert ADDRESS in there
        assert any(
            one.startswith(f"{ADDRESS}/issues/new?") and page.replace("/", "%2F") in one.replace("/", "%2F")
            for one in there
        )
        edits = [one for one in there if "/edit/" in one]
        assert edits == ([] if page in WRITTEN else [f"{ADDRESS}/edit/main/{file}"])
        launches = [urlparse(one) for one in there if "mybinder.org" in one]
        assert len(launches) == file.endswith(".ipynb")
        for one in launches:
            assert one.path == "/v2/gh/someone/book/main"
            assert parse_qs(one.query) == {"urlpath": [f"lab/tree/{file}"]}


def test_what_a_button_names_is_in_the_repository():
    """The addresses that the buttons are made of are those of files here: a page's own path, on the branch that is
    built."""
    for page in [f"chapters/{file.stem}" for file in (ROOT / "chapters").glob("*.ipynb")] + [
        "book/index",
        "book/how-to",
    ]:
        assert any((ROOT / f"{page}.{suffix}").is_file() for suffix in ("ipynb", "md"))
    for page in WRITTEN:
        assert not (ROOT / f"{page}.md").exists()
    assert glossary.PAGE in WRITTEN


def test_each_icon_of_a_button_is_drawn(build):
    """The theme's icon library stays out, so each of its names on a page needs a drawing in custom.css."""
    style = (ROOT / "book" / "static" / "custom.css").read_text(encoding="utf-8")
    for page in PAGES:
        text = (build(ADDRESS) / f"{page}.html").read_text(encoding="utf-8")
        for name in set(re.findall(r'class="fa[bs]? (fa-[\w-]+)', text)):
            assert re.search(rf"\.{name}\b[^{{]*{{ --icon", style), name


def test_the_environment_of_a_hosted_jupyter():
    here = ROOT / ".binder"
    lines = [line for line in (here / "requirements.txt").read_text(encoding="utf-8").splitlines() if line[:1] == "-"]
    named = {line.split()[0]: line.split()[1] for line in lines}
    assert (here / named["-r"]).resolve() == ROOT / "requirements.txt"
    assert (here / named["-c"]).resolve() == ROOT / "constraints.txt"
    assert named["--extra-index-url"].endswith("/cpu")  # or a host without a GPU downloads one's libraries
    minimum = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]
    version = (here / "runtime.txt").read_text(encoding="utf-8").strip().removeprefix("python-")
    assert [int(n) for n in version.split(".")] >= [int(n) for n in minimum.split(".")]
    script = here / "postBuild"
    assert os.access(script, os.X_OK)
    command = script.read_text(encoding="utf-8").splitlines()[-1]
    assert shlex.split(command)[-2:] == ["--editable", "."]


def test_the_notebook_is_a_download(build):
    site = build("")
    text = (site / "chapters" / "01-one.html").read_text(encoding="utf-8")
    assert re.search(r'<a href="../_sources/chapters/01-one.ipynb" target="_blank" download\s', text)
    assert (site / "_sources" / "chapters" / "01-one.ipynb").is_file()
