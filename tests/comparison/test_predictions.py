from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import tandem.comparison.predictions as module
from tandem.comparison.configurations import Configuration, group_runs
from tandem.comparison.predictions import read_predictions
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, reordered


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[tuple[str, str], Predictions]:
    """Artifacts of runs by run id and path, in place of MLflow (tests/test_compare.py uses MLflow)."""
    artifacts: dict[tuple[str, str], Predictions] = {}

    def download(run: RunRecord, artifact_path: str, folder: Path) -> Path:
        if (run.run_id, artifact_path) not in artifacts:
            raise UserError(f"cannot read the artifact {artifact_path} of run {run.run_id}")
        path = Path(tempfile.mkdtemp(dir=folder)) / artifact_path
        artifacts[run.run_id, artifact_path].write(path)
        return path

    monkeypatch.setattr(module, "download", download)
    return artifacts


def configurations_of(runs: Sequence[RunRecord]) -> tuple[Configuration, ...]:
    (group,), _ = group_runs(runs)
    return group.configurations


def test_first_phase_is_read_only_for_two_stage(
    make_run: MakeRun, make_predictions: MakePredictions, stored: dict, tmp_path: Path
) -> None:
    runs = [make_run(regime="two_stage"), make_run(regime="frozen")]
    for run in runs:
        stored[run.run_id, "final/predictions.parquet"] = make_predictions([True] * 8)
    stored[runs[0].run_id, "phase_1/predictions.parquet"] = make_predictions([False] * 8)
    saved = read_predictions(configurations_of(runs), tmp_path)
    assert set(saved.final) == {run.run_id for run in runs}
    assert set(saved.first_phase) == {runs[0].run_id}
    assert saved.first_phase[runs[0].run_id].predicted[0] != saved.first_phase[runs[0].run_id].truth[0]
    assert saved.notes == ()


def test_runs_without_predictions_are_named_with_the_reason(
    make_run: MakeRun, make_predictions: MakePredictions, stored: dict, tmp_path: Path
) -> None:
    runs = [make_run(), make_run("keras", run_id="lacking")]
    stored[runs[0].run_id, "final/predictions.parquet"] = make_predictions([True] * 8)
    saved = read_predictions(configurations_of(runs), tmp_path)
    assert set(saved.final) == {runs[0].run_id}
    assert saved.notes == (
        "No intervals and tests because predictions could not be read: mobilenet_v2-finetune-keras (lacking) "
        "(cannot read the artifact final/predictions.parquet of run lacking).",
    )


def test_predictions_of_other_images_are_not_compared(
    make_run: MakeRun, make_predictions: MakePredictions, stored: dict, tmp_path: Path
) -> None:
    runs = [make_run("torch"), make_run("keras", run_id="other")]
    for run, images in zip(runs, (8, 9), strict=True):
        stored[run.run_id, "final/predictions.parquet"] = make_predictions([True] * images)
    saved = read_predictions(configurations_of(runs), tmp_path)
    assert set(saved.final) == {runs[0].run_id}
    (note,) = saved.notes
    assert "other images or classes" in note and "(other)" in note


def test_classes_are_matched_by_name(
    make_run: MakeRun, make_predictions: MakePredictions, stored: dict, tmp_path: Path
) -> None:
    runs = [make_run("torch"), make_run("keras")]
    whole = make_predictions([True, False] * 6)
    stored[runs[0].run_id, "final/predictions.parquet"] = whole
    stored[runs[1].run_id, "final/predictions.parquet"] = reordered(whole, (2, 0, 3, 1))
    saved = read_predictions(configurations_of(runs), tmp_path).with_equal_classes()
    assert saved.notes == ()
    first, second = (saved.final[run.run_id] for run in runs)
    assert first.classes == second.classes == whole.classes
    assert first.truth.tolist() == second.truth.tolist() == whole.truth.tolist()
    assert np.array_equal(first.probabilities, second.probabilities)


def test_run_of_other_images_is_left_out_wherever_it_stands(
    make_run: MakeRun, make_predictions: MakePredictions, stored: dict, tmp_path: Path
) -> None:
    runs = [make_run("torch", run_id="other"), make_run("keras"), make_run("keras", "frozen")]
    for run, images in zip(runs, (9, 8, 8), strict=True):
        stored[run.run_id, "final/predictions.parquet"] = make_predictions([True] * images)
    saved = read_predictions(configurations_of(runs), tmp_path)
    assert set(saved.final) == {run.run_id for run in runs[1:]}
    (note,) = saved.notes
    assert "(other)" in note
