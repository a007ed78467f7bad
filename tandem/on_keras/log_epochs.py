"""Callback that logs the epochs of Keras's fit to the run's curves."""

from __future__ import annotations

import time

import keras
from keras.callbacks import Callback

from tandem.protocol.regimes import Phase
from tandem.tracking.curves import Curves


class LogEpochs(Callback):
    """Adds each epoch's losses, accuracies, learning rate and seconds to the run's curves."""

    def __init__(self, curves: Curves, phase: Phase) -> None:
        super().__init__()
        self.curves = curves
        self.phase = phase
        self._continued: dict[str, float] = {}

    def state(self) -> dict[str, float]:
        """Learning rate and seconds so far of the epoch under way."""
        return {"learning_rate": self.learning_rate, "seconds": time.perf_counter() - self.start}

    def restore_state(self, state: dict[str, float]) -> None:
        """Continues an epoch from this state; from an empty one, it begins a new epoch."""
        self._continued = state

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        state, self._continued = self._continued, {}
        self.start = time.perf_counter() - state.get("seconds", 0.0)
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.learning_rate = state.get("learning_rate", rate)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self.curves.add(
            self.phase,
            learning_rate=self.learning_rate,
            seconds=time.perf_counter() - self.start,
            train_loss=numbers["loss"],
            train_accuracy=numbers["accuracy"],
            val_loss=numbers["val_loss"],
            val_accuracy=numbers["val_accuracy"],
        )
