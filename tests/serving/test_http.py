from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlflow.tracking import MlflowClient

from tandem.serving.image_model import ImageModel
from tests.serving.logged import DESCRIPTION, log_run
from tests.serving.mean_colours import mean_colours
from tests.serving.photographs import write_photographs

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture
def address(client: MlflowClient, tmp_path: Path, free_port: int) -> Iterator[str]:
    """Address of `mlflow models serve` with the model of a run, started where Tandem is not installed."""
    run_id = log_run(client, tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    words = ["models", "serve", "-m", f"runs:/{run_id}/model", "--env-manager", "local", "--port", str(free_port)]
    program = "import sys; from mlflow.cli import cli; cli(sys.argv[1:])"
    environment = {"MLFLOW_TRACKING_URI": client.tracking_uri, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words], cwd=empty, env=environment, stdout=log, stderr=log
        )
        try:
            wait_for(f"http://127.0.0.1:{free_port}/ping", process, tmp_path / "log.txt")
            yield f"http://127.0.0.1:{free_port}/invocations"
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            if requests.get(address, timeout=10).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_server_predicts_posted_files_and_reads_none_of_its_own(address: str, tmp_path: Path) -> None:
    files = sorted(write_photographs(tmp_path / "photographs").rglob("*.*"))
    expected = ImageModel(DESCRIPTION, mean_colours).predict(files)
    texts = [base64.b64encode(file.read_bytes()).decode() for file in files]
    for body in ({"inputs": texts}, {"dataframe_records": [{"image": text} for text in texts]}):
        answer = requests.post(address, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        predictions = answer.json()["predictions"]
        assert [row["class"] for row in predictions] == expected["class"].tolist()
        assert [row["probability"] for row in predictions] == pytest.approx(expected["probability"].tolist())
    for item, message in ((str(files[0]), "it is no base64 text of an image file"), ("YWJj", "cannot identify image")):
        answer = requests.post(
            address, data=json.dumps({"inputs": [item]}), headers={"Content-Type": "application/json"}, timeout=60
        )
        assert answer.status_code == 400 and message in answer.text
