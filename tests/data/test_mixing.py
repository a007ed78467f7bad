from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xxhash
from scipy import stats

from tandem.data.mixing import SPAWN_KEY, Mixes, draw_mixes, mix
from tandem.data.stream import Augmentation, Stream
from tandem.data.targets import Targets
from tandem.protocol.settings import AugmentationSettings, MixingSettings

MIXUP, CUTMIX = MixingSettings(mixup_alpha=0.4), MixingSettings(cutmix_alpha=1.0)
BOTH = MixingSettings(mixup_alpha=0.4, cutmix_alpha=1.0)
SIZE = 9, 7
NUM_CLASSES = 5


def drawn(settings: MixingSettings, num_batches: int = 2000, size: tuple[int, int] = SIZE) -> Mixes:
    return draw_mixes(np.random.SeedSequence(1), num_batches, size, settings)


def has_box(mixes: Mixes) -> np.ndarray:
    return mixes.boxes.any(axis=1)


# --------------------------------------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_of_mixup_have_a_beta_distribution(alpha: float) -> None:
    mixes = drawn(MixingSettings(mixup_alpha=alpha))
    assert not has_box(mixes).any()
    assert np.array_equal(mixes.shares * 256, np.rint(mixes.shares * 256))
    # rounded to 1/256, shares between two multiples have the probability of their interval
    edges = np.linspace(0, 1, 9) + 1 / 512
    edges[0] = 0
    expected = np.diff(stats.beta(alpha, alpha).cdf(edges)) * len(mixes.shares)
    found = np.histogram(mixes.shares, edges)[0]
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 0.001


def test_boxes_of_cutmix_are_those_of_torchvision() -> None:
    height, width = 90, 70
    mixes = drawn(CUTMIX, size=(height, width))
    numbers = np.random.PCG64(np.random.SeedSequence(1)).random_raw((2000, 5)) >> np.uint64(11)
    for share, box, (_, _, for_share, for_y, for_x) in zip(mixes.shares, mixes.boxes, numbers * 2.0**-53, strict=True):
        # torchvision 0.29, transforms/v2/_augment.py, CutMix; Beta(1, 1) is uniform
        y, x = int(for_y * height), int(for_x * width)
        r = 0.5 * math.sqrt(1.0 - for_share)
        half_height, half_width = int(r * height), int(r * width)
        top, bottom = max(y - half_height, 0), min(y + half_height, height)
        left, right = max(x - half_width, 0), min(x + half_width, width)
        assert box.tolist() == [top, left, bottom, right]
        assert share == pytest.approx(1 - (bottom - top) * (right - left) / (height * width))


def test_one_of_both_methods_is_drawn_per_batch_with_equal_chance() -> None:
    mixes, mixup, cutmix = drawn(BOTH, size=(224, 224)), drawn(MIXUP), drawn(CUTMIX, size=(224, 224))
    is_cutmix = has_box(mixes)
    assert 900 < is_cutmix.sum() < 1100
    # the other method leaves both draws as they are
    assert np.array_equal(mixes.shares[is_cutmix], cutmix.shares[is_cutmix])
    assert np.array_equal(mixes.boxes[is_cutmix], cutmix.boxes[is_cutmix])
    is_mixup = ~has_box(mixes) & (mixes.shares < 1)
    assert np.array_equal(mixes.shares[is_mixup], mixup.shares[is_mixup])


def test_mixes_are_those_of_earlier_versions() -> None:
    mixes = drawn(BOTH, 4)
    np.testing.assert_allclose(mixes.shares, [38 / 63, 245 / 256, 43 / 63, 6 / 256])
    assert mixes.boxes.tolist() == [[4, 0, 9, 5], [0, 0, 0, 0], [4, 0, 9, 4], [0, 0, 0, 0]]


# -------------------------------------------------------------------------------------------------------------- pixels


def mixed(image: np.ndarray, partner: np.ndarray, share: float, box: tuple[int, ...] = (0, 0, 0, 0)) -> np.ndarray:
    target = np.zeros_like(image)
    mixes = Mixes(shares=np.array([0.5, share]), boxes=np.array([(0, 0, 0, 0), box]))
    mix(image, partner, mixes, 1, target)
    return target


@pytest.mark.parametrize("share", [1 / 256, 0.25, 127 / 256, 0.5, 0.75, 255 / 256, 0.0, 1.0])
def test_pixels_are_blended_exactly(share: float) -> None:
    pairs = np.arange(2**16)
    image, partner = ((pairs >> bits & 255).astype(np.uint8).reshape(256, 256, 1).repeat(3, axis=2) for bits in (0, 8))
    k = round(share * 256)
    # halves to the even number
    expected = np.rint((k * image.astype(np.int64) + (256 - k) * partner.astype(np.int64)) / 256)
    assert np.array_equal(mixed(image, partner, share), expected)


