"""A search for good settings: trials chosen by Optuna, trained in one process, each a run under the sweep's run."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from tandem.commands import script_command
from tandem.data.prepare import PreparedData, prepare
from tandem.errors import TrainingDiverged, TrainingPruned, UserError, one_line
from tandem.files import write_text
from tandem.protocol.frameworks import Framework
from tandem.protocol.parser import change_settings
from tandem.protocol.regimes import phases_of
from tandem.protocol.search_space import Dimension, read_space
from tandem.protocol.settings import Settings, SweepSettings, with_values
from tandem.protocol.settings_hash import settings_hash
from tandem.recording.run import PhaseOutcome
from tandem.rendering.page import write_page
from tandem.rendering.tables import Column, Table, format_value, render_csv
from tandem.rendering.terminal import print_table
from tandem.search.page import make_sweep_page
from tandem.search.record import SweepRun, start_sweep_run
from tandem.search.study import (
    FAILURE,
    HAVE_ENDED,
    PARENT_RUN,
    RUN,
    SECOND_ATTEMPT,
    begin_trial,
    best_trial,
    end_trial,
    ended_trials,
    give_back,
    has_trials_left,
    lost_trials,
    open_study,
    parent_run_of,
    running_elsewhere,
    signs_of_life,
    values_of,
)
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri
from tandem.tracking.provenance import hide_password, settings_yaml
from tandem.tracking.run import Run
from tandem.tracking.start import start_run

METRICS = {"val_loss": vocabulary.VAL_LOSS, "val_accuracy": vocabulary.VAL_ACCURACY}
"""Name of each objective in an epoch's row."""

MOST_PRINTED = 10  # trials; the others are only in the files

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
    interrupted one does not count, and its settings are tried again. Other processes may work on the same study.

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
            _write_results(sweep)


def _run_trials(sweep: Sweep) -> None:
    num_trials = sweep.settings.sweep.num_trials
    assert num_trials is not None
    _give_up_lost_trials(sweep)
    done = len(ended_trials(sweep.study))
    sweep.console.print(
        f"Sweep {sweep.study.study_name}: {done} of {num_trials} trials done, judged by "
        f"{sweep.settings.sweep.objective}"
    )
    images, num_of_process = _Images(), 0
    while True:
        if num_of_process == sweep.trainer.trials_per_process and has_trials_left(sweep.study, num_trials):
            _restart(sweep)
        trial = begin_trial(sweep.study, sweep.dimensions, num_trials)
        if trial is None:
            break
        start = time.perf_counter()
        outcome = _run_trial(sweep, trial, images)
        num_of_process += 1
        seconds = format_value(time.perf_counter() - start, "seconds")
        sweep.console.print(f"Trial {trial.number}: {_in_words(values_of(trial))}: {outcome} ({seconds})")
        # the exception of a failed trial holds its tensors on the device
        gc.collect()
        _give_up_lost_trials(sweep)
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


def _run_trial(sweep: Sweep, trial: Trial, images: _Images) -> str:
    """Runs one trial, however it ends, and describes its end in words."""
    objective = sweep.settings.sweep.objective
    try:
        with signs_of_life(trial):
            value = _train(sweep, trial, images)
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
            else:
                give_back(sweep.study, trial, f"interrupted: {one_line(error)}")
            raise
        outcome = f"failed: {one_line(error)}"
        trial.set_user_attr(FAILURE, one_line(error))
        counts = end_trial(sweep.study, trial, TrialState.FAIL)
    return outcome if counts else f"{outcome}, but another process has given it up, so it does not count"


def _train(sweep: Sweep, trial: Trial, images: _Images) -> float:
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
        trial.report(row[metric], step=epochs)
        if trial.should_prune():
            raise TrainingPruned(f"pruned after epoch {epochs} with {objective} {row[metric]:.4g}")

    data = images.of(settings)
    tags = {vocabulary.TRIAL: f"{trial.number} of {sweep.study.study_name}"}
    with start_run(
        settings,
        framework=sweep.trainer.framework,
        backend=sweep.trainer.backend,
        versions=sweep.trainer.versions,
        not_compared=tags,
    ) as run:
        trial.set_user_attr(RUN, run.id)
        run.set_tags({vocabulary.DATA_NAME: data.name, vocabulary.SPLIT_HASH: data.split.hash})
        curves = Curves(run, report, quiet=True)  # the sweep prints a line per trial
        try:
            outcome = sweep.trainer.train(settings, data, run, curves)
        except TrainingPruned:
            run.set_tags({vocabulary.TRIAL_STATE: "pruned"})
            raise
        except Exception:
            run.set_tags({vocabulary.TRIAL_STATE: "failed"})
            raise
        value = objective_of(curves.rows, metric, outcome.best_epoch, settings.early_stopping.restore)
        run.set_tags({vocabulary.TRIAL_STATE: "complete"})
        run.log_metrics({vocabulary.OBJECTIVE: value})
    return value


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


