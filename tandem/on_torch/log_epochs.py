"""Callback that logs a Lightning Trainer's epochs to the run's curves."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback

from tandem.protocol.regimes import Phase
from tandem.tracking.curves import Curves


class LogEpochs(Callback):
    """Adds each epoch's losses, accuracies, learning rate and seconds to the run's curves."""

    def __init__(self, curves: Curves, phase: Phase) -> None:
        self.curves = curves
        self.phase = phase
        self._continued: dict[str, float] = {}

    def state_dict(self) -> dict[str, float]:
        """Learning rate and seconds so far of the epoch under way."""
        return {"learning_rate": self.learning_rate, "seconds": time.perf_counter() - self.start}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Continues an epoch from this state; from an empty one, it begins a new epoch."""
        self._continued = state_dict

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        state, self._continued = self._continued, {}
        self.start = time.perf_counter() - state.get("seconds", 0.0)
        self.learning_rate = state.get("learning_rate", trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        numbers = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.curves.add(
            self.phase,
            learning_rate=self.learning_rate,
            seconds=time.perf_counter() - self.start,
            train_loss=numbers["train/loss"],
            train_accuracy=numbers["train/accuracy"],
            val_loss=numbers["val/loss"],
            val_accuracy=numbers["val/accuracy"],
            num_finite=module.sums.num_finite // trainer.accumulate_grad_batches,
        )
