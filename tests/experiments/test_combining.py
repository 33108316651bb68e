"""Sharing, mask and precision stacked: a hand-worked case, gradients that reach all, files that are what they say."""

import copy
import itertools

import pytest
import torch
from tiny_run import made_up
from torch import nn

from lab.experiments import base
from lab.experiments.combining import stack as combining
from lab.models import ResNet, registry
from lab.runs import Run
from lab.training import Stopped
from lab.utils.errors import LabError
from principled import ContinuousMask, FixedPrecision, KeepZeros, Smol, SoftSharing
from principled.files import sizes as sizes_of

CONFIG = {
    "share": {"templates": 1},
    "mask": {"s_init": 0.0},
    "bits": {"p_init": 8.0},
}


def parts(combination):
    """What :func:`stack` is given for a combination, read from its own declaration."""
    method = combining.run("quick", combination).config["method"]
    return {
        verb: CONFIG[verb] | {k: v for k, v in method[verb].items() if k == "zero"} for verb in CONFIG if verb in method
    }


class Pair(nn.Module):
    """Two layers of equal shape, so that they can share."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(1, 1, (1, 2), bias=False) for _ in range(2))

    def forward(self, x):
        return self.second(self.first(x))


@pytest.fixture
def pair():
    """One template (0.5, -1), layers twice and minus once it; the mask keeps the first entry alone."""
    net = combining.stack(Pair(), **CONFIG)
    sharing, mask = combining.part(net, SoftSharing), combining.part(net, ContinuousMask)
    with torch.no_grad():
        (group,) = sharing.templates
        sharing.templates[group].copy_(torch.tensor([0.5, -1.0]).view(1, 1, 1, 1, 2))
        sharing.alpha[group].copy_(torch.tensor([[2.0], [-1.0]]))
        mask.s.copy_(torch.tensor([1.0, -1.0]))
    return net


def test_share_then_mask_then_noise_by_hand(pair):
    pair.eval()  # no noise: layer = alpha * (mask * template), and the soft masks are sigmoid(1) and sigmoid(-1)
    up, down = torch.sigmoid(torch.tensor([1.0, -1.0]))
    first, second = 2 * torch.stack((0.5 * up, -down)), -torch.stack((0.5 * up, -down))
    x = torch.randn(3, 1, 1, 5)
    u = first[0] * x[..., :-1] + first[1] * x[..., 1:]
    expected = second[0] * u[..., :-1] + second[1] * u[..., 1:]
    torch.testing.assert_close(pair(x), expected)


def test_every_part_learns(pair):
    torch.manual_seed(0)
    pair.train()
    pair(torch.randn(4, 1, 1, 6)).square().mean().backward()
    names = {part for name, _ in pair.named_parameters() for part in name.split(".")}
    assert names >= {"templates", "alpha", "s"}
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in pair.parameters())


def test_hardening_settles_the_mask_and_then_fixes_precisions(pair):
    fixed = combining.harden_stack(pair)
    (p,) = combining.part(fixed, FixedPrecision).precision().values()
    assert p.flatten().tolist() == [8, 0]  # the pruned entry has no bits, the other one those it started with
    sharing = combining.part(combining.plain_form(fixed), SoftSharing)
    (template,) = sharing.templates.values()
    assert template[..., 1].abs().sum() == 0
    assert abs(template[..., 0].item() - 0.5) <= 2**-7
    layers = fixed.net.weights()
    assert set(layers) >= {"first.weight", "second.weight"}
    torch.testing.assert_close(layers["first.weight"], -2 * layers["second.weight"])  # still one layer, twice


def test_without_precision_the_zeros_stay(pair):
    net = combining.stack(Pair(), CONFIG["share"], CONFIG["mask"])
    with torch.no_grad():
        combining.part(net, ContinuousMask).s.copy_(torch.tensor([1.0, -1.0]))
    fixed = combining.harden_stack(net)
    assert combining.part(fixed, KeepZeros) is not None
    assert combining.zeros(combining.plain_form(fixed)) == 0.5


def test_coefficients_are_neither_masked_nor_quantised():
    net = combining.stack(ResNet(1), {"templates": 2}, CONFIG["mask"], CONFIG["bits"])
    for kind in (ContinuousMask, Smol):
        names = combining.part(net, kind).names
        assert any(".templates." in name for name in names)
        assert not any(".alpha." in name for name in names)


# -- the file ----------------------------------------------------------------------------------------------------------


def small(combination):
    torch.manual_seed(1)
    net = combining.stack(ResNet(1), **parts(combination))
    if mask := combining.part(net, ContinuousMask):
        with torch.no_grad():
            mask.s.copy_(torch.randn_like(mask.s))
    return combining.harden_stack(net).eval()


@pytest.mark.parametrize("combination", combining.COMBINATIONS)
def test_a_file_gives_back_the_very_network(tmp_path, combination):
    fixed = small(combination)
    sizes = combining.pack(tmp_path / "net", fixed)
    again = combining.unpack(tmp_path / "net", ResNet(1), 1 if "share" in combination else None)
    plain = combining.plain_form(fixed)
    assert sizes["file_bytes"] == (tmp_path / "net").stat().st_size
    assert set(again.state_dict()) == set(plain.state_dict())
    assert all(torch.equal(a + 0.0, plain.state_dict()[n] + 0.0) for n, a in again.state_dict().items())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), plain.eval()(x))
    if combining.part(fixed, FixedPrecision):
        assert min(sizes["payload_bytes"], sizes["rest_bytes"]) > 0  # one precision for all is no map at all
        assert sizes["payload_bytes"] + sizes["map_bytes"] + sizes["rest_bytes"] == pytest.approx(sizes["file_bytes"])


def test_files_shrink_with_each_verb(tmp_path):
    size = {c: combining.pack(tmp_path / "net", small(c))["file_bytes"] for c in combining.COMBINATIONS}
    for more, less in itertools.product(combining.STACKS, repeat=2):
        if less != "dense" and set(less.split("+")) < set(more.split("+")):
            assert size[more] < size[less]
    assert max(size, key=size.__getitem__) == "dense"


def test_only_a_mask_or_the_ninth_cell_gives_a_weight_no_bits():
    """What ``mask+bits`` has and ``bits*`` has not is the mask, and nothing else."""
    zero = {
        c: part.zero
        for c in combining.COMBINATIONS
        if (part := combining.part(combining.stack(Pair(), **parts(c)), Smol))
    }
    assert zero == {"bits": False, "share+bits": False, "bits*": True, "mask+bits": True, "share+mask+bits": True}
    ninth, masked = (combining.run("quick", c).config for c in ("bits*", "mask+bits"))
    differs = {key for key in masked["method"] if masked["method"][key] != ninth["method"].get(key)}
    assert differs == {"name", "combination", "mask", "bits"}
    assert ninth["method"]["bits"] == masked["method"]["bits"] | {"zero": True}
    assert combining.methods("share+mask+bits") == ("share", "mask", "bits*")


def test_zero_precision_alone_removes_the_weights_that_are_nearer_to_zero_than_to_a_level():
    net = Pair()
    with torch.no_grad():
        net.first.weight.copy_(torch.tensor([0.4, 0.6]).view(1, 1, 1, 2))
        net.second.weight.copy_(torch.tensor([1.0, -0.3]).view(1, 1, 1, 2))
    for combination, bits in (("bits", [1, 1, 1, 1]), ("bits*", [0, 1, 1, 0])):  # of one bit the levels are -1 and 1
        relaxed = combining.stack(copy.deepcopy(net), bits=parts(combination)["bits"])
        with torch.no_grad():
            combining.part(relaxed, Smol).s.fill_(30.0)  # the fewest bits
        fixed = combining.harden_stack(relaxed)
        assert (
            torch.cat([p.flatten() for p in combining.part(fixed, FixedPrecision).precision().values()]).tolist()
            == bits
        )


def test_an_altered_or_short_file_is_refused(tmp_path):
    path = tmp_path / "net"
    combining.pack(path, small("share+mask+bits"))
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[-9] ^= 1
    for content in (bytes(altered), whole[:-5], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="altered or cut short"):
            combining.unpack(path, ResNet(1), 1)
    path.write_bytes(whole)
    assert sizes_of(path).file == len(whole)
    with pytest.raises(ValueError, match="another network than this ResNet"):
        combining.unpack(path, ResNet(1))  # a network that does not share


# -- the experiment ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once(profile):
    runs = combining.runs(profile)
    assert len({run.id for run in runs}) == len(runs)
    seeds = combining.PROTOCOL[profile]["seeds"]
    assert len(runs) == 11 * len(seeds)
    assert {run.config["method"]["combination"] for run in runs} == set(combining.COMBINATIONS)
    assert runs[0].id == combining.run(profile, "dense").id


# A recorded run is found under its id for ever. If this fails, mend the declaration, or raise its `revision`; see
# test_runs.py.
FROZEN = {
    ("short", "dense", 0, "SGD"): "2378172acb285913",
    ("short", "share+mask+bits", 1, "SGD"): "ea3921f6562c28db",
    ("short", "share+mask+bits", 0, "AvaGrad"): "b3fdd06907520bac",
    ("paper", "dense", 0, "SGD"): "f69da139aca6c474",
    ("paper", "share+mask+bits", 1, "SGD"): "ebd302058040fe2d",
    ("paper", "share+mask+bits", 0, "AvaGrad"): "45e9718251adfd1e",
}


@pytest.mark.parametrize("options", FROZEN, ids=str)
def test_ids_are_frozen(options):
    assert combining.run(*options).id == FROZEN[options]


def test_what_cannot_be_is_refused():
    with pytest.raises(LabError, match="unknown combination 'mask\\+share'"):
        combining.run("quick", "mask+share")
    with pytest.raises(LabError, match="choose SGD or AvaGrad"):
        combining.run("quick", "dense", optimizer="Adam")


@pytest.mark.parametrize("optimizer", ["SGD", "AvaGrad"])
def test_a_stop_anywhere_leaves_no_trace(tmp_path, monkeypatch, optimizer):
    monkeypatch.setattr(base, "load", made_up)
    monkeypatch.setitem(registry.NETWORKS, "resnet14", lambda classes: nn.Sequential(nn.AvgPool2d(4), ResNet(1)))
    declared = combining.run("quick", "share+mask+bits", optimizer=optimizer)
    training = declared.config["training"] | {"epochs": 2, "finetune_epochs": 1, "batch_size": 32}
    run = Run("combining", declared.config | {"training": training}, "short", 0)

    def compute(path, stop=lambda: False):
        return combining.experiment.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)

    whole = compute(tmp_path / "whole")
    calls = itertools.count()
    with pytest.raises(Stopped):
        compute(tmp_path / "part", stop=lambda: next(calls) == 2)
    again = compute(tmp_path / "part")
    assert again["figures"] == whole["figures"]
    assert again["curve"] == whole["curve"]
    assert 0 < whole["figures"]["bits"] <= 8
    assert whole["figures"]["file_bytes"] > whole["figures"]["payload_bytes"]
