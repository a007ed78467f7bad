"""A search for good settings: trials in one process, chosen by Optuna, each a run under the sweep's own run."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import shlex
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

from tandem.data.prepare import PreparedData, prepare
from tandem.errors import TrainingDiverged, TrainingPruned, UserError, one_line
from tandem.protocol.parser import Framework, change_settings
from tandem.protocol.regimes import phases_of
from tandem.protocol.search_space import Dimension, read_space
from tandem.protocol.settings import Settings, SweepSettings, settings_hash, with_values
from tandem.recording.run import PhaseOutcome
from tandem.rendering.page import write_page
from tandem.rendering.tables import Column, Table, format_value, print_table, render_csv
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
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri
from tandem.tracking.provenance import settings_yaml, without_password
from tandem.tracking.run import Run, start_run

METRICS = {"val_loss": vocabulary.VAL_LOSS, "val_accuracy": vocabulary.VAL_ACCURACY}
"""What an epoch's row calls each objective."""

MOST_PRINTED = 10  # trials; the others are in the files

# How the frameworks and their backends say that there is no more memory, beside Python's MemoryError.
_OUT_OF_MEMORY_TYPES = ("OutOfMemoryError", "ResourceExhaustedError")
_OUT_OF_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "RESOURCE_EXHAUSTED")

# How a study's database that cannot be read or written any more shows itself.
_DATABASE_ERRORS = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)

TrainTrial = Callable[[Settings, PreparedData, Run, Curves], PhaseOutcome]
"""Trains all phases with these settings, from a fresh start, and returns the last one's outcome."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What all trials of one process share."""

    framework: Framework
    backend: str
    versions: Mapping[str, str]
    settings: Settings
    dimensions: tuple[Dimension, ...]
    study: optuna.Study
    run: SweepRun
    folder: Path
    train: TrainTrial
    trials_of_a_process: int | None
    console: Console


def run_sweep(
    framework: Framework,
    settings: Settings,
    train: TrainTrial,
    *,
    backend: str,
    versions: Mapping[str, str],
    trials_of_a_process: int | None = None,
) -> None:
    """Trains trials until the study has all that it is to have, and writes the best settings to a file.

    A trial is judged by the validation images alone. One that is pruned, diverges or runs out of memory counts; one
    that was interrupted does not, and is tried again. Other processes may work on the same study.

    Args:
        framework: torch or keras.
        settings: those that are not varied, and the sweep's own.
        train: the framework's part.
        backend: what computes: torch, tensorflow or jax.
        versions: of the packages that matter, by name.
        trials_of_a_process: after so many this process starts its own command anew, for a framework that keeps some
            memory of each trial; None for never.

    Raises:
        UserError: MLflow or the study cannot be opened or written, or something that all trials share is wrong.
    """
    try:
        _open_and_run(framework, settings, train, backend, versions, trials_of_a_process)
    except _DATABASE_ERRORS as error:
        raise UserError(
            f"sweep.storage: the study's database does not answer any more: {one_line(error)}; once it does, the same "
            "command goes on"
        ) from error


