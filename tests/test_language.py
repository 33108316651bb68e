"""Text and the language model: what is read, what a window carries on, what the bits per character are."""

import math
import shutil

import pytest
import torch
import torch.nn.functional as F

from lab.datasets import checksum
from lab.datasets.images import data_root
from lab.datasets.text import Text, encode, load_text
from lab.models.lstm import CharLSTM, locked_dropout
from lab.training.language import Characters, strands
from lab.utils.errors import LabError


def test_the_embedded_text_is_whole_and_readable():
    text = load_text("moby-dick")
    assert [len(part) for part in (text.train, text.valid, text.test)] == [230229, 16543, 14646]
    assert text.decode(text.train[:40]).startswith("CHAPTER 1. Loomings.\nCall me Ishmael.")
    assert int(text.train.max()) == len(text.alphabet) - 1 == 76
    assert text.checksum == checksum("moby-dick")


def test_a_damaged_or_missing_text_is_one_line(tmp_path):
    shutil.copytree(data_root() / "moby-dick", tmp_path / "moby-dick")
    windows = (tmp_path / "moby-dick" / "valid.txt").read_text().replace("\n", "\r\n")
    (tmp_path / "moby-dick" / "valid.txt").write_bytes(windows.encode())
    assert len(load_text("moby-dick", tmp_path).valid) == 16543
    (tmp_path / "moby-dick" / "test.txt").write_text("Call me Ahab.")
    with pytest.raises(LabError, match=r"test.txt is not the text .* run `git checkout data/moby-dick`"):
        load_text("moby-dick", tmp_path)
    with pytest.raises(LabError, match=r"ptb.train.txt is missing: put Mikolov's"):
        load_text("ptb", tmp_path)
    with pytest.raises(LabError, match="unknown text 'genesis': choose one of moby-dick, ptb"):
        load_text("genesis")
    with pytest.raises(LabError, match="the text has 'z'"):
        encode("az", "ab")


def test_strands_by_hand():
    inputs, targets = strands(torch.arange(8), 2)
    assert inputs.t().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert targets.t().tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_published_size():
    assert sum(p.numel() for p in CharLSTM(50, 1000).parameters()) == 13_787_650


def model(**options):
    torch.manual_seed(0)
    return CharLSTM(5, 8, 6, batch=4, **{"dropout": (0, 0, 0, 0)} | options)


def test_a_window_that_goes_on_can_be_trained_in_float32():
    net, x = model(layers=1), torch.randint(5, (5, 4))  # bfloat16 and several layers happen to copy
    net.carry(x, True)
    net.carry(x, False).sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_two_windows_that_carry_their_state_are_one_long_one():
    net, x = model(), torch.randint(0, 5, (12, 4))
    whole, _ = net(x)
    parts = torch.cat([net.carry(x[:5], True), net.carry(x[5:], False)])
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(net.carry(x[:5], True), whole[:5])  # a new beginning forgets


def test_a_mask_holds_for_the_whole_window_and_evaluation_has_none():
    dropped = locked_dropout(torch.ones(7, 4, 50), 0.5, True)
    assert (dropped == dropped[:1]).all()
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    net, x = model(dropout=(0.5, 0.5, 0.5, 0.5)).eval(), torch.randint(0, 5, (6, 4))
    assert torch.equal(net(x)[0], net(x)[0])
    assert not torch.equal(net.train()(x)[0], net(x)[0])


def test_bits_per_character_are_those_of_the_formula_and_of_a_uniform_guess():
    letters = torch.randint(0, 5, (411,))
    text = Text(letters, letters[:101], letters, "abcde", "made-up", "00")
    task, net = Characters(text, {"batch_size": 4, "bptt": 10}), model().eval()
    assert task.steps == 10
    x, y = strands(letters[:101], 10)
    by_hand = F.cross_entropy(net(x)[0].flatten(0, 1), y.flatten()).item() / math.log(2)
    assert task.evaluate(net) == pytest.approx(by_hand, rel=1e-2)  # bfloat16 where the machine has it
    with torch.no_grad():
        net.embedding.weight.zero_()
    assert task.evaluate(net, window=3) == pytest.approx(math.log2(5), rel=1e-3)


def test_batches_start_anywhere_and_a_short_text_is_refused():
    letters = torch.arange(100) % 5
    text = Text(letters, letters, letters, "abcde", "made-up", "00")
    task = Characters(text, {"batch_size": 4, "bptt": 6})
    whole, rest = list(task.batches(0, 1, 0)), list(task.batches(0, 1, 2))
    assert [fresh for *_, fresh in whole] == [True, False, False, False]
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole[2:], rest, strict=True))
    with pytest.raises(LabError, match="made-up has 100 characters, too few for 4 strands of 50"):
        Characters(text, {"batch_size": 4, "bptt": 50})
