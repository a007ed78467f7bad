from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# read by Keras and its backends when they are imported
os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="keras_home_")  # without weights and without the user's settings
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

from tandem.data.prepare import PreparedData
from tandem.on_keras.backends import limit_threads
from tandem.tracking.curves import Curves
from tests.small_runs import RecordingRun, small_data

if keras.backend.backend() != "jax":
    limit_threads(1)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["KERAS_HOME"])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def keras_home() -> Path:
    return Path(os.environ["KERAS_HOME"])


@pytest.fixture
def curves() -> Curves:
    return Curves(RecordingRun())  # type: ignore[arg-type]
