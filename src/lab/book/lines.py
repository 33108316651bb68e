"""How much of a chapter's visible code is the idea, and how much plumbing: ``python -m lab.book.lines``.

A line is plumbing if it imports, shapes tables, draws or prints; the rest is the idea: the method and the experiment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from lab.utils.files import ROOT

HIDDEN = {"hide-input", "remove-input", "remove-cell", "hide-cell"}
PLUMBING = re.compile(
    r"^\s*(from|import)\b|\b(pd|plt|sns|np\.round|ax|axes|fig|display|print)\b|DataFrame|\.(style|pivot|rename|set_\w+|groupby|format)\b"
)


def count(notebook: Path) -> dict[str, float]:
    """Code lines of a notebook: visible, of these plumbing and ideas; the median and longest visible cell; hidden
    lines."""
    cells = [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    shown, hidden = [], 0
    for cell in cells:
        lines = [
            line for line in "".join(cell["source"]).splitlines() if line.strip() and not line.strip().startswith("#")
        ]
        if HIDDEN & set(cell["metadata"].get("tags", ())):
            hidden += len(lines)
        elif lines:
            shown.append(lines)
    plumbing = sum(bool(PLUMBING.search(line)) for lines in shown for line in lines)
    visible = sum(map(len, shown))
    sizes = [len(lines) for lines in shown] or [0]
    return {
        "visible": visible, "idea": visible - plumbing, "plumbing": plumbing,
        "median cell": median(sizes), "longest cell": max(sizes), "hidden": hidden,
    }  # fmt: skip


def table(notebooks: Iterable[Path]) -> str:
    """The counts of several notebooks as text."""
    counts = {notebook.stem: count(notebook) for notebook in notebooks}
    columns = next(iter(counts.values()))
    head = f"{'chapter':<30}" + "".join(f"{column:>14}" for column in columns)
    return "\n".join(
        [head, *(f"{name:<30}" + "".join(f"{row[c]:>14g}" for c in columns) for name, row in counts.items())]
    )


if __name__ == "__main__":
    print(table(sorted((ROOT / "chapters").glob("*.ipynb"))))
