from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tandem.data_report.record import log_data_report
from tandem.errors import UserError
from tandem.tracking.reader import NoRuns, read_runs

pytestmark = pytest.mark.usefixtures("own_environment")


Make = Callable[[Path], dict[str, float]]


@pytest.fixture
def made() -> list[Path]:
    """Folders that reports were made in."""
    return []


@pytest.fixture
def make(made: list[Path]) -> Make:
    def write(folder: Path) -> dict[str, float]:
        made.append(folder)
        (folder / "data_set.html").write_text("<p>hello")
        (folder / "tables").mkdir()
        (folder / "tables/classes.csv").write_text("class\n")
        return {"num_images": 30.0}

    return write


def log(
    client: MlflowClient,
    make: Make,
    *,
    experiment: str = "mine",
    split_hash: str = "0123",
    lock_folder: Path | None = None,
) -> str | None:
    return log_data_report(
        client.tracking_uri,
        experiment,
        name="pets",
        split_hash=split_hash,
        params={"data.source": "pets", "data.split_seed": 0},
        lock_folder=lock_folder,
        make=make,
    )


def test_report_is_a_run_of_its_own_with_files_and_numbers(client: MlflowClient, make: Make) -> None:
    run_id = log(client, make)
    assert run_id is not None
    run = client.get_run(run_id)
    assert run.info.run_name == "data set: pets" and run.info.status == "FINISHED"
    assert run.data.tags["tandem.data_report"] == "0123"
    assert run.data.params == {"data.source": "pets", "data.split_seed": "0"}
    assert run.data.metrics == {"data/num_images": 30.0}
    assert Path(client.download_artifacts(run_id, "data_set.html")).read_text() == "<p>hello"
    assert Path(client.download_artifacts(run_id, "tables/classes.csv")).read_text() == "class\n"


def test_report_is_not_a_training_run(client: MlflowClient, make: Make) -> None:
    log(client, make)
    with pytest.raises(NoRuns):
        read_runs(client.tracking_uri, "mine")


def test_second_time_nothing_is_made(client: MlflowClient, make: Make, made: list[Path]) -> None:
    assert log(client, make) is not None
    assert log(client, make) is None
    experiment = client.get_experiment_by_name("mine")
    assert len(client.search_runs([experiment.experiment_id])) == 1
    assert len(made) == 1 and not made[0].exists()


def test_of_four_processes_at_once_one_makes_the_report(client: MlflowClient, make: Make, tmp_path: Path) -> None:
    client.create_experiment("mine")
    begin = threading.Barrier(4)

    def make_slowly(folder: Path) -> dict[str, float]:
        time.sleep(1.0)
        return make(folder)

    def log_at_once(number: int) -> str | None:
        begin.wait()
        return log(client, make_slowly, lock_folder=tmp_path)

    with ThreadPoolExecutor(4) as pool:
        logged = list(pool.map(log_at_once, range(4)))
    assert len([run_id for run_id in logged if run_id is not None]) == 1
    experiment = client.get_experiment_by_name("mine")
    assert len(client.search_runs([experiment.experiment_id])) == 1
    # the lock is free again, and that of another experiment is another one
    assert log(client, make, lock_folder=tmp_path) is None
    assert log(client, make, experiment="other", lock_folder=tmp_path) is not None


def test_cache_that_cannot_be_written_needs_no_lock(client: MlflowClient, make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert log(client, make, lock_folder=tmp_path / "file") is not None


def test_other_images_and_other_experiments_have_their_own(client: MlflowClient, make: Make) -> None:
    logged = {log(client, make), log(client, make, split_hash="4567"), log(client, make, experiment="other")}
    assert len(logged) == 3 and None not in logged


def test_report_that_failed_is_made_again(client: MlflowClient, make: Make) -> None:
    experiment = client.create_experiment("mine")
    failed = client.create_run(experiment, tags={"tandem.data_report": "0123"}).info.run_id
    client.set_terminated(failed, "FAILED")
    assert log(client, make) is not None


def test_report_that_cannot_be_made_is_not_recorded(client: MlflowClient) -> None:
    def make(folder: Path) -> dict[str, float]:
        raise RuntimeError("no report")

    with pytest.raises(RuntimeError, match="no report"):
        log(client, make)
    experiment = client.get_experiment_by_name("mine")
    assert len(client.search_runs([experiment.experiment_id])) == 0


def test_run_whose_files_cannot_be_written_fails(client: MlflowClient, make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    client.create_experiment("mine", (tmp_path / "file/artifacts").as_uri())
    with pytest.raises(UserError, match=r"data_set\.html cannot be written to the artifacts of the MLflow run"):
        log(client, make)
    experiment = client.get_experiment_by_name("mine")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]


def test_unreachable_server_is_named(make: Make, made: list[Path], free_port: int) -> None:
    uri = f"http://127.0.0.1:{free_port}"
    with pytest.raises(UserError, match=f"no MLflow server answers at {uri}"):
        log_data_report(uri, "mine", name="pets", split_hash="0123", params={}, make=make)
    assert made == []
