from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tandem.comparison.analysis import Analysis
from tandem.comparison.class_tables import class_f1, class_tables, confusion_table
from tandem.comparison.rows import Row
from tandem.evaluation.predictions import Predictions
from tests.compared import MakePredictions
from tests.compared import rows_of as rows
from tests.comparison.made_rows import configuration


def analysis_of(*outcomes: Predictions) -> Analysis:
    """Rows a, b, ... with predictions of one run each."""
    return Analysis(
        rows=tuple(
            Row(configuration=configuration(label), predictions=(run,))
            for label, run in zip("abc", outcomes, strict=False)
        )
    )


def predictions(truth: list[int], predicted: list[int], num_classes: int = 3) -> Predictions:
    return Predictions(
        keys=tuple(map(str, range(len(truth)))),
        hashes=tuple(map(str, range(len(truth)))),
        truth=np.array(truth, dtype=np.int64),
        probabilities=np.eye(num_classes, dtype=np.float32)[predicted],
        classes=tuple(f"class {index}" for index in range(num_classes)),
    )


def test_classes_hold_f1_of_every_row(make_predictions: MakePredictions) -> None:
    analysis = analysis_of(make_predictions([True] * 8), make_predictions([index != 0 for index in range(8)]))
    extremes, classes = class_tables(analysis)
    # One of two images of class 0 is predicted as class 1: F1 is 2 x 1 / (2 + 1), and 2 x 2 / (2 + 3) for class 1.
    of_class = {row["class"]: row for row in rows(classes)}
    assert of_class["class 0"]["f1 b"] == pytest.approx(2 / 3)
    assert of_class["class 1"]["f1 b"] == pytest.approx(4 / 5)
    assert of_class["class 1"]["f1"] == pytest.approx((1 + 4 / 5) / 2)
    hardest = rows(extremes)[0]
    assert (hardest["class"], hardest["images"]) == ("class 0", 2)
    assert (hardest["f1_lowest"], hardest["lowest_in"]) == (pytest.approx(2 / 3), "b")
    assert (hardest["f1_highest"], hardest["highest_in"]) == (1, "a")


def test_no_row_is_the_lowest_where_all_are_equal(make_predictions: MakePredictions) -> None:
    right = [index != 0 for index in range(8)]
    alike, _ = class_tables(analysis_of(make_predictions(right), make_predictions(right)))
    assert {(row["lowest_in"], row["highest_in"]) for row in rows(alike)} == {("all", "all")}
    alone, _ = class_tables(analysis_of(make_predictions(right)))
    assert {(row["lowest_in"], row["highest_in"]) for row in rows(alone)} == {("a", "a")}


def test_classes_without_test_images_are_left_out() -> None:
    f1 = class_f1(analysis_of(predictions([0, 0, 2, 2], [0, 0, 2, 0])).rows)
    assert list(f1.index) == ["class 2", "class 0"]


def test_order_of_equal_classes_does_not_depend_on_the_last_bit() -> None:
    """The mean of the same three values in another order differs in its last bit."""
    values = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.1], [0.3, 0.1, 0.2]])
    means = pd.DataFrame(values).mean(axis=1)
    assert means[1] < means[0] and np.ptp(means) < 1e-15
    analysis = analysis_of(*[predictions([0, 1, 2], [0, 1, 2])] * 3)
    for row, f1 in zip(analysis.rows, values.T, strict=True):
        row.__dict__["f1_of_classes"] = f1  # where the cached property is kept
    assert list(class_f1(analysis.rows).index) == ["class 0", "class 1", "class 2"]


def test_confusions_name_the_true_class_first() -> None:
    """Two images of class 0 are predicted as class 1, and none the other way round."""
    truth = [0, 0, 0, 0, 1, 1, 2, 2]
    analysis = analysis_of(
        predictions(truth, [0, 0, 1, 0, 1, 1, 2, 2]),
        predictions(truth, [0, 1, 0, 0, 1, 1, 2, 2]),
        predictions(truth, truth),
    )
    table = confusion_table(analysis)
    assert [(column.key, column.heading) for column in table.columns][:2] == [
        ("truth", "true class"),
        ("predicted", "predicted class"),
    ]
    assert rows(table) == [
        {
            "truth": "class 0",
            "predicted": "class 1",
            "images": 2,
            "share": pytest.approx(2 / 12),
            "cells": 2,
            "most_in": "a, b",
        }
    ]
    assert table.notes == ("Summed over 3 runs.",)


def test_without_predictions_there_are_no_class_tables() -> None:
    analysis = Analysis(rows=(Row(configuration=configuration()),))
    assert class_tables(analysis) == [] and confusion_table(analysis).rows == ()


def test_many_classes_have_a_short_table_beside_the_long_one(make_predictions: MakePredictions) -> None:
    random = np.random.default_rng(0)
    analysis = analysis_of(*(make_predictions(random.random(600) < 0.7, num_classes=300) for _ in range(2)))
    extremes, classes = class_tables(analysis)
    assert (len(extremes.rows), len(classes.rows)) == (20, 300)
    assert extremes.title == "The 10 hardest and the 10 easiest classes"
    f1 = [row["f1"] for row in rows(classes)]
    assert f1 == sorted(f1)
    assert [row["f1"] for row in rows(extremes)] == [*f1[:10], *f1[-10:]]
