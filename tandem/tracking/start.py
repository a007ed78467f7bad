"""The beginning and the end of a training run, new or continued."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem import interrupts
from tandem.errors import OutOfMemory, TrainingPruned, is_full_disk
from tandem.files import write_text
from tandem.protocol.frameworks import Framework
from tandem.protocol.settings import Settings, flatten
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.creation import create_run
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.places import folder_of_runs
from tandem.tracking.process import SignsOfLife, this_process
from tandem.tracking.provenance import hide_password, run_tags, run_title, settings_yaml
from tandem.tracking.run import Run
from tandem.tracking.system import SystemSampler
from tandem.tracking.unfinished import (
    ENDED,
    INTERRUPTED,
    RUNNING,
    Record,
    Unfinished,
    command_hash,
    find_unfinished,
    mark_dead_runs,
    process_tag,
)


@contextlib.contextmanager
def start_run(
    settings: Settings,
    *,
    framework: Framework,
    backend: str,
    versions: Mapping[str, str],
    not_compared: Mapping[str, str] | None = None,
    unfinished: Unfinished | None = None,
) -> Iterator[Run]:
    """Training run in MLflow for the length of a with block, new or continued; it never stays RUNNING afterwards.

    The status becomes FINISHED; FAILED after an exception, with the traceback as an artifact; KILLED after a signal, or
    if a sweep pruned the run. The exception propagates; a signal becomes an Interrupted, with notes that say what is
    kept and how to continue.

    Args:
        settings: All settings of the run.
        framework: torch or keras.
        backend: torch, tensorflow or jax.
        versions: Versions of the relevant packages by name.
        not_compared: Tags of a run that is not a result, such as a sweep's trial. They replace the framework tag, by
            which comparisons and grids find their runs. Such a run is continued only where `unfinished` is given.
        unfinished: The interrupted run of a trial, which is continued.

    Raises:
        UserError: MLflow does not answer, or its experiment or the run's folder cannot be written.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    experiment = find_or_create_experiment(client, settings.tracking.experiment)
    shown = hide_password(settings)
    tags = {**run_tags(shown, framework, backend, versions), **process_tag()}
    if not_compared is not None:
        del tags[vocabulary.FRAMEWORK]
        tags |= not_compared
    parent = folder_of_runs(settings)
    command = command_hash(settings, framework, backend, not_compared)
    can_continue = not_compared is None or vocabulary.TRIAL in not_compared
    with interrupts.watch():
        if not_compared is None:
            unfinished = find_unfinished(client, settings, parent, command, versions)
        if unfinished is None:
            run = _create_run(client, experiment.experiment_id, shown, framework, tags, parent)
        else:
            run = _continue_run(client, unfinished, settings, framework)
        record = Record(
            run_id=run.id,
            experiment_id=experiment.experiment_id,
            name=run.name,
            uri=shown_uri(client.tracking_uri),
            command=command,
            versions=dict(versions),
            process=this_process(),
            state=RUNNING,
        )
        signs_of_life, sampler = SignsOfLife(run.folder / vocabulary.PROCESS_FILE), None
        status, state = "FAILED", ENDED
        try:
            record.write(run.folder)
            mark_dead_runs(client, experiment.experiment_id, parent, but=run.id)
            if unfinished is None:
                run.log_params(flatten(shown))
                settings_file = run.folder / vocabulary.SETTINGS_FILE
                write_text(settings_file, settings_yaml(shown))
                run.log_artifact(settings_file)
            sampler = SystemSampler(
                run.log_metrics, settings.tracking.system_interval, first_number=run.num_logged("system/")
            )
            yield run
            interrupts.check()
            status = "FINISHED"
            if run.checkpoints:
                run.checkpoints.remove()
        except BaseException as error:
            interrupts.handled()
            status = status_after(error)
            if status == "FAILED":
                run.fail(error)
            if _can_be_continued(error, status) and can_continue:
                state = INTERRUPTED
                _say_how_to_continue(run, settings, error)
            raise
        finally:
            try:
                signs_of_life.stop()
                if sampler:
                    sampler.stop()
            finally:
                run.end(status)
                with contextlib.suppress(OSError):  # the disk may be full; without it, the process is gone all the same
                    dataclasses.replace(record, state=state).write(run.folder)


