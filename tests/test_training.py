"""The loop: what a step is made of, what chance depends on, and that an interruption at any step leaves no trace."""

import copy
import math
from contextlib import suppress
from functools import partial

import pytest
import torch
from tape import Tape
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from lab import training
from lab.baselines.optimizers import build
from lab.datasets import Images
from lab.datasets.batches import batches
from lab.experiments.precision import few_bits
from lab.experiments.precision import weights as precision
from lab.experiments.sharing import images as sharing
from lab.experiments.sparsity import pruning
from lab.models import resnet20, swrn
from lab.training import (
    Classification,
    Diverged,
    Method,
    Stopped,
    Trainer,
    accuracy,
    chance,
    finetune_rate,
    normalise,
    pick_device,
    rate,
)
from lab.training.cuda_graph import WARM_UP, Watch
from lab.utils.errors import LabError
from lab.utils.files import load_tensors

CONFIG = {
    "epochs": 3, "finetune_epochs": 2, "batch_size": 8, "lr": 0.1, "finetune_lr": 0.01, "momentum": 0.9,
    "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine", "warmup": 0.1,
}  # fmt: skip
STEPS = 4  # an epoch: 35 images in batches of 8


def images(count=35, name="made"):
    source = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=source, dtype=torch.uint8)
    labels = torch.randint(0, 3, (count,), generator=source)
    return Images(pixels, labels, ("a", "b", "c"), torch.full((3,), 0.5), torch.full((3,), 0.25), name, "00")


DATA = images(), images(20)
TASK = Classification(DATA, CONFIG)


def small_net():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(256, 3)
    )


class Halving(Method):
    """A method that doubles the weights' optimizer groups, counts its steps, and ends the search by halving a layer."""

    def __init__(self):
        self.progress = []

    def relax(self, net):
        return net

    def groups(self, net, config):
        return [{"params": list(net[:2].parameters())}, {"params": list(net[2:].parameters()), "lr": 0.05}]

    def penalty(self, net):
        return 1e-3 * net[0].weight.abs().sum()

    def step(self, net, progress):
        self.progress.append(progress)

    def fix(self, net):
        net = copy.deepcopy(net)
        with torch.no_grad():
            net[5].weight.mul_(0.5)
        return net

    def observe(self, net):
        return {"norm": float(net[0].weight.detach().norm())}

    def film(self, net, before, after, evaluate):
        if int(5 * after) == int(5 * before):
            return None
        return after, evaluate(net), net[0].bias.detach().clone()


def trainer(**options):
    return Trainer(
        "a-run", small_net(), options.pop("method", Halving()), options.pop("config", CONFIG), TASK, **options
    )


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def same_moments(one, other):
    pairs = list(zip(one.moments, other.moments, strict=True))
    return all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in pairs)


# -- pieces -----------------------------------------------------------------------------------------------------------


def test_rates_by_hand():
    cosine = CONFIG | {"warmup": 0.2}
    assert rate(cosine, 0.1) == pytest.approx(0.5)
    assert rate(cosine, 0.2) == 1
    assert rate(cosine, 0.6) == pytest.approx(0.5)
    assert rate(cosine, 1.0) == pytest.approx(0)
    assert 0 < rate(cosine, 0.0) < 1e-6
    steps = {"schedule": "steps", "steps": [0.5, 0.75], "factor": 0.1}
    assert [rate(steps, p) for p in (0, 0.49, 0.5, 0.75)] == pytest.approx([1, 1, 0.1, 0.01])


def test_fine_tuning_rates_by_hand():
    constant = {"lr": 0.1, "finetune_lr": 0.01}
    assert [finetune_rate(constant, p) for p in (0, 0.99)] == pytest.approx([0.1, 0.1])
    steps = constant | {"finetune_steps": [0.5, 0.8], "factor": 0.2}
    assert [finetune_rate(steps, p) for p in (0, 0.5, 0.8)] == pytest.approx([0.1, 0.02, 0.004])


def test_chance_depends_on_its_moment_alone():
    assert chance(0, 1, 2) == 48_866_349_673_933_065  # equal on every machine: recorded runs rest on it
    assert len({chance(s, e, t) for s in range(4) for e in range(4) for t in range(4)}) == 64
    assert chance(1, 12) != chance(11, 2)


def test_normalised_images_have_the_stated_mean_and_layout():
    data = images()
    batch = normalise(data.images[:2], data)
    assert batch[0, 1, 3, 4].item() == pytest.approx((data.images[0, 1, 3, 4].item() / 255 - 0.5) / 0.25, abs=1e-6)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_shows_each_image_once_and_another_epoch_another_order():
    data = images(32)
    data = Images(data.images, torch.arange(32), data.classes, data.mean, data.std, data.name, data.checksum)
    first, second = ([y for _, y in batches(data, 8, 0, epoch)] for epoch in (0, 1))
    assert sorted(torch.cat(first).tolist()) == list(range(32))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert len(list(batches(images(35), 8, 0, 0))) == STEPS  # a short last batch is dropped


