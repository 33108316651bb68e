"""Every version that the book was built with: ``constraints.txt`` for pip, ``sbom.json`` for auditors.

    python -m lab lock

follows what ``requirements.txt`` pins through what each installed package requires, and writes down the version of all of
it. No hashes: a CPU and a CUDA build of PyTorch share a version and differ in their bytes. A constraint installs
nothing, so the packages that only a CUDA build brings are simply not held.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .utils.errors import LabError
from .utils.files import ROOT

HEAD = (
    "# What pip installed for requirements.txt, each with its version. Written by `python -m lab lock`; do not edit.\n"
)


def pinned(root: Path = ROOT) -> list[Requirement]:
    """The lines of ``requirements.txt``."""
    lines = (line.partition("#")[0].strip() for line in (root / "requirements.txt").read_text("utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def closure(wanted: Iterable[Requirement]) -> dict[str, Distribution]:
    """Name to installed distribution: ``wanted``, what these require here, and so on, sorted by name.

    Raises:
        LabError: something that is not installed.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(requirement, "requirements.txt") for requirement in wanted]
    while todo:
        requirement, asker = todo.pop()
        name = canonicalize_name(requirement.name)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise LabError(
                f"{name}, which {asker} asks for, is not installed: run `make book` once, then again"
            ) from None
        found[name] = package
        if (key := (name, frozenset(requirement.extras))) not in seen:
            seen.add(key)
            todo += [(needed, name) for needed in _needs(package, requirement.extras)]
    return dict(sorted(found.items()))


def _needs(package: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for line in package.requires or ():
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield needed


def version(package: Distribution) -> str:
    """Without what names a build (``+cpu``): builds share their constraint."""
    return Version(package.version).public


def constraints(packages: dict[str, Distribution]) -> str:
    """The text of ``constraints.txt``."""
    return HEAD + "".join(f"{name}=={version(package)}\n" for name, package in packages.items())


def bill(packages: dict[str, Distribution]) -> str:
    """The text of ``sbom.json``: a software bill of materials, CycloneDX 1.6. Each licence is in its package's own words."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": version(package),
            "purl": f"pkg:pypi/{name}@{version(package)}",
            "licenses": [{"license": {"name": licence(package)}}],
        }
        for name, package in packages.items()
    ]
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    lines = ",\n".join(f"  {json.dumps(component)}" for component in components)
    return json.dumps(head)[:-1] + f', "components": [\n{lines}\n]}}\n'


def licence(package: Distribution) -> str:
    """An SPDX expression if the package states one, else its classifier, else the first line of what it says."""
    told = package.metadata.get_all("License-Expression") or [
        line.split(" :: ")[-1] for line in package.metadata.get_all("Classifier") or () if line.startswith("License ::")
    ]
    said = (package.metadata.get("License") or "").strip().splitlines()
    return " or ".join(told) or (said[0][:80] if said else "not stated")


def write(root: Path = ROOT) -> list[Path]:
    """Write both files; returns their paths."""
    packages = closure(pinned(root))
    texts = {"constraints.txt": constraints(packages), "sbom.json": bill(packages)}
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    return [root / name for name in texts]
