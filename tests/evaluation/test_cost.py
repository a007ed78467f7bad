from __future__ import annotations

import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from tandem.evaluation.cost import measure_inference, median_seconds, peak_memory_megabytes


class Clock:
    """A clock that stands still, except that each call of `work` takes the next of some times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.num_calls = 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def work(self, seconds: Iterable[float]) -> Callable[[], None]:
        times = iter(seconds)

        def call() -> None:
            self.num_calls += 1
            self.now += next(times)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_median_is_of_twenty_calls_after_three_that_do_not_count(clock: Clock) -> None:
    times = [9.0, 9.0, 9.0, *(0.001 * number for number in range(1, 21))]
    assert median_seconds(clock.work(times)) == pytest.approx(0.0105)
    assert clock.num_calls == 23


def test_median_is_not_moved_by_a_slow_call(clock: Clock) -> None:
    times = [0.01] * 22 + [2.5]
    assert median_seconds(clock.work(times)) == pytest.approx(0.01)


def test_timing_stops_once_the_calls_took_three_seconds(clock: Clock) -> None:
    times = [50.0, 50.0, 50.0, 0.5, 1.0, 1.5, 7.0, 7.0]  # the untimed ones do not count towards the limit
    assert median_seconds(clock.work(times)) == pytest.approx(1.0)
    assert clock.num_calls == 6


def test_call_that_is_slower_than_the_limit_is_timed_once(clock: Clock) -> None:
    assert median_seconds(clock.work(itertools.repeat(4.0))) == pytest.approx(4.0)
    assert clock.num_calls == 4


def test_latency_is_in_milliseconds_and_throughput_in_images_per_second(clock: Clock) -> None:
    # 5 ms per call and 2 ms per image: one image takes 7 ms, a batch of 10 takes 25 ms
    sizes = []

    def predict(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        clock.now += 0.005 + 0.002 * len(images)
        return np.zeros((len(images), 3))

    images = np.zeros((64, 4, 4, 3), np.uint8)
    latency, throughput = measure_inference(predict, images, batch_size=10)
    assert latency == pytest.approx(7.0)
    assert throughput == pytest.approx(400.0)
    assert sizes == [1] * 23 + [10] * 23


def test_images_are_repeated_to_fill_a_batch(clock: Clock) -> None:
    batches = []

    def predict(images: np.ndarray) -> np.ndarray:
        batches.append(images)
        clock.now += 0.5
        return images

    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, axis=3)
    latency, throughput = measure_inference(predict, images, batch_size=8)
    assert (latency, throughput) == (pytest.approx(500.0), pytest.approx(16.0))
    assert batches[0].shape == (1, 1, 1, 3) and batches[0].dtype == np.uint8
    assert batches[-1][:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(("platform", "megabytes"), [("linux", 2.048), ("darwin", 0.002)])
def test_peak_memory_is_in_megabytes_whatever_unit_the_system_counts_in(
    monkeypatch: pytest.MonkeyPatch, platform: str, megabytes: float
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=2000))
    assert peak_memory_megabytes() == pytest.approx(megabytes)


def test_peak_memory_is_that_of_this_process() -> None:
    now = psutil.Process().memory_info().rss / 1e6
    assert 0.5 * now < peak_memory_megabytes() < 100 * now
