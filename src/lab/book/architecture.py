"""The rooms of ``src`` and the imports between them, read from the code: what ``docs/architecture.md`` draws and a test
holds.

``python -m lab.book.architecture > docs/architecture.svg`` draws the picture anew.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from html import escape
from pathlib import Path

from lab.utils.files import ROOT

SRC = ROOT / "src"
ROOMS = {
    "__main__": "the command line",
    "book": "executes chapters, builds pages, the scoreboard",
    "experiments": "a folder a chapter: declarations, claims, results",
    "figures": "the style, provenance marks, moving figures",
    "statistics": "compare(): when a difference counts",
    "runs": "a run's identity, its record, one run, many runs",
    "training": "the loop, and what it asks of methods and tasks",
    "baselines": "what the thesis compares with, a page each",
    "models": "plain networks, by name",
    "datasets": "images, text, translation, the thesis's tables",
    "utils": "errors, files",
}
"""The rooms of ``lab``, from the top down: a room imports only rooms below it."""
METHODS = "principled: relax, sharing, sparsity, smol, avagrad; files"


def arrows(src: Path = SRC) -> dict[tuple[str, str], set[str]]:
    """``{(room, imported room): places}``, a place being ``file:line``; rooms are those of ``lab``, and
    ``principled``."""
    places = defaultdict(set)
    for file in sorted(src.rglob("*.py")):
        package = file.relative_to(src).parts
        room = _room(package[:-1] if package[-1] == "__init__.py" else (*package[:-1], file.stem))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for imported in _imported(node, package[:-1]):
                if room and (other := _room(imported)) and other != room:
                    places[room, other].add(f"{file.relative_to(src).as_posix()}:{node.lineno}")
    return dict(places)


def _room(module: tuple[str, ...]) -> str:
    """The room of a dotted name: ``("lab", "runs", "records")`` is in ``runs``."""
    if module[:1] == ("principled",):
        return "principled"
    return module[1] if module[:1] == ("lab",) and len(module) > 1 else ""


def _imported(node: ast.AST, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = package[: len(package) - node.level + 1] if node.level else ()
    module = (*base, *(node.module.split(".") if node.module else ()))
    return [(*module, alias.name) for alias in node.names]


def upward(src: Path = SRC) -> list[str]:
    """Imports that run up, or out of ``principled``, as ``"models -> runs (lab/models/x.py:3)"``; none in a sound
    house."""
    order = [*ROOMS, "principled"]
    return [
        f"{room} -> {other} ({', '.join(sorted(places))})"
        for (room, other), places in arrows(src).items()
        if room not in order or other not in order or order.index(other) < order.index(room)
    ]


def picture(src: Path = SRC) -> str:
    """The rooms as an SVG: a box each from the top down, its purpose, and how many rooms below it imports."""
    below = defaultdict(list)
    for room, other in arrows(src):
        below[room].append(other)
    rows = [*ROOMS.items(), ("principled", METHODS.partition(": ")[2])]
    height, width = 46, 860
    boxes = []
    for i, (room, purpose) in enumerate(rows):
        y = 12 + i * height
        name = "statistics.py" if room == "statistics" else "__main__.py" if room == "__main__" else f"{room}/"
        imports = ", ".join(other for other in [*ROOMS, "principled"] if other in below[room]) or "torch alone"
        boxes.append(
            f'<rect class="{"core" if room == "principled" else "room"}" x="12" y="{y}" width="836" height="38" '
            'rx="6"/>'
            f'<text class="name" x="26" y="{y + 24}">{escape(name)}</text>'
            f'<text x="150" y="{y + 16}">{escape(purpose)}</text>'
            f'<text class="imports" x="150" y="{y + 31}">imports {escape(imports)}</text>'
        )
    style = (
        "text{font:13px system-ui,sans-serif;fill:#1f2933}.name{font-weight:650}.imports{font-size:11px;fill:#5b6670}"
        "rect{stroke:#9aa5b1;fill:#f6f8fa}.core{fill:#e3f1f4;stroke:#0f6e84}"
        "@media(prefers-color-scheme:dark){text{fill:#e4e7eb}.imports{fill:#9aa5b1}rect{fill:#1f2933;stroke:#52606d}.core{fill:#123b45}}"
    )
    total = 12 + len(rows) * height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" role="img" '
        f'aria-label="The rooms of the code from the top down, and what each imports"><style>{style}</style>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    print(picture(), end="")
