"""What the built pages need beyond Jupyter Book: a Sphinx extension, named in ``_config.yml``.

* Maths is drawn by KaTeX from ``book/static/katex``, on the pages that have some (``docs/decisions/0003``).
* Tables of data sort by a press on a column's head (``book/static/tables.js``), on the pages that have some.
* A page carries nothing it does not use and asks no other host for anything: the theme's icon library (1.6 MB) and the
  search's index stay out, ``book/static/custom.css`` draws the dozen icons, the theme's style sheet loses the rules of
  components that no page has (two thirds of it), and the launch scripts for remote kernels are dropped. A content
  policy in each page forbids other hosts.
* With a repository's address in ``_config.yml`` each page can be edited and reported on, and each notebook launched;
  without one no button leads nowhere.
* The first place of each term of ``book/glossary.csv`` on a page links to the glossary and tells its meaning.
* Chapters keep the thesis's numbers: ``chapters/04-*.ipynb`` is Chapter 4 whether or not Chapter 3 stands. A page that
  continues one, ``chapters/06b-*.ipynb``, is 6b; its theorems and lemmas count as Chapter 6's, as in the thesis.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes

from . import glossary

KATEX = ("katex/katex.min.js", "maths.js")
CHAPTER = re.compile(r"chapters/(\d\d)([a-z]?)-")
TABLES = re.compile(r'class="[^"]*\bpa-(?:table|board|runs|inside|which)\b')
PROVED = ("theorem", "lemma", "corollary")
PROOF_IDS = re.compile(r'(<(?:section|div) class="(?:[\w-]+-content|proof admonition)") id="proof(?:-content)?"')
"""sphinx-proof gives all theorems of a page the same id, and all proofs; nothing leads to them."""
BUTTONS = ("use_repository_button", "use_edit_page_button", "use_issues_button")
WRITTEN = ("book/scoreboard", "book/benchmarks", glossary.PAGE)
"""Pages that each build writes anew: no file of the repository to edit."""
PLAIN_SPANS = re.compile(r'<span class="[pw]">([^<]*)</span>')
POLICY = (
    "default-src 'self' file: data: blob:; script-src 'self' file: data: blob: 'unsafe-inline'; "
    "style-src 'self' file: data: 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self' file:"
)
"""What a page may load: its own files, and what it holds itself (a figure's script, and its module as a data URL). No
other host, whatever a page's content says; ``file:`` because ``'self'`` matches nothing on a page that is opened from a
folder."""
SEARCH = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>')
SOURCE = re.compile(r'(<a href="[^"]*_sources/[^"]*" target="_blank")(?! download)')
ICON_RULES = re.compile(r"(?:\.fa-[\w-]+:before,?)+\{[^{}]*\}|@font-face\{[^{}]*Font Awesome[^{}]*\}")

RULE = re.compile(r"([^{};@]+)\{([^{}]*)\}")
"""One style rule of a minified sheet: its selectors, and its declarations."""
EMPTY_BLOCK = re.compile(r"@(?:media|supports)[^{};]*\{\s*\}")
NEGATED = re.compile(r":not\((?:[^()]|\([^()]*\))*\)")
CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")
NO_CLASSES = ("katex", "run-here", "searchindex")
"""Scripts of the built book that set no class of the theme: drawn formulas, networks, the search's words."""


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("katex", (_inline, None), (_block, None))
    app.connect("config-inited", _open_repository)
    app.connect("doctree-read", _add_keywords)
    app.connect("env-get-updated", _number_chapters, priority=900)
    app.connect("doctree-resolved", _drop_launcher, priority=900)
    app.connect("doctree-resolved", _link_terms, priority=950)
    app.connect("html-page-context", _lean_page, priority=900)
    app.connect("build-finished", _lean_theme, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _open_repository(app: Any, config: Any) -> None:
    """One setting, the repository's address, turns on all that needs it; without it the launch buttons go too."""
    options = config.html_theme_options
    public = bool(options.get("repository_url"))
    options.update(dict.fromkeys(BUTTONS, public))
    if not public:
        options.pop("launch_buttons", None)


def _only_there(buttons: list[dict[str, Any]], page: str) -> list[dict[str, Any]]:
    """The page's buttons, without the one that edits a file which the repository does not hold."""
    for button in buttons:
        if "buttons" in button:
            button["buttons"] = _only_there(button["buttons"], page)
    return [one for one in buttons if page not in WRITTEN or one.get("label") != "source-edit-button"]


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(f'<span class="math notranslate nohighlight">{writer.encode(node.astext())}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    from sphinx.util.math import get_node_equation_number

    writer.body.append(writer.starttag(node, "div", CLASS="math notranslate nohighlight"))
    writer.body.append(f'<div class="tex">{writer.encode(node.astext())}</div>')
    if node["number"]:
        writer.body.append(f'<span class="eqno">({get_node_equation_number(writer, node)})')
        writer.add_permalink_ref(node, "Link to this equation")
        writer.body.append("</span>")
    writer.body.append("</div>\n")
    raise nodes.SkipNode


def _number_chapters(app: Any, env: Any) -> list[str]:
    """Replace the running number by the one in the file's name, in headings, equations, figures and theorems."""

    def renumber(number: Any, chapter: int | str) -> Any:
        return type(number)([chapter, *number[1:]]) if number else number

    for page, sections in env.toc_secnumbers.items():
        if match := CHAPTER.match(page):
            chapter = f"{int(match[1])}{match[2]}"
            for anchor, number in sections.items():
                sections[anchor] = renumber(number, chapter)
            for kind, numbers in env.toc_fignumbers.get(page, {}).items():
                for key, number in numbers.items():
                    numbers[key] = renumber(number, int(match[1]) if kind in PROVED else chapter)
            for node in (env.titles[page], *env.tocs[page].findall(nodes.reference)):
                if node.get("secnumber"):
                    node["secnumber"] = renumber(node["secnumber"], chapter)
    return []


def _drop_launcher(app: Any, doctree: nodes.document, page: str) -> None:
    for node in list(doctree.findall(nodes.raw)):
        if "thebe" in node.astext() or "kernelName =" in node.astext():
            node.parent.remove(node)


def _add_keywords(app: Any, doctree: nodes.document) -> None:
    """Let the search find a chapter by the field's names for what is in it, which ``book/glossary.csv`` lists."""
    match = CHAPTER.match(app.env.docname)
    if match and (Path(app.srcdir) / glossary.FILE).is_file():
        terms = [t for t in glossary.read(Path(app.srcdir)) if t.chapter == str(int(match[1])) and not match[2]]
        words = sorted({word for t in terms for word in re.split(r"[\s;]+", f"{t.term} {t.also}") if len(word) > 1})
        if words:
            doctree.append(nodes.meta("", name="keywords", lang="en", content=", ".join(words)))


def _link_terms(app: Any, doctree: nodes.document, page: str) -> None:
    """Hover and link for the terms of ``book/glossary.csv`` (:mod:`lab.book.glossary`)."""
    root = Path(app.srcdir)
    if page != glossary.PAGE and glossary.PAGE in app.env.all_docs and (root / glossary.FILE).is_file():
        address = app.builder.get_relative_uri(page, glossary.PAGE)
        glossary.link(doctree, glossary.read(root), address)


def _lean_page(app: Any, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    if doctree is not None and any(doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block))):
        for script in KATEX:
            app.add_js_file(script, loading_method="defer")
        app.add_css_file("katex/katex.min.css")
    if TABLES.search(context.get("body", "")):
        app.add_js_file("tables.js", loading_method="defer")
    if "header_buttons" in context:
        context["header_buttons"] = _only_there(context["header_buttons"], page)
    context["metatags"] = (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n{context.get("metatags", "")}'
    )
    for kind in ("script_files", "css_files"):  # in place: Sphinx restores both lists after each page
        context[kind][:] = [a for a in context[kind] if "thebe" not in f"{a.filename} {a.attributes}".lower()]
    if 'class="sd-' not in context.get("body", ""):  # cards and tabs stand on a few pages only
        context["css_files"][:] = [a for a in context["css_files"] if "sphinx-design" not in str(a.filename)]
        context["script_files"][:] = [a for a in context["script_files"] if "design-tabs" not in str(a.filename)]
    # brackets, commas and spaces of code have the colour of the text around them: a tenth of a chapter, to no effect
    if "body" in context:
        context["body"] = PROOF_IDS.sub(r"\1", PLAIN_SPANS.sub(r"\1", context["body"]))


def _drop_unused_rules(sheet: str, words: set[str]) -> str:
    """The style sheet without the selectors that name a class which is not among ``words``: they match nothing."""

    def used(rule: re.Match[str]) -> str:
        selectors = re.split(r",(?![^()]*\))", rule[1])
        kept = [selector for selector in selectors if words.issuperset(CLASS.findall(NEGATED.sub("", selector)))]
        return f"{','.join(kept)}{{{rule[2]}}}" if kept else ""

    return EMPTY_BLOCK.sub("", RULE.sub(used, sheet))


def _words(site: Path) -> set[str]:
    """Every word of the built pages and of their scripts, which may set a class later."""
    scripts = [file for file in site.rglob("*.js") if not any(name in file.as_posix() for name in NO_CLASSES)]
    return {
        word
        for file in (*site.rglob("*.html"), *scripts)
        for word in re.findall(r"[\w-]+", file.read_text(encoding="utf-8"))
    }


def _lean_theme(app: Any, error: Exception | None) -> None:
    """Take what no page uses out of the *built* theme, and the search's index from pages that do not search.

    The installed package stays as it is.
    """
    static = Path(app.outdir, "_static")
    sheet = static / "styles" / "pydata-sphinx-theme.css"
    if error is None and sheet.is_file():
        rules = ICON_RULES.sub("", sheet.read_text(encoding="utf-8"))
        sheet.write_text(_drop_unused_rules(rules, _words(Path(app.outdir))), encoding="utf-8")
        shutil.rmtree(static / "vendor" / "fontawesome", ignore_errors=True)
        for file in (*static.glob("scripts/fontawesome.js*"), *static.rglob("*.map")):
            file.unlink(missing_ok=True)
        for page in Path(app.outdir).rglob("*.html"):
            text = SOURCE.sub(r"\1 download", page.read_text(encoding="utf-8"))  # or a server that says "text" shows it
            page.write_text(text if page.name == "search.html" else SEARCH.sub("", text), encoding="utf-8")
