"""Metrics per epoch of a run, over all its phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tandem.errors import TrainingDiverged
from tandem.protocol.regimes import Phase
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.run import Run


class Curves:
    """Collects and logs the metrics of each epoch; steps continue from phase to phase.

    Args:
        run: The run that logs the metrics.
        after_epoch: Called with each new row, such as by a sweep; an exception it raises ends the training.

    Attributes:
        rows: One dictionary per epoch: `epoch` counted from 0 over all phases, `phase` from 1, and the metrics.
    """

    def __init__(self, run: Run, after_epoch: Callable[[Mapping[str, float]], None] = lambda row: None) -> None:
        self.run = run
        self.after_epoch = after_epoch
        self.rows: list[dict[str, float]] = []

    def add(
        self,
        phase: Phase,
        *,
        learning_rate: float,
        seconds: float,
        train_loss: float,
        train_accuracy: float,
        val_loss: float,
        val_accuracy: float,
    ) -> None:
        """Logs an epoch of a phase.

        Raises:
            TrainingDiverged: A loss is infinite or not a number.
        """
        metrics = {
            vocabulary.TRAIN_LOSS: train_loss,
            vocabulary.TRAIN_ACCURACY: train_accuracy,
            vocabulary.VAL_LOSS: val_loss,
            vocabulary.VAL_ACCURACY: val_accuracy,
            vocabulary.EPOCH_LEARNING_RATE: learning_rate,
            vocabulary.EPOCH_SECONDS: seconds,
            vocabulary.EPOCH_PHASE: float(phase.number),
        }
        step = len(self.rows)
        self.rows.append({"epoch": step, "phase": phase.number, **metrics})
        self.run.log_metrics(metrics, step=step)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise TrainingDiverged(
                f"training diverged in epoch {step} of the run: train loss {train_loss}, val loss {val_loss}; "
                f"use a learning_rate below {learning_rate:g}"
            )
        self.after_epoch(self.rows[-1])

    def seconds_of(self, phase: Phase) -> list[float]:
        """Seconds of training and validation for each epoch of a phase."""
        return [row[vocabulary.EPOCH_SECONDS] for row in self.rows if row["phase"] == phase.number]
