"""Early stopping that restores the weights of the epoch with the lowest validation loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor


class EarlyStoppingWithBestWeights(EarlyStopping):
    """Lightning's early stopping, which also keeps the best epoch's weights in memory and restores them at the end.

    The best epoch is the one with the lowest loss. `min_delta` decides only how long the phase waits for a better one.

    Example: EarlyStoppingWithBestWeights(restore="best", monitor="val/loss", patience=3)
    """

    def __init__(self, *, restore: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.restore = restore
        self.best_epoch = 0
        self.lowest = math.inf
        self.best_weights: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        own = {"lowest": self.lowest, "best_epoch": self.best_epoch, "best_weights": self.best_weights}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.lowest, self.best_epoch = state_dict["lowest"], state_dict["best_epoch"]
        self.best_weights = state_dict["best_weights"]

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        loss = float(trainer.callback_metrics[self.monitor])
        if loss < self.lowest:
            self.lowest, self.best_epoch = loss, trainer.current_epoch
            if self.restore == "best":
                self.best_weights = on_cpu(module.state_dict())

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.best_weights:
            module.load_state_dict(self.best_weights)


def on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights in main memory, where they take none of the GPU's; Keras keeps its own there too."""
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
