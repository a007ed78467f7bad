from __future__ import annotations

import pytest

from tandem.protocol.accumulation import Passes


def test_last_step_of_an_epoch_has_the_passes_that_are_left() -> None:
    # steps of 12, 12 and 6 images; the last pass has 2
    passes = Passes(num_images=30, pass_size=4, per_step=3)
    assert (passes.num_passes, passes.num_steps) == (8, 3)
    # 3 times 4 of 6 images, and 3 times 2 of 6
    assert [passes.factor(index) for index in range(8)] == pytest.approx([1, 1, 1, 1, 1, 1, 2, 1])


def test_whole_steps_weight_all_passes_alike() -> None:
    passes = Passes(num_images=24, pass_size=4, per_step=3)
    assert (passes.num_passes, passes.num_steps) == (6, 2)
    assert [passes.factor(index) for index in range(6)] == [1] * 6


def test_epoch_can_be_a_single_step_with_few_passes() -> None:
    passes = Passes(num_images=10, pass_size=8, per_step=4)
    assert (passes.num_passes, passes.num_steps) == (2, 1)
    assert [passes.factor(index) for index in range(2)] == pytest.approx([4 * 0.8, 4 * 0.2])


def test_without_accumulation_each_pass_is_a_step() -> None:
    passes = Passes(num_images=30, pass_size=8, per_step=1)
    assert (passes.num_passes, passes.num_steps) == (4, 4)
    assert [passes.factor(index) for index in range(4)] == [1] * 4
