from __future__ import annotations

from types import SimpleNamespace

import keras
import pytest

from tandem.on_keras.log_epochs import LogEpochs
from tandem.protocol.regimes import Phase
from tandem.tracking.curves import Curves

PHASE = Phase(number=2, trainable="all", learning_rate=0.5, max_epochs=3)


def test_epoch_is_logged_with_the_rate_at_its_start_and_its_seconds(
    curves: Curves, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((100.0, 103.5))
    monkeypatch.setattr("tandem.on_keras.log_epochs.time.perf_counter", lambda: next(clock))
    optimizer = keras.optimizers.SGD(0.5)
    callback = LogEpochs(curves, PHASE)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_epoch_begin(0)
    optimizer.learning_rate = 0.25  # a schedule changes it within the epoch
    callback.on_epoch_end(0, {"loss": 1.5, "accuracy": 0.25, "val_loss": 2.5, "val_accuracy": 0.75})
    (row,) = curves.rows
    numbers = {"epoch/seconds": 3.5, "train/loss": 1.5, "train/accuracy": 0.25, "val/loss": 2.5, "val/accuracy": 0.75}
    assert row == {
        "epoch": 0,
        "phase": 2,
        "epoch/phase": 2,
        "epoch/learning_rate": 0.5,
        "epoch/seconds": 3.5,
        **numbers,
    }
