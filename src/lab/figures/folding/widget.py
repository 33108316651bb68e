"""Chapter 3's moving figure: a trained network folds, layer by layer, and shows what each fold costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import traitlets

from lab.figures.widget import Widget, module
from lab.utils.errors import LabError

from .recording import METRICS, folding_state, unpack

HERE = Path(__file__).parent


class FoldingWidget(Widget):
    r"""The layer similarity matrix (3.13) of recorded runs, and the networks that fold out of it, as Figure 3.6 draws them.

    Menus choose network, seed and sharing group; one slider the epoch, so that the matrix is seen forming (Figures 3.11
    and 3.12); another the threshold from which layers count as one. Beside the matrix stands the folded network, with the
    order of its backward paths, what is left of its layers and parameters, and the test score measured on that very fold.
    Only recorded things can be chosen. Folds were measured at the last epoch, and at another the figure says so.

    Args:
        state: as :meth:`from_records` makes it. Plain JSON: ``title``, and ``runs``, each with

            * ``network``, ``profile``, ``run``: text; ``seed``; ``metric``: one of :data:`lab.figures.folding.recording.METRICS`;
            * ``steps``: names of the layers in order of execution; ``rows``: how they are cut into lines to draw, ``name``,
              ``start``, ``end``; ``groups``: ``name`` and ``layers``, the steps of its layers in the matrix's order;
            * ``moments``: ``epoch``; for each group ``similarity``, packed as :func:`lab.figures.folding.recording.check_recording` says,
              and ``merges``: ``[level, a, b]``, from this threshold down layers ``a`` and ``b`` belong together;
            * ``folds``: ``level`` (the threshold), ``layers``, ``parameters``, ``order`` and ``loops`` as
              :class:`principled.folding.Program` has them, ``ratios`` (step to ratio, where it is not 1), ``score``, and
              where measured ``score_bn`` and ``score_tuned``.
        run, group, moment, fold: what is shown first, by index. Default: the first run and group, the last moment, and the
            fold with the fewest layers that costs next to nothing (:func:`telling`).

    Raises:
        LabError: a state of another shape, with the place named; an index that was not recorded.
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
        """Make the figure from runs' records, see :func:`lab.figures.folding.recording.folding_state`; ``shown`` as in the constructor."""
        return cls(folding_state(records, title=title), **shown)

    def check(self, state: dict[str, Any]) -> None:
        check_folding(state)

    def describe(self, state: dict[str, Any]) -> str:
        run = state["runs"][0]
        whole, chosen = run["folds"][0], run["folds"][telling(run)]
        others = f", the first of {len(state['runs'])} runs" if len(state["runs"]) > 1 else ""
        return (
            f"{state['title']}: {run['network']}, seed {run['seed']} ({run['profile']} profile{others}). Unfolded it has "
            f"{whole['layers']} layers, {whole['parameters']:,} parameters and {_scores(run, whole)}. Folded at a similarity "
            f"of {chosen['level']:g} it has {chosen['layers']} layers, {chosen['parameters']:,} parameters and "
            f"{_scores(run, chosen)}."
        )

    def table(self, state: dict[str, Any]) -> Sequence[Sequence[str]]:
        head = ("Network", "Seed", "Threshold", "Layers", "Parameters", "As folded", "BatchNorm re-estimated")
        return [
            head,
            *(
                (
                    run["network"], str(run["seed"]), f"{one['level']:.4f}", str(one["layers"]), f"{one['parameters']:,}",
                    _score(run, one["score"]), _score(run, one["score_bn"]) if "score_bn" in one else "not measured",
                )
                for run in state["runs"] for one in run["folds"]
            ),
        ]  # fmt: skip


