"""The embedded set: real, stratified, verified, and rebuilt from the full one."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cifar import REPOSITORY, one_line

from lab import datasets
from lab.datasets import batches
from lab.datasets import cifar10 as full
from lab.datasets import cifar10_mini as mini
from lab.utils.errors import LabError

EMBEDDED = REPOSITORY / "data"


@pytest.fixture
def copy(tmp_path):
    """A data root with a copy of the embedded set."""
    shutil.copytree(EMBEDDED / "cifar10-mini", tmp_path / "copy" / "cifar10-mini")
    return tmp_path / "copy"


def test_embedded_set():
    train, test = datasets.load("cifar10-mini", "train", EMBEDDED), datasets.load("cifar10-mini", "test", EMBEDDED)
    assert train.images.shape == (2000, 3, 32, 32)
    assert test.images.shape == (1000, 3, 32, 32)
    assert train.labels.bincount().tolist() == [200] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    values = train.images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(test.mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(test.std, values.std((0, 2, 3)), rtol=1e-6)
    assert len(train.images.flatten(1).unique(dim=0)) == 2000
    assert sum(p.stat().st_size for p in (EMBEDDED / "cifar10-mini").iterdir()) <= 6_000_000
    assert train.checksum == test.checksum == datasets.checksum("cifar10-mini", EMBEDDED)
    assert train.checksum != datasets.checksum("cifar10")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_images_at_half_the_side(split):
    whole, small = (datasets.load(name, split, EMBEDDED) for name in ("cifar10-mini", "cifar10-mini-16"))
    assert small.images.shape == (len(whole), 3, 16, 16)
    assert torch.equal(small.labels, whole.labels)
    means = torch.nn.functional.avg_pool2d(whole.images.double(), 2)  # quarters are exact in floats
    assert torch.equal(small.images, (means + 0.5).floor().to(torch.uint8))
    seen = datasets.load("cifar10-mini-16", "train", EMBEDDED).images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(small.mean, seen.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(small.std, seen.std((0, 2, 3)), rtol=1e-6)
    assert small.checksum == datasets.checksum("cifar10-mini-16", EMBEDDED) != whole.checksum


def test_crops_move_small_images_by_less():
    farthest = []
    for name in ("cifar10-mini", "cifar10-mini-16"):
        data = datasets.load(name, "train", EMBEDDED)
        _, top, left, _ = next(batches.draws(data, 500, seed=0, epoch=0))
        farthest.append(int(torch.maximum(top, left).max()))
    assert farthest == [8, 4]  # twice the padding


def test_checksum_does_not_depend_on_place_or_encoding(copy):
    sheet = copy / "cifar10-mini" / "test.webp"
    before = sheet.read_bytes()
    with Image.open(io.BytesIO(before)) as picture:
        picture.save(sheet, "WEBP", lossless=True, quality=0, method=0)
    assert sheet.read_bytes() != before
    again, test = datasets.load("cifar10-mini", "test", copy), datasets.load("cifar10-mini", "test", EMBEDDED)
    assert torch.equal(again.images, test.images)
    assert again.checksum == test.checksum


@pytest.mark.parametrize("name", ["train.webp", "train.csv", "checksums.txt"])
@pytest.mark.parametrize("fault", ["missing", "empty", "truncated", "garbage", "altered"])
def test_faulty_embedded_set(copy, name, fault):
    path = copy / "cifar10-mini" / name
    if fault == "missing":
        path.unlink()
    elif fault == "altered" and name == "train.webp":
        with Image.open(path) as picture:
            changed = picture.convert("RGB")
        changed.putpixel((1000, 1000), tuple(v ^ 1 for v in changed.getpixel((1000, 1000))))
        changed.save(path, "WEBP", lossless=True, quality=0, method=0)
    elif fault == "altered":
        text = path.read_text()
        path.write_text(text.replace("\n0,6,", "\n0,5,") if name == "train.csv" else text.replace("6d87", "d678"))
        assert path.read_text() != text
    else:
        path.write_bytes({"empty": b"", "truncated": path.read_bytes()[:400], "garbage": b"\xff\x00" * 99}[fault])
    with pytest.raises(LabError) as caught:
        datasets.load("cifar10-mini", "train", copy)
    text = one_line(caught)
    assert "cifar10-mini" in text
    assert name in text or fault == "altered"  # an altered checksum shows as a file that differs from it
    assert "`git checkout data/cifar10-mini`" in text
    assert "`python -m lab data cifar10-mini`" in text


def test_no_embedded_set(tmp_path):
    for call in (
        lambda: datasets.load("cifar10-mini", "test", tmp_path),
        lambda: datasets.checksum("cifar10-mini", tmp_path),
    ):
        with pytest.raises(LabError, match="CIFAR-10 mini is not in"):
            call()
    (tmp_path / "cifar10-mini").mkdir()
    with pytest.raises(LabError, match=r"checksums\.txt is missing"):
        datasets.load("cifar10-mini", "test", tmp_path)


def test_build_round_trip(root, tiny, monkeypatch):
    monkeypatch.setattr(mini, "COLUMNS", 9)  # sheets whose last row is not full
    count = {"train": 4, "test": 2}
    folder = datasets.build_mini(root, per_class=count)
    for split, first in count.items():
        own, whole = datasets.load("cifar10-mini", split, root), datasets.load("cifar10", split, root)
        assert own.labels.bincount().tolist() == [first] * 10
        seen, expected = [0] * 10, []
        for i, label in enumerate(whole.labels.tolist()):  # the rule as the README words it
            if seen[label] < first:
                expected.append(i)
            seen[label] += 1
        assert torch.equal(own.images, whole.images[expected])
        assert torch.equal(own.labels, whole.labels[expected])
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir() if p.name != mini.CHECKSUMS}
    sums = (folder / mini.CHECKSUMS).read_bytes()
    (folder / "test.csv").write_text("gone")
    datasets.build_mini(root, per_class=count)
    assert (folder / mini.CHECKSUMS).read_bytes() == sums
    for name, (content, changed) in before.items():
        assert (folder / name).read_bytes() == content
        assert name.startswith("test") or (folder / name).stat().st_mtime_ns == changed


def test_build_needs_the_full_set(tmp_path):
    with pytest.raises(LabError, match=r"`python -m lab data cifar10`"):
        datasets.fetch("cifar10-mini", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_rebuild_equals_what_is_embedded(copy):
    data = datasets.data_root()
    if not full.present(data):
        pytest.skip("the full set is not here: `python -m lab data cifar10` brings it")
    (copy / "cifar10").symlink_to((data / "cifar10").resolve())
    before = {p.name: p.stat().st_mtime_ns for p in (copy / "cifar10-mini").glob("t*")}
    sums = (copy / "cifar10-mini" / mini.CHECKSUMS).read_bytes()
    datasets.build_mini(copy)  # writes anew only what differs in content
    assert {p.name: p.stat().st_mtime_ns for p in (copy / "cifar10-mini").glob("t*")} == before
    assert (copy / "cifar10-mini" / mini.CHECKSUMS).read_bytes() == sums
