from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from PIL import Image

from tandem.data import stream as stream_module
from tandem.data.augmentation import NUM_GENERATORS, change, draw_changes
from tandem.data.stream import LEAST_SHARED_BYTES, Augmentation, Stream
from tandem.errors import UserError
from tandem.protocol.settings import AugmentationSettings

NUM_STORED = 60

EVERYTHING = AugmentationSettings(
    horizontal_flip=True,
    crop_padding=2,
    random_resized_crop=[0.2, 1.0],
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.2,
    vertical_flip=True,
    rotation=20,
    policy="rand_augment",
    random_erasing=0.5,
)


def store() -> tuple[np.ndarray, np.ndarray]:
    """Images of noise without black, each with its own label."""
    images = np.random.default_rng(0).integers(1, 256, (NUM_STORED, 9, 7, 3), dtype=np.uint8)
    return images, np.arange(NUM_STORED)


def stream_of(
    num_rows: int = 50,
    *,
    batch_size: int = 8,
    shuffle: bool = True,
    augmentation: AugmentationSettings | None = None,
    threads: int | None = None,
    **options: Any,
) -> Stream:
    options = {"seed": (0,), "rows": np.arange(NUM_STORED)[:num_rows], **options}
    augmented = None if augmentation is None else Augmentation(settings=augmentation, threads=threads)
    return Stream(*store(), batch_size=batch_size, shuffle=shuffle, augmentation=augmented, **options)


def served(stream: Stream, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*stream.epoch(epoch), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def hash_of_epoch(stream: Stream, epoch: int) -> str:
    """SHA-256 over the hashes of the batches (labels, then images)."""
    digests = [hashlib.sha256(labels.tobytes() + images.tobytes()).digest() for images, labels in stream.epoch(epoch)]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def stream_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stream")]


def stream_threads_that_stay() -> list[str]:
    """Threads that are alive after five seconds; a thread ends only after its current batch."""
    deadline = time.monotonic() + 5
    while stream_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return stream_threads()


def augmentation_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("augmentation")]


def test_every_image_is_served_once_an_epoch() -> None:
    stream = stream_of(rows=np.arange(10, 60))
    for epoch in range(3):
        images, labels = served(stream, epoch)
        assert sorted(labels) == list(range(10, 60))
        assert np.array_equal(images, store()[0][labels])
    assert (len(stream), stream.num_images) == (7, 50)


def test_epochs_and_seeds_differ_and_equal_streams_agree() -> None:
    first, second = stream_of(), stream_of()
    order = served(first, 0)[1]
    assert np.array_equal(order, served(second, 0)[1])
    assert not np.array_equal(order, served(first, 1)[1])
    assert not np.array_equal(order, served(stream_of(seed=(1,)), 0)[1])
    assert not np.array_equal(order, served(stream_of(seed=(0, 1)), 0)[1])
    assert not np.array_equal(order, np.sort(order))


def test_order_is_that_of_earlier_versions() -> None:
    assert served(stream_of(10), 0)[1].tolist() == [6, 3, 8, 1, 4, 5, 9, 2, 7, 0]


