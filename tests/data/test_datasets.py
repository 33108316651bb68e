"""Loading: what comes out, and one clear line for whatever is wrong with the files."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_cifar import REPOSITORY, one_line

from lab import datasets
from lab.datasets import cifar10 as full
from lab.utils.errors import LabError


def test_full_set_round_trip(root, tiny):
    train, test = datasets.load("cifar10", "train", root), datasets.load("cifar10", "test", root)
    assert train.images.shape == (500, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert test.labels.shape == (100,)
    assert test.labels.dtype == torch.int64
    third = np.frombuffer(tiny["data_batch_3"], np.uint8).reshape(100, 3073)
    assert train.labels[200:300].tolist() == third[:, 0].tolist()
    assert train.images[207, 2, 31, 5] == third[7, 1 + 2 * 1024 + 31 * 32 + 5]  # plane, row, column
    assert train.labels.bincount().tolist() == [50] * 10
    assert train.classes[0] == "airplane"
    assert len(train.classes) == 10
    assert train.checksum == test.checksum == datasets.checksum("cifar10")
    moved = test.to("meta")
    assert {moved.images.device.type, moved.labels.device.type, moved.mean.device.type, moved.std.device.type} == {
        "meta"
    }
    assert test.images.device.type == "cpu"


def test_statistics_are_those_of_the_training_split(root):
    train, test = datasets.load("cifar10", "train", root), datasets.load("cifar10", "test", root)
    values = train.images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(train.mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(train.std, values.std((0, 2, 3)), rtol=1e-6)
    assert torch.equal(train.mean, test.mean)
    assert torch.equal(train.std, test.std)


def test_statistics_by_hand():
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    mean, std = datasets.images.statistics(images)
    assert mean.tolist() == [0.5] * 3
    assert std.tolist() == [0.5] * 3


def test_checksum_of_the_full_set_needs_no_data(tmp_path, tiny):
    assert re.fullmatch("[0-9a-f]{64}", datasets.checksum("cifar10", tmp_path / "nowhere"))


def test_root_comes_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(root))
    assert len(datasets.load("cifar10", "test")) == 100
    monkeypatch.delenv("LAB_DATA")
    assert datasets.data_root() == REPOSITORY / "data"


def test_unknown_names(root):
    for call in (
        lambda: datasets.load("mnist", "train"),
        lambda: datasets.checksum("mnist"),
        lambda: datasets.fetch("mnist"),
        lambda: datasets.load("cifar10", "validation", root),
    ):
        with pytest.raises(LabError, match="choose") as caught:
            call()
        one_line(caught)


@pytest.mark.parametrize("fault", ["absent", "empty", "missing", "truncated", "longer", "altered", "damaged stamp"])
def test_faulty_full_set(root, fault):
    folder = full.batches_folder(root)
    path = folder / "data_batch_2.bin"
    datasets.load("cifar10", "train", root)  # remembers each batch as right
    if fault == "absent":
        shutil.rmtree(root)
    elif fault == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
        path = folder / "data_batch_1.bin"
    elif fault == "missing":
        path.unlink()
    elif fault == "truncated":
        os.truncate(path, 5000)
    elif fault == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    elif fault == "altered":
        data = bytearray(path.read_bytes())
        data[4321] ^= 1
        path.write_bytes(data)
    else:
        (folder / full.STAMP).write_text("{")
        assert len(datasets.load("cifar10", "train", root)) == 500  # checked again, and remembered again
        assert len(full.stamp(folder)) == 5
        return
    with pytest.raises(LabError) as caught:
        datasets.load("cifar10", "train", root)
    text = one_line(caught)
    assert (str(folder) if fault == "absent" else path.name) in text
    assert "`python -m lab data cifar10`" in text


def test_sha1_is_computed_once(root, monkeypatch):
    datasets.load("cifar10", "train", root)
    monkeypatch.setattr(full.hashlib, "sha1", lambda *_: pytest.fail("a remembered batch was hashed again"))
    assert len(datasets.load("cifar10", "train", root)) > 0


def test_a_read_only_set_loads(root, monkeypatch):
    (full.batches_folder(root) / full.STAMP).unlink()

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert len(datasets.load("cifar10", "train", root)) == 500


# --- the door to torchvision ---


def test_torchvision_comes_through_one_door():
    code = (
        "import sys, lab.datasets, lab.utils.vision; assert 'torchvision' not in sys.modules\n"
        "from lab.utils.vision import torchvision; from torchvision.transforms import v2; import torch\n"
        "assert v2.CenterCrop(4)(torch.ones(3, 8, 8)).shape == (3, 4, 4)\n"
        "assert torchvision.models.resnet18(num_classes=7).fc.out_features == 7\n"
        "assert '-python.' in torchvision.datasets.CIFAR10.url"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pattern = re.compile(r"^\s*(import|from) torchvision", re.M)
    for file in (REPOSITORY / "src").rglob("*.py"):
        assert not pattern.search(file.read_text("utf-8")), f"{file} imports torchvision: use lab.utils.vision"
