"""What tuning costs (Section 6.4.3): searches over (alpha, epsilon) on a recorded grid, where a trial is a look-up.

Gradientless descent (Golovin et al., 2020) and its coordinate form are here as samplers for optuna, which has neither;
random search, Parzen trees (TPE), CMA-ES and Gaussian processes are optuna's. :func:`search` runs descent and random
search for a thousand seeds at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from scipy.ndimage import median_filter
from scipy.stats import quantile_test

from lab.figures.grid.recording import table
from lab.utils.errors import LabError

Array = NDArray[np.float64]

RADIUS, SMALLEST = 0.5, 0.05
"""Largest and smallest radius of a search in a box of side 1: half the box, and one step on an axis of 21 values."""

DIRECT = ("random", "GLD", "CGLD")
"""Samplers that :func:`search` runs for many seeds at once."""

SAMPLERS = (*DIRECT, "TPE", "CMA-ES", "GP")
"""Of Figure 6.5 and 6.6, and random search. The last three only optuna runs."""

PROPOSALS = 300
"""Where every search of every sampler is cut off. A descent may propose what it tried for ever: CGLD sits where neither
axis alone leads down."""

SAME_PARAMETERS = "gradientless descent needs the same parameters in every trial"

WITHIN = 0.02
"""How near to the grid's best a search has to come: 2 points of validation error. The thesis's 0.5 (Figure 6.5) lie
within the noise of a cell that was trained for an epoch (:attr:`Lookup.noise`), this is four times that noise."""

NEAR = 0.05
"""Cells this near to the best, 5 points of error, are those whose noise counts."""


def radii(radius: float = RADIUS, smallest: float = SMALLEST) -> Array:
    """``radius`` halved down to ``smallest``: one iteration of descent tries each once."""
    if not 0 < smallest <= radius < math.inf:
        raise LabError(f"radii must be 0 < smallest <= radius, not {smallest:g} and {radius:g}")
    return radius * 0.5 ** np.arange(math.floor(math.log2(radius / smallest)) + 1)


def draws(seed: int, trials: int, dimensions: int, failed: int = 0) -> tuple[Array, Array, Array]:
    """All chance of a descent: its start (d,), then a normal vector (trials, d) and a number in [0, 1) a trial.

    More trials of the same seed only append. ``failed`` starts that gave no value lead to other draws.
    """
    start, normal, length = (np.random.default_rng((seed, stream, failed)) for stream in range(3))
    return start.random(dimensions), normal.standard_normal((trials, dimensions)), length.random(trials)


def propose(center: Array, trial: int, normal: Array, length: Array, all_radii: Array, coordinate: bool) -> Array:
    """Where trial number ``trial`` (from 1) of a descent goes, in the unit box: points (..., d).

    GLD-Search, the first algorithm of Golovin et al.: an iteration draws one point from the ball of each radius around
    the best point so far, which moves only between iterations. With ``coordinate`` the iterations take turns over the
    axes and move along one (CGLD, 6.4.3). What leaves the box is put back on its border.

    Args:
        center: best point when the iteration began, (..., d).
        trial: the trial's number; 0 is the start and has no proposal.
        normal, length: what :func:`draws` gives for this trial, (..., d) and (...).
        all_radii: see :func:`radii`.
        coordinate: one axis at a time.
    """
    iteration, k = divmod(trial - 1, len(all_radii))
    d = center.shape[-1]
    if coordinate:  # a ball of one dimension: uniform on [-radius, radius]
        move = np.zeros_like(center)
        move[..., iteration % d] = 2 * length - 1
    else:
        move = normal / np.linalg.norm(normal, axis=-1, keepdims=True) * length[..., None] ** (1 / d)
    return np.clip(center + all_radii[k] * move, 0.0, 1.0)


class GradientlessSampler(optuna.samplers.BaseSampler):
    """GLD-Search (Golovin et al., 2020) for optuna: ``create_study(sampler=GradientlessSampler(seed=0))``.

    A trial depends on the seed and on the ended trials before it alone, so an interrupted study goes on as it would
    have. :func:`propose` says where the next goes. A trial that failed or was pruned counts as tried and is never the
    best; until one completes, each is a new random start. Parameters are seen on [0, 1], those declared ``log=True``
    logarithmically; categories are drawn at random, and a parameter with one value takes no part. One trial at a time.

    Args:
        seed: of all its chance.
        coordinate: move one parameter at a time, in turns: CGLD, for parameters that do not interact.
    """

    def __init__(self, seed: int, coordinate: bool = False) -> None:
        self.seed, self.coordinate, self.radii = seed, coordinate, radii()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The numeric parameters of the first completed trial; it is the start, drawn one by one."""
        _, descent = _ended(study)
        space = descent[0].distributions if descent else {}
        return {
            name: space[name]
            for name in sorted(space)
            if not isinstance(space[name], CategoricalDistribution) and not space[name].single()
        }

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next proposal, for all numeric parameters together."""
        if not search_space:
            return {}
        names, (failed, descent) = list(search_space), _ended(study)
        begun = descent[: 1 + (len(descent) - 1) // len(self.radii) * len(self.radii)]  # before this iteration
        sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        best = min((t for t in begun if t.state == TrialState.COMPLETE), key=lambda t: sign * t.value)
        for name in names:
            if name not in best.params:
                raise LabError(f"{name} was not in trial {best.number}: {SAME_PARAMETERS}")
        center = np.array([_to_unit(best.params[name], search_space[name]) for name in names])
        _, normal, length = draws(self.seed, len(descent), len(names), failed)
        point = propose(center, len(descent), normal[-1], length[-1], self.radii, self.coordinate)
        return {name: _from_unit(x, search_space[name]) for name, x in zip(names, point, strict=True)}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A coordinate of a start; later only categories come here."""
        failed, descent = _ended(study)
        position = sum(not d.single() for d in trial.distributions.values())
        if isinstance(param_distribution, CategoricalDistribution):
            chance = np.random.default_rng((self.seed, 3, failed + len(descent), position))
            return param_distribution.choices[chance.integers(len(param_distribution.choices))]
        if descent:
            raise LabError(f"{param_name} was not in trial {descent[0].number} with this range: {SAME_PARAMETERS}")
        start, *_ = draws(self.seed, 0, position + 1, failed)
        return _from_unit(start[-1], param_distribution)


