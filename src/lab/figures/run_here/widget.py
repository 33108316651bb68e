"""Run it here: shipped networks answer in the reader's browser, are timed there, looked into, and re-checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, check_index, module
from lab.utils.errors import LabError

from .state import content, kilobytes, run_state

HERE = Path(__file__).parent
ENGINE = ("unwrap.js", "decode.js", "engine.js", "service.js")
"""What computes; the files after it are what the reader sees."""
SCRIPTS = (*ENGINE, "load.js", "pictures.js", "inside.js", "recheck.js", "widget.js")


class RunHereWidget(Widget):
    """Shipped networks on a picture that the reader picks or drops; computed in the browser, no kernel needed.

    The page loads the very files under ``data/models``, decodes them (``decode.js``) and runs their layers
    (``engine.js``) in a worker, or between frames where there is none. Each network's answer stands beside its file's
    size, its multiplications and its time in this browser. A switch multiplies the zeros too. Below, a layer shows what
    it gave and which weights it kept, and a press evaluates a network on the embedded test images and holds the count
    of right answers against its record.

    Args:
        state: as :func:`lab.figures.run_here.state.run_state` makes it.
        picture: index of the picture that is shown first.
        network: index of the network that is looked into first. Default: the smallest file.
        layer: index of the layer that is looked into first.
        zeros: multiply the zeros too.

    Raises:
        LabError: an index that nothing stands at.
    """

    _esm = module("../figure.js", *SCRIPTS, folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)
    _schema = HERE / "widget.schema.json"

    picture = traitlets.Int().tag(sync=True)
    network = traitlets.Int().tag(sync=True)
    layer = traitlets.Int().tag(sync=True)
    zeros = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        state: dict[str, Any],
        picture: int = 0,
        network: int | None = None,
        layer: int = 0,
        zeros: bool = False,
        **traits: Any,
    ) -> None:
        super().__init__(state, **traits)
        network = len(state["networks"]) - 1 if network is None else network
        check_index("picture", picture, state["pictures"]["count"])
        check_index("network", network, len(state["networks"]))
        check_index("layer", layer, _layers(state, state["networks"][network]))
        self.picture, self.network, self.layer, self.zeros = picture, network, layer, zeros
        self.on_msg(self._answer)

    @classmethod
    def of_shipped(cls, methods: Sequence[str] | None = None, *, title: str, inside: bool = True) -> RunHereWidget:
        """The figure of the shipped networks of these methods; arguments as
        :func:`lab.figures.run_here.state.run_state`'s."""
        return cls(run_state(title=title, methods=methods, inside=inside))

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Send the bytes that the front end asks for, or one line that says why not."""
        name = str(message.get("load", "")) if isinstance(message, dict) else ""
        try:
            self.send({"name": name}, [content(name)])
        except (LabError, OSError) as error:
            self.send({"name": name, "error": str(error)})

    def describe(self, state: dict[str, Any]) -> str:
        networks = [f"{n['title']}, {kilobytes(n['bytes'])}, {n['accuracy']:.1%}" for n in state["networks"]]
        return (
            f"{state['title']}: {len(networks)} trained networks that answer in this browser "
            f"({'; '.join(networks)} recorded test accuracy), on {state['pictures']['count']} test images or a picture "
            "of your own."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        return [
            ("Network", "Run", "Layers", "File", "Zeros", "Bits a weight", "Recorded test accuracy"),
            *(
                (
                    n["title"],
                    n["run"],
                    str(_layers(state, n)),
                    kilobytes(n["bytes"]),
                    "–" if n["zeros"] is None else f"{n['zeros']:.1%}",
                    "32" if n["bits"] is None else f"{n['bits']:.2f}",
                    f"{n['accuracy']:.1%}",
                )
                for n in state["networks"]
            ),
        ]


def _layers(state: dict[str, Any], network: dict[str, Any]) -> int:
    """Layers of a network that have weights."""
    return sum("weight" in step for step in state["programs"][network["model"]])