def _settings_of_trial(sweep: Sweep, trial: Trial) -> Settings:
    changes = {
        "tracking.parent_run": sweep.run.id,
        "tracking.run_name": f"trial {trial.number}",
        "sweep": SweepSettings(),
    }
    try:
        return change_settings(sweep.settings, sweep.trainer.framework, {**values_of(trial), **changes})
    except UserError as error:
        raise _Refused(str(error)) from error


def _give_up_lost_trials(sweep: Sweep) -> None:
    for trial in lost_trials(sweep.study):
        reason = "its process has died"
        if give_back(sweep.study, trial, reason):
            sweep.console.print(f"Trial {trial.number}: {reason}; its settings are tried again")
            if RUN in trial.user_attrs:
                sweep.run.end_lost_trial(trial.user_attrs[RUN], reason)


# ------------------------------------------------------------------------------------------------------------- results


def _write_results(sweep: Sweep) -> None:
    """Writes the best settings, the trials and the figures so far, to the sweep's folder and to MLflow."""
    ended = ended_trials(sweep.study)
    best = best_trial(sweep.study)
    if not ended:
        return
    counts = Counter(trial.state for trial in ended)
    metrics: dict[str, float] = {
        "num_trials": len(ended),
        "num_pruned": counts[TrialState.PRUNED],
        "num_failed": counts[TrialState.FAIL],
    }
    table = _table(sweep, ended)
    files = [sweep.folder / vocabulary.TRIALS_FILE]
    write_text(files[0], render_csv(table))
    if best is not None:
        assert best.value is not None
        metrics["best"] = best.value
        files += [sweep.folder / vocabulary.BEST_SETTINGS_FILE, sweep.folder / vocabulary.SWEEP_PAGE_FILE]
        write_text(files[1], best_settings_yaml(sweep, best))
        page = make_sweep_page(
            sweep.study,
            table,
            title=f"Sweep {sweep.study.study_name}",
            objective=sweep.settings.sweep.objective,
            best_settings=_in_words(values_of(best)),
            command=_command(sweep, files[1]),
        )
        write_page(files[2], page)
    sweep.run.log_results(files, {vocabulary.SWEEP_PREFIX + name: value for name, value in metrics.items()})
    print_table(dataclasses.replace(table, rows=table.rows[:MOST_PRINTED]), sweep.console)
    if best is None:
        sweep.console.print("No trial was completed, so there are no best settings")
        return
    sweep.console.print(f"Page of the sweep: {files[2]}")
    sweep.console.print(f"Train with the best settings: {_command(sweep, files[1])}")


def _command(sweep: Sweep, settings_file: Path) -> str:
    return script_command(f"train_{sweep.trainer.framework}.py", "--config", settings_file)


def best_settings_yaml(sweep: Sweep, best: FrozenTrial) -> str:
    """The settings of a trial as a configuration file of a single run, for both scripts."""
    settings = change_settings(sweep.settings, sweep.trainer.framework, {**values_of(best), "sweep": SweepSettings()})
    uri = settings.tracking.uri
    if uri is not None and shown_uri(uri) != uri:  # no password into a file
        settings = with_values(settings, {"tracking.uri": None})
    settings = hide_password(settings)
    script = f"train_{sweep.trainer.framework}.py"
    return (
        f"# Trial {best.number} of the sweep {sweep.study.study_name} in {script}, the best of "
        f"{len(ended_trials(sweep.study))}: {sweep.settings.sweep.objective} {best.value:.6g}\n"
        f"{settings_yaml(settings)}"
    )


def _table(sweep: Sweep, trials: Sequence[FrozenTrial]) -> Table:
    """The table of ended trials: the best first, then pruned and failed ones."""
    sign = 1 if sweep.settings.sweep.objective == "val_loss" else -1

    def order(trial: FrozenTrial) -> tuple[int, float, int]:
        value = trial.value if trial.state is TrialState.COMPLETE else None
        return HAVE_ENDED.index(trial.state), sign * (value or 0.0), trial.number

    return Table(
        name="trials",
        title=f"Trials of {sweep.study.study_name}",
        columns=(
            Column(key="trial", heading="trial", kind="number"),
            Column(key="end", heading="end"),
            Column(key=sweep.settings.sweep.objective, heading=sweep.settings.sweep.objective, kind="score"),
            *(Column(key=dimension.name, heading=dimension.name) for dimension in sweep.dimensions),
            Column(key="epochs", heading="epochs", kind="number"),
            Column(key="seconds", heading="took", kind="seconds"),
            Column(key="reason", heading="reason"),
        ),
        rows=tuple(
            (
                trial.number,
                trial.state.name.lower(),
                trial.value if trial.state is TrialState.COMPLETE else None,
                *(_in_a_word(values_of(trial)[dimension.name]) for dimension in sweep.dimensions),
                len(trial.intermediate_values),
                trial.duration.total_seconds() if trial.duration else None,
                trial.user_attrs.get(FAILURE, ""),
            )
            for trial in sorted(trials, key=order)
        ),
    )


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_in_a_word(value)}" for name, value in values.items())


def _in_a_word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


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