@pytest.mark.parametrize(
    ("flip", "padding", "expected"),
    [
        (False, 0, "9073049cea5fbaa0"),
        (True, 0, "59c882e0e6a60a4f"),
        (False, 2, "60e633a219d11b17"),
        (True, 2, "be09b6e710b6fa17"),
    ],
)
def test_batches_are_those_of_earlier_versions(flip: bool, padding: int, expected: str) -> None:
    pixels = np.arange(NUM_STORED * 9 * 7 * 3, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(7)
    stream = Stream(
        pixels.astype(np.uint8).reshape(NUM_STORED, 9, 7, 3),
        np.arange(NUM_STORED),
        np.arange(50),
        batch_size=8,
        seed=(0, 1),
        shuffle=True,
        augmentation=Augmentation(settings=AugmentationSettings(horizontal_flip=flip, crop_padding=padding)),
    )
    assert hash_of_epoch(stream, 0).startswith(expected)


@pytest.mark.parametrize(
    "augmentation", [AugmentationSettings(horizontal_flip=True, crop_padding=2), EVERYTHING], ids=["places", "all"]
)
def test_batches_are_the_same_in_any_order_of_calls(augmentation: AugmentationSettings) -> None:
    expected = {
        (epoch, index): batch
        for epoch in range(2)
        for index, batch in enumerate(stream_of(augmentation=augmentation).epoch(epoch))
    }
    stream = stream_of(augmentation=augmentation)
    for epoch, index in reversed(expected):
        images, labels = stream.batch(epoch, index)
        assert np.array_equal(images, expected[epoch, index][0])
        assert np.array_equal(labels, expected[epoch, index][1])
        assert images.dtype == np.uint8 and images.flags.c_contiguous and images.flags.writeable
        assert labels.dtype == np.int64


@pytest.mark.parametrize("augmentation", [None, EVERYTHING], ids=["no augmentation", "augmentation"])
def test_shares_are_parts_of_the_batches_and_leave_the_hash_unchanged(
    augmentation: AugmentationSettings | None,
) -> None:
    def second_half(num_images: int) -> slice:
        return slice(num_images // 2, num_images)

    whole, shares = (stream_of(augmentation=augmentation) for _ in range(2))
    for epoch in (0, 1):
        expected = list(whole.epoch(epoch))
        found = list(shares.epoch(epoch, share_of=second_half))
        assert [len(labels) for _, labels in found] == [4, 4, 4, 4, 4, 4, 1]
        for (images, labels), (all_images, all_labels) in zip(found, expected, strict=True):
            assert np.array_equal(images, all_images[len(all_images) // 2 :])
            assert np.array_equal(labels, all_labels[len(all_labels) // 2 :])
    assert shares.first_epoch_hash == whole.first_epoch_hash is not None


def test_epoch_is_resumed_in_the_middle() -> None:
    whole = [labels.tolist() for _, labels in stream_of().epoch(2)]
    rest = [labels.tolist() for _, labels in stream_of().epoch(2, start=3)]
    assert rest == whole[3:]


def test_unshuffled_stream_keeps_the_order_and_every_image() -> None:
    rows = np.array([5, 3, 9, 50, 0])
    stream = stream_of(rows=rows, batch_size=2, shuffle=False)
    assert [labels.tolist() for _, labels in stream.epoch(0)] == [[5, 3], [9, 50], [0]]
    assert (len(stream), stream.num_images) == (3, 5)


@pytest.mark.parametrize(("num_rows", "sizes"), [(17, [8, 8]), (18, [8, 8, 2]), (16, [8, 8]), (9, [8]), (5, [5])])
def test_single_image_left_over_is_left_out_of_training(num_rows: int, sizes: list[int]) -> None:
    stream = stream_of(num_rows)
    assert [len(labels) for _, labels in stream.epoch(0)] == sizes
    assert (len(stream), stream.num_images) == (len(sizes), sum(sizes))


def test_left_out_image_changes_with_the_epoch() -> None:
    left_out = {(set(range(17)) - set(served(stream_of(17), epoch)[1])).pop() for epoch in range(10)}
    assert len(left_out) > 1


def test_batch_out_of_range_is_refused() -> None:
    for index in (-1, 7):
        with pytest.raises(IndexError):
            stream_of().batch(0, index)


def test_augmented_images_are_flipped_shifted_originals_with_black_borders() -> None:
    images = store()[0]
    padding = 2
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    found = set()
    stream = stream_of(augmentation=AugmentationSettings(horizontal_flip=True, crop_padding=padding))
    for epoch in range(4):
        for image, label in zip(*served(stream, epoch), strict=True):
            matches = [
                (flip, top, left)
                for flip in (False, True)
                for top in range(2 * padding + 1)
                for left in range(2 * padding + 1)
                if np.array_equal(image, (padded[label, :, ::-1] if flip else padded[label])[top:, left:][:9, :7])
            ]
            assert len(matches) == 1
            found.update(matches)
    assert len(found) > 45  # of 50 ways, in 200 draws


def test_half_of_the_images_are_flipped_when_told_so() -> None:
    images = store()[0]
    stream = stream_of(augmentation=AugmentationSettings(horizontal_flip=True))
    flipped = 0
    for epoch in range(8):
        for image, label in zip(*served(stream, epoch), strict=True):
            same, mirrored = np.array_equal(image, images[label]), np.array_equal(image, images[label][:, ::-1])
            assert same != mirrored
            flipped += mirrored
    assert 160 < flipped < 240  # of 400: four standard deviations


@pytest.mark.parametrize(
    "augmentation", [AugmentationSettings(horizontal_flip=True, crop_padding=3), EVERYTHING], ids=["places", "all"]
)
def test_augmentation_of_an_image_does_not_depend_on_the_batch_size(augmentation: AugmentationSettings) -> None:
    small, large = (served(stream_of(augmentation=augmentation, batch_size=size), 1) for size in (5, 25))
    assert np.array_equal(small[1], large[1])
    assert np.array_equal(small[0], large[0])
    unshuffled = served(stream_of(augmentation=augmentation, shuffle=False), 1)
    assert np.array_equal(small[0][np.argsort(small[1])], unshuffled[0])


def test_augmentation_leaves_the_order_and_the_store_unchanged() -> None:
    images, labels = store()
    stream = Stream(
        images,
        labels,
        labels,
        batch_size=7,
        seed=(0,),
        shuffle=True,
        augmentation=Augmentation(settings=AugmentationSettings(horizontal_flip=True, crop_padding=1)),
    )
    plain = Stream(images, labels, labels, batch_size=7, seed=(0,), shuffle=True)
    assert np.array_equal(served(stream, 3)[1], served(plain, 3)[1])
    assert np.array_equal(images, store()[0])


def test_crops_are_enlarged_to_the_size_that_is_served() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 6, 20, 3), dtype=np.uint8)
    rows = np.arange(10)
    # a box of the whole area would be wider than 4/3 of its height, so the middle 6 x 8 pixels are cut out
    whole = Augmentation(settings=AugmentationSettings(random_resized_crop=[1.0, 1.0]), size=(9, 7))
    stream = Stream(images, rows, rows, batch_size=4, seed=(0,), shuffle=True, augmentation=whole)
    for image, label in zip(*served(stream, 0), strict=True):
        expected = Image.fromarray(images[label]).crop((6, 0, 14, 6)).resize((7, 9), Image.Resampling.BILINEAR)
        assert np.array_equal(image, np.asarray(expected))


def test_each_image_gets_the_changes_of_its_place_among_the_rows() -> None:
    images, labels = store()
    rows = np.array([7, 50, 3, 21, 8])
    augmentation = Augmentation(settings=EVERYTHING, size=(6, 5))
    stream = Stream(images, labels, rows, batch_size=2, seed=(4, 1), shuffle=False, augmentation=augmentation)
    _, *seeds = np.random.SeedSequence([4, 1, 2]).spawn(1 + NUM_GENERATORS)
    changes = draw_changes(seeds, len(rows), (9, 7), (6, 5), EVERYTHING)
    expected = np.zeros((len(rows), 6, 5, 3), np.uint8)
    for place, row in enumerate(rows):
        change(images[row], changes, place, expected[place])
    assert np.array_equal(served(stream, 2)[0], expected)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given to processes on Linux only")
def test_batches_do_not_depend_on_the_number_of_cores() -> None:
    cores = os.sched_getaffinity(0)
    expected = served(stream_of(augmentation=EVERYTHING), 0)[0]
    os.sched_setaffinity(0, {min(cores)})
    try:
        stream = stream_of(augmentation=EVERYTHING)
        found = served(stream, 0)[0]
        assert len(augmentation_threads()) >= 1
    finally:
        os.sched_setaffinity(0, cores)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_number_of_threads_is_limited_and_does_not_change_images(threads: int) -> None:
    before = set(augmentation_threads())
    stream = stream_of(augmentation=EVERYTHING, threads=threads)
    images = served(stream, 0)[0]
    assert 1 <= len(set(augmentation_threads()) - before) <= threads
    assert np.array_equal(images, served(stream_of(augmentation=EVERYTHING), 0)[0])


def test_large_batches_are_the_same_whether_threads_share_them_or_not() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 48, 3), dtype=np.uint8)
    rows = np.arange(40)
    places = Augmentation(settings=AugmentationSettings(horizontal_flip=True, crop_padding=9), threads=3)
    options: dict[str, Any] = {"seed": (5,), "shuffle": True, "augmentation": places}
    before = set(augmentation_threads())
    shared = Stream(images, rows, rows, batch_size=40, **options)
    assert shared.batch(0, 0)[0].nbytes > LEAST_SHARED_BYTES
    expected = served(shared, 1)[0]
    assert 1 <= len(set(augmentation_threads()) - before) <= 3
    before = set(augmentation_threads())
    alone = Stream(images, rows, rows, batch_size=8, **options)
    assert 8 * images[0].nbytes < LEAST_SHARED_BYTES
    assert np.array_equal(served(alone, 1)[0], expected)
    assert set(augmentation_threads()) <= before


def test_images_of_a_memory_map_are_those_of_the_array(tmp_path: Path) -> None:
    images, labels = store()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    options: dict[str, Any] = {"batch_size": 8, "seed": (0,), "shuffle": True}
    for augmentation in (None, Augmentation(settings=EVERYTHING)):
        found = served(Stream(mapped, labels, labels, augmentation=augmentation, **options), 0)[0]
        assert np.array_equal(found, served(Stream(images, labels, labels, augmentation=augmentation, **options), 0)[0])
        assert type(found) is np.ndarray


def test_threads_that_augment_end_with_the_stream() -> None:
    before = set(augmentation_threads())
    stream = stream_of(augmentation=EVERYTHING)
    served(stream, 0)
    started = set(augmentation_threads()) - before
    assert started
    del stream
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_padding_as_large_as_the_image_is_refused() -> None:
    stream_of(augmentation=AugmentationSettings(crop_padding=6))
    with pytest.raises(UserError, match=r"augmentation\.crop_padding: received 7, allowed: less than 7"):
        stream_of(augmentation=AugmentationSettings(crop_padding=7))


def test_prefetching_thread_ends_with_the_iteration() -> None:
    assert stream_threads_that_stay() == []
    batches = stream_of().epoch(0)
    next(batches)
    assert len(stream_threads()) == 1
    del batches  # as when a training loop ends early
    assert stream_threads_that_stay() == []
    served(stream_of(), 0)
    assert stream_threads_that_stay() == []


@pytest.mark.parametrize("augmentation", [AugmentationSettings(), EVERYTHING], ids=["none", "all"])
def test_error_while_making_a_batch_reaches_the_consumer(
    monkeypatch: pytest.MonkeyPatch, augmentation: AugmentationSettings
) -> None:
    rows = np.array([0, 1, 2, NUM_STORED])
    stream = stream_of(rows=rows, batch_size=1, shuffle=False, augmentation=augmentation)
    with pytest.raises(IndexError):
        list(stream.epoch(0))  # small batches, made together
    assert stream_threads_that_stay() == []
    monkeypatch.setattr(stream_module, "LEAST_MADE_BYTES", 0)  # as if they were large
    batches = stream.epoch(0)
    assert [next(batches)[1].item() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(IndexError):
        next(batches)
    assert stream_threads_that_stay() == []


@pytest.mark.parametrize("augmentation", [AugmentationSettings(), EVERYTHING], ids=["none", "all"])
@pytest.mark.parametrize("start", [0, 3])
def test_batches_made_together_are_those_made_one_by_one(
    monkeypatch: pytest.MonkeyPatch, augmentation: AugmentationSettings, start: int
) -> None:
    found = {}
    for name, least_bytes in (("one by one", 0), ("some", 3 * 8 * 7 * 9 * 3), ("all", 1_000_000)):
        monkeypatch.setattr(stream_module, "LEAST_MADE_BYTES", least_bytes)
        stream = stream_of(augmentation=augmentation)
        found[name] = [(images.tobytes(), labels.tolist()) for images, labels in stream.epoch(0, start)]
        list(stream.epoch(0))
        found[name].append((stream.first_epoch_hash, []))
    assert found["one by one"] == found["some"] == found["all"]
    assert len(found["all"]) == len(stream) - start + 1


def test_threads_may_share_a_stream() -> None:
    stream = stream_of(batch_size=2, augmentation=EVERYTHING)
    expected = [[images.tobytes() for images, _ in stream.epoch(epoch)] for epoch in range(4)]
    found: dict[int, list[bytes]] = {}

    def read(epoch: int) -> None:
        found[epoch] = [stream.batch(epoch, index)[0].tobytes() for index in range(len(stream))]

    threads = [threading.Thread(target=read, args=(epoch,)) for epoch in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[epoch] for epoch in range(4)] == expected


def test_first_epoch_hash_is_of_every_byte_of_the_first_epoch() -> None:
    stream = stream_of()
    assert stream.first_epoch_hash is None
    batches = [stream.batch(0, index) for index in range(len(stream) - 1)]
    served(stream, 1)
    assert stream.first_epoch_hash is None
    batches.append(stream.batch(0, len(stream) - 1))
    digests = [xxhash.xxh3_128(labels.tobytes() + images.tobytes()).digest() for images, labels in batches]
    expected = xxhash.xxh3_128(b"".join(digests)).hexdigest()
    assert stream.first_epoch_hash == expected
    served(stream, 0)
    assert stream.first_epoch_hash == expected


def test_first_epoch_hash_tells_the_order_of_batches() -> None:
    in_order, in_another = stream_of(), stream_of()
    served(in_order, 0)
    for index in reversed(range(len(in_another))):
        in_another.batch(0, index)
    assert in_order.first_epoch_hash != in_another.first_epoch_hash


def test_first_epoch_hash_tells_streams_apart() -> None:
    images, labels = store()
    brighter = images.copy()
    brighter[3, 0, 0, 0] += 1
    relabelled = labels.copy()
    relabelled[3] = 4
    hashes = set()
    for store_of_images, store_of_labels in ((images, labels), (brighter, labels), (images, relabelled)):
        stream = Stream(store_of_images, store_of_labels, labels, batch_size=8, seed=(0,), shuffle=True)
        served(stream, 0)
        hashes.add(stream.first_epoch_hash)
    assert len(hashes) == 3 and None not in hashes


# ------------------------------------------------------------------------------------------------------------ features


def features() -> list[np.ndarray]:
    """Two views, whose features identify the view and the image."""
    return [np.stack([np.arange(NUM_STORED), np.full(NUM_STORED, view)], axis=1).astype(np.float32) for view in (0, 1)]


def test_features_are_served_in_the_order_of_the_images_view_by_view() -> None:
    stream, of_images = stream_of(rows=np.arange(7, 57), features=features()), stream_of(rows=np.arange(7, 57))
    for epoch in range(5):
        rows, labels = served(stream, epoch)
        assert rows.dtype == np.float32
        assert np.array_equal(labels, served(of_images, epoch)[1])
        assert np.array_equal(rows, np.stack([labels, np.full(50, epoch % 2)], axis=1))


@pytest.mark.parametrize("augmentation", [None, EVERYTHING], ids=["no augmentation", "augmentation"])
def test_first_epoch_hash_of_features_is_that_of_their_images(augmentation: AugmentationSettings | None) -> None:
    stream, of_images = (stream_of(augmentation=augmentation, **more) for more in ({"features": features()}, {}))
    for some in (stream, of_images):
        served(some, 0)
        served(some, 1)
    assert stream.first_epoch_hash == of_images.first_epoch_hash is not None


def test_consecutive_batches_are_the_single_batches_joined() -> None:
    stream, one_by_one = stream_of(), stream_of()
    images, labels = stream.batches(0, 2, 7)
    expected = [one_by_one.batch(0, index) for index in range(7)]
    assert np.array_equal(images, np.concatenate([images for images, _ in expected[2:]]))
    assert np.array_equal(labels, np.concatenate([labels for _, labels in expected[2:]]))
    assert stream.first_epoch_hash is None
    assert len(stream.batches(0, 0, 2)[1]) == 16
    with pytest.raises(IndexError, match="batches 5 to 8 of 7"):
        stream.batches(0, 5, 8)


def test_images_at_places_are_the_served_images() -> None:
    shuffled, in_order = (stream_of(shuffle=shuffle, augmentation=EVERYTHING) for shuffle in (True, False))
    images, labels = served(shuffled, 3)
    # each row's label is its index
    assert np.array_equal(in_order.images_at(3, labels), images)
