"""A search for good settings: trials chosen by Optuna, trained in one process, each a run under the sweep's run."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from tandem.data.prepare import PreparedData, prepare
from tandem.errors import TrainingDiverged, TrainingPruned, UserError, one_line
from tandem.protocol.frameworks import Framework
from tandem.protocol.parser import change_settings
from tandem.protocol.regimes import phases_of
from tandem.protocol.search_space import Dimension, read_space
from tandem.protocol.settings import Settings, SweepSettings
from tandem.protocol.settings_hash import settings_hash
from tandem.recording.run import PhaseOutcome
from tandem.rendering.tables import format_value
from tandem.search.record import SweepRun, start_sweep_run
from tandem.search.results import in_words, write_results
from tandem.search.study import (
    FAILURE,
    PARENT_RUN,
    RUN,
    SECOND_ATTEMPT,
    SETTINGS,
    begin_trial,
    end_trial,
    ended_trials,
    give_back,
    has_trials_left,
    leave,
    lost_trials,
    open_study,
    parent_run_of,
    running_elsewhere,
    signs_of_life,
    take_over,
    values_of,
)
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri
from tandem.tracking.places import place_of_runs
from tandem.tracking.run import Run
from tandem.tracking.start import start_run
from tandem.tracking.unfinished import Unfinished, command_hash, find_unfinished_trial

METRICS = {"val_loss": vocabulary.VAL_LOSS, "val_accuracy": vocabulary.VAL_ACCURACY}
"""Name of each objective in an epoch's row."""

# Exceptions of a study's database that can no longer be read or written.
_DATABASE_ERRORS = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)

TrainTrial = Callable[[Settings, PreparedData, Run, Curves], PhaseOutcome]
"""Trains all phases with these settings as in a new process, and returns the outcome of the last one."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """The framework's part of a sweep."""

    framework: Framework
    backend: str
    """The package that computes: torch, tensorflow or jax."""
    versions: Mapping[str, str]
    """Versions of the packages that a run's numbers depend on, by their names."""
    train: TrainTrial
    is_out_of_memory: Callable[[BaseException], bool]
    """True if an exception of `train` says that a CPU or a GPU had too little memory."""
    trials_per_process: int | None = None
    """Number of trials after which this process starts its command again, to free memory; None for no limit."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep as one process works on it."""

    trainer: Trainer
    settings: Settings
    """The settings that are not varied, and the sweep's own."""
    dimensions: tuple[Dimension, ...]
    study: optuna.Study
    run: SweepRun
    folder: Path
    """Folder of the results."""
    console: Console


def run_sweep(settings: Settings, trainer: Trainer) -> None:
    """Trains trials until the study has `sweep.num_trials` of them, and writes the best settings to a file.

    Trials are judged by the validation images only. A trial that is pruned, diverges or runs out of memory counts. An
    interrupted one goes on from its checkpoint; where that is not possible, it does not count, and its settings are
    tried again. Other processes may work on the same study.

    Args:
        settings: The settings that are not varied, and the sweep's own.
        trainer: The framework's part.

    Raises:
        UserError: MLflow or the study cannot be opened or written, or an error would affect all trials.
    """
    try:
        _open_and_run(settings, trainer)
    except _DATABASE_ERRORS as error:
        raise UserError(
            f"sweep.storage: the study's database no longer answers: {one_line(error)}; once it does, the same command "
            "continues the sweep"
        ) from error


def _open_and_run(settings: Settings, trainer: Trainer) -> None:
    name = settings.sweep.study or _study_name(settings, trainer)
    # MLflow first: if it fails, no study is left without a run, for which the next process would wait
    find_or_create_experiment(connect(resolve_uri(settings.tracking.uri)), settings.tracking.experiment)
    experiment = vocabulary.file_name(settings.tracking.experiment)
    folder = Path(settings.tracking.folder).expanduser().absolute() / experiment / f"sweep-{vocabulary.file_name(name)}"
    study, is_new = open_study(
        settings.sweep,
        name=name,
        journal=folder / "study.journal",
        identity=_identity(settings, trainer),
        seed=settings.seed,
        max_epochs=sum(phase.max_epochs for phase in phases_of(settings)),
    )
    parent = None if is_new else parent_run_of(study)
    with start_sweep_run(
        settings, framework=trainer.framework, study=name, continued=parent, in_use=lambda: running_elsewhere(study) > 0
    ) as run:
        if parent is None:
            study.set_user_attr(PARENT_RUN, run.id)
        sweep = Sweep(
            trainer=trainer,
            settings=settings,
            dimensions=read_space(settings),
            study=study,
            run=run,
            folder=folder,
            console=Console(highlight=False, markup=False, emoji=False, soft_wrap=True),
        )
        try:
            _run_trials(sweep)
        finally:
            write_results(sweep)


