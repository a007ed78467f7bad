"""Records a run of either script, in this order: data, weights, phases, Grad-CAM, end."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tandem.data.console import say
from tandem.data.prepare import PreparedData
from tandem.data.views import num_views
from tandem.errors import UserError, WeightsNotDownloaded
from tandem.evaluation.cost import peak_memory_megabytes
from tandem.evaluation.metrics import classification_report, confusion_matrix, per_class_table, scores
from tandem.evaluation.predictions import Predictions, softmax
from tandem.evaluation.ranking import ranking_table
from tandem.files import csv_cell, whole_path, write_text
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings, flatten
from tandem.recording.description import describe_run
from tandem.recording.grad_cam import FeaturesAndGradients, GradCam, choose_images, draw_contact_sheet, make_grad_cam
from tandem.recording.model_card import model_card
from tandem.recording.page import run_result, write_run_page
from tandem.recording.summary import PhaseResult, print_summary, untrained
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tandem.tracking.provenance import hide_password

if TYPE_CHECKING:
    from tandem.tracking.run import Run


@dataclass(frozen=True, kw_only=True)
class PhaseOutcome:
    """Measurements of a trained phase, from its framework."""

    epochs: int
    best_epoch: int
    """The epoch with the lowest validation loss, counted from 0 within the phase."""
    train_seconds: float
    """Training and validation of all epochs, including the computation of cached features even if an earlier run did
    it; excluding compilation and evaluation."""
    compile_seconds: float
    """Tracing, compilation and first use of the kernels; 0 if there is none."""
    parameters: int
    trainable_parameters: int
    backbone_before: str
    """Hash of all weights and statistics of the backbone before the phase."""
    backbone_after: str
    """Hash of the backbone after the phase."""
    frozen_before: str
    """Hash of the part that the phase freezes: the backbone, its first blocks, or nothing."""
    frozen_after: str
    """Hash of this part after the phase."""
    first_epoch_hash: str | None
    """Hash of the batches of the first epoch; None if the epoch was not finished."""
    feature_seconds: float = 0.0
    """The part of train_seconds for computing cached features."""
    cached_feature_seconds: float = 0.0
    """The part of feature_seconds that an earlier run spent."""
    peak_gpu_memory_megabytes: float = 0.0
    """Peak memory on the GPU in training and validation, in 10^6 bytes; 0 without a GPU."""
    ended_by_time_limit: bool = False
    """True if `max_minutes` ended the phase, before early stopping or the epoch limit did."""


def record_data(run: Run, data: PreparedData) -> None:
    """Records the data set, its split and its bad images as tags, parameters, artifacts and an input of the run."""
    run.set_tags(
        {
            vocabulary.DATA_NAME: data.name,
            vocabulary.SPLIT_HASH: data.split.hash,
            vocabulary.TEST_HASH: data.split.test_hash,
            vocabulary.TEST_IMAGES_HASH: data.split.test_images_hash,
        }
    )
    counts = {name: len(data.rows(part)) for part, name in vocabulary.NUM_IMAGES.items()}
    run.log_params({vocabulary.NUM_CLASSES: len(data.classes), **counts})
    folder = run.folder / vocabulary.DATA_FOLDER
    data.write(folder)
    for file in sorted(folder.iterdir()):
        run.log_artifact(file, folder=vocabulary.DATA_FOLDER)
    run.log_dataset(
        name=data.name,
        digest=data.split.hash[:12],
        source=data.report["source"],
        contexts=("train", "val", "test"),
        profile={"num_classes": len(data.classes), **counts},
    )


def record_weights(run: Run, settings: Settings, file: Path | None) -> None:
    """Records the origin of the initial weights; for a file its hash, because names are reused.

    Args:
        run: The run that is being recorded.
        settings: Its settings.
        file: The file of the weights; None without one.
    """
    origin = settings.weights
    if file is not None and not origin.startswith("runs:/"):
        with file.open("rb") as content:
            origin = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    run.set_tags({vocabulary.WEIGHTS_ORIGIN: origin})


def without_imagenet(run: Run, settings: Settings, error: UserError) -> Settings:
    """Switches to random weights if ImageNet weights could not be downloaded and the settings allow it; sets a tag.

    Args:
        run: The run that is being recorded.
        settings: Its settings.
        error: Raised while weights were loaded.

    Returns:
        The settings with random weights.

    Raises:
        UserError: The given error, if it has another cause or the settings do not allow random weights.
    """
    if not (settings.allow_random_weights and isinstance(error, WeightsNotDownloaded)):
        raise error
    say(f"{error}: going on with random weights, as allow_random_weights says", quiet=False)
    run.set_tags({vocabulary.WEIGHTS_ORIGIN: vocabulary.RANDOM_FOR_IMAGENET})
    return dataclasses.replace(settings, weights="random")


def predictions_of_test(data: PreparedData, logits: np.ndarray) -> Predictions:
    """Predictions of the test images from logits.

    Args:
        data: The images.
        logits: In the order of data.rows("test"), of shape (test images, classes).
    """
    rows = data.rows("test")
    return Predictions(
        keys=tuple(data.keys[row] for row in rows),
        hashes=tuple(data.hashes[row] for row in rows),
        truth=data.labels[rows],
        probabilities=softmax(logits),
        classes=data.classes,
    )


def record_evaluation(run: Run, predictions: Predictions, *, folder: str, prefix: str) -> dict[str, float]:
    """Records predictions on the test images, the tables made from them, and their scores.

    Args:
        run: The run that is being recorded.
        predictions: Of the network in its present state.
        folder: Of the artifacts, and of the local files within the run's folder.
        prefix: Of the names of the scores, such as "phase_1/"; "" for the trained network.

    Returns:
        The scores, by name without the prefix.
    """
    local = run.folder / folder
    local.mkdir(parents=True, exist_ok=True)
    predictions.write(local / vocabulary.PREDICTIONS_FILE)
    classes = per_class_table(predictions).merge(ranking_table(predictions), on="class").map(csv_cell)
    matrix = confusion_matrix(predictions).rename(index=csv_cell, columns=csv_cell)
    write_text(local / vocabulary.PER_CLASS_FILE, classes.to_csv(index=False, lineterminator="\n"))
    write_text(local / vocabulary.CONFUSION_MATRIX_FILE, matrix.to_csv(lineterminator="\n"))
    write_text(local / vocabulary.CLASSIFICATION_REPORT_FILE, classification_report(predictions))
    for name in (
        vocabulary.PREDICTIONS_FILE,
        vocabulary.PER_CLASS_FILE,
        vocabulary.CONFUSION_MATRIX_FILE,
        vocabulary.CLASSIFICATION_REPORT_FILE,
    ):
        run.log_artifact(local / name, folder=folder)
    result = scores(predictions)
    run.log_numbers({f"{prefix}{vocabulary.TEST_PREFIX}{name}": value for name, value in result.items()})
    return result


def record_views(run: Run, settings: Settings, plain: Predictions, over_views: Predictions) -> None:
    """Records predictions with test-time augmentation, their scores and their cost, and prints the accuracy.

    Args:
        run: The run that is being recorded.
        settings: Its settings.
        plain: Predictions from the test images themselves, by the same network.
        over_views: Predictions from the views of these images.
    """
    count = num_views(settings.test_time_augmentation)
    scores_over_views = record_evaluation(run, over_views, folder=vocabulary.TTA, prefix=f"{vocabulary.TTA}/")
    run.log_numbers({vocabulary.TTA_VIEWS: count})
    say(
        f"Mean over {count} views per test image: accuracy {scores_over_views['accuracy']:.4f}; "
        f"of the plain image {scores(plain)['accuracy']:.4f}",
        quiet=False,
    )


def record_phase(
    run: Run, phase: Phase, outcome: PhaseOutcome, predictions: Predictions, curves: Curves
) -> PhaseResult:
    """Records costs and test scores of a phase, and checks that the frozen part is unchanged.

    Raises:
        RuntimeError: Weights or batch-norm statistics of the frozen part changed.
    """
    prefix = vocabulary.phase_name(phase.number)
    tags = {
        vocabulary.hash_tag(phase.number, "backbone", "before"): outcome.backbone_before,
        vocabulary.hash_tag(phase.number, "backbone", "after"): outcome.backbone_after,
    }
    if phase.trainable == "last":  # in other phases the whole backbone is frozen, or nothing
        tags[vocabulary.hash_tag(phase.number, "frozen", "before")] = outcome.frozen_before
        tags[vocabulary.hash_tag(phase.number, "frozen", "after")] = outcome.frozen_after
    if phase.number == 1 and outcome.first_epoch_hash is not None:
        tags[vocabulary.BATCHES_HASH] = outcome.first_epoch_hash
    run.set_tags(tags)
    if outcome.frozen_before != outcome.frozen_after:
        raise RuntimeError(f"the frozen backbone changed in phase {phase.number}: its hash differs from before")
    first_epoch = next(row for row in curves.rows if row["phase"] == phase.number)
    run.log_numbers(
        {
            f"{prefix}/{name}": value
            for name, value in {
                vocabulary.TRAIN_SECONDS: outcome.train_seconds,
                vocabulary.COMPILE_SECONDS: outcome.compile_seconds,
                vocabulary.SECONDS_PER_EPOCH: statistics.median(curves.seconds_of(phase)),
                vocabulary.FEATURE_SECONDS: outcome.feature_seconds,
                vocabulary.CACHED_FEATURE_SECONDS: outcome.cached_feature_seconds,
                vocabulary.EPOCHS: outcome.epochs,
                vocabulary.BEST_EPOCH: outcome.best_epoch,
                vocabulary.PARAMETERS: outcome.parameters,
                vocabulary.TRAINABLE_PARAMETERS: outcome.trainable_parameters,
                vocabulary.PEAK_GPU_MEMORY_MEGABYTES: outcome.peak_gpu_memory_megabytes,
                vocabulary.START_ACCURACY: first_epoch[vocabulary.VAL_ACCURACY],
            }.items()
        }
    )
    test_scores = record_evaluation(run, predictions, folder=prefix, prefix=f"{prefix}/")
    return PhaseResult(
        number=phase.number,
        trainable=phase.words,
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        train_seconds=outcome.train_seconds,
        scores=test_scores,
    )


def record_grad_cam(
    run: Run,
    settings: Settings,
    data: PreparedData,
    predictions: Predictions,
    features_and_gradients: FeaturesAndGradients,
) -> None:
    """Records Grad-CAM maps of some test images and a picture of all of them, unless switched off.

    Args:
        run: The run that is being recorded.
        settings: Its settings.
        data: The images.
        predictions: Of the trained network.
        features_and_gradients: Of the trained network.
    """
    if not settings.tracking.grad_cam_images:
        return
    chosen = choose_images(predictions, settings.tracking.grad_cam_images)
    images = np.asarray(data.images[data.rows("test")[chosen]])
    grad_cam = make_grad_cam(predictions, images, chosen, features_and_gradients, settings.batch_size)
    if grad_cam is None:
        reason = f"the last feature map is 1 x 1 at data.image_size {settings.data.image_size}"
        run.set_tags({vocabulary.GRAD_CAM: f"none: {reason}"})
        say(f"No Grad-CAM: {reason}, so it has no places", quiet=False)
        return
    run.set_tags({vocabulary.GRAD_CAM: f"{len(chosen)} images"})
    grad_cam.write(run.folder / vocabulary.GRAD_CAM_FILE)
    with whole_path(run.folder / vocabulary.GRAD_CAM_SHEET_FILE) as sheet:
        draw_contact_sheet(grad_cam).save(sheet)
    for name in (vocabulary.GRAD_CAM_FILE, vocabulary.GRAD_CAM_SHEET_FILE):
        run.log_artifact(run.folder / name, folder=vocabulary.FINAL_FOLDER)


def _after_first_phase(run: Run) -> Predictions:
    """Predictions of the test images after the first phase, which record_phase wrote into the run's folder."""
    return Predictions.read(run.folder / vocabulary.phase_name(1) / vocabulary.PREDICTIONS_FILE)


