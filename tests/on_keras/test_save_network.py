from __future__ import annotations

from pathlib import Path

import pytest

from tandem.data.prepare import PreparedData
from tandem.on_keras.networks import build_classifier
from tandem.protocol.settings import TrackingSettings
from tests.small_runs import NUM_CLASSES, RecordingRun, small_settings
from train_keras import save_network


@pytest.mark.parametrize("log_weights", [True, False])
def test_weights_are_logged_unless_they_are_switched_off(log_weights: bool, data: PreparedData, tmp_path: Path) -> None:
    settings = small_settings(tracking=TrackingSettings(log_weights=log_weights, log_model=False))
    run = RecordingRun(tmp_path)
    save_network(build_classifier(settings, NUM_CLASSES, (8, 8, 3)), settings, data, run)  # type: ignore[arg-type]
    assert run.artifacts == ([tmp_path / "weights"] if log_weights else [])
    assert [file.name for file in tmp_path.iterdir()] == (["weights"] if log_weights else [])
