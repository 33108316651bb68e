"""When does a result go stale? When the source it rests on changes, and only then.

A notebook cache that looks at cells alone misses a change in the core; one that looks at the whole package re-executes
everything for a comma. This file finds, with ``ast`` and without importing anything, the modules of ``principled`` and
``lab`` that a notebook or module reaches, and hashes what they *do*: comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SRC = Path(__file__).resolve().parents[2]
PACKAGES = ("principled", "lab")


def source_hash(*entries: str | Path, src: Path = SRC, without: Collection[str] = ()) -> str:
    """SHA-256 (hex) of the meaning of every project file that ``entries`` import, directly or not.

    Args:
        *entries: dotted module names (``"principled.sparsity"``) or paths of notebooks and ``.py`` files. A notebook's
            own cells are not part of the hash (the caller adds them with the parameters); a ``.py`` file's are.
        src: the folder that holds ``principled`` and ``lab``.
        without: files (``"lab/runs/records.py"``) that the caller knows to be of no effect on the result.

    A name that a package's ``__init__`` re-exports counts as an import of the submodule that defines it, so that a
    change in one method leaves the other chapters fresh. A file beside a module whose name the module spells as a
    string (a style sheet, a widget's front end) counts too. Data does not: add its checksums.
    """
    files = {file.relative_to(src).as_posix(): file for file in closure(*entries, src=src)}
    lines = [f"{name} {_meaning(file)}" for name, file in files.items() if name not in without]
    own = [_meaning(Path(e)) for e in entries if str(e).endswith(".py")]
    return hashlib.sha256("\n".join(lines + own).encode()).hexdigest()


def closure(*entries: str | Path, src: Path = SRC) -> list[Path]:
    """The project's files that ``entries`` reach, sorted; see :func:`source_hash`."""
    files: set[Path] = set()
    todo: list[Path] = []
    for entry in entries:
        if str(entry).endswith((".ipynb", ".py")):
            todo += _imports(_said(Path(entry)), "", src)
        else:
            todo += _module(str(entry), src)
    while todo:
        file = todo.pop()
        if file in files:
            continue
        files.add(file)
        if file.suffix == ".py":
            parts = file.relative_to(src).with_suffix("").parts
            said = _said(file)
            todo += _imports(said, ".".join(parts[:-1]), src)
            todo += [file.parent / text for text in said.strings if _is_asset(file.parent, text)]
    return sorted(files)


class _Said(NamedTuple):
    """What a file says of others, as it stands there."""

    imports: tuple[tuple[str, str, int], ...]
    """Module, name in it and number of leading dots; of a plain ``import`` the name is empty."""
    exports: dict[str, tuple[str, str]]
    """What it passes on of its own package: name to module and name there."""
    strings: tuple[str, ...]
    """All string constants."""


def _said(file: Path) -> _Said:
    return _read(file.read_text(encoding="utf-8"), str(file))


@cache
def _read(text: str, name: str) -> _Said:
    """By content, since an experiment's files are another's too, and a hash of all of them asks for each many times."""
    imports, exports, strings = [], dict[str, tuple[str, str]](), []
    for node in ast.walk(ast.parse(_code(text, name), name)):  # imports inside functions too
        if isinstance(node, ast.Import):
            imports += [(alias.name, "", 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports += [(node.module or "", alias.name, node.level) for alias in node.names]
            if node.level == 1 and node.module:
                for alias in node.names:
                    exports.setdefault(alias.asname or alias.name, (node.module, alias.name))
        elif isinstance(node, ast.Dict):  # a table for a lazy __getattr__: {"Name": "submodule"}
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    exports.setdefault(str(key.value), (str(value.value).lstrip("."), str(key.value)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.append(node.value)
    return _Said(tuple(imports), exports, tuple(strings))


def _imports(said: _Said, package: str, src: Path) -> Iterator[Path]:
    """The project's files that these import statements name."""
    for module, name, level in said.imports:
        if not name:
            yield from _module(module, src)
            continue
        base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
        yield from _name(".".join([*base, *([module] if module else [])]), name, src)


def _module(name: str, src: Path) -> list[Path]:
    """The file of a dotted name; nothing for other people's modules."""
    if name.split(".")[0] not in PACKAGES:
        return []
    path = src.joinpath(*name.split("."))
    return [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]


def _name(module: str, name: str, src: Path) -> list[Path]:
    """The file that gives ``from module import name``: a submodule, what a package re-exports, or the module itself."""
    if submodule := _module(f"{module}.{name}", src):
        return submodule
    files = _module(module, src)
    if not files or files[0].name != "__init__.py":
        return files
    if (passed_on := _said(files[0]).exports.get(name)) is not None:
        return _name(f"{module}.{passed_on[0]}", passed_on[1], src)
    return files


def _code(text: str, name: str) -> str:
    """The Python in a file: all of it, or a notebook's code cells."""
    if not name.endswith(".ipynb"):
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


def _is_asset(folder: Path, text: str) -> bool:
    return 0 < len(text) < 80 and "\n" not in text and "." in text.strip(".") and (folder / text).is_file()


def _meaning(file: Path) -> str:
    return _hashed(file.read_bytes(), file.suffix == ".py")


@cache
def _hashed(content: bytes, python: bool) -> str:
    if not python:
        if b"\0" not in content:  # a text: its line ends are the business of git's settings
            content = content.replace(b"\r\n", b"\n")
        return hashlib.sha256(content).hexdigest()
    tree = ast.parse(content)
    for node in ast.walk(tree):  # docstrings, and the bare strings that document an attribute
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return hashlib.sha256(repr(_form(tree)).encode()).hexdigest()


def _form(node: object) -> object:
    """A syntax tree as nested tuples, without its empty fields: Pythons differ in which of these there are."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
        return type(node).__name__, *((name, _form(value)) for name, value in fields)
    return [_form(one) for one in node] if isinstance(node, list) else node