def _ended(study: optuna.Study) -> tuple[int, list[optuna.trial.FrozenTrial]]:
    """How many trials failed or were pruned before the first completed one; it and all that ended after it."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    failed = next((i for i, t in enumerate(ended) if t.state == TrialState.COMPLETE), len(ended))
    return failed, ended[failed:]


def _span(distribution: BaseDistribution) -> tuple[float, float]:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _to_unit(value: float, distribution: BaseDistribution) -> float:
    low, high = _span(distribution)
    at = math.log(value) if getattr(distribution, "log", False) else float(value)
    return (at - low) / (high - low) if high > low else 0.0


def _from_unit(x: float, distribution: BaseDistribution) -> Any:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _span(distribution)
    value = low + float(x) * (high - low)
    value = math.exp(value) if distribution.log else value
    if distribution.step is not None and not distribution.log:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """One of :data:`SAMPLERS`, with its library's defaults."""
    if name not in SAMPLERS:
        raise LabError(f"unknown sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    if name in ("GLD", "CGLD"):
        return GradientlessSampler(seed, coordinate=name == "CGLD")
    kinds = {"random": "RandomSampler", "TPE": "TPESampler", "CMA-ES": "CmaEsSampler", "GP": "GPSampler"}
    made: optuna.samplers.BaseSampler = getattr(optuna.samplers, kinds[name])(seed=seed)
    return made


# -- a recorded grid as the objective ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lookup:
    """A recorded grid as what a search minimises: an entry of ``loss`` (epsilons, alphas) a trial.

    ``loss`` is the validation error (0 to 1) or bits per character, mean over the recorded seeds. Where no seed
    finished it is the worst that a finished cell has: a user sees a failed run and knows no more.
    """

    alphas: Array
    epsilons: Array
    loss: Array

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], optimizer: str) -> Lookup:
        """The grid of ``optimizer`` ("Adam", "AvaGrad") among ``records``, averaged over their seeds."""
        grid = table(records, optimizer)
        if not np.isfinite(grid.mean).any():
            raise LabError(f"no cell of {optimizer}'s grid finished: there is nothing to search")
        return cls(grid.alphas, grid.epsilons, np.where(np.isfinite(grid.mean), grid.mean, np.nanmax(grid.mean)))

    @property
    def gap(self) -> Array:
        """Each cell's suboptimality: its loss above the grid's best."""
        return self.loss - self.loss.min()

    @property
    def noise(self) -> float:
        """How much a good cell's loss is chance, at most: a standard deviation.

        Neighbours in epsilon at the same alpha differ little but by chance. So it is the root mean square of their
        differences over the root of 2, among cells within :data:`NEAR` of the best. NaN where no two are neighbours.
        """
        good = self.gap <= NEAR
        differences = np.diff(self.loss, axis=0)[good[1:] & good[:-1]]
        return float(np.sqrt((differences**2).mean() / 2)) if len(differences) else math.nan

    def redrawn(self, source: np.random.Generator) -> Lookup:
        """The grid as its trainings, made anew, might give it: each cell the median of five neighbours in epsilon, plus
        normal :attr:`noise`."""
        smooth = median_filter(self.loss, size=(5, 1), mode="nearest")
        return replace(self, loss=smooth + source.normal(0, np.nan_to_num(self.noise), smooth.shape))

    def cell(self, point: Array) -> NDArray[np.int64]:
        """The nearest cell's number, row by row, of points (..., 2) in the unit box: epsilon first, then alpha."""
        rows, columns = self.loss.shape
        at = np.rint(point * (rows - 1, columns - 1)).astype(np.int64)
        return at[..., 0] * columns + at[..., 1]

    def objective(self, trial: optuna.Trial) -> float:
        """For ``study.optimize``: the search space is the two axes' positions, which are even in the logarithm."""
        rows, columns = self.loss.shape
        return float(
            self.loss[trial.suggest_int("0 epsilon", 0, rows - 1), trial.suggest_int("1 alpha", 0, columns - 1)]
        )


