from __future__ import annotations

import numpy as np
import pytest
import torch

from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.on_torch.feed import StreamLoader
from tandem.protocol.settings import AugmentationSettings

NUM_EPOCHS = 3

Batches = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def expected(data: PreparedData) -> Stream:
    flips = Augmentation(settings=AugmentationSettings(horizontal_flip=True, crop_padding=1))
    rows = data.rows("train")
    return Stream(data.images, data.labels, rows, batch_size=8, seed=(3, 2), shuffle=True, augmentation=flips)


def assert_equal_batches(received: Batches, expected: Batches) -> None:
    for batch, expected_batch in zip(received, expected, strict=True):
        assert all(np.array_equal(*parts) for parts in zip(batch, expected_batch, strict=True))


def served(loader: StreamLoader) -> Batches:
    return [(images.numpy(), labels.numpy()) for images, labels in loader]


def test_each_pass_is_the_next_epoch(expected: Stream) -> None:
    loader = StreamLoader(expected, pin_memory=False)
    for epoch in range(NUM_EPOCHS):
        assert_equal_batches(served(loader), list(expected.epoch(epoch)))


def test_unused_iterators_do_not_count_as_epochs(expected: Stream) -> None:
    loader = StreamLoader(expected, pin_memory=False)
    for _ in range(3):
        iter(loader)
    assert_equal_batches(served(loader), list(expected.epoch(0)))


def test_parts_without_images_are_left_out(expected: Stream) -> None:
    # batches of 8, 8, 8 and 6 images: the part from the seventh image on
    loader = StreamLoader(expected, pin_memory=False, share_of=lambda num_images: slice(6, num_images))
    assert_equal_batches(
        served(loader), [(images[6:], labels[6:]) for images, labels in expected.epoch(0) if len(labels) > 6]
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_batches_on_the_gpu_are_the_stream_s(expected: Stream) -> None:
    loader = StreamLoader(expected, pin_memory=True)
    for epoch in range(NUM_EPOCHS):
        batches = list(loader)  # all of them at once: none may have been written over
        assert all(part.device.type == "cuda" for batch in batches for part in batch)
        assert_equal_batches(
            [(images.cpu().numpy(), labels.cpu().numpy()) for images, labels in batches], list(expected.epoch(epoch))
        )
