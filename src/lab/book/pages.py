"""From a stage of sources to readable pages: Jupyter Book, run only when the stage changed.

Nothing here executes a notebook; ``lab.book`` puts executed ones on the stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from lab.utils import files
from lab.utils.errors import LabError

from . import glossary

LIBRARIES = ("jupyter-book", "sphinx", "sphinx-book-theme", "pydata-sphinx-theme", "myst-nb", "sphinx-proof")
ROOT = Path(__file__).resolve().parents[3]
"""The repository: the folder that holds ``_config.yml``."""

CLI = "from jupyter_book.cli.main import main; main()"


def workshop(root: Path) -> Path:
    """Where everything is made that can be made again: ``_build``, or ``LAB_BUILD`` for the repository itself."""
    return files.build_folder() if root == ROOT else root / "_build"


def sources(root: Path) -> Iterator[tuple[str, bytes]]:
    """The book's configuration and the pages that are no notebooks, as ``(name, content)``."""
    for name in ("_config.yml", "_toc.yml"):
        yield name, (root / name).read_bytes()
    for file in sorted((root / "book").rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts):
            yield file.relative_to(root).as_posix(), file.read_bytes()
    if root == ROOT:
        from lab.figures.run_here import state as run_here  # here, because they load torch

        from . import benchmarks, scoreboard

        yield from run_here.scripts()
        yield "book/scoreboard.md", scoreboard.page().encode()
        yield "book/benchmarks.md", benchmarks.page().encode()
        chapters = {f.stem[:2].lstrip("0"): f"chapters/{f.stem}" for f in root.glob("chapters/[0-9][0-9]-*.ipynb")}
        yield f"{glossary.PAGE}.md", glossary.page(glossary.read(root), chapters).encode()


def mirror(wanted: Mapping[str, str | bytes], stage: Path) -> None:
    """Make ``stage`` hold ``wanted`` and nothing else, touching only what differs."""
    if stage.is_symlink():  # whose files are elsewhere, and not ours
        stage.unlink()
    for file in [f for f in stage.rglob("*") if f.is_file() and f.relative_to(stage).as_posix() not in wanted]:
        file.unlink()
    for name, content in wanted.items():
        content = content.encode() if isinstance(content, str) else content
        file = stage / name
        if not file.is_file() or file.read_bytes() != content:
            write(file, content)


def press(stage: Path, root: Path) -> Path:
    """Run Jupyter Book on ``stage`` if it changed since the last good build; returns ``_build/html/index.html``.

    Raises:
        LabError: a page has a warning or an error; all of them are printed, and the last good book stays.
    """
    page, mark, log = (workshop(root) / name for name in ("html/index.html", "site.json", "jupyter-book.log"))
    pages = {f.relative_to(stage).as_posix(): digest(f.read_bytes()) for f in sorted(stage.rglob("*")) if f.is_file()}
    own = [digest(Path(__file__).with_name(name).read_bytes()) for name in ("site.py", "pages.py", "glossary.py")]
    state = json.dumps([pages, own, [version(name) for name in LIBRARIES]])
    if page.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == state:
        return page
    mark.unlink(missing_ok=True)
    out = workshop(root) / "sphinx"
    _jupyter_book(["build", str(stage), "--path-output", str(out), "--all", "-W", "--keep-going"], log)
    html, old = workshop(root) / "html", workshop(root) / "html.old"
    files.remove(old)
    fresh = workshop(root) / "html.new"
    files.remove(fresh)
    shutil.copytree(out / "_build" / "html", fresh)
    if html.exists():  # a failed build leaves the last good one readable
        html.rename(old)
    fresh.rename(html)
    files.remove(old)
    write(mark, state)
    return page


def _jupyter_book(arguments: list[str], log: Path) -> None:
    from tqdm import tqdm

    command = [sys.executable, "-c", CLI, *arguments]
    lines: list[str] = []
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
        tqdm(total=200, desc="pages", bar_format="{desc}: {bar} {elapsed}", disable=None) as bar,
    ):
        assert process.stdout
        for line in process.stdout:
            lines.append(re.sub(r"\x1b\[[\d;]*m", "", line))
            if step := re.match(r"(reading|writing).*\[ *(\d+)%\]", lines[-1]):
                bar.update(int(step[2]) + 100 * (step[1] == "writing") - bar.n)
    write(log, "".join(lines))
    if process.returncode:
        shown = [line.strip() for line in lines if re.search(r"WARNING|ERROR|CRITICAL|Error:|error:", line)]
        for line in shown[:20]:
            print(line, file=sys.stderr)
        what = f"{len(shown)} warnings or errors" if shown else f"exit status {process.returncode}"
        raise LabError(f"Jupyter Book stopped: {what}; mend the pages named above, or read {log}")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(file: Path, content: str | bytes) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(file)
