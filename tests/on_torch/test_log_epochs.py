from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tandem.on_torch.log_epochs import LogEpochs
from tandem.protocol.regimes import Phase
from tandem.tracking.curves import Curves

PHASE = Phase(number=2, trainable="all", learning_rate=0.5, max_epochs=3)


def test_epoch_is_logged_with_the_rate_at_its_start_and_its_seconds(
    curves: Curves, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((100.0, 103.5))
    monkeypatch.setattr("tandem.on_torch.log_epochs.time.perf_counter", lambda: next(clock))
    head = {"lr": 0.5}
    numbers = {"train/loss": 1.5, "train/accuracy": 0.25, "val/loss": 2.5, "val/accuracy": 0.75}
    trainer = SimpleNamespace(
        accumulate_grad_batches=1,
        optimizers=[SimpleNamespace(param_groups=[head, {"lr": 0.1}])],
        callback_metrics={name: torch.tensor(value) for name, value in numbers.items()},
    )
    callback = LogEpochs(curves, PHASE)
    callback.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    head["lr"] = 0.25  # a schedule changes it within the epoch
    module = SimpleNamespace(sums=SimpleNamespace(num_finite=4))
    callback.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    (row,) = curves.rows
    assert row == {
        "epoch": 0,
        "phase": 2,
        "epoch/phase": 2,
        "epoch/learning_rate": 0.5,
        "epoch/seconds": 3.5,
        **numbers,
    }
