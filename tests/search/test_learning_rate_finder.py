from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest

from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.search.learning_rate_finder import centred_medians, finder_figure, in_words, record_learning_rate_finder
from tests.small_runs import RecordingRun


def finder_with(losses: list[float]) -> LearningRateFinder:
    finder = LearningRateFinder()
    for _, number in finder.steps(itertools.count()):
        finder.add(losses[min(number, len(losses) - 1)])
    return finder


FALLING = [2.0] * 40 + [2.0 - 0.05 * step for step in range(30)] + [40.0] * 50
RISING = [1.0 + 0.01 * step for step in range(100)]


class Recording(RecordingRun):
    def where_to_look(self) -> list[str]:
        return ["Run: here"]


def test_words_name_the_suggested_rate_and_the_end() -> None:
    finder = finder_with(FALLING)
    suggestion = finder.suggestion()
    assert suggestion is not None
    steps, end = len(finder.losses), finder.rates[-1]
    assert in_words(finder) == (
        f"the loss fell fastest at {suggestion:.2g} ({steps} steps, until the loss exploded at {end:.2g}); "
        f"use --learning_rate {suggestion:.2g}, or try rates near it"
    )


def test_words_say_that_a_rising_loss_suggests_nothing() -> None:
    assert in_words(finder_with(RISING)) == (
        "no suggestion, since the loss did not fall; 100 steps, to the end of the range at 10"
    )


@pytest.mark.parametrize(("losses", "num_lines"), [(FALLING, 1), (RISING, 0)], ids=["falling", "rising"])
def test_figure_marks_the_suggestion_on_a_logarithmic_axis(losses: list[float], num_lines: int) -> None:
    finder = finder_with(losses)
    figure = finder_figure(finder)
    assert [trace.name for trace in figure.data] == ["loss", "median over 9 steps"]
    assert list(figure.data[0].x) == finder.rates and list(figure.data[0].y) == finder.losses
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.title.text == "learning rate" and figure.layout.yaxis.title.text == "loss of the batch"
    assert [shape.x0 for shape in figure.layout.shapes] == [finder.suggestion()] * num_lines
    # Plotly places annotations of a logarithmic axis by the power of ten.
    places = [10**label.x for label in figure.layout.annotations]
    assert places == pytest.approx([finder.suggestion()] * num_lines)
    assert figure.layout.yaxis.range[1] < 40  # the explosion is cut off


def test_median_in_the_figure_follows_the_loss_without_delay() -> None:
    falling = [2.0] * 50 + [1.0] * 50
    assert centred_medians(falling) == falling
    # One step that differs is no trend.
    assert centred_medians([2.0] * 20 + [40.0] + [2.0] * 20) == [2.0] * 20 + [2.0] + [2.0] * 20


def test_steps_table_page_and_suggestion_are_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, finder = Recording(tmp_path), finder_with(FALLING)
    record_learning_rate_finder(run, finder, "resnet50, frozen, birds")  # type: ignore[arg-type]
    steps = [values for _, values in run.logged if "range_test/loss" in values]
    assert [values["range_test/loss"] for values in steps] == finder.losses
    assert [step for step, values in run.logged if "range_test/loss" in values] == list(range(len(steps)))
    with (tmp_path / "range_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["learning_rate"]) for row in rows] == finder.rates
    assert [path.name for path in run.artifacts] == ["range_test.csv", "range_test.html"]
    page = (tmp_path / "range_test.html").read_text()
    assert "resnet50, frozen, birds" in page and "default-src 'none'" in page
    assert run.logged[-1][1] == {"range_test/suggestion": finder.suggestion()}
    assert run.tags == {"tandem.range_test": in_words(finder)}
    assert in_words(finder) in capsys.readouterr().out


def test_no_suggestion_is_logged_without_one(tmp_path: Path) -> None:
    run = Recording(tmp_path)
    record_learning_rate_finder(run, finder_with(RISING), "a network")  # type: ignore[arg-type]
    assert not any("range_test/suggestion" in values for _, values in run.logged)
