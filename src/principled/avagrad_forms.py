"""The forms of one step of :mod:`principled.avagrad`: what each does with the tensors of a :class:`Batch`.

They agree to rounding. :func:`single_tensor` reads like the algorithm, :func:`differentiable` lets autograd follow it,
:func:`multi_tensor` issues few kernels, :func:`flat` works on vectors that hold many small tensors, :func:`fused` is
compiled to one pass; :func:`reference` is the author's public code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import is_
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor


@dataclass
class Batch:
    """Tensors of one group that have a gradient and share a device and a dtype (lists in parallel), and what a step
    needs.
    """

    group: dict[str, Any]
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)
    ms: list[Tensor] = field(default_factory=list)  # exp_avg
    vs: list[Tensor] = field(default_factory=list)  # exp_avg_sq
    etas: list[Tensor] = field(default_factory=list)  # line 6, in the multi-tensor form
    eta_sqs: list[Tensor] = field(default_factory=list)  # one number each: the tensor's part of ||eta||^2
    size: int = 0  # entries that ||eta||^2 runs over: the d of line 7
    mean: Tensor | None = None  # ||eta||^2 / d over all that is normalised together
    scales: list[Any] = field(default_factory=list)  # alpha / ||eta / sqrt(d)||, one for all or for each; see _update
    l2: float = 0.0  # coupled weight decay
    keep: float | Tensor | None = None  # 1 - lr * decoupled weight decay
    form: str = ""
    vectors: Vectors | None = None  # of the flat form


def scalar(x: float | Tensor, p: Tensor) -> Tensor:
    """``x`` as a 0-d tensor on the device of ``p``, float64 or else float32. A number is filled in there:
    no transfer.
    """
    dtype = torch.promote_types(p.dtype, torch.float32)
    if isinstance(x, Tensor):
        return x.to(dtype=dtype, device=p.device).reshape(())
    return torch.full((), x, dtype=dtype, device=p.device)


def sum_eta_sq(root: Tensor, eps: float, out: Tensor) -> None:
    """``||1 / (root + eps)||^2`` into ``out``; ``root`` is overwritten."""
    # Not vector_norm: on CPU it adds up in plain float32 and is 0.15 % off for 3.7 M equal entries; sum() works in a
    # cascade.
    out.copy_(root.add_(eps).pow_(-2).sum(dtype=out.dtype))


def single_tensor(b: Batch) -> None:
    """Algorithms 6 and 7, line by line."""
    (beta1, beta2), eps = b.group["betas"], b.group["eps"]
    for i, (p, g, m, v) in enumerate(zip(b.params, b.grads, b.ms, b.vs, strict=True)):
        if b.keep is not None:
            p.mul_(b.keep)
        if b.l2 != 0:
            g = g.add(p, alpha=b.l2)
        m.lerp_(g, 1 - beta1)  # line 5
        denom = v.sqrt().add_(eps)  # line 6, eta = 1 / denom, still from v_{t-1}
        scale = b.scales[i % len(b.scales)]  # line 7: p -= scale * m / denom
        p.addcdiv_(m * scale, denom, value=-1) if isinstance(scale, Tensor) else p.addcdiv_(m, denom, value=-scale)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # line 8
        if b.eta_sqs:  # the next step's, while v is at hand
            sum_eta_sq(torch.sqrt(v, out=denom), eps, b.eta_sqs[i])


def differentiable(b: Batch) -> None:
    """The same for autograd to follow: what backward needs is not overwritten."""
    (beta1, beta2), eps = b.group["betas"], b.group["eps"]
    for i, (p, g, m, v) in enumerate(zip(b.params, b.grads, b.ms, b.vs, strict=True)):
        if b.keep is not None:
            p.mul_(b.keep)
        if b.l2 != 0:
            g = g.add(p, alpha=b.l2)
        m.lerp_(g, 1 - beta1)
        p.sub_((m.clone() * b.scales[i % len(b.scales)] / (v.sqrt() + eps)).to(p.dtype))
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        if b.eta_sqs:
            b.eta_sqs[i].copy_((v.sqrt() + eps).pow(-2).sum(dtype=b.eta_sqs[i].dtype))


def multi_etas(b: Batch) -> None:
    """Line 6 of the multi-tensor form. It holds all rates at once, so it takes their norm here and needs none kept."""
    b.etas = list(torch._foreach_sqrt(b.vs))
    torch._foreach_add_(b.etas, b.group["eps"])
    torch._foreach_reciprocal_(b.etas)
    if b.group["normalize"] is not None:
        dtype = torch.promote_types(b.etas[0].dtype, torch.float32)
        on_cpu = ((eta * eta).sum(dtype=dtype) for eta in b.etas)  # see sum_eta_sq
        b.eta_sqs = list(on_cpu if b.etas[0].is_cpu else map(torch.square, torch._foreach_norm(b.etas, 2, dtype=dtype)))


def multi_tensor(b: Batch) -> None:
    """The same with one call for all tensors: on an accelerator, a handful of kernels."""
    (beta1, beta2), grads = b.group["betas"], b.grads
    if b.keep is not None:
        torch._foreach_mul_(b.params, b.keep)
    if b.l2 != 0:
        grads = list(torch._foreach_add(grads, b.params, alpha=b.l2))
    torch._foreach_lerp_(b.ms, grads, 1 - beta1)
    if isinstance(b.scales[0], Tensor):
        torch._foreach_mul_(b.etas, b.scales[0] if len(b.scales) == 1 else b.scales)
    factors = -1 if isinstance(b.scales[0], Tensor) else [-x for x in b.scales] * (len(b.etas) // len(b.scales))
    torch._foreach_addcmul_(b.params, b.ms, b.etas, factors)
    torch._foreach_mul_(b.vs, beta2)
    torch._foreach_addcmul_(b.vs, grads, grads, value=1 - beta2)


@lru_cache(maxsize=256)
def constant(x: float, dtype: torch.dtype, place: int = 0) -> Tensor:
    """:func:`scalar` of a number that hardly ever changes, on the CPU; equal ones at two places are two tensors."""
    return torch.full((), x, dtype=torch.promote_types(dtype, torch.float32))


@dataclass
class Vectors:
    """Two moments as vectors, of which the batch's ``exp_avg`` and ``exp_avg_sq`` are views, and two vectors to work
    in.
    """

    ms: list[Tensor]
    vs: list[Tensor]
    works: list[Tensor]
    m: Tensor
    v: Tensor
    work: Tensor  # gradients first, then the step
    eta: Tensor

    @classmethod
    def of(cls, b: Batch) -> Vectors:
        """Move the batch's moments into vectors; the states hold views from then on."""
        m, v, work, eta = torch.zeros(4, b.size, dtype=b.ms[0].dtype, device=b.ms[0].device)
        views: list[list[Tensor]] = [[], [], []]
        for vector, made in zip((m, v, work), views, strict=True):
            for part, old in zip(vector.split([old.numel() for old in b.ms]), b.ms, strict=True):
                made.append(part.as_strided(old.shape, old.stride()))  # in the order of the parameter's memory
        ms, vs, works = views
        torch._foreach_copy_(ms, b.ms)
        torch._foreach_copy_(vs, b.vs)
        for state, state_m, state_v in zip(b.states, ms, vs, strict=True):
            state["exp_avg"], state["exp_avg_sq"] = state_m, state_v
        return cls(ms, vs, works, m, v, work, eta)

    def hold(self, b: Batch) -> bool:
        """Whether the batch's moments are (still) these."""
        return len(self.ms) == len(b.ms) and all(map(is_, self.ms, b.ms)) and all(map(is_, self.vs, b.vs))


