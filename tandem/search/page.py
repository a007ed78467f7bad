"""A sweep's page of HTML, which needs no network: its best settings, its trials, and Optuna's figures of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.importance import get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tandem.rendering.page import Block, Command, Page, Plot, Section, Text
from tandem.rendering.tables import Table
from tandem.rendering.theme import TRAIN_COLOR, arrange_panels

MOST_IN_CONTOURS = 4  # settings, which are drawn in pairs
LEAST_FOR_IMPORTANCE = 4  # completed trials; with fewer, Optuna finds all settings equally important
LEAST_FOR_OUTLIERS = 4  # completed trials
# A value that is worse than the median by so many median absolute deviations would flatten a figure.
OUTLIER = 10
LEAST_DEVIATION = 0.01  # of the median, so that nearly equal values are not outliers
CONTOURS_WIDTH = 1000  # pixels of contours of more than two settings

OBJECTIVES = {"val_loss": "validation loss", "val_accuracy": "validation accuracy"}
_WORDS = {
    "Trial": "trial",
    "Step": "epoch",
    "Datetime": "time",
    "Hyperparameter": "setting",
    "Hyperparameter Importance": "share of the variation",
    "Feasible Trial": "trial",
    "Best Value": "best so far",
    "COMPLETE": "completed",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
"""Words of Optuna's figures in those of the project."""


def make_sweep_page(
    study: optuna.Study, trials: Table, *, title: str, objective: str, best_settings: str, command: str
) -> Page:
    """The page of a sweep.

    Args:
        study: At least one of its trials is completed.
        trials: All that count, the best first.
        title: The page's.
        objective: Name of the objective, val_loss or val_accuracy.
        best_settings: The settings of the best trial, in words.
        command: The command that trains with them.
    """
    name = OBJECTIVES[objective]
    drawn, left_out = without_outliers(study)
    complete = drawn.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = sorted({name for trial in complete for name in trial.params})
    slices = _plot(visualization.plot_slice(drawn, target_name=name), f"The {name} against each setting.")
    # One colour: Optuna's shows the number of the trial, with a bar that leaves a phone no room for the figure.
    slices.figure.update_traces(marker={"color": TRAIN_COLOR, "showscale": False, "size": 8, "line": {"width": 0}})
    arrange_panels(slices.figure, panels=len(names), columns=len(names), panel_height=320, around=110, narrowest=220)
    best = study.best_trial
    assert best.value is not None
    sections: dict[str, tuple[Block, ...]] = {
        "Best settings": (
            Text(paragraphs=("This command trains with the best settings:",)),
            Command(text=command),
        ),
        "Trials": (trials,),
        "History": (*_outliers(left_out, name), *_history(drawn, name)),
        "Importance": (_importance(study, names, name),),
        "Slices": (slices,),
        "Contours": (_contours(study, drawn, names, name),) if len(names) > 1 else (),
        "Timeline": (_plot(visualization.plot_timeline(study), "Start, end and final state of each trial."),),
    }
    return Page(
        title=title,
        lead=f"{len(trials.rows):,} trials, judged by the {name}",
        headline=(f"The best {name} is {best.value:.4f}, of trial {best.number}: {best_settings}.",),
        sections=tuple(
            Section(title=heading, anchor=heading.lower().replace(" ", "-"), blocks=blocks)
            for heading, blocks in sections.items()
            if blocks
        ),
    )


def worst_shown(values: Sequence[float], *, minimize: bool) -> float:
    """The worst value that does not flatten a figure of all of them; infinite with few values.

    Args:
        values: Finite.
        minimize: True if lower values are better.
    """
    sign = 1 if minimize else -1
    if len(values) < LEAST_FOR_OUTLIERS:
        return sign * float("inf")
    median = float(np.median(values))
    deviation = max(float(np.median(np.abs(np.asarray(values) - median))), LEAST_DEVIATION * abs(median))
    return median + sign * OUTLIER * deviation


