"""Callback that ends a phase when it has used its part of the run's time limit."""

from __future__ import annotations

import time

from keras.callbacks import Callback

from tandem.on_keras.feed import StreamLoader
from tandem.on_keras.log_epochs import LogEpochs
from tandem.tracking.time_limit import PhaseTimeLimit


class TimeLimit(Callback):
    """Ends the phase after a step, or at the end of an epoch; an epoch that it cuts short is validated and logged.

    It goes after LogEpochs and the early stopping.
    """

    def __init__(self, limit: PhaseTimeLimit, log_epochs: LogEpochs, loader: StreamLoader, max_epochs: int) -> None:
        super().__init__()
        self.limit = limit
        self.log_epochs = log_epochs
        self.loader = loader
        self.max_epochs = max_epochs

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        ends_step = (batch + 1) % (self.model.optimizer.gradient_accumulation_steps or 1) == 0
        if ends_step and batch + 1 < len(self.loader):  # else the epoch ends first
            self._end_if(self.limit.is_over(time.perf_counter() - self.log_epochs.start))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if not self.model.stop_training and epoch + 1 < self.max_epochs:
            self._end_if(self.limit.is_over())

    def _end_if(self, is_over: bool) -> None:
        if is_over:
            self.model.stop_training = True
            self.limit.end_phase()
