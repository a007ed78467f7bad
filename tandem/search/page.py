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
    blocks: list[tuple[str, str, tuple[Block, ...]]] = [
        (
            "History",
            "history",
            (
                _plot(
                    visualization.plot_optimization_history(study, target_name=objective),
                    f"The {objective} of each trial, and the best value so far.",
                ),
                _plot(
                    visualization.plot_intermediate_values(study),
                    f"The {objective} after each epoch of each trial; trials that end early were pruned.",
                ),
            ),
        ),
        ("Importance", "importance", (_importance(study, len(complete), names, objective),)),
        (
            "Slices",
            "slices",
            (
                _plot(
                    visualization.plot_slice(study, target_name=objective),
                    f"The {objective} against each setting.",
                ),
            ),
        ),
    ]
    if len(names) > 1:
        chosen = list(get_param_importances(study))[:MOST_IN_CONTOURS] if _is_enough(len(complete)) else names
        contour = visualization.plot_contour(study, params=chosen[:MOST_IN_CONTOURS], target_name=objective)
        caption = f"The {objective} over each pair of settings; points are trials."
        blocks.append(("Contours", "contours", (_plot(contour, caption, height=700 if len(chosen) > 2 else 450),)))
    timeline = _plot(visualization.plot_timeline(study), "Start, end and final state of each trial.")
    sections = [
        Section(title="Trials", anchor="trials", blocks=(trials,)),
        *(Section(title=title, anchor=anchor, blocks=content) for title, anchor, content in blocks),
        Section(title="Timeline", anchor="timeline", blocks=(timeline,)),
    ]
    lead = f"{len(trials.rows):,} trials, judged by the {objective}"
    return Page(title=title, lead=lead, sections=tuple(sections))


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
