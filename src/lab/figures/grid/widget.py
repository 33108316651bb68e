"""Chapter 6's map: how a grid over learning rate and ε looks to Adam and to AvaGrad, and how a search walks over it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

from .recording import grid_state

HERE = Path(__file__).parent


class GridWidget(Widget):
    r"""Recorded grids over :math:`(\alpha, \epsilon)`, one map an optimizer (Figures 6.1 to 6.4), all in one colour
    scale.

    A cell names its runs: mean and spread over seeds, each seed's own value, whether it diverged or was not run, and
    how ε compares to the recorded second moments. A heavy line is the border between the adaptive and the SGD-like
    regime that these moments predict, a dashed one the settings that should step as far as the best cell. Recorded
    searches are played trial by trial on all maps at once (Figure 6.6): nothing is sampled in the page.

    Args:
        state: as :meth:`from_records` makes it. Plain JSON:

            * ``title``, ``network``, ``profile``, ``shown`` (what a value is), ``statistic``: text; ``metric``: one of
              :data:`lab.figures.grid.recording.METRICS`;
            * ``maps``: ``optimizer``; ``alphas``, ``epsilons``: rising; ``runs``: ``seed`` and ``run``; a row an
              epsilon each: ``values`` (one grid a run), ``mean``, ``spread``, ``diverged``, ``missing`` (numbers of
              runs), ``root_v``; ``best``: ``[row, column]``; ``border`` and ``ridge``:
              :func:`lab.figures.grid.recording.border`, ``ridge``;
            * ``walks``: ``sampler``, ``seed``, ``trials``: for each map a list of ``[row, column]``, or null.
        walk: index of the walk that is chosen first.
        trial: how many of its trials are shown first. Default: none, so that the map is seen before the search.

    Raises:
        LabError: a walk or a trial that is not there.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)
    _schema = HERE / "widget.schema.json"

    walk = traitlets.Int().tag(sync=True)
    trial = traitlets.Int().tag(sync=True)

    def __init__(self, state: dict[str, Any], walk: int = 0, trial: int = 0, **traits: Any) -> None:
        super().__init__(state, **traits)
        self.walk = walk
        self.trial = trial

    @traitlets.validate("walk", "trial")
    def _check_index(self, proposal: traitlets.Bunch) -> int:
        walks = self.state["walks"]
        most = max(len(walks) - 1, 0)
        if proposal.trait.name == "trial":
            most = max((len(trials or ()) for trials in walks[self.walk]["trials"]), default=0) if walks else 0
        if not 0 <= proposal.value <= most:
            raise LabError(f"{proposal.trait.name} {proposal.value} was not recorded; choose one from 0 to {most}")
        return int(proposal.value)

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        *,
        title: str,
        walks: Iterable[Mapping[str, Any]] = (),
        walk: int = 0,
        trial: int = 0,
    ) -> GridWidget:
        """Make the figure from runs' records, see :func:`lab.figures.grid.recording.grid_state`."""
        return cls(grid_state(records, title=title, walks=walks), walk=walk, trial=trial)

    def describe(self, state: dict[str, Any]) -> str:
        parts = []
        for one in state["maps"]:
            cells = [cell for row in one["mean"] for cell in row]
            lost = sum(cell is None for cell in cells)
            best = f"{one['optimizer']} has no finished run"
            if one["best"] is not None:
                row, column = one["best"]
                best = (
                    f"{one['optimizer']}'s best {state['shown']} is {value(state, one['mean'][row][column])} at "
                    f"α = {one['alphas'][column]:g}, ε = {one['epsilons'][row]:g}"
                )
            parts.append(f"{best} ({len(cells)} cells, {lost} of them without a value)")
        return f"{state['title']}: {state['network']} ({state['profile']} profile). {'; '.join(parts)}."

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        shown = state["shown"]
        rows = [("Optimizer", "ε", f"Best α at this ε, by {shown}", shown[0].upper() + shown[1:], "Spread over seeds")]
        for one in state["maps"]:
            for eps, means, spreads in zip(one["epsilons"], one["mean"], one["spread"], strict=True):
                done = [(mean, i) for i, mean in enumerate(means) if mean is not None]
                if not done:
                    rows.append((one["optimizer"], f"{eps:g}", "none finished", "", ""))
                    continue
                mean, i = min(done)
                spread = "one seed" if spreads[i] is None else value(state, spreads[i])
                rows.append((one["optimizer"], f"{eps:g}", f"{one['alphas'][i]:g}", value(state, mean), spread))
        return rows


def value(state: Mapping[str, Any], number: float) -> str:
    """A map's value as text: an error in percent, bits per character as they are. Halves go up, as in the page."""
    return f"{math.floor(1000 * number + 0.5) / 10:.1f}%" if state["metric"] == "accuracy" else f"{number:.3f}"
