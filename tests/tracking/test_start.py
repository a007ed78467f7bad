from __future__ import annotations

import dataclasses
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import jsonargparse
import mlflow
import pytest
import yaml
from mlflow.tracking import MlflowClient

from tandem import interrupts
from tandem.errors import UserError
from tandem.protocol.settings import Settings, flatten
from tandem.tracking import sender, vocabulary
from tandem.tracking.journal import Entry
from tandem.tracking.mlflow_store import RunWriter
from tandem.tracking.replay import replay
from tandem.tracking.start import start_run
from tests.recorded_runs import START, artifacts, recorded


def test_every_setting_is_a_parameter(settings: Settings) -> None:
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, classes=["b", "a"]))
    with start_run(settings, **START) as run:
        run.log_params({vocabulary.NUM_CLASSES: 2, "long": "x" * 7000})
    params = recorded(run).data.params
    assert set(params) == {*flatten(settings), vocabulary.NUM_CLASSES, "long"}
    assert params["data.classes"] == '["b", "a"]'
    assert params["threads"] == "null"
    assert params["tracking.log_model"] == "true"
    assert params["regime"] == "finetune"
    assert params["learning_rate"] == "0.001"
    assert params[vocabulary.NUM_CLASSES] == "2"
    assert len(params["long"]) == 6000
    assert "7000 characters" in params["long"]


def test_recorded_settings_file_is_valid_for_the_scripts(settings: Settings) -> None:
    optimizer = dataclasses.replace(settings.optimizer, epsilon=1e-7)
    settings = dataclasses.replace(settings, optimizer=optimizer, learning_rate=3e-5, backbone="größe_é", seed=4)
    with start_run(settings, **START) as run:
        pass
    file = artifacts(run)["settings.yaml"]
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Settings)
    parsed = parser.parse_args([f"--config={file}"]).as_dict()
    del parsed["config"]
    assert parsed == dataclasses.asdict(settings) == yaml.safe_load(file.read_text("utf-8"))


def test_tags_record_framework_versions_script_and_hardware(settings: Settings) -> None:
    with start_run(settings, framework="keras", backend="jax", versions={"keras": "3.15.1"}) as run:
        run.set_tags({vocabulary.SPLIT_HASH: "abc"})
    tags = recorded(run).data.tags
    assert tags["tandem.framework"] == "keras"
    assert tags["tandem.backend"] == "jax"
    assert tags["tandem.version.keras"] == "3.15.1"
    assert tags["tandem.version.mlflow"] == mlflow.__version__
    assert tags["tandem.split_hash"] == "abc"
    assert tags["mlflow.source.name"] == Path(sys.argv[0]).name
    assert "CPUs" in tags["tandem.hardware"]
    assert recorded(run).info.run_name == "keras finetune mobilenet_v2"


def test_folder_name_has_time_title_and_run_id(recorded_at: Callable[..., Settings], tmp_path: Path) -> None:
    with start_run(recorded_at(experiment="my/birds", folder="kept"), **START) as run:
        pass
    assert run.folder.parent == tmp_path / "kept/my_birds"
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-mobilenet_v2-finetune-torch-{run.id[:8]}", run.folder.name)


def test_exception_ends_the_run_failed_with_its_traceback(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), start_run(settings, **START) as run:
        run.log_metrics({"a": 1.0})
        1 / 0  # noqa: B018
    found = recorded(run)
    assert found.info.status == "FAILED"
    assert found.data.tags[vocabulary.FAILURE] == "ZeroDivisionError: division by zero"
    assert found.data.metrics["a"] == 1
    text = artifacts(run)["traceback.txt"].read_text()
    assert "1 / 0" in text and text.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(("code", "status"), [(0, "FINISHED"), (3, "FAILED")])
def test_exit_status_within_a_run_decides_its_status(settings: Settings, code: int, status: str) -> None:
    with pytest.raises(SystemExit), start_run(settings, **START) as run:
        sys.exit(code)
    assert recorded(run).info.status == status


def test_interrupt_that_became_an_exit_is_killed(settings: Settings) -> None:
    with pytest.raises(SystemExit), start_run(settings, **START) as run:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    assert recorded(run).info.status == "KILLED"
    assert "traceback.txt" not in artifacts(run)


