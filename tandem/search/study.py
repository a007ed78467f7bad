"""The Optuna study of a sweep: its storage, the beginning and end of trials, and the trials that count.

Several processes, on several machines, may work on one study. Optuna's own heartbeat works with databases and
Study.optimize only; here each running trial stores its process and the time, in any storage.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import psutil
import sqlalchemy
from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.trial import FrozenTrial, Trial, TrialState

from tandem.errors import UserError, one_line
from tandem.output import warn
from tandem.protocol.addresses import resolve_address
from tandem.protocol.search_space import Choice, Dimension
from tandem.protocol.settings import SweepSettings

SECONDS_BETWEEN_SIGNS_OF_LIFE = 20.0
SECONDS_TO_DEATH = 180.0  # without a sign of life, on another machine; clocks may differ by a part of it

# User attributes of a study and of its trials.
IDENTITY = "tandem:identity"
PARENT_RUN = "tandem:parent_run"
RUN = "tandem:run"
OWNER = "tandem:owner"
ALIVE = "tandem:alive"
SETTINGS = "tandem:settings"  # the trial's, as plain values; Optuna stores the number of a choice
FAILURE = "tandem:failure"  # the reason
SECOND_ATTEMPT = "tandem:second_attempt"  # the reason why an earlier trial with the same settings does not count
RETRIED = "tandem:retried"  # the reason why this trial does not count and its settings are tried again

HAVE_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class SamplerByTrial(BaseSampler):
    """TPE (Bergstra et al. 2011, with Optuna's defaults) whose random numbers depend on the seed and the trial number.

    Several processes then do not begin with the same suggestions, and an interrupted search continues with the
    suggestions that it would have made without the interruption.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sampler: BaseSampler = TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        (seed,) = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)
        self._sampler = TPESampler(seed=int(seed))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def open_study(
    sweep: SweepSettings, *, name: str, journal: Path, identity: Mapping[str, Any], seed: int, max_epochs: int
) -> tuple[optuna.Study, bool]:
    """The study with this name; it is created if it does not exist.

    Args:
        sweep: Storage, pruner and objective.
        name: The study's.
        journal: File of a study that is not kept in a database; its folder is created.
        identity: Everything that must be equal in all trials of the study, in JSON values.
        seed: Of the suggestions.
        max_epochs: Largest number of epochs that a trial is trained for.

    Returns:
        The study, and True if this process has created it.

    Raises:
        UserError: The study cannot be opened, or belongs to other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = _open_storage(sweep.storage, journal)
    sampler, pruner = SamplerByTrial(seed), _pruner(sweep.pruner, max_epochs)
    direction: Literal["minimize", "maximize"] = "minimize" if sweep.objective == "val_loss" else "maximize"
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, pruner=pruner, direction=direction
        )
        study.set_user_attr(IDENTITY, json.dumps(identity, sort_keys=True))
        return study, True
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
    known = _wait_for(study, IDENTITY)
    if known is not None and known != json.dumps(identity, sort_keys=True):
        differing = [key for key, value in json.loads(known).items() if value != identity.get(key)]
        raise UserError(
            f"sweep.study: the study {name!r} belongs to other settings ({', '.join(differing)} differ); give another "
            "name, or leave it out"
        )
    return study, False


def parent_run_of(study: optuna.Study) -> str | None:
    """Id of the MLflow run that holds the study's trials; None if the process that created the study died before it."""
    return _wait_for(study, PARENT_RUN)


def has_trials_left(study: optuna.Study, num_trials: int) -> bool:
    """True if fewer than num_trials trials are done or running; trials that are tried again count once."""
    return len(_counted(study)) < num_trials


def begin_trial(study: optuna.Study, dimensions: tuple[Dimension, ...], num_trials: int) -> Trial | None:
    """The study's next trial; None if all of them are done or running.

    Args:
        study: Other processes may work on it too.
        dimensions: The settings that are varied.
        num_trials: Number of trials that the study is to have; trials that are tried again count once.
    """
    if not has_trials_left(study, num_trials):
        return None
    trial = study.ask()
    trial.set_user_attr(OWNER, _this_process())
    trial.set_user_attr(ALIVE, time.time())
    earlier = [other for other in _counted(study) if other.number < trial.number]
    if len(earlier) >= num_trials:  # another process was faster
        give_back(study, trial, "not needed", retry=False)
        return None
    values = {dimension.name: _suggest(trial, dimension) for dimension in dimensions}
    trial.set_user_attr(SETTINGS, values)
    return trial


def values_of(trial: Trial | FrozenTrial) -> dict[str, Any]:
    """The values of the settings that a trial varies, by dotted names."""
    return trial.user_attrs[SETTINGS]


