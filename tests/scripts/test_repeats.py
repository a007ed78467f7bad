from __future__ import annotations

import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.tracking import vocabulary

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--config", "settings.yaml", "--regime", "scratch", "--max_epochs", "1", "--data.images_per_class", "30"]
SMALL += ["--tracking.data_report", "false", "--tracking.log_model", "false", "--tracking.experiment", "repeats"]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_each_fold_is_a_run_under_a_parent_with_mean_and_deviation(
    framework: str, new_store: Callable[[], Any], train: Callable[..., Any]
) -> None:
    store = new_store()
    done = train(framework, *SMALL, "--data.split", "folds", "--data.folds", "2", cwd=store.folder)
    assert done.returncode == 0, done.stderr
    runs = store.runs("repeats")
    (parent,) = [run for run in runs if vocabulary.REPEATS in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert [run.data.params["data.fold"] for run in children] == ["0", "1"]
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    # each image is tested once
    assert len({run.data.tags[vocabulary.TEST_HASH] for run in children}) == 2
    assert sum(int(run.data.params["num_test_images"]) for run in children) == 150
    losses = [run.data.metrics["test/log_loss"] for run in children]
    assert len(set(losses)) == 2
    assert parent.data.metrics["mean/test/log_loss"] == pytest.approx(sum(losses) / 2)
    assert parent.data.metrics["std/test/log_loss"] == pytest.approx(statistics.stdev(losses))
    assert "[2/2] seed 0, fold 1" in done.stdout and "standard deviation" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_command_keeps_the_finished_fold_and_leaves_no_process(
    new_store: Callable[[], Any], start: Callable[..., subprocess.Popen[str]], train: Callable[..., Any]
) -> None:
    store = new_store()
    words = [*SMALL, "--max_epochs", "4", "--tracking.log_weights", "false", "--tracking.grad_cam_images", "0"]
    words += ["--data.split", "folds", "--data.folds", "2"]
    process = start(ROOT / "train_torch.py", *words, cwd=store.folder)
    deadline = time.monotonic() + 300
    while len(list(store.folder.glob("runs/repeats/*-scratch-torch-*"))) < 2 or not any(
        store.folder.glob("runs/repeats/*/checkpoint/epoch.npz")
    ):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    scripts = psutil.Process(process.pid).children()
    assert len(scripts) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = train("torch", *words, cwd=store.folder)
    assert done.returncode == 0, done.stderr
    assert not scripts[0].is_running()
    assert "[1/2] seed 0, fold 0: finished before" in done.stdout
    assert "Continuing the run torch scratch mobilenet_v2, fold 1" in done.stderr
    runs = store.runs("repeats")
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    alone = train("torch", *words, "--data.fold", "1", "--resume", "never", cwd=store.folder)
    assert alone.returncode == 0, alone.stderr
    known = {run.info.run_id for run in runs}
    (whole,) = [run for run in store.runs("repeats") if run.info.run_id not in known]
    (continued,) = [run for run in runs if run.data.params.get("data.fold") == "1"]
    for name in ("train/loss", "val/loss", "test/log_loss"):
        points = [
            sorted((point.step, point.value) for point in store.client.get_metric_history(run.info.run_id, name))
            for run in (whole, continued)
        ]
        assert points[0] == points[1], name


@pytest.mark.long
@pytest.mark.timeout(600)
def test_failed_seed_does_not_stop_the_others(new_store: Callable[[], Any], train: Callable[..., Any]) -> None:
    store = new_store()
    # decoupled weight decay: each step multiplies the weights by 1 - 10 * 1, so that float32 overflows in 40 steps
    words = [*SMALL, "--regime", "frozen", "--max_epochs", "8", "--learning_rate", "10"]
    words += ["--optimizer.name", "adamw", "--optimizer.weight_decay", "1", "--early_stopping.patience", "null"]
    done = train("torch", *words, "--seeds", "[1, 2]", cwd=store.folder)
    assert done.returncode == 2
    assert "2 of 2 runs failed, see their messages above: seed 1; seed 2" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    runs = store.runs("repeats")
    assert [run.info.status for run in runs] == ["FAILED"] * 3