def test_signal_handlers_are_restored(settings: Settings) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with start_run(settings, **START):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_run_is_created_if_its_folder_cannot_be(
    recorded_at: Callable[..., Settings], client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"tracking\.folder: received 'file'"),
        start_run(recorded_at(folder="file"), **START),
    ):
        pass
    experiment = client.get_experiment_by_name("tandem")
    assert experiment and client.search_runs([experiment.experiment_id]) == []


TRAINING = """
import sys, time
from pathlib import Path
from tandem.protocol.settings import Settings
from tandem.tracking.start import start_run

print("imported", flush=True)
sys.stdin.readline()
with start_run(Settings(), framework="torch", backend="torch", versions={}) as run:
    run.log_metrics({"a": 1.0})
    print(run.id, run.folder, flush=True)
    if sys.argv[1] == "waits":
        time.sleep(120)
"""


def test_four_processes_share_a_new_database_and_signals_end_them_as_killed(tmp_path: Path) -> None:
    arguments = ["waits", "waits", "waits", "ends"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for argument in arguments
    ]
    try:
        for process in processes:
            assert process.stdout and process.stdout.readline() == "imported\n"
        for process in processes:  # all open the database at once
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        started = [process.stdout.readline().split() for process in processes if process.stdout]
        assert all(len(words) == 2 for words in started), [process.communicate()[1] for process in processes]
        processes[0].send_signal(signal.SIGINT)
        processes[1].send_signal(signal.SIGTERM)
        processes[2].send_signal(signal.SIGKILL)
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    runs = [client.get_run(run_id) for run_id, _ in started]
    assert [run.info.status for run in runs] == ["KILLED", "KILLED", "RUNNING", "FINISHED"], errors
    assert [run.data.metrics.get("a") for run in (runs[0], runs[1], runs[3])] == [1, 1, 1]
    for text, name in zip(errors, ("SIGINT", "SIGTERM"), strict=False):
        lines = text.splitlines()[-3:]
        assert lines[0] == f"tandem.interrupts.Interrupted: {name}"
        assert lines[1].startswith("kept: nothing yet") and lines[2].startswith("to continue: python ")
    assert errors[3] == ""  # no log output of MLflow or alembic
    assert len({run.info.experiment_id for run in runs}) == 1

    # A process killed with SIGKILL cannot end its run; a replay does.
    replay = [sys.executable, "-m", "tandem.tracking.replay", started[2][1]]
    subprocess.run(replay, check=True, capture_output=True)
    dead = client.get_run(started[2][0])
    assert (dead.info.status, dead.data.metrics["a"]) == ("KILLED", 1)
    assert dead.info.end_time - dead.info.start_time < 60_000


def test_signal_during_an_upload_marks_the_run_and_a_replay_completes_it(
    settings: Settings, interrupted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "SECONDS_AFTER_SIGNAL", 0.3)
    upload, may_go_on = RunWriter._write_artifact, threading.Event()

    def slow(writer: RunWriter, entry: Entry) -> None:
        may_go_on.wait(60)
        raise OSError("the process has ended")

    monkeypatch.setattr(RunWriter, "_write_artifact", slow)
    with pytest.raises(interrupts.Interrupted), start_run(settings, **START) as run:
        run.log_metrics({"train/loss": 0.5})
        threading.Timer(1.5, interrupted).start()  # while the rest is sent
    assert recorded(run).info.status == "KILLED"
    monkeypatch.setattr(RunWriter, "_write_artifact", upload)
    assert replay(run.folder) > 0
    assert recorded(run).info.status == "FINISHED"
    may_go_on.set()


@pytest.mark.parametrize("name", ["..", "../../outside", "x" * 250, "/tmp/outside"])
def test_experiment_never_decides_where_files_go(
    name: str, recorded_at: Callable[..., Settings], tmp_path: Path
) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in (path, *path.parents)}
    settings = recorded_at(experiment=name, run_name=name)
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        (run.folder / "x").touch()
        run.log_artifact(run.folder / "x")
    assert run.folder.parent.parent == tmp_path / "runs"
    assert {path for path in tmp_path.parent.rglob("*") if tmp_path not in (path, *path.parents)} == before
    assert not Path("/tmp/outside").exists()
