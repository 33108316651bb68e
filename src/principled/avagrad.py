r"""AvaGrad (Chapter 6): Adam's second moment one step late, and normalised.

Algorithm 7 divides the parameter-wise rates :math:`\eta_t = 1/(\sqrt{v_{t-1}} + \epsilon)` by their root mean square,
so that the learning rate alone says how far a step goes, and :math:`\epsilon` alone how adaptive it is. Because
:math:`\eta_t` comes from the *previous* second moment, the norm that the next step divides by is summed while this step
writes ``v``: one pass is enough.

The forms of that pass, which agree to rounding, are in :mod:`principled.avagrad_forms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from . import avagrad_forms as forms

Number = float | Tensor
Betas = tuple[float, float]
AUTO_FUSED = 10_000_000
"""Entries of a group from which on fused=None compiles on a CPU: half a minute that a thousand steps win back."""
SMALL = 16_384  # entries of a tensor, on average of a group; from here on tensors stay in a CPU's cache one by one


class _Delayed(Optimizer):
    # What the optimizers of this chapter share: checks, state, batches, the step.
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __init__(self, params: ParamsT, own: dict[str, Any], lr: Number, betas: Betas, eps: float,
                 weight_decay: float = 0, decoupled: bool = False, *,
                 foreach: bool | None = None, fused: bool | None = None, maximize: bool = False,
                 capturable: bool = True, differentiable: bool = False) -> None:  # fmt: skip
        self._vectors: dict[Any, forms.Vectors] = {}
        common = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        kinds = {"maximize": maximize, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, common | {"foreach": foreach, "fused": fused} | kinds | own)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also what loading and unpickling end with: options that an older state lacks get their defaults, and the
        vectors of the flat form are made anew."""
        super().__setstate__(state)
        newer = {"foreach": None, "fused": None, "maximize": False, "capturable": True, "differentiable": False}
        for group in self.param_groups:
            for key, value in (newer | self.defaults).items():
                group.setdefault(key, value)
            for p in group["params"]:
                if "step" in (own := self.state.get(p, {})):
                    own["step"] = torch.as_tensor(own["step"], dtype=torch.float32, device=p.device)
        self._vectors = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a group's own options are checked too, and a group that fails is not added."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            group["betas"] = tuple(float(beta) for beta in group["betas"])
            self._check(group)
        except ValueError:
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        name, betas, power = type(self).__name__, group["betas"], group.get("power", 0)
        if isinstance(group["lr"], Tensor) and group["lr"].numel() != 1:
            raise ValueError(f"{name}: lr must be one number, not a tensor of shape {tuple(group['lr'].shape)}")
        lr, eps, decay = float(group["lr"]), group["eps"], group["weight_decay"]
        variant, normalize = group["variant"], group["normalize"]
        forms = group["foreach"], group["fused"], group["differentiable"]
        plain = normalize == "group" and not any(forms)
        for key, value, rule, good in (
            ("lr", lr, "above 0", 0 < lr < math.inf),
            ("eps", eps, "above 0", 0 < eps < math.inf),
            ("betas", betas, "two numbers in [0, 1)", len(betas) == 2 and all(0 <= beta < 1 for beta in betas)),
            ("weight_decay", decay, "0 or above", 0 <= decay < math.inf),
            ("power", power, "0 or above", 0 <= power < math.inf),  # DynamicAdam's: eps_t must not shrink
            ("foreach, fused, differentiable", forms, "at most one of them True", sum(map(bool, forms)) < 2),
            *((key, group[key], f"one of {known}", group[key] in known) for key, known in self._choices.items()),
            (
                "variant",
                variant,
                "'thesis' with this normalize, foreach, fused, differentiable",
                variant != "reference" or plain,
            ),
        ):
            if not good:
                raise ValueError(f"{name}: {key} must be {rule}, not {value!r}")
        eta = 1 / eps if normalize is not None else 0.0  # of an entry that has seen no gradient
        for p in group["params"]:
            if not p.is_floating_point():
                raise ValueError(f"{name}: parameters must be real, not {p.dtype}; pass torch.view_as_real(w)")
            if eta * eta > min(torch.finfo(p.dtype).max, 3e38 / max(1, p.numel())):  # the sum is a float32 at least
                raise ValueError(f"{name}: eps={eps} is too small for {p.dtype}: 1/eps^2 overflows; raise eps")

    def _gather(self, group: dict[str, Any]) -> list[forms.Batch]:
        variant, normalize, eps = group["variant"], group["normalize"], group["eps"]
        if variant == "thesis" and group.setdefault("eta_eps", eps) != eps:  # eps was changed by hand: sum anew
            for p in group["params"]:
                self.state.get(p, {}).pop("eta_sq", None)
            group["eta_eps"] = eps
        batches: dict[tuple[torch.device, torch.dtype], forms.Batch] = {}
        for p in group["params"]:
            g = p.grad
            if g is None:
                continue
            if g.layout != torch.strided:
                raise RuntimeError(f"{type(self).__name__}: no sparse gradients; build the layer with sparse=False")
            b = batches.get(key := (p.device, p.dtype)) or batches.setdefault(key, forms.Batch(group))
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
        for key, b in batches.items():
            if group["maximize"]:
                b.grads = list(torch._foreach_neg(b.grads))
            b.form = self._form(b)
            b.ms, b.vs = [state["exp_avg"] for state in b.states], [state["exp_avg_sq"] for state in b.states]
            if b.form.startswith("flat"):
                b.vectors = self._vectors.get((id(group), key))
                if b.vectors is None or not b.vectors.hold(b):
                    b.vectors = self._vectors[id(group), key] = forms.Vectors.of(b)
            if b.form == "multi" or b.vectors is not None:
                (forms.multi_etas if b.vectors is None else forms.flat_etas)(b)
                for state in b.states:  # another form must not find it outdated
                    state.pop("eta_sq", None)
            elif normalize is not None:
                for v, state in zip(b.vs, b.states, strict=True):
                    if "eta_sq" not in state:
                        state["eta_sq"] = forms.scalar(0.0, v).reshape(1)
                        if variant != "reference":
                            forms.sum_eta_sq(v.sqrt(), eps, state["eta_sq"])
                b.eta_sqs = [state["eta_sq"] for state in b.states]
        return list(batches.values())

    def _form(self, b: forms.Batch) -> str:
        fused, foreach, cpu = b.group["fused"], b.group["foreach"], b.params[0].is_cpu
        small = b.size < SMALL * len(b.params)
        complete = len(b.params) == len(
            b.group["params"]
        )  # else another set of them would mean to compile or move again
        if b.group["differentiable"]:
            return "differentiable"
        if b.group["variant"] == "reference":
            return "reference"
        if torch.compiler.is_compiling():
            fused = False
        elif cpu and foreach is None and small and complete and b.group["normalize"] != "tensor":
            return "flat fused" if fused else "flat"
        elif fused is None and foreach is None and cpu and not forms.unavailable:
            fused = b.size >= AUTO_FUSED and complete
        if fused:
            return "fused"
        return "multi" if (small or not cpu if foreach is None else foreach) else "single"

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. ``closure``, if given, recomputes the loss with gradients and its value is returned."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        refusing = not all(group["capturable"] for group in self.param_groups)
        if refusing and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{type(self).__name__}: a CUDA graph is being captured, and a group says capturable=False: "
                "leave it out, every form can be captured"
            )
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            self._step()
        return loss

    def _step(self) -> None:
        batches = [b for group in self.param_groups for b in self._gather(group)]
        pools: dict[Any, list[forms.Batch]] = {}  # what is normalised together
        for b in batches:
            if b.eta_sqs:
                pools.setdefault("global" if b.group["normalize"] == "global" else id(b.group), []).append(b)
        for pool in pools.values():
            parts = [b.eta_sqs[0] if len(b.eta_sqs) == 1 else torch.stack(b.eta_sqs).sum() for b in pool]
            sums = [part.to(pool[0].params[0].device) for part in parts]
            mean = sum(sums[1:], sums[0]) / max(1, sum(b.size for b in pool))
            for b in pool:
                b.mean = mean
        for b in batches:
            self._update(b)

    def _update(self, b: forms.Batch) -> None:
        group, p, lr, decay = b.group, b.params[0], b.group["lr"], b.group["weight_decay"]
        # On the CPU a number is the cheapest scale; elsewhere, or for a rate in a tensor, a 0-d tensor spares reading
        # it.
        apart = not p.is_cpu or isinstance(lr, Tensor) or group["differentiable"] or torch.compiler.is_compiling()
        number = partial(forms.scalar, p=p) if apart else float
        if b.mean is None:  # Algorithm 6: nothing to normalise by
            b.scales = [number(lr)]
        elif group["normalize"] == "tensor":
            b.scales = [number(lr * (q.numel() / eta_sq).sqrt()) for q, eta_sq in zip(b.params, b.eta_sqs, strict=True)]
        else:
            b.scales = [number(lr * b.mean.rsqrt())]
        b.l2 = 0.0 if group["decoupled"] else decay
        if group["decoupled"] and decay != 0:
            b.keep = number(1 - lr * decay)
        if b.form == "differentiable":
            forms.differentiable(b)
        elif b.form == "reference":
            forms.reference(b)
        elif b.form == "multi":
            forms.multi_tensor(b)
        elif b.vectors is not None:
            forms.flat(b)
        elif b.form != "fused" or not forms.fused(b):
            forms.single_tensor(b)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch. Raises ValueError if the state is another optimizer's, or another variant's."""
        for ours, theirs in zip(self.param_groups, state_dict["param_groups"], strict=False):
            for key in ("variant", "decoupled"):
                if (value := theirs.get(key)) != ours[key]:
                    raise ValueError(
                        f"this optimizer has {key}={ours[key]!r}, the state_dict {value!r}: build it alike"
                    )
        super().load_state_dict(state_dict)
        params, numbers = ([p for g in x for p in g["params"]] for x in (self.param_groups, state_dict["param_groups"]))
        for p, number in zip(params, numbers, strict=True):
            if "eta_sq" in (saved := state_dict["state"].get(number, {})):  # torch has cast it to the parameter's dtype
                self.state[p]["eta_sq"] = forms.scalar(saved["eta_sq"], p).reshape(1).clone()


class AvaGrad(_Delayed):
    r"""AvaGrad, Algorithm 7.

    .. math::
       \begin{aligned}
            &\rule{110mm}{0.4pt} \\
            &\textbf{input}: \alpha \text{ (lr)},\ \beta_1, \beta_2 \text{ (betas)},\ \epsilon \text{ (eps)},\
                \lambda \text{ (weight decay)},\ w_1 \in \mathbb{R}^d;
                \quad m_0, v_0 \leftarrow 0,\ n_1 \leftarrow d / \epsilon^2 \\
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
        lr: learning rate, above 0, number or 0-d tensor. 0.1: the rates' root mean square is 1, so a step is as long as
            SGD's with averaged momentum (6.5). ``torch.optim.SGD`` adds gradients up: its 0.1 at momentum 0.9 is
            ``lr=1`` here.
        betas: decay of the first and second moment, each in [0, 1). (0.9, 0.999), the thesis's and Adam's.
        eps: the larger, the closer to SGD; above 0. 0.1 suits image models, the thesis's language models wanted 1e-8.
            Tune lr first, then eps: they hardly interact. Added to the root, as in (6.6); Algorithms 6 and 7 print it
            under the root.
        weight_decay, decoupled: factor of the l2 penalty, 0 for none; True shrinks weights by ``1 - lr * weight_decay``
        instead. normalize: what :math:`\|\eta\|` runs over, among tensors with a gradient in this step. ``"group"``:
        each group by itself,
            so that adding a group never changes another's steps, as in the public code. ``"global"``: all groups
            together, Algorithm 7 to the letter. ``"tensor"``: each tensor by itself, not in the thesis; dead
            coordinates slow only their own.
        variant: ``"thesis"``, or ``"reference"``, the author's public code: bias-corrected moments, a norm one step
            older than the rates, a first step that moves nothing. It is there to compare with, and runs uncompiled.
        foreach: True: one call for all tensors, False: tensor by tensor. None: the fastest, which on a CPU is neither
            for a group of small tensors but vectors that hold them all; on accelerators always True.
        fused: one compiled pass. The first step takes about half a minute, as does one with gradients on other tensors.
            True: always; ValueError where torch.compile does not work. None: on CPU, for groups of ten million entries
            or more that all have gradients; where compiling fails, one warning and the uncompiled form.
        maximize, differentiable: as in ``torch.optim.Adam``, False by default: climb instead of descend; let autograd
            follow the step, tensor by tensor (where a gradient is exactly 0 its derivative may be NaN, as there).
        capturable: True by default, since no form reads a number back from the device; with False a step that a CUDA
            graph would capture is refused (RuntimeError), as there.

    State of a parameter: ``exp_avg``, ``exp_avg_sq`` and at most one number, ``eta_sq``; Adam's size. On a CPU the
    moments of a group of small tensors are views of two vectors, and two more of that size are there to work in. No
    form waits for the host: after one step to warm up, steps can be captured in a CUDA graph (make ``lr`` a tensor on
    the device to change it later). The first step is SGD's, since all rates are equal while ``v`` is 0.

    * *Dead coordinates*: an entry that never has a gradient keeps :math:`\eta = 1/\epsilon`. When eps is tiny, such
      entries (unused embeddings, masked weights) make up :math:`\|\eta\|` and the rest freezes: raise eps or leave them
      out.
    * *NaN and infinite gradients* poison, as in torch.optim: an entry that got one is not finite afterwards, and a NaN
      makes every parameter under the norm NaN one step later. ``clip_grad_norm_(..., error_if_nonfinite=True)`` stops
      before.
    * *ValueError*: number out of range, unknown option, eps too small for the dtype, complex parameters, a
      ``state_dict`` of another variant. *RuntimeError*: a sparse gradient.
    """

    _choices: ClassVar = {"normalize": ("group", "global", "tensor"), "variant": ("thesis", "reference")}

    def __init__(self, params: ParamsT, lr: Number = 0.1, betas: Betas = (0.9, 0.999), eps: float = 0.1,
                 weight_decay: float = 0, decoupled: bool = False,
                 normalize: Literal["group", "global", "tensor"] = "group",
                 variant: Literal["thesis", "reference"] = "thesis", *,
                 foreach: bool | None = None, fused: bool | None = None, **options: bool) -> None:  # fmt: skip
        own = {"normalize": normalize, "variant": variant}
        super().__init__(params, own, lr, betas, eps, weight_decay, decoupled, foreach=foreach, fused=fused, **options)


class AvaGradW(AvaGrad):
    """:class:`AvaGrad` with decoupled weight decay, 0.01 by default as in ``torch.optim.AdamW``; other options as
    there.
    """

    def __init__(self, params: ParamsT, lr: Number = 0.1, betas: Betas = (0.9, 0.999), eps: float = 0.1,
                 weight_decay: float = 0.01, **options: Any) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, decoupled=True, **options)


class DelayedAdam(_Delayed):
    r"""Delayed Adam, Algorithm 6: AvaGrad without the normalisation, which suffices for Theorem 6.3.

    .. math::
       \begin{aligned}
            &m_t \leftarrow \beta_1 m_{t-1} + (1 - \beta_1)\, g_t,
                &&\eta_t \leftarrow 1 / (\sqrt{v_{t-1}} + \epsilon), \\
            &w_{t+1} \leftarrow w_t - \alpha\, \eta_t \odot m_t,
                &&v_t \leftarrow \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2
       \end{aligned}

    No bias correction, and :math:`v_0 = 0`: the first step is SGD's at the rate ``lr / eps``, 0.1 by default; with
    Adam's usual eps of 1e-8 it would be enormous. Options (weight_decay, decoupled, foreach, fused, maximize ...) and
    errors as for :class:`AvaGrad`.
    """

    def __init__(self, params: ParamsT, lr: Number = 0.01, betas: Betas = (0.9, 0.999), eps: float = 0.1,
                 **options: Any) -> None:  # fmt: skip
        super().__init__(params, {"normalize": None, "variant": "delayed"}, lr, betas, eps, **options)


class DynamicAdam(_Delayed):
    r"""Adam whose :math:`\epsilon_t` grows, :math:`\epsilon_t = \epsilon\, t^p`, which makes it converge like SGD
    (Theorem 6.2).

    .. math::
       \begin{aligned}
            &m_t \leftarrow \beta_1 m_{t-1} + (1 - \beta_1)\, g_t,
                &&v_t \leftarrow \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2, \\
            &\epsilon_t \leftarrow \epsilon\, t^p,\ \alpha_t \leftarrow \alpha\, \epsilon_t,
                &&w_{t+1} \leftarrow w_t - \alpha_t\, m_t / (\sqrt{v_t} + \epsilon_t)
       \end{aligned}

    Args:
        params, betas, weight_decay, options (maximize ...): as for :class:`AvaGrad`; no bias correction, as in (6.5)
        and (6.7). lr: :math:`\alpha`, above 0. 0.1: since :math:`\alpha_t \propto \epsilon_t`, it is the rate of the
        SGD that the method tends
            to (6.8). Corollary 6.1 gets its rate with ``lr`` of the order :math:`1/\sqrt{T}`.
        eps, power: :math:`\epsilon` above 0 and :math:`p`, 0 or above. 1 and 0.5: :math:`\sqrt{t}`, which needs neither
            T nor the problem's constants. Also in the corollary: :math:`\sqrt{T}` is ``eps=T**0.5, power=0``,
            :math:`\sqrt[4]{Tt}` is ``eps=T**0.25, power=0.25``. Figure 6.7 has ``power=1.5``.
        scale_lr: False leaves :math:`\alpha_t = \alpha`; a small constant rate then dies out as :math:`\epsilon_t`
            grows.
    """

    def __init__(self, params: ParamsT, lr: Number = 0.1, betas: Betas = (0.9, 0.999), eps: float = 1.0,
                 power: float = 0.5, scale_lr: bool = True, weight_decay: float = 0,
                 **options: bool) -> None:  # fmt: skip
        own = {"normalize": None, "variant": "dynamic", "power": power, "scale_lr": scale_lr}
        super().__init__(params, own, lr, betas, eps, weight_decay, foreach=False, fused=False, **options)

    def _update(self, b: forms.Batch) -> None:
        group, (beta1, beta2), l2 = b.group, b.group["betas"], b.group["weight_decay"]
        for p, g, m, v, state in zip(b.params, b.grads, b.ms, b.vs, b.states, strict=True):
            eps = group["eps"] * state["step"].add_(1).double() ** group["power"]
            alpha = group["lr"] * eps if group["scale_lr"] else group["lr"]
            if l2 != 0:
                g = g.add(p, alpha=l2)
            m.lerp_(g, 1 - beta1)  # (6.5)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)  # (6.7)
            if group["differentiable"]:  # m changes in the next step, before backward
                m = m.clone()
            p.addcdiv_(m * alpha, v.sqrt().add(eps).to(v.dtype), value=-1)  # (6.4) with (6.6), eps_t for eps