def without_outliers(study: optuna.Study) -> tuple[optuna.Study, list[FrozenTrial]]:
    """A copy of a study in which trials that would flatten its figures count as failed, which are not drawn.

    Returns:
        The copy, whose trials keep their numbers, and these trials.
    """
    minimize = study.direction is StudyDirection.MINIMIZE
    trials = study.get_trials(deepcopy=False)
    values = [trial.value for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
    limit = worst_shown(values, minimize=minimize)
    drawn, left_out = optuna.create_study(direction=study.direction), []
    for trial in trials:
        copied = copy.copy(trial)
        value = trial.value if trial.state is TrialState.COMPLETE else None
        if value is not None and (value > limit if minimize else value < limit):
            left_out.append(trial)
            copied.state, copied.values = TrialState.FAIL, None
        drawn.add_trial(copied)
    return drawn, left_out


def _outliers(left_out: Sequence[FrozenTrial], objective: str) -> tuple[Text, ...]:
    if not left_out:
        return ()
    trials = ", ".join(f"{trial.number} ({objective} {trial.value:.4g})" for trial in left_out)
    several = "trials" if len(left_out) > 1 else "trial"
    return (Text(paragraphs=(f"Too far from the others for these figures and left out: {several} {trials}.",)),)


def _history(study: optuna.Study, objective: str) -> tuple[Block, ...]:
    epochs = visualization.plot_intermediate_values(study)
    values = [
        value
        for trial in study.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        for value in trial.intermediate_values.values()
        if np.isfinite(value)
    ]
    minimize = study.direction is StudyDirection.MINIMIZE
    limit = worst_shown(values, minimize=minimize)
    if values and (max(values) > limit if minimize else min(values) < limit):
        inside = [value for value in values if (value <= limit if minimize else value >= limit)]
        room = 0.05 * (max(inside) - min(inside))
        epochs.update_yaxes(range=[min(inside) - room, max(inside) + room])
    return (
        _plot(
            visualization.plot_optimization_history(study, target_name=objective),
            f"The {objective} of each trial, and the best value so far.",
        ),
        _plot(
            epochs.update_yaxes(title=objective),
            f"The {objective} after each epoch of each trial; trials that end early were pruned.",
        ),
    )


def _contours(study: optuna.Study, drawn: optuna.Study, names: list[str], objective: str) -> Block:
    chosen = list(get_param_importances(study)) if _is_enough(study) else names
    chosen = chosen[:MOST_IN_CONTOURS]
    plot = _plot(
        visualization.plot_contour(drawn, params=chosen, target_name=objective),
        f"The {objective} over each pair of settings; points are trials.",
        height=700 if len(chosen) > 2 else 450,
    )
    if len(chosen) > 2:
        # With fewer pixels the marks of so many axes would overlap.
        plot.figure.update_layout(width=CONTOURS_WIDTH, meta={"zoomed": True})
    return plot


def _importance(study: optuna.Study, names: list[str], objective: str) -> Block:
    if len(names) < 2 or not _is_enough(study):
        return Text(paragraphs=(f"Needs two or more settings, and {LEAST_FOR_IMPORTANCE} or more completed trials.",))
    return _plot(
        visualization.plot_param_importances(study, target_name=objective),
        f"Share of the variation in the {objective} due to each setting (PED-ANOVA, Watanabe et al. 2023).",
    )


def _is_enough(study: optuna.Study) -> bool:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) >= LEAST_FOR_IMPORTANCE


def _plot(figure: go.Figure, caption: str, height: int = 450) -> Plot:
    """A figure of Optuna in the words of the project; its heading and caption replace its title."""
    figure.update_layout(title=None, height=height)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
    # Optuna draws infeasible trials, which sweeps do not have, and lists them in the legend.
    figure.data = tuple(trace for trace in figure.data if trace.name != "Infeasible Trial")
    for axes in (figure.select_xaxes(), figure.select_yaxes()):
        for axis in axes:
            axis.title.text = _in_words(axis.title.text)
    for trace in figure.data:
        trace.name = _in_words(trace.name)
    return Plot(figure=figure, caption=caption)


def _in_words(text: str | None) -> str | None:
    return text if text is None else _WORDS.get(text, re.sub(r"^Trial(\d+)$", r"trial \1", text))