@contextlib.contextmanager
def signs_of_life(trial: Trial) -> Iterator[None]:
    """Stores the time with the trial every 20 seconds, so that other processes see that this one is alive."""
    done = threading.Event()

    def note() -> None:
        while not done.wait(SECONDS_BETWEEN_SIGNS_OF_LIFE):
            try:
                trial.set_user_attr(ALIVE, time.time())
            except optuna.exceptions.UpdateFinishedTrialError:  # another process has given it up
                return
            except (OSError, optuna.exceptions.StorageInternalError):
                continue  # the next one may succeed

    thread = threading.Thread(target=note, name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def take_over(study: optuna.Study, trial: FrozenTrial) -> Trial | None:
    """A lost trial, from now on this process's; None if another process has ended it."""
    taken = Trial(study, trial._trial_id)
    try:
        taken.set_user_attr(OWNER, _this_process())
        taken.set_user_attr(ALIVE, time.time())
    except optuna.exceptions.UpdateFinishedTrialError:
        return None
    return taken


def leave(trial: Trial) -> None:
    """Leaves an interrupted trial to the next process that works on the study."""
    trial.set_user_attr(OWNER, None)


def end_trial(study: optuna.Study, trial: Trial, state: TrialState, value: float | None = None) -> bool:
    """Ends a trial that counts.

    Args:
        study: The trial's.
        trial: Running in this process.
        state: COMPLETE, PRUNED or FAIL.
        value: The objective's, with COMPLETE.

    Returns:
        False if another process has given the trial up before, so that it does not count.
    """
    try:
        study.tell(trial.number, value, state)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    return True


def give_back(study: optuna.Study, trial: FrozenTrial | Trial, reason: str, *, retry: bool = True) -> bool:
    """Ends an interrupted trial, which does not count, and queues another one with the same settings.

    Returns:
        False if another process was faster.
    """
    try:
        # the mark first: if this process dies after it, nothing is lost; a trial that has ended does not accept it
        (trial if isinstance(trial, Trial) else Trial(study, trial._trial_id)).set_user_attr(RETRIED, reason)
        study.tell(trial.number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    if retry:
        study.enqueue_trial(trial.params, user_attrs={SECOND_ATTEMPT: reason})
    return True


def lost_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials whose process has died or has given no sign of life for minutes."""
    return [trial for trial in study.get_trials(states=(TrialState.RUNNING,)) if _is_lost(trial)]


def running_elsewhere(study: optuna.Study) -> int:
    """Number of trials that are running in other processes."""
    own = _this_process()
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return sum(trial.user_attrs.get(OWNER) != own and not _is_lost(trial) for trial in running)


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The ended trials that count, in the order of their numbers."""
    return [trial for trial in _counted(study) if trial.state in HAVE_ENDED]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best completed trial; None if none was completed."""
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return study.best_trial if complete else None


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=(*HAVE_ENDED, TrialState.RUNNING))
    return [trial for trial in trials if RETRIED not in trial.user_attrs]


def _is_lost(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get(OWNER, {})
    if owner is None:  # left
        return True
    if owner and owner["machine"] == _this_process()["machine"]:
        return not _is_alive(owner["process"], owner["started"])
    begun = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - trial.user_attrs.get(ALIVE, begun) > SECONDS_TO_DEATH


def _is_alive(process: int, started: float) -> bool:
    try:
        # not to the second, since it moves when the clock is set
        return abs(psutil.Process(process).create_time() - started) < SECONDS_TO_DEATH
    except psutil.NoSuchProcess:
        return False


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "process": os.getpid(), "started": psutil.Process().create_time()}


@functools.cache
def _machine() -> str:
    """The machine, and the container if it has process numbers of its own."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _wait_for(study: optuna.Study, name: str) -> Any:
    """A user attribute that the process that created the study sets at once; None if it died before."""
    for _ in range(60):
        if name in study.user_attrs:
            return study.user_attrs[name]
        time.sleep(0.5)
    return None


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        # Optuna accepts no lists, only their text
        labels = [value if isinstance(value, str | int | float | None) else str(value) for value in dimension.values]
        return dimension.values[labels.index(trial.suggest_categorical(dimension.name, labels))]
    if dimension.whole:
        return trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log)


def _pruner(name: str, max_epochs: int) -> BasePruner:
    if name == "median":
        return MedianPruner()
    if name == "hyperband":
        # Li et al. 2018; the resource is an epoch, and the factor is 3 as theirs
        return HyperbandPruner(min_resource=1, max_resource=max_epochs, reduction_factor=3)
    return NopPruner()


def _open_storage(url: str | None, journal: Path) -> BaseStorage:
    if url is None:
        try:
            journal.parent.mkdir(parents=True, exist_ok=True)
            # the usual lock is a symbolic link, which not every account may create on Windows
            lock = JournalFileOpenLock(str(journal)) if os.name == "nt" else JournalFileSymlinkLock(str(journal))
            _cut_torn_line(journal, lock)
            return JournalStorage(JournalFileBackend(str(journal), lock))
        except OSError as error:
            raise UserError(
                f"cannot keep the sweep's study in {journal} ({error.strerror}); give a writable folder with "
                "--tracking.folder, or a database with --sweep.storage"
            ) from error
    try:
        url = resolve_address(url, "study")
        address = sqlalchemy.make_url(url)
        is_file = address.get_backend_name() == "sqlite"
        # if several processes create the tables of one file at once, all but one fail
        with FileLock(f"{address.database}.lock") if is_file and address.database else contextlib.nullcontext():
            # NullPool closes each connection after its use, since an RDBStorage cannot be closed
            for_a_file = {"connect_args": {"timeout": 60}, "poolclass": sqlalchemy.pool.NullPool}
            return RDBStorage(url, engine_kwargs=for_a_file if is_file else None)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError, OSError) as error:
        raise UserError(
            f"sweep.storage: the study's database cannot be opened: {one_line(error, with_type=False)}; give a URL "
            "such as sqlite:///FILE.db or postgresql://..., or leave it out for a journal file"
        ) from error


def _cut_torn_line(journal: Path, lock: BaseJournalFileLock) -> None:
    """Removes an incomplete last line, which a process leaves that is killed while it writes.

    Optuna would append the next line to it, and could not read the journal from then on.
    """
    if not journal.exists():
        return
    with get_lock_file(lock), journal.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            warn(f"the last line of {journal} is dropped: a process was killed while it wrote it")
