"""What both scripts record of a run, in the order in which it comes: data, phases, cost, end."""

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
from tandem.errors import UserError, WeightsNotDownloaded
from tandem.evaluation.cost import peak_memory_megabytes
from tandem.evaluation.predictions import Predictions, softmax
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings, flatten
from tandem.recording.grad_cam import FeaturesAndGradients, choose_images, draw_contact_sheet, make_grad_cam
from tandem.recording.page import write_run_page
from tandem.recording.results import record_evaluation
from tandem.recording.summary import PhaseResult, print_summary, untrained
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves

if TYPE_CHECKING:
    from tandem.tracking.run import Run


@dataclass(frozen=True, kw_only=True)
class PhaseOutcome:
    """What a framework says of a phase that it has trained."""

    epochs: int
    best_epoch: int
    """The one with the lowest validation loss, counted from 0 within the phase."""
    train_seconds: float
    """Training and validation, from the first to the last of the framework's own work on the phase's epochs. The pass
    that computed cached features counts as if this run had made it."""
    compile_seconds: float
    """Tracing, compiling and first use of the kernels before that; 0 where there is nothing of the kind."""
    parameters: int
    trainable_parameters: int
    backbone_before: str
    """Hash of all weights and statistics of the backbone before the phase, and below after it."""
    backbone_after: str
    frozen_before: str
    """The same of what the phase freezes, which can be all of the backbone, its first blocks, or nothing."""
    frozen_after: str
    first_epoch_hash: str | None
    """Of the batches of the phase's first epoch; None where that was not finished."""
    feature_seconds: float = 0.0
    """The part of train_seconds that is the pass for cached features."""
    cached_feature_seconds: float = 0.0
    """The part of it that an earlier run has spent."""


def record_data(run: Run, data: PreparedData) -> None:
    """The data set, its split and what was wrong with it: tags, parameters, artifacts and an input of the run."""
    run.set_tags(
        {
            vocabulary.DATA_NAME: data.name,
            vocabulary.SPLIT_HASH: data.split.hash,
            vocabulary.TEST_HASH: data.split.test_hash,
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
    """Where the first weights come from; of a file its hash, since a name says little.

    Args:
        file: The weights' file, None where there is none.
    """
    origin = settings.weights
    if file is not None and not origin.startswith("runs:/"):
        with file.open("rb") as content:
            origin = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    run.set_tags({vocabulary.WEIGHTS_ORIGIN: origin})


def without_imagenet(run: Run, settings: Settings, error: UserError) -> Settings:
    """The settings with random weights, where they allow it if ImageNet's could not be downloaded; a tag says so.

    Raises:
        UserError: The one that is given, if it is about anything else, or the settings do not allow it.
    """
    if not (settings.allow_random_weights and isinstance(error, WeightsNotDownloaded)):
        raise error
    say(f"{error}: going on with random weights, as allow_random_weights says", quiet=False)
    run.set_tags({vocabulary.WEIGHTS_ORIGIN: vocabulary.RANDOM_FOR_IMAGENET})
    return dataclasses.replace(settings, weights="random")


def predictions_of_test(data: PreparedData, logits: np.ndarray) -> Predictions:
    """The test images with the probabilities that these logits mean.

    Args:
        data: The images; logits come in the order of data.rows("test").
        logits: Of shape (test images, classes).
    """
    rows = data.rows("test")
    return Predictions(
        keys=tuple(data.keys[row] for row in rows),
        hashes=tuple(data.hashes[row] for row in rows),
        truth=data.labels[rows],
        probabilities=softmax(logits),
        classes=data.classes,
    )


def record_phase(
    run: Run, phase: Phase, outcome: PhaseOutcome, predictions: Predictions, curves: Curves
) -> PhaseResult:
    """A phase's cost and its scores on the test images, and the proof that what was frozen has not changed.

    Raises:
        RuntimeError: Weights or batch-norm statistics of what was frozen differ afterwards.
    """
    prefix = vocabulary.phase_name(phase.number)
    tags = {
        vocabulary.hash_tag(phase.number, "backbone", "before"): outcome.backbone_before,
        vocabulary.hash_tag(phase.number, "backbone", "after"): outcome.backbone_after,
    }
    if phase.trainable == "last":  # otherwise what is frozen is all of the backbone, or nothing
        tags[vocabulary.hash_tag(phase.number, "frozen", "before")] = outcome.frozen_before
        tags[vocabulary.hash_tag(phase.number, "frozen", "after")] = outcome.frozen_after
    if phase.number == 1 and outcome.first_epoch_hash is not None:
        tags[vocabulary.BATCHES_HASH] = outcome.first_epoch_hash
    run.set_tags(tags)
    if outcome.frozen_before != outcome.frozen_after:
        raise RuntimeError(f"the frozen backbone changed in phase {phase.number}: its hash is not what it was")
    run.log_metrics(
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
            }.items()
        }
    )
    scores = record_evaluation(run, predictions, folder=prefix, prefix=f"{prefix}/")
    return PhaseResult(
        number=phase.number,
        trainable=phase.words,
        epochs=outcome.epochs,
        best_epoch=outcome.best_epoch,
        train_seconds=outcome.train_seconds,
        scores=scores,
    )


