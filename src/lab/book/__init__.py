"""Build the book: execute what is stale, stage the pages, run Jupyter Book, say where to look.

    python -m lab book        build()      _build/html/index.html
    python -m lab chapter 04  execute()    one chapter, any profile
    python -m lab refresh     refresh()    executes in place, to commit new outputs

Everything happens under ``_build/``; only ``refresh`` writes elsewhere: the chapters, and ``data/quick``. A chapter is
executed again when its code cells, its parameters, the source it reaches (``lab.runs.source_hash``), the data that
source reads, or a library's version changed; an edit of its prose alone is not a reason.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lab.figures import provenance
from lab.runs import registry
from lab.runs import source_hash as freshness
from lab.utils import files
from lab.utils.errors import LabError, plain_output

from . import notebooks, pages
from .notebooks import clean
from .pages import ROOT, digest, write

__all__ = ["ROOT", "build", "clean", "execute", "refresh"]

DATA_OF = {
    "lab/datasets/thesis": "data/thesis/**/*",
    "lab/runs/": "data/runs/**/*",
    "lab/runs/intervals": "data/intervals.json",
    "lab/runs/recheck": "data/models/**/*",
    "lab/datasets": "data/*/checksums.txt",
}
"""Source (a prefix below ``src/``) to the data it reads: a chapter that reaches the one depends on the other. One that
reaches the module of an experiment depends on its ``data/quick/NAME.jsonl`` too."""

PLACES = ("LAB_RUNS", "LAB_DATA", "LAB_QUICK")
"""Environment that decides which records and data a chapter reads."""

LIBRARIES = ("torch", "numpy", "matplotlib", "papermill", "ipykernel")


def build(profile: str = "quick", device: str = "cpu", *, jobs: int = 1, root: Path = ROOT) -> Path:
    """Build the whole book and print its address.

    Args:
        profile: what the chapters run; the book shows ``"quick"``.
        device: a torch device for them.
        jobs: chapters executed side by side.
        root: the repository.

    Returns:
        The start page, ``_build/html/index.html``. With nothing changed nothing is done.

    Raises:
        LabError: a cell failed, a page has a warning (all are listed), or ``_build`` cannot be written.
    """
    with _at_work(root):
        page, mark = (pages.workshop(root) / name for name in ("html/index.html", "book.json"))
        if page.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == _inputs(profile, device, root):
            print(f"The book: {page.as_uri()}")
            return page
        mark.unlink(missing_ok=True)
        chapters = _chapters(root)
        parameters = {**notebooks.DEFAULTS, "profile": profile, "device": device}
        stage = pages.workshop(root) / "site-src"
        wanted = dict(pages.sources(root))
        notebook = {}
        for chapter, executed in zip(chapters, _fresh(chapters, parameters, root, jobs), strict=True):
            notebook[chapter.stem.partition("-")[0]] = copy.deepcopy(executed)
            number, made = chapter.stem.partition("-")[0].lstrip("0"), provenance.made(_executed(chapter, root))
            filled = provenance.fill(_merge(_load(chapter), executed), number, {"profile": profile, **made})
            wanted[f"chapters/{chapter.name}"] = _dump(filled)
        if root == ROOT:
            from . import landing  # here, because it loads torch

            for name in ("book/index.md", "book/numbers.md"):
                wanted[name] = landing.page(wanted[name].decode(), notebook)
        pages.mirror(wanted, stage)
        page = pages.press(stage, root)
        write(mark, _inputs(profile, device, root))
    print(f"The book: {page.as_uri()}")
    return page


def execute(
    chapter: str,
    profile: str = "quick",
    device: str = "cpu",
    seed: int = 0,
    output: str | Path | None = None,
    root: Path = ROOT,
) -> Path:
    """Execute one chapter, always, and write the notebook with its outputs; the chapter's own file stays as it is.

    Args:
        chapter: ``"04"``, ``"4"``, ``"6b"``, ``"04-sparsification"`` or a path.
        profile, device, seed: the chapter's parameters.
        output: where the notebook goes; default ``_build/chapters/<chapter>-<profile>.ipynb``.
        root: the repository.

    Raises:
        LabError: no such chapter, or a cell failed.
    """
    file = _find(chapter, root)
    target = Path(output) if output else pages.workshop(root) / "chapters" / f"{file.stem}-{profile}.ipynb"
    with _at_work(root):
        files.check_writable(target)
        text = _run(file, {"profile": profile, "device": device, "seed": seed}, root)
        write(target, text)
    return target


def refresh(chapters: Iterable[str] | None = None, *, root: Path = ROOT) -> list[Path]:
    """Execute chapters (default: all) at ``quick`` and write their cleaned outputs in place; returns the changed files.

    The results of quick runs go along: ``data/quick`` then holds those of the present source.

    Raises:
        LabError: no such chapter, or a cell failed; chapters before it are written, it and later ones are not.
    """
    changed = []
    files = [_find(c, root) for c in chapters] if chapters else _chapters(root)
    with _at_work(root):
        for file in files:
            key = _key(file, notebooks.DEFAULTS, root)
            text = _run(file, notebooks.DEFAULTS, root)
            _record(file, key, text, root)
            if text != file.read_text(encoding="utf-8"):
                write(file, text)
                changed.append(file)
        if root == ROOT:
            from lab import runs  # here, because they load torch
            from lab.runs import runner

            changed += runs.take_along(runner.experiments())
    return changed


# -- executing ---------------------------------------------------------------------------------------------------------


def _fresh(chapters: list[Path], parameters: dict[str, Any], root: Path, jobs: int) -> Iterator[Any]:
    """The executed form of each chapter, from ``_build/executed`` where its key is the recorded one."""
    keys = {chapter: _key(chapter, parameters, root) for chapter in chapters}
    stale = [chapter for chapter in chapters if not _recorded(chapter, keys[chapter], root)]
    if jobs > 1 and len(stale) > 1:
        with ProcessPoolExecutor(jobs, get_context("spawn"), plain_output) as pool:
            futures = [pool.submit(_run, c, parameters, root, place) for place, c in enumerate(stale)]
            for chapter, future in zip(stale, futures, strict=True):
                _record(chapter, keys[chapter], future.result(), root)
    else:
        for chapter in stale:  # recorded one by one: what is done stays done when a later chapter fails
            _record(chapter, keys[chapter], _run(chapter, parameters, root), root)
    return (_load(_executed(chapter, root)) for chapter in chapters)


def _run(chapter: Path, parameters: dict[str, Any], root: Path, place: int = 0) -> str:
    bar = {"desc": chapter.stem, "position": place, "disable": not sys.stderr.isatty()}
    if bar["disable"]:
        print(f"executing {chapter.stem} …", flush=True)
    failed = pages.workshop(root) / "failed" / chapter.name
    failed.unlink(missing_ok=True)
    return _dump(notebooks.run(chapter, parameters, failed, bar))


def _key(chapter: Path, parameters: dict[str, Any], root: Path) -> str:
    """What the chapter's outputs rest on, as one hash."""
    cells = [(c.source, c.metadata.get("tags", [])) for c in _load(chapter).cells if c.cell_type == "code"]
    src = root / "src" if (root / "src" / "lab").is_dir() else freshness.SRC
    reached = {file.relative_to(src).as_posix() for file in freshness.closure(chapter, src=src)}
    patterns = [data for source, data in DATA_OF.items() if any(name.startswith(source) for name in reached)]
    modules = {name: registry.module_name(name).replace(".", "/") + ".py" for name in registry.EXPERIMENTS}
    patterns += [f"data/quick/{name}.jsonl" for name, module in modules.items() if module in reached]
    files = sorted({file for pattern in patterns for file in root.glob(pattern) if file.is_file()})
    if (elsewhere := os.environ.get("LAB_RUNS")) and any(name.startswith("lab/runs/") for name in reached):
        files += sorted(Path(elsewhere).rglob("*.json"))
    data = {os.path.relpath(file, root): digest(file.read_bytes()) for file in files}
    source = freshness.source_hash(chapter, src=src)
    versions = {name: version(name) for name in LIBRARIES}
    places = {name: value for name in PLACES if (value := os.environ.get(name))}
    return digest(
        json.dumps([cells, parameters, source, data, places, versions, sys.version_info[:2]], sort_keys=True).encode()
    )


