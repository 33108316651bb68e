"""Versions: what is written down is what is installed, and all of it."""

import json

import pytest
from packaging.requirements import Requirement

from lab import lock
from lab.utils.errors import LabError
from lab.utils.files import ROOT


@pytest.fixture(scope="module")
def packages():
    return lock.closure(lock.pinned())


def written() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_requirement_is_pinned_and_held_at_the_same_version():
    held = written()
    for requirement in lock.pinned():
        (pin,) = requirement.specifier
        assert (pin.operator, held[requirement.name.lower().replace("_", "-")]) == ("==", pin.version)


def test_what_is_installed_is_what_the_file_says(packages):
    held = written()
    installed = {name: lock.version(package) for name, package in packages.items()}
    # another Python or system may need packages that are not held, or not need some; what is held must agree
    assert {name: v for name, v in installed.items() if name in held} == {n: held[n] for n in installed if n in held}
    assert len(held) > 100


def test_the_bill_lists_the_same_versions_with_licences():
    bill = json.loads((ROOT / "sbom.json").read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert {c["name"]: c["version"] for c in bill["components"]} == written()
    assert all(c["purl"].endswith(f"/{c['name']}@{c['version']}") for c in bill["components"])
    stated = [c["licenses"][0]["license"]["name"] for c in bill["components"]]
    assert sum(name == "not stated" for name in stated) <= len(stated) // 10


def test_writing_gives_files_that_pip_reads_back(packages, tmp_path):
    (tmp_path / "requirements.txt").write_text("numpy==2.4.6  # a comment\n\npandas\n")
    first, second = (path.read_bytes() for path in lock.write(tmp_path))
    again = [path.read_bytes() for path in lock.write(tmp_path)]
    assert [first, second] == again
    names = [Requirement(line).name for line in first.decode().splitlines()[1:]]
    assert {"numpy", "pandas", "python-dateutil"} <= set(names)
    assert names == sorted(names)
    assert "torch" not in names


def test_builds_share_a_version(packages):
    assert "+" not in lock.version(packages["torch"])


def test_what_is_missing_is_named():
    with pytest.raises(LabError, match=r"no-such-package-here, which requirements\.txt asks for, is not installed"):
        lock.closure([Requirement("no-such-package-here==1")])
