"""Soft sharing against known numbers: the thesis's example, and what the author's public code computes."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lab.models import swrn
from principled import Relaxed, SoftSharing, group_layers, layer_similarity, recurrence, reparameterize

KNOWN = json.loads((Path(__file__).parent / "fixtures/soft_sharing.json").read_text())
EXAMPLE = {key: torch.tensor(value, dtype=torch.float64) for key, value in KNOWN["similarity_example"].items()}
ALPHA = EXAMPLE["alpha"].T.contiguous()  # ours is (L, k), a row a layer; the thesis's columns are layers
GROUPS = [0, 1, 0, 1, 2]


def fill(shape, k, scale=1.0):
    """The fixture's inputs: value[i] = scale sin(0.37 i + k + 0.1) cos(0.011 i (k + 1)), row-major."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(0.37 * i + k + 0.1) * torch.cos(0.011 * i * (k + 1))).view(shape)


def exactly(got, want, tolerance=1e-10):
    assert_close(got, torch.as_tensor(want, dtype=torch.float64).view_as(got), rtol=0, atol=tolerance)


# -- the thesis's example, (3.15) to (3.18) ---------------------------------------------------------------------------


def test_similarity_is_the_examples():
    similarity = layer_similarity(ALPHA)
    exactly(similarity, EXAMPLE["LSM"], 1e-15)
    # (3.16) as printed: two decimals, cut off rather than rounded
    printed = [[1, 0.05, 1, 0.05, 0.15], [0.05, 1, 0.05, 1, 0.40], [1, 0.05, 1, 0.05, 0.15],
               [0.05, 1, 0.05, 1, 0.40], [0.15, 0.40, 0.15, 0.40, 1]]  # fmt: skip
    exactly(((similarity + 1e-12) * 100).floor() / 100, printed, 1e-15)
    assert group_layers(similarity, 0.9) == GROUPS
    assert recurrence(ALPHA).item() == pytest.approx(EXAMPLE["LSM"].sum().item(), abs=1e-14)


def test_proposition_3_1_with_sign_and_scale_reproduces_the_example_exactly():
    alpha, b = reparameterize(ALPHA, torch.eye(4, dtype=torch.float64), GROUPS)
    exactly(alpha, EXAMPLE["alpha_prime_signed_scaled"].T, 4.5e-16)
    exactly(b, EXAMPLE["B_signed_scaled"], 4.5e-16)
    exactly(alpha @ b, ALPHA, 4.5e-16)  # one unit in the last place of the largest coefficient, 2.4


def test_proposition_3_1_as_printed_changes_the_example():
    alpha, b = reparameterize(ALPHA, torch.eye(4, dtype=torch.float64), GROUPS, signed=False)
    exactly(alpha, EXAMPLE["alpha_prime_unsigned"].T, 0)
    exactly(b, EXAMPLE["B_unsigned"], 1e-15)  # (3.18), where entry (3, 2) is -0.3, not the printed +0.3
    assert b[2, 1].item() == pytest.approx(-0.3)
    exactly((alpha @ b)[0], -0.25 * ALPHA[0], 1e-15)  # the first layer is negated: the example preserves nothing
    exactly((alpha @ b)[1], 1.5 * ALPHA[1], 1e-15)


def test_new_templates_are_the_examples_mixtures_of_the_old():
    templates = fill((4, 2, 3, 3, 3), k=1)
    alpha, new = reparameterize(ALPHA, templates, GROUPS)
    assert new.shape == (3, 2, 3, 3, 3)
    exactly(torch.einsum("ln,n...->l...", alpha, new), torch.einsum("lk,k...->l...", ALPHA, templates), 1e-14)


