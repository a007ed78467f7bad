from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.on_torch import feed
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


class PretendedCuda:
    """A GPU in main memory: its streams have numbers, and tensors know the streams that use them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_streams = 0
        self.used_by: list[object] = []
        for name in ("Stream", "Event", "current_stream", "current_device"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        for name in ("stream", "device"):
            monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, non_blocking: tensor)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.used_by.append(stream))

    def Stream(self, device: torch.device) -> object:
        self.num_streams += 1
        return SimpleNamespace(wait_event=lambda event: event.order.append("waited"))

    def Event(self) -> object:
        order: list[str] = []
        return SimpleNamespace(order=order, record=lambda stream: order.append("recorded"))

    def current_stream(self, device: torch.device) -> object:
        return SimpleNamespace(wait_event=self.wait)

    def wait(self, event: object) -> None:
        assert event.order == ["recorded"]  # type: ignore[attr-defined]

    def current_device(self) -> int:
        return 0


def test_copies_to_the_gpu_are_the_stream_s_batches_in_one_cuda_stream(
    expected: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = PretendedCuda(monkeypatch)
    feed._stream_for_copies.cache_clear()
    loaders = StreamLoader(expected, pin_memory=True), StreamLoader(expected, pin_memory=True)
    for epoch in range(NUM_EPOCHS):
        for loader in loaders:
            assert_equal_batches(served(loader), list(expected.epoch(epoch)))
    feed._stream_for_copies.cache_clear()
    assert cuda.num_streams == 1
    assert len(cuda.used_by) == NUM_EPOCHS * 2 * 4 * 2  # images and labels of four batches
