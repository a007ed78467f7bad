from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.protocol.settings import Settings, SweepSettings, TrackingSettings
from tandem.search.record import start_sweep_run
from tandem.tracking import vocabulary
from tandem.tracking.reader import NoRuns, read_runs


@pytest.fixture
def settings(database: Path) -> Settings:
    return Settings(
        sweep=SweepSettings(num_trials=3), tracking=TrackingSettings(uri=f"sqlite:///{database}", experiment="search")
    )


def test_run_has_the_sweep_s_settings_and_is_not_compared(settings: Settings, client: MlflowClient) -> None:
    with start_sweep_run(settings, framework="keras", study="mine", continued=None, in_use=lambda: False) as sweep:
        assert client.get_run(sweep.id).info.status == "RUNNING"
    run = client.get_run(sweep.id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "keras finetune mobilenet_v2, sweep"
    assert run.data.tags[vocabulary.SWEEP] == "keras: mine"
    assert run.data.params["sweep.num_trials"] == "3"
    with pytest.raises(NoRuns):
        read_runs(settings.tracking.uri, "search")


def test_results_replace_earlier_ones(settings: Settings, client: MlflowClient, tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    with start_sweep_run(settings, framework="torch", study="mine", continued=None, in_use=lambda: False) as sweep:
        for number in (1, 2):
            file.write_text(f"{number} trials")
            sweep.log_results([file], {"sweep/num_trials": number})
    run = client.get_run(sweep.id)
    assert run.data.metrics == {"sweep/num_trials": 2}
    assert Path(client.download_artifacts(sweep.id, "trials.csv")).read_text() == "2 trials"


def test_sweep_continues_its_run_and_leaves_it_running_for_other_processes(
    settings: Settings, client: MlflowClient
) -> None:
    with start_sweep_run(settings, framework="torch", study="mine", continued=None, in_use=lambda: True) as first:
        pass
    assert client.get_run(first.id).info.status == "RUNNING"
    with start_sweep_run(settings, framework="torch", study="mine", continued=first.id, in_use=lambda: False) as again:
        assert again.id == first.id
    assert client.get_run(first.id).info.status == "FINISHED"


def test_run_of_another_mlflow_is_refused(settings: Settings) -> None:
    with (
        pytest.raises(UserError, match=r"^sweep\.study: the run 0{32} .* is not in this MLflow"),
        start_sweep_run(settings, framework="torch", study="mine", continued="0" * 32, in_use=lambda: False),
    ):
        pass


def test_trial_of_a_dead_process_ends_killed_with_its_reason(settings: Settings, client: MlflowClient) -> None:
    with start_sweep_run(settings, framework="torch", study="mine", continued=None, in_use=lambda: False) as sweep:
        trial = client.create_run(sweep.run.experiment_id).info.run_id
        sweep.end_lost_trial(trial, "its process has died")
    run = client.get_run(trial)
    assert run.info.status == "KILLED" and run.data.tags[vocabulary.FAILURE] == "its process has died"
