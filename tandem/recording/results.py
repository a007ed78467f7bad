"""What a run keeps of an evaluation: predictions, tables and scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.evaluation.metrics import classification_report, confusion_matrix, per_class_table, scores
from tandem.evaluation.predictions import Predictions
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.run import Run


def record_evaluation(run: Run, predictions: Predictions, *, folder: str, prefix: str) -> dict[str, float]:
    """Logs the predictions on the test images, the tables made from them, and their scores.

    Args:
        run: the run that is being recorded.
        predictions: of the network as it is now.
        folder: of the artifacts, and of the local files within the run's folder.
        prefix: of the metrics' names: "phase_1/" for example, or "" for the trained network.

    Returns:
        The scores, without the prefix.
    """
    local = run.folder / folder
    local.mkdir(parents=True, exist_ok=True)
    predictions.write(local / vocabulary.PREDICTIONS_FILE)
    per_class_table(predictions).to_csv(local / vocabulary.PER_CLASS_FILE, index=False)
    confusion_matrix(predictions).to_csv(local / vocabulary.CONFUSION_MATRIX_FILE)
    (local / vocabulary.CLASSIFICATION_REPORT_FILE).write_text(classification_report(predictions), encoding="utf-8")
    for name in (
        vocabulary.PREDICTIONS_FILE,
        vocabulary.PER_CLASS_FILE,
        vocabulary.CONFUSION_MATRIX_FILE,
        vocabulary.CLASSIFICATION_REPORT_FILE,
    ):
        run.log_artifact(local / name, folder=folder)
    result = scores(predictions)
    run.log_metrics({f"{prefix}{vocabulary.TEST_PREFIX}{name}": value for name, value in result.items()}, step=0)
    return result
