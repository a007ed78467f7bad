"""Copies runs from one MLflow to another.

    python -m tandem.tracking.copy --from sqlite:///mlflow.db --to URI

A copy has everything of its run: parameters, tags, every value of every
metric with its step and time, inputs, files, models, and its place below its
parent run. It has the id of the original run in a tag, so the command can be
repeated: unchanged runs are skipped, and runs that have grown, or that an
interrupted copy left incomplete, are completed. Do not run two copies to the
same target at once. Registered models are not copied.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mlflow.entities import Experiment, LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, RunStatus, RunTag
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from rich.progress import Progress

from tandem import interrupts
from tandem.errors import UserError, one_line, run_program
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.creation import create_run, find_model, write_model
from tandem.tracking.mlflow_store import (
    METRICS_PER_REQUEST,
    PARAMS_PER_REQUEST,
    TAGS_PER_REQUEST,
    chunks,
    connect,
    database_file,
    explained,
    find_or_create_experiment,
    resolve_uri,
)

RUNS_PER_PAGE = 1000
RUN_REFERENCE = "runs:/"  # prefix of a parameter or tag that refers to another run
COPY_TAGS = (vocabulary.COPIED_FROM, vocabulary.COPIED_STATE)


@dataclass(frozen=True, kw_only=True)
class Copied:
    """Numbers of runs by what was done with them."""

    new: int
    completed: int
    unchanged: int


def copy_runs(source_uri: str, target_uri: str, experiments: Sequence[str] | None = None) -> Copied:
    """Copies all runs that are not deleted, into experiments of the same names.

    Args:
        source_uri: The tracking URI of the runs.
        target_uri: The tracking URI to copy to.
        experiments: Names of the experiments to copy; None for all experiments with runs.

    Raises:
        UserError: One of the two does not answer, both are the same, there is no such experiment, or the copy was
            interrupted; another call continues it.
    """
    source_uri, target_uri = resolve_uri(source_uri), resolve_uri(target_uri)
    if source_uri == target_uri:
        raise UserError(
            f"source and target of the copy are both {shown_uri(source_uri)}: give two different tracking URIs"
        )
    database = database_file(source_uri)
    if database and not database.exists():
        raise UserError(f"there are no runs to copy: no file {database}; give the tracking URI of the runs with --from")
    source, target = connect(source_uri), connect(target_uri)
    chosen = _experiments(source, experiments)
    with explained(source_uri):
        runs = [run for experiment in chosen for run in _runs(source, experiment.experiment_id)]
    runs = _parents_first(runs)
    copier = _Copier(source, target, {experiment.experiment_id: experiment for experiment in chosen})
    counts = dict.fromkeys(("new", "completed", "unchanged"), 0)
    with Progress() as progress:
        bar = progress.add_task("Copying runs", total=len(runs))
        for run in runs:
            interrupts.check()
            with _naming_the_run(run, sum(counts.values()), len(runs)):
                counts[copier.copy(run)] += 1
            progress.advance(bar)
    return Copied(**counts)


class _Copier:
    """Copies single runs and maps runs of the source to their copies."""

    def __init__(self, source: MlflowClient, target: MlflowClient, experiments: Mapping[str, Experiment]) -> None:
        self._source = source
        self._target = target
        self._experiment_ids: dict[str, str] = {}  # ids in the target by id in the source
        self._copies: dict[str, Run] = {}  # runs of the target by the id of the original run
        for experiment in experiments.values():
            made = find_or_create_experiment(target, experiment.name)
            self._experiment_ids[experiment.experiment_id] = made.experiment_id
            with explained(target.tracking_uri):
                for key, value in experiment.tags.items():
                    if key not in made.tags:
                        target.set_experiment_tag(made.experiment_id, key, value)
                for run in _runs(target, made.experiment_id):
                    self._copies[_origin(run)] = run

    def copy(self, run: Run) -> str:
        """Copies a run.

        Returns:
            new, completed or unchanged.
        """
        state = _state(run)
        copy = self._copies.get(_origin(run))
        if copy is not None and _is_complete(copy, run, state):
            return "unchanged"
        outcome = "completed" if copy else "new"
        run = self._source.get_run(run.info.run_id)  # search results do not include a run's models
        tags = self._tags(run)
        if copy is None:
            created = create_run(
                self._target,
                self._experiment_ids[run.info.experiment_id],
                name=run.info.run_name,
                tags={**tags, vocabulary.COPIED_FROM: _origin(run)},
                start_time=run.info.start_time,
            )
            copy = self._target.get_run(created)
            self._copies[_origin(run)] = copy
        copy_id = copy.info.run_id
        self._copy_values(run, copy, tags)
        if run.inputs and run.inputs.dataset_inputs:
            self._target.log_inputs(copy_id, run.inputs.dataset_inputs)
        with tempfile.TemporaryDirectory(prefix="tandem-copy-") as scratch:
            _copy_files(
                get_artifact_repository(run.info.artifact_uri, tracking_uri=self._source.tracking_uri),
                get_artifact_repository(copy.info.artifact_uri, tracking_uri=self._target.tracking_uri),
                Path(scratch),
                # the run has changed since the copy was complete, perhaps in files whose size is the same
                again=vocabulary.COPIED_STATE in copy.data.tags,
            )
        for output in run.outputs.model_outputs if run.outputs else []:
            self._copy_model(copy, output)
        if RunStatus.is_terminated(RunStatus.from_string(run.info.status)):
            self._target.set_terminated(copy_id, run.info.status, end_time=run.info.end_time)
            # last, since this tag marks a complete copy
            self._target.set_tag(copy_id, vocabulary.COPIED_STATE, state)
        return outcome

    def _copy_values(self, run: Run, copy: Run, tags: Mapping[str, str]) -> None:
        copy_id = copy.info.run_id
        # Parameters never change, and the translation of one that refers to a run may have changed.
        params = [
            Param(key, self._translated(value)) for key, value in run.data.params.items() if key not in copy.data.params
        ]
        changed = [RunTag(key, value) for key, value in tags.items() if copy.data.tags.get(key) != value]
        for some_params in chunks(params, PARAMS_PER_REQUEST):
            self._target.log_batch(copy_id, params=some_params)
        for some_tags in chunks(changed, TAGS_PER_REQUEST):
            self._target.log_batch(copy_id, tags=some_tags)
        # All values of all metrics; values that the copy has already are unaffected.
        metrics = [
            Metric(key, metric.value, metric.timestamp, metric.step)
            for key in run.data.metrics
            for metric in self._source.get_metric_history(run.info.run_id, key)
        ]
        for some_metrics in chunks(metrics, METRICS_PER_REQUEST):
            self._target.log_batch(copy_id, metrics=some_metrics)

    def _tags(self, run: Run) -> dict[str, str]:
        tags = {key: self._translated(value) for key, value in run.data.tags.items() if key not in COPY_TAGS}
        parent = tags.pop(MLFLOW_PARENT_RUN_ID, None)
        if parent in self._copies:
            tags[MLFLOW_PARENT_RUN_ID] = self._copies[parent].info.run_id
        return tags

    def _translated(self, value: str) -> str:
        """Value in which a reference to a run, such as the origin of weights, refers to that run's copy."""
        run_id = value.removeprefix(RUN_REFERENCE).rstrip("/")
        if value.startswith(RUN_REFERENCE) and run_id in self._copies:
            return RUN_REFERENCE + self._copies[run_id].info.run_id
        return value

    def _copy_model(self, copy: Run, output: LoggedModelOutput) -> None:
        experiment_id, run_id = copy.info.experiment_id, copy.info.run_id
        model = self._source.get_logged_model(output.model_id)
        found = find_model(self._target, experiment_id=experiment_id, run_id=run_id, name=model.name)
        if model.status != LoggedModelStatus.READY or (found and found.status == LoggedModelStatus.READY):
            return
        repository = get_artifact_repository(model.artifact_location, tracking_uri=self._source.tracking_uri)
        with tempfile.TemporaryDirectory(prefix="tandem-copy-") as scratch:
            folder = Path(repository.download_artifacts("", scratch))
            write_model(
                self._target,
                experiment_id=experiment_id,
                run_id=run_id,
                folder=folder,
                name=model.name,
                step=output.step,
            )


