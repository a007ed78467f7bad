from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_digits

from tandem.tracking.numbers import read_numbers

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = ("torch", "keras")

# Settings that learn something in the second phase, so that scores differ from those of guessing.
SETTINGS = """
regime: two_stage
backbone: mobilenet_v2
weights: random
learning_rate: 1.0e-2
thawed_rate_factor: 0.1
batch_size: 16
max_epochs: 4
seed: 0
threads: 1
device: cpu
data:
  source: digits
  classes: ["0", "1", "2", "3", "4"]
  image_size: 32
  images_per_class: 100
  cache_folder: cache
head:
  dropout: 0.2
tracking:
  experiment: pair
  system_interval: 1.0
"""

Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The scripts' environment, without this machine's tracking URI and Keras backend."""
    foreign = ("MLFLOW_TRACKING_URI", "KERAS_BACKEND", "PYTHONWARNINGS")
    return {name: value for name, value in os.environ.items() if name not in foreign}


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python script or module of the repository in a folder."""

    def start(*words: str | Path, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=cwd,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Finished]:
    """Runs a Python script to its end."""

    def run(*words: str | Path, cwd: Path, timeout: float = 600, **variables: str) -> Finished:
        process = start(*words, cwd=cwd, **variables)
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


@pytest.fixture(scope="session")
def train(run: Callable[..., Finished]) -> Callable[..., Finished]:
    """Runs train_torch.py or train_keras.py to its end."""

    def train(framework: str, *words: str | Path, cwd: Path, **variables: str) -> Finished:
        return run(ROOT / f"train_{framework}.py", *words, cwd=cwd, **variables)

    return train


@pytest.fixture(scope="session")
def in_both() -> Callable[[Callable[[str], Any]], dict[str, Any]]:
    """Calls a function with the name of each framework, both at once, one per core."""

    def in_both(function: Callable[[str], Any]) -> dict[str, Any]:
        with ThreadPoolExecutor(len(FRAMEWORKS)) as pool:
            return dict(zip(FRAMEWORKS, pool.map(function, FRAMEWORKS), strict=True))

    return in_both


@dataclass(frozen=True)
class Recorded:
    """A run as recorded in MLflow and in its files."""

    client: MlflowClient
    run: Run
    process: Finished

    @property
    def id(self) -> str:
        return self.run.info.run_id

    @property
    def tags(self) -> dict[str, str]:
        return self.run.data.tags

    @property
    def metrics(self) -> dict[str, float]:
        return read_numbers(self.run)

    @property
    def artifacts(self) -> Path:
        return Path(self.run.info.artifact_uri.removeprefix("file://"))

    def history(self, name: str) -> list[Any]:
        return sorted(self.client.get_metric_history(self.id, name), key=lambda metric: metric.step)

    def values(self, name: str) -> list[float]:
        return [metric.value for metric in self.history(name)]

    def predictions(self, folder: str = "final") -> pd.DataFrame:
        return pd.read_parquet(self.artifacts / folder / "predictions.parquet")

    def probabilities(self, folder: str = "final") -> pd.DataFrame:
        return self.predictions(folder).filter(like="probability:")


@dataclass(frozen=True)
class Store:
    """A folder that the scripts run in."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri)

    def runs(self, experiment: str) -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None, f"no experiment {experiment} in {self.uri}"
        runs = self.client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])
        return [run for run in runs if "tandem.data_report" not in run.data.tags]

    def only_run(self, experiment: str, process: Finished, **tags: str) -> Recorded:
        """The only run of an experiment with these tags tandem.<name>."""
        wanted = {f"tandem.{name}": value for name, value in tags.items()}
        runs = [run for run in self.runs(experiment) if wanted.items() <= run.data.tags.items()]
        assert len(runs) == 1, process.stderr
        return Recorded(self.client, runs[0], process)


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Store]:
    """Makes a new folder with the settings of a small run in settings.yaml."""

    def new_store() -> Store:
        folder = tmp_path_factory.mktemp("store")
        (folder / "settings.yaml").write_text(SETTINGS)
        return Store(folder)

    return new_store


@pytest.fixture(scope="session")
def store(new_store: Callable[[], Store]) -> Store:
    """The folder of the pair of runs."""
    return new_store()


@pytest.fixture(scope="session")
def pair(
    store: Store, train: Callable[..., Finished], in_both: Callable[[Callable[[str], Finished]], dict[str, Finished]]
) -> dict[str, Recorded]:
    """The same run in both frameworks, started at the same time in an empty folder."""
    processes = in_both(lambda framework: train(framework, "--config", "settings.yaml", cwd=store.folder))
    for process in processes.values():
        assert process.returncode == 0, process.stderr
    return {name: store.only_run("pair", process, framework=name) for name, process in processes.items()}


# Predicts images in batches of one, of seven and of the others.
SERVE = """
import importlib.util, os, sys
import mlflow, mlflow.pyfunc
import numpy as np
import pandas as pd

assert importlib.util.find_spec("tandem") is None
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
uri, model, images, answer = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model)
answers = [model.predict(batch) for batch in np.split(np.load(images), [1, 8])]
assert [len(part) for part in answers[:2]] == [1, 7]
pd.concat(answers).to_parquet(answer)
"""


@pytest.fixture(scope="session")
def serve(run: Callable[..., Finished], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., pd.DataFrame]:
    """Predicts a run's test images with its logged model, in a process of its own that has none of Tandem's code."""

    def serve(recorded: Recorded, uri: str, **variables: str) -> pd.DataFrame:
        folder = tmp_path_factory.mktemp("served")
        digits = load_digits().images
        grey = np.stack([digits[int(key.split("/")[1])] for key in recorded.predictions()["key"]])
        np.save(folder / "images.npy", np.repeat(np.round(grey * 255 / 16).astype(np.uint8)[..., None], 3, axis=3))
        (output,) = recorded.run.outputs.model_outputs
        words = ["-c", SERVE, uri, f"models:/{output.model_id}", "images.npy", "answer.parquet"]
        done = run(*words, cwd=folder, **variables)
        assert done.returncode == 0, done.stderr
        return pd.read_parquet(folder / "answer.parquet")

    return serve
