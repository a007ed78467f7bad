from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
from mlflow.server.security_utils import is_allowed_host_header
from mlflow.tracking import MlflowClient

from mlflow_server import serve
from tandem.errors import UserError
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.secrets import hide_secrets
from tandem.tracking.reader import find_weights, read_runs
from tandem.tracking.start import start_run
from tandem.tracking.views import MODEL_TRAINING, experiment_tags
from tests.local_server import Server
from tests.team_server import FOLDER, free_port, wait_for

SERVE = FOLDER / "serve.py"


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Port that this process listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        yield listening.getsockname()[1]


def test_occupied_port_is_refused_with_the_name_of_its_process(taken_port: int) -> None:
    me = psutil.Process()
    with pytest.raises(UserError, match=rf"port {taken_port}: process {me.pid} \({me.name()}\) listens there; stop it"):
        serve.check_port("127.0.0.1", taken_port)


def test_invalid_port_is_refused() -> None:
    with pytest.raises(UserError, match=r"port 70000: .*must be 0-65535"):
        serve.check_port("127.0.0.1", 70000)


def test_next_free_port_is_found(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "FIRST_PORT", taken_port)
    port = serve.free_port("127.0.0.1", "sqlite:///any.db")
    assert taken_port < port < taken_port + serve.PORTS_TRIED
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


def test_database_that_is_served_already_is_refused(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "FIRST_PORT", taken_port)
    monkeypatch.setattr(serve, "served_by", lambda process: "sqlite:///any.db" if process else None)
    with pytest.raises(UserError, match=rf":{taken_port} serves sqlite:///any.db already \(process {os.getpid()}\)"):
        serve.free_port("127.0.0.1", "sqlite:///any.db")
    assert serve.free_port("127.0.0.1", "sqlite:///other.db") > taken_port


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_only_loopback_addresses_are_without_warning(host: str, expected: bool) -> None:
    assert serve.is_loopback(host) == expected


def test_known_host_names_are_accepted_with_any_port() -> None:
    patterns = [
        pattern for name in (*serve.LOOPBACK_NAMES, "birds.example.org") for pattern in serve.host_patterns(name)
    ]
    for host in ("localhost:5000", "127.0.0.1:8080", "[::1]:5000", "[::1]", "birds.example.org"):
        assert is_allowed_host_header(patterns, host)
    for host in ("evil.example.org:5000", "localhost.evil.example.org", "127.0.0.10:5000", "1:5000"):
        assert not is_allowed_host_header(patterns, host)


class Serving:
    """serve.py on a fixed port, with its output in a file."""

    def __init__(self, folder: Path, environment: dict[str, str], *words: str) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.database = f"sqlite:///{folder / 'mlflow.db'}"
        self._command = [sys.executable, SERVE, "--uri", self.database, "--port", str(self.port), *words]
        self._environment = environment
        self._log = folder / "serve.log"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._started.append(process)
        self.wait(process)
        return process

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until a server answers on the port."""
        wait_for(f"{self.uri}/health", process, self.printed)

    def printed(self) -> str:
        return self._log.read_text()

    def end(self) -> None:
        """Kills all started processes and their children."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def start_serving(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Prepares serve.py with further arguments."""
    all_serving: list[Serving] = []

    def start(*words: str) -> Serving:
        all_serving.append(Serving(tmp_path, environment, *words))
        return all_serving[-1]

    yield start
    for serving in all_serving:
        serving.end()


