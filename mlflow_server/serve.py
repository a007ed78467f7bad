"""Opens the MLflow UI and tracking server on this machine.

    python mlflow_server/serve.py

It serves the sqlite file and the artifacts that the training scripts write when no tracking URI is given, to this
machine only; with --host to others too, who need no password. A team's server, with passwords, is in compose.yaml.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder stands there, not the project's

import psutil

from tandem.errors import UserError, run_program
from tandem.tracking.vocabulary import DEFAULT_URI

FIRST_PORT, PORTS_TRIED = 5000, 20
SERVED_URI = "TANDEM_SERVED_URI"  # in the environment of a server's processes: what it serves
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="mlflow_server/serve.py"
    )
    parser.add_argument("--uri", default=DEFAULT_URI, help="sqlite file with the runs (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help=f"port to listen on (default: {FIRST_PORT}, or the next that is free)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="a name by which browsers and scripts reach this machine, once for each; its own name, its addresses and "
        "localhost are known",
    )
    arguments = parser.parse_args(argv)
    # after parsing: MLflow takes seconds to import, and --help shall not wait for it
    from tandem.tracking.mlflow_store import artifact_root, connect, database_file, resolve_uri

    uri = resolve_uri(arguments.uri)
    if database_file(uri) is None:
        raise UserError(f"--uri is the sqlite file to serve, such as {DEFAULT_URI}. Received: {arguments.uri!r}")
    stop_left_over_server(uri)
    port = check_port(arguments.host, arguments.port) if arguments.port is not None else free_port(arguments.host, uri)
    connect(uri)
    artifacts = artifact_root(uri)
    assert artifacts is not None
    names = [*LOOPBACK_NAMES, *(names_of_this_machine() if not is_loopback(arguments.host) else []), *arguments.name]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--registry-store-uri", uri]
    command += ["--artifacts-destination", artifacts.as_uri(), "--host", arguments.host, "--port", str(port)]
    command += ["--allowed-hosts", ",".join(pattern for name in names for pattern in host_patterns(name))]
    # MLflow takes a page that it served itself for a foreign one, unless its name is localhost.
    origins = [f"http://{name}:{port}" for name in names if name not in LOOPBACK_NAMES]
    command += ["--cors-allowed-origins", ",".join(origins)] if origins else []
    # Several workers lose TCP_NODELAY: every request would take 40 ms.
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    if not is_loopback(arguments.host):
        print(
            f"warning: whoever reaches port {port} of this machine can read, change and delete all runs, for no "
            "password is asked; mlflow_server/README.md has a server with passwords",
            file=sys.stderr,
        )
    shown = "127.0.0.1" if arguments.host in ("0.0.0.0", "::") else arguments.host
    shown = f"[{shown}]" if ":" in shown else shown
    print(f"MLflow at http://{shown}:{port} shows {uri}; Ctrl-C stops it", flush=True)
    # Jobs are for evaluating language models; their eight processes take 1.1 GB.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", **os.environ}
    os.execve(command[0], command, {**environment, SERVED_URI: uri})


def free_port(host: str, uri: str) -> int:
    """The first free port from 5000 on.

    Raises:
        UserError: the database is served already, or no port of the first twenty is free.
    """
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        owner = listener(port)
        if owner is not None and served_by(owner) == uri:
            raise UserError(
                f"http://127.0.0.1:{port} shows {uri} already (process {owner.pid}): open it there, "
                f"or stop it with: kill {owner.pid}"
            )
        if refusal(host, port) is None:
            return port
    raise UserError(
        f"cannot listen on any port of {host} from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} "
        f"({refusal(host, FIRST_PORT)}): check --host, or give a free port with --port"
    )


def check_port(host: str, port: int) -> int:
    """Returns the port.

    Raises:
        UserError: the server could not listen there; says who does.
    """
    error = refusal(host, port)
    if error is not None:
        owner = listener(port)
        who = f"process {owner.pid} ({owner.name()}) listens there" if owner else str(error)
        raise UserError(
            f"cannot listen on {host} port {port}: {who}; stop it, give another --port, or leave --port out to get "
            "a free one"
        ) from error
    return port


def refusal(host: str, port: int) -> Exception | None:
    """Why the server could not listen there, None if it could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # With SO_REUSEADDR a second bind may be granted while the first one does not listen yet.
            probe.listen(1)
        except (OSError, OverflowError) as error:
            return error
    return None


def listener(port: int) -> psutil.Process | None:
    """The process that listens on a port, as far as this user may see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:  # macOS shows them to root alone
        pass
    return None


def served_by(process: psutil.Process | None) -> str | None:
    """The database that a process serves, None if it is not one of a server that this script has started."""
    try:
        return process.environ().get(SERVED_URI) if process else None
    except psutil.Error:
        return None


def stop_left_over_server(uri: str) -> None:
    """Stops what a server of the database has left behind that was itself killed: a process that still listens."""
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
    """Its names and the addresses of its interfaces, as they stand in a URL."""
    addresses = [
        f"[{entry.address.partition('%')[0]}]" if entry.family == socket.AF_INET6 else entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6)
    ]
    names = dict.fromkeys([socket.gethostname(), socket.getfqdn(), *addresses])
    return [name for name in names if name not in LOOPBACK_NAMES]


def host_patterns(name: str) -> list[str]:
    """What the Host header may be for a name: alone, or with the port of a tunnel or a proxy."""
    return [name, f"{name.replace('[', '[[]')}:*"]  # a bracket alone would begin a set of characters


if __name__ == "__main__":
    run_program("serve.py", main)
