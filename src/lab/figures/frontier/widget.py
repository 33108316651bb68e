"""Accuracy against sparsity: every recorded run a point that opens its run, the thesis's points beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, check_index, module
from lab.utils.errors import LabError

AXES = ("linear", "logit")
HERE = Path(__file__).parent


class FrontierWidget(Widget):
    """Accuracy against sparsity over recorded runs of any experiment; no kernel needed.

    A filled mark is a configuration that this book trained, at the mean over its seeds, with bars of one standard
    deviation and a small dot for each seed where there are several. A hollow diamond is a point that the thesis prints.
    Choosing a point, by mouse or by arrow keys, opens it: for a run its experiment, configuration, seed, device, commit
    and time, and the command that repeats it. Methods and protocols are switched on and off; the sparsity axis is
    linear, or logit, on which 90, 99 and 99.9 % stand equally far apart.

    Args:
        state: as :func:`lab.figures.frontier.state.frontier_state` makes it.
        network: index of the network that is shown first.
        axis: ``"linear"`` (default, since it shows the dense network where it is) or ``"logit"``.
        point: index among the network's points of the one that is open first. Default: the sparsest that was trained
            here, or the sparsest printed.
        methods_off, protocols_off: keys of methods and protocols that are hidden first. Default: none.

    Raises:
        LabError: a choice that is not there.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)
    _schema = HERE / "widget.schema.json"

    network = traitlets.Int().tag(sync=True)
    axis = traitlets.Unicode("linear").tag(sync=True)
    point = traitlets.Int().tag(sync=True)
    run = traitlets.Int().tag(sync=True)
    methods_off: traitlets.List[str] = traitlets.List().tag(sync=True)
    protocols_off: traitlets.List[str] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        state: dict[str, Any],
        network: int = 0,
        axis: str = "linear",
        point: int | None = None,
        methods_off: Sequence[str] = (),
        protocols_off: Sequence[str] = (),
        **traits: Any,
    ) -> None:
        super().__init__(state, **traits)
        networks = state["networks"]
        check_index("network", network, len(networks))
        if axis not in AXES:
            raise LabError(f"axis {axis!r} is not there; choose {' or '.join(AXES)}")
        points = networks[network]["points"]
        if point is None:
            here = [i for i, p in enumerate(points) if "runs" in p]
            point = (here or range(len(points)))[-1]
        check_index("point", point, len(points))
        for off, known in ((methods_off, [m["key"] for m in state["methods"]]), (protocols_off, state["protocols"])):
            if unknown := set(off) - set(known):
                raise LabError(
                    f"{sorted(unknown)[0]!r} cannot be hidden, it is not there; choose from {', '.join(known)}"
                )
        self.network, self.axis, self.point = network, axis, point
        self.methods_off, self.protocols_off = list(methods_off), list(protocols_off)

    def describe(self, state: dict[str, Any]) -> str:
        points = [p for network in state["networks"] for p in network["points"]]
        ours = [p for p in points if "runs" in p]
        text = f"{state['title']}: {len(points) - len(ours)} points printed in the thesis"
        pruned = [p for p in ours if p["sparsity"]] or ours
        if not ours:
            return text + "."
        best, sparse = max(pruned, key=lambda p: p["accuracy"]), max(pruned, key=lambda p: p["sparsity"])
        names = {m["key"]: m["name"] for m in state["methods"]}
        described = (
            f"is {names[p['method']]} at {p['sparsity']:.1%} zeros with {p['accuracy']:.1%} ({p['protocol']})"
            for p in (best, sparse)
        )
        runs = sum(len(p["runs"]) for p in ours)
        return (
            f"{text} and {len(ours)} measured by this book, from {runs} runs; the most accurate pruned network "
            f"{', the sparsest '.join(described)}."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        names = {m["key"]: m["name"] for m in state["methods"]}

        def share(value: float | None, spread: float | None) -> str:
            return "–" if value is None else f"{value:.1%}" + (f" ± {spread:.1%}" if spread is not None else "")

        return [
            ("Network", "Method", "Setting", "Protocol", "Zeros", "Test accuracy", "From"),
            *(
                (
                    network["name"],
                    names[p["method"]],
                    p["setting"] or "–",
                    p["protocol"],
                    share(p["sparsity"], p["sparsity_spread"]),
                    share(p["accuracy"], p["accuracy_spread"]),
                    ", ".join(r["id"] for r in p["runs"]) if "runs" in p else p["printed"]["source"],
                )
                for network in state["networks"]
                for p in network["points"]
            ),
        ]
