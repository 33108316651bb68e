"""Chapter 7's table of size and speed, from the record of ``benchmarks/stacks.py``."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from lab.experiments.sparsity.speed_results import machine
from lab.utils.errors import LabError
from lab.utils.files import ROOT

from .results import words
from .stack import COMBINATIONS

RECORD = ROOT / "data" / "benchmarks" / "stacks.json"


def record() -> dict[str, Any]:
    """What the benchmark wrote; LabError where it did not run yet."""
    if not RECORD.exists():
        raise LabError(f"{RECORD} is missing: run python benchmarks/stacks.py --json data/benchmarks/stacks.json")
    return dict(json.loads(RECORD.read_text(encoding="utf-8")))


def size_and_speed() -> pd.DataFrame:
    """For each stack of one seed: its file, the zeros of its plain layers, and the time of an image."""
    measured = record()
    print(machine(measured))
    value = {ratio["name"]: ratio["value"] for ratio in measured["ratios"]}
    return pd.DataFrame([
        {
            "stack": words(name), "file, kB": f"{value[f'{name}: file']:.1f}",
            "zeros in the layers": f"{value[f'{name}: zeros']:.1f} %", "µs an image": f"{value[f'{name}: time']:,.0f}",
            "times faster": f"{value[f'{name}: the fastest dense float32 engine over principled']:.1f}",
        }
        for name in COMBINATIONS
    ])  # fmt: skip
