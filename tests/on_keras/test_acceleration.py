from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tandem.data.prepare import PreparedData
from tandem.experiment.evaluation import logits_of_test
from tandem.on_keras.acceleration import jit_compile, set_flags, warm_up
from tandem.on_keras.feed import StreamLoader
from tandem.on_keras.networks import Classifier, Pixels
from tandem.on_keras.streams import open_streams
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import AccelerationSettings, Settings
from tests.small_runs import NUM_CLASSES, assert_same_outputs, small_settings, tell_images_apart
from train_keras import FRAMEWORK, predict_batch

ROOT = Path(__file__).resolve().parents[2]
PHASE = Phase(number=1, trainable="all", learning_rate=1e-3, max_epochs=2)


class CountedClassifier(Classifier):
    """A classifier that counts its calls in Python; a compiled step calls it only while it is traced."""

    calls = 0

    def call(self, images: Any, training: bool = False) -> Any:
        self.calls += 1
        return super().call(images, training=training)


def small_network() -> CountedClassifier:
    """A network with weights, batch-norm statistics and the random state of a dropout, which a step changes."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
    backbone = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(NUM_CLASSES)])
    network = CountedClassifier(Pixels(8, "unit"), backbone, head)
    network(np.zeros((1, 8, 8, 3), np.uint8))
    return network


def compiled_for_training(jit_compile: bool = False) -> CountedClassifier:
    network = small_network()
    network.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit_compile,
    )
    return network


def losses_of(network: CountedClassifier, training: StreamLoader, validation: StreamLoader) -> list[list[float]]:
    history = network.fit(training, validation_data=validation, epochs=2, shuffle=False, verbose=0).history
    return [history["loss"], history["val_loss"]]


@pytest.fixture
def loaders(data: PreparedData) -> tuple[StreamLoader, StreamLoader]:
    return open_streams(small_settings(), data, PHASE)


class PretendedTensorflow:
    """The functions of tensorflow.config that set_flags calls; determinism cannot be switched off again."""

    def __init__(self) -> None:
        self.config = self.experimental = self
        self.called: list[object] = []

    def enable_tensor_float_32_execution(self, on: bool) -> None:
        self.called.append(on)

    def enable_op_determinism(self) -> None:
        self.called.append("deterministic")


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_operations_are_chosen_if_set(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = PretendedTensorflow()
    monkeypatch.setattr("tandem.on_keras.acceleration.backend_module", lambda: module)
    set_flags(AccelerationSettings(deterministic=deterministic))
    assert module.called == [True, *["deterministic"] * deterministic]


@pytest.fixture
def flags() -> Iterator[None]:
    """Restores TensorFlow's own flag after the test."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_set(tf32: bool) -> None:
    set_flags(AccelerationSettings(tf32=tf32))
    assert tf.config.experimental.tensor_float_32_execution_enabled() is tf32


