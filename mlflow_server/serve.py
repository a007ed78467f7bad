"""Opens the MLflow UI and tracking server on this machine.

    python mlflow_server/serve.py

It serves the sqlite file and the artifacts that the training scripts write when no tracking URI is given, to this
machine only; with --host 0.0.0.0 to the network, without any password.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder stands there, not the project's

from tandem.errors import UserError, run_program
from tandem.tracking.vocabulary import DEFAULT_URI


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="mlflow_server/serve.py"
    )
    parser.add_argument("--uri", default=DEFAULT_URI, help="sqlite file with the runs (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (default: %(default)s)")
    arguments = parser.parse_args(argv)
    # after parsing: MLflow takes seconds to import, and --help shall not wait for it
    from tandem.tracking.mlflow_store import artifact_root, connect, database_file, resolve_uri

    uri = resolve_uri(arguments.uri)
    if database_file(uri) is None:
        raise UserError(f"--uri is the sqlite file to serve, such as {DEFAULT_URI}. Received: {arguments.uri!r}")
    check_port(arguments.host, arguments.port)
    connect(uri)
    artifacts = artifact_root(uri)
    assert artifacts is not None
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--registry-store-uri", uri]
    command += ["--artifacts-destination", artifacts.as_uri(), "--host", arguments.host, "--port", str(arguments.port)]
    # Several workers lose TCP_NODELAY: every request would take 40 ms.
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    print(f"MLflow at http://{arguments.host}:{arguments.port} shows {uri}; Ctrl-C stops it", flush=True)
    # Jobs are for evaluating language models; their eight processes take 1.1 GB.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", **os.environ}
    os.execve(command[0], command, environment)


def check_port(host: str, port: int) -> None:
    """Raises a UserError where the server could not listen."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"cannot listen on {host} port {port} ({error}): perhaps a server runs there already; "
                "stop it, or give another --port"
            ) from error


if __name__ == "__main__":
    run_program("serve.py", main)
