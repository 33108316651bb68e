"""Do the shipped models give the numbers that the book records? Load each, evaluate it, compare.

``data/models/`` holds small trained networks behind the tables, as :func:`principled.files.save` writes them.
:func:`recheck` finds each one's record, counts its zeros (they must be the recorded ones exactly) and evaluates it on CIFAR-10's test images:

* on all 10,000, the accuracy must be the recorded one within 0.1 percentage points, ten images. It is not equal to the
  digit because the arithmetic is not: where a processor has matrix units the network runs in bfloat16, elsewhere in
  float32, and libraries sum in different orders, so that the few images on a decision boundary fall either way;
* on the 1,000 that come with the book, where the full set is absent, the number of right answers must lie in the
  interval that holds 99.9 % of all draws of 1,000 images at the recorded accuracy.

:func:`ship` packs a recorded run's network into the folder.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lab import datasets, models
from lab.datasets import Images
from lab.datasets import cifar10 as full
from lab.models.mobile import mobilenetv2, shufflenet
from lab.training import accuracy
from lab.utils.errors import LabError
from lab.utils.files import ROOT, build_folder, speaking, write_atomically
from principled import average_bits
from principled.files import load, meta, precisions, save
from principled.files.precision_map import decode_map
from principled.smol_training import Quantised

from .records import Record, Run, figures_of, read, recorded_runs
from .records import recorded as all_records

FOLDER = ROOT / "data" / "models"
LARGEST = 300_000
"""Bytes of a shipped file; the dense network of seed 0, which every table compares with, may be larger."""
TOLERANCE = 0.001
CONFIDENCE = 0.999
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "resnet20": models.resnet20,
    "mobilenetv2": mobilenetv2,
    "shufflenet": shufflenet,
    "conv6": models.conv6,
}
"""By the name under ``model`` in a configuration: from the number of classes to the plain network that a run ends
with."""


@dataclass(frozen=True)
class Result:
    """One model: its file's name, its run, accuracies in [0, 1] (None if it came to none), images seen, and the
    verdict."""

    model: str
    run: str
    recorded: float | None
    rechecked: float | None
    images: int
    agrees: bool
    verdict: str


def recheck(root: Path | str | None = None, data: str | None = None, limit: int | None = None) -> list[Result]:
    """Evaluate every shipped model and compare it with its record.

    Args:
        root: folder of packed models; default ``data/models`` of this checkout.
        data: ``"cifar10"`` or ``"cifar10-mini"``; default the full set if it is there, else the embedded images.
        limit: check so many models only, in the order of their names; default all.

    Raises:
        LabError: the folder holds no model, or the data asked for is not there. What is wrong with one model (no
            record, a damaged file) is its verdict, and the others are still checked.
    """
    folder = Path(root) if root is not None else FOLDER
    paths = sorted(folder.glob("*.principled"))[:limit]
    if not paths:
        raise LabError(f"{folder} holds no model to check: `python -m lab ship` packs those of recorded runs")
    images = datasets.load(data or ("cifar10" if full.batches_folder().is_dir() else "cifar10-mini"), "test")
    return [_check(path, images) for path in paths]


def _check(path: Path, images: Images) -> Result:
    run, recorded = "", None
    try:
        told = meta(path)
        run = told.get("run", "")
        record = _record(run)
        recorded = record["figures"]["accuracy"]
        if record["data"]["name"] != "cifar10":
            raise LabError(f"trained on {record['data']['name']}, which this check does not evaluate")
        net = network(record["config"]["model"], len(told["classes"].split(",")))
        net = load(path, net)
        mean, std = (torch.tensor(json.loads(told[key])) for key in ("mean", "std"))
        _same_zeros(net, record)
        quantised = "map" in record.get("recording", {})
        if quantised and abs(average_bits(precisions(path)) - record["figures"]["bits"]) > 1e-6:
            raise LabError(f"DISAGREES: recorded {record['figures']['bits']} bits a weight, the file has others")
        # the training set's own mean and deviation: those of the embedded images differ a little
        found = accuracy(net, replace(images, mean=mean, std=std))
    except (LabError, KeyError, ValueError, OSError) as e:
        why = f"no {e} in it" if isinstance(e, KeyError) else " ".join(str(e).split())
        return Result(path.name, run, recorded, None, 0, False, why)
    agrees, verdict = judge(recorded, found, len(images))
    return Result(path.name, run, recorded, found, len(images), agrees, verdict)


def judge(recorded: float, found: float, images: int) -> tuple[bool, str]:
    """Whether ``found`` on ``images`` images agrees with ``recorded`` on 10,000, and the reason in words."""
    if images == full.PER_BATCH:
        off = round(found * images) - round(recorded * images)
        agrees = abs(off) <= round(TOLERANCE * images)
        return agrees, f"{'agrees' if agrees else 'DISAGREES'} ({off:+d} images of {images:,})"
    low, high = interval(recorded, images)
    agrees = low <= round(found * images) <= high
    return (
        agrees,
        f"{'agrees' if agrees else 'DISAGREES'} ([{low / images:.1%}, {high / images:.1%}] for {images:,} images)",
    )


def interval(share: float, n: int, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Central interval of the binomial distribution: at most (1 - confidence) / 2 of the draws lie below, and above."""
    odds = torch.distributions.Binomial(n, torch.tensor(share, dtype=torch.float64), validate_args=False)
    below = odds.log_prob(torch.arange(n + 1, dtype=torch.float64)).exp().cumsum(0)
    tail = (1 - confidence) / 2
    return int((below <= tail).sum()), min(n, int((below < 1 - tail).sum()))


