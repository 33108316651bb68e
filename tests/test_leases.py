"""A lease has one holder; one whose holder is gone is taken over, one that is alive is not, even by two at once."""

import errno
import json
import multiprocessing
import os
import threading
import time

import pytest

from lab.runs import leases
from lab.runs.leases import Busy, held
from lab.utils.errors import LabError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "run.lease"


@pytest.fixture
def no_locks(monkeypatch):
    """A network folder whose server has no locks."""

    def refuse(*words):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(leases.fcntl, "flock", refuse)


def other(path, age=0.0, host="elsewhere"):
    """A lease that another process holds and touched ``age`` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": host, "pid": 1, "nonce": "theirs"}))
    os.utime(path, (time.time() - age,) * 2)


def test_it_is_there_while_it_is_held_and_leaves_nothing_but_the_lock(path):
    with held(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
        with pytest.raises(Busy), held(path):
            pass
    assert [p.name for p in path.parent.iterdir()] == ["run.lock"]
    with held(path):
        pass


def test_without_locks_the_file_alone_keeps_others_out(path, no_locks):
    with held(path), pytest.raises(Busy), held(path):
        pass
    with held(path):
        pass


def test_a_holder_elsewhere_is_respected_until_it_falls_silent(path):
    other(path, age=leases.LAPSE - 5)
    with pytest.raises(Busy), held(path):
        pass
    assert json.loads(path.read_text())["nonce"] == "theirs"
    other(path, age=leases.LAPSE + 5)
    with held(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_killed_holder_of_this_machine_is_succeeded_at_once(path):
    other(path, host=os.uname().nodename)  # alive, it would hold the lock
    with held(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_without_locks_a_killed_holder_of_this_machine_is_waited_for(path, no_locks):
    other(path, host=os.uname().nodename)
    with pytest.raises(Busy), held(path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", "3"])
def test_a_lease_that_makes_no_sense_lapses_like_any_other(path, content):
    other(path)
    path.write_text(content)
    with pytest.raises(Busy), held(path):
        pass
    os.utime(path, (time.time() - leases.LAPSE - 5,) * 2)
    with held(path):
        pass


def test_of_many_that_find_a_stale_lease_one_takes_it(path, no_locks):
    inside, most, taken = 0, [], []
    gate, guard = threading.Barrier(8), threading.Lock()

    def contend():
        nonlocal inside
        gate.wait()
        try:
            with held(path):
                with guard:
                    inside += 1
                    most.append(inside)
                time.sleep(0.1)
                with guard:
                    inside -= 1
            taken.append(1)
        except Busy:
            pass

    for _ in range(20):
        other(path, age=leases.LAPSE + 5)
        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(taken) >= 20  # a late one may find it free again
    assert max(most) == 1


def test_a_claim_whose_maker_died_blocks_for_a_minute_only(path):
    other(path, age=leases.LAPSE + 5)
    claim = path.with_name("run.lease.claim")
    claim.write_text("")
    with pytest.raises(Busy), held(path):
        pass
    os.utime(claim, (time.time() - leases.LAPSE - 5,) * 2)
    with pytest.raises(Busy), held(path):  # swept
        pass
    with held(path):
        pass


def test_a_claim_whose_maker_died_here_blocks_nobody(path):
    other(path.with_name("run.lease.claim"), host=os.uname().nodename)
    other(path, host=os.uname().nodename)
    with pytest.raises(Busy), held(path):  # swept
        pass
    with held(path):
        pass


def test_it_is_touched_while_held_and_says_when_it_was_lost(path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.02)
    lost = threading.Event()
    with held(path, lost.set):
        os.utime(path, (0, 0))
        end = time.monotonic() + 5
        while path.stat().st_mtime < 1:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert not lost.is_set()
        other(path)  # this machine slept, and another one took over
        assert lost.wait(5)
    assert json.loads(path.read_text())["nonce"] == "theirs"


def _hold(path, ready):
    with held(path):
        ready.set()
        time.sleep(60)


def test_a_killed_process_frees_it(path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold, args=(path, ready), daemon=True)
    process.start()
    assert ready.wait(20)
    with pytest.raises(Busy), held(path):
        pass
    process.kill()
    process.join()
    with held(path):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot lease .*run.lease"), held(tmp_path / "file" / "run.lease"):
        pass
