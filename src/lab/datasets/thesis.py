"""The thesis's own numbers: every table, the facts its prose states, and what needs correcting.

The book reads them from here; ``data/thesis/README.md`` says what the columns mean. A file is checked whenever it is
read: what is damaged, or unknown, raises a ``LabError`` whose one line says what to do, or what there is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab.utils.errors import LabError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).resolve().parents[3] / "data" / "thesis"
NUMBER = r"-?\d+(\.\d+)?(e[-+]?\d+)?"
TABLE = {"row": ".+", "column": ".+", "value": NUMBER, "unit": ".+", "spread": f"({NUMBER})?", "n": r"\d*"}
TABLE |= {"source": ".+", "where": ".+", "note": ".*"}
PLACE = {"id": "[a-z0-9-]+", "chapter": "[3-6]", "where": r"[3-6](\.\d+)+"}
FACT = PLACE | {"claim": ".+", "printed": ".+", "value": f"{NUMBER}(;{NUMBER})*", "unit": ".*", "kind": "[a-z]+"}
CORRECTION = PLACE | {"printed": ".+", "corrected": ".+", "reason": ".+", "kind": "[a-z]+"}


class Fact(NamedTuple):
    """A statement with a number in it; ``value`` is a tuple where the thesis lists several in one unit."""

    id: str
    chapter: int
    where: str
    claim: str
    printed: str
    value: float | tuple[float, ...]
    unit: str
    kind: str


def _read(name: str, columns: dict[str, str], *key: str) -> pd.DataFrame:
    """One file, as text. ``columns`` gives each cell's pattern; no two rows may share their ``key``."""
    import pandas as pd

    path, seen = FOLDER / name, set()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file, strict=True)
        if header != list(columns) or not rows:
            raise ValueError(f"expected the columns {','.join(columns)} and rows below")
        for i, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise ValueError(f"row {i} has {len(row)} cells instead of {len(header)}")
            for column, cell in zip(header, row, strict=True):
                if not re.fullmatch(columns[column], cell):
                    raise ValueError(f"row {i} has {cell!r} as its {column}")
            if (identity := tuple(row[header.index(k)] for k in key)) in seen:
                raise ValueError(f"row {i} repeats {' / '.join(identity)}")
            seen.add(identity)
    except (OSError, ValueError, csv.Error) as e:  # ValueError: also no UTF-8, or an empty file
        why = f"cannot be read: {e.strerror}" if isinstance(e, OSError) else f"is damaged: {' '.join(str(e).split())}"
        raise LabError(f"{path} {why}; restore it with `git checkout -- data/thesis/{name}`") from None
    return pd.DataFrame(rows, columns=header)


def _known(wanted: str, among: Iterable[str], what: str) -> None:
    if wanted not in (names := list(among)):
        few = names if len(names) <= 40 else get_close_matches(wanted, names, n=8, cutoff=0)
        raise LabError(f"no {what} {wanted!r}; there are {len(names)}: {', '.join(few)}{', ...' * (few != names)}")


def tables() -> list[str]:
    """Names of all tables: ``["3.1", ..., "6.2"]``."""
    return sorted(p.stem.removeprefix("table-").replace("-", ".") for p in FOLDER.glob("table-*.csv"))


class Cell(NamedTuple):
    """One number of a table; ``printed`` is the value with its digits as they stand."""

    value: float
    unit: str
    printed: str


def _stamp(path: Path) -> tuple[Path, int]:
    """What a cached reading is kept under: a file that changes is read again."""
    return path, path.stat().st_mtime_ns if path.exists() else 0


@cache  # a page asks for the same table hundreds of times
def _table(path: Path, stamp: int) -> tuple[pd.DataFrame, dict[tuple[str, str], Cell]]:
    import pandas as pd

    data = _read(path.name, TABLE, "row", "column")
    numbers = {"value": data["value"].astype(float), "spread": pd.to_numeric(data["spread"])}
    data = data.assign(**numbers, n=pd.to_numeric(data["n"]).astype("Int64"), printed=data["value"])
    cells = zip(data["row"], data["column"], data["value"], data["unit"], data["printed"], strict=True)
    return data, {(row, column): Cell(*rest) for row, column, *rest in cells}


def _known_table(name: str) -> tuple[pd.DataFrame, dict[tuple[str, str], Cell]]:
    path = FOLDER / f"table-{name.replace('.', '-')}.csv"
    if not path.exists():
        _known(name, tables(), f"table in {FOLDER} called")
    return _table(*_stamp(path))


def table(name: str) -> pd.DataFrame:
    """One table, a row per number: the file's columns, and ``printed``: the value with its digits as they stand."""
    return _known_table(name)[0].copy()


def pivot(name: str, what: str = "value") -> pd.DataFrame:
    """One table as printed, rows × columns, NaN where it has no number; ``what`` is any column of ``table``."""
    data = table(name)
    _known(what, data, f"column of table {name} called")
    by_length = data.sort_values(
        "row", key=lambda r: -r.map(r.value_counts()), kind="stable"
    )  # a full row has the order
    order = {"index": data["row"].unique(), "columns": by_length["column"].unique()}
    return data.pivot(index="row", columns="column", values=what).reindex(**order)


def cell(name: str, row: str, column: str) -> Cell:
    """One number of a table: ``cell("4.1", row="CS", column="ResNet-20")``."""
    data, cells = _known_table(name)
    if (row, column) not in cells:
        _known(row, data["row"].unique(), f"row in table {name} called")
        _known(column, data.loc[data["row"] == row, "column"], f"number of {row} in table {name} under")
    return cells[row, column]


def value(name: str, row: str, column: str) -> float:
    """The value of one number, in the unit that ``table`` gives."""
    return float(cell(name, row, column).value)


@cache
def _facts(path: Path, stamp: int) -> dict[str, Fact]:
    by_id = {}
    for r in _read(path.name, FACT, "id").to_dict("records"):
        numbers = tuple(map(float, r["value"].split(";")))
        values = {"chapter": int(r["chapter"]), "value": numbers if numbers[1:] else numbers[0]}
        by_id[r["id"]] = Fact(**r | values)
    return by_id


def facts(chapter: int | None = None, kind: str | None = None) -> list[Fact]:
    """All facts, or those of one chapter (3 to 6) or kind (measurement, ratio, count, setting)."""
    every = _facts(*_stamp(FOLDER / "facts.csv")).values()
    return [f for f in every if chapter in (None, f.chapter) and kind in (None, f.kind)]


def fact(id: str) -> Fact:
    """One fact: ``fact("fold-28-10-4-error").value`` is in the fact's ``unit``."""
    by_id = _facts(*_stamp(FOLDER / "facts.csv"))
    _known(id, by_id, "fact called")
    return by_id[id]


def corrections() -> pd.DataFrame:
    """What the thesis prints wrongly, one row each: id, chapter, where, printed, corrected, reason, kind."""
    return _read("corrections.csv", CORRECTION, "id").astype({"chapter": int})
