from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from tandem.data.prepare import PreparedData
from tandem.errors import UserError, WeightsNotDownloaded
from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.recording.run import predictions_of_test, record_evaluation, record_weights, without_imagenet
from tandem.tracking.numbers import read_numbers
from tandem.tracking.start import start_run
from tests.small_runs import RecordingRun, small_data

CLASSES = ("a,b", "NA", "猫")


def make_predictions() -> Predictions:
    return Predictions(
        keys=tuple("123456"),
        hashes=tuple("uvwxyz"),
        truth=np.array([0, 0, 1, 1, 2, 2]),
        probabilities=np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2, 0]],
        classes=CLASSES,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MlflowClient, str, dict[str, float]]:
    root = tmp_path_factory.mktemp("results")
    tracking = TrackingSettings(uri=f"sqlite:///{root}/mlflow.db", folder=str(root / "runs"))
    settings = Settings(backbone="mobilenet_v2", tracking=tracking)
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        record_evaluation(run, make_predictions(), folder="phase_1", prefix="phase_1/")
        scores = record_evaluation(run, make_predictions(), folder="final", prefix="")
    return run.folder, MlflowClient(tracking_uri=tracking.uri), run.id, scores


def test_scores_are_logged_under_the_phase_and_for_the_run(recorded) -> None:
    _, client, run_id, scores = recorded
    metrics = read_numbers(client.get_run(run_id))
    assert scores["accuracy"] == pytest.approx(4 / 6)
    for name, value in scores.items():
        assert metrics[f"test/{name}"] == pytest.approx(value)
        assert metrics[f"phase_1/test/{name}"] == pytest.approx(value)


def test_four_files_are_kept_for_each_evaluation(recorded) -> None:
    folder, client, run_id, _ = recorded
    for part in ("phase_1", "final"):
        names = ("predictions.parquet", "per_class.csv", "confusion_matrix.csv", "classification_report.txt")
        expected = {f"{part}/{name}" for name in names}
        assert {file.path for file in client.list_artifacts(run_id, part)} == expected
        assert all((folder / name).is_file() for name in expected)


def test_uploaded_predictions_are_the_ones_evaluated(recorded, tmp_path: Path) -> None:
    _, client, run_id, _ = recorded
    path = Path(client.download_artifacts(run_id, "final/predictions.parquet", str(tmp_path)))
    read, expected = Predictions.read(path), make_predictions()
    assert (read.keys, read.hashes, read.classes) == (expected.keys, expected.hashes, expected.classes)
    np.testing.assert_array_equal(read.probabilities, expected.probabilities)


def test_tables_keep_class_names_with_commas_and_other_scripts(recorded) -> None:
    folder = recorded[0] / "final"
    classes = pd.read_csv(folder / "per_class.csv", keep_default_na=False)
    assert classes["class"].tolist() == list(CLASSES)
    assert classes["recall"].tolist() == [0.5, 1.0, 0.5]
    matrix = pd.read_csv(folder / "confusion_matrix.csv", index_col="truth", keep_default_na=False)
    assert matrix.columns.tolist() == matrix.index.tolist() == list(CLASSES)
    assert matrix.to_numpy().tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))


def test_predictions_belong_to_the_test_images_in_their_order(data: PreparedData) -> None:
    rows = data.rows("test")
    logits = np.random.default_rng(0).normal(size=(len(rows), len(data.classes))).astype(np.float32)
    predictions = predictions_of_test(data, logits)
    assert predictions.keys == tuple(data.keys[row] for row in rows)
    assert predictions.hashes == tuple(data.hashes[row] for row in rows)
    np.testing.assert_array_equal(predictions.truth, data.labels[rows])
    np.testing.assert_array_equal(predictions.predicted, logits.argmax(axis=1))


@pytest.mark.parametrize(
    ("weights", "origin"),
    [
        ("imagenet", "imagenet"),
        ("runs:/abc", "runs:/abc"),
        # printf hello | sha256sum
        ("my.pth", "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
    ],
)
def test_weights_of_a_file_are_recorded_by_its_hash(tmp_path: Path, weights: str, origin: str) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"hello")
    run = RecordingRun()
    record_weights(run, Settings(weights=weights), None if weights == "imagenet" else file)  # type: ignore[arg-type]
    assert run.tags == {"tandem.weights_origin": origin}


def test_random_weights_replace_imagenet_only_if_allowed() -> None:
    run, missing = RecordingRun(), WeightsNotDownloaded("no network")
    replaced = without_imagenet(run, Settings(weights="imagenet", allow_random_weights=True), missing)  # type: ignore[arg-type]
    assert replaced.weights == "random"
    assert run.tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    with pytest.raises(WeightsNotDownloaded):
        without_imagenet(run, Settings(weights="imagenet"), missing)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="another error"):
        without_imagenet(run, Settings(weights="imagenet", allow_random_weights=True), UserError("another error"))  # type: ignore[arg-type]