@pytest.mark.long
def test_second_server_of_a_database_is_refused_with_the_address_of_the_first(
    start_serving: Callable[..., Serving], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = start_serving()
    serving.start()
    monkeypatch.setattr(serve, "FIRST_PORT", serving.port)
    with pytest.raises(UserError, match=rf"127.0.0.1:{serving.port} serves {serving.database} already \(process \d+\)"):
        serve.free_port("127.0.0.1", serving.database)
    assert serve.free_port("127.0.0.1", "sqlite:///other.db") > serving.port


@pytest.mark.long
def test_killed_server_starts_again_with_its_runs(start_serving: Callable[..., Serving]) -> None:
    serving = start_serving()
    process = serving.start()
    client = MlflowClient(tracking_uri=serving.uri)
    run = client.create_run("0", run_name="before").info.run_id
    client.log_text(run, "kept", "note.txt")
    children = psutil.Process(process.pid).children(recursive=True)

    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [child.is_running() for child in children] == [True]  # it still holds the port
    second = serving.start()
    assert not psutil.wait_procs(children, timeout=60)[1]
    serving.wait(second)  # the first answer may be from the worker of the killed server
    assert client.get_run(run).info.run_name == "before"
    client.log_text(run, "more", "more.txt")
    assert sorted(file.path for file in client.list_artifacts(run)) == ["more.txt", "note.txt"]


@pytest.mark.long
def test_server_for_the_network_warns_and_accepts_only_named_hosts(start_serving: Callable[..., Serving]) -> None:
    serving = start_serving("--host", "0.0.0.0", "--name", "birds.example.org")
    serving.start()
    warning, address, *_ = serving.printed().splitlines()
    assert warning.startswith(
        f"warning: everyone who reaches port {serving.port} of this machine can read, change and delete"
    )
    assert serving.uri in address
    for host, status in (("birds.example.org", 200), ("evil.example.org", 403)):
        for headers in ({"Host": f"{host}:{serving.port}"}, {"Origin": f"http://{host}:{serving.port}"}):
            answer = requests.post(
                f"{serving.uri}/ajax-api/2.0/mlflow/experiments/search",
                json={"max_results": 1},
                headers=headers,
                timeout=20,
            )
            assert answer.status_code == status, headers


# ------------------------------------------------------------------------------------------------ runs through serve.py


def test_server_keeps_files_beside_its_database(server: Server, own_environment: None, tmp_path: Path) -> None:
    settings = Settings(tracking=TrackingSettings(uri=server.uri, system_interval=60))
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        (run.folder / "weights").mkdir()
        (run.folder / "weights/model.safetensors").write_text("weights")
        run.log_artifact(run.folder / "weights")
    (record,) = read_runs(server.uri, "tandem")
    assert (record.run_id, record.status) == (run.id, "FINISHED")
    assert find_weights(server.uri, f"runs:/{run.id}", "model.safetensors").read_text() == "weights"
    (kept,) = (tmp_path / "server").rglob("model.safetensors")
    assert kept.relative_to(tmp_path / "server").parts[0] == "mlartifacts"
    assert run.where_to_look()[0].endswith(f"{server.uri}/#/experiments/1/runs/{run.id}?workflowType=machine_learning")
    assert requests.get(server.uri, timeout=5).text.lstrip().lower().startswith("<!doctype html>")

    port = server.uri.rpartition(":")[2]
    second = subprocess.run([sys.executable, SERVE, "--port", port], capture_output=True, text=True)
    assert second.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
    assert second.stderr.count("\n") == 1 and second.stdout == ""

    # MLflow cannot be kept from naming its own protection.
    lines = [line for line in server.printed().splitlines() if not line.startswith("[MLflow] Security middleware")]
    assert lines[1:] == ["  no runs yet"] and server.uri in lines[0]
    listening = psutil.Process(server.process.pid)
    children = listening.children(recursive=True)
    server.process.send_signal(signal.SIGINT)
    server.process.wait(timeout=20)
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_only_a_sqlite_file_is_served() -> None:
    command = [sys.executable, SERVE, "--uri", "http://127.0.0.1:5000"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--uri must be a sqlite file to serve" in refused.stderr and refused.stderr.count("\n") == 1


def test_links_open_the_experiments_with_runs_latest_first(client: MlflowClient) -> None:
    address = "http://127.0.0.1:5000"
    assert serve.links(client, address) == ["  no runs yet"]
    foreign = client.create_experiment("foreign")
    tandem = client.create_experiment("tandem", tags=experiment_tags())
    client.create_experiment("empty", tags=experiment_tags())
    for experiment in (foreign, tandem):
        client.create_run(experiment)
    client.set_experiment_tag(tandem, "later", "change")
    page = f"{address}/#/experiments"
    lines = [
        f"  tandem: {page}/{tandem}/runs?viewStateShareKey=tandem-results&compareRunsMode=CHART&{MODEL_TRAINING}",
        f"  foreign: {page}/{foreign}/runs?{MODEL_TRAINING}",
    ]
    assert sorted(serve.links(client, address)) == sorted(lines)
    assert [hide_secrets(line) for line in lines] == lines  # output hides unknown parameters of addresses


def test_many_experiments_are_counted(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_LINKS", 1)
    for name in ("a", "b", "c"):
        client.create_run(client.create_experiment(name))
    assert len(lines := serve.links(client, "http://m:1")) == 2
    assert lines[-1] == "  2 more: http://m:1/#/experiments"
