"""Chapter 3's moving figure: a trained network folds, layer by layer, and shows what each fold costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

from .recording import folding_state

HERE = Path(__file__).parent


class FoldingWidget(Widget):
    r"""The layer similarity matrix (3.13) of recorded runs, and the networks that fold out of it, as Figure 3.6 draws
    them.

    Menus choose network, seed and sharing group; one slider the epoch, so that the matrix is seen forming (Figures 3.11
    and 3.12); another the threshold from which layers count as one. Beside the matrix stands the folded network, with
    the order of its backward paths, what is left of its layers and parameters, and the test score measured on that very
    fold. Only recorded things can be chosen. Folds were measured at the last epoch, and at another the figure says so.

    Args:
        state: as :meth:`from_records` makes it. Plain JSON: ``title``, and ``runs``, each with

            * ``network``, ``profile``, ``run``: text; ``seed``; ``metric``: one of
              :data:`lab.figures.folding.recording.METRICS`;
            * ``steps``: names of the layers in order of execution; ``rows``: how they are cut into lines to draw,
              ``name``, ``start``, ``end``; ``groups``: ``name`` and ``layers``, the steps of its layers in the matrix's
              order;
            * ``moments``: ``epoch``; for each group ``similarity``, packed as
              :func:`lab.figures.folding.recording.check_recording` says, and ``merges``: ``[level, a, b]``, from this
              threshold down layers ``a`` and ``b`` belong together;
            * ``folds``: ``level`` (the threshold), ``layers``, ``parameters``, ``order`` and ``loops`` as
              :class:`principled.folding.Program` has them, ``ratios`` (step to ratio, where it is not 1), ``score``,
              and where measured ``score_bn`` and ``score_tuned``.
        run, group, moment, fold: what is shown first, by index. Default: the first run and group, the last moment, and
            the fold with the fewest layers that costs next to nothing (:func:`telling`).

    Raises:
        LabError: an index that was not recorded.
    """

    _esm = module("../figure.js", "widget.js", folder=HERE)
    _css = module("../figure.css", "widget.css", folder=HERE)

    run = traitlets.Int().tag(sync=True)
    group = traitlets.Int().tag(sync=True)
    moment = traitlets.Int().tag(sync=True)
    fold = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        state: dict[str, Any],
        run: int = 0,
        group: int = 0,
        moment: int | None = None,
        fold: int | None = None,
        **traits: Any,
    ) -> None:
        super().__init__(state, **traits)
        self.run = run
        chosen = state["runs"][run]
        with self.hold_trait_notifications():
            self.group = group
            self.moment = len(chosen["moments"]) - 1 if moment is None else moment
            self.fold = telling(chosen) if fold is None else fold

    @traitlets.validate("run", "group", "moment", "fold")
    def _check_index(self, proposal: traitlets.Bunch) -> int:
        name, value = proposal.trait.name, proposal.value
        runs = self.state["runs"]
        within = runs if name == "run" else runs[self.run][f"{name}s"]
        if not 0 <= value < len(within):
            raise LabError(f"{name} {value} was not recorded; choose one from 0 to {len(within) - 1}")
        return int(value)

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]], *, title: str, **shown: int) -> FoldingWidget:
        """Make the figure from runs' records, see :func:`lab.figures.folding.recording.folding_state`; ``shown`` as in
        the constructor."""
        return cls(folding_state(records, title=title), **shown)

    def describe(self, state: dict[str, Any]) -> str:
        run = state["runs"][0]
        whole, chosen = run["folds"][0], run["folds"][telling(run)]
        others = f", the first of {len(state['runs'])} runs" if len(state["runs"]) > 1 else ""
        return (
            f"{state['title']}: {run['network']}, seed {run['seed']} ({run['profile']} profile{others}). Unfolded it "
            f"has {whole['layers']} layers, {whole['parameters']:,} parameters and {_scores(run, whole)}. Folded at "
            f"a similarity of {chosen['level']:g} it has {chosen['layers']} layers, {chosen['parameters']:,} "
            f"parameters and {_scores(run, chosen)}."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        head = ("Network", "Seed", "Threshold", "Layers", "Parameters", "As folded", "BatchNorm re-estimated")
        return [
            head,
            *(
                (
                    run["network"], str(run["seed"]), f"{one['level']:.4f}", str(one["layers"]),
                    f"{one['parameters']:,}",
                    _score(run, one["score"]), _score(run, one["score_bn"]) if "score_bn" in one else "not measured",
                )
                for run in state["runs"] for one in run["folds"]
            ),
        ]  # fmt: skip


def telling(run: Mapping[str, Any]) -> int:
    """The fold to show first, by index: the fewest layers at most a hundredth of the score away from the unfolded
    network.

    Only folds of layers that are rather alike than not (0.5) count, so that luck on few test images does not choose;
    the first merge if none is left.
    """

    def best(one: Mapping[str, Any]) -> float:
        return float(one.get("score_bn", one["score"]))

    folds = run["folds"]
    return max([i for i, one in enumerate(folds) if one["level"] >= 0.5 and best(one) >= best(folds[0]) - 0.01] + [1])


def _score(run: Mapping[str, Any], score: float) -> str:
    return f"{1 - score:.1%} test error" if run["metric"] == "accuracy" else f"{score:.3f} test {run['metric']}"


def _scores(run: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    again = f", {_score(run, one['score_bn'])} with BatchNorm re-estimated" if "score_bn" in one else ""
    return _score(run, one["score"]) + again
