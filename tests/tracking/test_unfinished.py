from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.protocol.settings import Settings
from tandem.tracking import vocabulary
from tandem.tracking.process import LEASE_SECONDS, is_gone, this_process
from tandem.tracking.run import Run
from tandem.tracking.start import start_run
from tandem.tracking.unfinished import RUNNING, read_record
from tests.processes import dead_process

START: dict[str, Any] = {"framework": "torch", "backend": "torch", "versions": {"torch": "2.15.0"}}


def client() -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")


def recorded(run: Run) -> MlflowRun:
    return client().get_run(run.id)


def interrupt(settings: Settings, **changes: Any) -> Run:
    with pytest.raises(KeyboardInterrupt) as caught, start_run(settings, **{**START, **changes}) as run:
        run.log_params({"num_classes": 5})
        run.log_metrics({"train/loss": 1.0}, step=0)
        raise KeyboardInterrupt
    kept, command = caught.value.__notes__
    assert kept.startswith("kept: nothing yet") and str(run.folder) in kept
    assert command.startswith("to continue: python ")
    return run


def change_record(run: Run, **changes: Any) -> None:
    record = read_record(run.folder)
    assert record is not None
    dataclasses.replace(record, **changes).write(run.folder)


def test_interrupted_run_continues_without_doubled_points(settings: Settings) -> None:
    first = interrupt(settings)
    assert recorded(first).info.status == "KILLED"
    with start_run(settings, **START) as run:
        assert run.id == first.id and run.folder == first.folder
        assert recorded(run).info.status == "RUNNING"
        run.log_params({"num_classes": 5})
        run.log_metrics({"train/loss": 1.0}, step=0)
        run.log_metrics({"train/loss": 0.5}, step=1)
    found = recorded(run)
    assert found.info.status == "FINISHED"
    assert found.data.tags[vocabulary.RESUMED] == "1"
    points = client().get_metric_history(run.id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(0, 1.0), (1, 0.5)]
    samples = client().get_metric_history(run.id, "system/cpu_percent")
    assert sorted(sample.step for sample in samples) == [0, 1]
    with start_run(settings, **START) as another:  # a finished run is not continued
        assert another.id != run.id


def test_run_of_a_dead_process_continues(settings: Settings) -> None:
    first = interrupt(settings)
    change_record(first, state=RUNNING, process=dead_process())
    with start_run(settings, **START) as run:
        assert run.id == first.id


def test_run_of_a_living_process_does_not(settings: Settings) -> None:
    first = interrupt(settings)
    change_record(first, state=RUNNING, process=this_process())
    with start_run(settings, **START) as run:
        assert run.id != first.id


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"learning_rate": 0.5}, {}),
        ({"threads": 2}, {}),
        ({"resume": "never"}, {}),
        ({}, {"framework": "keras"}),
        ({}, {"versions": {"torch": "2.16.0"}}),
        ({}, {"not_compared": {"tandem.trial": "0"}}),
    ],
    ids=["other numbers", "other cost", "never", "other framework", "other version", "trial"],
)
def test_other_commands_start_a_new_run(settings: Settings, changes: dict[str, Any], start: dict[str, Any]) -> None:
    first = interrupt(settings)
    with start_run(dataclasses.replace(settings, **changes), **{**START, **start}) as run:
        assert run.id != first.id


def test_failed_run_continues_on_request_only(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), start_run(settings, **START) as failed:
        1 / 0  # noqa: B018
    with start_run(settings, **START) as run:
        assert run.id != failed.id
    for name in (failed.id, str(failed.folder)):
        with pytest.raises(KeyboardInterrupt), start_run(dataclasses.replace(settings, resume=name), **START) as run:
            assert run.id == failed.id
            raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "message"), [("lacking", "allowed: auto, never"), (".", "without process.json")])
def test_wrong_name_of_a_run_is_refused(settings: Settings, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message), start_run(dataclasses.replace(settings, resume=name), **START):
        pass


def test_run_with_other_settings_is_not_continued_on_request(settings: Settings) -> None:
    first = interrupt(settings)
    other = dataclasses.replace(settings, resume=first.id, seed=3)
    with pytest.raises(UserError, match="other settings"), start_run(other, **START):
        pass


def test_next_start_marks_dead_runs_as_killed(settings: Settings, recorded_at: Callable[..., Settings]) -> None:
    dead = [interrupt(settings), interrupt(recorded_at(folder="elsewhere"))]
    process = dead_process()
    for run in dead:
        change_record(run, state=RUNNING, process=process)
        client().set_tag(run.id, vocabulary.PROCESS, json.dumps(process))
        client().update_run(run.id, status="RUNNING")
    with start_run(dataclasses.replace(settings, seed=1), **START):
        assert [recorded(run).info.status for run in dead] == ["KILLED", "KILLED"]


def test_process_of_another_machine_is_gone_when_its_lease_has_run_out(tmp_path: Path) -> None:
    file = tmp_path / "process.json"
    file.touch()
    process = {**this_process(), "boot": "another"}
    assert not is_gone(process, file)
    old = file.stat().st_mtime - LEASE_SECONDS - 1
    os.utime(file, (old, old))
    assert is_gone(process, file)
    assert not is_gone(process)


def test_number_that_another_process_has_by_now_is_gone() -> None:
    process = this_process()
    assert not is_gone(process)
    assert is_gone({**process, "started": process["started"] - 100})


def test_record_of_another_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "process.json").write_text('{"run": 1}')
    assert read_record(tmp_path) is None
