"""Sweeps whose trials have hand-written losses, and their results in MLflow and in files."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from tandem.data.prepare import PreparedData
from tandem.errors import TrainingDiverged, UserError
from tandem.protocol.parser import change_settings, read_settings
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import Settings, SweepSettings
from tandem.recording.run import PhaseOutcome
from tandem.search import sweep as sweep_module
from tandem.search.study import OWNER, _machine
from tandem.search.sweep import Trainer, objective_of, run_sweep
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tandem.tracking.mlflow_store import connect
from tandem.tracking.provenance import settings_yaml
from tandem.tracking.reader import NoRuns, read_runs
from tandem.tracking.run import Run
from tandem.tracking.unfinished import RUNNING, mark_dead_runs, read_record
from tests.processes import dead_process

ROOT = Path(__file__).parents[2]

Losses = Callable[[Settings], Iterable[float]]


class OutOfMemoryError(RuntimeError):
    """The framework's exception."""


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, which takes it seconds."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def settings_in(folder: Path, empty_database: Path, cache: Path) -> Settings:
    """A sweep of three trials in a folder, with a store of its own."""
    database = shutil.copy(empty_database, folder / "mlflow.db")
    words = ["--regime", "two_stage", "--weights", "random", "--sweep.num_trials", "3", "--max_epochs", "5"]
    words += ["--data.image_size", "32", "--data.images_per_class", "10", "--data.cache_folder", str(cache)]
    words += ["--tracking.uri", f"sqlite:///{database}", "--tracking.system_interval", "60"]
    words += ["--tracking.folder", str(folder / "runs")]
    return read_settings("torch", words)


@pytest.fixture
def settings(empty_database: Path, cache: Path, tmp_path: Path) -> Settings:
    """Settings of a sweep that has not begun."""
    return settings_in(tmp_path, empty_database, cache)


@dataclass(frozen=True)
class Finished:
    """An ended sweep, which tests only read."""

    settings: Settings
    trained: list[Settings]


@pytest.fixture(scope="module")
def finished(empty_database: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A sweep of five trials over two settings."""
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "head.hidden": [[], [16]]}
    changes = {"sweep.space": space, "sweep.num_trials": 5}
    settings = change_settings(
        settings_in(tmp_path_factory.mktemp("finished"), empty_database, cache), "torch", changes
    )
    return Finished(settings, sweep(settings, by_rate))


def sweep(
    settings: Settings, losses: Losses, trials_per_process: int | None = None, **changes: object
) -> list[Settings]:
    """Runs a sweep whose trials have these validation losses in each phase; returns the settings of the trials."""
    trained: list[Settings] = []

    def train(settings: Settings, data: PreparedData, run: Run, curves: Curves) -> PhaseOutcome:
        trained.append(settings)
        of_epochs = losses(settings)
        of_phase: list[float] = []
        for phase in phases_of(settings):
            of_epochs, of_phase = of_phase or of_epochs, []
            for loss in of_epochs:
                of_phase.append(loss)
                curves.add(
                    phase,
                    learning_rate=phase.learning_rate,
                    seconds=0.1,
                    train_loss=loss,
                    train_accuracy=0.5,
                    val_loss=loss,
                    val_accuracy=1 / (1 + loss),
                )
        return PhaseOutcome(
            epochs=len(of_phase),
            best_epoch=of_phase.index(min(of_phase)),
            train_seconds=1.0,
            compile_seconds=0.0,
            parameters=1,
            trainable_parameters=1,
            backbone_before="",
            backbone_after="",
            frozen_before="",
            frozen_after="",
            first_epoch_hash=None,
        )

    trainer = Trainer(
        framework="torch",
        backend="torch",
        versions={"torch": "0"},
        train=train,
        is_out_of_memory=lambda error: isinstance(error, OutOfMemoryError),
        trials_per_process=trials_per_process,
    )
    run_sweep(change_settings(settings, "torch", changes), trainer)
    return trained


def runs_of(settings: Settings) -> tuple[MlflowRun, list[MlflowRun]]:
    """The sweep's run and those of its trials, in the order of their creation."""
    client = MlflowClient(tracking_uri=settings.tracking.uri)
    found = client.get_experiment_by_name(settings.tracking.experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])
    (parent,) = [run for run in runs if vocabulary.SWEEP in run.data.tags]
    trials = [run for run in runs if run is not parent]
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in trials} <= {parent.info.run_id}
    return parent, trials