def _run_trials(sweep: Sweep) -> None:
    num_trials = sweep.settings.sweep.num_trials
    assert num_trials is not None
    done = len(ended_trials(sweep.study))
    sweep.console.print(
        f"Sweep {sweep.study.study_name}: {done} of {num_trials} trials done, judged by "
        f"{sweep.settings.sweep.objective}"
    )
    images, num_of_process = _Images(), 0
    while True:
        if num_of_process == sweep.trainer.trials_per_process and has_trials_left(sweep.study, num_trials):
            _restart(sweep)
        lost = _lost_trial(sweep)
        trial, interrupted = lost or (begin_trial(sweep.study, sweep.dimensions, num_trials), None)
        if trial is None:
            break
        start = time.perf_counter()
        outcome = _run_trial(sweep, trial, images, interrupted)
        num_of_process += 1
        seconds = format_value(time.perf_counter() - start, "seconds")
        sweep.console.print(f"Trial {trial.number}: {in_words(values_of(trial))}: {outcome} ({seconds})")
        # the exception of a failed trial holds its tensors on the device
        gc.collect()
    if others := running_elsewhere(sweep.study):
        sweep.console.print(f"{others} of {num_trials} trials are still running in other processes")


def _restart(sweep: Sweep) -> None:
    """Replaces this process by a new one with the same command, which continues the study.

    It does nothing on Windows, where a process cannot be replaced.
    """
    if os.name != "posix" or not _is_main_program():
        return
    sweep.console.print(f"{sweep.trainer.trials_per_process} trials in this process: restarting it to free its memory")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_main_program() -> bool:
    """True if this process was started to run the script: not in a notebook, where %run puts it into the kernel."""
    return sys.orig_argv[-len(sys.argv) :] == sys.argv


class _Images:
    """The prepared images of the last trial, which are usually those of the next."""

    def __init__(self) -> None:
        self._settings: Any = None
        self._prepared: PreparedData | None = None

    def of(self, settings: Settings) -> PreparedData:
        if self._prepared is None or self._settings != (settings.data, settings.augmentation):
            self._settings = settings.data, settings.augmentation
            self._prepared = prepare(settings.data, settings.augmentation)
        return self._prepared


class _Refused(UserError):
    """Settings of a trial that do not go together; the check of the search space cannot find all of these."""


def _run_trial(sweep: Sweep, trial: Trial, images: _Images, interrupted: _Interrupted | None) -> str:
    """Runs one trial, however it ends, and describes its end in words."""
    objective = sweep.settings.sweep.objective
    try:
        with signs_of_life(trial):
            value = _train(sweep, trial, images, interrupted)
        outcome, counts = f"{objective} {value:.4g}", end_trial(sweep.study, trial, TrialState.COMPLETE, value)
    except TrainingPruned as error:
        outcome, counts = str(error), end_trial(sweep.study, trial, TrialState.PRUNED)
    except optuna.exceptions.UpdateFinishedTrialError:
        outcome, counts = "ended", False
    except BaseException as error:
        if not _is_of_this_trial(sweep, error):
            if isinstance(error, Exception) and SECOND_ATTEMPT in trial.user_attrs:
                # otherwise the same command would meet the same error each time
                trial.set_user_attr(FAILURE, one_line(error))
                end_trial(sweep.study, trial, TrialState.FAIL)
            elif isinstance(error, KeyboardInterrupt) and RUN in trial.user_attrs:
                leave(trial)
            else:
                give_back(sweep.study, trial, f"interrupted: {one_line(error)}")
            raise
        outcome = f"failed: {one_line(error)}"
        trial.set_user_attr(FAILURE, one_line(error))
        counts = end_trial(sweep.study, trial, TrialState.FAIL)
    return outcome if counts else f"{outcome}, but another process has given it up, so it does not count"


def _train(sweep: Sweep, trial: Trial, images: _Images, interrupted: _Interrupted | None) -> float:
    """Trains a trial and returns the value of its objective.

    Raises:
        TrainingPruned: Others were better after as many epochs.
        UpdateFinishedTrialError: Another process has given it up.
    """
    objective = sweep.settings.sweep.objective
    metric = METRICS[objective]
    settings = _settings_of_trial(sweep, trial)

    def report(row: Mapping[str, float]) -> None:
        epochs = int(row["epoch"]) + 1
        if interrupted is None or epochs not in interrupted.reported:
            trial.report(row[metric], step=epochs)
        if trial.should_prune():
            raise TrainingPruned(f"pruned after epoch {epochs} with {objective} {row[metric]:.4g}")

    data = images.of(settings)
    with start_run(
        settings,
        framework=sweep.trainer.framework,
        backend=sweep.trainer.backend,
        versions=sweep.trainer.versions,
        not_compared=_tags(sweep, trial),
        unfinished=None if interrupted is None else interrupted.run,
    ) as run:
        trial.set_user_attr(RUN, run.id)
        run.set_tags({vocabulary.DATA_NAME: data.name, vocabulary.SPLIT_HASH: data.split.hash})
        curves = Curves(run, report, quiet=True)  # the sweep prints a line per trial
        try:
            outcome = sweep.trainer.train(settings, data, run, curves)
        except TrainingPruned:
            run.set_tags({vocabulary.TRIAL_STATE: "pruned"})
            _remove_checkpoints(run)
            raise
        except Exception:
            run.set_tags({vocabulary.TRIAL_STATE: "failed"})
            _remove_checkpoints(run)
            raise
        value = objective_of(curves.rows, metric, outcome.best_epoch, settings.early_stopping.restore)
        run.set_tags({vocabulary.TRIAL_STATE: "complete"})
        run.log_metrics({vocabulary.OBJECTIVE: value})
    return value


