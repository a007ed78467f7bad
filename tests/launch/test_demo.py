from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tandem.launch.demo import CONFIGS, REGIMES, TARGET_EXPERIMENT, target_options
from tandem.protocol.frameworks import Framework
from tandem.protocol.parser import read_settings
from tandem.tracking.numbers import read_numbers

FRAMEWORKS: tuple[Framework, ...] = ("torch", "keras")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("regime", REGIMES)
def test_both_scripts_take_the_settings_of_every_run(framework: Framework, regime: str) -> None:
    settings = read_settings(framework, target_options(regime, "0" * 32))
    assert (settings.regime, settings.tracking.experiment) == (regime, TARGET_EXPERIMENT)
    assert read_settings(framework, ["--config", str(CONFIGS / "source.yaml")]).regime == "scratch"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_demonstration_shows_the_same_order_of_regimes_in_both_frameworks(tmp_path: Path) -> None:
    foreign = ("MLFLOW_TRACKING_URI", "KERAS_BACKEND", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    done = subprocess.run(
        [sys.executable, "-m", "tandem.launch.demo"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = {}
    for name in ("demo-source", "demo"):
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        runs[name] = client.search_runs([experiment.experiment_id])
        assert {run.info.status for run in runs[name]} == {"FINISHED"}
    trained = [run for run in runs["demo"] if "tandem.framework" in run.data.tags]
    for name, num_trained in (("demo-source", 2), ("demo", 8)):
        assert sum("tandem.framework" in run.data.tags for run in runs[name]) == num_trained
        assert sum("tandem.data_report" in run.data.tags for run in runs[name]) == 1
    (comparison,) = [run for run in runs["demo"] if "tandem.comparison" in run.data.tags]
    assert "report.html" in [file.path for file in client.list_artifacts(comparison.info.run_id)]
    assert (tmp_path / "comparison" / "report.html").stat().st_size > 1e6

    accuracy: dict[str, dict[str, float]] = defaultdict(dict)
    for run in trained:
        accuracy[run.data.tags["tandem.framework"]][run.data.params["regime"]] = run.data.metrics["test/accuracy"]
        numbers = read_numbers(run)
        assert numbers["phase_1/cost/train_seconds"] > 0
        assert ("phase_2/cost/train_seconds" in numbers) == (run.data.params["regime"] == "two_stage")
    assert len({run.data.tags["tandem.test_hash"] for run in trained}) == 1
    for framework in ("torch", "keras"):
        order = sorted(accuracy[framework], key=accuracy[framework].__getitem__, reverse=True)
        assert order == ["finetune", "scratch", "two_stage", "frozen"], accuracy  # as on five seeds in docs/results.md

    table = (tmp_path / "comparison" / "summary.md").read_text(encoding="utf-8")
    for framework, regimes in accuracy.items():
        for regime, value in regimes.items():
            (row,) = [line for line in table.splitlines() if framework in line and f" {regime} " in line]
            assert f"{value:.4f}" in row and f"{value:.4f}" in done.stdout
