"""Early stopping that restores the best weights, which Keras's does and Lightning's does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor


class EarlyStoppingWithBestWeights(EarlyStopping):
    """Lightning's early stopping, which also keeps the best epoch's weights in memory and restores them at the end.

    Example: EarlyStoppingWithBestWeights(restore="best", monitor="val/loss", patience=3)
    """

    def __init__(self, *, restore: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.restore = restore
        self.best_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        if self.wait_count == 0:  # this epoch is the best so far
            self.best_epoch = trainer.current_epoch
            if self.restore == "best":
                self.best_weights = on_cpu(module.state_dict())

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if self.restore == "best":
            module.load_state_dict(self.best_weights)


def on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights in main memory, where they take none of the GPU's; Keras keeps its own there too."""
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
