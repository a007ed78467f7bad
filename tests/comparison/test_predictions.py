from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import tandem.comparison.predictions as module
from tandem.comparison.configurations import Configuration, group_runs
from tandem.comparison.predictions import read_predictions
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun


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
