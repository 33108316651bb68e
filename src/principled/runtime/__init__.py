"""Sparse networks that run fast on a CPU.

    from principled.runtime import compile

    fast = compile(sparse, images[:1])          # sparse: a network with zeros, in evaluation
    scores = fast(images)                       # any number of images, no gradient
    print(fast.report())                        # zeros, kernel, microseconds and share of each layer

Needs llvmlite (``pip install principled[runtime]``) and no compiler: the kernels are generated for the processor at
hand, with vectors as wide as it has.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .machine import Target
from .network import Compiled
from .report import Report, Row

__all__ = ["Compiled", "Report", "Row", "Target", "compile"]


def compile(
    net: nn.Module,
    example: Tensor | Sequence[Tensor],
    *,
    threads: int = 1,
    threshold: float | None = None,
    target: Target | None = None,
) -> Compiled:
    """A network as a callable that leaves its zeros out.

    BatchNorm is folded into the weights before it; bias, sums of two branches and ReLU are taken into the layer that
    they follow. Convolutions and linear layers with few enough non-zeros run on sparse kernels, which keep activations
    padded from one to the next; the others run on PyTorch's dense ones. What the runtime does not know runs in PyTorch;
    so does the whole network where its forward branches on data, and a warning says so.

    Args:
        net: in evaluation, float32, on the CPU; what ``harden()``, ``fold()`` or ``principled.files`` give.
        example: an input, ``(N, ...)`` with the images' size and any N, or all inputs in order.
        threads: default 1. Images of a batch are spread over them; a single image runs on one.
        threshold: the share of non-zeros up to which a layer runs on a sparse kernel; default: what was measured on
            this machine at the first use, and is kept with the compiled code (:mod:`principled.runtime.machine`).
        target: what to generate code for; default this machine.

    A zero weight is skipped and does not see its input: where PyTorch multiplies it with an infinity or a NaN and gets
    NaN, the compiled network gets what the other weights give. Wherever a weight is not zero, NaN and infinities pass
    through as in PyTorch.

    Raises:
        ValueError: the network is in training, or the example is no float32 batch on the CPU.
        ModuleNotFoundError: llvmlite is absent.
    """
    inputs = [example] if isinstance(example, Tensor) else list(example)
    if any(module.training for module in net.modules()):
        raise ValueError("compile takes a network in evaluation: call net.eval() first")
    if not inputs or any(x.device.type != "cpu" or x.dim() < 2 or not len(x) for x in inputs):
        raise ValueError("compile takes an example on the CPU with a batch as its first dimension, as images[:1]")
    return Compiled(net, inputs, threads, threshold, target or Target.host())
