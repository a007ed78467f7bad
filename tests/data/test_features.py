from __future__ import annotations

import contextlib
import dataclasses
import itertools
import resource
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from tandem import interrupts
from tandem.data import features
from tandem.data.features import NO_FEATURES, Compute, find_phase_features, open_features
from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import AccelerationSettings, AugmentationSettings, Settings, with_values
from tests.small_runs import small_data, small_settings

NUM_IMAGES, NUM_FEATURES, BATCH = 12, 5, 4

KEY = {"backbone": "some", "weights": "hash"}


@pytest.fixture
def images(tmp_path: Path) -> np.memmap:
    return store_in(tmp_path, "first")


def store_in(cache: Path, name: str) -> np.memmap:
    path = cache / "stores" / name / "images.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.arange(NUM_IMAGES * 12, dtype=np.uint8).reshape(NUM_IMAGES, 2, 2, 3))
    return np.load(path, mmap_mode="r")


class Backbone:
    """Features that identify their row; keeps the rows that were asked for."""

    def __init__(self, *, before: Callable[[], Any] = lambda: None) -> None:
        self.asked: list[int] = []
        self.before = before

    def __call__(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            self.before()
            self.asked += some.tolist()
            yield features_of(some)


def features_of(rows: np.ndarray) -> np.ndarray:
    return (rows[:, np.newaxis] + np.arange(NUM_FEATURES) / 8).astype(np.float32)


def caches(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "features").iterdir() if path.is_dir()]


def open_quietly(images: np.memmap, rows: np.ndarray, compute: Compute, **key: str) -> np.ndarray:
    return open_features(images, rows, {**KEY, **key}, compute, used_sizes=used_before(), quiet=True).values[rows]


def used_before() -> set[int]:
    """All sizes of batches, so that none is computed a second time for its clock."""
    return set(range(1, BATCH + 1))


def test_features_are_computed_once_for_all_runs(images: np.memmap) -> None:
    rows, first, second = np.array([1, 2, 5, 7, 8, 11]), Backbone(), Backbone()
    for backbone in (first, second):
        assert np.array_equal(open_quietly(images, rows, backbone), features_of(rows))
    assert (first.asked, second.asked) == (rows.tolist(), [])


def test_another_split_computes_only_what_it_adds(images: np.memmap) -> None:
    open_quietly(images, np.arange(6), Backbone())
    backbone, rows = Backbone(), np.array([9, 0, 7, 3])
    assert np.array_equal(open_quietly(images, rows, backbone), features_of(rows))
    assert backbone.asked == [9, 7]
    assert np.array_equal(open_quietly(images, np.arange(6), backbone), features_of(np.arange(6)))
    assert backbone.asked == [9, 7]


def test_unused_rows_take_no_space(tmp_path: Path) -> None:
    path = tmp_path / "stores/large/images.npy"
    path.parent.mkdir(parents=True)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(100_000, 1, 1, 3))
    rows = np.array([99_999])
    open_quietly(images, rows, lambda rows: iter([np.ones((1, 1000), np.float32)]))
    (cache,) = caches(tmp_path)
    file = (cache / "features.npy").stat()
    assert file.st_size > 400_000_000
    assert file.st_blocks * 512 < 100_000


def test_other_weights_and_other_images_have_features_of_their_own(images: np.memmap, tmp_path: Path) -> None:
    rows, backbone = np.array([3]), Backbone()
    open_quietly(images, rows, backbone)
    open_quietly(images, rows, backbone, weights="other")
    open_quietly(store_in(tmp_path, "second"), rows, backbone)
    assert backbone.asked == [3, 3, 3]
    assert len(caches(tmp_path)) == 3


def test_cached_features_come_with_the_time_they_took(images: np.memmap) -> None:
    pause = threading.Event()
    backbone = Backbone(before=lambda: pause.wait(0.05))
    first = open_features(images, np.arange(8), KEY, backbone, quiet=True)
    second = open_features(images, np.arange(12), KEY, backbone, quiet=True)
    assert 0.1 <= first.seconds < 5 and first.cached_seconds == 0
    assert second.cached_seconds == pytest.approx(first.seconds)
    assert second.seconds >= first.seconds + 0.05
    half = open_features(images, np.arange(4), KEY, backbone, quiet=True)
    assert half.seconds == half.cached_seconds == pytest.approx(first.seconds / 2, rel=0.9)


