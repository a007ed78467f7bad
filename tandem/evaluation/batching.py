"""Prediction in batches as large as the memory takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tandem.protocol.settings import Settings

BATCHES_ON_GPU = 4
"""Training batches at once: inference keeps no activations, so that these take less memory than training has taken."""


def eval_batch_size(settings: Settings, *, gpu: bool) -> int:
    """Images that are predicted at once, as the settings say or by the device."""
    return settings.eval_batch_size or settings.batch_size * (BATCHES_ON_GPU if gpu else 1)


def predict_as_fits(
    predict: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[np.ndarray],
    *,
    is_out_of_memory: Callable[[Exception], bool],
    pad: bool,
) -> np.ndarray:
    """The outputs of all images in their order; from a batch on that does not fit into memory, in halves.

    Args:
        predict: From images of shape (n, ...) to outputs of shape (n, outputs), each from its image alone.
        batches: Images of shape (b, ...), the first batch no smaller than the others.
        is_out_of_memory: Whether an exception of predict says that the batch was too large.
        pad: Repeat images of a smaller batch up to the size of the others, whose outputs are dropped: for frameworks
            that compile anew for each size.

    Returns:
        Of shape (images, outputs).
    """
    outputs: list[np.ndarray] = []
    size = 0
    for images in batches:
        size = size or len(images)
        start = 0
        while start < len(images):
            part = images[start : start + size]
            try:
                output = predict(np.resize(part, (size, *part.shape[1:])) if pad else part)
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                size = -(-size // 2)
                continue
            outputs.append(output[: len(part)])
            start += len(part)
    return np.concatenate(outputs)
