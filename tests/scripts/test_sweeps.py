from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.search.study import RETRIED, RUN, SETTINGS
from tandem.tracking import vocabulary
from tandem.tracking.reader import NoRuns, read_runs

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("torch", "keras")

SMALL = [
    "--config",
    "settings.yaml",
    "--data.images_per_class",
    "30",
    "--max_epochs",
    "2",
    "--tracking.experiment",
    "s",
]
SMALL += ["--tracking.log_model", "false", "--tracking.log_weights", "false", "--tracking.data_report", "false"]
SMALL += ["--tracking.grad_cam_images", "0"]
SPACE = '{"learning_rate": {"low": 1.0e-4, "high": 1.0e-2, "log": true}, "optimizer.name": ["adam", "sgd"]}'


def trials_of(runs: list[Any]) -> list[Any]:
    return [run for run in runs if vocabulary.TRIAL in run.data.tags]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_trial_equals_a_run_with_its_settings_bit_by_bit(
    framework: str, new_store: Callable[[], Any], train: Callable[..., Any]
) -> None:
    store = new_store()
    done = train(framework, *SMALL, "--sweep.num_trials", "3", "--sweep.space", SPACE, cwd=store.folder)
    assert done.returncode == 0, done.stderr
    with pytest.raises(NoRuns):
        read_runs(store.uri, "s")
    assert not any(name.startswith("test/") for run in store.runs("s") for name in run.data.metrics)
    # not the first trial, which has a new process in any case
    best = min(trials_of(store.runs("s"))[1:], key=lambda run: run.data.metrics[vocabulary.OBJECTIVE])
    settings = Path(best.info.artifact_uri.removeprefix("file://")) / vocabulary.SETTINGS_FILE
    done = train(framework, "--config", settings, "--tracking.parent_run", "null", cwd=store.folder)
    assert done.returncode == 0, done.stderr
    (alone,) = read_runs(store.uri, "s")
    assert alone.tags[vocabulary.SETTINGS_HASH] == best.data.tags[vocabulary.SETTINGS_HASH]
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        of_trial, of_run = (
            [value.value for value in sorted(store.client.get_metric_history(id, name), key=lambda value: value.step)]
            for id in (best.info.run_id, alone.run_id)
        )
        assert of_trial == of_run and len(of_run) == 4


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_processes_share_a_sweep_and_one_continues_the_trial_of_the_other_that_is_killed(
    new_store: Callable[[], Any], start: Callable[..., Any], train: Callable[..., Any]
) -> None:
    store = new_store()
    words = [*SMALL, "--regime", "scratch", "--sweep.num_trials", "6", "--sweep.pruner", "none"]
    first, second = (start(ROOT / "train_torch.py", *words, cwd=store.folder) for _ in range(2))
    # until both train
    deadline = time.monotonic() + 300
    journal: list[Path] = []
    while time.monotonic() < deadline:
        journal = list((store.folder / "runs").glob("s/sweep-*/study.journal"))
        if journal and journal[0].read_text().count(RUN) >= 2:
            break
        time.sleep(0.2)
    second.kill()
    second.communicate()
    output, errors = first.communicate(timeout=900)
    assert first.returncode == 0, errors
    assert "it was interrupted, and goes on" in output
    runs = store.runs("s")
    (parent,) = [run for run in runs if vocabulary.SWEEP in run.data.tags]
    trials = trials_of(runs)
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in trials} == {parent.info.run_id}
    assert parent.info.status == "FINISHED" and parent.data.metrics["sweep/num_trials"] == 6
    assert [run.info.status for run in trials] == ["FINISHED"] * 6
    assert len({run.data.params["learning_rate"] for run in trials}) == 6
    (continued,) = [run for run in trials if vocabulary.RESUMED in run.data.tags]
    points = store.client.get_metric_history(continued.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == [0, 1]
    # each line of the study's journal is about one trial
    noted = [json.loads(line) for line in journal[0].read_text().splitlines()]
    assert len([note for note in noted if SETTINGS in note.get("user_attr", {})]) == 6
    assert not any(RETRIED in note.get("user_attr", {}) for note in noted)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.name != "posix", reason="a process can become another one on POSIX systems alone")
def test_keras_on_tensorflow_restarts_after_ten_trials(new_store: Callable[[], Any], train: Callable[..., Any]) -> None:
    store = new_store()
    words = [*SMALL, "--regime", "scratch", "--max_epochs", "1", "--sweep.num_trials", "11", "--sweep.pruner", "none"]
    done = train("keras", *words, cwd=store.folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("restarting it") == 1 and "10 of 11 trials done" in done.stdout
    runs = store.runs("s")
    assert len(trials_of(runs)) == 11 and {run.info.status for run in runs} == {"FINISHED"}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_range_test_records_its_losses_and_no_network(
    framework: str, new_store: Callable[[], Any], train: Callable[..., Any]
) -> None:
    store = new_store()
    done = train(framework, *SMALL, "--regime", "scratch", "--find_learning_rate", "true", cwd=store.folder)
    assert done.returncode == 0, done.stderr
    (run,) = store.runs("s")
    assert run.info.status == "FINISHED" and vocabulary.FRAMEWORK not in run.data.tags
    assert run.data.tags[vocabulary.RANGE_TEST] in done.stdout
    files = Path(run.info.artifact_uri.removeprefix("file://"))
    with (files / vocabulary.RANGE_TEST_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert 10 < len(rows) <= 100
    losses = store.client.get_metric_history(run.info.run_id, vocabulary.RANGE_LOSS)
    assert len(losses) == len(rows)
    # the loss explodes
    assert float(rows[0]["loss"]) < 0.25 * max(float(row["loss"]) for row in rows)
    assert 'id="loss"' in (files / vocabulary.RANGE_TEST_PAGE_FILE).read_text()
    assert not (files / "final").exists()
    with pytest.raises(NoRuns):
        read_runs(store.uri, "s")
