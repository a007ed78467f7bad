from __future__ import annotations

import time

import numpy as np
import pytest

from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.on_keras.feed import CountEpochs, StreamLoader
from tandem.protocol.settings import AugmentationSettings

Batches = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def expected(data: PreparedData) -> Stream:
    flips = Augmentation(settings=AugmentationSettings(horizontal_flip=True, crop_padding=1))
    rows = data.rows("train")
    return Stream(data.images, data.labels, rows, batch_size=8, seed=(3, 2), shuffle=True, augmentation=flips)


def assert_equal_batches(received: Batches, expected: Batches) -> None:
    for batch, expected_batch in zip(received, expected, strict=True):
        assert all(np.array_equal(*parts) for parts in zip(batch, expected_batch, strict=True))


def test_batches_in_any_order_are_the_stream_s(expected: Stream) -> None:
    loader = StreamLoader(expected)
    for epoch, index in [(0, 0), (0, 1), (0, 0), (0, 1), (0, 2), (1, 0), (1, 3), (1, 1), (1, 2), (0, 3)]:
        loader.epoch = epoch
        assert_equal_batches([loader[index]], [expected.batch(epoch, index)])
    with pytest.raises(IndexError):
        loader[len(loader)]


def test_batches_are_made_ahead(expected: Stream) -> None:
    loader = StreamLoader(expected)
    for index in range(len(loader) - 1):
        loader[index]
    deadline = time.monotonic() + 10
    while expected.first_epoch_hash is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert expected.first_epoch_hash is not None  # the last batch was made without a request


def test_each_epoch_of_a_fit_is_the_stream_s_epoch_of_the_same_number(expected: Stream) -> None:
    loader = StreamLoader(expected)
    callback = CountEpochs(loader)
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        assert_equal_batches([loader[index] for index in range(len(loader))], list(expected.epoch(epoch)))
