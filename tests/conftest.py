"""Signals and fixtures for all tests; imports no framework, and MLflow only when a test records runs."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from tandem.evaluation.predictions import Predictions
    from tandem.tracking.reader import RunRecord
    from tests.local_server import Server

# read by the frameworks at their import, here and in the programs that tests start: the tests are those of a machine
# without a GPU, and tests/on_gpu has the checks of one
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["JAX_PLATFORMS"] = "cpu"

ROOT = Path(__file__).resolve().parents[1]

WriteImages = Callable[..., Path]


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fresh current folder, where runs go by default, and no tracking URI from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(autouse=True)
def address_of_no_other_test() -> Iterator[None]:
    """Puts back MLFLOW_TRACKING_URI, which mlflow.set_tracking_uri sets and programs of later tests would read."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    yield
    os.environ.pop(name, None)
    if before is not None:
        os.environ[name] = before


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends all requests to a proxy that does not exist."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def pytest_configure() -> None:
    """Undoes the ignoring of signals that tests send, to themselves and to the programs they start.

    nohup ignores SIGHUP, and a script's background job SIGINT; each program that is started would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)  # pytest goes on, as nohup wants it


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, which takes it a second."""
    from tandem.tracking.mlflow_store import connect

    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """The database where runs of a program in tmp_path go by default."""
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def client(database: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the default database, in its folder."""
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(database.parent)  # artifacts of experiments that MLflow creates by itself go here
    # MLflow keeps connections by URI, so a relative URI would lead to the file of an earlier test.
    return MlflowClient(tracking_uri=f"sqlite:///{database}")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sends SIGTERM to the tests, which is then raised only where the code asks for it; within watch()."""
    from tandem import interrupts

    monkeypatch.setattr(interrupts, "SECONDS_UNTIL_RAISED", 60.0)
    monkeypatch.setattr(interrupts, "SECONDS_OF_A_STEP", 60.0)
    return lambda: os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(tmp_path: Path, free_port: int, empty_database: Path) -> Iterator[Server]:
    """A running server whose database and files are in the folder server/."""
    from tests.local_server import Server

    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "server.db")
    running = Server(folder, free_port)
    yield running
    running.kill()


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Writes images of noise, each different, into folders: write_images({"cat": 5, "train/dog": 3})."""

    def write(folders: dict[str, int], size: tuple[int, int] = (12, 10), root: str = "pets") -> Path:
        for folder, number in folders.items():
            (tmp_path / root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(number):
                path = tmp_path / root / folder / f"{index:03d}.png"
                random = np.random.default_rng(zlib.crc32(f"{folder}/{index}".encode()))
                pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
        return tmp_path / root

    return write


@pytest.fixture
def make_run() -> Callable[..., RunRecord]:
    """Makes finished runs, each later than the one before."""
    from tandem.tracking.reader import RunRecord

    numbers = itertools.count()

    def make(
        framework: str = "torch",
        regime: str = "finetune",
        accuracy: float | None = 0.9,
        *,
        backend: str | None = None,
        seed: int = 0,
        params: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        status: str = "FINISHED",
        run_id: str | None = None,
    ) -> RunRecord:
        number = next(numbers)
        scores = {} if accuracy is None else {"test/accuracy": accuracy, "test/f1_macro": accuracy - 0.01}
        return RunRecord(
            uri="sqlite:///mlflow.db",
            artifact_uri="artifacts",
            run_id=run_id or f"id{number}",
            name=f"mobilenet_v2-{regime}-{framework}",
            status=status,
            start_time=number,
            params={
                "regime": regime,
                "backbone": "mobilenet_v2",
                "weights": "imagenet",
                "learning_rate": "0.001",
                "thawed_rate_factor": "0.1",
                "seed": str(seed),
                "device": "auto",
                "data.source": "digits",
                "data.image_size": "32",
                "tracking.experiment": "demo",
                "num_classes": "5",
                "num_test_images": "180",
                **(params or {}),
            },
            metrics={
                **scores,
                "test/f1_min": 0.5,
                "cost/train_seconds": 60.0,
                "cost/seconds_per_epoch": 3.0,
                "cost/parameters": 2_200_000.0,
                "cost/latency_milliseconds": 4.0,
                **(metrics or {}),
            },
            tags={
                "tandem.framework": framework,
                "tandem.backend": backend or {"torch": "torch", "keras": "tensorflow"}[framework],
                "tandem.test_hash": "test",
                "tandem.split_hash": "split",
                "tandem.data": "digits 5-9",
                "tandem.hardware": "2 cores",
                **(tags or {}),
            },
        )

    return make


@pytest.fixture
def make_predictions() -> Callable[..., Predictions]:
    """Makes predictions of the same images from which of them are right; a wrong one names the next class."""
    from tandem.evaluation.predictions import Predictions

    def make(right: Sequence[bool], *, num_classes: int = 4) -> Predictions:
        images = len(right)
        truth = np.arange(images, dtype=np.int64) % num_classes
        predicted = np.where(right, truth, (truth + 1) % num_classes)
        probabilities = np.full((images, num_classes), 0.1 / (num_classes - 1), dtype=np.float32)
        probabilities[np.arange(images), predicted] = 0.9
        return Predictions(
            keys=tuple(f"{index}.png" for index in range(images)),
            hashes=tuple(f"{index:05d}" for index in range(images)),
            truth=truth,
            probabilities=probabilities,
            classes=tuple(f"class {index}" for index in range(num_classes)),
        )

    return make
