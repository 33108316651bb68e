"""Activations of few bits: PACT (Choi et al., 2018), SMOL-A (5.4.3), and the fixed 4-bit ReLU6 of 5.3.2.

Each is a module to put in a ReLU's place: :func:`replace_relu` does that for a whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.utils.errors import LabError
from principled.smol import extra_bits, start

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
        if bits is not None and (isinstance(bits, bool) or bits != int(bits) or not 1 <= bits <= 16):
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
    r"""SMOL-A (5.4.3): noise :math:`\frac{\alpha}{2}\sigma(s) \odot \epsilon` on a clipped ReLU, one s for each unit of
    the layer.

    In training it adds noise; in ``eval()`` it does not. :meth:`fixed` gives what takes its place after the search.

    Args:
        shape: of one example's activations, such as (16, 32, 32).
        p_init: bits to start from, above 1.
        alpha: start of the range.

    Attributes:
        s: Parameter of that shape; train it with Adam, as the weights' s.
    """

    def __init__(self, shape: tuple[int, ...], p_init: float = 8.0, alpha: float = 6.0) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full(shape, start(p_init)))
        self.alpha = _range(alpha)

    def forward(self, x: Tensor) -> Tensor:
        u = clip(x, self.alpha)
        if not self.training:
            _alive(self.alpha)
            return u
        return torch.addcmul(u, self.alpha / 2 * torch.sigmoid(self.s), torch.empty_like(u).uniform_(-1, 1))

    def penalty(self) -> Tensor:
        """Bits beyond each unit's first."""
        return extra_bits(self.s).sum()

    @torch.no_grad()
    def precision(self) -> Tensor:
        """Bits of each unit, int8: p = 1 + floor(log2(1 + e^-s)), as for weights, at most 16."""
        bits = 1 + torch.floor(extra_bits(self.s) + 4e-6)
        if not bool(torch.isfinite(bits).all()):
            raise LabError("SMOL-A: s holds NaN or infinite values; did the training diverge?")
        return bits.clamp(max=16).to(torch.int8)

    def fixed(self) -> FixedBits:
        """End of the search: an activation of these precisions with the range that was learned."""
        return FixedBits(self.precision(), float(self.alpha.detach()))


class FixedBits(nn.Module):
    """A ReLU clipped at a learned alpha; each unit rounded to its own 2**p levels from 0 to alpha, straight-through.

    Args:
        p: bits, from 1 to 16, an integer tensor of the shape of one example's activations.
        alpha: start of the range.
    """

    p: Tensor

    def __init__(self, p: Tensor, alpha: float) -> None:
        super().__init__()
        if p.dtype.is_floating_point or p.dtype == torch.bool or not 1 <= int(p.min()) <= int(p.max()) <= 16:
            raise LabError("precisions of activations must be whole numbers of bits from 1 to 16")
        self.alpha = _range(alpha).to(p.device)
        self.register_buffer("p", p.to(torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            _alive(self.alpha)
        y = clip(x, self.alpha)
        # detached, as in PACT: alpha learns through the clip alone
        unit = self.alpha.detach() / (torch.exp2(self.p.to(torch.float32)).round() - 1)
        return through((y / unit).round() * unit, y)


def replace_relu(net: nn.Module, make: Callable[[], nn.Module]) -> int:
    """Put ``make()`` in the place of every ``nn.ReLU`` and ``nn.ReLU6`` module, in place; returns how many there were.

    A network that calls ``F.relu`` has none to replace: that is an error, not a silent nothing.
    """
    replaced = 0
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(module, name, make())
                replaced += 1
    if not replaced:
        raise LabError(f"{type(net).__name__} has no ReLU module to replace; it may call F.relu instead")
    return replaced


def put_activations(net: nn.Module, example: Tensor, make: Callable[[tuple[int, ...]], nn.Module]) -> list[str]:
    """As :func:`replace_relu`, but ``make(shape)`` hears the shape of one example's activations; returns the places'
    names.

    Args:
        net: is changed in place; its mode and buffers stay.
        example: a batch of one input, to see the shapes with.
        make: gives the module for a place. A ReLU module that runs in several places has one shape or is refused.
    """
    shapes: dict[str, set[tuple[int, ...]]] = {}
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            seen = shapes.setdefault(name, set())
            hooks.append(
                module.register_forward_hook(
                    lambda module, inputs, output, seen=seen: seen.add(tuple(output.shape[1:]))
                )
            )
    training = net.training
    with torch.no_grad():
        net.eval()(example)
    net.train(training)
    for hook in hooks:
        hook.remove()
    if not shapes:
        raise LabError(f"{type(net).__name__} has no ReLU module to replace; it may call F.relu instead")
    for name, seen in shapes.items():
        if len(seen) != 1:
            raise LabError(f"{name} runs at {len(seen)} shapes: give each place a ReLU module of its own")
        parent, _, last = name.rpartition(".")
        setattr(net.get_submodule(parent), last, make(*seen))
    return list(shapes)
