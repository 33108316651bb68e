"""Accuracy against sparsity: every recorded run a point that opens its run, the thesis's points beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

COLOURS = ("dense", "cs", "mp", "gmp", "sharing", "smol", "avagrad", "accent")
PROTOCOLS = ("quick", "short", "paper", "thesis")
AXES = ("linear", "logit")
RUN = ("id", "experiment", "data", "device", "commit", "recorded")


HERE = Path(__file__).parent


class FrontierWidget(Widget):
    """Accuracy against sparsity over recorded runs of any experiment; no kernel needed.

    A filled mark is a configuration that this book trained, at the mean over its seeds, with bars of one standard
    deviation and a small dot for each seed where there are several. A hollow diamond is a point that the thesis prints.
    Choosing a point, by mouse or by arrow keys, opens it: for a run its experiment, configuration, seed, device, commit and
    time, and the command that repeats it. Methods and protocols are switched on and off; the sparsity axis is linear, or
    logit, on which 90, 99 and 99.9 % stand equally far apart.

    Args:
        state: as :func:`lab.figures.frontier.state.frontier_state` makes it.
        network: index of the network that is shown first.
        axis: ``"linear"`` (default, since it shows the dense network where it is) or ``"logit"``.
        point: index among the network's points of the one that is open first. Default: the sparsest that was trained
            here, or the sparsest printed.
        methods_off, protocols_off: keys of methods and protocols that are hidden first. Default: none.

    Raises:
        LabError: a state of another shape, with the place named; a choice that is not there.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)

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
        if not 0 <= network < len(networks):
            raise LabError(f"network {network} is not there; choose one from 0 to {len(networks) - 1}")
        if axis not in AXES:
            raise LabError(f"axis {axis!r} is not there; choose {' or '.join(AXES)}")
        points = networks[network]["points"]
        if point is None:
            here = [i for i, p in enumerate(points) if "runs" in p]
            point = (here or range(len(points)))[-1]
        if not 0 <= point < len(points):
            raise LabError(f"point {point} is not there; choose one from 0 to {len(points) - 1}")
        for off, known in ((methods_off, [m["key"] for m in state["methods"]]), (protocols_off, state["protocols"])):
            if unknown := set(off) - set(known):
                raise LabError(
                    f"{sorted(unknown)[0]!r} cannot be hidden, it is not there; choose from {', '.join(known)}"
                )
        self.network, self.axis, self.point = network, axis, point
        self.methods_off, self.protocols_off = list(methods_off), list(protocols_off)

    def check(self, state: dict[str, Any]) -> None:
        check_frontier_state(state)

    def describe(self, state: dict[str, Any]) -> str:
        points = [p for network in state["networks"] for p in network["points"]]
        ours = [p for p in points if "runs" in p]
        text = f"{state['title']}: {len(points) - len(ours)} points printed in the thesis"
        pruned = [p for p in ours if p["sparsity"]] or ours
        if not ours:
            return text + "."
        best, sparse = max(pruned, key=lambda p: p["accuracy"]), max(pruned, key=lambda p: p["sparsity"])
        names = {m["key"]: m["name"] for m in state["methods"]}
        said = (
            f"is {names[p['method']]} at {p['sparsity']:.1%} zeros with {p['accuracy']:.1%} ({p['protocol']})"
            for p in (best, sparse)
        )
        runs = sum(len(p["runs"]) for p in ours)
        return f"{text} and {len(ours)} measured by this book, from {runs} runs; the most accurate pruned network {', the sparsest '.join(said)}."

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        names = {m["key"]: m["name"] for m in state["methods"]}

        def share(value: float | None, spread: float | None) -> str:
            return "–" if value is None else f"{value:.1%}" + (f" ± {spread:.1%}" if spread is not None else "")

        return [
            ("Network", "Method", "Told", "Protocol", "Zeros", "Test accuracy", "From"),
            *(
                (
                    network["name"],
                    names[p["method"]],
                    p["told"] or "–",
                    p["protocol"],
                    share(p["sparsity"], p["sparsity_spread"]),
                    share(p["accuracy"], p["accuracy_spread"]),
                    ", ".join(r["id"] for r in p["runs"]) if "runs" in p else p["printed"]["source"],
                )
                for network in state["networks"]
                for p in network["points"]
            ),
        ]


