"""The errata page: every correction of ``data/thesis/corrections.csv`` beside the check that shows it."""

from __future__ import annotations

from collections.abc import Collection

from lab import figures
from lab.datasets import thesis
from lab.utils.errors import LabError


class Checks:
    """What the page's cells have shown so far.

    Attributes:
        corrections: as :func:`lab.datasets.thesis.corrections` gives them, by id.
        findings: by the id of a correction, what its check found.
    """

    def __init__(self) -> None:
        self.corrections = thesis.corrections().set_index("id")
        self.findings: dict[str, str] = {}

    def shown(self, correction: str, finding: str, holds: bool) -> None:
        """Print what a check found. AssertionError if the correction does not hold, LabError if there is none."""
        if correction not in self.corrections.index:
            raise LabError(f"no correction is called {correction!r}: add a row to data/thesis/corrections.csv")
        assert holds, f"{correction}: {finding}"
        self.findings[correction] = finding
        print(f"{correction:>18}: {finding}")

    def tables(self, elsewhere: Collection[str] = ()) -> None:
        """The corrections of each chapter; ``elsewhere``: ids that another page checks. LabError if one has no check."""
        unchecked = sorted(set(self.corrections.index) - set(self.findings) - set(elsewhere))
        if unchecked:
            raise LabError(f"no cell checks {', '.join(unchecked)}")
        for chapter, part in self.corrections.groupby("chapter"):
            others = "".join(f"; on another page: {name}" for name in part.index.intersection(list(elsewhere)))
            print(f"Chapter {chapter}: {len(part)} corrections{others}")
            figures.table(part[["where", "printed", "corrected", "reason"]], words=True)
