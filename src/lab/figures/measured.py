"""What the scripts in ``benchmarks/`` measured, for the chapters that show it: ``data/benchmarks/NAME.json``."""

from __future__ import annotations

import json
from typing import Any

from lab.utils.errors import LabError
from lab.utils.files import ROOT

Measured = dict[str, Any]
RESULTS = ROOT / "data" / "benchmarks"


def read(name: str) -> Measured:
    """The result of ``benchmarks/NAME.py``: ``ratios``, ``machine``, ``command``, ``date``, ``note``.

    Raises:
        LabError: the script's result is missing or no JSON; the line names the command that makes it.
    """
    path, command = RESULTS / f"{name}.json", f"run python benchmarks/{name}.py --json data/benchmarks/{name}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise LabError(f"{path} is missing: {command}") from None
    except ValueError as error:
        raise LabError(f"{path} is damaged ({error}): {command}") from None


def values(measured: Measured) -> dict[str, float]:
    """Its numbers by name."""
    return {ratio["name"]: ratio["value"] for ratio in measured["ratios"]}


def machine(measured: Measured) -> str:
    """Where and when it was measured, in a line."""
    where = measured["machine"]
    threads = f"{where['threads']} thread{'s' * (where['threads'] > 1)}"
    return f"{where['cpu']}, {threads}, torch {where['torch']}, {measured['date'][:10]}"


def circumstances(measured: Measured) -> str:
    """The machine, and in a second line that it had other work to do, if it had."""
    return f"measured on {machine(measured)}\n{measured['note']}".rstrip()
