"""Where the bits went: every weight of a recorded network, coloured by its precision; and how far one bears to be pushed."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

HERE = Path(__file__).parent


class PrecisionWidget(Widget):
    """A precision map down to the single weight, over recorded networks; no kernel needed.

    Buttons choose a family of networks, a slider goes along its penalties; a layer is chosen in the profile of mean bits,
    and its weights are drawn as filters × inputs, each cell a kernel. The figure states average bits, the measured size of
    the packed file and the measured accuracy of the very network on screen. A second view pushes single weights and shows
    the loss that was measured there.

    Args:
        state: as :func:`lab.figures.precision_map.state.precision_state` makes it from records.
        family, position, layer: indices of what is shown first. Default: the last family, its middle network, and the
            layer in the middle.

    Raises:
        LabError: a state of another shape, with the place named; an index that nothing stands at.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)

    family = traitlets.Int().tag(sync=True)
    position = traitlets.Int().tag(sync=True)
    layer = traitlets.Int().tag(sync=True)
    weight = traitlets.Int().tag(sync=True)
    push = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        state: dict[str, Any],
        family: int | None = None,
        position: int | None = None,
        layer: int | None = None,
        **traits: Any,
    ) -> None:
        super().__init__(state, **traits)
        family = len(state["families"]) - 1 if family is None else family
        if not 0 <= family < len(state["families"]):
            raise LabError(f"family {family} is not there; choose one from 0 to {len(state['families']) - 1}")
        networks = state["families"][family]["networks"]
        position = len(networks) // 2 if position is None else position
        if not 0 <= position < len(networks):
            raise LabError(f"position {position} is no recorded network; choose one from 0 to {len(networks) - 1}")
        layer = len(state["layers"]) // 2 if layer is None else layer
        if not 0 <= layer < len(state["layers"]):
            raise LabError(f"layer {layer} is not there; choose one from 0 to {len(state['layers']) - 1}")
        self.family, self.position, self.layer = family, position, layer
        if "basins" in state:
            self.weight = len(state["basins"]["weights"]) // 2
            self.push = len(state["basins"]["pushes"]) - 3

    def check(self, state: dict[str, Any]) -> None:
        check_precision_state(state)

    def describe(self, state: dict[str, Any]) -> str:
        networks = [n for family in state["families"] for n in family["networks"]]
        few, many = (pick(networks, key=lambda n: n["bits"]) for pick in (min, max))
        return (
            f"{state['title']} ({state['profile']} profile): {len(networks)} recorded networks, from {many['bits']:.2f} bits a "
            f"weight ({many['bytes']['file'] / 1000:.0f} kB, {many['accuracy']:.1%} test accuracy) to {few['bits']:.2f} "
            f"({few['bytes']['file'] / 1000:.0f} kB, {few['accuracy']:.1%}); the dense network has {state['dense']:.1%}."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        return [
            ("Network", "Penalty λ", "Bits a weight", "File, kB", "Test accuracy"),
            *(
                (
                    f["name"],
                    f"{n['lambda']:g}",
                    f"{n['bits']:.2f}",
                    f"{n['bytes']['file'] / 1000:.1f}",
                    f"{n['accuracy']:.1%}",
                )
                for f in state["families"]
                for n in f["networks"]
            ),
        ]


def check_precision_state(state: dict[str, Any]) -> None:
    """Raise ``LabError`` for the first place where ``state`` is not what :class:`PrecisionWidget` draws."""

    def need(good: bool, place: str, rule: str) -> None:
        if not good:
            raise LabError(f"precision state: {place} {rule}; make the state with precision_state(...)")

    def number(value: Any, low: float = 0.0, high: float = math.inf) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    try:
        for key in ("title", "profile"):
            need(isinstance(state[key], str), key, "must be text")
        layers, families = state["layers"], state["families"]
        need(bool(layers), "layers", "must not be empty")
        total = 0
        for i, layer in enumerate(layers):
            need(isinstance(layer["name"], str), f"layers[{i}].name", "must be text")
            shape = layer["shape"]
            whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
            need(whole and 1 < len(shape) <= 4, f"layers[{i}].shape", "must be two to four whole numbers above 0")
            total += math.prod(shape)
        need(number(state["dense"], 0, 1), "dense", "must be a share between 0 and 1")
        need(bool(families), "families", "must not be empty")
        for i, family in enumerate(families):
            need(isinstance(family["name"], str), f"families[{i}].name", "must be text")
            need(bool(family["networks"]), f"families[{i}].networks", "must not be empty")
            for j, network in enumerate(family["networks"]):
                at = f"families[{i}].networks[{j}]"
                need(isinstance(network["run"], str), f"{at}.run", "must be text")
                need(number(network["lambda"]) and number(network["bits"], 0, 32), at, "needs a lambda and bits")
                need(number(network["accuracy"], 0, 1), f"{at}.accuracy", "must be a share between 0 and 1")
                sizes = [network["bytes"][part] for part in ("file", "payload", "map", "rest")]
                need(all(map(number, sizes)), f"{at}.bytes", "must hold file, payload, map and rest")
                means = network["means"]
                need(len(means) == len(layers) and all(map(number, means)), f"{at}.means", "must be one number a layer")
                try:
                    size = len(zlib.decompress(base64.b64decode(network["map"], validate=True)))
                except (ValueError, zlib.error):
                    size = -1
                sizes = (total, (total + 1) // 2)
                need(
                    size in sizes,
                    f"{at}.map",
                    f"must unpack to a byte a weight or for two, {total} or {sizes[1]} bytes",
                )
        if "basins" in state:
            basins = state["basins"]
            pushes = basins["pushes"]
            need(isinstance(basins["run"], str), "basins.run", "must be text")
            rising = len(pushes) > 2 and all(a < b for a, b in pairwise(pushes))
            need(rising, "basins.pushes", "must be a rising list of numbers")
            need(bool(basins["weights"]), "basins.weights", "must not be empty")
            for i, weight in enumerate(basins["weights"]):
                at = f"basins.weights[{i}]"
                need(isinstance(weight["layer"], str), f"{at}.layer", "must be text")
                need(number(weight["bits"], 1, 24) and number(weight["loss"]), at, "needs bits and a loss")
                losses = weight["losses"]
                need(len(losses) == len(pushes) and all(map(number, losses)), f"{at}.losses", "must be one a push")
    except KeyError as error:
        raise LabError(f"precision state: {error} is missing; make the state with precision_state(...)") from None
    except TypeError as error:
        raise LabError(
            f"precision state: a part has the wrong type ({error}); make it with precision_state(...)"
        ) from None
