"""Early stopping that restores the weights of the epoch with the lowest validation loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras.callbacks import EarlyStopping

STATE = ("wait", "stopped_epoch", "best", "best_epoch", "lowest", "lowest_epoch", "lowest_weights")


class EarlyStoppingWithBestWeights(EarlyStopping):
    """Keras's early stopping, which also keeps the best epoch's weights in memory and restores them at the end.

    The best epoch is the one with the lowest loss. `min_delta` decides only how long the phase waits for a better one;
    Keras's own restore_best_weights would restore the last epoch that was better by more than `min_delta`.

    Example: EarlyStoppingWithBestWeights(restore="best", monitor="val_loss", patience=3)
    """

    def __init__(self, *, restore: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.restore = restore
        self.is_restoring = True
        """False at the end of a fit that trains only the rest of an epoch."""
        self.lowest_epoch = 0
        self.lowest = math.inf
        self.lowest_weights: list[np.ndarray] = []

    def state(self) -> dict[str, Any]:
        """Everything that the callback knows, for a checkpoint."""
        return {name: getattr(self, name) for name in STATE}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint; called after on_train_begin, which begins anew."""
        for name in STATE:
            setattr(self, name, state[name])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        loss = float(self.get_monitor_value(logs))
        if loss < self.lowest:
            self.lowest, self.lowest_epoch = loss, epoch
            if self.restore == "best":
                self.lowest_weights = self.model.get_weights()
        self.best_epoch = self.lowest_epoch

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self.is_restoring:
            self.restore_weights()

    def restore_weights(self) -> None:
        """Restores the best epoch's weights, if the settings say so."""
        if self.lowest_weights:
            self.model.set_weights(self.lowest_weights)
