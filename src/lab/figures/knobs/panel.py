"""Knobs that train: a panel of sliders whose button runs one quick training in the kernel.

With a kernel a :class:`Panel` is a box of ipywidgets above the chapter's recorded runs; in a built page its place holds
the figure alone, whose own knobs find the nearest recorded run.
"""

from __future__ import annotations

import html
import math
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ipywidgets
import torch

from lab.runs import Record, Run
from lab.training import Diverged, Stopped
from lab.utils.errors import LabError

from .widget import KnobsWidget

MOST_SECONDS = 60.0
"""A training ends after so long, finished or not: a reader waits for it."""

Train = Callable[[dict[str, float], Callable[[int], None], Callable[[], bool]], dict[str, float]]


@dataclass(frozen=True)
class Knob:
    """A setting that the reader turns: its place in a run's configuration, its words, and how far it goes.

    ``key`` is a name under ``method`` in a configuration. ``log`` turns it by factors, ``whole`` in whole numbers.
    """

    key: str
    label: str
    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Axis:
    """What a point's place says: a figure of the record, its words, and its scale (``linear``, ``log``, ``share``)."""

    key: str
    label: str
    scale: str = "linear"


ACCURACY = Axis("accuracy", "test accuracy", "share")


def settings_of(knobs: Sequence[Knob], record: Record) -> list[float]:
    """Where the knobs stood in a recorded run."""
    return [float(record["config"]["method"][knob.key]) for knob in knobs]


