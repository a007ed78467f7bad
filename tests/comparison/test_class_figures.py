from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tandem.comparison.class_figures import confusion_over_runs, f1_over_runs
from tandem.evaluation.predictions import Predictions


def test_f1_map_has_classes_from_top_to_bottom_and_rows_from_left_to_right() -> None:
    f1 = pd.DataFrame({"a": [0.9, 0.2, 0.5], "b": [0.7, 0.4, 0.0]}, index=["kiwi", "emu", "owl"])
    figure = f1_over_runs(f1)
    (heatmap,) = figure.data
    assert list(heatmap.y) == ["kiwi", "emu", "owl"]
    assert list(heatmap.x) == ["a", "b"]
    for name, values in zip(heatmap.y, np.asarray(heatmap.z), strict=True):
        np.testing.assert_allclose(values, f1.loc[name], rtol=1e-6)
    assert figure.layout.yaxis.autorange == "reversed"
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == (None, "class")
    assert heatmap.colorbar.title.text == "F1"


@pytest.mark.parametrize(("num_classes", "numbers"), [(3, True), (100, False), (300, False)])
def test_f1_map_fits_on_a_screen(num_classes: int, numbers: bool) -> None:
    random = np.random.default_rng(0)
    f1 = pd.DataFrame(random.random((num_classes, 12)), index=[f"class {index}" for index in range(num_classes)])
    figure = f1_over_runs(f1)
    assert (figure.data[0].texttemplate is not None) == numbers
    assert figure.layout.height < 1200


def test_menu_shows_the_confusions_of_one_row() -> None:
    def predictions(predicted: list[int]) -> Predictions:
        return Predictions(
            keys=tuple("1234"),
            hashes=tuple("1234"),
            truth=np.array([0, 0, 1, 1]),
            probabilities=np.eye(2, dtype=np.float32)[predicted],
            classes=("cat", "dog"),
        )

    figure = confusion_over_runs({"a": predictions([0, 0, 1, 1]), "b": predictions([0, 1, 1, 1])})
    assert [trace.visible for trace in figure.data] == [None, False]
    assert figure.layout.xaxis.title.text == "predicted class"
    assert figure.layout.yaxis.title.text == "true class"
    # One cat (first row) is predicted as a dog (second column).
    assert np.asarray(figure.data[1].customdata).tolist() == [[1, 1], [0, 2]]
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["a", "b"]
    assert [list(button.args[0]["visible"]) for button in menu.buttons] == [[True, False], [False, True]]
