"""What cells on several machines have in common: a store that all of them reach, the same code, and the same names."""

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
from tandem.tracking.mlflow_store import resolve_uri
from tandem.tracking.provenance import without_password

ROOT = training_script("torch").parent


def check_stores(cells: Sequence[GridCell]) -> None:
    """Refuses places for runs that only this machine can write.

    Raises:
        UserError: A tracking URI of the cells is no server, or one that listens on this machine alone.
    """
    for uri in {resolve_uri(cell.settings.tracking.uri) for cell in cells}:
        if not uri.startswith(("http://", "https://")):
            raise UserError(
                f"tracking.uri: received {without_password(uri)}, but cells on several machines need an MLflow server: "
                "start one as mlflow_server/README.md says and give --tracking.uri http://HOST:PORT"
            )
        host = urlsplit(uri).hostname or ""
        if host == "localhost" or _is_loopback(host):
            raise UserError(
                f"tracking.uri: received {without_password(uri)}, which other machines cannot reach; let the server "
                "listen beyond this machine and give its name or address: --tracking.uri http://HOST:PORT"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def variables_for_cells() -> dict[str, str]:
    """What of this process's environment decides where runs are recorded and which run is a cell's."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_") or name == "KERAS_BACKEND"}


def code_hash(root: Path = ROOT) -> str:
    """SHA-256 (hexadecimal) of the code that trains: equal on two machines whose cells may be compared."""
    digest = hashlib.sha256()
    for file in sorted([*root.glob("train_*.py"), *(root / "tandem").rglob("*.py"), *(root / "tandem").rglob("*.csv")]):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def default_threads(num_cores: float, num_gpus: float, gpus_per_cell: float) -> int:
    """A machine's cores for a cell: the share that goes with its GPUs, one where it has none."""
    if not num_gpus or not gpus_per_cell:
        return 1
    return max(1, int(num_cores * min(1.0, gpus_per_cell / num_gpus)))