# seconds: at its first use each size takes 1 s more than 0.2 ms per image
@pytest.mark.parametrize(
    ("num_images", "first_uses", "pads"),
    [(505, 1, False), (600, 2, False), (1024, 1, False), (1300, 2, False), (600, 1, True), (1300, 1, True)],
)
def test_first_use_of_a_batch_size_is_not_among_the_seconds(
    num_images: int, first_uses: int, pads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, known = 0.0, set[int]()
    monkeypatch.setattr(features.time, "perf_counter", lambda: now)
    path = tmp_path / "stores" / "some" / "images.npy"
    path.parent.mkdir(parents=True)
    np.save(path, np.zeros((num_images, 1, 1, 3), np.uint8))

    def compute(rows: np.ndarray) -> Iterator[np.ndarray]:
        nonlocal now
        for start in range(0, len(rows), 512):
            batch = rows[start : start + 512]
            size = 512 if pads else len(batch)
            now += 0.0002 * len(batch) + (size not in known)
            known.add(size)
            yield features_of(batch)

    found = open_features(np.load(path, mmap_mode="r"), np.arange(num_images), KEY, compute, quiet=True)
    assert found.seconds == pytest.approx(0.0002 * num_images)
    assert found.compile_seconds == pytest.approx(first_uses, abs=0.3)
    assert len(known) == first_uses
    assert np.array_equal(found.values, features_of(np.arange(num_images)))


def test_views_share_the_first_use_of_their_batch_size(tmp_path: Path, data: PreparedData) -> None:
    calls: list[int] = []

    def backbone_pass(images_of: Callable[[np.ndarray], np.ndarray]) -> Compute:
        def compute(rows: np.ndarray) -> Iterator[np.ndarray]:
            calls.append(len(rows))
            yield np.zeros((len(rows), 2), np.float32)

        return compute

    settings = dataclasses.replace(small_settings(regime="frozen"), cache_views=3, augmentation=FLIPS)
    find_phase_features(HEAD, settings, data, MADE_WITH, backbone_pass)
    assert calls == [30, 30, 30, 30, 15, 15]  # three views of the training images, then the validation images


def test_second_process_waits_for_the_first_ones_features(images: np.memmap, capfd: pytest.CaptureFixture) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(20)

    first, second, rows = Backbone(before=hold), Backbone(), np.arange(NUM_IMAGES)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(open_quietly(images, rows, first)))]
    threads[0].start()
    assert begun.wait(20)
    threads.append(
        threading.Thread(target=lambda: results.append(open_features(images, rows, KEY, second).values[rows]))
    )
    threads[1].start()
    seen = ""
    while "waiting for it" not in seen:
        seen += capfd.readouterr().err
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert (first.asked, second.asked) == (rows.tolist(), [])
    assert [np.array_equal(result, features_of(rows)) for result in results] == [True, True]


def test_interrupted_pass_keeps_the_features_that_it_has_computed(images: np.memmap, tmp_path: Path) -> None:
    calls = iter([None, KeyboardInterrupt])

    def interrupt() -> None:
        if error := next(calls):
            raise error

    with pytest.raises(KeyboardInterrupt):
        open_quietly(images, np.arange(8), Backbone(before=interrupt))
    backbone = Backbone()
    assert np.array_equal(open_quietly(images, np.arange(8), backbone), features_of(np.arange(8)))
    assert backbone.asked == list(range(BATCH, 8))


def test_signal_ends_a_pass_after_its_batch_and_keeps_what_it_has(
    images: np.memmap, interrupted: Callable[[], None]
) -> None:
    calls = itertools.count()
    first = Backbone(before=lambda: interrupted() if next(calls) == 1 else None)
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        open_quietly(images, np.arange(NUM_IMAGES), first)
    assert first.asked == list(range(2 * BATCH))
    second = Backbone()
    assert np.array_equal(open_quietly(images, np.arange(NUM_IMAGES), second), features_of(np.arange(NUM_IMAGES)))
    assert second.asked == list(range(2 * BATCH, NUM_IMAGES))


