from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tandem.protocol.regimes import Phase
from tandem.protocol.schedule import block_factors, is_tabulated, learning_rates
from tandem.protocol.settings import ScheduleSettings


def rates(*, rate: float = 1.0, max_epochs: int = 2, steps_per_epoch: int = 2, **settings: Any) -> list[float]:
    phase = Phase(number=1, trainable="all", learning_rate=rate, max_epochs=max_epochs)
    return learning_rates(ScheduleSettings(**settings), phase, steps_per_epoch).tolist()


def test_cosine_of_six_steps_is_the_one_computed_by_hand() -> None:
    # (1 + cos(0, 30, 60, 90, 120, 150 degrees)) / 2
    expected = [1, (1 + math.sqrt(3) / 2) / 2, 0.75, 0.5, 0.25, (1 - math.sqrt(3) / 2) / 2]
    assert rates(name="cosine", max_epochs=3) == pytest.approx(expected)
    assert rates(name="cosine", max_epochs=1, steps_per_epoch=6) == pytest.approx(expected)


def test_cosine_ends_above_its_minimum() -> None:
    # 0.25 + (0.75 - 0.25) * (1, (1 + sqrt(1/2)) / 2, 1/2, (1 - sqrt(1/2)) / 2)
    expected = [0.75, 0.25 + (1 + math.sqrt(0.5)) / 4, 0.5, 0.25 + (1 - math.sqrt(0.5)) / 4]
    assert rates(name="cosine", rate=0.75, min_learning_rate=0.25) == pytest.approx(expected)


def test_warmup_rises_in_equal_steps_and_ends_at_the_rate() -> None:
    expected = [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    assert rates(name="none", rate=0.5, max_epochs=3, warmup_epochs=2) == pytest.approx(expected)


def test_cosine_begins_after_the_warmup() -> None:
    expected = [0.5, 1, 1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    assert rates(name="cosine", max_epochs=3, warmup_epochs=1) == pytest.approx(expected)


def test_step_schedule_reduces_the_rate_after_the_warmup() -> None:
    expected = [0.5, 1, 1, 1, 1, 1, 0.25, 0.25, 0.25, 0.25, 0.1, 0.1]
    settings = {"name": "step", "step_epochs": 2, "factor": 0.25, "min_learning_rate": 0.1}
    assert rates(max_epochs=6, warmup_epochs=1, **settings) == pytest.approx(expected)
    assert rates(max_epochs=3, step_epochs=1, name="step", factor=0.1) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_one_cycle_of_ten_steps_is_the_one_computed_by_hand() -> None:
    # up over steps 0 to 2: from 0.04, halfway 0.52, 1; down over steps 2 to 9: 1 to 4e-6
    received = rates(name="one_cycle", rate=2, max_epochs=5)
    assert received[:3] == pytest.approx([0.08, 1.04, 2])
    seventh = math.pi / 7
    falling = [4e-6 + (1 - 4e-6) * (1 + math.cos(seventh * step)) / 2 for step in range(8)]
    assert received[2:] == pytest.approx([2 * factor for factor in falling])
    assert received[-1] == pytest.approx(2 / 25 / 10_000)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4])
def test_one_cycle_of_few_steps_has_positive_rates(num_steps: int) -> None:
    received = rates(name="one_cycle", max_epochs=num_steps, steps_per_epoch=1)
    assert len(received) == num_steps and min(received) > 0 and max(received) <= 1


def test_table_has_a_rate_for_each_step() -> None:
    phase = Phase(number=2, trainable="head", learning_rate=0.25, max_epochs=7)
    table = learning_rates(ScheduleSettings(), phase, 5)
    assert (table.shape, table.dtype) == ((35,), np.float64)
    assert set(table) == {0.25}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "none"}, False),
        ({"name": "plateau"}, False),
        ({"name": "cosine"}, True),
        ({"name": "step"}, True),
        ({"name": "one_cycle"}, True),
        ({"name": "none", "warmup_epochs": 1}, True),
    ],
)
def test_rates_that_are_constant_or_depend_on_losses_need_no_table(settings: dict[str, Any], expected: bool) -> None:
    assert is_tabulated(ScheduleSettings(**settings)) is expected


def test_each_block_learns_at_a_share_of_the_next_blocks_rate() -> None:
    assert block_factors(0.5, 4) == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
    assert block_factors(1.0, 3) == [1, 1, 1]
