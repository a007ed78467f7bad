from __future__ import annotations

import json
from typing import Any

import pytest

from tandem.tracking.views import CURVES_VIEW, RESULTS_VIEW, experiment_tags


def state_of(key: str) -> dict[str, Any]:
    return json.loads(json.loads(experiment_tags()[f"mlflow.sharedViewState.{key}"])["state"])


def metrics_of(chart: dict[str, Any]) -> list[str]:
    """Metrics that a chart of any kind shows."""
    axes = [chart[axis]["key"] for axis in ("xaxis", "yaxis") if axis in chart]
    return axes or chart.get("selectedMetricKeys") or [chart["metricKey"]]


def test_results_have_bars_of_the_scores_and_accuracy_against_each_cost() -> None:
    state = state_of(RESULTS_VIEW)
    assert [(chart["type"], metrics_of(chart)) for chart in state["compareRunCharts"]] == [
        ("BAR", ["test/accuracy"]),
        ("BAR", ["test/f1_macro"]),
        ("BAR", ["test/f1_min"]),
        ("BAR", ["test/log_loss"]),
        ("SCATTER", ["cost/train_seconds", "test/accuracy"]),
        ("SCATTER", ["cost/latency_milliseconds", "test/accuracy"]),
        ("SCATTER", ["cost/parameters", "test/accuracy"]),
    ]
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`test/accuracy`", False)


def test_curves_have_train_and_val_in_one_chart_and_the_newest_run_first() -> None:
    state = state_of(CURVES_VIEW)
    assert [metrics_of(chart) for chart in state["compareRunCharts"]] == [
        ["train/loss", "val/loss"],
        ["train/accuracy", "val/accuracy"],
        ["epoch/learning_rate"],
        ["epoch/seconds"],
    ]
    assert (state["orderByKey"], state["orderByAsc"]) == ("attributes.`start_time`", False)


@pytest.mark.parametrize("key", [RESULTS_VIEW, CURVES_VIEW])
def test_view_shows_training_runs_only_and_its_columns_in_order(key: str) -> None:
    state = state_of(key)
    assert state["searchFilter"] == "tags.`tandem.framework` LIKE '%'"
    assert state["selectedColumns"] == state["columnOrder"]
    assert len(set(state["columnOrder"])) == len(state["columnOrder"]) >= 9
    (section,) = state["compareRunSections"]
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {section["uuid"]}
