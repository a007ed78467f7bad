"""Two saved views of an experiment in the MLflow UI: results and curves.

The UI (3.17) keeps a saved view in a tag of the experiment, which users may change or delete there.
`viewStateShareKey=KEY` in an address opens a view; `workflowType=machine_learning` opens an experiment's runs instead
of the GenAI pages, which MLflow shows on first use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Experiment

from tandem.tracking import vocabulary

MODEL_TRAINING = "workflowType=machine_learning"  # part of an address, without which MLflow opens its GenAI pages
RESULTS_VIEW, CURVES_VIEW = "tandem-results", "tandem-curves"

_VIEW_PREFIX = "mlflow.sharedViewState."
# Excludes reports, comparisons and parent runs; the UI's filters cannot test whether a tag exists.
_NETWORKS_ONLY = f"tags.`{vocabulary.FRAMEWORK}` LIKE '%'"
_MADE_AT = 1_764_547_200_000  # milliseconds since 1970; fixed, so that the tags are equal in all experiments

_CHARTS_PER_ROW = 2  # with the UI's three, titles are cut on a screen of 1,280 pixels

_SCORES = [f"{vocabulary.TEST_PREFIX}{name}" for name in ("accuracy", "f1_macro", "f1_min", "log_loss")]
_COSTS = [vocabulary.TRAIN_SECONDS, vocabulary.LATENCY_MILLISECONDS, vocabulary.PARAMETERS]


def experiment_tags() -> dict[str, str]:
    """Tags of a new experiment, one per view."""
    return {_VIEW_PREFIX + key: view for key, view in (_results(), _curves())}


def page_of(experiment: Experiment) -> str:
    """Part of an address that opens an experiment: its results as charts, or its runs if it lacks the saved view."""
    page = f"/#/experiments/{experiment.experiment_id}/runs?"
    if _VIEW_PREFIX + RESULTS_VIEW in experiment.tags:
        page += f"viewStateShareKey={RESULTS_VIEW}&compareRunsMode=CHART&"
    return f"{page}{MODEL_TRAINING}"


def _results() -> tuple[str, str]:
    """View of results: one row per run, the best first; bars of the scores, and accuracy against cost."""
    accuracy = _SCORES[0]
    charts = [_bar(score) for score in _SCORES] + [_scatter(cost, accuracy) for cost in _COSTS]
    columns = [
        *(_column("metrics", name) for name in (*_SCORES, *_COSTS)),
        *(_column("params", name) for name in ("backbone", "regime", "weights", "seed")),
        *(_column("tags", name) for name in (vocabulary.FRAMEWORK, vocabulary.DATA_NAME)),
    ]
    return RESULTS_VIEW, _view("Tandem: results", columns, charts, order_by=_column("metrics", accuracy))


def _curves() -> tuple[str, str]:
    """View of curves: the newest run first; losses, accuracies, learning rate, and seconds per epoch."""
    charts = [
        _line(vocabulary.TRAIN_LOSS, vocabulary.VAL_LOSS),
        _line(vocabulary.TRAIN_ACCURACY, vocabulary.VAL_ACCURACY),
        _line(vocabulary.EPOCH_LEARNING_RATE),
        _line(vocabulary.EPOCH_SECONDS),
    ]
    columns = [
        *(_column("metrics", name) for name in (vocabulary.TRAIN_LOSS, vocabulary.VAL_LOSS, vocabulary.VAL_ACCURACY)),
        *(_column("params", name) for name in ("backbone", "regime", "learning_rate", "batch_size")),
        *(_column("tags", name) for name in (vocabulary.FRAMEWORK, vocabulary.FAILURE)),
    ]
    return CURVES_VIEW, _view("Tandem: curves", columns, charts, order_by=_column("attributes", "start_time"))


def _view(name: str, columns: Sequence[str], charts: Sequence[Mapping[str, Any]], *, order_by: str) -> str:
    """Value of a view's tag; everything missing in the state is the UI's default."""
    state = {
        "searchFilter": _NETWORKS_ONLY,
        "orderByKey": order_by,
        "orderByAsc": False,
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [{**chart, "metricSectionId": name} for chart in charts],
        "compareRunSections": [
            {
                "uuid": name,
                "name": name,
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
                "columns": _CHARTS_PER_ROW,
            }
        ],
        "isAccordionReordered": True,  # the section stays above those that the UI makes of all metrics
    }
    return json.dumps({"name": name, "createdAt": _MADE_AT, "updatedAt": _MADE_AT, "state": json.dumps(state)})


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _chart(kind: str, *metrics: str, **content: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": " ".join((kind, *metrics)),
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
        **content,
    }


def _bar(metric: str) -> dict[str, Any]:
    return _chart("BAR", metric, metricKey=metric)


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return _chart("SCATTER", x, y, **axes)


def _line(*metrics: str) -> dict[str, Any]:
    # the keys that the UI itself writes for a line chart
    axes = {"xAxisKey": "step", "xAxisScaleType": "linear", "selectedXAxisMetricKey": "", "useGlobalXaxisKey": True}
    scale = {"scaleType": "linear", "range": {}, "yAxisKey": "metric", "yAxisExpressions": [], "ignoreOutliers": False}
    smoothing = {"lineSmoothness": 0, "useGlobalLineSmoothing": True}
    chosen = {"metricKey": metrics[0], "selectedMetricKeys": list(metrics)}
    return _chart("LINE", *metrics, **chosen, **axes, **scale, **smoothing)