def alike(run: Run, knobs: Sequence[Knob], records: Sequence[Record]) -> list[Record]:
    """The records whose configuration differs from the run's in the knobs alone, and whose knobs stand at a number."""
    turned = {knob.key for knob in knobs} | {"name"}

    def rest(config: dict[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in config["method"].items() if key not in turned}
        return {"model": config.get("model"), "training": config["training"], "data": config["data"], "method": kept}

    found = [record for record in records if rest(record["config"]) == rest(run.config)]
    return [r for r in found if all(r["config"]["method"].get(knob.key) is not None for knob in knobs)]


def points_of(knobs: Sequence[Knob], records: Sequence[Record], x: Axis) -> list[dict[str, Any]]:
    """Recorded runs as points of the figure."""
    return [
        {"values": settings_of(knobs, r), "x": r["figures"][x.key], "y": r["figures"][ACCURACY.key], "run": r["id"]}
        for r in records
    ]


def knobs_state(title: str, knobs: Sequence[Knob], points: Sequence[dict[str, Any]], x: Axis) -> dict[str, Any]:
    """The state of :class:`lab.figures.knobs.widget.KnobsWidget`; the knobs stand at the first point.

    Raises:
        LabError: there is no point.
    """
    if not points:
        raise LabError(f"{title}: no recorded run has these knobs")
    start = [min(max(v, knob.low), knob.high) for knob, v in zip(knobs, points[0]["values"], strict=True)]
    return {
        "title": title,
        "knobs": [
            {"label": k.label, "low": k.low, "high": k.high, "value": v, "log": k.log, "whole": k.whole}
            for k, v in zip(knobs, start, strict=True)
        ],
        "x": {"label": x.label, "scale": x.scale},
        "y": {"label": ACCURACY.label, "scale": ACCURACY.scale},
        "points": list(points),
    }


def trained(run: Run, on_epoch: Callable[[int], None], stop: Callable[[], bool]) -> dict[str, float]:
    """The figures of one training, on this process's CPU; nothing of it is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        result = run.module.compute(run, torch.device("cpu"), Path(folder, "checkpoint"), on_epoch=on_epoch, stop=stop)
    return dict(result["figures"])


class Panel(ipywidgets.VBox):  # type: ignore[misc]
    """Sliders, a button, a progress bar and a line of code above the recorded runs.

    Args:
        title: of the figure.
        run: a quick run of the chapter's method; the knobs change its configuration.
        knobs: what can be turned.
        records: the chapter's records; those that differ from ``run`` in the knobs alone become points.
        x: what the points are drawn against.
        code: a line of code with a place for each knob's key: ``"pruning.run('quick', 'cs', s_init={s_init})"``.
        points: instead of ``records``, points as :func:`points_of` makes them.
        train: gives the figures of one training, from the settings by key, a function to call after each epoch, and one
            that says when to stop; default trains ``run`` with each value put under its key in ``method``.
        epochs: that ``train`` takes; default ``run``'s.

    Raises:
        LabError: no record has these knobs.
    """

    def __init__(
        self,
        title: str,
        run: Run,
        knobs: Sequence[Knob],
        records: Sequence[Record] = (),
        *,
        x: Axis,
        code: str,
        points: Sequence[dict[str, Any]] | None = None,
        train: Train | None = None,
        epochs: int | None = None,
    ) -> None:
        self.knobs, self.x, self.code = list(knobs), x, code
        self.training = train or (lambda values, on_epoch, stop: trained(changed(run, values), on_epoch, stop))
        found = points_of(knobs, alike(run, knobs, records), x) if points is None else points
        self.figure = KnobsWidget(knobs_state(title, knobs, found, x), live=True)
        self.sliders = [_slider(knob, v) for knob, v in zip(knobs, self.figure.settings, strict=True)]
        self.train = ipywidgets.Button(description="Train with these", button_style="primary")
        self.stop = ipywidgets.Button(description="Stop", disabled=True)
        self.progress = ipywidgets.IntProgress(max=epochs or run.module.epochs(run), description="epochs")
        self.words, self.line = ipywidgets.HTML(), ipywidgets.Text(description="as code", disabled=False)
        self.line.layout.width = "100%"
        self._stopping, self._worker = threading.Event(), threading.Thread()
        for slider in self.sliders:
            slider.observe(lambda _: self._turned(), "value")
        self.train.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self._stopping.set())
        row = ipywidgets.HBox([self.train, self.stop, self.progress])
        super().__init__([*self.sliders, row, self.line, self.words, self.figure])
        self._turned()

    @property
    def values(self) -> dict[str, float]:
        """Where the knobs stand, by key."""
        return {knob.key: slider.value for knob, slider in zip(self.knobs, self.sliders, strict=True)}

    def begin(self) -> threading.Thread:
        """Train with the present settings, in a thread, so that the sliders and Stop go on working."""
        self._stopping.clear()
        self.progress.value, self.train.disabled, self.stop.disabled = 0, True, False
        self.words.value = "training …"
        self._worker = threading.Thread(target=self._work, args=(self.values,), daemon=True)
        self._worker.start()
        return self._worker

    def _work(self, values: dict[str, float]) -> None:
        until = time.monotonic() + MOST_SECONDS
        begun = time.monotonic()

        def stop() -> bool:
            return self._stopping.is_set() or time.monotonic() > until

        def on_epoch(_: int) -> None:
            self.progress.value += 1

        try:
            figures = self.training(values, on_epoch, stop)
        except Stopped:
            why = "stopped" if self._stopping.is_set() else f"stopped after {MOST_SECONDS:.0f} s: a slow machine"
            self.words.value = f"{why}; no point was added"
        except (LabError, Diverged) as error:
            self.words.value = html.escape(" ".join(str(error).split()))
        else:
            point = {"values": list(values.values()), "x": figures[self.x.key], "y": figures[ACCURACY.key]}
            self.figure.own = [*self.figure.own, point]
            self.words.value = f"test accuracy {point['y']:.1%}, in {time.monotonic() - begun:.0f} s: your own point"
        finally:
            self.train.disabled, self.stop.disabled = False, True

    def _turned(self) -> None:
        self.figure.settings = list(self.values.values())
        self.line.value = self.code.format(**{key: f"{value:.3g}" for key, value in self.values.items()})

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.figure.alt}"  # the default holds every child

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs)
        page = KnobsWidget(self.figure.state).static_html()
        return dict(bundle) | {"text/plain": repr(self), "text/html": page}


def changed(run: Run, values: dict[str, float]) -> Run:
    """The run with its method's settings replaced."""
    return replace(run, config=run.config | {"method": run.config["method"] | values})


def _slider(knob: Knob, value: float) -> Any:
    words = {
        "description": knob.label,
        "value": value,
        "continuous_update": False,
        "style": {"description_width": "12em"},
    }
    if knob.log:
        made = ipywidgets.FloatLogSlider(
            min=math.log10(knob.low), max=math.log10(knob.high), step=0.05, readout_format=".2g", **words
        )
    elif knob.whole:
        made = ipywidgets.IntSlider(min=int(knob.low), max=int(knob.high), **(words | {"value": int(value)}))
    else:
        made = ipywidgets.FloatSlider(
            min=knob.low, max=knob.high, step=(knob.high - knob.low) / 50, readout_format=".3g", **words
        )
    made.layout.width = "100%"
    return made
