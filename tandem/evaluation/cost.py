"""Cost of prediction: seconds and memory."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from tandem import interrupts

WARM_UP_CALLS = 3
TIMED_CALLS = 20
TIME_LIMIT_SECONDS = 3.0


def median_seconds(call: Callable[[], object]) -> float:
    """Median time of a call: up to 20 calls after 3 untimed ones, stopping early once they took 3 seconds."""
    for _ in range(WARM_UP_CALLS):
        interrupts.check()
        call()
    seconds: list[float] = []
    while len(seconds) < TIMED_CALLS and sum(seconds) < TIME_LIMIT_SECONDS:
        interrupts.check()
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_inference(
    predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray, batch_size: int
) -> tuple[float, float]:
    """Latency of one image and throughput of batches, both from median times.

    Args:
        predict: From uint8 images in main memory to outputs in main memory; copies to and from a GPU count.
        images: uint8 of shape (n, height, width, 3); repeated if there are fewer than batch_size.
        batch_size: Images per batch.

    Returns:
        Milliseconds for one image, and images per second.
    """
    batch = np.resize(images[:batch_size], (batch_size, *images.shape[1:]))
    latency = median_seconds(lambda: predict(batch[:1]))
    return latency * 1000, batch_size / median_seconds(lambda: predict(batch))


def peak_memory_megabytes() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes, including mapped pages of the image store."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