def _inputs(profile: str, device: str, root: Path) -> str:
    """What the whole book rests on, as one hash: all files that could go into it, the outputs at hand, and the
    libraries."""
    folders = [root / name for name in ("src", "chapters", "book", "data", "benchmarks")]
    folders += [freshness.SRC, *(pages.workshop(root) / name for name in ("executed", "runs"))]
    if elsewhere := os.environ.get("LAB_RUNS"):
        folders.append(Path(elsewhere))
    there = {file for folder in folders for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc"}
    contents = {os.path.relpath(file, root): digest(file.read_bytes()) for file in there | {*root.glob("_*.yml")}}
    versions = {name: version(name) for name in (*LIBRARIES, *pages.LIBRARIES)}
    places = {name: os.environ.get(name) for name in PLACES}
    return digest(
        json.dumps([contents, versions, places, profile, device, sys.version_info[:2]], sort_keys=True).encode()
    )


def _executed(chapter: Path, root: Path) -> Path:
    return pages.workshop(root) / "executed" / chapter.name


def _recorded(chapter: Path, key: str, root: Path) -> bool:
    notebook = _executed(chapter, root)
    try:
        record = json.loads(notebook.with_suffix(".json").read_text(encoding="utf-8"))
        return record["key"] == key and record["notebook"] == digest(notebook.read_bytes())
    except (OSError, ValueError, KeyError):
        return False


def _record(chapter: Path, key: str, text: str, root: Path) -> None:
    notebook = _executed(chapter, root)
    write(notebook, text)
    write(notebook.with_suffix(".json"), json.dumps({"key": key, "notebook": digest(text.encode()), "made": _made()}))


def _made() -> dict[str, Any]:
    """When and where a chapter was executed: what a figure's mark says where no recorded run stands behind it."""
    from lab import runs  # here, because it loads torch

    commit, dirty = runs.commit_of_now()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"time": now, "device": runs.cpu_name(), "commit": commit, "dirty": dirty}