def record_grad_cam(
    run: Run,
    settings: Settings,
    data: PreparedData,
    predictions: Predictions,
    features_and_gradients: FeaturesAndGradients,
) -> None:
    """Where the trained network looks on some test images: their maps and a picture of all, unless switched off.

    Args:
        predictions: Of the trained network.
        features_and_gradients: Of the same.
    """
    if not settings.tracking.grad_cam_images:
        return
    chosen = choose_images(predictions, settings.tracking.grad_cam_images)
    images = np.asarray(data.images[data.rows("test")[chosen]])
    grad_cam = make_grad_cam(predictions, images, chosen, features_and_gradients, settings.batch_size)
    if grad_cam is None:
        reason = f"the last feature map is 1 x 1 at data.image_size {settings.data.image_size}"
        run.set_tags({vocabulary.GRAD_CAM: f"none: {reason}"})
        say(f"No Grad-CAM: {reason}, which shows no places", quiet=False)
        return
    run.set_tags({vocabulary.GRAD_CAM: f"{len(chosen)} images"})
    grad_cam.write(run.folder / vocabulary.GRAD_CAM_FILE)
    draw_contact_sheet(grad_cam).save(run.folder / vocabulary.GRAD_CAM_SHEET_FILE)
    for name in (vocabulary.GRAD_CAM_FILE, vocabulary.GRAD_CAM_SHEET_FILE):
        run.log_artifact(run.folder / name, folder=vocabulary.FINAL_FOLDER)


def record_end(
    run: Run,
    settings: Settings,
    data: PreparedData,
    curves: Curves,
    outcomes: list[PhaseOutcome],
    results: list[PhaseResult],
    predictions: Predictions,
    inference: dict[str, float],
) -> None:
    """The whole run's cost and scores, its page of figures, and a summary on the terminal.

    Args:
        inference: Cost of the trained network by the vocabulary's names: parameters, MACs, latency, throughput, GPU
            memory.
        predictions: Of the trained network.
    """
    costs = {
        vocabulary.TRAIN_SECONDS: sum(outcome.train_seconds for outcome in outcomes),
        vocabulary.FEATURE_SECONDS: sum(outcome.feature_seconds for outcome in outcomes),
        vocabulary.CACHED_FEATURE_SECONDS: sum(outcome.cached_feature_seconds for outcome in outcomes),
        vocabulary.COMPILE_SECONDS: sum(outcome.compile_seconds for outcome in outcomes),
        vocabulary.EPOCHS: sum(outcome.epochs for outcome in outcomes),
        vocabulary.TRAINABLE_PARAMETERS: outcomes[-1].trainable_parameters if outcomes else 0,
        vocabulary.PEAK_MEMORY_MEGABYTES: peak_memory_megabytes(),
        **inference,
    }
    if curves.rows:
        costs[vocabulary.SECONDS_PER_EPOCH] = statistics.median(row[vocabulary.EPOCH_SECONDS] for row in curves.rows)
    run.log_metrics(costs)
    scores = record_evaluation(run, predictions, folder=vocabulary.FINAL_FOLDER, prefix="")
    title = f"{settings.backbone}, {settings.regime}, {data.name}"
    page = run.folder / vocabulary.RUN_PAGE_FILE
    write_run_page(
        page, title=title, history=pd.DataFrame(curves.rows), predictions=predictions, settings=flatten(settings)
    )
    run.log_artifact(page, remove=True)  # 5 MB, most of it plotly.js
    print_summary(title, results or [untrained(scores)], run.where_to_look())
