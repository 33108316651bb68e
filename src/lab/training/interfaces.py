"""What the training loop asks of a method and of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Config = dict[str, Any]
"""A part of a run's configuration."""


def sgd(groups: list[dict[str, Any]], training: Config) -> torch.optim.Optimizer:
    """SGD as the thesis uses it."""
    return torch.optim.SGD(
        groups, lr=training["lr"], momentum=training["momentum"], nesterov=training["nesterov"], fused=True
    )


class Method:
    """How a method of the book takes part in a run. Search first, then the structure is fixed and the weights
    fine-tune.

    As it stands it trains the plain network; a method overrides what it does otherwise. A step is recorded and replayed
    where the device can (:mod:`lab.training.cuda_graph`): then Python executes :meth:`step` and :meth:`film` each time,
    and :meth:`penalty`, :meth:`project` and the network's ``forward`` never again. So what varies belongs into tensors
    that :meth:`step` writes in place.

    Both phases ask for :meth:`optimizers` and call :meth:`project`, first with the trainable form, then with what
    :meth:`fix` gave. The penalty, :meth:`step`, :meth:`observe` and :meth:`film` belong to the search.
    """

    def relax(self, net: nn.Module) -> nn.Module:
        """The trainable form of the network."""
        return net

    def groups(self, net: nn.Module, training: Config) -> list[dict[str, Any]]:
        """Optimizer groups of ``net``, which is the trainable form, and in the second phase the fixed one."""
        return [{"params": list(net.parameters()), "weight_decay": training["weight_decay"]}]

    def optimizers(self, net: nn.Module, training: Config) -> list[torch.optim.Optimizer]:
        """What trains ``net`` in either phase; made anew for the second.

        Each group's ``lr`` is for ``training["lr"]``; the schedule scales it, in the second phase to ``finetune_lr``,
        unless the group says ``"scheduled": False``.
        """
        return [sgd(self.groups(net, training), training)]

    def penalty(self, net: nn.Module) -> Tensor | None:
        """What the loss adds, lambda included."""
        return None

    def step(self, net: nn.Module, progress: float) -> None:
        """Called before each step of the search; ``progress`` runs from 0 to 1 and reaches 1 at its end."""

    def project(self, net: nn.Module) -> None:
        """Called after each step of either phase, for constraints such as a clip."""

    def fix(self, net: nn.Module) -> nn.Module:
        """End of the search: the discrete structure, as a trainable network."""
        return net

    def observe(self, net: nn.Module) -> dict[str, float]:
        """Numbers for the curve's row at the end of an epoch of the search."""
        return {}

    def film(self, net: nn.Module, before: float, after: float, evaluate: Callable[[nn.Module], float]) -> Any:
        """A moment for a moving figure, or None: asked after each step of the search, from ``before`` to ``after``."""
        return None


class Task(Protocol):
    """What is learned: where the batches come from, what the loss is, how a network is scored."""

    metric: str
    """The score's name in the curve."""
    steps: int
    """Batches of an epoch."""
    device: torch.device

    def batches(self, seed: int, epoch: int, start: int) -> Iterator[Any]:
        """The epoch's batches from step ``start`` on. All chance comes from (seed, epoch, step): see :func:`chance`."""

    def loss(self, net: nn.Module, batch: Any) -> Tensor:
        """The mean loss of a batch, a 0-d float32 tensor."""

    def evaluate(self, net: nn.Module) -> float:
        """The score on what was held out."""

    # A task whose model may be trained by several processes (:mod:`lab.training.distributed`) also has ``part(batch)``:
    # this rank's slice. One whose batches a graph shall make itself has ``draws(seed, epoch, start)``, like ``batches``
    # but for tensors of a fixed shape that hold all of chance, and ``assemble(drawn)``, which makes the batch from
    # them.