def _open_and_run(
    framework: Framework,
    settings: Settings,
    train: TrainTrial,
    backend: str,
    versions: Mapping[str, str],
    trials_of_a_process: int | None,
) -> None:
    name = settings.sweep.study or _study_name(framework, settings, backend)
    # MLflow first: a study without a run would keep the next process waiting for one
    find_or_create_experiment(connect(resolve_uri(settings.tracking.uri)), settings.tracking.experiment)
    experiment = vocabulary.file_name(settings.tracking.experiment)
    folder = Path(settings.tracking.folder).expanduser().absolute() / experiment / f"sweep-{vocabulary.file_name(name)}"
    study, is_new = open_study(
        settings.sweep,
        name=name,
        journal=folder / "study.journal",
        identity=_identity(framework, settings, backend),
        seed=settings.seed,
        max_epochs=sum(phase.max_epochs for phase in phases_of(settings)),
    )
    parent = None if is_new else parent_run_of(study)
    with start_sweep_run(
        settings, framework=framework, study=name, continued=parent, in_use=lambda: running_elsewhere(study) > 0
    ) as run:
        if parent is None:
            study.set_user_attr(PARENT_RUN, run.id)
        sweep = Sweep(
            framework=framework,
            backend=backend,
            versions=versions,
            settings=settings,
            dimensions=read_space(settings),
            study=study,
            run=run,
            folder=folder,
            train=train,
            trials_of_a_process=trials_of_a_process,
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
    images, of_this_process = _Images(), 0
    while True:
        if of_this_process == sweep.trials_of_a_process and has_trials_left(sweep.study, num_trials):
            _start_anew(sweep)
        trial = begin_trial(sweep.study, sweep.dimensions, num_trials)
        if trial is None:
            break
        start = time.perf_counter()
        outcome = _run_trial(sweep, trial, images)
        of_this_process += 1
        seconds = format_value(time.perf_counter() - start, "seconds")
        sweep.console.print(f"Trial {trial.number}: {_in_words(values_of(trial))}: {outcome} ({seconds})")
        # what a trial that failed holds on the device goes with its exception
        gc.collect()
        _give_up_lost_trials(sweep)
    if others := running_elsewhere(sweep.study):
        sweep.console.print(f"{others} of {num_trials} trials are still under way in other processes")


def _start_anew(sweep: Sweep) -> None:
    """Becomes a fresh process with the same command, which goes on with the study; where the system has no such way
    (Windows, on which a process cannot become another), does nothing."""
    if os.name != "posix":
        return
    sweep.console.print(f"{sweep.trials_of_a_process} trials in this process: starting it anew, to free its memory")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class _Images:
    """The images of the last trial, which are mostly those of the next."""

    def __init__(self) -> None:
        self._made_from: Any = None
        self._prepared: PreparedData | None = None

    def of(self, settings: Settings) -> PreparedData:
        if self._prepared is None or self._made_from != (settings.data, settings.augmentation):
            self._made_from = settings.data, settings.augmentation
            self._prepared = prepare(settings.data, settings.augmentation)
        return self._prepared


class _Refused(UserError):
    """These values do not go together, which the check of the search space has not seen."""


def _run_trial(sweep: Sweep, trial: Trial, images: _Images) -> str:
    """One trial, to whatever end it comes, in words."""
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
        if not _is_of_this_trial(error):
            if isinstance(error, Exception) and SECOND_ATTEMPT in trial.user_attrs:
                # so that the same command does not meet the same error for ever
                trial.set_user_attr(FAILURE, one_line(error))
                end_trial(sweep.study, trial, TrialState.FAIL)
            else:
                give_back(sweep.study, trial, f"interrupted: {one_line(error)}")
            raise
        outcome = f"failed: {one_line(error)}"
        trial.set_user_attr(FAILURE, one_line(error))
        counts = end_trial(sweep.study, trial, TrialState.FAIL)
    return outcome if counts else f"{outcome}, but another process had given it up, so it does not count"


def _train(sweep: Sweep, trial: Trial, images: _Images) -> float:
    """What a trial is judged by.

    Raises:
        TrainingPruned: Others were better at its age.
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
        settings, framework=sweep.framework, backend=sweep.backend, versions=sweep.versions, not_compared=tags
    ) as run:
        trial.set_user_attr(RUN, run.id)
        run.set_tags({vocabulary.DATA_NAME: data.name, vocabulary.SPLIT_HASH: data.split.hash})
        curves = Curves(run, report)
        try:
            outcome = sweep.train(settings, data, run, curves)
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
    """A metric of the network that training leaves: that of the epoch whose weights the last phase has restored.

    Args:
        rows: of Curves; at least one.
        metric: of each row.
        best_epoch: of the last phase, counted from 0 within it.
        restore: which weights a phase leaves.
    """
    last_phase = [row[metric] for row in rows if row["phase"] == rows[-1]["phase"]]
    return last_phase[best_epoch if restore == "best" else -1]


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the GPU had too little memory, whichever framework says so."""
    if isinstance(error, MemoryError) or type(error).__name__ in _OUT_OF_MEMORY_TYPES:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY_WORDS)


