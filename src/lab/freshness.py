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
from pathlib import Path

SRC = Path(__file__).resolve().parents[1]
PACKAGES = ("principled", "lab")


def source_hash(*entries: str | Path, src: Path = SRC, without: Collection[str] = ()) -> str:
    """SHA-256 (hex) of the meaning of every project file that ``entries`` import, directly or not.

    Args:
        *entries: dotted module names (``"principled.sparsity"``) or paths of notebooks and ``.py`` files. A notebook's
            own cells are not part of the hash (the caller adds them with the parameters); a ``.py`` file's are.
        src: the folder that holds ``principled`` and ``lab``.
        without: files (``"lab/runs.py"``) that the caller knows to be of no effect on the result.

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
    found: set[Path] = set()
    todo: list[Path] = []
    for entry in entries:
        if str(entry).endswith((".ipynb", ".py")):
            todo += _imports(_tree(Path(entry)), "", src)
        else:
            todo += _module(str(entry), src)
    while todo:
        file = todo.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".py":
            parts = file.relative_to(src).with_suffix("").parts
            package = ".".join(parts[:-1])
            tree = _tree(file)
            todo += _imports(tree, package, src)
            todo += [file.parent / text for text in _strings(tree) if _is_asset(file.parent, text)]
    return sorted(found)


def _imports(tree: ast.AST, package: str, src: Path) -> Iterator[Path]:
    """Files that the import statements of ``tree`` name, those inside functions among them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name, src)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from _name(module, alias.name, src)


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
    tree = _tree(files[0])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _name(f"{module}.{node.module}", alias.name, src)
        if isinstance(node, ast.Dict):  # a table for a lazy __getattr__: {"Name": "submodule"}
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Constant):
                    return _name(f"{module}.{str(value.value).lstrip('.')}", name, src)
    return files


def _tree(file: Path) -> ast.Module:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
        text = "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)
    return ast.parse(text, str(file))


def _strings(tree: ast.AST) -> Iterator[str]:
    return (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))


def _is_asset(folder: Path, text: str) -> bool:
    return 0 < len(text) < 80 and "\n" not in text and "." in text.strip(".") and (folder / text).is_file()


def _meaning(file: Path) -> str:
    if file.suffix != ".py":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    tree = _tree(file)
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