def zeros(net: nn.Module, record: Record) -> dict[str, float]:
    """The record's sparsity figures, counted again in ``net``: ``sparsity`` and ``sparsity.<layer>``, rounded alike."""
    layers = [key.removeprefix("sparsity.") for key in record["figures"] if key.startswith("sparsity.")]
    weights: dict[str, Tensor] = {name: net.get_parameter(f"{name}.weight") for name in layers}
    if not weights:
        return {}
    counts = {name: int((w == 0).sum()) for name, w in weights.items()}
    shares = {f"sparsity.{name}": counts[name] / w.numel() for name, w in weights.items()}
    shares["sparsity"] = sum(counts.values()) / sum(w.numel() for w in weights.values())
    return {name: round(share, 6) for name, share in shares.items()}


def _same_zeros(net: nn.Module, record: Record) -> None:
    try:
        counted = zeros(net, record)
    except AttributeError as e:
        raise LabError(f"the record's layers are not those of the network: {e}") from e
    for name, share in counted.items():
        if share != (recorded := record["figures"].get(name)):
            raise LabError(f"DISAGREES: {name} is {share}, recorded {recorded}")


def network(name: str, classes: int) -> nn.Module:
    """An untrained network by the name that a configuration gives it."""
    if name not in NETWORKS:
        raise LabError(f"unknown network {name!r}: lab.runs.recheck.NETWORKS has {', '.join(NETWORKS)}")
    return NETWORKS[name](classes)


def _record(run: str) -> Record:
    paths = [path for path in recorded_runs().glob("*/*.json") if path.stem == run]
    if not paths:
        raise LabError(f"no record of run {run or '(none named)'} in {recorded_runs()}")
    record = read(paths[0])
    if record["state"] != "finished":
        raise LabError(f"run {run} is recorded as {record['state']}")
    return record


