"""Two processes that train one model: equal to one process with the joint batch, and stopped, resumed
and said as one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_ranks
from torch import nn
from two_ranks import NETS, run_alone

from lab.training import distributed as ranks
from lab.utils.errors import LabError

HERE = Path(__file__).parent


def torchrun(*words, n=2, **options):
    """``torchrun --nproc-per-node n`` of tests/two_ranks.py; what it printed, and its exit status."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--standalone"]
    process = subprocess.run(
        [*command, str(HERE / "two_ranks.py"), *map(str, words)],
        capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip
    return process.returncode, process.stdout + process.stderr


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two ranks leave: every net trained undisturbed, and stopped by one rank's signal, then gone on."""
    place = tmp_path_factory.mktemp("ranks")
    status, said = torchrun(place)
    assert status == 0, said
    return place


@pytest.mark.parametrize("name", NETS)
def test_two_processes_train_as_one_with_the_joint_batch(together, name):
    weights, curve = torch.load(together / f"{name}.pt", weights_only=True)
    alone, its_curve = run_alone(name)
    distances = [(weights[key] - value).abs().max().item() for key, value in alone.items()]
    moved = max((value - two_ranks.start(name)[key]).abs().max().item() for key, value in alone.items())
    assert moved > 0.05  # there is something to compare
    close = max(distances) < 1e-5
    assert close == (name != "batch norm"), max(distances)  # its statistics are those of a slice: stated in the docs
    assert [row["epoch"] for row in curve] == [row["epoch"] for row in its_curve]
    if close:
        for row, other in zip(curve, its_curve, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
            assert row["accuracy"] == pytest.approx(other["accuracy"], abs=0.051)


def test_all_ranks_end_with_the_same_weights(together):
    for name in NETS:
        one, other = (torch.load(together / f"{name}-rank{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_stop_that_one_rank_sees_stops_both_and_nothing_is_lost(together):
    resumed, curve = torch.load(together / "resumed.pt", weights_only=True)
    straight, its_curve = torch.load(together / "masked.pt", weights_only=True)
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)
    assert [row["epoch"] for row in curve] == [row["epoch"] for row in its_curve]
    assert [row["loss"] for row in curve] == pytest.approx([row["loss"] for row in its_curve], rel=1e-6)


def test_a_batch_that_cannot_be_shared_evenly_is_one_line(together):
    assert (together / "uneven").read_text() == (
        "2 processes cannot share a batch of 7 evenly: start another number of them"
    )
    assert (together / "unshared").read_text() == "Bare cannot share a batch among processes: start it without torchrun"


def test_alone_a_process_talks_to_itself():
    net, value = nn.BatchNorm2d(2), torch.ones(2)
    assert (ranks.count(), ranks.is_first(), ranks.agree(True, False)) == (1, True, [True, False])
    assert ranks.mean(value) is value
    assert ranks.replica(net) is net
    assert ranks.with_joint_norm(net, torch.device("cuda")) is net
    assert ranks.from_first("x") == "x"
    assert ranks.slice_of(7) == slice(0, 7)


def test_on_cuda_batch_norm_becomes_that_of_the_joint_batch(monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    joint = ranks.with_joint_norm(net, torch.device("cuda"))
    assert isinstance(joint[1], nn.SyncBatchNorm)
    assert isinstance(ranks.with_joint_norm(nn.Sequential(nn.BatchNorm2d(4)), torch.device("cpu"))[0], nn.BatchNorm2d)


def test_more_ranks_than_devices_is_one_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(LabError, match="more processes than the 1 CUDA devices here"), ranks.together("cuda"):
        pass