@pytest.mark.parametrize(
    ("asked", "gpu", "given"),
    [(None, False, False), (None, True, "auto"), (True, False, True), (True, True, True), (False, True, False)],
)
def test_xla_is_used_as_set_or_where_it_is_faster(
    asked: bool | None, gpu: bool, given: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.on_keras.backends.has_gpu", lambda: gpu)
    settings = small_settings(device="auto", acceleration=AccelerationSettings(compile=asked))
    assert jit_compile(settings) == given


def test_warm_up_changes_nothing(loaders: tuple[StreamLoader, StreamLoader]) -> None:
    network = compiled_for_training()
    before = [variable.numpy() for variable in network.variables]
    assert warm_up(network, *(loader.stream for loader in loaders)) > 0
    assert len(network.variables) == len(before) == 9
    for variable, value in zip(network.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value), variable.path
    optimizer = network.optimizer
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(1e-2)
    moments = [variable.numpy() for variable in optimizer.variables if variable is not optimizer.learning_rate]
    assert len(moments) == 1 + 2 * 6 and not any(moment.any() for moment in moments)
    assert loaders[0].stream.first_epoch_hash is None


def test_warm_up_changes_nothing_on_jax() -> None:
    # in a process of its own, since Keras reads its backend when it is imported
    words = [sys.executable, "-m", "pytest", __file__, "-k", "test_warm_up_changes_nothing and not jax"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "compiled", [pytest.param(False, id="traced"), pytest.param(True, id="xla", marks=pytest.mark.long)]
)
def test_epochs_after_warming_up_are_the_same_and_trace_nothing(
    loaders: tuple[StreamLoader, StreamLoader], compiled: bool
) -> None:
    expected = losses_of(compiled_for_training(compiled), *loaders)
    network = compiled_for_training(compiled)
    warm_up(network, *(loader.stream for loader in loaders))
    calls = network.calls
    assert losses_of(network, *loaders) == expected
    assert network.calls == calls


def test_warm_up_takes_no_step_without_compilation(loaders: tuple[StreamLoader, StreamLoader]) -> None:
    network = small_network()
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy", run_eagerly=True)
    calls = network.calls
    assert warm_up(network, *(loader.stream for loader in loaders)) == 0
    assert network.calls == calls


@pytest.mark.parametrize("size", [1, 4, 15, 64])
def test_logits_do_not_depend_on_the_batch_they_are_computed_in(data: PreparedData, size: int) -> None:
    network = tell_images_apart(small_network())
    settings: Settings = dataclasses.replace(small_settings(), eval_batch_size=size)
    expected = predict_batch(network, small_settings(), np.asarray(data.images[data.rows("test")]))
    received = logits_of_test(FRAMEWORK, network, settings, data)
    assert received.shape == (15, NUM_CLASSES)
    assert_same_outputs(received, expected, atol=1e-5)


# Exceptions as each backend's libraries raise them, and one about something else.
OUT_OF_MEMORY = """
import sys
from tandem.on_keras import backend, is_out_of_memory

if backend() == "tensorflow":
    import tensorflow as tf
    yes = [
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[512,64,112,112]"),
        tf.errors.ResourceExhaustedError(None, None, "RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
        tf.errors.InternalError(None, None, "Failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED"),
        tf.errors.InternalError(None, None, "Could not create cudnn handle: CUDNN_STATUS_ALLOC_FAILED"),
        tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        tf.errors.NotFoundError(None, None, "No algorithm worked!  Error messages: Out of memory"),
    ]
    no = [tf.errors.InvalidArgumentError(None, None, "Incompatible shapes")]
elif backend() == "jax":
    from jax.errors import JaxRuntimeError
    yes = [
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes."),
        JaxRuntimeError("INTERNAL: Failed to create cuBLAS handle: CUBLAS_STATUS_ALLOC_FAILED"),
        JaxRuntimeError("INTERNAL: CUDNN_STATUS_ALLOC_FAILED in external/xla/xla/stream_executor/cuda/cuda_dnn.cc"),
    ]
    no = [JaxRuntimeError("INVALID_ARGUMENT: Argument does not match shape")]
else:
    import torch
    yes = [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes."),
    ]
    no = [RuntimeError("mat1 and mat2 shapes cannot be multiplied")]
wrong = [error for error in [*yes, MemoryError()] if not is_out_of_memory(error)]
wrong += [error for error in [*no, ValueError("out of memory"), OSError("disk full")] if is_out_of_memory(error)]
print(backend(), "wrong:", wrong)
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_too_little_memory_is_recognised_on_every_backend(backend: str) -> None:
    # in a process of its own, since Keras reads its backend when it is imported
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{backend} wrong: []"


def test_files_of_the_user_do_not_change_the_arithmetic() -> None:
    keras.config.set_floatx("float16")  # as ~/.keras/keras.json does at the import
    keras.config.set_image_data_format("channels_first")
    keras.config.set_epsilon(1e-3)
    set_flags(AccelerationSettings())
    assert (keras.config.floatx(), keras.config.image_data_format()) == ("float32", "channels_last")
    assert keras.config.epsilon() == 1e-7
