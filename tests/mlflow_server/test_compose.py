"""compose.yaml without Docker: its content is checked, and its server command runs on this machine."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from mlflow.tracking import MlflowClient

from tests.team_server import FOLDER, ROOT, SECRETS, SETTINGS, Finished, TeamServer, interpolated


def test_every_service_has_a_health_check_and_restarts(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"mlflow", "database", "files"}
    for service in compose["services"].values():
        assert service["healthcheck"]["test"][0] == "CMD" and service["restart"] == "unless-stopped"
    waited_for = compose["services"]["mlflow"]["depends_on"]
    assert {name: entry["condition"] for name, entry in waited_for.items()} == {
        "database": "service_healthy",
        "files": "service_healthy",
    }


def test_data_outlives_the_containers(compose: dict[str, Any]) -> None:
    mounted = {entry for service in compose["services"].values() for entry in service.get("volumes", [])}
    assert {entry.partition(":")[0] for entry in mounted} == set(compose["volumes"])
    assert compose["services"]["database"]["volumes"] and compose["services"]["files"]["volumes"]


def test_only_mlflow_is_reachable_and_only_from_this_machine(compose: dict[str, Any]) -> None:
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert ports == {"mlflow": ["127.0.0.1:5000:5000"], "database": [], "files": []}


def test_secrets_come_only_from_the_environment() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    example = dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / "example.env").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(SECRETS)
    secret = re.compile("PASSWORD|SECRET|ACCESS_KEY", re.IGNORECASE)
    for name, service in yaml.safe_load(text)["services"].items():
        for variable, value in service["environment"].items():
            assert not secret.search(variable) or re.fullmatch(r"\$\{\w+:\?.*\}", value), (name, variable)
    with pytest.raises(AssertionError, match="POSTGRES_PASSWORD has to be set"):
        interpolated(yaml.safe_load(text), {**SECRETS, "POSTGRES_PASSWORD": ""})


def test_image_has_the_tested_versions() -> None:
    dockerfile = (FOLDER / "Dockerfile").read_text()
    constraints = (ROOT / "constraints.txt").read_text().lower()
    (packages,) = re.findall(r'-c /tmp/constraints\.txt ("mlflow\[auth\]".*) \\', dockerfile)
    for package in re.findall(r"[a-z0-9]+(?=\[|\"| |$)", packages.replace("[auth]", "").replace("[binary]", "")):
        assert f"\n{package}==" in constraints
    image = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["mlflow"]["image"]
    assert f"\nmlflow=={image.rpartition(':')[2]}\n" in constraints


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_scripts_and_comparison_survive_a_restart_of_the_server(
    team_server: TeamServer, object_store: Any, run: Callable[..., Finished], tmp_path: Any
) -> None:
    user, password = team_server.account
    account = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    train = ["--config", "settings.yaml", "--tracking.uri", team_server.uri]

    assert requests.get(team_server.uri, timeout=10).status_code == 401
    for wrong in ({}, {**account, "MLFLOW_TRACKING_PASSWORD": "something else"}):
        refused = run(ROOT / "train_torch.py", *train, cwd=tmp_path, **wrong)
        assert refused.returncode == 2
        *preparation, last = refused.stderr.splitlines()
        error = f"train_torch.py: error: MLflow at {team_server.uri} does not accept this user name and password: set "
        assert last.startswith(error) and not [line for line in preparation if "rror" in line], refused.stderr

    for framework, number in (("torch", signal.SIGTERM), ("keras", signal.SIGKILL)):
        trained = run(ROOT / f"train_{framework}.py", *train, cwd=tmp_path, **account)
        assert trained.returncode == 0, trained.stderr
        assert "warning" not in trained.stderr
        team_server.stop(number)
        team_server.start()

    compared = run(
        ROOT / "compare.py", "--experiment", "team", "--tracking.uri", team_server.uri, cwd=tmp_path, **account
    )
    assert compared.returncode == 0, compared.stderr
    rows = [line for line in compared.stdout.splitlines() if "finetune" in line]
    assert {framework for framework in ("torch", "keras") for row in rows if framework in row} == {"torch", "keras"}

    with pytest.MonkeyPatch.context() as patch:
        for name, value in account.items():
            patch.setenv(name, value)
        client = MlflowClient(tracking_uri=team_server.uri)
        experiment = client.get_experiment_by_name("team")
        assert experiment and experiment.artifact_location.startswith("mlflow-artifacts:")
        runs = client.search_runs([experiment.experiment_id], "tags.`tandem.framework` LIKE '%'")
        assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
        for recorded in runs:
            assert recorded.data.metrics["test/accuracy"] >= 0
            assert [model.step for model in client.get_run(recorded.info.run_id).outputs.model_outputs] == [0]
    stored = object_store.list_objects_v2(Bucket="mlflow")["Contents"]
    names = {entry["Key"].rpartition("/")[2] for entry in stored}
    assert {"MLmodel", "settings.yaml", "predictions.parquet", "run.html"} <= names
    assert all(entry["Key"].startswith("artifacts/") for entry in stored)
    for secret in (password, SECRETS["POSTGRES_PASSWORD"], SECRETS["S3_SECRET_KEY"]):
        assert secret not in team_server.printed()
        assert secret not in " ".join(team_server.process.args)

    team_server.stop(signal.SIGTERM)
    gone = run(ROOT / "compare.py", "--experiment", "team", "--tracking.uri", team_server.uri, cwd=tmp_path, **account)
    assert gone.returncode == 2
    assert f"no MLflow server answers at {team_server.uri}" in gone.stderr and gone.stderr.count("\n") == 1
    team_server.start()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_commands_of_the_readme_for_accounts_backup_and_upgrade_work(
    team_server: TeamServer, postgres_programs: Path, tmp_path: Path
) -> None:
    readme = (FOLDER / "README.md").read_text().replace(" \\\n        ", " ")
    commands = re.findall(
        r"^    docker compose -f \S+ (?:exec|run)(?: --rm| -T| -e \S+)* \w+ (.*)$", readme, re.MULTILINE
    )
    account = dict(zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), team_server.account, strict=True))
    environment = {**team_server.environment, "PATH": f"{postgres_programs}:{os.environ['PATH']}", **account}
    programs = []
    for command in commands:
        words, sign, file = re.fullmatch(r"(.*?)(?: ([<>]) (\S+))?", command).groups()  # type: ignore[union-attr]
        program, *arguments = shlex.split(words.replace("http://localhost:5000", team_server.uri))
        if program == "pg_restore" and program not in programs:
            team_server.stop(signal.SIGTERM)
        programs.append(program)
        # programs of this environment instead of the image's
        local = {"python": sys.executable, "mlflow": str(Path(sys.executable).with_name("mlflow"))}.get(
            program, program
        )
        done = subprocess.run(
            [local, *arguments],
            env=environment,
            input=(tmp_path / file).read_bytes() if sign == "<" else None,
            capture_output=True,
        )
        assert done.returncode == 0, (command, done.stderr)
        if sign == ">":
            (tmp_path / file).write_bytes(done.stdout)
    assert programs == ["python", *["pg_dump"] * 2, *["pg_restore"] * 2, "mlflow", "python"]
    team_server.start()
    answer = requests.get(
        f"{team_server.uri}/api/2.0/mlflow/experiments/get?experiment_id=0",
        auth=("ada", "at-least-12-characters"),
        timeout=20,
    )
    assert answer.status_code == 200
