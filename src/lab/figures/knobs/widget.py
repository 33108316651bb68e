"""Recorded runs as points: the one whose settings are nearest to the knobs is marked, the reader's own stand beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

HERE = Path(__file__).parent


class KnobsWidget(Widget):
    """Recorded runs of one method, their settings on knobs; no kernel needed.

    Without a kernel the knobs are part of the figure; with one they are those of :class:`lab.figures.knobs.panel.Panel`
    and only move ``settings``.

    Args:
        state: as :func:`lab.figures.knobs.panel.knobs_state` makes it.
        live: the knobs stand outside the figure.

    Attributes:
        settings: where the knobs stand, a number a knob.
        own: the reader's own points, each ``{"values": [...], "x": ..., "y": ...}``.

    Raises:
        LabError: settings beyond a knob's ends, or points of another number of settings.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)
    _schema = HERE / "widget.schema.json"

    settings: traitlets.List[float] = traitlets.List().tag(sync=True)
    own: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    live = traitlets.Bool().tag(sync=True)

    def __init__(self, state: dict[str, Any], live: bool = False, **traits: Any) -> None:
        super().__init__(state, **traits)
        if any(len(point["values"]) != len(state["knobs"]) for point in state["points"]):
            raise LabError("a point has another number of settings than there are knobs")
        self.settings, self.live = [knob["value"] for knob in state["knobs"]], live

    @traitlets.validate("settings")
    def _within(self, proposal: traitlets.Bunch) -> list[float]:
        for knob, value in zip(self.state["knobs"], proposal.value, strict=True):
            if not knob["low"] <= value <= knob["high"]:
                raise LabError(f"{knob['label']} goes from {knob['low']:g} to {knob['high']:g}, not to {value:g}")
        return list(proposal.value)

    def describe(self, state: dict[str, Any]) -> str:
        best = max(state["points"], key=lambda point: point["y"])
        where = ", ".join(f"{k['label']} {v:g}" for k, v in zip(state["knobs"], best["values"], strict=True))
        return (
            f"{state['title']}: {len(state['points'])} recorded runs by {state['x']['label']} and "
            f"{state['y']['label']}; the best has {state['y']['label']} {best['y']:.1%} ({where})."
        )

    def table(self, state: dict[str, Any]) -> list[tuple[str, ...]]:
        head = (*(knob["label"] for knob in state["knobs"]), state["x"]["label"], state["y"]["label"], "Run")
        rows = [(*(f"{v:g}" for v in p["values"]), f"{p['x']:.4g}", f"{p['y']:.1%}", p["run"]) for p in state["points"]]
        return [head, *rows]
