"""Chapter 7's table of size and speed, from the record of ``benchmarks/stacks.py``."""

from __future__ import annotations

import pandas as pd

from lab.figures import measured

from .results import words
from .stack import COMBINATIONS


def size_and_speed() -> pd.DataFrame:
    """For each stack of one seed: its file, the zeros of its plain layers, and the time of an image."""
    stacks = measured.read("stacks")
    print(measured.circumstances(stacks))
    value = measured.values(stacks)
    return pd.DataFrame([
        {
            "stack": words(name), "file, kB": f"{value[f'{name}: file']:.1f}",
            "zeros in the layers": f"{value[f'{name}: zeros']:.1f} %", "µs an image": f"{value[f'{name}: time']:,.0f}",
            "times faster": f"{value[f'{name}: the fastest dense float32 engine over principled']:.1f}",
        }
        for name in COMBINATIONS
    ])  # fmt: skip
