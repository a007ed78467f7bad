"""Requirements of cells on several machines: a reachable MLflow server, the same code and environment variables."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tandem.errors import UserError
from tandem.grid.file import GridCell
from tandem.launch.scripts import training_script
from tandem.secrets import shown_uri
from tandem.tracking.mlflow_store import resolve_uri

ROOT = training_script("torch").parent


def check_stores(cells: Sequence[GridCell]) -> None:
    """Refuses tracking URIs that other machines cannot reach.

    Raises:
        UserError: A tracking URI of the cells is not a server, or a server that listens on this machine only.
    """
    for uri in {resolve_uri(cell.settings.tracking.uri) for cell in cells}:
        if not uri.startswith(("http://", "https://")):
            raise UserError(
                f"tracking.uri: received {shown_uri(uri)}, but cells on several machines need an MLflow server: "
                "start one (mlflow_server/README.md) and give --tracking.uri http://HOST:PORT"
            )
        host = urlsplit(uri).hostname or ""
        if host == "localhost" or _is_loopback(host):
            raise UserError(
                f"tracking.uri: received {shown_uri(uri)}, which other machines cannot reach; start the server "
                "with --host 0.0.0.0 and give its name or address: --tracking.uri http://HOST:PORT"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def variables_for_cells() -> dict[str, str]:
    """Environment variables that decide where runs are recorded and which runs belong to a cell."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_") or name == "KERAS_BACKEND"}


def code_hash(root: Path = ROOT) -> str:
    """SHA-256 (hexadecimal) of the training code, which must be equal on all machines of a grid."""
    digest = hashlib.sha256()
    for file in sorted([*root.glob("train_*.py"), *(root / "tandem").rglob("*.py"), *(root / "tandem").rglob("*.csv")]):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def default_threads(num_cores: float, num_gpus: float, gpus_per_cell: float) -> int:
    """Threads of a cell on a machine: the cores that go with its GPUs, or one if it has no GPU."""
    if not num_gpus or not gpus_per_cell:
        return 1
    return max(1, int(num_cores * min(1.0, gpus_per_cell / num_gpus)))
