"""The book's figures: one style, one palette with fixed roles, one way to put a figure on a page.

    from lab import figures
    with figures.style():
        fig, ax = plt.subplots()
        ax.plot(x, y, color=figures.CS, **figures.BOOK)
    figures.show(fig, alt="what a reader who cannot see it needs to know", profile=profile, runs=records)

A figure reaches the page as inline SVG whose text takes the page's colour and whose palette follows the reader's light
or dark theme. Two executions give the same bytes. ``python -m lab.figures`` prints the palette's style sheet
(``book/static/palette.css``).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE: dict[str, tuple[str, str]] = {
    "dense": ("#6b7280", "#a3abb8"),
    "cs": ("#0072b2", "#56b4e9"),
    "mp": ("#c8501e", "#f58b5c"),
    "gmp": ("#8a2be2", "#b260e8"),
    "sharing": ("#9a6a00", "#e0b040"),
    "smol": ("#00805f", "#3ccba0"),
    "sgd": ("#6b7280", "#a3abb8"),
    "adam": ("#c8501e", "#f58b5c"),
    "avagrad": ("#5b4fc4", "#a79cf5"),
    "accent": ("#0f6e84", "#63c5d8"),
}
"""Role to (colour on a light page, on a dark page). Each stands out from its page by 3:1 or more, and the roles that
meet in one figure stay apart for colour-blind readers; tests/test_figures.py computes both."""

DENSE, CS, MP, GMP = (PALETTE[role][0] for role in ("dense", "cs", "mp", "gmp"))
SHARING, SMOL, SGD, ADAM, AVAGRAD, ACCENT = (
    PALETTE[role][0] for role in ("sharing", "smol", "sgd", "adam", "avagrad", "accent")
)

BOOK: dict[str, Any] = {"marker": "o", "linestyle": "-"}
"""How a value measured by this book is drawn: a filled dot on a full line. ``ax.plot(x, y, color=CS, **BOOK)``."""

THESIS: dict[str, Any] = {"marker": "D", "linestyle": "--", "markerfacecolor": "none", "markeredgewidth": 1.5}
"""How a value printed in the thesis is drawn: a hollow diamond on a dashed line. Another protocol, so another mark."""

STYLE = Path(__file__).with_name("lab.mplstyle")


@contextmanager
def style() -> Iterator[None]:
    """The book's matplotlib style inside a ``with`` block; draw and :func:`show` within it or after it."""
    import matplotlib.pyplot as plt

    with plt.style.context(STYLE):
        yield


def svg(fig: Figure, alt: str) -> str:
    """``fig`` as an inline ``<svg>`` with text alternative ``alt``: the same bytes each time, in the page's colours."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    with plt.style.context(STYLE):
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    view = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', text)
    assert view, "matplotlib writes a viewBox"
    body = text[text.index(">", text.index("<svg")) + 1 :]
    # matplotlib's <style> would reach every element of the page; its two rules move to the root below
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", body, flags=re.S)
    used = set(re.findall(r"#([\w-]+)[\")]", body))
    body = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", body)
    body = body.replace("#000000", "currentColor")
    seen: set[str] = set()
    for role, (light, _) in PALETTE.items():
        if light not in seen:  # two roles of different chapters may share a colour
            body = body.replace(light, f"var(--pa-{role},{light})")
            seen.add(light)
    # a page holds many figures: a hundredth of a point is enough, and the root names the font once
    body = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", tag[0]), body)
    body = re.sub(r"font-family: 'DejaVu Sans', sans-serif;? ?| transform=\"rotate\(-0 [^)]*\)\"", "", body)
    body = re.sub(r"\s*\n\s*", "\n", body).strip()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {view[0]} '
        f'role="img" aria-label="{provenance.safe(alt)}" style="width:100%;height:auto;'
        f"max-width:{float(view[1]) * 4 / 3:.0f}px;font-family:system-ui,'Segoe UI','DejaVu Sans',sans-serif;"
        f'fill:currentColor;stroke-linejoin:round;stroke-linecap:butt">\n{body}'
    )


def show(
    fig: Figure,
    *,
    alt: str,
    profile: str | None = None,
    runs: Iterable[dict[str, Any]] | None = None,
    benchmark: str | None = None,
    close: bool = True,
) -> None:
    """Put ``fig`` on the page as the cell's output.

    Args:
        alt: what the figure shows, for a reader who cannot see it; required.
        profile: ``"quick"``, ``"short"`` or ``"paper"``: printed on the figure, so that nobody takes one for the
            other. Leave it out only where nothing was trained.
        runs: the records that it was drawn from. The figure's mark opens them: configuration, seeds, device, commit,
            time, and the command that repeats them.
        benchmark: the script of ``benchmarks/`` whose result is drawn, without ``.py``; its mark opens the machine.
        close: close the figure afterwards, so that a notebook does not show it twice.

    Raises:
        ValueError: ``alt`` is empty.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    if not alt.strip():
        raise ValueError("show(fig, alt=...): say in words what the figure shows")
    plain = f"[figure] {alt}" + (f" (profile {profile})" if profile else "")
    note = provenance.note(profile, runs, benchmark)
    display({"text/html": f'<div class="pa-plot">{note}{svg(fig, alt)}</div>', "text/plain": plain}, raw=True)
    if close:
        plt.close(fig)


