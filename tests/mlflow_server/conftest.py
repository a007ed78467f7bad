from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
import yaml

from tests.team_server import FOLDER, ROOT, SECRETS, Finished, TeamServer, free_port, interpolated, wait_for


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment without variables of this machine's MLflow, database and object store."""
    foreign = ("MLFLOW_", "PG", "AWS_", "KERAS_BACKEND", "PYTHONWARNINGS")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    return interpolated(yaml.safe_load((FOLDER / "compose.yaml").read_text()), SECRETS)


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    """Folder of PostgreSQL's programs, which on Debian is not on the PATH."""
    found = next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None) or shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    return Path(found).parent


@pytest.fixture(scope="session")
def postgres(compose: dict[str, Any], postgres_programs: Path) -> Iterator[int]:
    """Port of a PostgreSQL server that is set up as in compose.yaml."""
    programs = postgres_programs
    folder = Path(tempfile.mkdtemp(prefix="tandem-postgres-"))
    # PostgreSQL refuses to run as root.
    user = {"user": "nobody" if "postgres" not in {entry.pw_name for entry in pwd.getpwall()} else "postgres"}
    as_user: dict[str, Any] = user if os.geteuid() == 0 else {}
    if as_user:
        shutil.chown(folder, as_user["user"])
    declared = compose["services"]["database"]["environment"]
    password = folder / "password"
    password.write_text(declared["POSTGRES_PASSWORD"])
    password.chmod(0o644)
    data, port = folder / "data", free_port()
    control = [programs / "pg_ctl", "--pgdata", data, "--log", folder / "log", "--wait"]
    initialise: list[str | Path] = [programs / "initdb", "--pgdata", data, "--username", declared["POSTGRES_USER"]]
    initialise += ["--auth", "scram-sha-256", "--pwfile", password, "--encoding", "UTF8", "--no-sync"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run(initialise, check=True, **quiet, **as_user)
    subprocess.run([*control, "--options", options, "start"], check=True, **quiet, **as_user)
    try:
        connect = {"host": "127.0.0.1", "port": port, "user": declared["POSTGRES_USER"]}
        connect["password"] = declared["POSTGRES_PASSWORD"]
        with psycopg.connect(dbname="postgres", autocommit=True, **connect) as connection:
            connection.execute(f"CREATE DATABASE {declared['POSTGRES_DB']}")
        with psycopg.connect(dbname=declared["POSTGRES_DB"], autocommit=True, **connect) as connection:
            connection.execute(compose["configs"]["accounts_database"]["content"])
        yield port
    finally:
        subprocess.run([*control, "--mode", "immediate", "stop"], check=True, **quiet, **as_user)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def object_store(compose: dict[str, Any], environment: dict[str, str]) -> Iterator[Any]:
    """boto3 client of moto's S3 server, which has the bucket of compose.yaml."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/moto-api/", process, lambda: "moto did not start")
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=compose["services"]["files"]["environment"]["S3_BUCKET"])
        yield client
        client.close()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def team_server(
    compose: dict[str, Any],
    postgres: int,
    object_store: Any,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TeamServer]:
    server = TeamServer(
        compose,
        tmp_path_factory.mktemp("team"),
        environment,
        PGHOST="127.0.0.1",
        PGPORT=str(postgres),
        MLFLOW_S3_ENDPOINT_URL=object_store.meta.endpoint_url,
    )
    yield server
    if server.process.poll() is None:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def run(environment: dict[str, str]) -> Callable[..., Finished]:
    """Runs a Python script or module of the repository to its end."""

    def run(*words: str | Path, cwd: Path, **variables: str) -> Finished:
        return subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=cwd,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=900,
        )

    return run