def folder_of(settings: Settings) -> Path:
    (folder,) = Path(settings.tracking.folder, settings.tracking.experiment).glob("sweep-*")
    return folder


def by_rate(settings: Settings) -> list[float]:
    """Losses that fall to the learning rate in the second epoch, and rise again."""
    return [1.0, settings.learning_rate, 2.0]


# -------------------------------------------------------------------------------------------------------- what is left


def test_best_settings_train_once_in_both_scripts(finished: Finished) -> None:
    best = min(finished.trained, key=lambda one: one.learning_rate)
    values = {"learning_rate": best.learning_rate, "head.hidden": best.head.hidden, "sweep": SweepSettings()}
    file = folder_of(finished.settings) / "best.yaml"
    for framework in ("torch", "keras"):
        read = read_settings(framework, ["--config", str(file)])  # type: ignore[arg-type]
        assert read == change_settings(finished.settings, "torch", values)
    assert file.read_text().startswith("# Trial ")


def test_trials_are_runs_under_the_sweeps_run(finished: Finished) -> None:
    rates = [one.learning_rate for one in finished.trained]
    parent, trials = runs_of(finished.settings)
    assert [run.info.status for run in (parent, *trials)] == ["FINISHED"] * 6
    assert [run.info.run_name for run in trials] == [f"trial {number}" for number in range(5)]
    assert [float(run.data.params["learning_rate"]) for run in trials] == rates
    assert [run.data.metrics[vocabulary.OBJECTIVE] for run in trials] == rates
    assert {run.data.tags[vocabulary.TRIAL_STATE] for run in trials} == {"complete"}
    assert parent.data.params["sweep.num_trials"] == "5"
    assert parent.data.metrics == {
        "sweep/num_trials": 5,
        "sweep/num_pruned": 0,
        "sweep/num_failed": 0,
        "sweep/best": min(rates),
    }
    client = MlflowClient(tracking_uri=finished.settings.tracking.uri)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"best.yaml", "trials.csv", "sweep.html"}


def test_comparisons_ignore_sweeps(finished: Finished) -> None:
    with pytest.raises(NoRuns):
        read_runs(finished.settings.tracking.uri, finished.settings.tracking.experiment)


def test_page_shows_the_figures_and_needs_no_network(finished: Finished) -> None:
    page = (folder_of(finished.settings) / "sweep.html").read_text()
    for section in ("trials", "history", "importance", "slices", "contours", "timeline"):
        assert f'id="{section}"' in page
    assert page.count("data-figure=") == 6
    assert "default-src 'none'" in page


