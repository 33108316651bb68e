"""A run and its identity.

A run is (experiment, configuration, profile, seed). Its id is a hash of these and of the data's checksum, so a run that
is recorded already is never trained again, wherever and whenever it was.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from lab import datasets
from lab.utils.errors import LabError
from lab.utils.files import build_folder, folder

from .registry import EXPERIMENTS, attribute, module_name
from .source_hash import PACKAGES, source_hash

Record = dict[str, Any]

BOOKKEEPING = (
    *(
        f"lab/runs/{module}.py"
        for module in (
            "__init__",
            "run",
            "records",
            "source_hash",
            "profiles",
            "registry",
            "runner",
            "worker",
            "cluster",
        )
    ),
    "lab/runs/record.schema.json",
    "lab/utils/files.py",
    "lab/utils/errors.py",
)
"""What writes, names, orders and finds results but cannot change one: an edit here makes no result stale."""


@dataclass(frozen=True)
class Run:
    """What is to be computed. ``config`` is plain JSON; it names the data under ``"data"`` and the method under
    ``"method"``.

    ``network`` says that the trained network is wanted at :meth:`model` too. It stays on the machine that trained it,
    so that a run whose record came along is trained again for it. The record stays what it is, and the network's file
    holds the figures of its own training (:func:`figures_of`). ``network`` is no part of the run's identity.
    """

    experiment: str
    config: Mapping[str, Any] = field(hash=False)
    profile: str
    seed: int
    network: bool = field(default=False, compare=False)

    @classmethod
    def of(cls, record: Record) -> Run:
        """The run that a record is about."""
        return cls(record["experiment"], record["config"], record["profile"], record["seed"])

    @property
    def id(self) -> str:
        """16 hex digits that identify the run and nothing else: equal on every machine and in every session."""
        return run_id(self.experiment, self.config, self.profile, self.seed, datasets.checksum(self.config["data"]))

    @property
    def module(self) -> ModuleType:
        """The declaration that knows how to compute it: see :mod:`lab.runs.registry`."""
        return declaration(self.experiment)

    def label(self) -> str:
        """A few words for a progress bar."""
        method = {k: v for k, v in self.config["method"].items() if k in ("s_init", "target")}
        return " ".join([self.config["method"]["name"], *(f"{k}={v}" for k, v in method.items()), f"seed={self.seed}"])

    def folder(self) -> Path:
        """Where its record belongs."""
        if self.profile == "quick":
            return quick_runs() / source_of(self.experiment)[:16] / self.experiment
        return recorded_runs() / self.experiment

    def path(self) -> Path:
        """The record's file."""
        return self.folder() / f"{self.id}.json"

    def model(self) -> Path:
        """Where its trained network is kept, in full and untracked; the small ones that the book ships are packed from
        it.

        A quick run's belongs to the source that it was made with.
        """
        tag = f"-{source_of(self.experiment)[:16]}" if self.profile == "quick" else ""
        return build_folder() / "models" / f"{self.id}{tag}.safetensors"

    def checkpoint(self) -> Path:
        """The file that an unfinished run goes on from. A quick run's belongs to the source that it was made with."""
        tag = source_of(self.experiment)[:16] if self.profile == "quick" else self.profile
        return build_folder() / "checkpoints" / f"{self.id}-{tag}.pt"


def run_id(experiment: str, config: Mapping[str, Any], profile: str, seed: int, checksum: str) -> str:
    """The id of a run on data with this checksum."""
    identity = {"experiment": experiment, "config": config, "profile": profile, "seed": seed, "data": checksum}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Unavailable(LabError):
    """An experiment needs :attr:`package`, which is not installed."""

    def __init__(self, experiment: str, package: str) -> None:
        super().__init__(f"experiment {experiment} needs {package}: pip install -r requirements.txt")
        self.package = package


def declaration(experiment: str) -> ModuleType:
    """The module of an experiment by its name.

    Raises:
        LabError: no experiment has that name.
        Unavailable: it needs a package that is not installed.
    """
    if experiment not in EXPERIMENTS:
        raise LabError(f"unknown experiment {experiment!r}: choose one of {', '.join(sorted(EXPERIMENTS))}")
    try:
        module = importlib.import_module(module_name(experiment))
    except ModuleNotFoundError as e:
        package = (e.name or "").partition(".")[0]
        if package in ("", *PACKAGES):  # a mistake of ours
            raise
        raise Unavailable(experiment, package) from None
    return getattr(module, attribute(experiment), module)


def recorded_runs() -> Path:
    """The folder of the recorded runs: ``LAB_RUNS``, else ``data/runs`` of this checkout."""
    return folder("LAB_RUNS")


def quick_runs() -> Path:
    """The folder of the quick runs, each below the hash of its source."""
    return build_folder() / "runs" / "quick"


@cache
def source_of(experiment: str) -> str:
    """Hash of all source that an experiment's results can depend on."""
    return source_hash(module_name(experiment), without=BOOKKEEPING)