def legend_below(*axes: Axes, columns: int | None = None, suffix: Mapping[str, str] | None = None) -> None:
    """Move the legend of the first panel that has one below the whole figure, and drop those of the others.

    Args:
        axes: the panels.
        columns: entries side by side; by default at most five, which fit the width of a page.
        suffix: what is added to an entry, by its label.
    """
    legends = [legend for ax in axes if (legend := ax.get_legend())]
    if not legends:
        return
    labels = [text.get_text() for text in legends[0].get_texts()]
    axes[0].figure.legend(
        legends[0].legend_handles,
        [label + (suffix or {}).get(label, "") for label in labels],
        loc="outside lower center",
        ncols=columns or min(len(labels), 5),
    )
    for legend in legends:
        legend.remove()


def kilobytes(size: float) -> str:
    """A file's bytes in words, ``117.7 kB`` or ``1.11 MB``; a dash where no file was written (NaN)."""
    if isnan(size):
        return "–"
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def table(
    frame: Any,
    *,
    profile: str | None = None,
    runs: Iterable[dict[str, Any]] | None = None,
    benchmark: str | None = None,
    words: bool = False,
) -> None:
    """Put a pandas table on the page, without its index; ``profile``, ``runs``, ``benchmark`` as for :func:`show`.

    ``words``: its cells hold sentences and may break their lines; numbers may not.
    """
    from IPython.display import display

    note = provenance.note(profile, runs, benchmark)
    rows = provenance.unturned(frame.to_html(index=False, border=0, classes="table", justify="left"))
    plain = frame.to_string(index=False)
    display(
        {"text/html": f'<div class="pa-plot pa-table{" pa-words" * words}">{note}{rows}</div>', "text/plain": plain},
        raw=True,
    )


def mark(runs: Iterable[dict[str, Any]]) -> None:
    """Put the mark alone on the page, below numbers that a cell has printed from the records ``runs``."""
    from IPython.display import display

    records = list(runs)
    note, count = provenance.note(runs=records), len({record["id"] for record in records})
    display(
        {"text/html": f'<div class="pa-cite">{note}</div>', "text/plain": f"[from {count} recorded runs]"}, raw=True
    )


def palette_css() -> str:
    """The palette as CSS variables ``--pa-<role>``, light and dark: the text of ``book/static/palette.css``."""

    def block(selector: str, theme: int) -> str:
        lines = "".join(f"  --pa-{role}: {colours[theme]};\n" for role, colours in PALETTE.items())
        return f"{selector} {{\n{lines}}}\n"

    note = (
        "/* Written by `python -m lab.figures > book/static/palette.css`; change src/lab/figures/__init__.py "
        "instead. */\n"
    )
    return note + block(":root", 0) + block('html[data-theme="dark"], [data-jp-theme-light="false"]', 1)