def test_batches_go_on_from_any_step_as_if_they_had_begun_there():
    whole = list(batches(images(), 8, seed=3, epoch=1))
    for start in range(STEPS + 1):
        rest = list(batches(images(), 8, seed=3, epoch=1, start=start))
        assert len(rest) == STEPS - start
        for (x, y), (u, v) in zip(whole[start:], rest, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_accuracy_counts_and_restores_the_mode():
    class ByBrightness(nn.Module):
        def forward(self, x):
            assert not self.training
            return torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], 1)

    data = images(4)
    bright = torch.tensor([255, 0, 255, 0], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 32, 32)
    data = Images(bright, torch.tensor([0, 1, 1, 1]), ("light", "dark"), data.mean, data.std, "made", "00")
    net = ByBrightness().train()
    assert accuracy(net, data, batch_size=3) == 0.75
    assert net.training


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpu", "unknown device 'gpu'"),
        ("", "unknown device ''"),
        ("meta", "'meta' is not supported"),
        ("cuda:99", "not there"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(name, words):
    with pytest.raises(LabError, match=words):
        pick_device(name)
    assert pick_device("cpu").type == "cpu"


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_has_a_row_an_epoch_and_ends_fixed():
    method, seen = Halving(), []
    one = trainer(method=method, on_epoch=seen.append)
    net = one.run()
    assert seen == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in one.curve] == seen
    assert ["norm" in row for row in one.curve] == [True] * 3 + [False] * 2
    assert [i for i, row in enumerate(one.curve) if "accuracy_fixed" in row] == [2]
    assert all(math.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 1 for row in one.curve)
    assert method.progress[:5] == [0, 1 / 12, 2 / 12, 3 / 12, 4 / 12]
    assert method.progress[-1] == 1
    assert one.elapsed() > 0
    assert net is one.net


def test_groups_keep_their_own_base_rate():
    one = trainer()
    one.run()
    assert [group["base_lr"] for group in trainer().optimizers[0].param_groups] == [0.1, 0.05]
    assert one.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)  # fine-tuning


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    one, again, other = (trainer(seed=seed).run() for seed in (0, 0, 1))
    assert same_weights(one, again)
    assert not same_weights(one, other)


def test_too_few_images_for_one_batch_is_one_line():
    with pytest.raises(LabError, match="made has 35 training images, fewer than one batch of 64: lower batch_size"):
        Classification(DATA, CONFIG | {"batch_size": 64})


def test_a_method_may_use_several_optimizers_project_and_leave_a_rate_alone():
    class Two(Halving):
        def optimizers(self, net, config):
            weights, rest = self.groups(net, config)
            return [
                training.sgd([weights], config),
                torch.optim.Adam([rest | {"scheduled": False, "lr": 0.02}]),
            ]

        def project(self, net):
            with torch.no_grad():
                net[0].weight.clamp_(-0.05, 0.05)

        def fix(self, net):
            return net

    config = CONFIG | {"finetune_epochs": 0}
    one = trainer(method=Two(), config=config)
    net = one.run()
    assert float(net[0].weight.detach().abs().max()) == pytest.approx(0.05)
    straight = trainer(method=Two(), config=config)
    straight._rest_of_epoch()
    sgd_rate, adam_rate = (optimizer.param_groups[0]["lr"] for optimizer in straight.optimizers)
    assert adam_rate == 0.02
    assert sgd_rate < 0.1


def test_the_plain_method_trains_the_network_itself():
    net = small_net()
    got = Trainer("plain", net, Method(), CONFIG, TASK).run()
    assert got is net
    assert not torch.equal(net[0].weight, small_net()[0].weight)


def test_cutout_blanks_a_square_of_each_normalised_image():
    whole, holed = (next(Classification(DATA, CONFIG | {"cutout": size}).batches(0, 0, 0))[0] for size in (0, 16))
    changed = whole != holed
    assert (holed[changed] == 0).all()
    assert 8 * 8 <= changed.any(1).sum((1, 2)).min() <= changed.any(1).sum((1, 2)).max() <= 16 * 16


def test_a_loss_that_is_no_number_ends_the_run():
    with pytest.raises(Diverged, match="the loss became nan in epoch 1"):
        trainer(config=CONFIG | {"lr": math.nan}).run()


# -- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moments", [[n] for n in range(1, STEPS * 5)] + [[1, 2, 3], [5, 12, 13, 19]])
def test_a_run_stopped_after_any_step_ends_as_one_never_stopped(moments, tmp_path):
    straight = trainer()
    want = straight.run()
    path, calls = tmp_path / "c.pt", []

    def stop():
        calls.append(1)
        return len(calls) in moments

    for _ in moments:
        with suppress(Stopped):
            trainer(checkpoint=path, stop=stop, every=1e9).run()
    net = (got := trainer(checkpoint=path, every=1e9)).run()
    assert same_weights(net, want)
    assert got.curve == straight.curve
    assert len(got.moments) == 5
    assert same_moments(got, straight)


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("lab.training.trainer.save_tensors", lambda path, state: written.append(state["epoch"]))
    trainer(checkpoint=tmp_path / "c.pt", every=1e9).run()
    assert not written
    trainer(checkpoint=tmp_path / "c.pt", every=0).run()
    assert len(written) == 5 * (STEPS - 1)  # not at an epoch's end