def _experiments(source: MlflowClient, names: Sequence[str] | None) -> list[Experiment]:
    with explained(source.tracking_uri):
        found: list[Experiment] = []
        token: str | None = None
        while True:
            page = source.search_experiments(page_token=token)
            found += page
            token = page.token
            if not token:
                break
        if names is None:
            return [e for e in found if source.search_runs([e.experiment_id], max_results=1)]
    by_name = {experiment.name: experiment for experiment in found}
    for name in names:
        if name not in by_name:
            raise UserError(
                f"no experiment {name!r} in MLflow at {shown_uri(source.tracking_uri)}: there are "
                f"{', '.join(sorted(by_name))}"
            )
    return [by_name[name] for name in names]


def _runs(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id], max_results=RUNS_PER_PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _parents_first(runs: Sequence[Run]) -> list[Run]:
    """Runs ordered by age, so that a run follows those whose weights it uses, and each after its parent."""
    by_id = {run.info.run_id: run for run in runs}
    ordered: dict[str, Run] = {}

    def add(run: Run) -> None:
        parent = by_id.get(run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""))
        if parent and parent.info.run_id not in ordered:
            add(parent)
        ordered[run.info.run_id] = run

    for run in sorted(runs, key=lambda run: run.info.start_time):
        add(run)
    return list(ordered.values())


