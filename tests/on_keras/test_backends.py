from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tandem.on_keras import backends
from tandem.on_keras.backends import (
    gradients_of,
    peak_gpu_memory_megabytes,
    reset_peak_gpu_memory,
    trials_per_process,
    uses_gpu,
    versions,
)
from tests.small_runs import small_settings

ROOT = Path(__file__).resolve().parents[2]


def test_versions_are_those_of_keras_and_its_backend() -> None:
    assert versions() == {"keras": keras.__version__, "tensorflow": tf.__version__}


def test_tensorflow_s_sweeps_restart_their_process() -> None:
    assert trials_per_process() == 10


def test_gpu_is_used_if_there_is_one_and_the_settings_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not uses_gpu(small_settings(device="auto"))
    assert peak_gpu_memory_megabytes() == 0
    monkeypatch.setattr("tandem.on_keras.backends.has_gpu", lambda: True)
    assert uses_gpu(small_settings(device="auto")) and not uses_gpu(small_settings(device="cpu"))


# The gradient of sum(x^3) at (1, 2, 3), and the answer to a number of threads.
ON_BACKEND = """
import keras, numpy as np
from tandem.errors import UserError
from tandem.on_keras.backends import backend, gradients_of, limit_threads, trials_per_process, versions

gradient = gradients_of(lambda x: keras.ops.sum(x**3), keras.ops.convert_to_tensor(np.float32([1, 2, 3])))
np.testing.assert_allclose(keras.ops.convert_to_numpy(gradient), [3, 12, 27], rtol=1e-6)
assert set(versions()) == {"keras", backend()} and trials_per_process() is None
try:
    limit_threads(1)
    print("limited")
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("backend", "told"), [("torch", "limited"), ("jax", "threads: received 1, but the jax backend")]
)
def test_gradients_and_threads_of_other_backends(backend: str, told: str) -> None:
    # in a process of its own, since Keras reads its backend when it is imported
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ON_BACKEND], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(told)


def test_gradients_on_tensorflow() -> None:
    gradient = gradients_of(lambda x: keras.ops.sum(x**3), keras.ops.convert_to_tensor(np.float32([1, 2, 3])))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(gradient), [3, 12, 27], rtol=1e-6)


class PretendedGpu:
    """The memory functions of TensorFlow, JAX and torch on a GPU whose peak was 5 MB before the last reset."""

    def __init__(self, stats: dict[str, int] | None = None) -> None:
        self.peak = 5_000_000
        self.config = self.experimental = self.cuda = self
        self.stats = stats

    def get_memory_info(self, device: str) -> dict[str, int]:
        return {"GPU:0": {"current": 1, "peak": self.peak}}[device]

    def reset_memory_stats(self, device: str) -> None:
        assert device == "GPU:0"
        self.peak = 2_000_000

    def max_memory_allocated(self) -> int:
        return self.peak

    def reset_peak_memory_stats(self) -> None:
        self.peak = 2_000_000

    def devices(self) -> list[PretendedGpu]:
        return [self]

    def memory_stats(self) -> dict[str, int] | None:
        return self.stats


@pytest.mark.parametrize(
    ("name", "stats", "before", "after"),
    [
        ("tensorflow", None, 5, 2),
        ("torch", None, 5, 2),
        ("jax", {"peak_bytes_in_use": 7_000_000}, 7, 7),  # it has no reset
        ("jax", None, 0, 0),  # with XLA_PYTHON_CLIENT_ALLOCATOR=platform
    ],
)
def test_peak_memory_is_measured_from_the_last_reset(
    name: str, stats: dict[str, int] | None, before: float, after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = PretendedGpu(stats)
    for function, result in (("backend", name), ("backend_module", module), ("has_gpu", True)):
        monkeypatch.setattr(backends, function, lambda result=result: result)
    assert peak_gpu_memory_megabytes() == before
    reset_peak_gpu_memory()
    assert peak_gpu_memory_megabytes() == after