def test_table_of_trials_has_the_best_first(finished: Finished) -> None:
    with (folder_of(finished.settings) / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == sorted(one.learning_rate for one in finished.trained)
    assert {row["end"] for row in rows} == {"complete"} and {row["epochs"] for row in rows} == {"6"}


def test_trials_differ_from_the_sweep_s_settings_only_in_varied_ones(finished: Finished) -> None:
    for trial in finished.trained:
        values = {"learning_rate": trial.learning_rate, "head.hidden": trial.head.hidden}
        again = change_settings(finished.settings, "torch", values)
        assert dataclasses.replace(trial, tracking=again.tracking, sweep=again.sweep) == again
        assert trial.sweep.num_trials is None


# --------------------------------------------------------------------------------------------------- what trials are


@pytest.mark.parametrize(
    ("metric", "restore", "expected"),
    [("loss", "best", 0.3), ("loss", "last", 0.6), ("accuracy", "best", 0.7), ("accuracy", "last", 0.9)],
)
def test_trial_is_judged_by_its_final_network(metric: str, restore: str, expected: float) -> None:
    # the first phase is better than the second; the epoch of the lowest loss is not that of the highest accuracy
    losses = [(1, 0.1, 0.95), (2, 0.5, 0.5), (2, 0.3, 0.7), (2, 0.6, 0.9)]
    rows = [{"phase": phase, "loss": loss, "accuracy": accuracy} for phase, loss, accuracy in losses]
    assert objective_of(rows, metric, 1, restore) == expected  # type: ignore[arg-type]


def test_bad_trial_is_pruned_and_tagged(settings: Settings) -> None:
    num_trained = 0

    def losses(_: Settings) -> list[float]:
        nonlocal num_trained
        num_trained += 1
        return [float(num_trained)] * 3

    # the median rule begins after five trials; the seventh trial runs without it
    sweep(settings, losses, **{"sweep.num_trials": 6})
    sweep(settings, losses, **{"sweep.num_trials": 7, "sweep.pruner": "none"})
    parent, trials = runs_of(settings)
    states = ["complete"] * 5 + ["pruned", "complete"]
    assert [run.data.tags[vocabulary.TRIAL_STATE] for run in trials] == states
    assert [run.info.status for run in trials] == ["KILLED" if state == "pruned" else "FINISHED" for state in states]
    client = MlflowClient(tracking_uri=settings.tracking.uri)
    epochs = [len(client.get_metric_history(run.info.run_id, vocabulary.VAL_LOSS)) for run in trials]
    assert epochs == [6] * 5 + [1, 6]
    assert parent.data.metrics["sweep/num_pruned"] == 1
    assert parent.info.status == "FINISHED"


# ------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    "error",
    [TrainingDiverged("the loss is nan"), OutOfMemoryError("CUDA")],
)
def test_trial_that_fails_because_of_its_settings_does_not_end_the_sweep(settings: Settings, error: Exception) -> None:
    num_trained = 0

    def losses(settings: Settings) -> list[float]:
        nonlocal num_trained
        num_trained += 1
        if num_trained == 1:
            raise error
        return by_rate(settings)

    sweep(settings, losses, **{"sweep.num_trials": 2})
    parent, trials = runs_of(settings)
    assert [run.info.status for run in (parent, *trials)] == ["FINISHED", "FAILED", "FINISHED"]
    assert trials[0].data.tags[vocabulary.TRIAL_STATE] == "failed"
    assert str(error) in trials[0].data.tags[vocabulary.FAILURE]
    assert parent.data.metrics["sweep/num_failed"] == 1
    assert str(error) in (folder_of(settings) / "trials.csv").read_text()