def _tags(sweep: Sweep, trial: Trial | FrozenTrial) -> dict[str, str]:
    return {vocabulary.TRIAL: f"{trial.number} of {sweep.study.study_name}"}


def _remove_checkpoints(run: Run) -> None:
    if run.checkpoints:
        run.checkpoints.remove()


def objective_of(
    rows: Sequence[Mapping[str, float]], metric: str, best_epoch: int, restore: Literal["best", "last"]
) -> float:
    """A metric of the trained network: its value in the epoch whose weights the last phase keeps.

    Args:
        rows: The rows of Curves; at least one.
        metric: The metric's name in the rows.
        best_epoch: Epoch of the last phase with the lowest validation loss, counted from 0 within the phase.
        restore: The weights that a phase keeps.
    """
    last_phase = [row[metric] for row in rows if row["phase"] == rows[-1]["phase"]]
    return last_phase[best_epoch if restore == "best" else -1]


def _is_of_this_trial(sweep: Sweep, error: BaseException) -> bool:
    """True if other settings may avoid the error; others, such as a full disk, would end each trial."""
    return isinstance(error, TrainingDiverged | _Refused) or sweep.trainer.is_out_of_memory(error)


def _settings_of_trial(sweep: Sweep, trial: Trial | FrozenTrial) -> Settings:
    changes = {
        "tracking.parent_run": sweep.run.id,
        "tracking.run_name": f"trial {trial.number}",
        "sweep": SweepSettings(),
    }
    try:
        return change_settings(sweep.settings, sweep.trainer.framework, {**values_of(trial), **changes})
    except UserError as error:
        raise _Refused(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class _Interrupted:
    """What an interrupted trial has left."""

    run: Unfinished
    reported: frozenset[int]
    """Numbers of epochs after which its value was reported."""


def _lost_trial(sweep: Sweep) -> tuple[Trial, _Interrupted] | None:
    """A lost trial that this process continues; those that it cannot continue are tried again from their beginning."""
    for trial in lost_trials(sweep.study):
        if (unfinished := _unfinished_run(sweep, trial)) is not None:
            if (taken := take_over(sweep.study, trial)) is not None:
                sweep.console.print(f"Trial {trial.number}: it was interrupted, and goes on")
                return taken, _Interrupted(run=unfinished, reported=frozenset(trial.intermediate_values))
            unfinished.journal.close()
            continue
        reason = "its process has died"
        if give_back(sweep.study, trial, reason):
            sweep.console.print(f"Trial {trial.number}: {reason}; its settings are tried again")
            if RUN in trial.user_attrs:
                sweep.run.end_lost_trial(trial.user_attrs[RUN], reason)
    return None


def _unfinished_run(sweep: Sweep, trial: FrozenTrial) -> Unfinished | None:
    """The run of a lost trial, held by this process; None if it cannot be continued here."""
    if sweep.settings.resume == "never" or not {RUN, SETTINGS} <= trial.user_attrs.keys():
        return None
    trainer, settings = sweep.trainer, _settings_of_trial(sweep, trial)
    command = command_hash(settings, trainer.framework, trainer.backend, _tags(sweep, trial))
    return find_unfinished_trial(
        sweep.run.run.client, place_of_runs(settings), trial.user_attrs[RUN], command, trainer.versions
    )


# ------------------------------------------------------------------------------------------------------------ the study


def _identity(settings: Settings, trainer: Trainer) -> dict[str, Any]:
    """Everything that must be equal in all trials of a study, besides the settings that they vary."""
    return {
        "framework": trainer.framework,
        "backend": trainer.backend,
        "experiment": settings.tracking.experiment,
        "settings": settings_hash(settings),
        "objective": settings.sweep.objective,
        "space": [dataclasses.asdict(dimension) for dimension in read_space(settings)],
    }


def _study_name(settings: Settings, trainer: Trainer) -> str:
    """The default name of a study, which is the same for the same search: the same command continues it."""
    content = json.dumps(_identity(settings, trainer), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return vocabulary.file_name(f"{settings.backbone}-{settings.regime}-{trainer.framework}-{digest}")
