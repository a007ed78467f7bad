from __future__ import annotations

import pytest

from tandem.comparison.critical_difference import critical_difference_diagram


def test_critical_difference_diagram_names_all_models_and_joins_cliques() -> None:
    ranks = {"worst": 3.5, "best": 1.5, "second": 2.0, "third": 3.0}
    figure = critical_difference_diagram(ranks, [["best", "second"], ["third", "worst"], ["best"]], 0.8)
    names = [annotation.text for annotation in figure.layout.annotations]
    assert names == ["best 1.50", "second 2.00", "worst 3.50", "third 3.00", "critical difference 0.80"]
    bars = [trace for trace in figure.data if trace.line.width == 6]
    spans = [(round(bar.x[0], 1), round(bar.x[1], 1)) for bar in bars]
    assert spans == [(1.4, 2.1), (2.9, 3.6)]  # from rank to rank, and a little beyond
    (scale,) = [trace for trace in figure.data if list(trace.y) == [1.1, 1.1]]
    assert scale.x[1] - scale.x[0] == pytest.approx(0.8)


def test_rank_axis_has_the_best_on_the_left() -> None:
    figure = critical_difference_diagram({"worst": 2.5, "best": 1.5}, [], 0.8)
    (axis,) = [trace for trace in figure.data if trace.text]
    assert (list(axis.x), list(axis.text)) == ([1, 2, 3], ["1", "2", "3"])
    assert figure.layout.xaxis.range[0] < figure.layout.xaxis.range[1]
    sides = {annotation.text: annotation.xanchor for annotation in figure.layout.annotations}
    assert (sides["best 1.50"], sides["worst 2.50"]) == ("right", "left")


@pytest.mark.parametrize("ranks", [(1.8, 0.9 * 2), (0.1 + 0.2 + 1.5, 1.8)])
def test_models_with_equal_ranks_are_ordered_by_name(ranks: tuple[float, float]) -> None:
    figure = critical_difference_diagram({"b": ranks[1], "a": ranks[0], "c": 3.0}, [], 0.8)
    assert [annotation.text[:1] for annotation in figure.layout.annotations][:2] == ["a", "b"]
