from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from mlflow.tracking import MlflowClient

from tandem.grid.file import GridCell, read_grid
from tandem.grid.finished import (
    finished_cells,
    identity_of,
    settle_earlier_attempts,
    wait_for_earlier_attempts,
)
from tandem.protocol.frameworks import Framework
from tandem.tracking.process import this_process
from tests.grid.small_cells import TINY, Record
from tests.processes import dead_process

pytestmark = pytest.mark.usefixtures("own_folder")


def test_cell_is_finished_by_a_run_of_its_framework_backend_settings_and_budget(tiny: Path, record: Record) -> None:
    cells = read_grid(tiny).cells
    torch_0, keras_0, torch_1, keras_1 = cells
    record(torch_0, status="FAILED")
    record(torch_0, status="KILLED")
    record(torch_0, budget="small")
    record(keras_0, backend="jax")
    record(torch_1, budget=None)  # like the oldest runs
    record(keras_1)
    assert finished_cells(cells) == {torch_1.number, keras_1.number}
    assert finished_cells(read_grid(tiny, budget="small").cells) == set()


def test_keras_backend_is_part_of_a_cells_identity(tiny: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    _, keras, *_ = read_grid(tiny).cells
    record(keras, backend="tensorflow")
    assert finished_cells([keras]) == {keras.number}
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert finished_cells([keras]) == set()


def test_hardware_and_tracking_settings_are_not_part_of_a_cells_identity(tiny: Path, record: Record) -> None:
    record(read_grid(tiny).cells[0])
    assert finished_cells(read_grid(tiny, more_options=["--threads", "2", "--device", "auto"]).cells) == {1}
    assert finished_cells(read_grid(tiny, more_options=["--learning_rate", "0.5"]).cells) == set()


def test_cell_is_trained_again_if_its_run_lacks_a_requested_model(tiny: Path, record: Record) -> None:
    plain, kept = read_grid(tiny).cells, read_grid(tiny, keep_models=True).cells
    record(plain[0])
    assert (finished_cells(plain), finished_cells(kept)) == ({1}, set())
    record(kept[1])
    assert (finished_cells(plain), finished_cells(kept)) == ({1, 2}, {2})
    weights_alone = read_grid(tiny, more_options=["--tracking.log_weights", "true"]).cells
    assert finished_cells(weights_alone) == {2}


@pytest.fixture
def frozen(tiny: Path) -> Path:
    """TINY with cells that can cache features."""
    tiny.write_text(TINY.replace("regime: [scratch]", "regime: [frozen]"))
    return tiny


def grid_with(
    settings: str, tmp_path: Path, frameworks: tuple[Framework, ...] = ("torch", "keras"), regime: str = "scratch"
) -> tuple[GridCell, ...]:
    """Cells of TINY with one more line of settings."""
    file = tmp_path / "costs.yaml"
    grid = TINY.replace("regime: [scratch]", f"regime: [{regime}]")
    file.write_text(grid.replace("  batch_size: 8\n", f"  batch_size: 8\n  {settings}\n"))
    return read_grid(file, frameworks=frameworks).cells


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ("cache_features: false", ["--cache_features", "false"]),
        ("acceleration: {channels_last: false}", ["--acceleration.channels_last=false"]),
        ("acceleration: {compile: true}", ["--acceleration", '{"compile": true}']),
    ],
)
def test_run_with_other_cost_settings_than_requested_is_not_the_cells(
    settings: str, option: list[str], frozen: Path, tmp_path: Path, record: Record
) -> None:
    left_open, asked, by_option = (
        read_grid(frozen).cells,
        grid_with(settings, tmp_path, regime="frozen"),
        read_grid(frozen, more_options=option).cells,
    )
    record(left_open[1])
    assert [finished_cells(cells) for cells in (left_open, asked, by_option)] == [{2}, set(), set()]
    assert not settle_earlier_attempts(asked[1], identity_of(asked[1]), since=0)
    record(asked[3])
    assert [finished_cells(cells) for cells in (left_open, asked, by_option)] == [{2, 4}, {4}, {4}]
    assert settle_earlier_attempts(asked[3], identity_of(asked[3]), since=0)


def test_requested_cost_setting_counts_even_with_its_default(frozen: Path, tmp_path: Path, record: Record) -> None:
    record(grid_with("cache_features: false", tmp_path, regime="frozen")[0])
    assert finished_cells(read_grid(frozen).cells) == {1}
    assert finished_cells(grid_with("cache_features: true", tmp_path, regime="frozen")) == set()


