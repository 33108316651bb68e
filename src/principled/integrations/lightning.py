"""A relaxed network under Lightning: ``Trainer(callbacks=[ScheduleCallback(lam=1e-8)])``."""

from __future__ import annotations

from typing import Any

from . import Driver

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise ImportError("principled.integrations.lightning needs Lightning: pip install lightning") from None


class ScheduleCallback(Driver, Callback):
    """Anneals, prices, clips and hardens the relaxed network that a ``LightningModule`` holds.

    The penalty's gradient is added before each optimizer's step, after its unscaling and before any clipping, so
    ``training_step`` returns the plain loss and what it logs stays comparable. At the end of each epoch ``zeros`` and
    ``bits`` are logged; at the end of training :attr:`hardened` is the plain network. It goes on from a checkpoint.

    Args:
        lam, final: as for :class:`principled.Schedule`.

    Raises:
        ValueError: no relaxed network, or training without an end (``max_epochs=-1`` and no ``max_steps``).
        RuntimeError: a manual optimization that steps raw optimizers, past Lightning's events.
    """

    _reached: dict[str, Any] | None = None
    _steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the schedule, as long as the trainer's."""
        schedule = self.begin(pl_module, trainer.estimated_stepping_batches, *trainer.optimizers)
        if self._reached is not None:
            schedule.load_state_dict(self._reached)
            self._reached = None
        self._steps = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Add the penalty's gradient to the variables of this optimizer."""
        stepped = (p for group in optimizer.param_groups for p in group["params"])
        self.running("an optimizer's step").add_gradients(stepped)
        self._priced = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *outputs: Any) -> None:
        """Take the schedule's step, if the batch ended in one."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self.took_step("on_before_optimizer_step")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log zeros and bits."""
        pl_module.log_dict(self.running("an epoch's end").figures())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Harden."""
        self.end()

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints: the steps taken."""
        return {} if self.schedule is None else self.schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them until training starts."""
        self._reached = state_dict or None