def telling(run: Mapping[str, Any]) -> int:
    """The fold to show first, by index: the fewest layers at most a hundredth of the score away from the unfolded network.

    Only folds of layers that are rather alike than not (0.5) count, so that luck on few test images does not choose; the
    first merge if none is left.
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


def check_folding(state: dict[str, Any]) -> None:
    """Raise ``LabError`` for the first place where ``state`` is not what :class:`FoldingWidget` draws."""

    def need(good: bool, place: str, rule: str) -> None:
        if not good:
            raise LabError(f"folding state: {place} {rule}; make the state with folding_state(...)")

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def whole(value: Any, below: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below

    def ordered(values: list[Any]) -> bool:
        return len(values) > 1 and all(map(number, values)) and all(a < b for a, b in pairwise(values))

    def text(value: Any) -> bool:
        return isinstance(value, str)

    try:
        need(text(state["title"]), "title", "must be text")
        need(isinstance(state["runs"], list) and bool(state["runs"]), "runs", "must be a list of one run or more")
        for r, run in enumerate(state["runs"]):
            at = f"runs[{r}]"
            need(
                all(text(run[key]) for key in ("network", "profile", "run")),
                at,
                "needs network, profile and run as text",
            )
            need(whole(run["seed"], 2**53), f"{at}.seed", "must be a whole number from 0")
            need(run["metric"] in METRICS, f"{at}.metric", f"must be one of {', '.join(METRICS)}")
            steps, groups = run["steps"], run["groups"]
            need(bool(steps) and all(map(text, steps)), f"{at}.steps", "must be a list of names")
            need(bool(groups), f"{at}.groups", "must hold a group")
            for g, group in enumerate(groups):
                layers = group["layers"]
                good = text(group["name"]) and len(layers) > 1 and all(whole(step, len(steps)) for step in layers)
                need(
                    good and len(set(layers)) == len(layers), f"{at}.groups[{g}]", "needs a name and its layers' steps"
                )
            cuts = [0, *(row["end"] for row in run["rows"])]
            good = all(
                text(row["name"]) and row["start"] == start for row, start in zip(run["rows"], cuts, strict=False)
            )
            need(good and ordered(cuts) and cuts[-1] == len(steps), f"{at}.rows", "must cut the steps into lines")

            need(ordered([moment["epoch"] for moment in run["moments"]]), f"{at}.moments", "must be two, epochs rising")
            for m, moment in enumerate(run["moments"]):
                place = f"{at}.moments[{m}]"
                for group, packed, merges in zip(groups, moment["similarity"], moment["merges"], strict=True):
                    count = len(group["layers"])
                    unpack(packed, count)
                    good = len(merges) == count - 1 and all(
                        0 <= level <= 1 and whole(a, b) and whole(b, count) for level, a, b in merges
                    )
                    need(good, f"{place}.merges", "must join all layers of a group, one pair after the other")

            folds = run["folds"]
            need(ordered([-one["level"] for one in folds]), f"{at}.folds", "must be two or more, levels falling")
            for f, one in enumerate(folds):
                place = f"{at}.folds[{f}]"
                need(0 <= one["level"] <= 1, f"{place}.level", "must lie between 0 and 1")
                need(
                    all(whole(one[key], 2**53) for key in ("layers", "parameters")),
                    place,
                    "must count layers, parameters",
                )
                order = one["order"]
                news = [i for i, layer in enumerate(order) if layer not in order[:i]]
                good = len(order) == len(steps) and all(whole(layer, len(steps)) for layer in order)
                need(
                    good and [order[i] for i in news] == list(range(len(news))),
                    f"{place}.order",
                    "must number the layers",
                )
                for start, length, times in one["loops"]:
                    good = all(whole(n, len(steps) + 1) for n in (start, length, times)) and length * times > 1
                    need(good and start + length * times <= len(steps), f"{place}.loops", "must lie within the steps")
                good = all(whole(int(step), len(steps)) and number(ratio) for step, ratio in one["ratios"].items())
                need(good, f"{place}.ratios", "must be a number for a step")
                for key in ("score", "score_bn", "score_tuned"):
                    score = one["score"] if key == "score" else one.get(key, 0)
                    need(number(score) and 0 <= score <= 1, f"{place}.{key}", "must lie between 0 and 1")
    except KeyError as error:
        raise LabError(f"folding state: {error} is missing; make the state with folding_state(...)") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise LabError(f"folding state: a part has the wrong type ({error}); make it with folding_state(...)") from None
