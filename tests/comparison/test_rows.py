from __future__ import annotations

import numpy as np
import pytest

from tandem.comparison.rows import Pair, Row
from tandem.evaluation.metrics import per_class_table
from tandem.rendering.tables import Estimate
from tests.compared import MakePredictions
from tests.comparison.made_rows import configuration, difference, pair, row

ESTIMATE = Estimate(value=0.7, low=0.6, high=0.75)


def test_score_has_its_interval_if_predictions_are_saved() -> None:
    made = Row(
        configuration=configuration(metrics={"test/accuracy": 0.7, "test/f1_macro": 0.65}),
        intervals={"accuracy": ESTIMATE},
    )
    assert (made.score("accuracy"), made.score("f1_macro"), made.score("log_loss")) == (ESTIMATE, 0.65, None)
    assert made.accuracy == 0.7


def test_row_after_the_first_phase_reads_its_own_metrics() -> None:
    metrics = {
        "test/accuracy": 0.9,
        "cost/train_seconds": 60.0,
        "phase_1/test/accuracy": 0.7,
        "phase_1/cost/train_seconds": 20.0,
    }
    whole = Row(configuration=configuration("two_stage torch", metrics=metrics))
    first_phase = Row(configuration=whole.configuration, after_first_phase=True)
    assert (whole.label, first_phase.label) == ("two_stage torch", "two_stage torch, first phase")
    assert (whole.accuracy, first_phase.accuracy) == (0.9, 0.7)
    assert (whole.mean("cost/train_seconds"), first_phase.mean("cost/train_seconds")) == (60, 20)
    assert first_phase.score("accuracy") == 0.7


def test_f1_of_classes_is_the_mean_over_the_runs(make_predictions: MakePredictions) -> None:
    runs = [make_predictions([True] * 8), make_predictions([index != 0 for index in range(8)])]
    expected = np.mean([per_class_table(run)["f1"] for run in runs], axis=0)
    assert Row(configuration=configuration(), predictions=tuple(runs)).f1_of_classes == pytest.approx(expected)


def test_difference_is_the_first_row_minus_the_second() -> None:
    first, second = row("a", accuracy=0.9), row("b", accuracy=0.7)
    assert pair(first, second).difference("accuracy") == pytest.approx(0.2)
    assert pair(first, row("c")).difference("accuracy") is None
    tested = difference(0.2)
    assert pair(first, second, tested).difference("accuracy") == tested.value


def test_reversed_difference_has_its_interval_turned_around() -> None:
    turned = difference(0.2, below=0.02, above=0.01, significant=True).reversed
    assert turned.verdict == "worse" and turned.reversed.verdict == "better"
    assert difference(0.2, verdict="equivalent").reversed.verdict == "equivalent"
    assert (turned.value.value, turned.value.low, turned.value.high) == pytest.approx((-0.2, -0.21, -0.18))
    assert turned.significant and (turned.p_value, turned.p_holm) == (0.5, 0.6)


@pytest.mark.parametrize(
    ("value", "significant", "better"), [(0.2, True, "a"), (-0.2, True, "b"), (0.2, False, None), (-0.2, False, None)]
)
def test_better_and_worse_row_differ_significantly(value: float, significant: bool, better: str | None) -> None:
    made = pair(row("a"), row("b"), difference(value, significant=significant))
    assert (made.better and made.better.label) == better
    assert (made.worse and made.worse.label) == {"a": "b", "b": "a", None: None}[better]


def test_equivalent_pair_has_no_better_row_even_if_it_differs_significantly() -> None:
    made = pair(row("a"), row("b"), difference(0.002, significant=True, verdict="equivalent"))
    assert made.verdict == "equivalent" and made.better is made.worse is None


def test_untested_pair_has_no_better_row() -> None:
    made = pair(row("a", accuracy=0.9), row("b", accuracy=0.1))
    assert made.verdict is made.better is made.worse is None


def test_times_have_a_ratio_only_on_equal_hardware() -> None:
    def ratio(first: Row, second: Row) -> float | None:
        return Pair(first=first, second=second).ratio("cost/train_seconds")

    slow, fast = row("a", seconds=60), row("b", seconds=40)
    assert (ratio(slow, fast), ratio(fast, slow)) == (1.5, pytest.approx(2 / 3))
    assert ratio(slow, row("c", seconds=40, hardware="H200")) is None
    assert ratio(slow, row("c")) is ratio(row("c"), slow) is ratio(slow, row("c", seconds=0)) is None
