"""The optimizers of Tables 6.1 and 6.2 by the names that the tables give them: ``build("AdaBelief", net.parameters(),
lr=1e-3)``.

This book's are its own, torch's are torch's; AdaBound, AdaShift, AdaBelief, Yogi and PAdam come from
``pytorch_optimizer``, set to what their papers write. Tests hold each against its paper's update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from lab.utils.errors import LabError
from principled import AvaGrad, AvaGradW


@dataclass(frozen=True)
class Choice:
    """One optimizer: how to make it, the rates its paper starts from, and whether it has an epsilon."""

    make: Callable[..., Optimizer]
    lr: float
    eps: float | None
    options: dict[str, Any] = field(default_factory=dict)


def _package(name: str) -> Callable[..., Optimizer]:
    def make(params: ParamsT, **options: Any) -> Optimizer:
        import pytorch_optimizer  # here, because its import takes longer than all of ours

        return getattr(pytorch_optimizer, name)(params, **options)

    return make


def _ada_shift(params: ParamsT, *, weight_decay: float, **options: Any) -> Optimizer:
    from .adashift import AdaShift

    return AdaShift(params, weight_decay=weight_decay, **options)


# pytorch_optimizer decays weights decoupled unless told otherwise; the thesis decouples in AdamW and AvaGradW alone.
COUPLED = {"weight_decouple": False}
CHOICES = {
    "SGD": Choice(torch.optim.SGD, 0.1, None, {"momentum": 0.9, "nesterov": True}),
    "Adam": Choice(torch.optim.Adam, 1e-3, 1e-8),
    "AMSGrad": Choice(torch.optim.Adam, 1e-3, 1e-8, {"amsgrad": True}),
    "AdaBound": Choice(_package("AdaBound"), 1e-3, 1e-8, COUPLED),
    "AdaShift": Choice(_ada_shift, 1e-3, 1e-8),
    "RAdam": Choice(torch.optim.RAdam, 1e-3, 1e-8),
    "AdaBelief": Choice(_package("AdaBelief"), 1e-3, 1e-16, COUPLED | {"rectify": False}),
    "AdamW": Choice(torch.optim.AdamW, 1e-3, 1e-8),
    "AvaGrad": Choice(AvaGrad, 0.1, 0.1),
    "AvaGradW": Choice(AvaGradW, 0.1, 0.1),
    "Yogi": Choice(_package("Yogi"), 1e-2, 1e-3, COUPLED),
    "PAdam": Choice(_package("PAdam"), 1e-1, 1e-8, COUPLED),
}
"""In the tables' order, then two that only Section 6.1.2 mentions."""

TABLE = tuple(CHOICES)[:10]
"""Those with a row in Tables 6.1 and 6.2."""


def build(
    name: str,
    params: ParamsT,
    lr: float | None = None,
    eps: float | None = None,
    weight_decay: float = 0.0,
    clip: float | None = None,
    **options: Any,
) -> Optimizer:
    """An optimizer by the name that Tables 6.1 and 6.2 give it.

    Args:
        name: one of :data:`CHOICES`.
        params: parameters, or groups of them.
        lr: learning rate alpha; default its paper's, or its library's.
        eps: epsilon; default likewise. SGD has none and refuses one.
        weight_decay: coupled (added to the gradient) except in AdamW and AvaGradW, which decouple it; default none.
        clip: largest norm of the whole gradient; a longer one is scaled down before the step. Default: none.
        options: passed on, over the choice's own.

    Raises:
        LabError: an unknown name, or an epsilon for SGD.
    """
    if name not in CHOICES:
        raise LabError(f"unknown optimizer {name!r}: choose one of {', '.join(CHOICES)}")
    choice = CHOICES[name]
    if eps is not None and choice.eps is None:
        raise LabError(f"{name} has no epsilon: leave eps out")
    values: dict[str, Any] = {"lr": choice.lr if lr is None else lr, "weight_decay": weight_decay}
    if choice.eps is not None:
        values["eps"] = choice.eps if eps is None else eps
    optimizer = choice.make(params, **values | choice.options | options)
    if clip is not None:
        optimizer.register_step_pre_hook(lambda own, args, kwargs: _clip(own, clip))
    return optimizer


def _clip(optimizer: Optimizer, norm: float) -> None:
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)
