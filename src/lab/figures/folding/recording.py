"""What a run keeps of its folding: layer similarity matrices while it trains, and every fold of the trained network, measured.

Apart from the widget that draws it, so that a machine which only records needs no widget library.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jsonschema
import numpy as np
import torch
from torch import Tensor, nn

from lab.utils.errors import LabError
from principled import Relaxed, SoftSharing, fold
from principled.folding import Program, Step
from principled.sharing import groupings, layer_similarity

METRICS = ("accuracy", "F1")
"""What a score is. An accuracy is shown as the error that it leaves, an F1 as it is."""

BESIDE = ("shortcut", "downsample")
"""What the weights of a skip connection are called here and in torchvision."""

UNIT = 65535  # a similarity of 1 in the matrices' two bytes: finer than any screen


def alphas(relaxed: Relaxed) -> dict[str, Tensor]:
    """The coefficients as they are now, ``{group: (L, k)}``, float32 copies on the CPU: one moment of a history."""
    return {
        group: alpha.detach().to("cpu", torch.float32, copy=True) for group, alpha in _sharing(relaxed).alpha.items()
    }


def folding_recording(
    relaxed: Relaxed,
    history: Iterable[tuple[float, Mapping[str, Tensor]]],
    *,
    epoch: float,
    network: str,
    evaluate: Callable[[nn.Module], float],
    reestimate: Callable[[nn.Module], object] | None = None,
    finetune: Callable[[nn.Module], object] | None = None,
    metric: str = "accuracy",
    aside: Sequence[str] = BESIDE,
    most: int = 40,
) -> dict[str, Any]:
    """A run's folding as plain JSON values, fit for its record. About 16 kB for ten layers in each of three groups.

    Each level at which layers merge is one fold of the whole network (:func:`principled.fold` with that threshold for all
    groups), built and measured here; the network as it is comes first.

    Args:
        relaxed: the trained network; it is left as it is.
        history: ``(epoch, alphas(relaxed))`` taken while it trained, epochs rising. A moment costs ``L (L - 1) 8/3`` bytes
            a group, so take a dozen of ten layers and three or four of a hundred.
        epoch: the epochs that it trained in all: when the folds are measured, and the last moment.
        network: its name, as a reader chooses it: ``"SWRN-40-8-8"``.
        evaluate: the score of a network on test data, from 0 to 1, more is better.
        reestimate: re-estimates a network's BatchNorm statistics on training data, in place. Without it a fold is measured
            only as folded.
        finetune: trains a fold a little, in place, after ``reestimate``. It is called once a fold. Default: not done.
        metric: what the score is, one of :data:`METRICS`.
        aside: weights whose name holds one of these lie beside the chain of layers; they are neither drawn nor counted as
            layers. Default: skip connections.
        most: how many folds to measure at most, evenly chosen, the first and the last among them.

    Returns:
        A dict, see :func:`check_recording`; :func:`similarities`, :func:`program` and :func:`folding_state` read it.

    Raises:
        LabError: a history, a score or an argument that does not fit. ValueError: a network that cannot be folded.
    """
    if metric not in METRICS:
        raise LabError(f"metric {metric!r} is unknown; choose one of {', '.join(METRICS)}")
    if most < 2:
        raise LabError(f"most is {most}; a folding figure needs two folds at least, so give 2 or more")
    moments = [(float(at), alpha) for at, alpha in history if at != epoch]
    _check_history(moments, epoch, _sharing(relaxed))
    moments.append((float(epoch), alphas(relaxed)))

    thresholds = _thresholds(relaxed)
    kept = sorted({round(i) for i in np.linspace(0, len(thresholds) - 1, min(most, len(thresholds)))})
    steps = fold(relaxed, {}).program.steps
    beside = [step.name for step in steps if any(word in step.name for word in aside)]
    return {
        "network": network,
        "metric": metric,
        "epoch": float(epoch),
        "groups": {group: list(names) for group, names in _sharing(relaxed).groups.items()},
        "steps": [step.name for step in steps],
        "aside": beside,
        "moments": [
            {"epoch": at, "similarity": {group: pack(layer_similarity(a.double())) for group, a in alpha.items()}}
            for at, alpha in moments
        ],
        "folds": [_measure(relaxed, thresholds[i], set(beside), evaluate, reestimate, finetune) for i in kept],
    }


def similarities(recording: Mapping[str, Any]) -> list[tuple[float, dict[str, Tensor]]]:
    """The recorded layer similarity matrices (3.13): ``[(epoch, {group: (L, L)}), ...]``, float32, to within 1e-5."""
    size = {group: len(names) for group, names in recording["groups"].items()}
    return [
        (float(moment["epoch"]), {group: unpack(moment["similarity"][group], layers) for group, layers in size.items()})
        for moment in recording["moments"]
    ]


def program(recording: Mapping[str, Any], chosen: Mapping[str, Any]) -> Program:
    """The order of execution of one of ``recording["folds"]``; its ratios have three digits."""
    place: dict[str, Step] = {}
    for group, names in recording["groups"].items():
        members = [int(number) for number in chosen["grouping"][group].split()]
        ratios = [float(ratio) for ratio in chosen["ratios"][group].split()]
        hosts: dict[int, str] = {}
        for name in sorted(names, key=recording["steps"].index):  # the first execution holds the weight
            hosts.setdefault(members[names.index(name)], name)
        place |= {n: Step(n, hosts[m], r, group) for n, m, r in zip(names, members, ratios, strict=True)}
    return Program(tuple(place.get(name, Step(name, name, 1.0, None)) for name in recording["steps"]))


def folding_state(records: Iterable[Mapping[str, Any]], *, title: str) -> dict[str, Any]:
    """The figure's state from runs' records; those without a folding in their ``recording`` are passed over.

    ``title`` is what the figure is called. For the state see :class:`lab.figures.folding.widget.FoldingWidget`.

    Raises:
        LabError: no record with a folding, or a recording of another shape, with the run and the place named.
    """
    runs = [_run(record) for record in records if "folds" in record.get("recording", {})]
    if not runs:
        raise LabError("none of these records holds a folding: record a run of soft sharing first")
    return {"title": title, "runs": runs}


_TEXT, _NAMES, _SHARE = {"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"minimum": 0, "maximum": 1}
_BY_GROUP = {"type": "object", "additionalProperties": _TEXT}
_FOLD = {"level": _SHARE, "layers": {"type": "integer"}, "parameters": {"type": "integer"}, "score": _SHARE}
_FOLD |= {"grouping": _BY_GROUP, "ratios": _BY_GROUP}
_RECORDING = {
    "network": _TEXT,
    "metric": {"enum": list(METRICS)},
    "epoch": {"type": "number"},
    "groups": {"type": "object", "minProperties": 1, "additionalProperties": _NAMES | {"minItems": 2}},
    "steps": _NAMES | {"uniqueItems": True},
    "aside": _NAMES,
    "moments": {
        "type": "array",
        "minItems": 2,
        "items": {"required": ["epoch", "similarity"], "properties": {"similarity": _BY_GROUP}},
    },
    "folds": {"type": "array", "items": {"required": list(_FOLD), "properties": _FOLD}},
}
SCHEMA = {"type": "object", "required": list(_RECORDING), "properties": _RECORDING}
"""Of what :func:`folding_recording` gives; :func:`check_recording` says what it means."""


def check_recording(recording: Mapping[str, Any]) -> None:
    """Raise ``LabError`` for the first place where ``recording`` is not what :func:`folding_recording` gives.

    ``network`` and ``metric``; ``epoch``, when the folds were measured; ``groups``: name to weights, in alpha's order;
    ``steps``: all weights in order of execution; ``aside``: those of them beside the chain; ``moments``: ``epoch``, and
    ``similarity``, for each group the matrix's entries above the diagonal, row by row, as base64 of little-endian 16-bit numbers,
    65535 for 1; ``folds``: ``level``, the threshold that gives this fold (1 for the network as it is), ``layers`` and
    ``parameters`` that are left, ``grouping`` and ``ratios`` (a number for each layer of each group), ``score`` as folded,
    and where they were measured ``score_bn`` with BatchNorm re-estimated and ``score_tuned`` after fine-tuning.
    """
    try:
        jsonschema.validate(recording, SCHEMA, jsonschema.Draft202012Validator)
        similarities(recording)
        for measured in recording["folds"]:
            program(recording, measured)
        if shared := set(recording["aside"]) & {name for names in recording["groups"].values() for name in names}:
            raise ValueError(f"{', '.join(shared)} is both shared and aside")
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "a part"
        raise LabError(f"folding recording, {place}: {error.message[:120]}; record the run again") from None
    except (LookupError, ValueError, LabError) as error:
        raise LabError(f"folding recording: its parts do not fit together ({error}); record the run again") from None


def _sharing(relaxed: Relaxed) -> SoftSharing:
    sharing = [r for r in getattr(relaxed, "relaxations", ()) if isinstance(r, SoftSharing)]
    if len(sharing) != 1:
        raise LabError(
            f"{type(relaxed).__name__} does not share its layers: give Relaxed(net, SoftSharing(...)), before harden()"
        )
    return sharing[0]


def _check_history(moments: list[tuple[float, Mapping[str, Tensor]]], epoch: float, sharing: SoftSharing) -> None:
    if not moments:
        raise LabError("history holds no moment before the last: take (epoch, alphas(net)) while the network trains")
    epochs = [at for at, _ in moments] + [epoch]
    if sorted(set(epochs)) != epochs:
        raise LabError(
            f"history: epochs must rise and end below {epoch:g}, they are {', '.join(f'{e:g}' for e in epochs)}"
        )
    for at, alpha in moments:
        if {g: len(a) for g, a in alpha.items()} != {g: len(a) for g, a in sharing.alpha.items()}:
            raise LabError(f"history: the coefficients of epoch {at:g} are not those of this network's groups")
        if not all(bool(a.isfinite().all()) for a in alpha.values()):
            raise LabError(f"history: epoch {at:g} holds a number that is not finite; the run diverged: leave it out")


def _thresholds(relaxed: Relaxed) -> list[float]:
    """1 for the network as it is, then, falling, every threshold (four decimals) at which layers merge."""
    levels = set()
    for alpha in _sharing(relaxed).alpha.values():
        for level, _ in groupings(layer_similarity(alpha.detach().double()))[1:]:
            levels.add(
                min(math.floor(level * 1e4), 9999) / 1e4
            )  # rounded down, so that this very threshold merges them
    return [1.0, *sorted(levels, reverse=True)]


def _measure(
    relaxed: Relaxed,
    threshold: float,
    beside: set[str],
    evaluate: Callable[[nn.Module], float],
    reestimate: Callable[[nn.Module], object] | None,
    finetune: Callable[[nn.Module], object] | None,
) -> dict[str, Any]:
    folded = fold(relaxed, {} if threshold == 1 else threshold)
    steps = folded.program.steps
    at = {step.name: step for step in steps}
    index = dict(zip(at, folded.program.order, strict=True))
    measured: dict[str, Any] = {
        "level": threshold,
        "layers": len({step.layer for step in steps} - beside),
        "parameters": sum(p.numel() for p in folded.parameters()),
        "grouping": {},
        "ratios": {},
        "score": _score(evaluate, folded, threshold),
    }
    for group, names in _sharing(relaxed).groups.items():
        first = list(dict.fromkeys(index[name] for name in names))
        measured["grouping"][group] = " ".join(str(first.index(index[name])) for name in names)
        measured["ratios"][group] = " ".join(f"{at[name].ratio:.3g}" for name in names)
    if reestimate is not None:
        reestimate(folded)
        measured["score_bn"] = _score(evaluate, folded, threshold)
    if finetune is not None:
        finetune(folded)
        measured["score_tuned"] = _score(evaluate, folded, threshold)
    return measured


def _score(evaluate: Callable[[nn.Module], float], net: nn.Module, threshold: float) -> float:
    score = float(evaluate(net))
    if not 0 <= score <= 1:
        raise LabError(f"evaluate gave {score} for the fold at {threshold:g}; a score is a number from 0 to 1")
    return round(score, 6)


def pack(similarity: Tensor) -> str:
    """The entries of one matrix above its diagonal, as :func:`check_recording` describes them."""
    rows, columns = np.triu_indices(len(similarity), 1)
    entries = np.rint(similarity.numpy()[rows, columns] * UNIT).astype("<u2")
    return base64.b64encode(entries.tobytes()).decode()


def unpack(text: str, layers: int) -> Tensor:
    """One matrix as :func:`check_recording` describes it, ``(layers, layers)``. Raises LabError where it is not one."""
    try:
        entries = np.frombuffer(base64.b64decode(text, validate=True), "<u2")
    except (binascii.Error, ValueError):
        entries = np.empty(0)
    if len(entries) != layers * (layers - 1) // 2:
        raise LabError(
            f"a similarity matrix of {layers} layers has {layers * (layers - 1) // 2} entries in base64, not these"
        )
    matrix = np.eye(layers, dtype=np.float32)
    rows, columns = np.triu_indices(layers, 1)
    matrix[rows, columns] = matrix[columns, rows] = entries / UNIT
    return torch.from_numpy(matrix)


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    recording = record["recording"]
    try:
        check_recording(recording)
    except LabError as error:
        raise LabError(f"run {record['id']}: {error}") from None
    groups = list(recording["groups"])
    where = {name: i for i, names in enumerate(recording["groups"].values()) for name in names}
    drawn = [name for name in recording["steps"] if name not in set(recording["aside"])]
    matrices = similarities(recording)
    return {
        "network": recording["network"],
        "metric": recording["metric"],
        "profile": record["profile"],
        "seed": record["seed"],
        "run": record["id"],
        "groups": [{"name": g, "layers": [drawn.index(name) for name in recording["groups"][g]]} for g in groups],
        "steps": [name.removesuffix(".weight") for name in drawn],
        "rows": _rows([where.get(name) for name in drawn], groups),
        "moments": [
            {
                "epoch": at,
                "similarity": [recording["moments"][i]["similarity"][g] for g in groups],
                "merges": [_merges(matrix[g]) for g in groups],
            }
            for i, (at, matrix) in enumerate(matrices)
        ],
        "folds": [_fold(recording, one, drawn) for one in recording["folds"]],
    }


def _fold(recording: Mapping[str, Any], one: Mapping[str, Any], drawn: Sequence[str]) -> dict[str, Any]:
    chain = Program(tuple(step for step in program(recording, one).steps if step.name in set(drawn)))
    ratios = {str(i): step.ratio for i, step in enumerate(chain.steps) if step.ratio != 1}
    scores = {key: one[key] for key in ("score", "score_bn", "score_tuned") if key in one}
    return {
        "level": one["level"],
        "layers": one["layers"],
        "parameters": one["parameters"],
        "order": list(chain.order),
        "loops": [list(loop) for loop in chain.loops],
        "ratios": ratios,
    } | scores


def _merges(similarity: Tensor) -> list[list[float]]:
    """The dendrogram: ``[level, a, b]``, from that threshold down the groups of layers ``a`` and ``b`` are one."""
    merges, before = [], list(range(len(similarity)))
    for level, groups in groupings(similarity)[1:]:
        joined = next(g for g in range(len(groups)) if groups.index(groups[g]) != before.index(before[g]))
        merges.append([math.floor(level * 1e4) / 1e4, groups.index(groups[joined]), joined])
        before = groups
    return merges


def _rows(where: Sequence[int | None], groups: Sequence[str]) -> list[dict[str, Any]]:
    """Cut the chain into rows to draw: a group each, groups that interleave together; what never shared goes before them.

    ``where`` is the group of each step. Returns ``{"name", "start", "end"}``, steps from ``start`` up to ``end``.
    """
    spans: list[tuple[int, int, str]] = []  # first step, last step, name
    for g, group in enumerate(groups):
        at = [i for i, one in enumerate(where) if one == g]
        spans.append((at[0], at[-1], group))
    joined: list[tuple[int, int, str]] = []
    for first, last, name in sorted(spans):
        if joined and first < joined[-1][1]:
            start, end, names = joined.pop()
            joined.append((start, max(end, last), f"{names} + {name}"))
        else:
            joined.append((first, last, name))
    ends = [last + 1 for _, last, _ in joined[:-1]] + [len(where)]
    return [
        {"name": name, "start": start, "end": end}
        for (_, _, name), start, end in zip(joined, [0, *ends[:-1]], ends, strict=True)
    ]
