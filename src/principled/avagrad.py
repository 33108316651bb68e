r"""AvaGrad (Chapter 6): Adam's second moment one step late, and normalised.

Algorithm 7 divides the parameter-wise rates :math:`\eta_t = 1/(\sqrt{v_{t-1}} + \epsilon)` by their root mean square, so that the
learning rate alone says how far a step goes, and :math:`\epsilon` alone how adaptive it is. Because :math:`\eta_t` comes from the
*previous* second moment, the norm that the next step divides by is summed while this step writes ``v``: one pass is enough.

Three forms agree to rounding: ``_single_tensor`` reads like the algorithm, ``_multi_tensor`` issues few kernels, ``_fused`` is
compiled to one pass.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import FunctionType
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

Number = float | Tensor
Betas = tuple[float, float]
AUTO_FUSED = 10_000_000  # from here on fused=None compiles on a CPU: half a minute that a thousand steps win back


@dataclass
class _Batch:
    """Tensors of one group that have a gradient and share a device and a dtype (lists in parallel), and what a step needs."""

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


def _scalar(x: float | Tensor, p: Tensor) -> Tensor:
    """``x`` as a 0-d tensor on the device of ``p``, float64 or else float32. A number is filled in there: no transfer."""
    dtype = torch.promote_types(p.dtype, torch.float32)
    if isinstance(x, Tensor):
        return x.to(dtype=dtype, device=p.device).reshape(())
    return torch.full((), x, dtype=dtype, device=p.device)


def _sum_eta_sq(root: Tensor, eps: float, out: Tensor) -> None:
    """``||1 / (root + eps)||^2`` into ``out``; ``root`` is overwritten."""
    # Not vector_norm: on CPU it adds up in plain float32 and is 0.15 % off for 3.7 M equal entries; sum() works in a cascade.
    out.copy_(root.add_(eps).pow_(-2).sum(dtype=out.dtype))


def _single_tensor(b: _Batch) -> None:
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
            _sum_eta_sq(torch.sqrt(v, out=denom), eps, b.eta_sqs[i])


def _multi_etas(b: _Batch) -> None:
    """Line 6 of the multi-tensor form. It holds all rates at once, so it takes their norm here and needs none kept."""
    b.etas = list(torch._foreach_sqrt(b.vs))
    torch._foreach_add_(b.etas, b.group["eps"])
    torch._foreach_reciprocal_(b.etas)
    if b.group["normalize"] is not None:
        dtype = torch.promote_types(b.etas[0].dtype, torch.float32)
        on_cpu = ((eta * eta).sum(dtype=dtype) for eta in b.etas)  # see _sum_eta_sq
        b.eta_sqs = list(on_cpu if b.etas[0].is_cpu else map(torch.square, torch._foreach_norm(b.etas, 2, dtype=dtype)))


def _multi_tensor(b: _Batch) -> None:
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


def _fused(b: tuple[list[Tensor], ...], scales: list[Tensor], rates: list[Tensor], decay: Tensor, mode: str) -> None:
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
def _compiled(*signature: Any) -> Callable[..., None]:
    # A code object for each set of shapes: dynamo limits recompilations by code object, and a sweep would meet the limit. With
    # v_new kept as a value (realize_reads_threshold) inductor sums in the loop that writes v. Guards make size_asserts redundant.
    body = FunctionType(_fused.__code__.replace(), globals())
    options: dict[str, Any] = {"realize_reads_threshold": 1, "size_asserts": False}
    return cast("Callable[..., None]", torch.compile(body, fullgraph=True, dynamic=False, options=options))


_unavailable: list[str] = []  # why compiling failed: said once, and tried again only for fused=True


def _run_fused(b: _Batch) -> bool:
    """Run the compiled form; False, after a warning, if this machine cannot compile and nothing requires it."""
    p, (beta1, beta2), eps = b.params[0], b.group["betas"], b.group["eps"]
    rates = [_scalar(x, p) for x in (1 - beta1, beta2, 1 - beta2, eps)]
    mode = "keep" if b.keep is not None else "l2" if b.l2 != 0 else "none"
    decay = _scalar(b.l2 if b.keep is None else b.keep, p)
    function = _compiled(p.device, p.dtype, mode, len(b.scales), bool(b.eta_sqs), *(q.shape for q in b.params))
    lists = [b.params, b.grads, b.ms, b.vs]
    if p.dtype == torch.float64:
        # Compiled code of torch 2.13 silently drops writes into 0-d float64 tensors on the CPU: hence views, and eta_sq's (1,)
        lists = [[q.view(1) if q.ndim == 0 else q for q in x] for x in lists]
    try:  # compiling comes before running: if it fails, nothing has been touched
        function((*lists, b.eta_sqs), [_scalar(x, p) for x in b.scales], rates, decay, mode)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"torch.compile failed here ({reason}); install a C++ compiler (g++)"
        if b.group["fused"]:
            raise ValueError(f"fused=True: {problem} or pass fused=False") from error
        _unavailable.append(reason)
        warnings.warn(f"AvaGrad runs uncompiled: {problem} to make it faster", RuntimeWarning, stacklevel=2)
        return False
    return True


def _reference(b: _Batch) -> None:
    """What the author's public code computes: bias correction, a norm one step older, a first step that stands still."""
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
        _sum_eta_sq(root.div_(now), eps, eta_sq)