def flat_etas(b: Batch) -> None:
    """Line 6 of the flat forms, likewise with its norm."""
    x, eps = b.vectors, b.group["eps"]
    assert x is not None
    total = torch.empty(1, dtype=torch.promote_types(x.v.dtype, torch.float32))
    if b.form == "flat fused":
        run_compiled(b, etas_body, x.v.shape, x.v, x.eta, total, constant(eps, x.v.dtype))
    else:
        torch.sqrt(x.v, out=x.eta).add_(eps).reciprocal_()
        total.copy_(torch.mul(x.eta, x.eta, out=x.work).sum(dtype=total.dtype))
    b.eta_sqs = [total] if b.group["normalize"] is not None else []


def flat(b: Batch) -> None:
    """The multi-tensor form on :class:`Vectors`: of many small tensors, one CPU kernel does each line's work, not one a
    tensor.
    """
    (beta1, beta2), x, scale = b.group["betas"], b.vectors, b.scales[0]
    assert x is not None
    if b.keep is not None:
        torch._foreach_mul_(b.params, b.keep)
    torch._foreach_copy_(x.works, b.grads)
    if b.l2 != 0:
        torch._foreach_add_(x.works, b.params, alpha=b.l2)
    if b.form == "flat fused":
        rates = (constant(rate, x.m.dtype, i) for i, rate in enumerate((1 - beta1, beta2, 1 - beta2)))
        run_compiled(b, flat_body, x.v.shape, x.m, x.v, x.eta, x.work, scalar(scale, x.m), *rates)
    else:
        x.m.lerp_(x.work, 1 - beta1)
        x.v.mul_(beta2).addcmul_(x.work, x.work, value=1 - beta2)  # eta is at hand, from v_{t-1}
        torch.mul(x.m, x.eta, out=x.work).mul_(scale)
    torch._foreach_sub_(b.params, x.works)


def etas_body(v: Tensor, eta: Tensor, total: Tensor, eps: Tensor) -> None:
    """:func:`flat_etas` to compile: one loop."""
    new = 1 / (v.sqrt() + eps)
    eta.copy_(new)
    total.copy_(new.square().sum(dtype=total.dtype))


