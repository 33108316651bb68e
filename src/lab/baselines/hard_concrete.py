r"""The :math:`\ell_0` penalty through hard concrete gates (Louizos et al., 2018), a gate a weight as in 4.4.1."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from principled import Relaxed
from principled.relax import Where
from principled.reweighted import Weights

from .vector_mask import VectorMask


class HardConcrete(VectorMask):
    r"""Each weight is multiplied with a random gate in [0, 1] that is exactly 0 or 1 with a positive chance.

    :math:`z = \min(1, \max(0, \bar s))`, :math:`\bar s = s(\zeta - \gamma) + \gamma`,
    :math:`s = \sigma((\log u - \log(1 - u) + \log\alpha) / \beta)`, :math:`u \sim U(0, 1)`. In training each forward
    pass draws; in evaluation, and when it hardens, the gate takes the value that the paper suggests,
    :math:`\min(1, \max(0, \sigma(\log\alpha)(\zeta - \gamma) + \gamma))`. The thesis finds that this collapses at high
    sparsity and draws masks instead: :func:`commit_to_best`.

    Args:
        open: chance that a gate starts open rather than closed, in (0, 1); the paper's droprate is ``1 - open``.
        where: which weights carry a gate, as for :class:`principled.ContinuousMask`.

    Attributes:
        log_alpha: ``(d,)`` Parameter, where each gate's distribution lies.

    The penalty is the expected number of gates that are not 0. Constants are the paper's: beta 2/3,
    gamma -0.1, zeta 1.1. Call :meth:`clamp` after each step, as the paper's code does: far outside its range a gate has
    no slope to come back by.
    """

    BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
    RANGE = math.log(0.01), math.log(100.0)
    """Where the paper's code keeps ``log_alpha``; at its lower end a gate is drawn 0 with a chance of 95.3 %."""

    def __init__(self, open: float = 0.7, where: Where | None = None) -> None:
        super().__init__(where)
        if not 0 < open < 1:
            raise ValueError(
                f"open must lie between 0 and 1, not {open}: the paper starts at 0.7 for residual networks"
            )
        self.open = open
        self.register_parameter("log_alpha", None)
        self._drawn: Tensor | None = None

    def start(self, size: int, like: Tensor) -> None:
        """All gates alike, but for the paper's noise of 0.01."""
        noise = 0.01 * torch.randn(size, dtype=like.dtype, device=like.device)
        self.log_alpha = nn.Parameter(math.log(self.open / (1 - self.open)) + noise)

    def _stretched(self, s: Tensor) -> Tensor:
        return (s * (self.ZETA - self.GAMMA) + self.GAMMA).clamp(0, 1)

    def sample(self) -> Tensor:
        """``(d,)`` one draw of all gates, differentiable in ``log_alpha``."""
        u = torch.rand_like(self.log_alpha).clamp(1e-6, 1 - 1e-6)
        return self._stretched(torch.sigmoid((u.logit() + self.log_alpha) / self.BETA))

    def expected(self) -> Tensor:
        """``(d,)`` the paper's gates for inference."""
        return self._stretched(torch.sigmoid(self.log_alpha))

    def forward(self, weights: Weights) -> Weights:
        """Gates times weights: a draw in training, the paper's value in evaluation."""
        return self.scaled(weights, self.sample() if self.training else self.expected())

    def penalty(self) -> Tensor:
        """Expected number of open gates, a 0-d tensor."""
        return torch.sigmoid(self.log_alpha - self.BETA * math.log(-self.GAMMA / self.ZETA)).sum()

    def clamp(self) -> None:
        """Put ``log_alpha`` back into :attr:`RANGE`."""
        with torch.no_grad():
            self.log_alpha.clamp_(*self.RANGE)

    def draw(self) -> None:
        """Harden to one draw of the gates, from now on."""
        with torch.no_grad():
            self._drawn = self.sample()

    def harden(self, weights: Weights) -> Weights:
        """The last :meth:`draw`, or the paper's gates if there was none; times the weights."""
        return self.scaled(weights, self.expected() if self._drawn is None else self._drawn)


def commit_to_best(net: Relaxed, evaluate: Callable[[nn.Module], float], draws: int = 10) -> nn.Module:
    """Draw masks and keep the one that does best (4.4.1): a plain network.

    Args:
        net: trained with one :class:`HardConcrete` first in its stack.
        evaluate: higher is better. Give it images that are not the test's: the choice is part of training.
        draws: how many; the thesis does not say.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    gates = net.relaxations[0]
    best, score = None, -math.inf
    for _ in range(draws):
        gates.draw()
        candidate = net.harden()
        if (value := evaluate(candidate)) > score:
            best, score = copy.deepcopy(candidate), value
    assert best is not None, "evaluate gave no number"
    return best