def test_no_best_settings_if_every_trial_fails(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(settings, lambda _: [float("nan")], **{"sweep.num_trials": 1})
    assert {file.name for file in folder_of(settings).iterdir()} >= {"trials.csv"}
    assert not (folder_of(settings) / "best.yaml").exists()
    assert "no best settings" in capsys.readouterr().out


def test_sweep_that_an_error_ended_tries_the_trial_again(settings: Settings) -> None:
    error, status = OSError("disk full"), "FAILED"
    num_trained = 0
    interrupted: list[float] = []

    def losses(settings: Settings) -> list[float]:
        nonlocal num_trained
        num_trained += 1
        if num_trained == 2:
            interrupted.append(settings.learning_rate)
            raise error
        return by_rate(settings)

    with pytest.raises(OSError):
        sweep(settings, losses, **{"sweep.num_trials": 2})
    parent, trials = runs_of(settings)
    assert [run.info.status for run in (parent, *trials)] == [status, "FINISHED", status]
    assert (folder_of(settings) / "best.yaml").exists()

    trained = sweep(settings, by_rate, **{"sweep.num_trials": 2})
    assert [one.learning_rate for one in trained] == interrupted
    parent, trials = runs_of(settings)
    assert len(trials) == 3 and parent.info.status == "FINISHED"
    assert parent.data.metrics["sweep/num_trials"] == 2


def interrupt_second_trial(settings: Settings) -> float:
    """Interrupts a sweep in the second trial, after three epochs; returns the trial's learning rate."""
    rates: list[float] = []

    def losses(settings: Settings) -> Iterable[float]:
        rates.append(settings.learning_rate)
        return interrupting(settings) if len(rates) == 2 else by_rate(settings)

    def interrupting(settings: Settings) -> Iterator[float]:
        yield from by_rate(settings)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(settings, losses)
    parent, trials = runs_of(settings)
    assert [run.info.status for run in (parent, *trials)] == ["KILLED", "FINISHED", "KILLED"]
    return rates[1]


def kill(settings: Settings) -> None:
    """Makes the interrupted trial one whose process was killed."""
    _, trials = runs_of(settings)
    client = MlflowClient(tracking_uri=settings.tracking.uri)
    client.update_run(trials[1].info.run_id, status="RUNNING")
    (folder,) = Path(settings.tracking.folder).glob(f"*/*-{trials[1].info.run_id[:8]}")
    record = read_record(folder)
    assert record is not None
    process = dead_process()
    dataclasses.replace(record, state=RUNNING, process=process).write(folder)
    study = study_of(settings)
    (trial,) = study.get_trials(states=(TrialState.RUNNING,))
    owner = {"machine": _machine(), "process": process["pid"], "started": process["started"]}
    Trial(study, trial._trial_id).set_user_attr(OWNER, owner)


def study_of(settings: Settings) -> optuna.Study:
    journal = JournalStorage(JournalFileBackend(str(folder_of(settings) / "study.journal")))
    return optuna.load_study(study_name=None, storage=journal)


@pytest.mark.parametrize("is_killed", [False, True])
def test_interrupted_trial_goes_on_with_its_number_and_its_run(settings: Settings, is_killed: bool) -> None:
    rate = interrupt_second_trial(settings)
    if is_killed:
        kill(settings)
    trained = sweep(settings, by_rate)
    assert trained[0].learning_rate == rate and len(trained) == 2
    parent, trials = runs_of(settings)
    assert [run.info.run_name for run in trials] == ["trial 0", "trial 1", "trial 2"]
    assert {run.info.status for run in (parent, *trials)} == {"FINISHED"}
    assert trials[1].data.tags[vocabulary.RESUMED] == "1"
    client = MlflowClient(tracking_uri=settings.tracking.uri)
    points = client.get_metric_history(trials[1].info.run_id, vocabulary.VAL_LOSS)
    assert [(point.step, point.value) for point in points] == list(enumerate([1.0, rate, 2.0] * 2))
    assert parent.data.metrics["sweep/num_trials"] == 3
    ended = study_of(settings).get_trials()
    assert [trial.state for trial in ended] == [TrialState.COMPLETE] * 3
    assert list(ended[1].intermediate_values) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("reason", ["no folder", "never"])
def test_trial_that_cannot_go_on_is_tried_again(settings: Settings, reason: str) -> None:
    rate = interrupt_second_trial(settings)
    kill(settings)
    if reason == "never":
        settings = dataclasses.replace(settings, resume="never")
    else:
        shutil.rmtree(next(Path(settings.tracking.folder).glob(f"*/*-{runs_of(settings)[1][1].info.run_id[:8]}")))
    trained = sweep(settings, by_rate)
    assert trained[0].learning_rate == rate
    parent, trials = runs_of(settings)
    assert [run.info.status for run in (parent, *trials)] == ["FINISHED", "FINISHED", "KILLED", "FINISHED", "FINISHED"]
    assert parent.data.metrics["sweep/num_trials"] == 3


def test_next_start_marks_a_dead_sweep_only_if_all_its_processes_are_gone(settings: Settings) -> None:
    sweep(settings, by_rate, **{"sweep.num_trials": 1})
    parent, _ = runs_of(settings)
    client = MlflowClient(tracking_uri=settings.tracking.uri)
    client.update_run(parent.info.run_id, status="RUNNING")
    client.set_tag(parent.info.run_id, f"{vocabulary.PROCESS}.dead", json.dumps(dead_process()))
    folder = Path(settings.tracking.folder)
    mark_dead_runs(client, parent.info.experiment_id, folder, but="")
    assert runs_of(settings)[0].info.status == "RUNNING"
    (living,) = [name for name in parent.data.tags if name.startswith(f"{vocabulary.PROCESS}.")]
    client.delete_tag(parent.info.run_id, living)
    mark_dead_runs(client, parent.info.experiment_id, folder, but="")
    assert runs_of(settings)[0].info.status == "KILLED"


def test_same_command_continues_and_another_space_begins_again(settings: Settings) -> None:
    assert len(sweep(settings, by_rate, **{"sweep.num_trials": 1})) == 1
    assert len(sweep(settings, by_rate, **{"sweep.num_trials": 1})) == 0
    assert len(sweep(settings, by_rate, **{"sweep.num_trials": 2})) == 1
    assert len(sweep(settings, by_rate, **{"sweep.num_trials": 1, "batch_size": 64})) == 1


def test_named_study_of_other_settings_is_refused(settings: Settings) -> None:
    sweep(settings, by_rate, **{"sweep.study": "mine", "sweep.num_trials": 1})
    with pytest.raises(UserError, match=r"'mine' belongs to other settings \(settings differ\)"):
        sweep(settings, by_rate, **{"sweep.study": "mine", "batch_size": 64})


def test_study_whose_runs_are_in_another_mlflow_is_refused(
    settings: Settings, empty_database: Path, tmp_path: Path
) -> None:
    sweep(settings, by_rate, **{"sweep.num_trials": 1})
    other = shutil.copy(empty_database, tmp_path / "other.db")
    with pytest.raises(UserError, match=r"is not in this MLflow; give the --tracking\.uri"):
        sweep(settings, by_rate, **{"tracking.uri": f"sqlite:///{other}"})


def test_lost_database_is_one_line_and_ends_the_run(settings: Settings, tmp_path: Path) -> None:
    study = tmp_path / "study.db"

    def losses(settings: Settings) -> list[float]:
        with contextlib.closing(sqlite3.connect(study)) as database:
            database.execute("DROP TABLE trial_intermediate_values")
        return by_rate(settings)

    with pytest.raises(UserError, match=r"database no longer answers: .*the same command continues the sweep"):
        sweep(settings, losses, **{"sweep.storage": f"sqlite:///{study}"})
    parent, trials = runs_of(settings)
    assert [run.info.status for run in (parent, *trials)] == ["FAILED", "FAILED"]


@pytest.mark.skipif(os.name != "posix", reason="a process can become another one on POSIX systems alone")
def test_process_restarts_after_its_trials_and_continues(settings: Settings, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        f"sys.path[:0] = {[str(ROOT), str(Path(__file__).parent)]!r}\n"
        "from test_sweep import by_rate, sweep\n"
        "from tandem.protocol.parser import read_settings\n"
        "settings = read_settings('torch', sys.argv[1:])\n"
        "trained = sweep(settings, by_rate, trials_per_process=2)\n"
        "print('last:', len(trained))\n"
    )
    file = tmp_path / "settings.yaml"
    file.write_text(settings_yaml(change_settings(settings, "torch", {"sweep.num_trials": 5})))
    done = subprocess.run(
        [sys.executable, program, "--config", file], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(" trials done")[0][-6:] for line in done.stdout.splitlines() if "trials done" in line] == [
        "0 of 5",
        "2 of 5",
        "4 of 5",
    ]
    assert done.stdout.rstrip().endswith("last: 1")
    parent, trials = runs_of(settings)
    assert [run.info.status for run in (parent, *trials)] == ["FINISHED"] * 6
    assert len({run.data.params["learning_rate"] for run in trials}) == 5


def test_process_starts_again_only_if_it_runs_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_restart(*words: object) -> None:
        raise AssertionError(words)

    monkeypatch.setattr(sweep_module.os, "execv", no_restart)
    monkeypatch.setattr(sweep_module.sys, "argv", ["train_keras.py", "--sweep.num_trials", "20"])
    # in a notebook, %run puts the script into the kernel's process
    monkeypatch.setattr(sweep_module.sys, "orig_argv", ["python", "-m", "ipykernel_launcher", "-f", "kernel.json"])
    assert not sweep_module._is_main_program()
    monkeypatch.setattr(
        sweep_module.sys, "orig_argv", ["python", "-X", "dev", "train_keras.py", "--sweep.num_trials", "20"]
    )
    assert sweep_module._is_main_program()