def _create_run(
    client: MlflowClient,
    experiment_id: str,
    settings: Settings,
    framework: Framework,
    tags: dict[str, str],
    parent: Path,
) -> Run:
    started = time.time()
    title = f"{settings.backbone}-{settings.regime}-{framework}"
    name = settings.tracking.run_name or run_title(settings, framework)
    with explained(client.tracking_uri):
        run_id = create_run(client, experiment_id, name=name, tags=tags, start_time=int(started * 1000))
    try:
        timestamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started))
        folder = parent / f"{timestamp}-{vocabulary.file_name(title)}-{run_id[:8]}"
        folder.mkdir()
        return Run(client, run_id=run_id, experiment_id=experiment_id, name=name, framework=framework, folder=folder)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise


def _continue_run(client: MlflowClient, unfinished: Unfinished, settings: Settings, framework: Framework) -> Run:
    record = unfinished.record
    times = 1
    with explained(client.tracking_uri):
        tags = client.get_run(record.run_id).data.tags
        times += int(tags.get(vocabulary.RESUMED, 0))
        client.update_run(record.run_id, status="RUNNING")
        if vocabulary.FAILURE in tags:
            client.delete_tag(record.run_id, vocabulary.FAILURE)
    run = Run(
        client,
        run_id=record.run_id,
        experiment_id=record.experiment_id,
        name=record.name,
        framework=framework,
        folder=unfinished.folder,
        continued=unfinished.journal,
    )
    changed = {**process_tag(), vocabulary.RESUMED: str(times)}
    if settings.tracking.parent_run is not None:
        changed[MLFLOW_PARENT_RUN_ID] = settings.tracking.parent_run
    run.set_tags(changed)
    print(
        f"Continuing the run {record.name} ({record.run_id[:8]}) in {unfinished.folder}; "
        "--resume never starts a new one",
        file=sys.stderr,
    )
    return run


def _can_be_continued(error: BaseException, status: str) -> bool:
    """True after an interruption, and after a failure whose cause lies outside of the run: a full disk or memory."""
    if status == "KILLED":
        return not isinstance(error, TrainingPruned)
    return isinstance(error, MemoryError | OutOfMemory) or is_full_disk(error)


def _say_how_to_continue(run: Run, settings: Settings, error: BaseException) -> None:
    kept = run.checkpoints.place if run.checkpoints else "nothing yet: it would begin again"
    cause = str(error) if isinstance(error, interrupts.Interrupted) else type(error).__name__
    run.set_tags({vocabulary.INTERRUPTED: f"{cause}; kept: {kept}"})
    error.add_note(f"kept: {kept}, in {run.folder}")
    error.add_note(f"to continue: {command_to_continue(settings, run.folder)}")


def command_to_continue(settings: Settings, folder: Path) -> str:
    """The command of this process, or one that names the folder of its run if the same command would begin anew."""
    words = list(sys.argv[1:])
    if settings.resume != "auto":
        words = [*_without_option(words, "--resume"), "--resume", str(folder)]
    return shlex.join(["python", sys.argv[0], *words])


def _without_option(words: list[str], option: str) -> list[str]:
    kept, skip = [], False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        skip = word == option
    return kept


def status_after(error: BaseException) -> str:
    """Status in MLflow of a run that an exception ended: KILLED, FAILED, or FINISHED after a successful exit."""
    # Lightning answers a KeyboardInterrupt in fit() with sys.exit(1).
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, KeyboardInterrupt | TrainingPruned):
            return "KILLED"
        link = link.__cause__ or link.__context__
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "FINISHED"
    return "FAILED"