class Cost(NamedTuple):
    """What each of n searches took to come near the best; infinite where it was cut off before."""

    trials: Array
    """Different cells tried: one proposed again is known already and needs no training."""
    proposals: Array
    """The same with every repetition counted."""

    @property
    def reached(self) -> float:
        """The share of searches that came near."""
        return float(np.isfinite(self.trials).mean())


class Search(NamedTuple):
    """Searches over seeds, by trials: different cells in the order in which they were tried."""

    gap: Array
    """Smallest suboptimality after each trial, (seeds, trials); a search that found no further cell keeps its own."""
    cells: NDArray[np.int64]
    """The cell of each trial (seeds, trials); -1 after a search's last."""
    proposals: NDArray[np.int64]
    """How many proposals had been made at each trial, (seeds, trials)."""

    def cost(self, within: float = WITHIN) -> Cost:
        """Until each search is ``within`` the best."""
        near = self.gap <= within + 1e-12
        first, reached = near.argmax(axis=1), near.any(axis=1)
        proposals = np.take_along_axis(self.proposals, first[:, None], axis=1)[:, 0]
        return Cost(np.where(reached, first + 1.0, np.inf), np.where(reached, proposals, np.inf))


def search(lookup: Lookup, name: str, trials: int = 100, seeds: int | Sequence[int] = 1000) -> Search:
    """``name`` (one of :data:`DIRECT`) on a recorded grid, all seeds at once.

    A descent of seed s takes exactly the steps of :class:`GradientlessSampler` with that seed. Random search draws
    without repetition. A search ends after ``trials`` different cells, or :data:`PROPOSALS` proposals.
    """
    if name not in DIRECT:
        raise LabError(f"{name} is not run for all seeds at once: choose one of {', '.join(DIRECT)}, or study()")
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    gap = lookup.gap.ravel()
    trials = min(trials, gap.size, PROPOSALS)
    if name == "random":
        cells = np.stack([np.random.default_rng(seed).permutation(gap.size)[:trials] for seed in seeds])
        return Search(np.minimum.accumulate(gap[cells], axis=1), cells, np.tile(1 + np.arange(trials), (len(cells), 1)))
    return _descents(lookup, gap, trials, seeds, name == "CGLD")


