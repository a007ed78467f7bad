from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from tandem.rendering.page import Plot, Text
from tandem.rendering.tables import Column, Table
from tandem.search.page import MOST_IN_CONTOURS, make_sweep_page

TRIALS = Table(name="trials", title="Trials", columns=(Column(key="trial", heading="trial"),), rows=((0,), (1,)))


def study_with(num_trials: int, num_settings: int) -> optuna.Study:
    study = optuna.create_study()
    names = [f"setting {number}" for number in range(num_settings)]
    for number in range(num_trials):
        values = {name: (number * (3 + place)) % 7 / 7 for place, name in enumerate(names)}
        study.add_trial(
            create_trial(
                params=values,
                distributions={name: FloatDistribution(0, 1) for name in names},
                value=sum(values.values()),
                state=TrialState.COMPLETE,
                intermediate_values={1: 1.0},
            )
        )
    return study


def test_page_has_trials_first_and_a_section_per_figure() -> None:
    page = make_sweep_page(study_with(6, 2), TRIALS, title="Sweep mine", objective="val_loss")
    assert [section.anchor for section in page.sections] == [
        "trials",
        "history",
        "importance",
        "slices",
        "contours",
        "timeline",
    ]
    assert page.title == "Sweep mine" and page.lead == "2 trials, judged by the val_loss"
    assert page.sections[0].blocks == (TRIALS,)


@pytest.mark.parametrize(
    ("num_trials", "num_settings", "kind"), [(6, 2, Plot), (3, 2, Text), (6, 1, Text)], ids=["enough", "few", "one"]
)
def test_importance_needs_trials_and_settings(num_trials: int, num_settings: int, kind: type) -> None:
    page = make_sweep_page(study_with(num_trials, num_settings), TRIALS, title="", objective="val_loss")
    (importance,) = [section for section in page.sections if section.anchor == "importance"]
    (block,) = importance.blocks
    assert isinstance(block, kind)
    if isinstance(block, Text):
        assert block.paragraphs == ("Needs two or more settings, and 4 or more completed trials.",)


def test_single_setting_has_no_contours() -> None:
    page = make_sweep_page(study_with(6, 1), TRIALS, title="", objective="val_loss")
    assert "contours" not in [section.anchor for section in page.sections]


def test_contours_are_of_the_most_important_settings() -> None:
    page = make_sweep_page(study_with(12, 6), TRIALS, title="", objective="val_loss")
    (contours,) = [section for section in page.sections if section.anchor == "contours"]
    (plot,) = contours.blocks
    assert isinstance(plot, Plot)
    titles = {axis.title.text for axis in plot.figure.select_xaxes() if axis.title.text}
    assert len(titles) == MOST_IN_CONTOURS
