"""The records of runs: small JSON files, written atomically, one a run.

``short`` and ``paper`` runs cost hours: their records live in ``data/runs/`` and stay valid until the method's
``revision`` (part of the configuration) is raised by hand. ``quick`` results cost seconds: they live under
``_build/runs/`` beside a hash of the source they rest on, and are made again when it changes. Those of the source as it
was committed come along in ``data/quick/``, a line a run, so that a first build trains nothing; ``LAB_QUICK=train``
overlooks them.

A run has one record at a time, for every reader (:func:`find`): machines round differently, and figure, text and mark
of a page shall name the same value. What came along for the present source comes first; no recorded run is recorded
once more.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastjsonschema import JsonSchemaValueException

from lab import datasets
from lab.utils.errors import LabError
from lab.utils.files import ROOT, schema, speaking, variable, write_bytes, write_json

from .profiles import check_profile
from .run import Record, Run, declaration, quick_runs, recorded_runs, run_id, source_of

if TYPE_CHECKING:
    import pandas as pd
    import torch


COME_ALONG = ROOT / "data" / "quick"
"""Quick results of the committed source: ``<experiment>.jsonl``, a record a line, sorted by id."""


def come_along(experiment: str) -> dict[str, Record]:
    """The quick records of ``experiment`` that came with the checkout, by id; none with ``LAB_QUICK=train``.

    A record of other source than the present is one of them: its ``provenance.source`` tells. A damaged line is named
    and skipped.
    """
    return {} if variable("LAB_QUICK") == "train" else _came_along(COME_ALONG / f"{experiment}.jsonl")


@cache
def _came_along(file: Path) -> dict[str, Record]:
    records = {}
    for number, line in enumerate(file.read_bytes().splitlines() if file.exists() else (), 1):
        try:
            record = _parse(line, f"{file}, line {number},")
            records[record["id"]] = record
        except Damaged as e:
            warnings.warn(str(e), stacklevel=3)
    return records


def take_along(experiments: Iterable[str]) -> list[Path]:
    """Write ``data/quick`` anew for these experiments: what is there already for the present source, else what was made
    here; with ``LAB_QUICK=train`` the other way round.

    Returns the files that changed. Records of other source, and of runs that are not declared any more, are left out.
    """
    changed = []
    for experiment in experiments:
        file, module = COME_ALONG / f"{experiment}.jsonl", declaration(experiment)
        runs = module.runs("quick") if hasattr(module, "runs") else ()
        there = {id: record for id, record in _came_along(file).items() if _is_fresh(record)}
        records = {run.id: record for run in runs if (record := find(run, SETTLED) or there.get(run.id))}
        lines = (json.dumps(records[id], sort_keys=True, separators=(",", ":")) + "\n" for id in sorted(records))
        content = "".join(lines).encode()
        if content and not (file.exists() and file.read_bytes() == content):
            write_bytes(file, content)
            changed.append(file)
    _came_along.cache_clear()
    return changed


def quick_record(id: str) -> Record | None:
    """The quick record with this id: as :func:`find` gives it, else of other source; what came along before the latest
    made here."""
    files = sorted(quick_runs().glob(f"*/*/{id}.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    came = [record for file in COME_ALONG.glob("*.jsonl") if (record := come_along(file.stem).get(id))]
    here = [record for file in files if (record := _read_or_set_aside(file))]
    records = [*came, *here]
    return next((record for record in records if _is_fresh(record)), records[0] if records else None)


class Damaged(LabError):
    """A record that is there, could be read, and makes no sense."""


def read(path: Path) -> Record:
    """A record, validated.

    Raises:
        Damaged: one line that names the file. It is no JSON or against the schema, a figure is out of its range, or the
            id is not that of the content: somebody edited it.
    """
    with speaking(path, "read"):
        content = path.read_bytes()
    record = _parse(content, str(path))
    if record["id"] != path.stem:
        raise Damaged(f"{path} holds run {record['id']}: a record's file is named after its run")
    return record


def _parse(content: bytes, where: str) -> Record:
    try:
        record = json.loads(content, parse_constant=_refuse)
        _validate(record)
    except JsonSchemaValueException as e:
        raise Damaged(f"{where} is not a valid record ({e.message[:160]}): restore it, or delete it") from e
    except (ValueError, RecursionError) as e:
        raise Damaged(f"{where} is damaged (not JSON: {e}): restore it from version control, or delete it") from e
    return dict(record)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _validate(record: Record) -> None:
    """Raise JsonSchemaValueException unless all of the record is as the schema says and its id that of its content."""
    schema(Path(__file__).with_name("record.schema.json"))(record)
    config, data = record["config"], record["data"]
    if data["name"] != config["data"]:
        raise JsonSchemaValueException(f"data.name is {data['name']!r}, where config says {config['data']!r}")
    own = run_id(record["experiment"], config, record["profile"], record["seed"], data["checksum"])
    if record["id"] != own:
        raise JsonSchemaValueException(f"id is {record['id']}, while its content is that of run {own}")


SETTLED = ("finished", "diverged")
"""States that no repetition changes: every step of a run is determined by its configuration and seed."""


def find(run: Run, states: Collection[str] = ("finished",)) -> Record | None:
    """The run's record if it is in one of ``states``, and its network is here where that is wanted; else None.

    What came along for the present source comes before what was made here. A damaged record is named, set aside (never
    deleted), and counts as absent.
    """
    if run.network and not run.model().exists():
        return None
    record = come_along(run.experiment).get(run.id) if run.profile == "quick" else None
    if record is None or not _is_fresh(record):
        record = _read_or_set_aside(run.path()) if run.path().exists() else None
    return record if record is not None and record["state"] in states else None


def _is_fresh(record: Record) -> bool:
    """Whether it was made with the present source."""
    return bool(record["provenance"]["source"] == source_of(record["experiment"]))


def _read_or_set_aside(path: Path) -> Record | None:
    try:
        return read(path)
    except Damaged as e:
        aside = path.with_suffix(f".{time.time_ns()}.damaged")  # a name of its own: an earlier one is kept
        with speaking(path, "set aside"):
            os.replace(path, aside)
        warnings.warn(f"{e}; it was set aside as {aside.name} and the run counts as not recorded", stacklevel=3)
        return None


def write(run: Run, state: str, result: Mapping[str, Any], provenance: Mapping[str, Any]) -> Record:
    """Record what a run gave. ``result`` holds ``figures``, ``curve`` (rows) and optionally ``recording``,
    ``error``."""
    rows = [{k: v for k, v in row.items() if isinstance(v, int | float)} for row in result.get("curve", [])]
    columns = sorted({key for row in rows for key in row})
    record: Record = {
        "schema": 1,
        "experiment": run.experiment,
        "id": run.id,
        "profile": run.profile,
        "seed": run.seed,
        "state": state,
        "config": dict(run.config),
        "data": {"name": run.config["data"], "checksum": datasets.checksum(run.config["data"])},
        "figures": rounded(result.get("figures", {})),
        "curve": {c: [None if (v := row.get(c)) is None else round(v, 6) for row in rows] for c in columns},
        "provenance": dict(provenance),
    }
    record |= {key: result[key] for key in ("recording", "error") if key in result}
    _validate(record)
    write_json(run.path(), record)
    return record


def rounded(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures as a record states them: to six digits."""
    return {name: round(float(value), 6) for name, value in figures.items()}