def _is_of_this_trial(error: BaseException) -> bool:
    """Whether other settings may do without it; all else, such as a full disk, would come again with each trial."""
    return isinstance(error, TrainingDiverged | _Refused) or ran_out_of_memory(error)


def _settings_of_trial(sweep: Sweep, trial: Trial) -> Settings:
    places = {
        "tracking.parent_run": sweep.run.id,
        "tracking.run_name": f"trial {trial.number}",
        "sweep": SweepSettings(),
    }
    try:
        return change_settings(sweep.settings, sweep.framework, {**values_of(trial), **places})
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
    """The best settings, the trials and the figures so far: files in the sweep's folder and in MLflow."""
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
    sweep.folder.mkdir(parents=True, exist_ok=True)
    files = [sweep.folder / vocabulary.TRIALS_FILE]
    files[0].write_text(render_csv(table), encoding="utf-8")
    if best is not None:
        assert best.value is not None
        metrics["best"] = best.value
        files += [sweep.folder / vocabulary.BEST_SETTINGS_FILE, sweep.folder / vocabulary.SWEEP_PAGE_FILE]
        files[1].write_text(best_settings_yaml(sweep, best), encoding="utf-8")
        page = make_sweep_page(
            sweep.study, table, title=f"Sweep {sweep.study.study_name}", objective=sweep.settings.sweep.objective
        )
        write_page(files[2], page)
    sweep.run.log_results(files, {vocabulary.SWEEP_PREFIX + name: value for name, value in metrics.items()})
    print_table(dataclasses.replace(table, rows=table.rows[:MOST_PRINTED]), sweep.console)
    if best is None:
        sweep.console.print("No trial has come to its end, so there are no best settings")
        return
    config = shlex.quote(str(files[1]))
    sweep.console.print(f"Page of the sweep: {files[2]}")
    sweep.console.print(f"Train with the best settings: python train_{sweep.framework}.py --config {config}")


def best_settings_yaml(sweep: Sweep, best: FrozenTrial) -> str:
    """The settings of a trial as a configuration file for both scripts, which trains once."""
    settings = change_settings(sweep.settings, sweep.framework, {**values_of(best), "sweep": SweepSettings()})
    uri = settings.tracking.uri
    if uri is not None and without_password(uri) != uri:  # no password into a file
        settings = with_values(settings, {"tracking.uri": None})
    return (
        f"# Trial {best.number} of the sweep {sweep.study.study_name} in train_{sweep.framework}.py, the best of "
        f"{len(ended_trials(sweep.study))}: {sweep.settings.sweep.objective} {best.value:.6g}\n"
        f"{settings_yaml(settings)}"
    )


def _table(sweep: Sweep, trials: Sequence[FrozenTrial]) -> Table:
    """Of the trials that have ended, the best first, then those that were pruned or failed."""
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


def _identity(framework: Framework, settings: Settings, backend: str) -> dict[str, Any]:
    """What has to be the same in all trials of a study, beside what they vary."""
    return {
        "framework": framework,
        "backend": backend,
        "experiment": settings.tracking.experiment,
        "settings": settings_hash(settings),
        "objective": settings.sweep.objective,
        "space": [dataclasses.asdict(dimension) for dimension in read_space(settings)],
    }


def _study_name(framework: Framework, settings: Settings, backend: str) -> str:
    """The same for the same search, so that the same command goes on with it."""
    content = json.dumps(_identity(framework, settings, backend), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return vocabulary.file_name(f"{settings.backbone}-{settings.regime}-{framework}-{digest}")
