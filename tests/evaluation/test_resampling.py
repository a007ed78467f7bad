from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tandem import interrupts
from tandem.evaluation.metrics import per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.resampling import class_counts, class_scores, class_support, weight_blocks

MakeRun = Callable[..., Predictions]


def test_signal_ends_the_resamples_after_a_block(interrupted: Callable[[], None]) -> None:
    drawn = 0
    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        for columns, _ in weight_blocks(np.zeros(20, np.int64), 2000, 0):
            drawn = columns.stop
            interrupted()
    assert drawn == 250


def test_scores_of_resampled_classes_are_those_of_the_images_drawn(make_run: MakeRun) -> None:
    run = make_run(5, images=120, num_classes=6)
    for columns, weights in weight_blocks(run.truth, 12, 3):
        found = class_scores(class_counts(run) @ weights, class_support(run.truth, 6) @ weights)
        for index, column in enumerate(weights.T.astype(np.int64)):
            drawn = np.repeat(np.arange(120), column)
            names = tuple(f"{image:03}" for image in range(120))
            resample = replace(
                run, keys=names, hashes=names, truth=run.truth[drawn], probabilities=run.probabilities[drawn]
            )
            table = per_class_table(resample)
            for name, values in found.items():
                assert values[:, index].tolist() == pytest.approx(table[name].tolist()), name
        assert columns == slice(0, 12)


def test_resamples_are_as_large_as_each_class_and_draw_each_image_equally_often() -> None:
    truth = np.array([2, 0, 0, 1, 0, 2, 4, 0])
    weights = np.concatenate([block for _, block in weight_blocks(truth, 6000, 0)], axis=1)
    assert weights.shape == (8, 6000)
    # Multinomial weights have mean 1 and a variance below 1: five standard errors of 6,000 draws.
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=5 / 6000**0.5)
    class_sizes = np.array([weights[truth == index].sum(axis=0) for index in range(5)])
    assert (class_sizes == np.array([[4], [1], [2], [0], [1]])).all()


def test_first_resamples_do_not_depend_on_how_many_are_drawn() -> None:
    truth = np.repeat(np.arange(4), 10)
    few, many = (
        np.concatenate([block for _, block in weight_blocks(truth, number, 0)], axis=1) for number in (260, 700)
    )
    np.testing.assert_array_equal(few, many[:, :260])
    other = np.concatenate([block for _, block in weight_blocks(truth, 260, 1)], axis=1)
    assert not np.array_equal(few, other)