def test_features_are_kept_during_a_long_pass(
    images: np.memmap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SECONDS_BETWEEN_KEEPING", 0.0)
    missing: list[int] = []

    def look() -> None:
        if found := list(tmp_path.glob("features/*/seconds.npy")):
            missing.append(int(np.isnan(np.load(found[0])).sum()))

    open_quietly(images, np.arange(NUM_IMAGES), Backbone(before=look))
    assert missing == [NUM_IMAGES - BATCH, NUM_IMAGES - 2 * BATCH]


def test_leftovers_of_killed_passes_are_removed_except_busy_ones(images: np.memmap, tmp_path: Path) -> None:
    killed, busy = tmp_path / "features/killed", tmp_path / "features/busy"
    for folder in (killed, busy):
        folder.mkdir(parents=True)
        (folder / "features.npy").write_bytes(b"half of it")
    with FileLock(tmp_path / "features/busy.lock"):
        open_quietly(images, np.arange(2), Backbone())
    assert busy in caches(tmp_path) and killed not in caches(tmp_path)
    open_quietly(images, np.arange(2), Backbone(), weights="other")
    assert len(caches(tmp_path)) == 2 and busy not in caches(tmp_path)


@pytest.mark.parametrize("name", ["features.npy", "seconds.npy"])
def test_truncated_file_is_made_again(images: np.memmap, tmp_path: Path, name: str) -> None:
    open_quietly(images, np.arange(8), Backbone())
    (cache,) = caches(tmp_path)
    content = (cache / name).read_bytes()
    (cache / name).write_bytes(content[: len(content) // 2])
    backbone = Backbone()
    assert np.array_equal(open_quietly(images, np.arange(8), backbone), features_of(np.arange(8)))
    assert backbone.asked == list(range(8))


@contextlib.contextmanager
def file_size_limited(size: int) -> Iterator[None]:
    """Limits the size of files, so that writing fails as on a full disk; only in a block, since the output of the tests
    may be a larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_features_stay_in_memory_if_they_cannot_be_written(
    images: np.memmap, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    rows = np.arange(2, 11)
    with file_size_limited(4 * NUM_IMAGES * NUM_FEATURES):  # less than the file with its header
        found = open_features(images, rows, KEY, Backbone())
    assert np.array_equal(found.values[rows], features_of(rows))
    assert found.cached_seconds == 0 < found.seconds
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"Features cannot be kept in {tmp_path}/features/")
    assert lines[0].endswith("): they stay in memory, for this run alone")


def test_features_that_do_not_fit_on_the_disk_are_not_written(
    images: np.memmap, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=4 * NUM_FEATURES * 9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert open_features(images, np.arange(9), KEY, Backbone()).cached_seconds == 0
    assert len(caches(tmp_path)) == 1
    assert not capfd.readouterr().err
    rows = np.arange(10)
    found = open_features(images, rows, {"other": "key"}, Backbone())
    assert np.array_equal(found.values[rows], features_of(rows))
    assert len(caches(tmp_path)) == 1
    message = capfd.readouterr().err
    assert f"(they need 0.0 MB in {tmp_path}/features, where 0.0 MB are free)" in message


# -------------------------------------------------------------------------------------------------- features of a phase

HEAD = Phase(number=1, trainable="head", learning_rate=0.1, max_epochs=3)
MADE_WITH = {"framework": "torch 2", "weights": "abc"}
FLIPS = AugmentationSettings(horizontal_flip=True)


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    return small_data(tmp_path)


def first_pixels(images_of: Callable[[np.ndarray], np.ndarray]) -> Compute:
    """A backbone whose features are the first pixels of each image's middle row."""

    def compute(rows: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(rows), 7):
            yield images_of(rows[start : start + 7])[:, 4, :, 0].astype(np.float32)

    return compute


def new_caches(
    tmp_path: Path, data: PreparedData, settings: Settings, made_with: Mapping[str, str] = MADE_WITH
) -> list[str]:
    """Names of the caches that a run makes."""
    before = {path.name for path in caches(tmp_path)} if (tmp_path / "features").exists() else set()
    find_phase_features(HEAD, settings, data, made_with, first_pixels)
    return sorted({path.name for path in caches(tmp_path)} - before)


def test_caches_have_the_names_of_earlier_versions(tmp_path: Path, data: PreparedData) -> None:
    frozen = small_settings(regime="frozen")
    assert new_caches(tmp_path, data, frozen) == ["e818728e61c2662edb2a93d228549cee"]
    changed = dataclasses.replace(
        frozen, precision="bfloat16", threads=2, acceleration=AccelerationSettings(tf32=False)
    )
    assert new_caches(tmp_path, data, changed) == ["8343a59d43dab0629414b9cef5092f82"]
    views = dataclasses.replace(frozen, cache_views=2, augmentation=FLIPS)
    # the validation images' features are found among those of the first run
    assert new_caches(tmp_path, data, views) == [
        "05deef6f0e8cef03a6233b558bdf8e72",
        "b4d459cc8b4fc4edb92982039d236af8",
    ]


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [
        *(("backbone", "vgg16", True), ("pixel_scaling", "tf", True), ("precision", "bfloat16", True)),
        *(("data.image_size", 64, True), ("acceleration.tf32", False, True), ("threads", 3, True)),
        *(("seed", 5, False), ("learning_rate", 0.5, False), ("batch_size", 16, False), ("head.dropout", 0.5, False)),
        *(("acceleration.compile", True, False), ("tracking.experiment", "other", False), ("max_epochs", 7, False)),
    ],
)
def test_settings_that_change_features_have_caches_of_their_own(
    name: str, value: object, own: bool, tmp_path: Path, data: PreparedData
) -> None:
    settings = small_settings(regime="frozen")
    assert len(new_caches(tmp_path, data, settings)) == 1
    assert len(new_caches(tmp_path, data, with_values(settings, {name: value}))) == own


@pytest.mark.parametrize("name", ["framework", "weights"])
def test_other_frameworks_and_weights_have_caches_of_their_own(name: str, tmp_path: Path, data: PreparedData) -> None:
    settings = small_settings(regime="frozen")
    new_caches(tmp_path, data, settings)
    assert new_caches(tmp_path, data, settings) == []
    assert len(new_caches(tmp_path, data, settings, {**MADE_WITH, name: "other"})) == 1


@pytest.mark.parametrize(
    ("change", "own"),
    [
        ({"seed": 5}, 2),
        ({"augmentation.crop_padding": 1}, 2),
        ({"augmentation.vertical_flip": True}, 2),
        ({"augmentation.rotation": 5.0}, 2),
        ({"augmentation.policy": "rand_augment"}, 2),
        ({"augmentation.random_erasing": 0.1}, 2),
        ({"cache_views": 3}, 1),
        ({"learning_rate": 0.5}, 0),
    ],
)
def test_views_are_shared_by_runs_with_the_same_augmentation_and_seed(
    change: dict[str, object], own: int, tmp_path: Path, data: PreparedData
) -> None:
    settings = small_settings(regime="frozen", cache_views=2, augmentation=FLIPS)
    assert len(new_caches(tmp_path, data, settings)) == 3  # two views, and the validation images
    assert len(new_caches(tmp_path, data, with_values(settings, change))) == own


def test_features_of_a_phase_are_those_of_its_images(data: PreparedData) -> None:
    found = find_phase_features(HEAD, small_settings(regime="frozen"), data, MADE_WITH, first_pixels)
    for values, part in ((found.training[0], "train"), (found.validation[0], "val")):
        rows = data.rows(part)
        assert np.array_equal(values[rows], data.images[rows][:, 4, :, 0])
    assert len(found.training) == 1 and found.seconds > 0


@pytest.mark.parametrize(
    "augmentation",
    [
        FLIPS,
        AugmentationSettings(vertical_flip=True, rotation=10, policy="trivial_augment", random_erasing=0.5),
    ],
    ids=["flips", "other kinds"],
)
def test_features_of_views_are_those_of_the_augmented_images(
    augmentation: AugmentationSettings, data: PreparedData
) -> None:
    settings = small_settings(regime="frozen", cache_views=2, augmentation=augmentation)
    found = find_phase_features(HEAD, settings, data, MADE_WITH, first_pixels)
    rows = data.rows("train")
    stream = training_stream(settings, data, HEAD, shuffle=False)
    for view, values in enumerate(found.training):
        images = stream.images_at(view, np.arange(len(rows)))
        assert np.array_equal(values[rows], images[:, 4, :, 0])
    assert not np.array_equal(found.training[0][rows], found.training[1][rows])
    val_rows = data.rows("val")
    assert np.array_equal(found.validation[0][val_rows], data.images[val_rows][:, 4, :, 0])


def test_phase_that_trains_the_backbone_has_no_features(tmp_path: Path, data: PreparedData) -> None:
    everything = dataclasses.replace(HEAD, trainable="all")
    assert find_phase_features(everything, small_settings(), data, MADE_WITH, first_pixels) == NO_FEATURES
    assert not (tmp_path / "features").exists()


def test_features_damaged_on_the_disk_are_computed_again_with_one_line(
    images: np.memmap, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.arange(6)
    open_features(images, rows, KEY, Backbone(), quiet=True)
    (folder,) = caches(tmp_path)
    values = np.load(folder / "features.npy", mmap_mode="r+")
    values[3, 2] += 1
    values.flush()
    backbone = Backbone()
    found = open_features(images, rows, KEY, backbone, used_sizes=used_before())
    assert backbone.asked == [3]
    np.testing.assert_array_equal(found.values[rows], features_of(rows))
    said = capsys.readouterr().err.splitlines()
    assert said == [f"The features of 1 images in {folder} are damaged: computing them again"]
    open_features(images, rows, KEY, backbone, quiet=True)
    assert backbone.asked == [3]


def test_features_of_an_earlier_version_have_no_checksums_and_are_used(images: np.memmap, tmp_path: Path) -> None:
    open_features(images, np.arange(4), KEY, Backbone(), quiet=True)
    (folder,) = caches(tmp_path)
    (folder / "checksums.npy").unlink()
    backbone = Backbone()
    open_quietly(images, np.arange(6), backbone)
    open_quietly(images, np.arange(6), backbone)
    assert backbone.asked == [4, 5]
