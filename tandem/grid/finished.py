"""Which cells of a grid are finished: those whose finished run is in MLflow."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tandem.grid.file import GridCell
from tandem.protocol.parser import KERAS_BACKENDS
from tandem.protocol.settings import flatten, settings_hash, values_before
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.provenance import parameter_text
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
    finished: dict[Identity, list[Mapping[str, str]]] = defaultdict(list)
    for uri, experiment in _experiments(cells):
        try:
            runs = read_runs(uri, experiment)
        except NoRuns:
            continue
        for run in runs:
            if run.status == "FINISHED":
                finished[_identity_of_run(run.tags)].append(run.params)
    return {cell.number: sum(_counts_as(cell, params) for params in finished[identity_of(cell)]) for cell in cells}


def settle_earlier_attempts(cell: GridCell, identity: Identity, since: int) -> bool:
    """Whether a cell has a finished run by now; an attempt whose machine was lost is marked FAILED, with that reason.

    MLflow is asked for the runs of this cell alone. An attempt that was lost only to the cluster, and in truth goes on,
    still ends as it does.

    Args:
        cell: About to be run.
        identity: Of the cell, from the machine on which the grid was started.
        since: When that was, in milliseconds since 1970: runs that began before belong to somebody else.

    Raises:
        UserError: MLflow does not answer.
    """
    tracking = cell.settings.tracking
    client = connect(resolve_uri(tracking.uri))
    with explained(client.tracking_uri):
        experiment = client.get_experiment_by_name(tracking.experiment)
        if experiment is None:
            return False
        found = client.search_runs(
            [experiment.experiment_id], filter_string=f"tags.`{vocabulary.SETTINGS_HASH}` = '{identity[2]}'"
        )
        runs = [run for run in found if _identity_of_run(run.data.tags) == identity]
        for run in runs:
            if run.info.status == "RUNNING" and run.info.start_time >= since:
                client.set_tag(run.info.run_id, vocabulary.FAILURE, "its machine was lost, and its cell is run again")
                client.set_terminated(run.info.run_id, "FAILED")
    return any(run.info.status == "FINISHED" and _counts_as(cell, run.data.params) for run in runs)


def prepare_experiments(cells: Sequence[GridCell]) -> None:
    """Makes the cells' experiments where there are none, so that what is wrong with MLflow is said before all runs."""
    for uri, experiment in _experiments(cells):
        find_or_create_experiment(connect(resolve_uri(uri)), experiment)


def _experiments(cells: Iterable[GridCell]) -> set[tuple[str | None, str]]:
    return {(cell.settings.tracking.uri, cell.settings.tracking.experiment) for cell in cells}


def _identity_of_run(tags: dict[str, str]) -> Identity:
    names = (vocabulary.FRAMEWORK, vocabulary.BACKEND, vocabulary.SETTINGS_HASH)
    framework, backend, settings = (tags.get(name, "") for name in names)
    return framework, backend, settings, tags.get(vocabulary.BUDGET, "full")  # from before there were budgets: full


def _counts_as(cell: GridCell, params: Mapping[str, str]) -> bool:
    """True if a run with these parameters kept what the cell is to keep, at the cost settings that the grid asks for.

    A run that is older than a cost setting had the value that the setting replaced.
    """
    settings = flatten(cell.settings)
    of_run = {**{name: parameter_text(value) for name, value in values_before().items()}, **params}
    return all(params.get(name) == "true" for name in _KEPT if settings[name]) and all(
        of_run[name] == parameter_text(value) for name, value in cell.costs.items() if name in of_run
    )
