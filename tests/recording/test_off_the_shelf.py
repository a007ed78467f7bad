from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from tandem.comparison.comparison import compare_runs
from tandem.data.prepare import PreparedData
from tandem.evaluation.predictions import softmax
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.recording.off_the_shelf import record_off_the_shelf
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord
from tandem.tracking.run import start_run
from tests.small_runs import small_data

OUTPUTS = ((1,), (3, 4), (5,), (700,), (999,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))


def test_run_keeps_both_kinds_of_scores_and_every_answer(tmp_path: Path, data: PreparedData) -> None:
    rows = data.rows("test")
    logits = np.random.default_rng(0).normal(size=(len(rows), 1000)).astype(np.float32)
    logits[:, [members[0] for members in OUTPUTS]] += 3 * np.eye(5)[data.labels[rows]]
    logits[0, 207] = 50  # a golden retriever, which is none of the classes
    tracking = TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db", folder=str(tmp_path / "runs"))
    settings = Settings(regime="off_the_shelf", tracking=tracking)
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        predictions = record_off_the_shelf(run, data, logits, OUTPUTS)

    of_all = softmax(logits).astype(np.float64)
    wanted = np.stack([of_all[:, list(members)].sum(axis=1) for members in OUTPUTS], axis=1)
    np.testing.assert_allclose(predictions.probabilities, wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-4)

    recorded = MlflowClient(tracking_uri=tracking.uri).get_run(run.id).data
    answers = logits.argmax(axis=1)
    right = [answer in OUTPUTS[label] for answer, label in zip(answers, data.labels[rows], strict=True)]
    assert recorded.metrics["test/imagenet_accuracy"] == pytest.approx(np.mean(right))
    assert recorded.metrics["test/imagenet_outside"] >= 1 / len(rows)
    assert "Averaged over the" in recorded.tags[vocabulary.OFF_THE_SHELF]

    table = pd.read_csv(run.folder / "final" / "imagenet_answers.csv", dtype={"class": str})
    assert len(table) == len(rows)
    assert table["wordnet_id"][0] == "n02099601" and table["name"][0] == "golden retriever"
    assert table["class"].tolist() == [data.classes[label] for label in data.labels[rows]]
    np.testing.assert_allclose(table["probability"], of_all.max(axis=1), rtol=1e-4)


def test_comparison_shows_both_kinds_of_scores_side_by_side(make_run: Callable[..., RunRecord]) -> None:
    metrics = {
        "test/imagenet_accuracy": 0.827,
        "test/imagenet_precision_macro": 0.0359,
        "test/imagenet_recall_macro": 0.0296,
        "test/imagenet_f1_macro": 0.0323,
        "test/imagenet_num_labels": 279.0,
        "test/imagenet_outside": 0.17,
    }
    runs = [make_run(regime="off_the_shelf", accuracy=0.99, metrics=metrics), make_run(regime="frozen")]
    (table,) = (table for table in compare_runs(runs).tables if table.name == "off_the_shelf")
    assert table.rows == (("off_the_shelf torch", 0.99, *metrics.values()),)


def test_comparison_without_such_networks_has_no_such_table(make_run: Callable[..., RunRecord]) -> None:
    assert "off_the_shelf" not in {table.name for table in compare_runs([make_run()]).tables}
