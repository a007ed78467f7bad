"""Finds the finished cells of a grid by their runs in MLflow."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Run

from tandem import interrupts
from tandem.grid.file import GridCell
from tandem.protocol.frameworks import backend_of
from tandem.protocol.settings import flatten
from tandem.protocol.settings_hash import settings_hash, values_before
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import connect, explained, find_or_create_experiment, resolve_uri
from tandem.tracking.places import place_of_runs
from tandem.tracking.process import SECONDS_TO_END, is_gone, this_process
from tandem.tracking.provenance import parameter_text
from tandem.tracking.reader import NoRuns, read_runs

Identity = tuple[str, str, str, str]
"""Framework, backend, settings hash and budget; equal for a cell and its run."""

# Settings for optional results: if a cell requests one, its finished run must have it.
_KEPT = ("tracking.log_model", "tracking.log_weights")


def identity_of(cell: GridCell) -> Identity:
    """Identity by which a cell's run is found, with the KERAS_BACKEND of this process."""
    return cell.framework, backend_of(cell.framework), settings_hash(cell.settings), cell.settings.tracking.budget


def finished_cells(cells: Sequence[GridCell]) -> set[int]:
    """Numbers of the cells that have a finished run; see count_finished_runs.

    Raises:
        UserError: MLflow does not answer.
    """
    return {number for number, count in count_finished_runs(cells).items() if count}


def count_finished_runs(cells: Sequence[GridCell]) -> dict[int, int]:
    """Counts the finished runs of each cell, by cell number.

    A run counts if it logged its weights and its model where the cell requests them, and has the cost settings that
    the cell requests.

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
    """Lets the script continue an earlier attempt at a cell whose process is gone, and marks others as FAILED.

    An attempt that may still be running has a minute to end: the kernel ends a script whose worker was killed. If the
    cluster considers a machine lost that is in fact still running, its attempt sets the final status when it ends. Only
    the runs of this cell are requested from MLflow.

    Args:
        cell: The cell that is about to run.
        identity: The cell's identity on the machine that started the grid.
        since: The start of the grid, in milliseconds since 1970; older runs belong to other grids.

    Returns:
        True if the cell has a finished run by now.

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
            if run.info.status == "RUNNING" and run.info.start_time >= since and not _is_gone(run, cell):
                client.set_tag(run.info.run_id, vocabulary.FAILURE, "its machine was lost, and its cell is run again")
                client.set_terminated(run.info.run_id, "FAILED")
    return any(run.info.status == "FINISHED" and _counts_as(cell, run.data.params) for run in runs)


def wait_for_earlier_attempts(cells: Sequence[GridCell]) -> None:
    """Waits for scripts on this machine that a killed grid has left: they write a checkpoint and end within a minute.

    A cell that began before that would be trained a second time beside them.

    Raises:
        UserError: MLflow does not answer.
    """
    wanted, boot = {identity_of(cell) for cell in cells}, this_process()["boot"]
    found: list[Run] = []
    for uri, name in _experiments(cells):
        client = connect(resolve_uri(uri))
        with explained(client.tracking_uri):
            if (experiment := client.get_experiment_by_name(name)) is not None:
                running = "attributes.status = 'RUNNING'"
                found += client.search_runs([experiment.experiment_id], filter_string=running)
    deadline = time.monotonic() + SECONDS_TO_END
    for run in found:
        process = _process_of(run)
        if process is None or process.get("boot") != boot or _identity_of_run(run.data.tags) not in wanted:
            continue
        while not is_gone(process) and time.monotonic() < deadline:
            interrupts.check()
            time.sleep(0.2)


def _process_of(run: Run) -> dict[str, Any] | None:
    try:
        process: dict[str, Any] = json.loads(run.data.tags[vocabulary.PROCESS])
    except (KeyError, ValueError):
        return None
    return process


def _is_gone(run: Run, cell: GridCell) -> bool:
    """True if a run's process has ended within a minute from now; a run without one is not known to."""
    if (process := _process_of(run)) is None:
        return False
    records = place_of_runs(cell.settings).glob(f"*-{run.info.run_id[:8]}/{vocabulary.PROCESS_FILE}")
    record = next(records, None)
    deadline = time.monotonic() + SECONDS_TO_END
    while not is_gone(process, record):
        if time.monotonic() > deadline:
            return False
        interrupts.check()
        time.sleep(0.5)
    return True


def prepare_experiments(cells: Sequence[GridCell]) -> None:
    """Creates missing experiments of the cells, so that problems with MLflow are reported before any cell runs."""
    for uri, experiment in _experiments(cells):
        find_or_create_experiment(connect(resolve_uri(uri)), experiment)


def _experiments(cells: Iterable[GridCell]) -> set[tuple[str | None, str]]:
    return {(cell.settings.tracking.uri, cell.settings.tracking.experiment) for cell in cells}


def _identity_of_run(tags: dict[str, str]) -> Identity:
    names = (vocabulary.FRAMEWORK, vocabulary.BACKEND, vocabulary.SETTINGS_HASH)
    framework, backend, settings = (tags.get(name, "") for name in names)
    return framework, backend, settings, tags.get(vocabulary.BUDGET, "full")  # the oldest runs have no budget


def _counts_as(cell: GridCell, params: Mapping[str, str]) -> bool:
    """True if a run with these parameters has the results and the cost settings that the cell requests.

    A run that is older than a cost setting had the value that the setting replaced.
    """
    settings = flatten(cell.settings)
    of_run = {**{name: parameter_text(value) for name, value in values_before().items()}, **params}
    return all(params.get(name) == "true" for name in _KEPT if settings[name]) and all(
        of_run[name] == parameter_text(value) for name, value in cell.costs.items() if name in of_run
    )
