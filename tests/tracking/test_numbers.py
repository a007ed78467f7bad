"""Numbers of a whole run: metrics or tags in MLflow, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.protocol.settings import Settings
from tandem.tracking.numbers import tags_with
from tandem.tracking.reader import find_run, read_runs
from tandem.tracking.run import Run
from tandem.tracking.start import start_run
from tandem.tracking.views import experiment_tags
from tandem.tracking.vocabulary import CHARTED

START: dict[str, Any] = {"framework": "torch", "backend": "torch", "versions": {}}

# As a run of two phases logs them, by the names of version 0.2.0.
NUMBERS = {
    **{"test/accuracy": 0.9, "test/f1_macro": 0.1 + 0.2, "test/precision_macro": 1 / 3, "cost/train_seconds": 61.5},
    **{"cost/macs": 300_774_272.0, "cost/peak_gpu_memory_megabytes": 0.0, "cost/epochs": 10.0},
    **{"phase_1/test/accuracy": 0.8, "phase_1/cost/best_epoch": 4.0, "phase_1/val/start_accuracy": 0.25},
    **{"phase_2/test/log_loss": math.inf, "tta/test/accuracy": 0.91, "tta/test/f1_min": 0.5, "tta/views": 12.0},
}
METRICS = {"test/accuracy", "test/f1_macro", "cost/train_seconds", "tta/test/accuracy"}


def log(settings: Settings) -> Run:
    with start_run(settings, **START) as run:
        for step in (0, 1):
            run.log_metrics({"val/loss": 1.0 - step / 2}, step=step)
        for prefix in ("phase_1/", "phase_2/", "tta/", "test/", "cost/"):  # one call per phase, and two for the run
            run.log_numbers({name: value for name, value in NUMBERS.items() if name.startswith(prefix)})
    return run


def test_few_numbers_are_metrics_and_all_are_read(settings: Settings, client: MlflowClient) -> None:
    run = log(settings)
    stored = client.get_run(run.id).data
    assert {name for name in stored.metrics if not name.startswith("system/")} == {*METRICS, "val/loss"}
    assert json.loads(stored.tags["tandem.numbers.phase_1"]) == {
        "test/accuracy": 0.8,
        "cost/best_epoch": 4.0,
        "val/start_accuracy": 0.25,
    }
    (read,) = read_runs(None, "tandem")
    assert {name: read.metrics[name] for name in NUMBERS} == NUMBERS
    assert read.metrics["val/loss"] == 0.5
    assert find_run(None, run.id).metrics == read.metrics
    assert not any(tag.startswith("tandem.numbers") for tag in read.tags)


def test_run_with_the_old_metrics_is_read_as_one_with_tags(settings: Settings, client: MlflowClient) -> None:
    with start_run(settings, **START) as old:
        old.log_metrics({"val/loss": 0.5, **NUMBERS})
    new = log(settings)
    assert len(client.get_run(old.id).data.metrics) > len(client.get_run(new.id).data.metrics)
    records = [
        {name: value for name, value in run.metrics.items() if not name.startswith("system/")}
        for run in read_runs(None, "tandem")
    ]
    finite = {name: value for name, value in NUMBERS.items() if value < math.inf}  # MLflow's metrics hold no infinity
    assert [{name: record[name] for name in finite} for record in records] == [finite] * 2
    assert [set(record) for record in records] == [{"val/loss", *NUMBERS}] * 2


def test_numbers_that_an_interrupted_run_has_stay(settings: Settings, client: MlflowClient) -> None:
    with pytest.raises(KeyboardInterrupt), start_run(settings, **START) as first:
        first.log_numbers({"phase_1/cost/epochs": 3.0, "test/accuracy": 0.5})
        raise KeyboardInterrupt
    with start_run(settings, **START) as second:
        assert second.id == first.id
        second.log_numbers({"phase_1/cost/epochs": 9.0, "phase_1/cost/best_epoch": 2.0, "test/accuracy": 0.9})
    read = find_run(None, first.id).metrics
    assert (read["phase_1/cost/epochs"], read["phase_1/cost/best_epoch"], read["test/accuracy"]) == (3, 2, 0.5)


def test_table_has_every_number_once(settings: Settings) -> None:
    lines = log(settings).numbers_table().splitlines()
    assert lines[0] == "number,run,phase_1,phase_2,tta"
    assert "test/accuracy,0.9,0.8,,0.91" in lines and "test/log_loss,,,inf," in lines and "tta/views,12.0,,," in lines
    cells = [cell for line in lines[1:] for cell in line.split(",")[1:] if cell]
    assert sorted(map(float, cells)) == sorted(NUMBERS.values())


def test_digits_that_are_a_password_stay_in_numbers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "2024")
    with start_run(settings, **START) as run:
        run.log_numbers({"cost/macs": 2024})
    assert find_run(None, run.id).metrics["cost/macs"] == 2024


def test_changed_tag_is_named(settings: Settings, client: MlflowClient) -> None:
    run = log(settings)
    for text in ("fast", "[1]", '{"cost/epochs": "many"}'):
        client.set_tag(run.id, "tandem.numbers.phase_1", text)
        with pytest.raises(
            UserError,
            match=rf"the tag tandem\.numbers\.phase_1 of the run {run.id} is damaged: .*fast|"
            r"\[1\]|many",
        ):
            read_runs(None, "tandem")


def test_numbers_added_later_are_read_with_the_others(settings: Settings, client: MlflowClient) -> None:
    run = log(settings)
    for latency in (7.0, 5.0):
        tags = tags_with(client.get_run(run.id), {"cost/onnx_latency_milliseconds": latency})
        assert list(tags) == ["tandem.numbers"]
        client.set_tag(run.id, "tandem.numbers", tags["tandem.numbers"])
    read = find_run(None, run.id).metrics
    assert read["cost/onnx_latency_milliseconds"] == 5 and read["cost/macs"] == NUMBERS["cost/macs"]
    # an older version logged the number as a metric, and this version measures again
    client.log_metric(run.id, "cost/onnx_latency_milliseconds", 9.0)
    assert find_run(None, run.id).metrics["cost/onnx_latency_milliseconds"] == 5


def test_saved_views_show_metrics_only(settings: Settings) -> None:
    shown = json.dumps(experiment_tags())
    for name in CHARTED - {"tta/test/accuracy", "test/balanced_accuracy", "test/roc_auc_macro"}:
        assert name in shown
    for name in set(NUMBERS) - METRICS:
        assert name not in shown


def test_numbers_fit_into_a_tag_of_mlflow(tmp_path: Path) -> None:
    from tandem.evaluation.metrics import SCORE_NAMES
    from tandem.tracking import vocabulary
    from tandem.tracking.numbers import Numbers

    costs = [name for name in vars(vocabulary).values() if isinstance(name, str) and name.startswith("cost/")]
    names = [*(f"test/{score}" for score in SCORE_NAMES), *costs]
    assert len(names) > 30
    longest = -1 / 3 * 1e-9
    for prefix in ("", "phase_1/", "mean/"):
        _, tags = Numbers().add({prefix + name: longest for name in names})
        assert len(tags) == 1 and all(len(text) < 4000 for text in tags.values())
