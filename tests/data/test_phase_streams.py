from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tandem.data import phase_streams
from tandem.data.phase_streams import training_stream, validation_stream
from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import AugmentationSettings, Settings
from tests.small_runs import small_data, small_settings

FIRST, SECOND = (Phase(number=number, trainable="all", learning_rate=0.1, max_epochs=2) for number in (1, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))


def served(stream: Stream, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*stream.epoch(epoch), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_training_images_are_shuffled_by_seed_and_phase(data: PreparedData) -> None:
    settings = small_settings(seed=3)
    images, labels = served(training_stream(settings, data, FIRST))
    assert np.array_equal(images, served(training_stream(settings, data, FIRST))[0])
    assert not np.array_equal(images, served(training_stream(settings, data, SECOND))[0])
    assert not np.array_equal(images, served(training_stream(small_settings(seed=4), data, FIRST))[0])
    in_order = training_stream(settings, data, FIRST, shuffle=False)
    rows = data.rows("train")
    assert np.array_equal(served(in_order)[0], data.images[rows])
    assert sorted(labels.tolist()) == sorted(data.labels[rows].tolist())


def test_training_images_are_augmented_as_the_settings_say(data: PreparedData) -> None:
    plain = small_settings()
    flipped = dataclasses.replace(plain, augmentation=AugmentationSettings(horizontal_flip=True))
    before, after = (served(training_stream(settings, data, FIRST)) for settings in (plain, flipped))
    assert np.array_equal(before[1], after[1])
    is_same = [np.array_equal(one, other) for one, other in zip(before[0], after[0], strict=True)]
    is_mirrored = [np.array_equal(one[:, ::-1], other) for one, other in zip(before[0], after[0], strict=True)]
    assert any(is_same) and any(is_mirrored) and all(map(bool.__or__, is_same, is_mirrored))


def test_crops_of_larger_images_have_the_networks_size(tmp_path: Path, data: PreparedData) -> None:
    larger = np.repeat(np.repeat(data.images, 2, axis=1), 2, axis=2)
    both = dataclasses.replace(data, training_images=larger)
    settings = small_settings(augmentation=AugmentationSettings(random_resized_crop=[0.5, 1.0]))
    assert training_stream(settings, both, FIRST).batch(0, 0)[0].shape == (8, 8, 8, 3)
    assert validation_stream(settings, both, FIRST).batch(0, 0)[0].shape == (8, 8, 8, 3)


def test_validation_images_are_in_the_order_of_their_rows_and_never_augmented(data: PreparedData) -> None:
    settings: Settings = small_settings(augmentation=AugmentationSettings(horizontal_flip=True, brightness=0.5))
    for epoch in (0, 1):
        images, labels = served(validation_stream(settings, data, FIRST), epoch)
        assert np.array_equal(images, data.images[data.rows("val")])
        assert np.array_equal(labels, data.labels[data.rows("val")])


def test_features_are_served_in_place_of_images(data: PreparedData) -> None:
    features = np.arange(len(data.labels), dtype=np.float32).reshape(-1, 1)
    for stream_of, part in ((training_stream, "train"), (validation_stream, "val")):
        values, labels = served(stream_of(small_settings(), data, FIRST, features=[features]))
        rows = values[:, 0].astype(int)
        assert set(rows) <= set(data.rows(part))
        assert np.array_equal(data.labels[rows], labels)


def test_processes_of_a_machine_share_its_cores_for_augmentation(
    data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int | None] = []

    def keep_threads(*arguments: object, augmentation: Augmentation, **options: object) -> None:
        threads.append(augmentation.threads)

    monkeypatch.setattr(phase_streams, "Stream", keep_threads)
    monkeypatch.setattr(phase_streams, "num_cores", lambda: 16)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    unlimited = dataclasses.replace(small_settings(), threads=None)
    training_stream(unlimited, data, FIRST)
    for processes in ("8", "32"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        training_stream(unlimited, data, FIRST)
        training_stream(small_settings(), data, FIRST)  # threads: 1
    assert threads == [16, 2, 1, 1, 1]
