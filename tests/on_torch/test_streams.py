from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
from torch import Tensor, nn

from tandem.data.phase_streams import passes_of
from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.on_torch.networks import Classifier, Pixels
from tandem.on_torch.streams import open_streams
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import AugmentationSettings, Settings
from tests.small_runs import NUM_CLASSES, small_settings
from train_torch import TrainingSteps

NUM_EPOCHS = 3

Batches = list[tuple[np.ndarray, np.ndarray]]


class RecordingSteps(TrainingSteps):
    """Training steps that keep the batches that Lightning serves."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.training_batches: Batches = []
        self.validation_batches: Batches = []

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        self.training_batches.append((batch[0].numpy(), batch[1].numpy()))
        return super().training_step(batch, index)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.validation_batches.append((batch[0].numpy(), batch[1].numpy()))
        super().validation_step(batch, index)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return small_settings(seed=3, augmentation=AugmentationSettings(horizontal_flip=True, crop_padding=1))


@pytest.fixture(scope="module")
def phase() -> Phase:
    return Phase(number=2, trainable="all", learning_rate=1e-3, max_epochs=NUM_EPOCHS)


@pytest.fixture(scope="module")
def served(settings: Settings, phase: Phase, data: PreparedData) -> tuple[Batches, Batches, str | None]:
    """Training and validation batches of a fit, and the hash of its first epoch."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 4))
    network = Classifier(Pixels(8, "unit"), backbone, nn.Linear(4, NUM_CLASSES))
    training, validation = open_streams(settings, data, phase)
    steps = RecordingSteps(network, settings, phase, [[backbone]], passes_of(settings, training.stream))
    assert training.stream.first_epoch_hash is None
    trainer = lightning.Trainer(
        max_epochs=NUM_EPOCHS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(steps, training, validation)
    return steps.training_batches, steps.validation_batches, training.stream.first_epoch_hash


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
