"""Early stopping in Keras."""

from __future__ import annotations

from keras.callbacks import EarlyStopping

from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings


def build_early_stopping(settings: Settings, phase: Phase) -> EarlyStopping:
    """Early stopping on the validation loss; without patience it never stops, but still finds the best epoch."""
    stopping = settings.early_stopping
    return EarlyStopping(
        monitor="val_loss",
        mode="min",
        patience=stopping.patience or phase.max_epochs,
        min_delta=stopping.min_delta,
        restore_best_weights=stopping.restore == "best",
    )