def _descents(lookup: Lookup, gap: Array, trials: int, seeds: Sequence[int], coordinate: bool) -> Search:
    searches, all_radii = np.arange(len(seeds)), radii()
    start, normal, length = (np.stack(values) for values in zip(*(draws(s, PROPOSALS, 2) for s in seeds), strict=True))
    cells, proposals = np.full((len(seeds), trials), -1, np.int64), np.zeros((len(seeds), trials), np.int64)
    tried = np.zeros((len(seeds), gap.size), bool)
    count = np.zeros(len(seeds), np.int64)
    best = center = _snap(lookup, start)
    lowest = np.full(len(seeds), np.inf)
    for proposal in range(PROPOSALS):
        point = best
        if proposal > 0:
            if (proposal - 1) % len(all_radii) == 0:
                center = best.copy()
            at = proposal - 1
            point = _snap(lookup, propose(center, proposal, normal[:, at], length[:, at], all_radii, coordinate))
        cell = lookup.cell(point)
        new = ~tried[searches, cell] & (count < trials)
        cells[searches[new], count[new]] = cell[new]
        proposals[searches[new], count[new]] = proposal + 1
        tried[searches, cell] = True
        count[new] += 1
        better = gap[cell] < lowest  # of equals the first stays, as min() has it
        best = np.where(better[:, None], point, best)
        lowest = np.minimum(lowest, gap[cell])
        if (count == trials).all():
            break
    known = np.where(cells >= 0, gap[cells], np.inf)
    return Search(np.minimum.accumulate(known, axis=1), cells, proposals)


def _snap(lookup: Lookup, points: Array) -> Array:
    """Points of the unit box moved onto the grid."""
    sides = np.array(lookup.loss.shape) - 1
    return np.rint(points * sides) / sides


def study(lookup: Lookup, name: str, seed: int, within: float = WITHIN, proposals: int = PROPOSALS) -> list[int]:
    """A search of any of :data:`SAMPLERS` through optuna until it is ``within`` the best: the cell of each proposal.

    The last cell is ``within``, unless the search was cut off after ``proposals``.
    """
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns, cells = lookup.loss.shape[1], list[int]()

    def note(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        cells.append(trial.params["0 epsilon"] * columns + trial.params["1 alpha"])
        if lookup.gap.flat[cells[-1]] <= within + 1e-12:
            study.stop()

    try:
        searching = optuna.create_study(sampler=sampler(name, seed))
        searching.optimize(lookup.objective, n_trials=proposals, callbacks=[note])
    finally:
        optuna.logging.set_verbosity(level)
    return cells


def cost_of(lookup: Lookup, name: str, within: float = WITHIN, seeds: int | Sequence[int] = 1000) -> Cost:
    """What searches with these seeds take until they are ``within`` the grid's best (Figure 6.5)."""
    if name in DIRECT:
        return search(lookup, name, lookup.loss.size, seeds).cost(within)
    trials, proposals = [], []
    for seed in range(seeds) if isinstance(seeds, int) else seeds:
        cells = study(lookup, name, seed, within)
        near = lookup.gap.flat[cells[-1]] <= within + 1e-12
        trials.append(len(set(cells)) if near else math.inf)
        proposals.append(len(cells) if near else math.inf)
    return Cost(np.array(trials, float), np.array(proposals, float))


class Interval(NamedTuple):
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float
    n: int


def median(values: Array) -> Interval:
    """The median and, from the order of the values alone, an interval that holds the true one with 95 % probability.

    Fewer than six values give no interval: NaN. Raises LabError for no values.
    """
    if len(values) == 0:
        raise LabError("no values to take a median of")
    low, high = quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    two = np.sort(values)[[(len(values) - 1) // 2, len(values) // 2]]
    middle = two.mean() if np.isfinite(two[1]) else two[0]
    return Interval(float(middle), float(low), float(high), len(values))


def walks(
    records: Iterable[Mapping[str, Any]],
    samplers: Sequence[str] = ("GLD", "CGLD"),
    seeds: Sequence[int] = range(3),
    trials: int = 80,
) -> list[dict[str, Any]]:
    """Searches over the grids for :func:`lab.figures.grid.recording.grid_state`: the same seeds for both optimizers."""
    walked, records = [], list(records)
    names = dict.fromkeys(r["recording"]["grid"]["optimizer"] for r in records if "grid" in r.get("recording", {}))
    for optimizer in names:
        lookup = Lookup.of(records, optimizer)
        for name in samplers:
            for seed, cells in zip(seeds, search(lookup, name, trials, seeds).cells, strict=True):
                places = [divmod(int(cell), len(lookup.alphas)) for cell in cells if cell >= 0]
                steps = [(float(lookup.alphas[column]), float(lookup.epsilons[row])) for row, column in places]
                walked.append({"optimizer": optimizer, "sampler": name, "seed": int(seed), "trials": steps})
    return walked
