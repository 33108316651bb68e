"""Where a compiled network's time goes, as rows that print as a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A line of a report.

    Args:
        layer: name of the module or function, or ``(entering and leaving)`` for moving activations in and out.
        zeros: share of zero weights; None without weights.
        kernel: ``sparse``, ``dense`` or ``PyTorch``.
        microseconds: for one batch.
        share: of the sum of all lines.
    """

    layer: str
    zeros: float | None
    kernel: str
    microseconds: float
    share: float


class Report(list[Row]):
    """Rows that print as a table."""

    def __str__(self) -> str:
        width = max([len(row.layer) for row in self] + [5])
        lines = [f"{'layer':{width}}   zeros  kernel        µs  share"]
        for row in self:
            zeros = "" if row.zeros is None else f"{row.zeros:.1%}"
            lines.append(f"{row.layer:{width}}  {zeros:>6}  {row.kernel:7} {row.microseconds:8.1f}  {row.share:5.1%}")
        return "\n".join(lines)
