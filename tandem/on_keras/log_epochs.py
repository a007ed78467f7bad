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

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.start = time.perf_counter()
        self.learning_rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

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
