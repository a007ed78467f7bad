"""HTML page of a run, which needs no network: result, scores, curves, confusions, classes, images, settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tandem.evaluation.intervals import Interval, score_interval, score_intervals
from tandem.evaluation.metrics import SCORE_NAMES, TOP, confusion_matrix, per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ranking import ranking_table
from tandem.evaluation.scored_rows import ScoredRows
from tandem.protocol.settings import Settings, flatten
from tandem.recording.figures import (
    EXTREME_CLASSES,
    MOST_CLASSES_WITH_CURVES,
    class_curves,
    confusion_heatmap,
    f1_bars,
    training_curves,
)
from tandem.recording.grad_cam import GradCam
from tandem.rendering.page import Block, Gallery, Page, Picture, Plot, Section, write_page
from tandem.rendering.tables import Column, Estimate, Table, format_value, supported_decimals
from tandem.tracking import vocabulary

MOST_CONFUSIONS = 15
MOST_WRONG_IMAGES = 24


def write_run_page(
    path: Path,
    *,
    title: str,
    history: pd.DataFrame,
    train_seconds: float,
    predictions: Predictions,
    after_first_phase: Predictions | None = None,
    over_views: Predictions | None = None,
    views_per_image: int = 1,
    image_of: Callable[[int], np.ndarray],
    grad_cam: GradCam | None,
    settings: Mapping[str, Any],
) -> None:
    """Writes the page of a run.

    Args:
        path: The HTML file, about 5 MB, most of it plotly.js.
        title: Of the page.
        history: One line per epoch with the columns epoch (from 0), phase (from 1), train/loss, val/loss,
            train/accuracy, val/accuracy; empty for a network that was not trained.
        train_seconds: Training and validation of all phases, excluding evaluation.
        predictions: Of the trained network on the test images.
        image_of: Gives a test image by its place in the predictions, uint8 of shape (height, width, 3).
        grad_cam: Of some test images; None without maps.
        after_first_phase: Of the network after the first of several phases; None if there was only one.
        over_views: Of the trained network with test-time augmentation; None without it.
        views_per_image: Number of views of each test image in `over_views`.
        settings: By dotted name.
    """
    intervals = score_intervals(ScoredRows([[predictions]]), 0)
    images = (_wrong_images(predictions, image_of), *(_grad_cam(grad_cam) if grad_cam else ()))
    scores = [_scores(predictions, intervals)]
    if over_views is not None:
        scores.append(_scores_over_views(over_views, views_per_image, intervals))
    sections = (
        Section(title="Scores", anchor="scores", blocks=tuple(scores)),
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
                *_curves(predictions),
                _classes(predictions),
            ),
        ),
        Section(title="Images", anchor="images", blocks=images),
        Section(title="Settings", anchor="settings", blocks=(_changed_settings(settings),)),
        Section(title="All settings", anchor="all-settings", blocks=(_settings(settings),), folded=True),
    )
    lead = f"{len(predictions.keys):,} test images of {len(predictions.classes)} classes"
    headline = (result_in_words(intervals["accuracy"], len(predictions.keys), history, train_seconds),)
    write_page(path, Page(title=title, lead=lead, headline=headline, sections=sections))


def result_in_words(accuracy: Interval, num_images: int, history: pd.DataFrame, train_seconds: float) -> str:
    """The result of a run in one line.

    Args:
        accuracy: On the test images.
        num_images: Number of test images.
        history: See write_run_page.
        train_seconds: Training time.
    """
    value, low, high = (
        format_value(number, "score", supported_decimals(num_images))
        for number in (accuracy.estimate, accuracy.low, accuracy.high)
    )
    result = f"Accuracy {value} (95 % interval {low} to {high})."
    if history.empty:
        return f"{result} The network was not trained."
    # The network of the last phase's best epoch is the one that is evaluated.
    last = history[history["phase"] == history["phase"].max()]
    losses = last[vocabulary.VAL_LOSS].to_numpy()
    best = ""
    if not np.isnan(losses).all():
        best = f" Best epoch: {int(last['epoch'].iloc[int(np.nanargmin(losses))]) + 1} of {len(history)}."
    return f"{result}{best} Training took {format_value(train_seconds, 'seconds')}."


def run_result(predictions: Predictions, history: pd.DataFrame, train_seconds: float) -> str:
    """The result of a run in one line, from its predictions on the test images; see result_in_words."""
    accuracy = score_interval(ScoredRows([[predictions]]), "accuracy", 0)
    return result_in_words(accuracy, len(predictions.keys), history, train_seconds)


def _value_of(interval: Interval) -> Estimate | float:
    if interval.low is None or interval.high is None:
        return interval.estimate
    return Estimate(value=interval.estimate, low=interval.low, high=interval.high)


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


def _score_names(predictions: Predictions, intervals: Mapping[str, Interval]) -> list[str]:
    """Names of the scores that exist and say something, in the order of tables."""
    few_classes = len(predictions.classes) <= TOP
    return [name for name in SCORE_NAMES if name in intervals and not (few_classes and name == "top5_accuracy")]


def _scores_over_views(predictions: Predictions, views_per_image: int, plain: Mapping[str, Interval]) -> Table:
    """Scores with test-time augmentation, beside those of the plain images."""
    intervals = score_intervals(ScoredRows([[predictions]]), 0)
    return Table(
        name="scores_tta",
        title="With test-time augmentation",
        columns=(
            Column(key="score", heading="score"),
            Column(key="over_views", heading=f"mean over {views_per_image} views", kind="score"),
            Column(key="plain", heading="plain image", kind="score"),
            Column(key="difference", heading="difference", kind="difference"),
        ),
        rows=tuple(
            (
                SCORE_NAMES[name],
                _value_of(intervals[name]),
                plain[name].estimate,
                intervals[name].estimate - plain[name].estimate,
            )
            for name in _score_names(predictions, intervals)
        ),
        notes=(
            f"Predicted by the mean probabilities over {views_per_image} views of each test image, with as many passes "
            "through the network. Everything else on this page is of the plain images.",
        ),
        decimals=supported_decimals(len(predictions.keys)),
    )


def _scores(predictions: Predictions, intervals: Mapping[str, Interval]) -> Table:
    names = _score_names(predictions, intervals)
    reasons: dict[str, list[str]] = {}
    for name in names:
        if why_not := intervals[name].why_not:
            reasons.setdefault(why_not, []).append(SCORE_NAMES[name])
    return Table(
        name="scores",
        title="On the test images",
        columns=(Column(key="score", heading="score"), Column(key="value", heading="value", kind="score")),
        rows=tuple((SCORE_NAMES[name], _value_of(intervals[name])) for name in names),
        notes=(
            f"In brackets: 95 % intervals of this trained network over the {len(predictions.keys):,} test images.",
            *(f"No interval keeps its promise for {', '.join(of)}: {reason}." for reason, of in reasons.items()),
        ),
        decimals=supported_decimals(len(predictions.keys)),
    )


def _wrong_images(predictions: Predictions, image_of: Callable[[int], np.ndarray]) -> Gallery:
    """The wrong predictions in which the network is most confident."""
    confidence = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions.predicted != predictions.truth)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_WRONG_IMAGES]
    pictures = tuple(
        Picture(
            image=image_of(int(row)),
            caption=f"{predictions.classes[predictions.truth[row]]}\npredicted "
            f"{predictions.classes[predictions.predicted[row]]}, {confidence[row]:.2f}\n{predictions.keys[row]}",
        )
        for row in shown
    )
    title = f"Wrong: {len(wrong):,} of {len(predictions.keys):,} test images"
    first = f"The {len(shown)} with the highest probability" if len(shown) < len(wrong) else "Highest probability first"
    note = f"{first}; the number is the probability of the predicted class." if pictures else ""
    return Gallery(title=title, pictures=pictures, note=note)


def _grad_cam(grad_cam: GradCam) -> tuple[Block, ...]:
    pictures = []
    tiles = zip(grad_cam.images, grad_cam.overlays, grad_cam.truth, grad_cam.predicted, strict=True)
    for image, (of_predicted, of_truth), truth, predicted in tiles:
        pictures.append(Picture(image=image, caption=grad_cam.classes[truth]))
        pictures.append(Picture(image=of_predicted, caption=f"evidence for {grad_cam.classes[predicted]}, predicted"))
        if truth != predicted:
            pictures.append(Picture(image=of_truth, caption=f"evidence for {grad_cam.classes[truth]}, true"))
    note = (
        "Each image and the places that support the predicted class (Grad-CAM, Selvaraju et al. 2017); for wrong "
        "predictions also those that support the true class. Light is strong support."
    )
    return (Gallery(title="Grad-CAM", pictures=tuple(pictures), note=note),)


def _curves(predictions: Predictions) -> tuple[Plot, ...]:
    """ROC and precision-recall curves, if there are classes to tell apart."""
    figure = class_curves(predictions)
    if figure is None:
        return ()
    caption = "ROC and precision-recall curves of each class against the rest, over thresholds on its probability"
    if len(predictions.classes) > MOST_CLASSES_WITH_CURVES:
        few = f"the {EXTREME_CLASSES} classes with the"
        caption += f": their mean, {few} lowest, and {few} highest average precision"
    caption += "."
    return (Plot(figure=figure, caption=caption),)


def _classes(predictions: Predictions) -> Table:
    table = per_class_table(predictions).merge(ranking_table(predictions), on="class").sort_values("f1", kind="stable")
    return Table(
        name="classes",
        title="Classes, hardest first",
        decimals=supported_decimals(len(predictions.keys)),
        columns=(
            Column(key="class", heading="class"),
            *(Column(key=key, heading=heading, kind="score", better="higher") for key, heading in _CLASS_SCORES),
            Column(key="support", heading="images", kind="number"),
        ),
        rows=tuple(
            (row["class"], *(_known(row[key]) for key, _ in _CLASS_SCORES), int(row["support"]))
            for _, row in table.iterrows()
        ),
    )


_CLASS_SCORES = (
    ("f1", "F1"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("roc_auc", "ROC-AUC"),
    ("average_precision", "average precision"),
)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


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


def _changed_settings(settings: Mapping[str, Any]) -> Table:
    defaults = flatten(Settings())
    changed = [name for name in settings if name not in defaults or settings[name] != defaults[name]]
    return Table(
        name="changed_settings",
        title="Settings that differ from the defaults",
        columns=(
            Column(key="setting", heading="setting"),
            Column(key="value", heading="value"),
            Column(key="default", heading="default"),
        ),
        rows=tuple((name, _setting(settings[name]), _setting(defaults.get(name))) for name in changed),
        notes=() if changed else ("None.",),
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
