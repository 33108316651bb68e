"""A relaxed network under Hugging Face's Trainer: ``Trainer(model=net, callbacks=[ScheduleCallback(lam=1e-8)])``."""

from __future__ import annotations

from typing import Any

from . import Driver

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError:
    raise ImportError("principled.integrations.transformers needs transformers: pip install transformers") from None


class ScheduleCallback(Driver, TrainerCallback):
    """Anneals, prices, clips and hardens the relaxed network that a ``Trainer`` trains.

    The penalty's gradient is added before each optimizer's step, after clipping, so the loss that is logged stays
    comparable, however many batches a step accumulates. ``zeros`` and ``bits`` join what is logged, in
    ``state.log_history`` and for the callbacks that come later; at the end :attr:`hardened` is the plain network. It
    goes on from a checkpoint.

    The Trainer's own optimizer gives a mask's ``s`` the weights' rate, at which it hardly moves: pass ``optimizers=``
    with the groups of :func:`principled.decay_groups`, the second at a higher rate.

    Args:
        lam, final: as for :class:`principled.Schedule`.

    Raises:
        ValueError: no relaxed network; DeepSpeed, or float16 without clipping, where gradients are not to be had.
        RuntimeError: a Trainer whose loop skips an event that the callback lives by.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the schedule, as long as the Trainer's, from where the Trainer begins."""
        if args.deepspeed or (args.fp16 and not args.max_grad_norm):
            what = "DeepSpeed" if args.deepspeed else "fp16 with max_grad_norm=0"
            raise ValueError(
                f"{what} keeps gradients scaled or apart, and the callback adds to them: add "
                "Schedule.penalty() to the loss in compute_loss instead"
            )
        schedule = self.begin(kwargs["model"], state.max_steps, kwargs["optimizer"])
        schedule.load_state_dict({"taken": state.global_step, "steps": state.max_steps})

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the penalty's gradient."""
        self.running("on_pre_optimizer_step").add_gradients()
        self._priced = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the schedule's step."""
        self.took_step("on_pre_optimizer_step")

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Let zeros and bits join a training's log."""
        if self.schedule is not None and self.hardened is None:
            kwargs["logs"].update(figures := self.schedule.figures())
            state.log_history[-1].update(figures)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Harden."""
        self.end()