# -- the author's public code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", KNOWN["layer"]["cases"], ids=["mixture", "one-hot"])
def test_a_layer_computes_what_the_public_code_computes(case):
    net = Relaxed(nn.Conv2d(4, 4, 3, padding=1, bias=False).double(), SoftSharing({"all": ["weight"]}, 3))
    sharing = net.relaxations[0]
    with torch.no_grad():
        sharing.templates["all"].copy_(fill((3, 4, 4, 3, 3), k=1, scale=0.2))
        sharing.alpha["all"].copy_(torch.tensor([case["alpha"]], dtype=torch.float64))
    x = fill((2, 4, 7, 7), k=2)
    exactly(net.weights()["weight"].flatten(), case["W"])
    y = net(x)
    # the fixture holds the first image's first two channels, the sum of all, and the gradients of |y|^2 / 2
    exactly(y.flatten()[: len(case["y"])], case["y"])
    exactly(y.sum(), case["y_sum"])
    (y.square().sum() / 2).backward()
    exactly(sharing.alpha["all"].grad[0], case["grad_alpha"])
    exactly(sharing.templates["all"].grad.norm(), case["grad_T_norm"])
    exactly(sharing.templates["all"].grad.flatten()[:8], case["grad_T_first8"])


def test_a_network_computes_the_public_codes_logits_and_gradients():
    known = KNOWN["network"]
    net = swrn(known["depth"], known["width"], known["templates"]).double()
    sharing = net.relaxations[0]

    def ours(name):
        """What the public code calls ``name``."""
        stage = name.split(".")[0][-1]
        if name.startswith("bank"):
            return sharing.templates[f"stage{stage}"]
        if name.endswith("coefficients"):
            _, block, conv, _ = name.split(".")
            row = sharing.groups[f"stage{stage}"].index(f"stages.{int(stage) - 1}.{block}.{conv}.weight")
            return sharing.alpha[f"stage{stage}"][row]
        place = f"stages.{int(stage) - 1}" if stage.isdigit() else ""
        for public, own in (("conv_3x3", "conv"), ("lastact.0", "norm"), ("classifier", "linear"), ("bn", "norm"),
                            ("convShortcut", "shortcut"), (f"stage_{stage}", place)):  # fmt: skip
            name = name.replace(public, own)
        return net.net.get_parameter(name)

    with torch.no_grad():
        for name, k, scale, offset in known["parameters"]:
            ours(name).copy_(offset + fill(ours(name).shape, k, scale))
    assert len(known["parameters"]) == len(list(net.parameters())) - 3 + 12  # a row of alpha each, there
    images = fill((2, 3, 32, 32), k=3)
    logits = net(images)
    exactly(logits, known["logits"])
    (logits.square().sum() / 2).backward()
    for stage in "123":
        exactly(sharing.templates[f"stage{stage}"].grad.norm(), known["grad_templates_norm"][f"bank_{stage}.templates"])
        exactly(
            sharing.templates[f"stage{stage}"].grad.flatten()[:8],
            known["grad_templates_first8"][f"bank_{stage}.templates"],
        )
        rows = [grad for name, grad in known["grad_coefficients"].items() if name.startswith(f"stage_{stage}")]
        exactly(sharing.alpha[f"stage{stage}"].grad, rows)
    exactly(net.net.conv.weight.grad.norm(), known["grad_first_conv_norm"])
    with torch.no_grad():
        exactly(net.eval()(images), known["logits_eval"])


@pytest.mark.parametrize("case", KNOWN["coefficient_initialisation"], ids=lambda c: f"k{c['k']}-stage{c['stage']}")
def test_coefficients_start_as_in_the_public_code(case):
    alpha = swrn(case["depth"], 1, case["k"]).relaxations[0].alpha[f"stage{case['stage']}"]
    assert alpha.shape == (case["layers"], case["k"])
    assert_close(alpha.T @ alpha, torch.eye(case["k"]))  # orthonormal columns
    off_diagonal = layer_similarity(alpha)[~torch.eye(len(alpha), dtype=torch.bool)]
    if case["k"] in (1, case["layers"]):  # what chance has no part in
        assert off_diagonal.mean().item() == pytest.approx(case["LSM_offdiag_mean"], abs=1e-6)


def test_templates_start_kaiming_normal_over_the_fan_in():
    templates = swrn(16, 4, 2).relaxations[0].templates["stage3"]  # 2 x 256 x 256 x 3 x 3
    for template in templates:
        assert template.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
        assert template.mean().item() == pytest.approx(0, abs=1e-4)