class _Delayed(Optimizer):
    # What the optimizers of this chapter share: checks, state, batches, the step.
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, params: ParamsT, own: dict[str, Any], lr: Number, betas: Betas, eps: float, weight_decay: float = 0,
                 decoupled: bool = False, *, foreach: bool | None = None, fused: bool | None = None) -> None:  # fmt: skip
        common = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        # torch moves a `step` to its parameter's device on loading if `capturable` says so; no form here reads it back
        super().__init__(params, common | {"foreach": foreach, "fused": fused, "capturable": True} | own)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a group's own options are checked too, and a group that fails is not added."""
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        name, betas, power = type(self).__name__, group["betas"], group.get("power", 0)
        lr, eps, decay = float(group["lr"]), group["eps"], group["weight_decay"]
        variant, normalize, forms = group["variant"], group["normalize"], (group["foreach"], group["fused"])
        plain = normalize == "group" and not any(forms)
        for key, value, rule, good in (
            ("lr", lr, "above 0", 0 < lr < math.inf),
            ("eps", eps, "above 0", 0 < eps < math.inf),
            ("betas", betas, "two numbers in [0, 1)", len(betas) == 2 and all(0 <= beta < 1 for beta in betas)),
            ("weight_decay", decay, "0 or above", 0 <= decay < math.inf),
            ("power", power, "0 or above", 0 <= power < math.inf),  # DynamicAdam's: eps_t must not shrink
            ("foreach, fused", forms, "at most one of them True", not all(forms)),
            *((key, group[key], f"one of {known}", group[key] in known) for key, known in self._choices.items()),
            ("variant", variant, "'thesis' with this normalize, foreach, fused", variant != "reference" or plain),
        ):
            if not good:
                raise ValueError(f"{name}: {key} must be {rule}, not {value!r}")
        eta = 1 / eps if normalize is not None else 0.0  # of an entry that has seen no gradient
        for p in group["params"]:
            if not p.is_floating_point():
                raise ValueError(f"{name}: parameters must be real, not {p.dtype}; pass torch.view_as_real(w)")
            if eta * eta > min(torch.finfo(p.dtype).max, 3e38 / max(1, p.numel())):  # the sum is a float32 at least
                raise ValueError(f"{name}: eps={eps} is too small for {p.dtype}: 1/eps^2 overflows; raise eps")

    def _gather(self, group: dict[str, Any]) -> list[_Batch]:
        variant, normalize, eps = group["variant"], group["normalize"], group["eps"]
        if variant == "thesis" and group.setdefault("eta_eps", eps) != eps:  # eps was changed by hand: sum anew
            for p in group["params"]:
                self.state.get(p, {}).pop("eta_sq", None)
            group["eta_eps"] = eps
        batches: dict[tuple[torch.device, torch.dtype], _Batch] = {}
        for p in group["params"]:
            g = p.grad
            if g is None:
                continue
            if g.layout != torch.strided:
                raise ValueError(f"{type(self).__name__}: no sparse gradients; build the layer with sparse=False")
            b = batches.get(key := (p.device, p.dtype)) or batches.setdefault(key, _Batch(group))
            state = self.state[p]
            if state or variant != "reference":  # the public code has no norm of a tensor yet at its first step
                b.size += p.numel()
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                if variant in ("reference", "dynamic"):  # Algorithms 6 and 7 need no t
                    state["step"] = torch.zeros((), device=p.device, dtype=torch.float32)
            b.params.append(p)
            b.grads.append(g)
            b.states.append(state)
        for b in batches.values():
            b.form = self._form(b)
            b.ms, b.vs = [state["exp_avg"] for state in b.states], [state["exp_avg_sq"] for state in b.states]
            if b.form == "multi":
                _multi_etas(b)
                for state in b.states:  # another form must not find it outdated
                    state.pop("eta_sq", None)
            elif normalize is not None:
                for v, state in zip(b.vs, b.states, strict=True):
                    if "eta_sq" not in state:
                        state["eta_sq"] = _scalar(0.0, v).reshape(1)
                        if variant != "reference":
                            _sum_eta_sq(v.sqrt(), eps, state["eta_sq"])
                b.eta_sqs = [state["eta_sq"] for state in b.states]
        return list(batches.values())

    def _form(self, b: _Batch) -> str:
        fused, foreach, cpu = b.group["fused"], b.group["foreach"], b.params[0].is_cpu
        if fused is None and foreach is None and cpu and not _unavailable:
            # not while gradients are missing: another set of them would mean another compilation
            fused = b.size >= AUTO_FUSED and len(b.params) == len(b.group["params"])
        if b.group["variant"] == "reference":
            return "reference"
        if fused and not torch.compiler.is_compiling():
            return "fused"
        if foreach is None:  # one by one, large tensors stay in a CPU's cache; with small ones the calls cost more
            foreach = not cpu or b.size < 16384 * len(b.params)
        return "multi" if foreach else "single"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. ``closure``, if given, recomputes the loss with gradients and its value is returned."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        batches = [b for group in self.param_groups for b in self._gather(group)]
        pools: dict[Any, list[_Batch]] = {}  # what is normalised together
        for b in batches:
            if b.eta_sqs:
                pools.setdefault("global" if b.group["normalize"] == "global" else id(b.group), []).append(b)
        for pool in pools.values():
            sums = [torch.stack(b.eta_sqs).sum().to(pool[0].params[0].device) for b in pool]
            mean = sum(sums[1:], sums[0]) / max(1, sum(b.size for b in pool))
            for b in pool:
                b.mean = mean
        for b in batches:
            self._update(b)
        return loss

    def _update(self, b: _Batch) -> None:
        group, p, lr, decay = b.group, b.params[0], b.group["lr"], b.group["weight_decay"]
        # On the CPU a number is the cheapest scale; elsewhere, or for a rate in a tensor, a 0-d tensor spares reading it.
        apart = not p.is_cpu or isinstance(lr, Tensor) or torch.compiler.is_compiling()
        number = partial(_scalar, p=p) if apart else float
        if b.mean is None:  # Algorithm 6: nothing to normalise by
            b.scales = [number(lr)]
        elif group["normalize"] == "tensor":
            b.scales = [number(lr * (q.numel() / eta_sq).sqrt()) for q, eta_sq in zip(b.params, b.eta_sqs, strict=True)]
        else:
            b.scales = [number(lr * b.mean.rsqrt())]
        b.l2 = 0.0 if group["decoupled"] else decay
        if group["decoupled"] and decay != 0:
            b.keep = number(1 - lr * decay)
        if b.form == "reference":
            _reference(b)
        elif b.form == "multi":
            _multi_tensor(b)
        elif b.form != "fused" or not _run_fused(b):
            _single_tensor(b)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch. Raises ValueError if the state is another optimizer's, or another variant's."""
        for ours, theirs in zip(self.param_groups, state_dict["param_groups"], strict=False):
            for key in ("variant", "decoupled"):
                if (found := theirs.get(key)) != ours[key]:
                    raise ValueError(
                        f"this optimizer has {key}={ours[key]!r}, the state_dict {found!r}: build it alike"
                    )
        super().load_state_dict(state_dict)
        params, numbers = ([p for g in x for p in g["params"]] for x in (self.param_groups, state_dict["param_groups"]))
        for p, number in zip(params, numbers, strict=True):
            if "eta_sq" in (saved := state_dict["state"].get(number, {})):  # torch has cast it to the parameter's dtype
                self.state[p]["eta_sq"] = _scalar(saved["eta_sq"], p).reshape(1).clone()


class AvaGrad(_Delayed):
    r"""AvaGrad, Algorithm 7.

    .. math::
       \begin{aligned}
            &\rule{110mm}{0.4pt} \\
            &\textbf{input}: \alpha \text{ (lr)},\ \beta_1, \beta_2 \text{ (betas)},\ \epsilon \text{ (eps)},\
                \lambda \text{ (weight decay)},\ w_1 \in \mathbb{R}^d;\quad m_0, v_0 \leftarrow 0,\ n_1 \leftarrow d / \epsilon^2 \\
            &\textbf{for}\ t = 1\ \textbf{to}\ \ldots\ \textbf{do} \\
            &\hspace{5mm} g_t \leftarrow \nabla f_t(w_t) + \lambda w_t
                \quad(\text{decoupled: } g_t \leftarrow \nabla f_t(w_t),\ w_t \leftarrow (1 - \alpha\lambda)\, w_t) \\
            &\hspace{5mm} m_t \leftarrow \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad
                \eta_t \leftarrow 1 / (\sqrt{v_{t-1}} + \epsilon) \\
            &\hspace{5mm} w_{t+1} \leftarrow w_t - \alpha\, \frac{\eta_t}{\sqrt{n_t / d}} \odot m_t \\
            &\hspace{5mm} v_t \leftarrow \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2, \qquad
                n_{t+1} \leftarrow \| 1 / (\sqrt{v_t} + \epsilon) \|^2 = \|\eta_{t+1}\|^2 \\
            &\rule{110mm}{0.4pt}
       \end{aligned}

    Args:
        params: parameters, or groups of them, as for any optimizer of torch; a group may have its own options.
        lr: learning rate, above 0, number or 0-d tensor. 0.1: the rates' root mean square is 1, so a step is as long as SGD's
            with averaged momentum (6.5). ``torch.optim.SGD`` adds gradients up: its 0.1 at momentum 0.9 is ``lr=1`` here.
        betas: decay of the first and second moment, each in [0, 1). (0.9, 0.999), the thesis's and Adam's.
        eps: the larger, the closer to SGD; above 0. 0.1 suits image models, the thesis's language models wanted 1e-8. Tune lr
            first, then eps: they hardly interact. Added to the root, as in (6.6); Algorithms 6 and 7 print it under the root.
        weight_decay, decoupled: factor of the l2 penalty, 0 for none; True shrinks weights by ``1 - lr * weight_decay`` instead.
        normalize: what :math:`\|\eta\|` runs over, among tensors with a gradient in this step. ``"group"``: each group by itself,
            so that adding a group never changes another's steps, as in the public code. ``"global"``: all groups together,
            Algorithm 7 to the letter. ``"tensor"``: each tensor by itself, not in the thesis; dead coordinates slow only their own.
        variant: ``"thesis"``, or ``"reference"``, the author's public code: bias-corrected moments, a norm one step older than the
            rates, a first step that moves nothing. It is there to compare with, and runs uncompiled.
        foreach: True: one call for all tensors, False: tensor by tensor. None: the faster; on accelerators always True.
        fused: one compiled pass. The first step takes about half a minute, as does one with gradients on other tensors.
            True: always; ValueError where torch.compile does not work. None: on CPU, for groups of ten million entries or more
            that all have gradients; where compiling fails, one warning and the uncompiled form.

    State of a parameter: ``exp_avg``, ``exp_avg_sq`` and at most one number, ``eta_sq``; Adam's size. No form waits for the host:
    after one step to warm up, steps can be captured in a CUDA graph (make ``lr`` a tensor on the device to change it later).
    The first step is SGD's, since all rates are equal while ``v`` is 0.

    * *Dead coordinates*: an entry that never has a gradient keeps :math:`\eta = 1/\epsilon`. When eps is tiny, such entries (unused
      embeddings, masked weights) make up :math:`\|\eta\|` and the rest freezes: raise eps or leave them out.
    * *NaN and infinite gradients* poison, as in torch.optim: an entry that got one is not finite afterwards, and a NaN makes
      every parameter under the norm NaN one step later. ``clip_grad_norm_(..., error_if_nonfinite=True)`` stops before.
    * *ValueError*: number out of range, unknown option, eps too small for the dtype, complex parameters, sparse gradient, a
      ``state_dict`` of another variant.
    """

    _choices: ClassVar = {"normalize": ("group", "global", "tensor"), "variant": ("thesis", "reference")}

    def __init__(self, params: ParamsT, lr: Number = 0.1, betas: Betas = (0.9, 0.999), eps: float = 0.1,
                 weight_decay: float = 0, decoupled: bool = False, normalize: Literal["group", "global", "tensor"] = "group",
                 variant: Literal["thesis", "reference"] = "thesis", *,
                 foreach: bool | None = None, fused: bool | None = None) -> None:  # fmt: skip
        own = {"normalize": normalize, "variant": variant}
        super().__init__(params, own, lr, betas, eps, weight_decay, decoupled, foreach=foreach, fused=fused)


class AvaGradW(AvaGrad):
    """:class:`AvaGrad` with decoupled weight decay, 0.01 by default as in ``torch.optim.AdamW``; other options as there."""

    def __init__(self, params: ParamsT, lr: Number = 0.1, betas: Betas = (0.9, 0.999), eps: float = 0.1,
                 weight_decay: float = 0.01, **options: Any) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, decoupled=True, **options)


class DelayedAdam(_Delayed):
    r"""Delayed Adam, Algorithm 6: AvaGrad without the normalisation, which suffices for Theorem 6.3.

    .. math::
       \begin{aligned}
            &m_t \leftarrow \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, &&\eta_t \leftarrow 1 / (\sqrt{v_{t-1}} + \epsilon), \\
            &w_{t+1} \leftarrow w_t - \alpha\, \eta_t \odot m_t, &&v_t \leftarrow \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2
       \end{aligned}

    No bias correction, and :math:`v_0 = 0`: the first step is SGD's at the rate ``lr / eps``, 0.1 by default; with Adam's usual
    eps of 1e-8 it would be enormous. Options (weight_decay, decoupled, foreach, fused) and errors as for :class:`AvaGrad`.
    """

    def __init__(self, params: ParamsT, lr: Number = 0.01, betas: Betas = (0.9, 0.999), eps: float = 0.1,
                 **options: Any) -> None:  # fmt: skip
        super().__init__(params, {"normalize": None, "variant": "delayed"}, lr, betas, eps, **options)


class DynamicAdam(_Delayed):
    r"""Adam whose :math:`\epsilon_t` grows, :math:`\epsilon_t = \epsilon\, t^p`, which makes it converge like SGD (Theorem 6.2).

    .. math::
       \begin{aligned}
            &m_t \leftarrow \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, &&v_t \leftarrow \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2, \\
            &\epsilon_t \leftarrow \epsilon\, t^p,\ \alpha_t \leftarrow \alpha\, \epsilon_t,
                &&w_{t+1} \leftarrow w_t - \alpha_t\, m_t / (\sqrt{v_t} + \epsilon_t)
       \end{aligned}

    Args:
        params, betas, weight_decay: as for :class:`AvaGrad`; no bias correction, as in (6.5) and (6.7).
        lr: :math:`\alpha`, above 0. 0.1: since :math:`\alpha_t \propto \epsilon_t`, it is the rate of the SGD that the method tends
            to (6.8). Corollary 6.1 gets its rate with ``lr`` of the order :math:`1/\sqrt{T}`.
        eps, power: :math:`\epsilon` above 0 and :math:`p`, 0 or above. 1 and 0.5: :math:`\sqrt{t}`, which needs neither T nor the
            problem's constants. Also in the corollary: :math:`\sqrt{T}` is ``eps=T**0.5, power=0``, :math:`\sqrt[4]{Tt}` is
            ``eps=T**0.25, power=0.25``. Figure 6.7 has ``power=1.5``.
        scale_lr: False leaves :math:`\alpha_t = \alpha`; a small constant rate then dies out as :math:`\epsilon_t` grows.
    """

    def __init__(self, params: ParamsT, lr: Number = 0.1, betas: Betas = (0.9, 0.999), eps: float = 1.0,
                 power: float = 0.5, scale_lr: bool = True, weight_decay: float = 0) -> None:  # fmt: skip
        own = {"normalize": None, "variant": "dynamic", "foreach": False, "power": power, "scale_lr": scale_lr}
        super().__init__(params, own, lr, betas, eps, weight_decay, fused=False)

    def _update(self, b: _Batch) -> None:
        group, (beta1, beta2), l2 = b.group, b.group["betas"], b.group["weight_decay"]
        for p, g, m, v, state in zip(b.params, b.grads, b.ms, b.vs, b.states, strict=True):
            eps = group["eps"] * state["step"].add_(1).double() ** group["power"]
            alpha = group["lr"] * eps if group["scale_lr"] else group["lr"]
            if l2 != 0:
                g = g.add(p, alpha=l2)
            m.lerp_(g, 1 - beta1)  # (6.5)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # (6.7)
            p.addcdiv_(m * alpha, v.sqrt().add_(eps), value=-1)  # (6.4) with (6.6), eps_t for eps
