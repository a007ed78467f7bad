"""Cells as tasks of a Ray cluster, which assigns CPUs and GPUs to each and repeats a task if its machine is lost.

Every machine needs the same environment, the checkout at the same path, and the folder in which the grid is started:
data and caches are read there, logs and runs' folders are written there. A shared file system provides all of this.

A task checks MLflow before it starts the script, so a cell whose machine was lost after its run had ended is not
trained twice. The script ends with the worker that started it: Ray kills it, or the kernel signals it (processes.py).
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
    CellProcess,
    Outcome,
    command_of,
    log_file,
    threads_option,
)
from tandem.protocol.environment import MEMORY_AS_NEEDED
from tandem.tracking.mlflow_store import connect, resolve_uri

MAX_RETRIES = 3  # of a cell whose machine is lost repeatedly; Ray's default
PROBE_SECONDS = 5  # until the cluster's port must answer; Ray itself waits for minutes
CHECK_SECONDS = 120  # until every machine must have started a worker, imported Tandem and reached MLflow


@dataclass(frozen=True, kw_only=True)
class Site:
    """Properties that all machines must share with the machine that started the grid."""

    folder: str
    """Folder in which the grid was started."""
    code_hash: str
    variables: Mapping[str, str]
    """Environment variables; not passed as Ray's runtime environment, since its dashboard and logs would show
    passwords."""
    since: int
    """Start of the grid, in milliseconds since 1970."""


class RayTasks:
    """Pool of cells on a Ray cluster; cells that do not fit wait in its queue."""

    def __init__(
        self, address: str, cells: Sequence[GridCell], *, jobs: int | None, gpus: float | None, cpus: int | None
    ) -> None:
        """Connects and checks that each machine can run the cells.

        Args:
            address: HOST:PORT of the cluster, or auto.
            cells: The cells to run.
            jobs: The maximum number of cells at once; None for as many as fit.
            gpus: GPUs per cell; None for one if the cluster has any.
            cpus: Cores, and threads, per cell; None for the share of a machine's cores that goes with its GPUs.

        Raises:
            UserError: There is no such cluster, or one of its machines cannot run cells.
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
        variables = variables_for_cells() | (MEMORY_AS_NEEDED if 0 < gpus < 1 else {})
        self._site = Site(
            folder=os.getcwd(), code_hash=code_hash(), variables=variables, since=time.time_ns() // 1_000_000
        )
        check_reach({node["NodeManagerAddress"] for node in _nodes()}, cells)
        _check_nodes(self._site, {resolve_uri(cell.settings.tracking.uri) for cell in cells})

    @property
    def at_once(self) -> int:
        """Number of cells that the cluster can run at once now, at least 1."""
        room = sum(_num_that_fit(node["Resources"], self.cpus, self.gpus) for node in _nodes())
        return max(1, room if self._jobs is None else min(room, self._jobs))

    @property
    def has_room(self) -> bool:
        return self._jobs is None or len(self._cells) < self._jobs

    def describe(self) -> str:
        """Line with the size of the cluster and what each cell gets."""
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
        UserError: This machine cannot run cells.
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
            time.sleep(POLL_SECONDS)  # process.wait() would not notice a cancellation
    except KeyboardInterrupt:
        process.end()
        while process.outcome() is None:
            time.sleep(POLL_SECONDS)
        raise
    return dataclasses.replace(outcome, log=f"{address}:{outcome.log}")


@ray.remote(num_cpus=0, max_retries=0)
def _check(site: Site, uris: Collection[str]) -> None:
    """Checks that this machine can run cells.

    Raises:
        UserError: It cannot.
    """
    _check_here(site)
    os.environ.update(site.variables)
    for uri in uris:
        connect(uri)


def _check_here(site: Site) -> None:
    if not os.access(site.folder, os.W_OK):
        raise UserError(f"cannot write to {site.folder}, the folder in which the grid was started")
    os.chdir(site.folder)  # a worker starts in its node's folder, but a sqlite store may be relative to this one
    if code_hash() != site.code_hash:
        raise UserError(f"the code in {ROOT} differs from that of the machine that started the grid: update it")


# ---------------------------------------------------------------------------------------------------------- the cluster


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    if "://" in address or (address != "auto" and not (host and port.isdecimal())):
        raise UserError(
            f"--ray: received {address!r}, allowed: auto, or HOST:PORT of the head of a cluster that this machine is "
            "part of; start a cluster with: ray start --head --port 6379"
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
            "`ray start --head --port 6379`, or join one from this machine with `ray start --address HOST:PORT`"
        ) from error


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def check_reach(addresses: Collection[str], cells: Sequence[GridCell]) -> None:
    """Refuses tracking URIs that other machines cannot reach if a node is on another machine.

    Raises:
        UserError: A tracking URI of the cells is such a URI.
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
            raise UserError(f"the Ray node {name} did not answer in {CHECK_SECONDS} s: remove it from the cluster")
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
    """One line for an error that a machine raised."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        words = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
    else:
        words = f"{type(error).__name__}: {error}"
    return next((line.strip() for line in words.splitlines() if line.strip()), type(error).__name__)[:300]
