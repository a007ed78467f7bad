from __future__ import annotations

import dataclasses
import threading
from typing import Any

import keras
import numpy as np
import pytest

from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.on_keras.networks import Classifier, Pixels
from tandem.on_keras.streams import open_streams
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import AugmentationSettings, EarlyStoppingSettings, Settings
from tandem.tracking.curves import Curves
from tests.small_runs import NUM_CLASSES, RecordingRun, small_settings
from train_keras import train_phase

NUM_EPOCHS = 3

Batches = list[tuple[np.ndarray, np.ndarray]]


class RecordingClassifier(Classifier):
    """A classifier that keeps the batches that Keras serves."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.batches: dict[str, Batches] = {"train": [], "val": []}

    def compile(self, **options: Any) -> None:
        super().compile(**options, run_eagerly=True)  # so that every step is recorded

    def keep(self, part: str, data: Any) -> None:
        images, labels = (keras.ops.convert_to_numpy(value) for value in data)
        self.batches[part].append((images, labels))

    def train_step(self, data: Any) -> Any:
        self.keep("train", data)
        return super().train_step(data)

    def test_step(self, data: Any) -> Any:
        self.keep("val", data)
        return super().test_step(data)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return small_settings(
        seed=3,
        augmentation=AugmentationSettings(horizontal_flip=True, crop_padding=1),
        early_stopping=EarlyStoppingSettings(patience=None),
    )


@pytest.fixture(scope="module")
def phase() -> Phase:
    return Phase(number=2, trainable="all", learning_rate=1e-3, max_epochs=NUM_EPOCHS)


@pytest.fixture(scope="module")
def served(settings: Settings, phase: Phase, data: PreparedData) -> tuple[Batches, Batches, str | None]:
    """Training and validation batches of a fit, and the hash of its first epoch."""
    backbone = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(NUM_CLASSES)])
    network = RecordingClassifier(Pixels(8, "unit"), backbone, head)
    network(np.zeros((1, 8, 8, 3), np.uint8))
    curves = Curves(RecordingRun())  # type: ignore[arg-type]
    outcome = train_phase(network, phase, settings, data, curves)
    assert outcome.epochs == NUM_EPOCHS
    return network.batches["train"], network.batches["val"], outcome.first_epoch_hash


@pytest.fixture
def expected(settings: Settings, data: PreparedData) -> Stream:
    return Stream(
        data.images,
        data.labels,
        data.rows("train"),
        batch_size=8,
        seed=(3, 2),
        shuffle=True,
        augmentation=Augmentation(settings=settings.augmentation),
    )


def assert_equal_batches(received: Batches, expected: Batches) -> None:
    assert len(received) == len(expected)
    for (images, labels), (expected_images, expected_labels) in zip(received, expected, strict=True):
        assert images.dtype == np.uint8
        assert np.array_equal(images, expected_images)
        assert np.array_equal(labels, expected_labels)


def test_stream_s_batches_are_served_epoch_by_epoch(
    served: tuple[Batches, Batches, str | None], expected: Stream
) -> None:
    batches = [batch for epoch in range(NUM_EPOCHS) for batch in expected.epoch(epoch)]
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 6] * NUM_EPOCHS
    assert_equal_batches(served[0], batches)


def test_all_validation_images_are_served_in_order_in_every_epoch(
    served: tuple[Batches, Batches, str | None], data: PreparedData
) -> None:
    rows = data.rows("val")
    parts = [rows[:8], rows[8:]] * NUM_EPOCHS
    assert_equal_batches(served[1], [(data.images[part], data.labels[part]) for part in parts])


def test_hash_of_the_first_epoch_is_the_stream_s(served: tuple[Batches, Batches, str | None], expected: Stream) -> None:
    list(expected.epoch(0))
    assert served[2] == expected.first_epoch_hash is not None


def test_training_images_are_augmented_by_the_settings_number_of_threads(
    settings: Settings, phase: Phase, data: PreparedData
) -> None:
    brighter = dataclasses.replace(settings, threads=1, augmentation=AugmentationSettings(brightness=0.5))
    before = set(threading.enumerate())
    training, _ = open_streams(brighter, data, phase)
    training.stream.batch(0, 0)
    assert len(set(threading.enumerate()) - before) == 1
