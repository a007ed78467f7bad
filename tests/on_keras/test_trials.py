from __future__ import annotations

from collections.abc import Mapping

import pytest

from tandem.data.prepare import PreparedData
from tandem.errors import TrainingPruned
from tandem.experiment.run import train_trial
from tandem.tracking.curves import Curves
from tests.small_runs import RecordingRun, small_settings
from train_keras import FRAMEWORK


@pytest.mark.long
def test_trial_can_be_pruned_within_a_phase(data: PreparedData) -> None:
    epochs: list[tuple[float, float]] = []

    def prune(row: Mapping[str, float]) -> None:
        epochs.append((row["epoch"], row["phase"]))
        if row["phase"] == 2:
            raise TrainingPruned("enough")

    run = RecordingRun()
    settings = small_settings(max_epochs=1)
    with pytest.raises(TrainingPruned, match="enough"):
        train_trial(FRAMEWORK, settings, data, run, Curves(run, prune))  # type: ignore[arg-type]
    assert epochs == [(0, 1), (1, 2)]
    # the next trial is not affected
    after = RecordingRun()
    train_trial(FRAMEWORK, settings, data, after, Curves(after))  # type: ignore[arg-type]
    first, again = ([values["val/loss"] for _, values in each.logged] for each in (run, after))
    assert first == again and len(again) == 2
