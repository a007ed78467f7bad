"""When a phase of Keras's training ends."""

from __future__ import annotations

from keras.callbacks import EarlyStopping

from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings


def build_early_stopping(settings: Settings, phase: Phase) -> EarlyStopping:
    """Keras's early stopping on the validation loss; with no patience it never stops, but still knows the best."""
    stopping = settings.early_stopping
    return EarlyStopping(
        monitor="val_loss",
        mode="min",
        patience=stopping.patience or phase.max_epochs,
        min_delta=stopping.min_delta,
        restore_best_weights=stopping.restore == "best",
    )
