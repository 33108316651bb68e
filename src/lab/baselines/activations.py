"""Activations of few bits: PACT (Choi et al., 2018), SMOL-A (5.4.3), and the fixed 4-bit ReLU6 of 5.3.2.

Each is a module to put in a ReLU's place: :func:`replace_relu` does that for a whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from principled.smol import extra_bits, start

from ..errors import LabError
from .quantizers import round_through, through


def clip(x: Tensor, alpha: Tensor) -> Tensor:
    """PACT's clip to [0, alpha]; alpha's gradient is 1 where x is at or above it, else 0."""
    return torch.where(x >= alpha, alpha, x.clamp(min=0))


def _range(alpha: float) -> nn.Parameter:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise LabError(f"an activation's range must be a finite number above 0, not {alpha}")
    return nn.Parameter(torch.tensor(float(alpha)))


def _alive(alpha: Tensor) -> None:
    # Under compile there is no reading back; the eager evaluation that ends each epoch says it.
    if not torch.compiler.is_compiling() and not float(alpha.detach()) > 0:
        raise LabError(
            f"an activation range collapsed to {float(alpha.detach()):g}: lower its learning rate or its weight decay"
        )


class PACT(nn.Module):
    """ReLU clipped at a learned alpha and rounded to 2**bits levels; ``bits=None`` clips only.

    Give alpha weight decay: it is the paper's regulariser. The range is checked in evaluation mode (one read-back).
    """

    def __init__(self, bits: int | None, alpha: float = 6.0) -> None:
        super().__init__()
        if bits is not None and (isinstance(bits, bool) or not 1 <= bits <= 16):
            raise LabError(f"PACT: bits must be a whole number from 1 to 16 or None, not {bits}")
        self.bits, self.alpha = bits, _range(alpha)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            _alive(self.alpha)
        y = clip(x, self.alpha)
        if self.bits is None:
            return y
        unit = self.alpha.detach() / (2**self.bits - 1)  # detached: alpha learns through the clip alone, as published
        return through((y / unit).round() * unit, y)


class ReLU6FourBits(nn.Module):
    """The fixed activations of the ImageNet networks (5.3.2): 16 levels, 0 to 3 in steps of 1/5, straight-through."""

    def forward(self, x: Tensor) -> Tensor:
        return round_through(F.relu6(x).clamp(max=3) * 5) / 5


class SmolA(nn.Module):
    r"""SMOL-A (5.4.3): noise :math:`\frac{\alpha}{2}\sigma(s) \odot \epsilon` on a clipped ReLU, one s for each unit of the layer.

    In training it adds noise; in ``eval()`` it does not. After :meth:`fix` it rounds each unit to its own 2**p levels
    between 0 and alpha, straight-through, in both modes.

    Args:
        shape: of one example's activations, such as (16, 32, 32).
        p_init: bits to start from, above 1.
        alpha: start of the range.

    Attributes:
        s: Parameter of that shape; train it with Adam, as the weights' s.
        p: int8 buffer of that shape, 0 until :meth:`fix`.
    """

    p: Tensor

    def __init__(self, shape: tuple[int, ...], p_init: float = 8.0, alpha: float = 6.0) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full(shape, start(p_init)))
        self.alpha = _range(alpha)
        self.register_buffer("p", torch.zeros(shape, dtype=torch.int8))
        self.register_buffer("fixed", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            _alive(self.alpha)
        u = clip(x, self.alpha)
        steps = torch.exp2(self.p.to(u.dtype)).round() - 1
        unit = self.alpha.detach() / steps.clamp(min=1)
        rounded = through((u / unit).round() * unit, u)
        free = u
        if self.training:
            free = torch.addcmul(u, self.alpha / 2 * torch.sigmoid(self.s), 2 * torch.rand_like(u) - 1)
        return torch.where(self.fixed, rounded, free)

    def penalty(self) -> Tensor:
        """Bits beyond each unit's first."""
        return extra_bits(self.s).sum()

    @torch.no_grad()
    def fix(self) -> None:
        """End of the search: p = 1 + floor(log2(1 + e^-s)), as for weights."""
        bits = 1 + torch.floor(extra_bits(self.s) + 4e-6)
        if not bool(torch.isfinite(bits).all()):
            raise LabError("SMOL-A: s holds NaN or infinite values; did the training diverge?")
        self.p.copy_(bits.clamp(max=16))
        self.fixed.fill_(True)


def replace_relu(net: nn.Module, make: Callable[[], nn.Module]) -> int:
    """Put ``make()`` in the place of every ``nn.ReLU`` and ``nn.ReLU6`` module, in place; returns how many there were.

    A network that calls ``F.relu`` has none to replace: that is an error, not a silent nothing.
    """
    found = 0
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(module, name, make())
                found += 1
    if not found:
        raise LabError(f"{type(net).__name__} has no ReLU module to replace; it may call F.relu instead")
    return found
