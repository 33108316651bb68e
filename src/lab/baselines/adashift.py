"""AdaShift (Zhou et al., 2019) with what pytorch_optimizer's lacks: weight decay, and a state that can be loaded."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytorch_optimizer
import torch
from torch.optim.optimizer import ParamsT


class AdaShift(pytorch_optimizer.AdaShift):
    """pytorch_optimizer's, whose update is the paper's with the largest square of each tensor.

    Args:
        params, options: as there; by default ten gradients are kept and eps is 1e-10.
        weight_decay: coupled: added to the gradient.

    pytorch_optimizer's queue of gradients forgets its length when a state_dict is loaded; here it does not.
    """

    def __init__(self, params: ParamsT, weight_decay: float = 0.0, **options: Any) -> None:
        super().__init__(params, weight_decay=weight_decay, **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As in torch: a state that lacks the decay gets the default."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("weight_decay", self.defaults.get("weight_decay", 0.0))

    def step(self, closure: Any = None) -> Any:
        """One step. ``closure``, if given, recomputes the loss with gradients and its value is returned."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        sign = -1 if self.maximize else 1
        for group in self.param_groups:
            if group["weight_decay"]:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.add_(p.detach(), alpha=sign * group["weight_decay"])
        super().step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """As in torch, with lists for queues."""
        whole = super().state_dict()
        state = {}
        for key, kept in whole["state"].items():
            state[key] = {name: list(v) if isinstance(v, deque) else v for name, v in kept.items()}
        return whole | {"state": state}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for p in group["params"]:
                if "grad_queue" in (state := self.state.get(p, {})):
                    state["grad_queue"] = deque(state["grad_queue"], maxlen=group["keep_num"])