def test_caching_features_does_not_count_where_nothing_is_frozen(tmp_path: Path, record: Record) -> None:
    record(grid_with("cache_features: false", tmp_path)[0])
    assert finished_cells(grid_with("cache_features: true", tmp_path)) == {1}


@pytest.mark.parametrize("open_setting", ["num_devices: auto", "acceleration: {compile: null}"])
def test_automatic_cost_settings_request_nothing(open_setting: str, tiny: Path, tmp_path: Path, record: Record) -> None:
    (cell, _) = read_grid(tiny, frameworks=["torch"], more_options=["--acceleration.compile", "true"]).cells
    record(cell)  # with num_devices 1: a run records the number instead of `auto`
    assert finished_cells(grid_with(open_setting, tmp_path, ("torch",))) == {1}


def test_run_older_than_cached_features_counts_as_without(tmp_path: Path, record: Record) -> None:
    (without, *_), (with_cache, *_) = (
        grid_with(f"cache_features: {value}", tmp_path, regime="frozen") for value in ("false", "true")
    )
    record(without, leave_out=("cache_features",))
    assert (finished_cells([without]), finished_cells([with_cache])) == ({1}, set())


def test_threads_count_in_the_file_but_not_after_the_dashes(tiny: Path, tmp_path: Path, record: Record) -> None:
    record(read_grid(tiny).cells[0])  # with threads 1 in the file
    more_threads = tmp_path / "threads.yaml"
    more_threads.write_text(TINY.replace("threads: 1", "threads: 2"))
    assert finished_cells(read_grid(more_threads).cells) == set()
    assert finished_cells(read_grid(more_threads, more_options=["--threads", "3"]).cells) == {1}
    two_devices = read_grid(tiny, frameworks=["torch"], more_options=["--num_devices", "2"]).cells
    assert finished_cells(two_devices) == {1}


def test_attempt_whose_process_is_gone_is_left_to_be_continued(
    tiny: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.grid.finished.SECONDS_TO_END", 0.1)
    cell = read_grid(tiny).cells[0]
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")
    gone, living = (record(cell, status="RUNNING", start_time=2000) for _ in range(2))
    client.set_tag(gone, "tandem.process", json.dumps(dead_process()))
    client.set_tag(living, "tandem.process", json.dumps(this_process()))
    assert not settle_earlier_attempts(cell, identity_of(cell), since=2000)
    assert [client.get_run(run).info.status for run in (gone, living)] == ["RUNNING", "FAILED"]


def test_script_that_a_killed_grid_has_left_is_waited_for(
    tiny: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = read_grid(tiny).cells
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")
    left, own = (record(cells[0], status="RUNNING") for _ in range(2))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"]) as script:
        started = psutil.Process(script.pid).create_time()
        client.set_tag(left, "tandem.process", json.dumps({**this_process(), "pid": script.pid, "started": started}))
        wait_for_earlier_attempts(cells[1:])  # not one of these
        assert psutil.Process(script.pid).status() != psutil.STATUS_ZOMBIE
        wait_for_earlier_attempts(cells)
        assert psutil.Process(script.pid).status() == psutil.STATUS_ZOMBIE
    monkeypatch.setattr("tandem.grid.finished.SECONDS_TO_END", 0.3)
    client.set_tag(own, "tandem.process", json.dumps(this_process()))
    wait_for_earlier_attempts(cells)  # not for ever


def test_attempts_on_lost_machines_are_marked_failed(tiny: Path, record: Record) -> None:
    torch_0, keras_0, torch_1, keras_1 = read_grid(tiny).cells
    lost = record(torch_0, status="RUNNING", start_time=2000)
    by_hand = record(torch_0, status="RUNNING", start_time=1999)
    killed = record(torch_0, status="KILLED", start_time=2001)
    other_framework = record(keras_0, status="RUNNING", start_time=2000)
    other_budget = record(torch_0, status="RUNNING", start_time=2000, budget="small")
    assert not settle_earlier_attempts(torch_0, identity_of(torch_0), since=2000)
    assert not settle_earlier_attempts(torch_1, identity_of(torch_1), since=2000)
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")
    runs = {run: client.get_run(run) for run in (lost, by_hand, killed, other_framework, other_budget)}
    assert [run.info.status for run in runs.values()] == ["FAILED", "RUNNING", "KILLED", "RUNNING", "RUNNING"]
    assert "machine was lost" in runs[lost].data.tags["tandem.failure"]

    record(keras_1)
    assert settle_earlier_attempts(keras_1, identity_of(keras_1), since=2000)
    kept = read_grid(tiny, keep_models=True).cells[3]
    assert not settle_earlier_attempts(kept, identity_of(kept), since=2000)
