"""Records the results of a pretrained network with its ImageNet head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tandem.data.console import say
from tandem.data.prepare import PreparedData
from tandem.evaluation.imagenet import (
    Outputs,
    explain_scores,
    imagenet_classes,
    mapped_logits,
    scores_over_all_outputs,
)
from tandem.evaluation.predictions import Predictions, softmax
from tandem.files import csv_cell, write_text
from tandem.recording.run import predictions_of_test
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.run import Run


def record_off_the_shelf(run: Run, data: PreparedData, logits: np.ndarray, outputs: Outputs) -> Predictions:
    """Logs the scores over all 1000 ImageNet classes, the prediction for each test image, and why these scores differ.

    Args:
        run: The run that is being recorded.
        data: The images.
        logits: Of the test images in the order of data.rows("test"), of shape (images, 1000).
        outputs: The outputs of each class.

    Returns:
        The predictions among the mapped classes only, from which all other scores are computed.
    """
    predictions = predictions_of_test(data, mapped_logits(logits, outputs))
    scores = scores_over_all_outputs(logits, predictions.truth, outputs)
    run.log_numbers({vocabulary.TEST_PREFIX + name: value for name, value in scores.items()})
    folder = run.folder / vocabulary.FINAL_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    answers = run.folder / vocabulary.IMAGENET_ANSWERS_FILE
    table = answers_table(predictions, logits).map(csv_cell)
    write_text(answers, table.to_csv(index=False, lineterminator="\n"))
    run.log_artifact(answers, folder=vocabulary.FINAL_FOLDER)
    accuracy = float((predictions.predicted == predictions.truth).mean())
    explanation = explain_scores(accuracy, scores, len(predictions.classes))
    run.set_tags({vocabulary.OFF_THE_SHELF: explanation})
    say(explanation, quiet=False)
    return predictions


def answers_table(predictions: Predictions, logits: np.ndarray) -> pd.DataFrame:
    """The highest of all 1000 outputs for each test image.

    Args:
        predictions: Of the same images.
        logits: Of shape (images, 1000).

    Returns:
        One row per image: key, class (the true one), wordnet_id and name of the predicted ImageNet class, probability
        (among all outputs).
    """
    answers = logits.argmax(axis=1)
    named = imagenet_classes()
    return pd.DataFrame(
        {
            "key": predictions.keys,
            "class": [predictions.classes[label] for label in predictions.truth],
            "wordnet_id": [named[answer].wordnet_id for answer in answers],
            "name": [named[answer].names[0] for answer in answers],
            "probability": softmax(logits)[np.arange(len(answers)), answers],
        }
    )
