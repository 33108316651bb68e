"""Training a GAN: the loop of two networks that play against each other, the task's batches, and how what is generated
is scored.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.datasets import Images
from lab.datasets.batches import chance
from lab.models.gan import GAN
from lab.utils.errors import LabError

from .device import autocast
from .interfaces import Config
from .scores import features, frechet, inception_features, inception_score, resnet_features, to_bytes
from .trainer import Trainer

LOSSES = ("cross-entropy", "hinge")


def critic_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """What the discriminator minimises, from its scores of real and of generated images, both (N,)."""
    if kind == "hinge":  # Lim and Ye's (7)
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "cross-entropy":
        return F.softplus(-real).mean() + F.softplus(fake).mean()  # -log sigmoid(real) - log(1 - sigmoid(fake))
    raise LabError(f"unknown loss {kind!r} of a GAN: choose one of {', '.join(LOSSES)}")


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """What the generator minimises, from the discriminator's scores (N,) of its images: the non-saturating form, or the
    hinge's.
    """
    if kind == "hinge":
        return -fake.mean()
    if kind == "cross-entropy":
        return F.softplus(-fake).mean()
    raise LabError(f"unknown loss {kind!r} of a GAN: choose one of {', '.join(LOSSES)}")


class Duel(Trainer):
    """A step: ``critic`` steps of the discriminator, each on images and noise of its own, then one of the generator.

    The method's optimizers are in this order: the discriminator's, then the generator's (several, if it has variables
    of its own). Its penalty is the generator's. ``training`` holds ``loss``, one of :data:`LOSSES`.
    """

    net: GAN

    def _train_step(self, searching: bool, apart: bool, batch: Any) -> None:
        real, noise = batch  # (critic, N, 3, 32, 32) and (critic + 1, N, latent)
        kind, first, rest = self.training["loss"], self.optimizers[0], self.optimizers[1:]
        for images, z in zip(real, noise[:-1], strict=True):
            with autocast(self.device):
                with torch.no_grad():
                    made = self.net.generator(z)
                loss = critic_loss(self.net.discriminator(images).float(), self.net.discriminator(made).float(), kind)
            loss.backward()
            first.step()
            first.zero_grad(set_to_none=True)
            self.loss += loss.detach() / len(real)
        for p in self.net.discriminator.parameters():
            p.requires_grad_(False)  # the generator learns through it, and it does not
        with autocast(self.device):
            loss = generator_loss(self.net.discriminator(self.net.generator(noise[-1])).float(), kind)
        penalty = self.method.penalty(self.net) if searching else None
        (loss if penalty is None else loss + penalty).backward()
        for p in self.net.discriminator.parameters():
            p.requires_grad_(True)
        self.loss += 0 * loss.detach()  # so that a generator that is no longer finite shows
        for optimizer in rest:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.method.project(self.net)


class Generation:
    """Batches for :class:`Duel`, and the distance of ``samples`` generated images to the test images.

    The images are shown as they are, not cropped, not flipped: a generator would learn the padding as well.

    Args:
        data: training and test images, on the device to train on.
        training: ``batch_size``; ``critic``, steps of the discriminator for one of the generator; ``samples``.
        latent: length of the noise vector.
    """

    metric = "fd"

    def __init__(self, data: tuple[Images, Images], training: Config, latent: int = 100) -> None:
        self.train_data, self.test_data = data
        self.device = self.train_data.images.device
        self.size, self.critic, self.samples, self.latent = (
            training["batch_size"], training["critic"], training["samples"], latent,
        )  # fmt: skip
        self.steps = len(self.train_data) // (self.size * self.critic)
        if self.steps == 0:
            raise LabError(
                f"{self.train_data.name} has {len(self.train_data)} images, fewer than {self.critic} batches of "
                f"{self.size}: "
                "lower batch_size"
            )
        self.network = resnet_features(self.device)
        self.real = features(self.test_data.images, self.network)

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (critic, N, 3, 32, 32) in ±1 and noise (critic + 1, N, latent). All chance comes from (seed, epoch,
        step).
        """
        source = torch.Generator().manual_seed(chance(seed, epoch))
        order = torch.randperm(len(self.train_data), generator=source).to(self.device)
        for step in range(start, self.steps):
            moment = chance(seed, epoch, step)
            torch.manual_seed(moment)
            chosen = order[step * self.critic * self.size :][: self.critic * self.size]
            images = self.train_data.images[chosen].float() / 127.5 - 1
            noise = torch.randn(
                self.critic + 1, self.size, self.latent, generator=torch.Generator().manual_seed(moment)
            )
            yield images.view(self.critic, self.size, *images.shape[1:]), noise.to(self.device)

    @torch.no_grad()
    def sample(self, net: nn.Module, count: int) -> Tensor:
        """``count`` generated images, uint8: the same noise for every network, in evaluation mode."""
        training = net.training
        net.eval()
        noise = torch.randn(count, self.latent, generator=torch.Generator().manual_seed(0)).to(self.device)
        with autocast(self.device):
            made = torch.cat([to_bytes(net(z)) for z in noise.split(500)])
        net.train(training)
        return made

    def evaluate(self, net: nn.Module) -> float:
        """Frechet distance in the features of the shipped ResNet-20; lower is better. It is no FID."""
        return frechet(features(self.sample(net, self.samples), self.network), self.real)

    def inception(self, net: nn.Module, root: Path | None = None) -> dict[str, float]:
        """FID against the test images, and the Inception Score; needs the Inception network
        (:func:`lab.training.scores.inception_features`).
        """
        pooled, logits = inception_features(self.sample(net, self.samples), self.device, root)
        real, _ = inception_features(self.test_data.images, self.device, root)
        return {"fid": frechet(pooled, real)} | ({} if logits is None else {"inception_score": inception_score(logits)})


def sheet(images: Tensor, across: int) -> str:
    """uint8 images (N, 3, H, W) as one WebP, ``across`` to a row, in base64: a picture that a record can hold."""
    from PIL import Image

    rows = [torch.cat(list(row), 2) for row in images.cpu().split(across)]
    file = io.BytesIO()
    Image.fromarray(torch.cat(rows, 1).permute(1, 2, 0).numpy()).save(file, "WEBP", quality=90)
    return base64.b64encode(file.getvalue()).decode()