def check_frontier_state(state: dict[str, Any]) -> None:
    """Raise ``LabError`` for the first place where ``state`` is not what :class:`FrontierWidget` draws."""

    def need(good: bool, place: str, rule: str) -> None:
        if not good:
            raise LabError(f"frontier state: {place} {rule}; make the state with frontier_state(...)")

    def number(value: Any, high: float = math.inf) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= high

    try:
        for key in ("title", "strip"):
            need(isinstance(state[key], str), key, "must be text")
        need(bool(state["methods"]), "methods", "must not be empty")
        for i, method in enumerate(state["methods"]):
            need(
                isinstance(method["key"], str) and isinstance(method["name"], str),
                f"methods[{i}]",
                "needs key and name",
            )
            need(method["colour"] in COLOURS, f"methods[{i}].colour", f"must be one of {', '.join(COLOURS)}")
        known = {m["key"] for m in state["methods"]}
        need(bool(state["protocols"]) and set(state["protocols"]) <= set(PROTOCOLS), "protocols", "must be known ones")
        need(bool(state["networks"]), "networks", "must not be empty")
        for n, network in enumerate(state["networks"]):
            need(isinstance(network["name"], str), f"networks[{n}].name", "must be text")
            need(bool(network["points"]), f"networks[{n}].points", "must not be empty")
            for i, point in enumerate(network["points"]):
                at = f"networks[{n}].points[{i}]"
                need(point["method"] in known, f"{at}.method", "must be one of methods")
                need(point["protocol"] in state["protocols"], f"{at}.protocol", "must be one of protocols")
                for key in ("series", "told"):
                    need(isinstance(point[key], str), f"{at}.{key}", "must be text")
                need(number(point["sparsity"], 1), f"{at}.sparsity", "must be a share between 0 and 1")
                for key in ("accuracy_spread", "sparsity_spread"):
                    need(point[key] is None or number(point[key]), f"{at}.{key}", "must be null or at least 0")
                printed = point["protocol"] == "thesis"
                accuracy = point["accuracy"]
                need(
                    number(accuracy, 1) or (printed and accuracy is None),
                    f"{at}.accuracy",
                    "must be a share between 0 and 1",
                )
                if printed:
                    for key in ("row", "source"):
                        need(isinstance(point["printed"][key], str), f"{at}.printed.{key}", "must be text")
                    continue
                need(bool(point["runs"]), f"{at}.runs", "must not be empty")
                for j, run in enumerate(point["runs"]):
                    spot = f"{at}.runs[{j}]"
                    for key in RUN:
                        need(isinstance(run[key], str), f"{spot}.{key}", "must be text")
                    need(
                        all(number(run[key], 1) for key in ("accuracy", "sparsity")),
                        spot,
                        "needs accuracy and sparsity",
                    )
                    need(number(run["seed"]) and number(run["seconds"]), spot, "needs a seed and seconds")
                    need(isinstance(run["changed"], bool), f"{spot}.changed", "must be true or false")
                    need(
                        run["command"] is None or isinstance(run["command"], str),
                        f"{spot}.command",
                        "must be text or null",
                    )
                    settings = run["configuration"].values()
                    need(all(isinstance(v, str) for v in settings), f"{spot}.configuration", "must hold text")
    except KeyError as error:
        raise LabError(f"frontier state: {error} is missing; make the state with frontier_state(...)") from None
    except (TypeError, AttributeError) as error:
        raise LabError(
            f"frontier state: a part has the wrong type ({error}); make it with frontier_state(...)"
        ) from None