def flat_body(
    m: Tensor, v: Tensor, eta: Tensor, work: Tensor, scale: Tensor, one_minus_beta1: Tensor, beta2: Tensor,
    one_minus_beta2: Tensor,
) -> None:  # fmt: skip
    """:func:`flat` to compile: one loop."""
    m_new = m + (work - m) * one_minus_beta1
    v.copy_(v * beta2 + work * work * one_minus_beta2)
    m.copy_(m_new)
    work.copy_(m_new * eta * scale)


def fused_body(
    b: tuple[list[Tensor], ...], scales: list[Tensor], rates: list[Tensor], decay: Tensor, mode: str
) -> None:
    """The same as one graph to compile; whatever may vary in training is a 0-d tensor."""
    one_minus_beta1, beta2, one_minus_beta2, eps = rates
    params, grads, ms, vs, eta_sqs = b
    for i, (p, g, m, v) in enumerate(zip(params, grads, ms, vs, strict=True)):
        old = p * decay if mode == "keep" else p
        g = g + decay * old if mode == "l2" else g
        m_new = m + (g - m) * one_minus_beta1
        v_new = v * beta2 + g * g * one_minus_beta2
        p.copy_(old - m_new * scales[i % len(scales)] / (v.sqrt() + eps))
        m.copy_(m_new)
        v.copy_(v_new)
        if eta_sqs:
            eta_sqs[i].copy_((1 / (v_new.sqrt() + eps)).square().sum(dtype=eta_sqs[i].dtype))


@lru_cache(maxsize=64)
def compiled(body: FunctionType, *signature: Any) -> Callable[..., None]:
    """``body`` compiled for one ``signature`` (device, dtype, shapes, options); the same function when asked again."""
    # A code object for each set of shapes: dynamo limits recompilations by code object, and a sweep would meet the
    # limit. With v_new kept as a value (realize_reads_threshold) inductor sums in the loop that writes v. Guards make
    # size_asserts redundant.
    own = FunctionType(body.__code__.replace(), globals())
    options: dict[str, Any] = {"realize_reads_threshold": 1, "size_asserts": False}
    return cast("Callable[..., None]", torch.compile(own, fullgraph=True, dynamic=False, options=options))


unavailable: list[str] = []  # why compiling failed: said once, and tried again only for fused=True


def run_compiled(b: Batch, body: Any, signature: tuple[Any, ...], *arguments: Any) -> bool:
    """Run ``body`` compiled; False, after a warning, if this machine cannot compile and nothing requires it."""
    function = compiled(body, b.params[0].device, b.params[0].dtype, *signature)
    try:  # compiling comes before running: if it fails, nothing has been touched
        function(*arguments)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"torch.compile failed here ({reason}); install a C++ compiler (g++)"
        if b.group["fused"]:
            raise ValueError(f"fused=True: {problem} or pass fused=False") from error
        unavailable.append(reason)
        warnings.warn(f"AvaGrad runs uncompiled: {problem} to make it faster", RuntimeWarning, stacklevel=2)
        return False
    return True


def fused(b: Batch) -> bool:
    """The compiled form of large tensors; see :func:`run_compiled`."""
    p, (beta1, beta2), eps = b.params[0], b.group["betas"], b.group["eps"]
    rates = [scalar(x, p) for x in (1 - beta1, beta2, 1 - beta2, eps)]
    mode = "keep" if b.keep is not None else "l2" if b.l2 != 0 else "none"
    decay = scalar(b.l2 if b.keep is None else b.keep, p)
    signature = mode, len(b.scales), bool(b.eta_sqs), *(q.shape for q in b.params)
    lists = [b.params, b.grads, b.ms, b.vs]
    if p.dtype == torch.float64:
        # Compiled code of torch 2.13 silently drops writes into 0-d float64 tensors on the CPU: hence views, and
        # eta_sq's (1,)
        lists = [[q.view(1) if q.ndim == 0 else q for q in x] for x in lists]
    scales = [scalar(x, p) for x in b.scales]
    return run_compiled(b, fused_body, signature, (*lists, b.eta_sqs), scales, rates, decay, mode)


def reference(b: Batch) -> None:
    """What the author's public code computes: bias correction, a norm one step older, a first step that
    stands still.
    """
    (beta1, beta2), eps = b.group["betas"], b.group["eps"]
    for p, g, m, v, eta_sq, state in zip(b.params, b.grads, b.ms, b.vs, b.eta_sqs, b.states, strict=True):
        t = state["step"].add_(1).double()  # 1 - 0.999 has four digits left in float32
        moves = t > 1
        now, before = (1 - beta2**t).sqrt(), torch.where(moves, 1 - beta2 ** (t - 1), 1.0).sqrt()
        if b.keep is not None:
            p.mul_(1 + (b.keep - 1) * moves.double())
        if b.l2 != 0:
            g = g.add(p, alpha=b.l2)
        m.lerp_(g, 1 - beta1)
        root, scale = v.sqrt(), torch.where(moves, b.scales[0] / (1 - beta1**t), 0.0)
        p.addcdiv_(m * scale, root.div(before).add_(eps), value=-1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        sum_eta_sq(root.div_(now), eps, eta_sq)
