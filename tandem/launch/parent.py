"""Parent run in MLflow, with one child run per seed and fold, and their mean and standard deviation.

Its folder beside those of the children has a record of its process. If that is gone, the same command continues the
parent run: the children that have finished are kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Run as MlflowRun
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem import interrupts
from tandem.errors import UserError
from tandem.protocol.frameworks import backend_of
from tandem.protocol.repeats import Repeat
from tandem.protocol.settings import Settings, flatten
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.auxiliary import AuxiliaryRun, auxiliary_run
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.numbers import read_numbers
from tandem.tracking.places import folder_of_runs
from tandem.tracking.process import SECONDS_TO_END, SignsOfLife, is_gone, this_process
from tandem.tracking.provenance import hide_password, method_title
from tandem.tracking.unfinished import (
    INTERRUPTED,
    LOCK_FILE,
    RUNNING,
    Record,
    command_hash,
    find_unfinished_parent,
    mark_dead_runs,
    process_tag,
)


@dataclass(frozen=True)
class ParentRun:
    """Run that is open while its children are trained."""

    run: AuxiliaryRun
    folder: Path
    """Folder of its record."""
    is_continued: bool
    """True if an earlier process has begun it."""

    @property
    def id(self) -> str:
        return self.run.id

    def finished_children(self) -> list[dict[str, float]]:
        """Final numbers of each finished child; of several for one seed and fold, the last one's."""
        return [read_numbers(run) for run in self._finished().values()]

    def finished_repeats(self) -> set[Repeat]:
        """Seeds and folds that have a finished child."""
        return {
            Repeat(seed=seed, fold=fold)
            for seed, fold in self._finished()
            if isinstance(seed, int) and isinstance(fold, int | None)
        }

    def wait_for_children(self) -> None:
        """Waits until a child has ended that an earlier process of this command has left.

        Raises:
            UserError: It is still running after a minute.
        """
        if not self.is_continued:
            return
        deadline = time.monotonic() + SECONDS_TO_END
        while living := [run for run in self._children("RUNNING") if self._may_live(run)]:
            if time.monotonic() > deadline:
                raise UserError(
                    f"the run {living[0].info.run_id} of an earlier command is still running, in the process "
                    f"{living[0].data.tags[vocabulary.PROCESS]}; wait until it has ended, or end it"
                )
            interrupts.check()
            time.sleep(0.5)

    def log_mean_and_deviation(self) -> tuple[int, dict[str, tuple[float, float]]]:
        """Logs mean and standard deviation of the scores and costs that all finished children have.

        Returns:
            The number of children that are finished in MLflow; mean and standard deviation by name. The deviation
            is that of a sample (n - 1), 0 for a single child.
        """
        children = self.finished_children()
        summary = mean_and_deviation(children)
        self.run.log_numbers(
            {
                f"{statistic}/{name}": value
                for name, both in summary.items()
                for statistic, value in zip(vocabulary.STATISTICS, both, strict=True)
            }
        )
        return len(children), summary

    def _finished(self) -> dict[tuple[Any, Any], MlflowRun]:
        """Finished children by seed and fold."""
        runs = sorted(self._children("FINISHED"), key=lambda run: run.info.start_time)
        return {
            (
                json.loads(run.data.params.get("seed", json.dumps(run.info.run_id))),
                json.loads(run.data.params.get("data.fold", "null")),
            ): run
            for run in runs
        }

    def _children(self, status: str) -> list[MlflowRun]:
        client = self.run.client
        with explained(client.tracking_uri):
            return client.search_runs(
                [self.run.experiment_id],
                filter_string=f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.id}' AND attributes.status = '{status}'",
            )

    def _may_live(self, run: MlflowRun) -> bool:
        records = self.folder.parent.glob(f"*-{run.info.run_id[:8]}/{vocabulary.PROCESS_FILE}")
        try:
            return not is_gone(json.loads(run.data.tags[vocabulary.PROCESS]), next(records, None))
        except (KeyError, ValueError, TypeError):
            return False


@contextlib.contextmanager
def start_parent_run(settings: Settings, *, framework: str, what: str) -> Iterator[ParentRun]:
    """Parent run for the length of a with block, new or continued; see auxiliary_run for how it ends.

    Args:
        settings: The settings that all children share, and `resume`.
        framework: torch or keras, the children's.
        what: The children in words, such as "3 seeds"; part of the run's name.

    Raises:
        UserError: MLflow does not answer or cannot be written, or the run that `resume` names cannot be continued.
    """
    client = connect(resolve_uri(settings.tracking.uri))
    experiment_id = find_or_create_experiment(client, settings.tracking.experiment).experiment_id
    parent = folder_of_runs(settings)
    command = _command(settings, framework)
    found = find_unfinished_parent(client, settings, parent, command)
    if found is not None:
        continued, folder, lock = found.record.run_id, found.folder, found.lock
        with explained(client.tracking_uri):
            for name, value in _tags_of_continuation(client.get_run(continued)).items():
                client.set_tag(continued, name, value)
        print(
            f"Continuing the run {found.record.name} ({continued[:8]}); --resume never starts a new one",
            file=sys.stderr,
        )
    else:
        continued = None
        folder = parent / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-repeats-{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        lock = FileLock(folder / LOCK_FILE)
    name = f"{settings.tracking.run_name or method_title(settings, framework)}, {what}"
    try:
        with (
            lock,
            auxiliary_run(
                client,
                experiment_id,
                name=name,
                tags={vocabulary.REPEATS: f"{framework}: {what}", **process_tag()},
                params=flatten(hide_password(settings)),
                continued=continued,
            ) as run,
        ):
            record = Record(
                run_id=run.id,
                experiment_id=experiment_id,
                name=name,
                uri=shown_uri(client.tracking_uri),
                command=command,
                versions={},
                process=this_process(),
                state=RUNNING,
            )
            record.write(folder)
            signs_of_life = SignsOfLife(folder / vocabulary.PROCESS_FILE)
            try:
                mark_dead_runs(client, experiment_id, parent, but=run.id)
                yield ParentRun(run, folder, is_continued=continued is not None)
            finally:
                signs_of_life.stop()
                with contextlib.suppress(OSError):  # without it, the process is gone all the same
                    dataclasses.replace(record, state=INTERRUPTED).write(folder)
    except BaseException:
        if not (folder / vocabulary.PROCESS_FILE).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release(force=True)


def _command(settings: Settings, framework: str) -> str:
    """Hash of everything that has to be equal in a command that continues the parent run."""
    kept = {name: getattr(settings.tracking, name) for name in ("log_model", "log_weights")}
    content = json.dumps([command_hash(settings, framework, backend_of(framework)), kept], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _tags_of_continuation(run: MlflowRun) -> dict[str, str]:
    return {**process_tag(), vocabulary.RESUMED: str(1 + int(run.data.tags.get(vocabulary.RESUMED, 0)))}


def mean_and_deviation(children: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and sample standard deviation of each score and cost that all children have; empty without children."""
    kinds = (vocabulary.TEST_PREFIX, vocabulary.COST_PREFIX)
    names = [
        name
        for name in (children[0] if children else {})
        if name.startswith(kinds) and all(name in c for c in children)
    ]
    return {name: _mean_and_deviation([child[name] for child in children]) for name in sorted(names)}


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
