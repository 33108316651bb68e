"""Chapter 4's first moving figure: how a soft mask becomes a hard one while the temperature rises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

from .recording import Snapshot, annealing_state

HERE = Path(__file__).parent


class AnnealingWidget(Widget):
    r"""The smooth step :math:`\sigma(\beta s)` (4.15) over the recorded distribution of ``s``, moment by moment.

    A slider steps through the recorded moments, and only those: nothing on the page is interpolated. It shows the
    curve over the histogram of ``s``, the share of masks already at zero in each layer, the test accuracy, the overall
    share at zero, and both figures over the whole run.

    Args:
        state: as :meth:`from_snapshots` makes it, or as a run's record holds it. Plain JSON:

            * ``title``, ``profile``, ``run``: text; ``run`` is the identity of the run that was recorded;
            * ``curve``: ``name``, and ``z``, ``b``: the smooth step ``b(z)`` as a table, ``z`` rising;
            * ``zero``: ``below`` (a mask under this value counts as zero), ``z`` (where ``b`` passes it), ``text``;
            * ``s_edges``: bin edges common to all moments, rising, n + 1 numbers;
            * ``open_ends``: two booleans, whether the first and the last bin also hold what lies beyond them;
            * ``layers``: names of the masked layers;
            * ``snapshots``: a list of ``progress``, ``epoch``, ``beta``, ``s_hist`` (n counts), ``zero_share`` (from 0
              to 1, one a layer), ``sparsity`` (the same over all), ``accuracy``, and optionally ``accuracy_hard``;
            * ``hardened``: ``accuracy``, ``sparsity`` after the run, discrete mask; ``dense``: ``accuracy``.
        position: index of the moment shown first. Default: where the share at zero is nearest to half its last value,
            so that a reader meets the mask half-way.

    Raises:
        LabError: a position that is no recorded moment.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)
    _schema = HERE / "widget.schema.json"

    position = traitlets.Int().tag(sync=True)

    def __init__(self, state: dict[str, Any], position: int | None = None, **traits: Any) -> None:
        super().__init__(state, **traits)
        if position is None:
            shares = [moment["sparsity"] for moment in state["snapshots"]]
            position = min(range(len(shares)), key=lambda i: abs(shares[i] - shares[-1] / 2))
        self.position = position

    @traitlets.validate("position")
    def _check_position(self, proposal: traitlets.Bunch) -> int:
        last = len(self.state["snapshots"]) - 1
        if not 0 <= proposal.value <= last:
            raise LabError(f"position {proposal.value} is no recorded moment; choose one from 0 to {last}")
        return int(proposal.value)

    @classmethod
    def from_snapshots(
        cls,
        snapshots: Iterable[Snapshot | tuple[Any, ...]],
        layers: Mapping[str, int],
        *,
        title: str,
        profile: str,
        run: str,
        hardened: tuple[float, float],
        dense: float,
        curve: str = "sigmoid",
        zero_below: float = 1e-3,
        bins: int = 48,
        position: int | None = None,
    ) -> AnnealingWidget:
        """Make the figure from a run's moments.

        Args:
            snapshots: :class:`Snapshot` tuples in the order of training, two or more.
            layers: name of each masked layer to its number of mask variables, in the order of their places in ``s``.
                From a :class:`principled.ContinuousMask` ``m``: ``{n: p.numel() for n, p in m.split(m.s).items()}``.
            title, profile, run: what the figure is called, the run's profile and identity.
            hardened: test accuracy and sparsity of the network after ``harden()``.
            dense: test accuracy of the plain network trained alike.
            curve: the run's smooth step, one of :data:`principled.sparsity.CURVES`.
            zero_below: a mask under this value counts as zero.
            bins: about how many bins the histogram has; one edge lies at s = 0, where the mask's fate is decided.
            position: as in the constructor.

        Raises:
            LabError: moments, sizes or numbers that do not fit together.
        """
        state = annealing_state(
            snapshots, layers, title=title, profile=profile, run=run, hardened=hardened, dense=dense,
            curve=curve, zero_below=zero_below, bins=bins,
        )  # fmt: skip
        return cls(state, position=position)

    def describe(self, state: dict[str, Any]) -> str:
        first, last = state["snapshots"][0], state["snapshots"][-1]
        return (
            f"{state['title']} ({state['profile']} profile): while the temperature rises from {first['beta']:g} to "
            f"{last['beta']:g}, the share of masks at zero ({state['zero']['text']}) goes from "
            f"{first['sparsity']:.1%} to {last['sparsity']:.1%} and the test accuracy from {first['accuracy']:.1%} to "
            f"{last['accuracy']:.1%}; hardened, the network has {state['hardened']['accuracy']:.1%} at "
            f"{state['hardened']['sparsity']:.1%} sparsity, its dense twin {state['dense']['accuracy']:.1%}."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        return [
            ("Epoch", "Temperature", "At zero", "Test accuracy"),
            *(
                (f"{m['epoch']:.1f}", f"{m['beta']:.3g}", f"{m['sparsity']:.1%}", f"{m['accuracy']:.1%}")
                for m in state["snapshots"]
            ),
        ]
