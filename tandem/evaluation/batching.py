"""Prediction in batches as large as the memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tandem import interrupts
from tandem.protocol.settings import Settings

BATCHES_ON_GPU = 4
"""Training batches per batch of prediction, which keeps no activations and so needs less memory than training."""


def eval_batch_size(settings: Settings, *, gpu: bool) -> int:
    """Number of images that are predicted at once: the setting, or a default that depends on the device."""
    return settings.eval_batch_size or settings.batch_size * (BATCHES_ON_GPU if gpu else 1)


def in_batches(items: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Consecutive parts of an array, of `batch_size` items each; the last one may be smaller."""
    for start in range(0, len(items), batch_size):
        yield items[start : start + batch_size]


def computed_as_fits(
    compute: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[np.ndarray],
    *,
    is_out_of_memory: Callable[[Exception], bool],
    pad: bool = False,
) -> Iterator[np.ndarray]:
    """Results in the order of the inputs. Once a batch does not fit into memory, batches are halved until they do.

    Args:
        compute: From inputs of shape (n, ...) to results of shape (n, ...), each from its own input alone.
        batches: Inputs of shape (b, ...); the first batch is the largest.
        is_out_of_memory: True for an exception of `compute` that means that the batch was too large. All others are
            raised, as is this one for a single input.
        pad: Fill smaller batches up to the size of the others by repetition, and drop those results: for frameworks
            that compile for each size.

    Yields:
        Results of a batch or a part of one, of shape (n, ...).

    Raises:
        Interrupted: A signal came; each batch is followed by the question.
    """
    size = 0
    for batch in batches:
        size = size or len(batch)
        start = 0
        while start < len(batch):
            interrupts.check()
            part = batch[start : start + size]
            try:
                results = compute(np.resize(part, (size, *part.shape[1:])) if pad else part)
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size = -(-size // 2)
                continue
            yield results[: len(part)]
            start += len(part)


def predict_as_fits(
    predict: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[np.ndarray],
    *,
    is_out_of_memory: Callable[[Exception], bool],
    pad: bool,
) -> np.ndarray:
    """The outputs of all images, in their order.

    Args:
        predict: From images of shape (n, ...) to outputs of shape (n, outputs).
        batches: As in computed_as_fits, like the next two.
        is_out_of_memory: See there.
        pad: See there.

    Returns:
        Array of shape (images, outputs).
    """
    with interrupts.asking():
        return np.concatenate(list(computed_as_fits(predict, batches, is_out_of_memory=is_out_of_memory, pad=pad)))
