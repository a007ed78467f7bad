from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from tandem.data.prepare import PreparedData
from tandem.evaluation.predictions import softmax
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.recording.off_the_shelf import record_off_the_shelf
from tandem.tracking import vocabulary
from tandem.tracking.numbers import read_numbers
from tandem.tracking.start import start_run
from tests.small_runs import small_data

OUTPUTS = ((1,), (3, 4), (5,), (700,), (999,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))


def test_run_keeps_both_kinds_of_scores_and_every_prediction(tmp_path: Path, data: PreparedData) -> None:
    rows = data.rows("test")
    logits = np.random.default_rng(0).normal(size=(len(rows), 1000)).astype(np.float32)
    logits[:, [members[0] for members in OUTPUTS]] += 3 * np.eye(5)[data.labels[rows]]
    logits[0, 207] = 50  # a golden retriever, which is not one of the classes
    tracking = TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db", folder=str(tmp_path / "runs"))
    settings = Settings(regime="off_the_shelf", tracking=tracking)
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        predictions = record_off_the_shelf(run, data, logits, OUTPUTS)

    of_all = softmax(logits).astype(np.float64)
    wanted = np.stack([of_all[:, list(members)].sum(axis=1) for members in OUTPUTS], axis=1)
    np.testing.assert_allclose(predictions.probabilities, wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-4)

    recorded = MlflowClient(tracking_uri=tracking.uri).get_run(run.id)
    numbers = read_numbers(recorded)
    answers = logits.argmax(axis=1)
    right = [answer in OUTPUTS[label] for answer, label in zip(answers, data.labels[rows], strict=True)]
    assert numbers["test/imagenet_accuracy"] == pytest.approx(np.mean(right))
    assert numbers["test/imagenet_outside"] >= 1 / len(rows)
    assert "Averaged over the" in recorded.data.tags[vocabulary.OFF_THE_SHELF]

    table = pd.read_csv(run.folder / "final" / "imagenet_answers.csv", dtype={"class": str})
    assert len(table) == len(rows)
    assert table["wordnet_id"][0] == "n02099601" and table["name"][0] == "golden retriever"
    assert table["class"].tolist() == [data.classes[label] for label in data.labels[rows]]
    np.testing.assert_allclose(table["probability"], of_all.max(axis=1), rtol=1e-4)
