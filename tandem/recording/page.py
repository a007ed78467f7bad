"""HTML page of a run, which needs no network: scores, curves, confusions, classes, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tandem.evaluation.metrics import confusion_matrix, per_class_table, scores
from tandem.evaluation.predictions import Predictions
from tandem.recording.figures import confusion_heatmap, f1_bars, training_curves
from tandem.rendering.page import Page, Plot, Section, write_page
from tandem.rendering.tables import Column, Table

MOST_CONFUSIONS = 15


def write_run_page(
    path: Path,
    *,
    title: str,
    history: pd.DataFrame,
    predictions: Predictions,
    after_first_phase: Predictions | None = None,
    settings: Mapping[str, Any],
) -> None:
    """Writes the page of a run.

    Args:
        path: The HTML file, about 5 MB, most of it plotly.js.
        title: Of the page.
        history: One line per epoch with the columns epoch (from 0), phase (from 1), train/loss, val/loss,
            train/accuracy, val/accuracy; empty for a network that was not trained.
        predictions: Of the trained network on the test images.
        after_first_phase: Of the network after the first of several phases; None if there was only one.
        settings: By dotted name.
    """
    sections = (
        Section(title="Scores", anchor="scores", blocks=(_scores(predictions),)),
        *(() if history.empty else (_training(history),)),
        Section(
            title="Confusion matrix",
            anchor="confusions",
            blocks=(
                Plot(
                    figure=confusion_heatmap(predictions),
                    caption="Share of the images of each true class by predicted class.",
                ),
                _confusions(predictions),
            ),
        ),
        *(() if after_first_phase is None else (_first_phase(after_first_phase),)),
        Section(
            title="Classes",
            anchor="classes",
            blocks=(
                Plot(figure=f1_bars(predictions), caption="F1 of each class, lowest first."),
                _classes(predictions),
            ),
        ),
        Section(title="Settings", anchor="settings", blocks=(_settings(settings),)),
    )
    lead = f"{len(predictions.keys):,} test images of {len(predictions.classes)} classes"
    write_page(path, Page(title=title, lead=lead, sections=sections))


def _first_phase(predictions: Predictions) -> Section:
    caption = "Share of the images of each true class by predicted class, after the first phase alone."
    return Section(
        title="Confusion matrix after phase 1",
        anchor="confusions-phase-1",
        blocks=(Plot(figure=confusion_heatmap(predictions), caption=caption), _confusions(predictions, "_phase_1")),
    )


def _training(history: pd.DataFrame) -> Section:
    figure = Plot(figure=training_curves(history), caption="Loss and accuracy after each epoch.")
    return Section(title="Training", anchor="training", blocks=(figure,))


def _scores(predictions: Predictions) -> Table:
    return Table(
        name="scores",
        title="On the test images",
        columns=(Column(key="score", heading="score"), Column(key="value", heading="value", kind="score")),
        rows=tuple(scores(predictions).items()),
    )


def _classes(predictions: Predictions) -> Table:
    table = per_class_table(predictions).sort_values("f1", kind="stable")
    return Table(
        name="classes",
        title="Classes, hardest first",
        columns=(
            Column(key="class", heading="class"),
            *(Column(key=key, heading=heading, kind="score", better="higher") for key, heading in _CLASS_SCORES),
            Column(key="support", heading="images", kind="number"),
        ),
        rows=tuple(
            (row["class"], float(row["f1"]), float(row["precision"]), float(row["recall"]), int(row["support"]))
            for _, row in table.iterrows()
        ),
    )


_CLASS_SCORES = (("f1", "F1"), ("precision", "precision"), ("recall", "recall"))


def _confusions(predictions: Predictions, suffix: str = "") -> Table:
    counts = confusion_matrix(predictions).to_numpy(copy=True)
    support = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    rows = []
    for flat in np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]:
        truth, predicted = np.unravel_index(flat, counts.shape)
        if count := counts[truth, predicted]:
            names = predictions.classes[truth], predictions.classes[predicted]
            rows.append((*names, int(count), int(support[truth])))
    return Table(
        name=f"confusions{suffix}",
        title="Most frequent confusions",
        columns=(
            Column(key="truth", heading="true class"),
            Column(key="predicted", heading="predicted class"),
            Column(key="images", heading="images", kind="number"),
            Column(key="support", heading="of the class", kind="number"),
        ),
        rows=tuple(rows),
        notes=() if rows else ("None.",),
    )


def _settings(settings: Mapping[str, Any]) -> Table:
    return Table(
        name="settings",
        title="Settings of the run",
        columns=(Column(key="setting", heading="setting"), Column(key="value", heading="value")),
        rows=tuple((name, _setting(value)) for name, value in settings.items()),
    )


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
