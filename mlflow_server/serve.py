"""Starts the MLflow UI and tracking server on this machine.

    python mlflow_server/serve.py

It serves the sqlite file and the artifacts that the training scripts write
without a tracking URI. It listens to this machine only; with --host also to
others, without a password. compose.yaml has a team's server with passwords.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # Python adds the script's folder, not the project's

import psutil

from tandem.errors import UserError, run_program
from tandem.tracking.vocabulary import DEFAULT_URI

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FIRST_PORT, PORTS_TRIED = 5000, 20
SERVED_URI = "TANDEM_SERVED_URI"  # environment variable of a server's processes with the URI it serves
MOST_LINKS, MOST_EXPERIMENTS = 10, 100
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="mlflow_server/serve.py"
    )
    parser.add_argument("--uri", default=DEFAULT_URI, help="sqlite file with the runs (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help=f"port to listen on (default: {FIRST_PORT}, or the next free one)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="further host name of this machine, in addition to its own name, its addresses and localhost; may be "
        "repeated",
    )
    arguments = parser.parse_args(argv)
    # after parsing: importing MLflow takes seconds, and --help does not need it
    from tandem.tracking.mlflow_store import artifact_root, connect, database_file, resolve_uri

    uri = resolve_uri(arguments.uri)
    if database_file(uri) is None:
        raise UserError(f"--uri must be a sqlite file to serve, such as {DEFAULT_URI}. Received: {arguments.uri!r}")
    stop_left_over_server(uri)
    port = check_port(arguments.host, arguments.port) if arguments.port is not None else free_port(arguments.host, uri)
    client = connect(uri)
    artifacts = artifact_root(uri)
    assert artifacts is not None
    names = [*LOOPBACK_NAMES, *(names_of_this_machine() if not is_loopback(arguments.host) else []), *arguments.name]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--registry-store-uri", uri]
    command += ["--artifacts-destination", artifacts.as_uri(), "--host", arguments.host, "--port", str(port)]
    command += ["--allowed-hosts", ",".join(pattern for name in names for pattern in host_patterns(name))]
    # MLflow treats its own pages as foreign unless they are opened as localhost.
    origins = [f"http://{name}:{port}" for name in names if name not in LOOPBACK_NAMES]
    command += ["--cors-allowed-origins", ",".join(origins)] if origins else []
    # With several workers TCP_NODELAY is lost, and every request takes 40 ms.
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    if not is_loopback(arguments.host):
        print(
            f"warning: everyone who reaches port {port} of this machine can read, change and delete all runs without a "
            "password; mlflow_server/README.md has a server with passwords",
            file=sys.stderr,
        )
    shown = "127.0.0.1" if arguments.host in ("0.0.0.0", "::") else arguments.host  # nosec B104: compared
    shown = f"[{shown}]" if ":" in shown else shown
    address = f"http://{shown}:{port}"
    print(f"MLflow at {address} shows {uri}; Ctrl-C stops it")
    print("\n".join(links(client, address)), flush=True)
    # Jobs evaluate language models; their eight processes take 1.1 GB.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", **os.environ}
    os.execve(command[0], command, {**environment, SERVED_URI: uri})


def links(client: MlflowClient, address: str) -> list[str]:
    """One line per experiment with runs, the latest first: its name and the page with its results."""
    from tandem.tracking.mlflow_store import explained
    from tandem.tracking.views import page_of

    lines: list[str] = []
    more = 0
    with explained(client.tracking_uri):
        for experiment in client.search_experiments(order_by=["last_update_time DESC"], max_results=MOST_EXPERIMENTS):
            if not client.search_runs([experiment.experiment_id], max_results=1):
                continue
            if len(lines) < MOST_LINKS:
                lines.append(f"  {experiment.name}: {address}{page_of(experiment)}")
            else:
                more += 1
    if more:
        lines.append(f"  {more} more: {address}/#/experiments")
    return lines or ["  no runs yet"]


def free_port(host: str, uri: str) -> int:
    """First free port from 5000 on.

    Raises:
        UserError: The database is served already, or none of the first twenty ports is free.
    """
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        owner = listener(port)
        if owner is not None and served_by(owner) == uri:
            raise UserError(
                f"http://127.0.0.1:{port} serves {uri} already (process {owner.pid}): open that address, "
                f"or stop the process with: kill {owner.pid}"
            )
        if refusal(host, port) is None:
            return port
    raise UserError(
        f"cannot listen on any port of {host} from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} "
        f"({refusal(host, FIRST_PORT)}): check --host, or give a free port with --port"
    )


def check_port(host: str, port: int) -> int:
    """Returns the port if the server can listen there.

    Raises:
        UserError: It cannot; the message names the process that does.
    """
    error = refusal(host, port)
    if error is not None:
        owner = listener(port)
        who = f"process {owner.pid} ({owner.name()}) listens there" if owner else str(error)
        raise UserError(
            f"cannot listen on {host} port {port}: {who}; stop it, give another --port, or omit --port for a free one"
        ) from error
    return port


def refusal(host: str, port: int) -> Exception | None:
    """Error when listening on a port, None if the port is free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # With SO_REUSEADDR a second bind may succeed while the first socket does not listen yet.
            probe.listen(1)
        except (OSError, OverflowError) as error:
            return error
    return None


def listener(port: int) -> psutil.Process | None:
    """Process that listens on a port, None if there is none that this user may see."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:  # macOS shows them only to root
        pass
    return None


def served_by(process: psutil.Process | None) -> str | None:
    """Database that a process serves, None if this script did not start it."""
    try:
        return process.environ().get(SERVED_URI) if process else None
    except psutil.Error:
        return None


def stop_left_over_server(uri: str) -> None:
    """Stops the worker of a killed server of the database, which still listens on the port."""
    for process in psutil.process_iter():
        if process.pid == os.getpid() or served_by(process) != uri:
            continue
        try:
            if served_by(process.parent()) is None and "uvicorn" in process.cmdline():
                process.terminate()
                process.wait(timeout=10)
        except psutil.Error:
            continue


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of_this_machine() -> list[str]:
    """Names and addresses of this machine in the form of a URL."""
    addresses = [
        f"[{entry.address.partition('%')[0]}]" if entry.family == socket.AF_INET6 else entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    names = dict.fromkeys([socket.gethostname(), socket.getfqdn(), *addresses])
    return [name for name in names if name not in LOOPBACK_NAMES]


def host_patterns(name: str) -> list[str]:
    """Patterns of the Host header for a name: alone, or with any port, such as that of a tunnel or a proxy."""
    return [name, f"{name.replace('[', '[[]')}:*"]  # a single bracket would begin a character set


if __name__ == "__main__":
    run_program("serve.py", main)