def figures_of(model: Path) -> dict[str, float]:
    """The figures of the training that left this network (:meth:`Run.model`), which may be another than the recorded
    one: another machine's arithmetic gives another network. Empty where the file does not say."""
    from safetensors import safe_open

    with speaking(model, "read"), safe_open(model, "pt") as file:
        return dict(json.loads((file.metadata() or {}).get("figures", "{}")))


def provenance(run: Run, device: torch.device, seconds: float) -> dict[str, Any]:
    """Where, when, with what: everything about a run that is not part of its identity."""
    import torch

    from lab.training import gains_from_bf16

    commit, dirty = commit_of_now()
    cuda = device.type == "cuda"
    return {
        "source": source_of(run.experiment),
        "commit": commit,
        "dirty": dirty,
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "precision": "bfloat16" if gains_from_bf16(device) else "float32",
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def commit_of_now() -> tuple[str | None, bool | None]:
    """The checkout's commit and whether tracked files differ from it; (None, None) in a copied folder without git."""
    try:
        git = ["git", "-C", str(ROOT)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=20)
        status = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", "src"], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit.stdout.strip(), bool(status.stdout.strip())


@cache
def cpu_name() -> str:
    """This machine's processor and its number of cores."""
    with_name = Path("/proc/cpuinfo")
    if with_name.exists():
        for line in with_name.read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def recorded(experiment: str | None = None, profile: str | None = None) -> Iterator[Record]:
    """Every valid record in ``data/runs``; a damaged file is named in a warning and skipped."""
    for path in sorted(recorded_runs().glob(f"{experiment or '*'}/*.json")):
        try:
            record = read(path)
        except Damaged as e:
            warnings.warn(str(e), stacklevel=2)
            continue
        if profile is None or record["profile"] == profile:
            yield record


def load(experiment: str | None = None, profile: str | None = None) -> pd.DataFrame:
    """Recorded runs as a table, a row a run."""
    if profile is not None:
        check_profile(profile)
    return table(recorded(experiment, profile))


def table(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a table: identity, method's options (``method``, ``s_init`` ...), figures, device, seconds, commit."""
    rows = []
    for record in records:
        options = {k: v for k, v in record["config"]["method"].items() if k != "name"}
        rows.append(
            {key: record[key] for key in ("experiment", "id", "profile", "seed", "state")}
            | {"model": record["config"].get("model"), "data": record["data"]["name"]}
            | {"method": record["config"]["method"]["name"], **options, **record["figures"]}
            | {key: record["provenance"][key] for key in ("device", "seconds", "commit")}
        )
    import pandas as pd

    return pd.DataFrame(rows)
