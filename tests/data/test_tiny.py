"""Tiny-ImageNet at 32x32: an archive of four classes made here, in the published layout, then cut, altered and left
out."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_cifar import is_empty, one_line

from lab import datasets
from lab.datasets import tiny_imagenet as tiny
from lab.utils.errors import LabError

WNIDS = ("n02", "n01", "n04", "n03")  # the list is in no order


def picture(colour, mode="RGB", side=32):
    content = io.BytesIO()
    Image.new(mode, (side, side), colour).save(content, "JPEG", quality=95)
    return content.getvalue()


def archive(path, monkeypatch, change=lambda files: None):
    """Two training images and one validation image of each class, each of one colour that tells class and number."""
    files = {"wnids.txt": "\n".join(WNIDS).encode()}
    files["words.txt"] = b"n01\tgoldfish, Carassius auratus\nn02\tbell tower\nn03\tpan\nn99\tnobody\n"
    for i, wnid in enumerate(WNIDS):
        for k in (10, 9):
            files[f"train/{wnid}/images/{wnid}_{k}.JPEG"] = picture((40 * i, 20 * k, 0))
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0 0 1 1"
        files[f"val/images/val_{i}.JPEG"] = picture(40 * i, "L")
    files["val/val_annotations.txt"] = "\n".join(f"val_{i}.JPEG\t{w}\t0\t0\t9\t9" for i, w in enumerate(WNIDS)).encode()
    change(files)
    with tarfile.open(path, "w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(tiny, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(tiny, "COUNTS", {"train": 8, "test": 4})
    return path


@pytest.fixture
def source(tmp_path, monkeypatch):
    folder = tmp_path / "from"
    folder.mkdir()
    archive(folder / tiny.ARCHIVE, monkeypatch)
    return folder


def test_it_is_decoded_in_the_order_of_classes_and_names(source, tmp_path):
    at = datasets.fetch("tiny-imagenet-32", tmp_path / "data", source)
    assert at == tmp_path / "data" / "tiny-imagenet-32"
    train, test = (datasets.load("tiny-imagenet-32", split, tmp_path / "data") for split in ("train", "test"))
    assert train.classes == test.classes == ("goldfish", "bell tower", "pan", "n04")  # the last has no word
    assert (train.images.shape, train.images.dtype) == ((8, 3, 32, 32), torch.uint8)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert test.labels.tolist() == [0, 1, 2, 3]
    # red tells the place in WNIDS, green the number: _10 before _9, as names sort
    expected = [(40 * WNIDS.index(w), 20 * k) for w in sorted(WNIDS) for k in (10, 9)]
    seen = train.images.float().mean((2, 3))[:, :2]
    np.testing.assert_allclose(seen.numpy(), expected, atol=3)
    assert (test.images[:, 0] == test.images[:, 2]).all()  # grey pictures have three equal channels
    np.testing.assert_allclose(test.images.float().mean((1, 2, 3)).numpy(), [40, 0, 120, 80], atol=3)
    torch.testing.assert_close(test.mean, train.images.float().mean((0, 2, 3)) / 255)
    assert train.checksum == datasets.checksum("tiny-imagenet-32") == tiny.SHA256
    before = (at / "train.safetensors").stat().st_mtime_ns
    datasets.fetch("tiny-imagenet-32", tmp_path / "data")  # there and right: no source is needed
    assert (at / "train.safetensors").stat().st_mtime_ns == before


def test_without_the_archive_one_line_says_how(tmp_path):
    for act in (
        lambda: datasets.load("tiny-imagenet-32", "train", tmp_path),
        lambda: datasets.fetch("tiny-imagenet-32", tmp_path),
    ):
        with pytest.raises(LabError) as caught:
            act()
        assert "python -m lab data tiny-imagenet-32 --from FOLDER" in one_line(caught)
    with pytest.raises(LabError, match="cannot be read"):
        datasets.fetch("tiny-imagenet-32", tmp_path / "data", tmp_path)
    assert is_empty(tmp_path / "data")


def test_another_archive_is_refused(source, tmp_path):
    with (source / tiny.ARCHIVE).open("ab") as file:
        file.write(b"more")
    with pytest.raises(LabError, match="is not the expected archive"):
        datasets.fetch("tiny-imagenet-32", tmp_path / "data", source)
    assert is_empty(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.pop("words.txt"), "has no words.txt"),
        (lambda files: files.pop("val/images/val_0.JPEG"), "holds 3 test images, not 4"),
        (lambda files: files.update({"val/images/val_0.JPEG": b"text"}), "val_0.JPEG in .* is no picture"),
        (lambda files: files.update({"val/images/val_0.JPEG": picture(9, "L", 64)}), "has 64x64 pixels, not 32x32"),
    ],
)
def test_an_archive_of_another_content_leaves_nothing(change, words, tmp_path, monkeypatch):
    path = archive(tmp_path / tiny.ARCHIVE, monkeypatch, change)
    with pytest.raises(LabError, match=words) as caught:
        datasets.fetch("tiny-imagenet-32", tmp_path / "data", path)
    assert one_line(caught)
    assert is_empty(tmp_path / "data")


def test_a_decoded_file_that_is_cut_altered_or_gone_is_named_and_made_again(source, tmp_path):
    root = tmp_path / "data"
    path = datasets.fetch("tiny-imagenet-32", root, source) / "train.safetensors"
    whole = path.read_bytes()
    altered = whole[:-1] + bytes([whole[-1] ^ 1])
    for content in (whole[:-9], altered, b""):
        path.write_bytes(content)
        with pytest.raises(LabError, match=r"train\.safetensors is altered or cut short"):
            datasets.load("tiny-imagenet-32", "train", root)
    path.unlink()
    with pytest.raises(LabError, match=r"train\.safetensors is missing"):
        datasets.load("tiny-imagenet-32", "train", root)
    datasets.fetch("tiny-imagenet-32", root, source)
    assert path.read_bytes() == whole
