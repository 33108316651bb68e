"""The training loop of two networks that play against each other.

It is :class:`lab.training.Trainer` with one thing replaced, so checkpoints, resumption, the curve and the schedule are its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.models.gan import GAN
from lab.utils.errors import LabError

from . import Trainer, autocast

LOSSES = ("cross-entropy", "hinge")


def critic_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """What the discriminator minimises, from its scores of real and of generated images, both (N,)."""
    if kind == "hinge":  # Lim and Ye's (7)
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "cross-entropy":
        return F.softplus(-real).mean() + F.softplus(fake).mean()  # -log sigmoid(real) - log(1 - sigmoid(fake))
    raise LabError(f"unknown loss {kind!r} of a GAN: choose one of {', '.join(LOSSES)}")


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """What the generator minimises, from the discriminator's scores (N,) of its images: the non-saturating form, or the hinge's."""
    if kind == "hinge":
        return -fake.mean()
    if kind == "cross-entropy":
        return F.softplus(-fake).mean()
    raise LabError(f"unknown loss {kind!r} of a GAN: choose one of {', '.join(LOSSES)}")


class Duel(Trainer):
    """A step: ``critic`` steps of the discriminator, each on images and noise of its own, then one of the generator.

    The method's optimizers are in this order: the discriminator's, then the generator's (several, if it has variables of its
    own). Its penalty is the generator's. ``training`` holds ``loss``, one of :data:`LOSSES`.
    """

    net: GAN

    def _descend(self, searching: bool, apart: bool, batch: Any) -> None:
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
