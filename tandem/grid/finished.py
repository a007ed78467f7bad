"""Which cells of a grid are finished: those whose finished run is in MLflow."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

from mlflow.tracking import MlflowClient

from tandem.grid.file import GridCell
from tandem.protocol.parser import KERAS_BACKENDS
from tandem.protocol.settings import flatten
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.provenance import settings_hash
from tandem.tracking.reader import NoRuns, read_runs

Identity = tuple[str, str, str, str]
"""Framework, what computes, hash of the settings and budget: equal for a cell and its run."""

# What a run leaves only where it is told to, and a cell that asks for it has to have.
_KEPT = ("tracking.log_model", "tracking.log_weights")


def identity_of(cell: GridCell) -> Identity:
    """What the run of a cell is found by, where KERAS_BACKEND is as it is here."""
    backend = os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0]) if cell.framework == "keras" else "torch"
    return cell.framework, backend, settings_hash(cell.settings), cell.settings.tracking.budget


def finished_cells(cells: Sequence[GridCell]) -> set[int]:
    """The numbers of the cells with a finished run that has logged its weights and its model if the cell is to.

    Raises:
        UserError: MLflow does not answer.
    """
    return {number for number, count in count_finished_runs(cells).items() if count}


def count_finished_runs(cells: Sequence[GridCell]) -> dict[int, int]:
    """How many such runs each cell has, by the cells' numbers.

    Raises:
        UserError: MLflow does not answer.
    """
    kept: dict[Identity, list[set[str]]] = defaultdict(list)
    for uri, experiment in _experiments(cells):
        try:
            runs = read_runs(uri, experiment)
        except NoRuns:
            continue
        for run in runs:
            if run.status == "FINISHED":
                kept[_identity_of_run(run.tags)].append(_kept_by(run.params))
    return {cell.number: sum(_asked(cell) <= of_run for of_run in kept[identity_of(cell)]) for cell in cells}


def num_finished_runs(cell: GridCell, identity: Identity) -> int:
    """How many finished runs of one cell there are, which is asked without reading those of the others.

    Args:
        identity: Of the cell, from the machine on which the grid was started.

    Raises:
        UserError: MLflow does not answer.
    """
    tracking = cell.settings.tracking
    client = _client(tracking.uri)
    with explained(client.tracking_uri):
        experiment = client.get_experiment_by_name(tracking.experiment)
        if experiment is None:
            return 0
        runs = client.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`{vocabulary.SETTINGS_HASH}` = '{identity[2]}' AND attributes.status = 'FINISHED'",
        )
    return sum(
        _identity_of_run(run.data.tags) == identity and _asked(cell) <= _kept_by(run.data.params) for run in runs
    )


def prepare_experiments(cells: Sequence[GridCell]) -> None:
    """Makes the cells' experiments where there are none, so that what is wrong with MLflow is said before all runs."""
    for uri, experiment in _experiments(cells):
        find_or_create_experiment(connect(resolve_uri(uri)), experiment)


def _experiments(cells: Iterable[GridCell]) -> set[tuple[str | None, str]]:
    return {(cell.settings.tracking.uri, cell.settings.tracking.experiment) for cell in cells}


def _client(uri: str | None) -> MlflowClient:
    return connect(resolve_uri(uri))


def _identity_of_run(tags: dict[str, str]) -> Identity:
    names = (vocabulary.FRAMEWORK, vocabulary.BACKEND, vocabulary.SETTINGS_HASH)
    framework, backend, settings = (tags.get(name, "") for name in names)
    return framework, backend, settings, tags.get(vocabulary.BUDGET, "full")  # from before there were budgets: full


def _asked(cell: GridCell) -> set[str]:
    return {name for name in _KEPT if flatten(cell.settings)[name]}


def _kept_by(params: dict[str, str]) -> set[str]:
    return {name for name in _KEPT if params.get(name) == "true"}
