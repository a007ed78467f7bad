"""A sweep's page of HTML, which needs no network: its trials, and Optuna's figures of them."""

from __future__ import annotations

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.importance import get_param_importances
from optuna.trial import TrialState

from tandem.rendering.page import Block, Page, Plot, Section, Text
from tandem.rendering.tables import Table

MOST_IN_CONTOURS = 4  # settings, which are drawn in pairs
LEAST_FOR_IMPORTANCE = 4  # completed trials; with fewer, Optuna finds all settings equally important


def make_sweep_page(study: optuna.Study, trials: Table, *, title: str, objective: str) -> Page:
    """The page of a sweep.

    Args:
        study: At least one of its trials is completed.
        trials: All that count, the best first.
        title: The page's.
        objective: Name of the objective.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = sorted({name for trial in complete for name in trial.params})
    slices = _plot(visualization.plot_slice(study, target_name=objective), f"The {objective} against each setting.")
    sections: dict[str, tuple[Block, ...]] = {
        "Trials": (trials,),
        "History": _history(study, objective),
        "Importance": (_importance(study, len(complete), names, objective),),
        "Slices": (slices,),
        "Contours": (_contours(study, len(complete), names, objective),) if len(names) > 1 else (),
        "Timeline": (_plot(visualization.plot_timeline(study), "Start, end and final state of each trial."),),
    }
    return Page(
        title=title,
        lead=f"{len(trials.rows):,} trials, judged by the {objective}",
        sections=tuple(
            Section(title=heading, anchor=heading.lower(), blocks=blocks)
            for heading, blocks in sections.items()
            if blocks
        ),
    )


def _history(study: optuna.Study, objective: str) -> tuple[Block, ...]:
    return (
        _plot(
            visualization.plot_optimization_history(study, target_name=objective),
            f"The {objective} of each trial, and the best value so far.",
        ),
        _plot(
            visualization.plot_intermediate_values(study),
            f"The {objective} after each epoch of each trial; trials that end early were pruned.",
        ),
    )


def _contours(study: optuna.Study, num_complete: int, names: list[str], objective: str) -> Block:
    chosen = list(get_param_importances(study)) if _is_enough(num_complete) else names
    chosen = chosen[:MOST_IN_CONTOURS]
    return _plot(
        visualization.plot_contour(study, params=chosen, target_name=objective),
        f"The {objective} over each pair of settings; points are trials.",
        height=700 if len(chosen) > 2 else 450,
    )


def _importance(study: optuna.Study, num_complete: int, names: list[str], objective: str) -> Block:
    if len(names) < 2 or not _is_enough(num_complete):
        return Text(paragraphs=(f"Needs two or more settings, and {LEAST_FOR_IMPORTANCE} or more completed trials.",))
    return _plot(
        visualization.plot_param_importances(study, target_name=objective),
        f"Share of the variation in the {objective} due to each setting (PED-ANOVA, Watanabe et al. 2023).",
    )


def _is_enough(num_complete: int) -> bool:
    return num_complete >= LEAST_FOR_IMPORTANCE


def _plot(figure: go.Figure, caption: str, height: int = 450) -> Plot:
    # the heading and the caption say what the title does
    return Plot(figure=figure.update_layout(title=None, height=height), caption=caption)