def _over_views(run: Run) -> Predictions | None:
    """Predictions with test-time augmentation, which record_views wrote into the run's folder; None without them."""
    file = run.folder / vocabulary.TTA / vocabulary.PREDICTIONS_FILE
    return Predictions.read(file) if file.exists() else None


def record_end(
    run: Run,
    settings: Settings,
    data: PreparedData,
    curves: Curves,
    outcomes: list[PhaseOutcome],
    results: list[PhaseResult],
    predictions: Predictions,
    inference: dict[str, float],
    *,
    framework: str,
) -> None:
    """Records costs and test scores of the whole run, its page and its model card, and prints a summary.

    Args:
        run: The run that is being recorded.
        settings: Its settings.
        data: The images.
        curves: Of all epochs.
        outcomes: Of each phase.
        results: Of each phase.
        predictions: Of the trained network.
        inference: Costs of the trained network under the names of the vocabulary: parameters, MACs, latency,
            throughput, GPU memory.
        framework: torch or keras.
    """
    costs = {
        vocabulary.TRAIN_SECONDS: sum(outcome.train_seconds for outcome in outcomes),
        vocabulary.FEATURE_SECONDS: sum(outcome.feature_seconds for outcome in outcomes),
        vocabulary.CACHED_FEATURE_SECONDS: sum(outcome.cached_feature_seconds for outcome in outcomes),
        vocabulary.COMPILE_SECONDS: sum(outcome.compile_seconds for outcome in outcomes),
        vocabulary.EPOCHS: sum(outcome.epochs for outcome in outcomes),
        vocabulary.TRAINABLE_PARAMETERS: outcomes[-1].trainable_parameters if outcomes else 0,
        vocabulary.PEAK_MEMORY_MEGABYTES: peak_memory_megabytes(),
        vocabulary.PEAK_GPU_MEMORY_MEGABYTES: max(
            (outcome.peak_gpu_memory_megabytes for outcome in outcomes),
            default=inference[vocabulary.EVALUATION_PEAK_GPU_MEMORY_MEGABYTES],  # nothing was trained
        ),
        **inference,
    }
    if curves.rows:
        costs[vocabulary.SECONDS_PER_EPOCH] = statistics.median(row[vocabulary.EPOCH_SECONDS] for row in curves.rows)
    run.log_numbers(costs)
    if ended := [str(number) for number, outcome in enumerate(outcomes, start=1) if outcome.ended_by_time_limit]:
        run.set_tags({vocabulary.TIME_LIMIT: f"ended phase {', '.join(ended)}"})
    test_scores = record_evaluation(run, predictions, folder=vocabulary.FINAL_FOLDER, prefix="")
    numbers = run.folder / vocabulary.NUMBERS_FILE
    write_text(numbers, run.numbers_table())
    run.log_artifact(numbers)
    title = f"{settings.backbone}, {settings.regime}, {framework}, {data.name}"
    history = pd.DataFrame(curves.rows)
    page, maps, rows = run.folder / vocabulary.RUN_PAGE_FILE, run.folder / vocabulary.GRAD_CAM_FILE, data.rows("test")
    write_run_page(
        page,
        title=title,
        history=history,
        train_seconds=costs[vocabulary.TRAIN_SECONDS],
        predictions=predictions,
        after_first_phase=_after_first_phase(run) if len(outcomes) > 1 else None,
        over_views=_over_views(run),
        views_per_image=num_views(settings.test_time_augmentation),
        image_of=lambda row: np.asarray(data.images[rows[row]]),
        grad_cam=GradCam.read(maps) if maps.exists() else None,
        settings=flatten(hide_password(settings)),
    )
    run.log_artifact(page, remove=True)  # 5 MB, most of it plotly.js
    card = run.folder / vocabulary.MODEL_CARD_FILE
    text = model_card(
        title=title,
        run_id=run.id,
        framework=run.framework,
        settings=settings,
        data=data,
        predictions=predictions,
        costs=costs,
    )
    write_text(card, text)
    run.log_artifact(card)
    description = describe_run(
        result=run_result(predictions, history, costs[vocabulary.TRAIN_SECONDS]),
        framework=run.framework,
        settings=settings,
        data=data,
        predictions=predictions,
        scores=test_scores,
        costs=costs,
    )
    run.set_tags({vocabulary.DESCRIPTION: description})
    print_summary(title, results or [untrained(test_scores)], run.where_to_look())
