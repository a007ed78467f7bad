"""Callback that ends a phase when it has used its part of the run's time limit."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback

from tandem.on_torch.log_epochs import LogEpochs
from tandem.tracking.time_limit import PhaseTimeLimit


class TimeLimit(Callback):
    """Ends the phase after a step, or at the end of an epoch; an epoch that it cuts short is validated and logged.

    It goes after LogEpochs and the early stopping. Lightning's Timer starts anew with each Trainer, and does not
    validate an epoch that it cuts short.
    """

    def __init__(self, limit: PhaseTimeLimit, log_epochs: LogEpochs) -> None:
        self.limit = limit
        self.log_epochs = log_epochs

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        ends_step = (index + 1) % trainer.accumulate_grad_batches == 0
        if self.limit.is_set and ends_step and index + 1 < trainer.num_training_batches:  # else the epoch ends first
            self._end_if(trainer, self.limit.is_over(time.perf_counter() - self.log_epochs.start))

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if self.limit.is_set and not is_last:
            self._end_if(trainer, self.limit.is_over())

    def _end_if(self, trainer: lightning.Trainer, is_over: bool) -> None:
        # the clocks of several processes differ, and all have to take the same steps
        if trainer.strategy.reduce_boolean_decision(is_over, all=False):
            trainer.should_stop = True
            self.limit.end_phase()
