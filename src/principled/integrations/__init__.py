"""A relaxed network inside other people's training loops: a callback for Lightning (``integrations.lightning``) and one
for the Trainer of Hugging Face (``integrations.transformers``), both thin forms of :class:`principled.Schedule`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..relax import Relaxed
from ..schedule import Schedule


def relaxed_in(model: nn.Module) -> Relaxed:
    """The relaxed network that ``model`` is or holds; ``ValueError`` if there is none, or more than one."""
    networks = [module for module in model.modules() if isinstance(module, Relaxed)]
    outermost = [net for net in networks if not any(net is not other and net in other.modules() for other in networks)]
    if len(outermost) != 1:
        raise ValueError(
            f"{type(model).__name__} holds {len(outermost)} relaxed networks and the callback drives one: "
            "make its network Relaxed(net, ContinuousMask()), and drive several with a Schedule each"
        )
    return outermost[0]


class Driver:
    """What both callbacks are: the options of a :class:`principled.Schedule`, and what came of them.

    Args:
        lam, final: as for :class:`principled.Schedule`; the number of steps is the trainer's.

    Attributes:
        schedule: from the start of training on.
        hardened: the plain network with the discrete weights, from the end of training on.
    """

    def __init__(self, lam: float | tuple[float, ...] = 0.0, final: float = 200.0) -> None:
        super().__init__()
        self.lam, self.final = lam, final
        self.schedule: Schedule | None = None
        self.hardened: nn.Module | None = None
        self._priced = False  # whether a penalty came between two steps

    def begin(self, model: nn.Module, steps: float, *optimizers: Any) -> Schedule:
        """Make the schedule for a training of ``steps`` steps."""
        self.hardened, self._priced = None, False
        self.schedule = Schedule(relaxed_in(model), steps, self.lam, self.final)
        self.schedule.check(*optimizers)
        return self.schedule

    def running(self, event: str) -> Schedule:
        """The schedule; ``RuntimeError`` if training was never said to begin."""
        if self.schedule is None:
            raise RuntimeError(
                f"{type(self).__name__} heard of {event} and never of the start of training: the trainer's loop skips "
                "events; let it call them all, or call a principled.Schedule in it"
            )
        return self.schedule

    def took_step(self, before: str) -> None:
        """Move on by a step; ``RuntimeError`` if the trainer skipped the event ``before`` it: no penalty would act."""
        schedule = self.running("a step")
        if not self._priced:
            raise RuntimeError(
                f"the trainer took a step without calling {before}, so the penalty does not act: the trainer's loop "
                f"skips events; let it call {before} before optimizer.step(), or call a principled.Schedule in it"
            )
        self._priced = False
        schedule.step()

    def end(self) -> None:
        """Harden; ``RuntimeError`` if no step was ever heard of."""
        schedule = self.running("the end of training")
        if not schedule.taken:
            raise RuntimeError(
                f"{type(self).__name__} heard of no step until the end of training: the trainer's loop skips events; "
                "let it call them all, or call a principled.Schedule in it"
            )
        self.hardened = schedule.harden()
