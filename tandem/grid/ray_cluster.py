"""Cells as tasks of a Ray cluster, which gives each its CPUs and GPUs and runs it again where its machine is lost.

Every machine has the same environment, the checkout at the same path, and the folder in which the grid is started: data
and its cache are read there, logs and the runs' own folders are written there. A shared file system has all of it.

A cell's task asks MLflow before it starts the script, so that one whose machine was lost after its run had ended is not
trained twice; and the script ends with the worker that started it: Ray kills it, or the kernel tells it (processes.py).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tandem.errors import UserError
from tandem.grid.file import GridCell
from tandem.grid.finished import Identity, identity_of, settle_earlier_attempts
from tandem.grid.machines import ROOT, check_stores, code_hash, default_threads, variables_for_cells
from tandem.grid.processes import (
    POLL_SECONDS,
    SHARED_GPU,
    CellProcess,
    Outcome,
    command_of,
    log_file,
    threads_option,
)
from tandem.tracking.mlflow_store import connect, resolve_uri

MAX_RETRIES = 3  # of a cell whose machine is lost again and again, as Ray has it for its tasks
PROBE_SECONDS = 5  # in which a cluster's port has to answer; Ray itself would wait for minutes
CHECK_SECONDS = 120  # in which every machine has to start a worker, import Tandem and reach MLflow


@dataclass(frozen=True, kw_only=True)
class Site:
    """What the machine on which the grid was started and all others have to have in common."""

    folder: str
    """The current folder."""
    code_hash: str
    variables: Mapping[str, str]
    """Of the environment. Not part of Ray's runtime environment, which its dashboard and logs show: passwords."""
    since: int
    """When the grid was started, in milliseconds since 1970."""


class RayTasks:
    """Cells on a Ray cluster; those that do not fit yet wait in its queue."""

    def __init__(
        self, address: str, cells: Sequence[GridCell], *, jobs: int | None, gpus: float | None, cpus: int | None
    ) -> None:
        """Connects, and checks that each machine can run the cells.

        Args:
            address: HOST:PORT of the cluster, or auto.
            cells: Those that are to be run.
            jobs: How many may run at once; None for as many as fit.
            gpus: That a cell has; None for one where the cluster has any.
            cpus: That a cell has, and its threads; None for its GPUs' share of a machine's.

        Raises:
            UserError: There is no such cluster, or a machine of it cannot run cells.
        """
        _connect(address)
        nodes = [node["Resources"] for node in _nodes()]
        if gpus is None:
            gpus = float(any(node.get("GPU") for node in nodes))
        if cpus is None:
            suitable = [node for node in nodes if node.get("GPU", 0) >= gpus] or nodes
            cpus = min(default_threads(node.get("CPU", 1), node.get("GPU", 0), gpus) for node in suitable)
        self.gpus, self.cpus = gpus, cpus
        self._jobs = jobs
        self._cells: dict[Any, GridCell] = {}
        variables = variables_for_cells() | (SHARED_GPU if 0 < gpus < 1 else {})
        self._site = Site(
            folder=os.getcwd(), code_hash=code_hash(), variables=variables, since=time.time_ns() // 1_000_000
        )
        check_reach({node["NodeManagerAddress"] for node in _nodes()}, cells)
        _check_nodes(self._site, {resolve_uri(cell.settings.tracking.uri) for cell in cells})

    @property
    def at_once(self) -> int:
        """How many cells the cluster runs at once as it is now, 1 where none fits."""
        room = sum(_num_that_fit(node["Resources"], self.cpus, self.gpus) for node in _nodes())
        return max(1, room if self._jobs is None else min(room, self._jobs))

    @property
    def has_room(self) -> bool:
        return self._jobs is None or len(self._cells) < self._jobs

    def describe(self) -> str:
        """One line on the cluster and what a cell gets of it."""
        nodes = _nodes()
        fits = sum(_num_that_fit(node["Resources"], self.cpus, self.gpus) for node in nodes)
        each = f"each with {self.cpus} CPUs and {self.gpus:g} GPUs"
        if not fits:
            return f"Ray: no machine has room for a cell, {each}: cells wait until one joins the cluster"
        return f"Ray: {len(nodes)} nodes, {self.at_once} cells at once, {each}"

    def start(self, cell: GridCell) -> None:
        task = _run_cell.options(name=f"{cell.number} {cell.name}", num_cpus=self.cpus, num_gpus=self.gpus)
        command = [*command_of(cell)[1:], *threads_option(cell, self.cpus)]
        self._cells[task.remote(cell, command, identity_of(cell), self._site)] = cell

    def ended(self) -> list[Outcome]:
        ready, _ = ray.wait(list(self._cells), timeout=POLL_SECONDS)
        return [_outcome(task, self._cells.pop(task)) for task in ready]

    def end(self) -> None:
        for task in self._cells:
            ray.cancel(task)  # a KeyboardInterrupt where it runs

    def kill(self) -> None:
        for task in self._cells:
            ray.cancel(task, force=True)