def _origin(run: Run) -> str:
    """Id of the original run; a copy of a copy has the same original."""
    return run.data.tags.get(vocabulary.COPIED_FROM, run.info.run_id)


def _state(run: Run) -> str:
    """SHA-256 (hexadecimal) of a run's status, parameters, metrics, tags, inputs and outputs."""
    inputs = run.inputs.to_dictionary() if run.inputs else None
    outputs = run.outputs.to_dictionary() if run.outputs else None
    tags = {key: value for key, value in run.data.tags.items() if key not in COPY_TAGS}
    row = [run.info.status, run.info.end_time, run.data.params, run.data.metrics, tags, inputs, outputs]
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()


def _is_complete(copy: Run, run: Run, state: str) -> bool:
    if vocabulary.COPIED_FROM not in copy.data.tags:
        return True  # the target has the original run itself
    return copy.data.tags.get(vocabulary.COPIED_STATE) == state


def _copy_files(source: ArtifactRepository, target: ArtifactRepository, scratch: Path, *, again: bool) -> None:
    """Copies files that the target lacks at the same path with the same size; with `again`, all files."""
    there = {} if again else dict(_files(target))
    for path, size in _files(source):
        interrupts.check()
        if there.get(path) != size:
            local = source.download_artifacts(path, str(scratch))
            folder = str(PurePosixPath(path).parent)
            target.log_artifact(local, None if folder == "." else folder)
            Path(local).unlink()


def _files(repository: ArtifactRepository, folder: str | None = None) -> Iterator[tuple[str, int | None]]:
    """Path and size in bytes of every file."""
    for entry in repository.list_artifacts(folder):
        if entry.is_dir:
            yield from _files(repository, entry.path)
        else:
            yield entry.path, entry.file_size


@contextmanager
def _naming_the_run(run: Run, done: int, total: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each kind of store raises errors of its own
        raise UserError(
            f"the copy stopped at run {run.info.run_id} ({run.info.run_name}), after {done} of {total} runs: "
            f"{one_line(error)}; fix that and repeat the command, which continues from there"
        ) from error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tandem.tracking.copy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", metavar="URI", required=True, help="tracking URI of the runs")
    parser.add_argument("--to", dest="target", metavar="URI", required=True, help="tracking URI to copy to")
    parser.add_argument(
        "--experiment",
        action="append",
        metavar="NAME",
        help="experiment to copy; may be repeated (default: all experiments with runs)",
    )
    arguments = parser.parse_args(argv)
    copied = copy_runs(arguments.source, arguments.target, arguments.experiment)
    print(
        f"{copied.new} runs copied, {copied.completed} completed, {copied.unchanged} there already, "
        f"in MLflow at {shown_uri(resolve_uri(arguments.target))}"
    )


if __name__ == "__main__":
    run_program("copy", main)