def test_a_search_that_runs_share_is_trained_once_and_changes_nothing(tmp_path):
    straight = trainer()
    want = straight.run()
    shared = ("trunk", tmp_path / "trunk.pt")
    first = trainer(trunk=shared).run()
    second = trainer(trunk=shared)
    assert (second.epoch, second.step) == (3, 0)
    assert same_weights(first, want)
    assert same_weights(second.run(), want)
    assert second.curve == straight.curve
    assert same_moments(second, straight)


def left_behind(path):
    """A checkpoint of a stopped run, as ``path``."""
    with pytest.raises(Stopped):
        trainer(checkpoint=path, stop=lambda: True).run()
    return path


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = left_behind(tmp_path / "c.pt")
    assert not [p for p in tmp_path.iterdir() if p != path]
    with pytest.raises(LabError, match=r"c.pt is a checkpoint of run a-run, not of another: move it away"):
        Trainer("another", small_net(), Halving(), CONFIG, TASK, checkpoint=path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"", lambda b: b"no checkpoint"]
)
def test_a_damaged_checkpoint_is_named_with_the_remedy(damage, tmp_path):
    path = left_behind(tmp_path / "c.pt")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LabError, match=r"c.pt is damaged \(.*\): move it away to start that run from its beginning"):
        trainer(checkpoint=path)


def test_a_checkpoint_executes_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    torch.save({"identity": Trap()}, tmp_path / "c.pt")
    with pytest.raises(LabError, match="damaged"):
        load_tensors(tmp_path / "c.pt")
    assert not (tmp_path / "sprung").exists()


# -- no waiting for the device ----------------------------------------------------------------------------------------


class ByAvaGrad(Method):
    def optimizers(self, net, training):
        return [build("AvaGrad", net.parameters(), weight_decay=1e-3, fused=False)]


def chapter_methods():
    """What the chapters train with, as their experiments build it."""
    methods = {"plain": (resnet20, Method)}
    for name, options in {"cs": {"s_init": -0.02}, "mp": {"target": 0.5}}.items():
        config = pruning.method_config(name, {"lr_s": 0.1}, **options)
        methods[f"pruning {name}"] = (resnet20, lambda config=config: pruning.method(config))
    for one in precision.runs("quick"):
        if one.config["method"]["name"] == "bsq":
            continue  # a baseline whose requantisation looks at the bits it has
        methods.setdefault(
            f"precision {one.config['method']['name']}",
            (resnet20, lambda one=one: few_bits.method(one.config["method"], 0)),
        )
    methods["AvaGrad"] = (resnet20, ByAvaGrad)
    methods["sharing"] = (lambda: swrn(16, 1, 2), lambda: sharing.Sharing(1e-3, 1.0, 2))
    return methods


METHODS = chapter_methods()
EPOCHS = [(name, True) for name in METHODS] + [(name, False) for name in METHODS if name != "AvaGrad"]
"""Recorded, or not; AvaGrad's loop takes its scale as a number on a CPU, and nowhere else."""


@pytest.mark.parametrize(("name", "recorded"), EPOCHS)
def test_within_an_epoch_nothing_is_read_back(name, recorded, monkeypatch):
    fused = partial(torch.optim.Adam, fused=True)
    monkeypatch.setattr(torch.optim, "Adam", fused)  # the other forms read a counter, which is on the CPU everywhere
    make, method = METHODS[name]
    config = CONFIG | {"epochs": 1, "finetune_epochs": 1, "cutout": 8}
    task = Classification((images(36), images(2)), config)
    task.evaluate = lambda net: 0.0  # an epoch's end reads the score: not what is watched here
    watched, tapes = [], []

    def record(device):
        return (lambda body: tapes.append(Tape()) or tapes[-1](body)) if recorded else None

    class Watched(Trainer):
        def _rest_of_epoch(self):
            with Watch() as watch:
                super()._rest_of_epoch()
            assert not watch.reads

        def _end_of_epoch(self, searching):
            watched.append(self.step)
            with _disable_current_modes():
                super()._end_of_epoch(searching)

    Watched("a-run", make(), method(), config, task, record=record).run()
    assert watched == [4, 4]
    assert [tape.replays for tape in tapes] == [4 - WARM_UP] * 2 * recorded


def test_bfloat16_is_used_where_the_processor_has_it_and_pytorch_uses_the_processor(monkeypatch):
    for capability, bf16, gains in (("AVX512", True, True), ("AVX512", False, False), ("DEFAULT", True, False)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=bf16: has)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda used=capability: used)
        assert training.gains_from_bf16(torch.device("cpu")) is gains