# -------------------------------------------------------------------------------------------------------- on a machine


@ray.remote(max_retries=MAX_RETRIES)
def _run_cell(cell: GridCell, command: Sequence[str], identity: Identity, site: Site) -> Outcome:
    """Runs a cell's script on this machine and waits for its end.

    Raises:
        UserError: This machine cannot run it.
    """
    _check_here(site)
    os.environ.update(site.variables)
    address = ray.util.get_node_ip_address()
    folder = Path(site.folder)
    if settle_earlier_attempts(cell, identity, site.since):
        return Outcome(
            cell=cell,
            status=0,
            seconds=0.0,
            log=f"{address}:{folder / log_file(cell)}",
            last_line="finished by an earlier attempt",
            by_earlier_attempt=True,
        )
    process = CellProcess(cell, [sys.executable, *command], folder=folder)
    try:
        while (outcome := process.outcome()) is None:
            time.sleep(POLL_SECONDS)  # in a call that waits for the process, a cancellation would not be seen
    except KeyboardInterrupt:
        process.end()
        while process.outcome() is None:
            time.sleep(POLL_SECONDS)
        raise
    return dataclasses.replace(outcome, log=f"{address}:{outcome.log}")


@ray.remote(num_cpus=0, max_retries=0)
def _check(site: Site, uris: Collection[str]) -> None:
    """Whether cells can be run on this machine.

    Raises:
        UserError: It cannot.
    """
    _check_here(site)
    os.environ.update(site.variables)
    for uri in uris:
        connect(uri)


def _check_here(site: Site) -> None:
    if not os.access(site.folder, os.W_OK):
        raise UserError(f"there is no folder {site.folder} that may be written, in which the grid was started")
    os.chdir(site.folder)  # a worker begins where its node was started, and a sqlite store is found from here
    if code_hash() != site.code_hash:
        raise UserError(f"the code in {ROOT} is another than where the grid was started: update the checkout")


# ---------------------------------------------------------------------------------------------------------- the cluster


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    if "://" in address or (address != "auto" and not (host and port.isdecimal())):
        raise UserError(
            f"--ray: received {address!r}, allowed: auto, or HOST:PORT of a cluster's head, on one of whose machines "
            "the grid is started; begin one with: ray start --head --port 6379"
        )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--ray: no Ray cluster answers at {address} ({type(error).__name__}): start one with "
            "`ray start --head --port 6379`, on this machine or with `ray start --address HOST:PORT` here too"
        ) from error


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def check_reach(addresses: Collection[str], cells: Sequence[GridCell]) -> None:
    """Refuses a store that only this machine can write where a node has an address of another one.

    Raises:
        UserError: A tracking URI of the cells is such a store.
    """
    own = {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}
    if set(addresses) - own:
        check_stores(cells)


def _num_that_fit(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    numbers = [resources.get("CPU", 0) // cpus]
    if gpus:
        numbers.append(resources.get("GPU", 0) / gpus)
    return int(min(numbers))


def _check_nodes(site: Site, uris: Collection[str]) -> None:
    checks = {
        _check.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(site, uris): node["NodeManagerHostname"]
        for node in _nodes()
    }
    _, late = ray.wait(list(checks), num_returns=len(checks), timeout=CHECK_SECONDS)
    for task, name in checks.items():
        if task in late:
            raise UserError(f"the Ray node {name} did not answer in {CHECK_SECONDS} s: take it out of the cluster")
        try:
            ray.get(task)
        except RayError as error:
            raise UserError(f"the Ray node {name} cannot run cells: {_reason(error)}") from error


def _outcome(task: Any, cell: GridCell) -> Outcome:
    try:
        return ray.get(task)
    except TaskCancelledError:
        reason, status = "interrupted", None
    except RayTaskError as error:
        reason, status = _reason(error), 2
    except RayError as error:
        reason, status = f"its worker was lost {MAX_RETRIES + 1} times: {_reason(error)}", None
    return Outcome(cell=cell, status=status, seconds=0.0, log=None, last_line=reason)


def _reason(error: RayError) -> str:
    """One line of what a machine has raised."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        words = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
    else:
        words = f"{type(error).__name__}: {error}"
    return next((line.strip() for line in words.splitlines() if line.strip()), type(error).__name__)[:300]