def test_box_is_taken_from_the_partner() -> None:
    image, partner = np.full((9, 7, 3), 10, np.uint8), np.full((9, 7, 3), 200, np.uint8)
    result = mixed(image, partner, 0.6, (2, 1, 5, 7))
    assert (result[2:5, 1:7] == 200).all()
    result[2:5, 1:7] = 10
    assert (result == 10).all()


# ------------------------------------------------------------------------------------------------------------- batches

AUGMENTED = AugmentationSettings(horizontal_flip=True, crop_padding=2, brightness=0.4)


def store() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(1, 256, (60, *SIZE, 3), dtype=np.uint8), random.integers(0, NUM_CLASSES, 60)


def stream_of(
    mixing: MixingSettings | None,
    *,
    augmentation: AugmentationSettings = AUGMENTED,
    targets: Targets | None = None,
    **options: Any,
) -> Stream:
    return Stream(
        *store(),
        np.arange(50),
        batch_size=8,  # the last batch has 2
        seed=(4, 1),
        shuffle=True,
        augmentation=Augmentation(settings=augmentation),
        mixing=mixing,
        targets=targets or Targets(num_classes=NUM_CLASSES, soft=True, smoothing=0.1),
        **options,
    )


def as_defined(mixing: MixingSettings, epoch: int, **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mixed batches, pixel by pixel and label by label, from those of the stream that does not mix."""
    single = list(stream_of(None, targets=Targets(num_classes=NUM_CLASSES), **options).epoch(epoch))
    seed = np.random.SeedSequence([4, 1, epoch], spawn_key=(SPAWN_KEY,))
    mixes = draw_mixes(seed, len(single), SIZE, mixing)
    batches = []
    for (images, labels), share, (top, left, bottom, right) in zip(single, mixes.shares, mixes.boxes, strict=True):
        is_partner_s = np.zeros(SIZE, bool)
        is_partner_s[top:bottom, left:right] = True
        results, targets = [], []
        for number in range(len(labels)):
            image, partner = images[number].astype(np.float64), images[number - 1].astype(np.float64)
            if is_partner_s.any():
                results.append(np.where(is_partner_s[..., np.newaxis], partner, image))
            else:
                results.append(np.rint(share * image + (1 - share) * partner))
            one_hot = np.eye(NUM_CLASSES)
            target = share * one_hot[labels[number]] + (1 - share) * one_hot[labels[number - 1]]
            targets.append(0.9 * target + 0.1 / NUM_CLASSES)
        batches.append((np.array(results), np.array(targets)))
    return batches


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
@pytest.mark.parametrize("balanced", [False, True])
def test_batches_are_mixed_as_defined(mixing: MixingSettings, balanced: bool) -> None:
    stream = stream_of(mixing, balanced=balanced)
    for epoch in (0, 1):
        found, expected = list(stream.epoch(epoch)), as_defined(mixing, epoch, balanced=balanced)
        assert [len(images) for images, _ in found] == [8, 8, 8, 8, 8, 8, 2]
        for (images, targets), (expected_images, expected_targets) in zip(found, expected, strict=True):
            assert images.dtype == np.uint8 and images.flags.c_contiguous
            assert np.array_equal(images, expected_images)
            assert targets.dtype == np.float32
            np.testing.assert_allclose(targets, expected_targets, atol=1e-7)


def test_large_batches_that_threads_share_are_mixed_as_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.data.stream.LEAST_SHARED_BYTES", 0)
    monkeypatch.setattr("tandem.data.stream.LEAST_MADE_BYTES", 0)
    found = list(stream_of(BOTH).epoch(0))
    for (images, _), (expected_images, _) in zip(found, as_defined(BOTH, 0), strict=True):
        assert np.array_equal(images, expected_images)


def test_mixing_changes_images() -> None:
    for mixing in (MIXUP, CUTMIX):
        pairs = zip(stream_of(mixing).epoch(1), stream_of(None).epoch(1), strict=True)
        assert sum(not np.array_equal(batch[0], single[0]) for batch, single in pairs) >= 5


@pytest.mark.parametrize("num_processes", [2, 3])
def test_shares_of_several_devices_are_parts_of_the_mixed_batches(num_processes: int) -> None:
    weights = Targets(num_classes=NUM_CLASSES, soft=True, class_weights=np.arange(1.0, NUM_CLASSES + 1))
    whole = stream_of(BOTH, targets=weights, balanced=True)
    shares = [stream_of(BOTH, targets=weights, balanced=True) for _ in range(num_processes)]

    def share_of(rank: int) -> Any:
        return lambda n: slice(n * rank // num_processes, n * (rank + 1) // num_processes)

    for epoch in (0, 1):
        parts = [list(stream.epoch(epoch, share_of=share_of(rank))) for rank, stream in enumerate(shares)]
        for batch, *of_batch in zip(whole.epoch(epoch), *parts, strict=True):
            assert len(batch) == 3
            for position, expected in enumerate(batch):
                assert np.array_equal(np.concatenate([part[position] for part in of_batch]), expected)
    assert {stream.first_epoch_hash for stream in shares} == {whole.first_epoch_hash}


def test_mixed_batches_are_the_same_in_any_order_of_calls() -> None:
    expected = {(epoch, index): batch for epoch in range(2) for index, batch in enumerate(stream_of(BOTH).epoch(epoch))}
    stream = stream_of(BOTH)
    for epoch, index in reversed(expected):
        for part, expected_part in zip(stream.batch(epoch, index), expected[epoch, index], strict=True):
            assert np.array_equal(part, expected_part)
    rest = list(stream_of(BOTH).epoch(1, start=4))
    assert [batch[0].tobytes() for batch in rest] == [expected[1, index][0].tobytes() for index in range(4, 7)]


def test_first_epoch_hash_is_of_targets_and_weights_too() -> None:
    weights = np.arange(1.0, NUM_CLASSES + 1)
    forms = [
        Targets(num_classes=NUM_CLASSES),
        Targets(num_classes=NUM_CLASSES, class_weights=weights),
        Targets(num_classes=NUM_CLASSES, class_weights=2 * weights),
        Targets(num_classes=NUM_CLASSES, soft=True),
        Targets(num_classes=NUM_CLASSES, soft=True, smoothing=0.1),
        Targets(num_classes=NUM_CLASSES, soft=True, smoothing=0.1, class_weights=weights),
    ]
    hashes = set()
    for form in forms:
        stream = stream_of(None, targets=form)
        digests = [
            xxhash.xxh3_128(b"".join(part.tobytes() for part in (*targets, images))).digest()
            for images, *targets in stream.epoch(0)
        ]
        assert stream.first_epoch_hash == xxhash.xxh3_128_hexdigest(b"".join(digests))
        hashes.add(stream.first_epoch_hash)
    assert len(hashes) == len(forms)


def test_images_are_drawn_balanced_and_augmented_anew_each_time() -> None:
    images, labels = store()
    rows = np.concatenate([np.flatnonzero(labels == 0)[:9], np.flatnonzero(labels == 1)[:1]])
    options: dict[str, Any] = {"batch_size": 5, "seed": (2,), "shuffle": True, "balanced": True}
    colours = Augmentation(settings=AugmentationSettings(brightness=0.5, horizontal_flip=True))
    augmented = Stream(images, labels, rows, augmentation=colours, **options)
    plain = Stream(images, labels, rows, **options)
    for epoch in range(2):
        (found, found_labels), (stored, stored_labels) = (
            map(np.concatenate, zip(*stream.epoch(epoch), strict=True)) for stream in (augmented, plain)
        )
        assert np.array_equal(found_labels, stored_labels)
        assert sorted(found_labels) == [0] * 5 + [1] * 5
        assert (stored[stored_labels == 1] == images[rows[-1]]).all()  # the only one of its class
        assert len({image.tobytes() for image in found[found_labels == 1]}) == 5
        assert len({image.tobytes() for image in stored[stored_labels == 0]}) == 5


@pytest.mark.parametrize("augmentation", [None, AugmentationSettings(brightness=0.5)], ids=["stored", "views"])
def test_hash_of_features_is_that_of_the_images_that_they_were_computed_from(
    augmentation: AugmentationSettings | None,
) -> None:
    images, labels = store()
    rows = np.arange(7, 57)
    augmented = augmentation and Augmentation(settings=augmentation)
    # features that are the pixels of the first view of each row
    views = Stream(images, labels, rows, batch_size=8, seed=(4, 1), shuffle=False, augmentation=augmented)
    pixels = np.zeros((60, 9 * 7 * 3), np.float32)
    pixels[rows] = views.images_at(0, np.arange(50)).reshape(50, -1)
    stream = Stream(
        images,
        labels,
        rows,
        batch_size=8,
        seed=(4, 1),
        shuffle=True,
        balanced=True,
        augmentation=augmented,
        features=[pixels],
    )
    digests = [
        xxhash.xxh3_128(batch_labels.tobytes() + features.astype(np.uint8).tobytes()).digest()
        for features, batch_labels in stream.epoch(0)
    ]
    assert stream.first_epoch_hash == xxhash.xxh3_128_hexdigest(b"".join(digests))
