"""Callback that writes a phase's checkpoints, and continues an interrupted phase from one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from keras.callbacks import Callback, ReduceLROnPlateau

from tandem import interrupts
from tandem.errors import TrainingDiverged
from tandem.on_keras.backends import random_state, restore_random_state
from tandem.on_keras.early_stopping import EarlyStoppingWithBestWeights
from tandem.on_keras.feed import StreamLoader
from tandem.on_keras.log_epochs import LogEpochs
from tandem.on_keras.weights import assign, values_of
from tandem.tracking.checkpoints import PhaseCheckpoints

PLATEAU_STATE = ("wait", "best", "cooldown_counter")


class KeepCheckpoints(Callback):
    """Writes a checkpoint at the start of each epoch and, where one is due, between two steps.

    It goes after CountEpochs, and before LogEpochs and the callbacks whose state it restores. A continued phase is
    equal to the last bit to one without an interruption, wherever two of these are equal.

    Keras's BackupAndRestore does not save the state of callbacks, such as the best weights so far, nor the sums of an
    epoch under way, and continues at the start of an epoch.

    It ends a training whose loss is not finite any more, and puts the weights of the last checkpoint in place.
    """

    def __init__(
        self,
        checkpoints: PhaseCheckpoints,
        loader: StreamLoader,
        log_epochs: LogEpochs,
        schedule: Sequence[Callback],
        early_stopping: EarlyStoppingWithBestWeights,
    ) -> None:
        """
        Args:
            checkpoints: The phase's.
            loader: Its training batches; a loader of features is continued at whole epochs only.
            log_epochs: Its curves' callback.
            schedule: The callbacks of its learning-rate schedule.
            early_stopping: Its early stopping.
        """
        super().__init__()
        self.checkpoints = checkpoints
        self.loader = loader
        self.log_epochs = log_epochs
        self.plateaus = [callback for callback in schedule if isinstance(callback, ReduceLROnPlateau)]
        self.early_stopping = early_stopping
        self._epoch = self._first_batch = 0
        self._is_rest_of_epoch = False
        self._callbacks: dict[str, Any] | None = None
        if checkpoints.state is not None:
            loader.stream.restore_digests(checkpoints.state["digests"])

    def fit(self, fit: Callable[..., Any], max_epochs: int) -> int:
        """Calls a model's fit, from the checkpoint on.

        The rest of an epoch is a fit of its own, since fit begins with a whole epoch. fit could not be told either that
        one epoch is shorter: TensorFlow would take a part of a step before it finds that there is no batch.

        Args:
            fit: Model.fit with all arguments but the epochs; this callback is one of its callbacks.
            max_epochs: The epoch limit.

        Returns:
            The number of epochs trained, including those before the checkpoint.
        """
        try:
            return self._fit(fit, max_epochs)
        except TrainingDiverged:
            if (good := self.checkpoints.last_good_network()) is not None:
                assign(self.model.variables, good)
            raise

    def _fit(self, fit: Callable[..., Any], max_epochs: int) -> int:
        first, batch = self.checkpoints.epoch, self.checkpoints.batch
        with interrupts.asking():
            if batch:
                self._is_rest_of_epoch = True
                self.loader.begin_at(first, batch)
                fit(initial_epoch=first, epochs=first + 1)
                self._is_rest_of_epoch, first = False, first + 1
                self.loader.begin_epoch(first)
                if self.model.stop_training or first == max_epochs:
                    self.early_stopping.restore_weights()
                    return first
            return first + len(fit(initial_epoch=first, epochs=max_epochs).epoch)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        if self._callbacks is None:
            self.checkpoints.begin()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.early_stopping.is_restoring = not self._is_rest_of_epoch
        if self._is_rest_of_epoch:
            self._callbacks = self._state_of_callbacks()  # they begin anew in the next fit

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch, self._first_batch = epoch, 0
        if self.checkpoints.state is not None:
            self._first_batch = self.checkpoints.batch
            self.loader.begin_at(epoch, self._first_batch)
            self._restore()
        else:
            if self._callbacks is not None:
                self._restore_callbacks(self._callbacks)
                self._callbacks = None
            if epoch > 0:
                self._save(batch=0)
        interrupts.check()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        done = self._first_batch + batch + 1
        passes = self.model.optimizer.gradient_accumulation_steps or 1
        if (loss := (logs or {}).get("loss")) is not None and not math.isfinite(loss):  # the mean of the epoch so far
            raise self.log_epochs.curves.diverged(
                num_finite=(done - 1) // passes, loss=loss, learning_rate=self.log_epochs.learning_rate
            )
        if done == self._first_batch + len(self.loader):
            return  # the epoch ends first
        if done % passes:
            return  # the step needs more passes
        if self.loader.begins_within_epochs and self.checkpoints.is_due():
            self._save(batch=done)
        interrupts.check()

    def _save(self, batch: int) -> None:
        if not self.checkpoints.is_kept:
            return
        model = self.model
        state = {
            "network": values_of(model.variables),
            "optimizer": values_of(model.optimizer.variables),
            "metrics": values_of(model.metrics_variables) if batch else [],
            "callbacks": self._state_of_callbacks(),
            "log_epochs": self.log_epochs.state() if batch else {},
            "backend_random": random_state(),
            "digests": self.loader.stream.digests(None if self._epoch else batch),
        }
        self.checkpoints.save(self._epoch, batch, state)

    def _restore(self) -> None:
        state, self.checkpoints.state = self.checkpoints.state, None
        assert state is not None
        model = self.model
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        assign(model.variables, state["network"])
        assign(model.optimizer.variables, state["optimizer"])
        if state["metrics"]:
            assign(model.metrics_variables, state["metrics"])
        self._restore_callbacks(state["callbacks"])
        self.log_epochs.restore_state(state["log_epochs"])
        restore_random_state(state["backend_random"])

    def _state_of_callbacks(self) -> dict[str, Any]:
        plateaus = [{name: getattr(plateau, name) for name in PLATEAU_STATE} for plateau in self.plateaus]
        return {"plateaus": plateaus, "early_stopping": self.early_stopping.state()}

    def _restore_callbacks(self, state: dict[str, Any]) -> None:
        for plateau, of_plateau in zip(self.plateaus, state["plateaus"], strict=True):
            for name in PLATEAU_STATE:
                setattr(plateau, name, of_plateau[name])
        self.early_stopping.restore_state(state["early_stopping"])
