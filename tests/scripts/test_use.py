"""The commands of docs/use.md, in their order, on small images."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.tracking import MlflowClient

from tests.serving.photographs import CLASSES, write_photographs
from tests.small_runs import assert_same_outputs

ROOT = Path(__file__).resolve().parents[2]

# Added to the commands that train, for which the page relies on the defaults.
SMALL = (
    "--regime scratch --weights random --backbone mobilenet_v2 --data.image_size 32 --data.cache_folder cache "
    "--max_epochs 8 --batch_size 16 --learning_rate 1e-3 --batch_norm_momentum 0.1 --threads 1 --device cpu "
    "--tracking.data_report false"
)

pytestmark = pytest.mark.long


def blocks() -> list[str]:
    """The indented blocks of the page: commands, or code in Python."""
    page = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    found = re.findall(r"(?:^(?: {4}.*)?\n)+", page, flags=re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in found if block.strip()]


def commands() -> list[str]:
    """All lines of commands: those of programs, and for HTTP the server's and a client's."""
    lines = [line for block in blocks() if not block.startswith("import") for line in block.splitlines()]
    assert all(line.startswith(("python ", "mlflow models serve ", "echo ")) for line in lines), lines
    assert len(lines) > 7 and lines[0].startswith("python train_torch.py")
    return lines


class Place:
    """A folder with photographs in which the commands run."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {
            **environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.adapted(command)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def adapted(self, command: str) -> str:
        command = re.sub(r"^python (train_\w+\.py)", rf"python {ROOT}/\1 {SMALL}", command)
        return re.sub(r"^python compare\.py", f"python {ROOT}/compare.py", command)

    def table(self, name: str) -> pd.DataFrame:
        """Probabilities of the classes by file, from the three best of a table."""
        rows = pd.read_csv(self.folder / name)
        columns = {each: np.zeros(len(rows)) for each in CLASSES}
        for suffix in ("", "_2", "_3"):
            for row, (best, value) in enumerate(zip(rows[f"class{suffix}"], rows[f"probability{suffix}"], strict=True)):
                columns[best][row] = value
        return pd.DataFrame(columns, index=rows["path"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Place:
    """The folder after all commands but those of the server."""
    folder = tmp_path_factory.mktemp("use")
    write_photographs(folder / "photographs", per_class=40)
    place = Place(folder, environment)
    for command in commands():
        if command.startswith("python"):
            place.run(command)
    return place


@pytest.fixture(scope="module")
def recorded(place: Place) -> pd.DataFrame:
    """Recorded probabilities of the registered run's test images, by file."""
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    return recorded_of(client, client.get_model_version_by_alias("pets", "recommended").run_id)


def recorded_of(client: MlflowClient, run_id: str) -> pd.DataFrame:
    table = pd.read_parquet(client.download_artifacts(run_id, "final/predictions.parquet"))
    table.index = pd.Index([f"photographs/{key}" for key in table["key"]])
    return table.filter(like="probability:").rename(columns=lambda name: name.removeprefix("probability:"))


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("table", ["predictions.csv", "best.csv", "onnx.csv"])
def test_programs_give_the_recorded_predictions(place: Place, recorded: pd.DataFrame, table: str) -> None:
    received = place.table(table).loc[recorded.index, recorded.columns]
    assert_same_outputs(received, recorded, atol=1e-4)


def test_code_of_the_page_gives_the_recorded_predictions_of_paths(place: Place, recorded: pd.DataFrame) -> None:
    (code,) = (block for block in blocks() if block.startswith("import"))
    (path,) = re.findall(r"photographs/\w+/[\w.]+", code)
    *lines, last = code.splitlines()
    lines += [
        f"frame = {last}",
        "print(frame.to_json(orient='records'))",
        f"model.predict({recorded.index.tolist()}).filter(like='probability:').to_parquet('paths.parquet')",
    ]
    environment = {name: value for name, value in place.environment.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(words, cwd=place.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    table = pd.read_csv(place.folder / "predictions.csv", index_col="path")
    assert row["class"] == table.loc[path, "class"]
    assert row["probability"] == row[f"probability:{row['class']}"]
    assert row["probability"] == pytest.approx(table.loc[path, "probability"], abs=1e-4)
    assert_same_outputs(pd.read_parquet(place.folder / "paths.parquet"), recorded, atol=1e-5)


@pytest.fixture
def server(place: Place) -> Iterator[str]:
    """Address of the server that the page starts."""
    (command,) = (each for each in commands() if each.startswith("mlflow models serve"))
    with (place.folder / "server.txt").open("w") as log:
        process = subprocess.Popen(command.split(), cwd=place.folder, env=place.environment, stdout=log, stderr=log)
        try:
            address = "http://127.0.0.1:5001"
            for _ in range(600):
                assert process.poll() is None, (place.folder / "server.txt").read_text()
                try:
                    if requests.get(f"{address}/ping", timeout=10).ok:
                        break
                except requests.ConnectionError:
                    time.sleep(0.5)
            yield f"{address}/invocations"
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_server_gives_the_recorded_predictions(place: Place, recorded: pd.DataFrame, server: str) -> None:
    texts = [base64.b64encode((place.folder / file).read_bytes()).decode() for file in recorded.index]
    answer = requests.post(server, json={"inputs": texts}, timeout=300)
    assert answer.status_code == 200, answer.text
    rows = pd.DataFrame(answer.json()["predictions"])
    assert_same_outputs(rows[[f"probability:{name}" for name in recorded.columns]], recorded, atol=1e-5)
    (command,) = (each for each in commands() if each.startswith("echo"))
    (prediction,) = json.loads(place.run(command))["predictions"]
    assert prediction["class"] in CLASSES


def test_export_adds_a_latency_that_the_comparison_shows(place: Place) -> None:
    place.run("python compare.py --experiment pets --output costs")
    assert "latency in ONNX" in (place.folder / "costs" / "cost.md").read_text()


# Programs that read the files of an export as their frameworks do, and predict photographs with them.
READ_EXPORT = {
    "torch": """
import torch
program = torch.export.load("model.pt2").module()
network = lambda images: program(torch.from_numpy(images)).detach().numpy()
""",
    "keras": """
import tensorflow
program = tensorflow.saved_model.load("saved_model")
network = lambda images: program.serve(images).numpy()
""",
}
PREDICT_WITH_NETWORK = """
import sys, json
from tandem.serving.image_model import ImageModel
from tandem.serving.opening import find_stored_model
model = ImageModel(find_stored_model(sys.argv[1], None).description, network)
model.predict(json.loads(sys.argv[2])).filter(like="probability:").to_parquet("exported.parquet")
"""


@pytest.mark.parametrize(("framework", "kind"), [("torch", "torch_export"), ("keras", "saved_model")])
def test_export_of_the_framework_s_own_format_gives_the_recorded_predictions(
    framework: str, kind: str, place: Place
) -> None:
    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("pets")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`tandem.framework` = '{framework}'")
    assert place.run(f"python -m tandem.export runs:/{run.info.run_id} --format {kind}").startswith("Exported: ")
    expected = recorded_of(client, run.info.run_id)
    code = READ_EXPORT[framework] + PREDICT_WITH_NETWORK
    words = [sys.executable, "-c", code, f"runs:/{run.info.run_id}", json.dumps(expected.index.tolist())]
    done = subprocess.run(words, cwd=place.folder, env=place.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    received = pd.read_parquet(place.folder / "exported.parquet")
    assert_same_outputs(received[[f"probability:{name}" for name in expected.columns]], expected, atol=1e-5)


def test_recommended_run_has_a_model_card(place: Place) -> None:
    (card,) = {file.name for file in place.folder.rglob("model_card.md")}
    assert card == "model_card.md"
