from __future__ import annotations

import copy

import optuna
import plotly.graph_objects as go
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from tandem.rendering.page import Command, Page, Plot, Text
from tandem.rendering.tables import Column, Table
from tandem.search.page import MOST_IN_CONTOURS, make_sweep_page, without_outliers, worst_shown

TRIALS = Table(name="trials", title="Trials", columns=(Column(key="trial", heading="trial"),), rows=((0,), (1,)))
WORDS = {
    "objective": "val_loss",
    "best_settings": "dropout 0.2",
    "command": "python train_torch.py --config best.yaml",
}


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
    page = make_sweep_page(study_with(6, 2), TRIALS, title="Sweep mine", **WORDS)
    assert [section.anchor for section in page.sections] == [
        "best-settings",
        "trials",
        "history",
        "importance",
        "slices",
        "contours",
        "timeline",
    ]
    assert page.title == "Sweep mine" and page.lead == "2 trials, judged by the validation loss"
    assert page.sections[1].blocks == (TRIALS,)
    assert page.headline == ("The best validation loss is 0.0000, of trial 0: dropout 0.2.",)
    assert page.sections[0].blocks[1] == Command(text="python train_torch.py --config best.yaml")


def plots_of(page: Page, *anchors: str) -> list[go.Figure]:
    blocks = [block for section in page.sections if section.anchor in anchors for block in section.blocks]
    return [block.figure for block in blocks if isinstance(block, Plot)]


def diverged(study: optuna.Study) -> None:
    trial = copy.copy(study.trials[0])
    trial.values, trial.intermediate_values = [5e8], {1: 1.0, 2: 4e8}
    study.add_trial(trial)


@pytest.mark.parametrize("num_trials", [4, 12])
def test_diverged_trial_flattens_no_figure(num_trials: int) -> None:
    study = study_with(num_trials, 2)
    diverged(study)
    for number in range(num_trials):  # the numbers of later trials stay
        study.add_trial(study.trials[number])
    page = make_sweep_page(study, TRIALS, title="", **WORDS)
    for figure in plots_of(page, "history", "slices", "contours"):
        drawn = [value for trace in figure.data if trace.y is not None for value in trace.y]
        ranges = [axis.range[1] for axis in figure.select_yaxes() if axis.range]
        assert max(value for value in drawn if isinstance(value, float | int)) < 10 or max(ranges) < 10
    history = plots_of(page, "history")[0]
    assert list(history.data[0].x) == [*range(num_trials), *range(num_trials + 1, 2 * num_trials + 1)]
    (history_section,) = [section for section in page.sections if section.anchor == "history"]
    assert history_section.blocks[0] == Text(
        paragraphs=(
            f"Too far from the others for these figures and left out: trial {num_trials} (validation loss 5e+08).",
        )
    )


def test_ordinary_trials_are_all_drawn() -> None:
    study = study_with(12, 2)
    drawn, left_out = without_outliers(study)
    assert left_out == [] and [trial.value for trial in drawn.trials] == [trial.value for trial in study.trials]


@pytest.mark.parametrize(("minimize", "limit"), [(True, 3.0), (False, 1.0)])
def test_limit_is_on_the_side_of_worse_values(minimize: bool, limit: float) -> None:
    values = [1.9, 1.95, 2.0, 2.15, 2.15]
    assert worst_shown(values, minimize=minimize) == pytest.approx(limit)


def test_figures_speak_the_words_of_the_project() -> None:
    page = make_sweep_page(study_with(6, 3), TRIALS, title="", **WORDS)
    figures = plots_of(page, "history", "importance", "slices", "contours", "timeline")
    titles = {axis.title.text for one in figures for axes in (one.select_xaxes(), one.select_yaxes()) for axis in axes}
    assert titles - {None} == {
        *("trial", "validation loss", "epoch", "share of the variation", "setting", "time"),
        *("setting 0", "setting 1", "setting 2"),
    }
    names = {trace.name for figure in figures for trace in figure.data} - {None}
    assert names == {
        "validation loss",
        "best so far",
        "trial",
        "completed",
        *(f"trial {number}" for number in range(6)),
    }


@pytest.mark.parametrize(
    ("num_trials", "num_settings", "kind"), [(6, 2, Plot), (3, 2, Text), (6, 1, Text)], ids=["enough", "few", "one"]
)
def test_importance_needs_trials_and_settings(num_trials: int, num_settings: int, kind: type) -> None:
    page = make_sweep_page(study_with(num_trials, num_settings), TRIALS, title="", **WORDS)
    (importance,) = [section for section in page.sections if section.anchor == "importance"]
    (block,) = importance.blocks
    assert isinstance(block, kind)
    if isinstance(block, Text):
        assert block.paragraphs == ("Needs two or more settings, and 4 or more completed trials.",)


def test_single_setting_has_no_contours() -> None:
    page = make_sweep_page(study_with(6, 1), TRIALS, title="", **WORDS)
    assert "contours" not in [section.anchor for section in page.sections]


def test_contours_are_of_the_most_important_settings() -> None:
    page = make_sweep_page(study_with(12, 6), TRIALS, title="", **WORDS)
    (contours,) = [section for section in page.sections if section.anchor == "contours"]
    (plot,) = contours.blocks
    assert isinstance(plot, Plot)
    titles = {axis.title.text for axis in plot.figure.select_xaxes() if axis.title.text}
    assert len(titles) == MOST_IN_CONTOURS
