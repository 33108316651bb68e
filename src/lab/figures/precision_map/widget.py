"""Where the bits went: every weight of a recorded network, coloured by its precision; and how far one bears to be
pushed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, check_index, module

HERE = Path(__file__).parent


class PrecisionWidget(Widget):
    """A precision map down to the single weight, over recorded networks; no kernel needed.

    Buttons choose a family of networks, a slider goes along its penalties; a layer is chosen in the profile of mean
    bits, and its weights are drawn as filters × inputs, each cell a kernel. The figure states average bits, the
    measured size of the packed file and the measured accuracy of the very network on screen. A second view pushes
    single weights and shows the loss that was measured there.

    Args:
        state: as :func:`lab.figures.precision_map.state.precision_state` makes it from records.
        family, position, layer: indices of what is shown first. Default: the last family, its middle network, and the
            layer in the middle.

    Raises:
        LabError: an index that nothing stands at.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)
    _schema = HERE / "widget.schema.json"

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
        check_index("family", family, len(state["families"]))
        networks = state["families"][family]["networks"]
        position = len(networks) // 2 if position is None else position
        check_index("position", position, len(networks))
        layer = len(state["layers"]) // 2 if layer is None else layer
        check_index("layer", layer, len(state["layers"]))
        self.family, self.position, self.layer = family, position, layer
        if "basins" in state:
            self.weight = len(state["basins"]["weights"]) // 2
            self.push = len(state["basins"]["pushes"]) - 3

    def describe(self, state: dict[str, Any]) -> str:
        networks = [n for family in state["families"] for n in family["networks"]]
        few, many = (pick(networks, key=lambda n: n["bits"]) for pick in (min, max))
        most, least = (f"{n['bytes']['file'] / 1000:.0f} kB, {n['accuracy']:.1%}" for n in (many, few))
        return (
            f"{state['title']} ({state['profile']} profile): {len(networks)} recorded networks, from "
            f"{many['bits']:.2f} bits a weight ({most} test accuracy) to {few['bits']:.2f} ({least}); "
            f"the dense network has {state['dense']:.1%}."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        return [
            ("Network", "Penalty λ", "Bits a weight", "File, kB", "Test accuracy"),
            *(
                (family["name"], f"{n['lambda']:g}", f"{n['bits']:.2f}", f"{kilobytes:.1f}", f"{n['accuracy']:.1%}")
                for family in state["families"]
                for n in family["networks"]
                for kilobytes in [n["bytes"]["file"] / 1000]
            ),
        ]