def ship(run_id: str, root: Path | str | None = None) -> Path:
    """Pack a recorded run's network into ``root`` (default ``data/models``) and return the file.

    The file carries what a user needs beside the weights: run, experiment, model, classes, and the mean and standard
    deviation that images are normalised with.

    Raises:
        LabError: no such record; no network of it under ``_build/models`` (a run leaves one where it was computed); one
            whose figures are not the recorded ones; a file above 300 kB that is not the dense network of seed 0.
    """
    record = _record(run_id)
    method, config = record["config"]["method"]["name"], record["config"]
    if config.get("model") not in NETWORKS or record["data"]["name"] != "cifar10":
        raise LabError(f"run {run_id} is of {config.get('model')} on {record['data']['name']}, which no re-check knows")
    trained = Run(record["experiment"], config, record["profile"], record["seed"]).model()
    trained = trained.with_name(
        f"{run_id}.safetensors"
    )  # the record's word counts, whatever the data's checksum is now
    if not trained.exists():
        raise LabError(f"{trained} is missing: a run leaves its network on the machine that computed it")
    own = figures_of(trained)
    if own and own != record["figures"]:
        raise LabError(
            f"{trained} is of another training than the record of run {run_id}: record it where its network is"
        )
    images = datasets.load(config["data"], "test")
    net = network(config["model"], len(images.classes))
    with speaking(trained, "read"):
        weights = load_file(trained)
    try:
        net.load_state_dict(weights)
    except RuntimeError as e:  # such as one with quantised activations
        raise LabError(f"run {run_id} has tensors that a plain {config['model']} has not: it cannot be shipped") from e
    _same_zeros(net, record)
    told = {
        "run": run_id,
        "experiment": record["experiment"],
        "method": method,
        "model": config["model"],
        "classes": ",".join(images.classes),
        "mean": json.dumps(images.mean.tolist()),
        "std": json.dumps(images.std.tolist()),
    }
    folder = Path(root) if root is not None else FOLDER
    path = folder / f"{record['experiment']}-{method}-{run_id}.principled"
    draft = build_folder() / "packed" / path.name
    draft.parent.mkdir(parents=True, exist_ok=True)
    quantised = "map" in record.get("recording", {})
    save(draft, Quantised(net, recorded_precision(record), {}) if quantised else net, meta=told)
    size = draft.stat().st_size
    if size > LARGEST and not (method == "dense" and record["seed"] == 0):
        draft.unlink()
        raise LabError(f"run {run_id} packs to {size:,} bytes, above {LARGEST:,}: too large to ship")
    content = draft.read_bytes()
    write_atomically(path, lambda file: file.write(content))
    draft.unlink()
    return path


def recorded_precision(record: Record) -> dict[str, Tensor]:
    """The precision of each weight, by name, as a run of SMOL recorded it."""
    layers = record["recording"]["layers"]
    maps = decode_map(base64.b64decode(record["recording"]["map"]), [tuple(layer["shape"]) for layer in layers])
    return {
        f"{layer['name']}.weight": torch.from_numpy(p.astype("int8")) for layer, p in zip(layers, maps, strict=True)
    }


def shippable() -> list[str]:
    """Ids of the finished recorded runs whose network is on this machine."""
    there = {path.stem for path in (build_folder() / "models").glob("*.safetensors")}
    return [record["id"] for record in all_records() if record["state"] == "finished" and record["id"] in there]


def table(results: Iterable[Result]) -> str:
    """Model, recorded, re-checked, verdict: aligned text."""
    shown = [("model", "recorded", "re-checked", "verdict")]
    for r in results:
        shown.append((r.model, *("-" if v is None else f"{v:.2%}" for v in (r.recorded, r.rechecked)), r.verdict))
    wide = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(f"{a:{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}" for a, b, c, d in shown)


def main(options: argparse.Namespace) -> int:
    """``python -m lab recheck``: the table; 1 if any model disagrees. Options: ``models``, ``data``, ``limit``."""
    results = recheck(options.models, options.data, options.limit)
    images = max(r.images for r in results)
    what = "CIFAR-10's whole test set" if images == full.PER_BATCH else "the embedded images of CIFAR-10's test set"
    print(f"evaluated on {what} ({images:,} images)" if images else "nothing could be evaluated")
    print(table(results))
    return 0 if all(r.agrees for r in results) else 1


def ship_main(options: argparse.Namespace) -> int:
    """``python -m lab ship [RUN ...]``: pack these runs, or every recorded one that is small enough. Option:
    ``runs``."""
    for run in options.runs or shippable():
        try:
            path = ship(run)
        except LabError as e:
            if options.runs:
                raise
            print(f"not shipped: {e}", file=sys.stderr)
        else:
            print(f"{path} ({os.path.getsize(path):,} bytes)")
    return 0
