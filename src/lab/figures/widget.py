"""A figure that moves, with or without a kernel: one front-end module, two hosts.

In Jupyter a :class:`Widget` is an anywidget. In a built page the same module runs from a self-contained ``text/html``
output: the module, its style, its state as JSON and a small model (``host.js``), nothing fetched from anywhere. Python
computes every state from recorded runs; the page only chooses and draws. The decision and what was tried:
``docs/decisions/0004-widgets-two-hosts.md``.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from fastjsonschema import JsonSchemaValueException
from ipywidgets import DOMWidget

from lab.utils.errors import LabError
from lab.utils.files import schema

from . import provenance

HERE = Path(__file__).parent
LIVE_ONLY = ("application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json")
"""MIME types that hold a random model id: drop the first from a saved cell's outputs and the second from the notebook's
``metadata.widgets``, and two executions of a notebook give the same bytes."""
STILL = "This figure moves where scripts run: in the built page, or here once its cell is run."


def module(*names: str, folder: Path = HERE) -> str:
    """The text of a file in ``folder``, or of several joined: a subclass's ``_esm`` or ``_css``."""
    return "\n".join((folder / name).read_text(encoding="utf-8").strip() for name in names)


def check_index(name: str, index: int, count: int) -> None:
    """LabError unless one of ``count`` things stands at ``index``."""
    if not 0 <= index < count:
        raise LabError(f"{name} {index} is not there; choose one from 0 to {count - 1}")


def to_json(value: Any, where: str = "state") -> str:
    """Compact ASCII JSON that is safe between ``<script>`` tags: ``<`` and the two line separators are escaped.

    Raises:
        LabError: a number that is not finite, a key that is no text, or a type that JSON has not.
    """
    _check_plain(value, where)
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: U+2028 and U+2029 come out as escapes
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise LabError(f"widget {where}: the key {key!r} is no text; JSON has text keys only")
            _check_plain(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise LabError(f"widget {where} is {value}; give a finite number, or leave the moment out")
    elif not isinstance(value, str | int | float | None):
        raise LabError(f"widget {where} is a {type(value).__name__}; turn it into plain numbers, text, lists and dicts")


def _runs_in(value: Any, key: str = "") -> Iterator[str]:
    """The ids of runs that a state names, under ``run``, ``runs`` or ``id``."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _runs_in(item, name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _runs_in(item, key)
    elif isinstance(value, str) and key in ("run", "runs", "id") and re.fullmatch("[0-9a-f]{16}", value):
        yield value


class Widget(anywidget.AnyWidget):  # type: ignore[misc]
    """Base of the book's moving figures. A subclass gives ``_esm`` and ``_css`` (through :func:`module`),
    ``_schema`` (the file with the JSON Schema of its state), :meth:`describe` and :meth:`table`; the traits that it
    tags ``sync=True`` reach both hosts.

    Args:
        state: what the figure draws, plain JSON values. It is checked when it is set, also later.

    Attributes:
        state: the checked state.
        alt: one sentence for those who do not see the figure, and for pages that run no script.

    Raises:
        LabError: a state that the schema refuses, or that cannot be described.
    """

    _schema: Path | None = None
    """The file with the JSON Schema of the state."""

    state = traitlets.Dict().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, state: dict[str, Any], **traits: Any) -> None:
        super().__init__(state=state, **traits)

    def describe(self, state: dict[str, Any]) -> str:
        """One sentence that says what the figure shows, with its main numbers."""
        return type(self).__name__

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        """The figure's numbers as rows of text, the first row its head; shown where no script runs. May be empty."""
        return ()

    @traitlets.validate("state")
    def _check_state(self, proposal: traitlets.Bunch) -> dict[str, Any]:
        to_json(proposal.value)
        try:
            if self._schema:
                schema(self._schema)(proposal.value)
            self.alt = self.describe(proposal.value)
            self.table(proposal.value)
        except (JsonSchemaValueException, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LabError(
                f"{type(self).__name__} cannot draw this state ({type(error).__name__}: {reason}): "
                "make it by from_records, or as the class's description says"
            ) from None
        value: dict[str, Any] = proposal.value
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.alt}"  # the default holds a memory address, which would differ every time

    def values(self) -> dict[str, Any]:
        """What both hosts give the module: the synchronised traits that are this figure's own, by name."""
        foreign = set(DOMWidget.class_trait_names())
        names = sorted(self.trait_names(sync=True))
        return {name: getattr(self, name) for name in names if not name.startswith("_") and name not in foreign}

    def static_html(self) -> str:
        """The figure for a page without a kernel. Same state, same bytes; it may stand on one page twice."""
        values = to_json(self.values(), where="values")
        source = base64.b64encode(zlib.compress(self._esm.encode(), 9)).decode()  # a third of the module's size
        key = hashlib.sha256("\0".join((self._esm, self._css, values)).encode()).hexdigest()[:16]
        # MathJax is told to keep out; the still part stays where scripts do not run (untrusted notebooks, code hosts)
        return (
            f'<figure class="pa-widget tex2jax_ignore mathjax_ignore" data-key="{key}">\n{self._note()}'
            f"<style>\n{self._css}\n</style>\n"
            f'<div class="pa-still">{self._still()}</div>\n'
            f'<script type="application/json">{values}</script>\n'
            f'<script>(\n{module("host.js")}\n)("{key}", "{source}");</script>\n</figure>'
        )

    def _note(self) -> str:
        """The mark that opens the runs which the state names."""
        ids = set(_runs_in(self.state))
        return f'<div class="pa-note">{provenance.button(sorted(ids))}</div>\n' if ids else ""

    def _still(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        text = f"<p>{html.escape(self.alt)}</p><p>{STILL}</p>"
        head, *body = self.table(self.state) or [()]
        if body:
            rows = "".join(row(cells, "td") for cells in body)
            text += f"<details><summary>Its numbers</summary><table>{row(head, 'th')}{rows}</table></details>"
        return text

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        live = super()._repr_mimebundle_(**kwargs)
        if live is None:
            return None
        data, metadata = live  # anywidget 0.11 returns both
        return data | {"text/plain": repr(self), "text/html": self.static_html()}, metadata