def _merge(nb: Any, executed: Any) -> Any:
    """The chapter's present prose with the outputs of its execution."""
    injected = [cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    done = iter([cell for cell in executed.cells if cell.cell_type == "code" and cell not in injected])
    merged = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            source = next(done)
            cell.outputs, cell.execution_count = source.outputs, source.execution_count
        merged.append(cell)
        if "parameters" in cell.metadata.get("tags", []):
            merged += injected  # other parameters than the defaults stay visible
    nb.cells, nb.metadata = merged, executed.metadata
    return nb


# -- files -------------------------------------------------------------------------------------------------------------


def _chapters(root: Path) -> list[Path]:
    return sorted((root / "chapters").glob("[0-9][0-9]*-*.ipynb"))


def _find(chapter: str, root: Path) -> Path:
    files = _chapters(root)
    name = Path(chapter).name.removesuffix(".ipynb")
    for file in files:
        if file.stem == name or file.stem.partition("-")[0].lstrip("0") == name.lstrip("0"):
            return file
    raise LabError(
        f"no chapter {chapter!r} in {root / 'chapters'}; there are {', '.join(f.stem for f in files) or 'none'}"
    )


@contextmanager
def _at_work(root: Path) -> Iterator[None]:
    """``_build`` for one command at a time; what the disk refuses becomes one line."""
    if not (root / "_config.yml").is_file():
        raise LabError(
            f"{root} holds no book (no _config.yml); run this from a clone installed with `pip install -e .`"
        )
    try:
        lock = files.begin_build(pages.workshop(root)) / ".lock"
        with ExitStack() as stack:
            try:
                stack.enter_context(files.locked(lock))
            except files.Busy:
                print("another build is at work here; waiting for it …", file=sys.stderr)
                stack.enter_context(files.locked(lock, wait=True))
            yield
    except OSError as error:
        raise LabError(
            f"cannot use {error.filename or root / '_build'}: {error.strerror}; check permissions and free space"
        ) from error


def _load(file: Path) -> Any:
    import nbformat

    try:
        return nbformat.read(file, as_version=4)
    except (ValueError, KeyError) as error:
        raise LabError(f"{file} is no readable notebook; restore it with `git checkout -- {file}`") from error


def _dump(nb: Any) -> str:
    import nbformat

    return nbformat.writes(nb, version=4) + "\n"
