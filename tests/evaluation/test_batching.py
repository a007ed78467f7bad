from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tandem import interrupts
from tandem.evaluation.batching import computed_as_fits, eval_batch_size, in_batches, predict_as_fits
from tandem.protocol.settings import Settings


class TooLarge(Exception):
    """A framework's exception for a batch that does not fit into memory."""


def is_too_large(error: Exception) -> bool:
    return isinstance(error, TooLarge)


def prediction(sizes: list[int], room: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function that doubles its input, keeps the sizes of its inputs, and fails for larger ones than `room`."""

    def predict(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        if len(images) > room:
            raise TooLarge
        return images * 2

    return predict


def batches(*sizes: int) -> list[np.ndarray]:
    """Images of one pixel, which are consecutive numbers."""
    numbers = np.arange(sum(sizes), dtype=np.float32).reshape(-1, 1)
    return np.split(numbers, np.cumsum(sizes)[:-1])


def test_outputs_come_in_the_order_of_the_images() -> None:
    sizes: list[int] = []
    outputs = predict_as_fits(prediction(sizes, room=8), batches(8, 8, 3), is_out_of_memory=is_too_large, pad=False)
    assert outputs.tolist() == [[2.0 * number] for number in range(19)]
    assert sizes == [8, 8, 3]


def test_smaller_batch_is_padded_and_its_padding_dropped() -> None:
    sizes: list[int] = []
    outputs = predict_as_fits(prediction(sizes, room=8), batches(8, 3), is_out_of_memory=is_too_large, pad=True)
    assert outputs.tolist() == [[2.0 * number] for number in range(11)]
    assert sizes == [8, 8]


def test_signal_ends_a_prediction_after_its_batch(interrupted: Callable[[], None]) -> None:
    sizes: list[int] = []

    def predict(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        if len(sizes) == 2:
            interrupted()
        return images

    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        predict_as_fits(predict, batches(8, 8, 8, 3), is_out_of_memory=is_too_large, pad=False)
    assert sizes == [8, 8]


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("room", [1, 2, 3, 6, 7])
def test_batch_that_does_not_fit_is_halved_until_it_does(room: int, pad: bool) -> None:
    sizes: list[int] = []
    outputs = predict_as_fits(prediction(sizes, room), batches(13, 13, 4), is_out_of_memory=is_too_large, pad=pad)
    assert outputs.tolist() == [[2.0 * number] for number in range(30)]
    halves = {1: [13, 7, 4, 2, 1], 2: [13, 7, 4, 2], 3: [13, 7, 4, 2], 6: [13, 7, 4], 7: [13, 7]}[room]
    assert sizes[: len(halves)] == halves
    assert max(sizes[len(halves) :]) == halves[-1]  # a size that was too large is not tried again


def test_single_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(TooLarge):
        predict_as_fits(prediction([], room=0), batches(4), is_out_of_memory=is_too_large, pad=False)


def test_other_errors_are_raised() -> None:
    sizes: list[int] = []

    def predict(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        raise ValueError("wrong images")

    with pytest.raises(ValueError, match="wrong images"):
        predict_as_fits(predict, batches(4), is_out_of_memory=is_too_large, pad=False)
    assert sizes == [4]


def test_results_come_batch_by_batch_as_they_are_asked_for() -> None:
    sizes: list[int] = []
    results = computed_as_fits(prediction(sizes, room=4), batches(4, 4, 3), is_out_of_memory=is_too_large)
    assert next(results).tolist() == [[0], [2], [4], [6]]
    assert sizes == [4]
    assert [len(part) for part in results] == [4, 3]


def test_rows_are_taken_in_batches_of_one_size_except_the_last() -> None:
    rows = np.array([5, 3, 8, 1, 2, 9, 4])
    assert [batch.tolist() for batch in in_batches(rows, 3)] == [[5, 3, 8], [1, 2, 9], [4]]
    assert [batch.tolist() for batch in in_batches(rows, 8)] == [rows.tolist()]
    assert list(in_batches(rows[:0], 3)) == []


def test_batches_of_rows_are_halved_until_they_fit() -> None:
    sizes: list[int] = []
    rows = np.arange(7, dtype=np.int64)
    results = list(computed_as_fits(prediction(sizes, room=3), in_batches(rows, 8), is_out_of_memory=is_too_large))
    assert np.concatenate(results).tolist() == (2 * rows).tolist()
    assert sizes == [7, 4, 2, 2, 2, 1]


@pytest.mark.parametrize(("asked", "gpu", "size"), [(None, False, 8), (None, True, 32), (5, False, 5), (5, True, 5)])
def test_evaluation_s_batch_is_larger_on_a_gpu_unless_it_is_set(asked: int | None, gpu: bool, size: int) -> None:
    assert eval_batch_size(Settings(batch_size=8, eval_batch_size=asked), gpu=gpu) == size
