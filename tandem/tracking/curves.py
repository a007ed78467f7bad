"""Metrics per epoch of a run, over all its phases."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tandem.errors import TrainingDiverged
from tandem.protocol.regimes import Phase
from tandem.tracking import vocabulary
from tandem.tracking.checkpoints import Checkpoints, PhaseCheckpoints

if TYPE_CHECKING:
    from tandem.tracking.run import Run


class Curves:
    """Collects and logs the metrics of each epoch; steps continue from phase to phase.

    Args:
        run: The run that logs the metrics.
        after_epoch: Called with each new row, such as by a sweep; an exception it raises ends the training.
        checkpoints: The run's; none by default.
        quiet: Print no line per epoch.

    Attributes:
        rows: One dictionary per epoch: `epoch` counted from 0 over all phases, `phase` from 1, and the metrics.
        feature_seconds: Seconds that computing the features of the phases so far took, in this run or an earlier one.
    """

    def __init__(
        self,
        run: Run,
        after_epoch: Callable[[Mapping[str, float]], None] = lambda row: None,
        checkpoints: Checkpoints | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.run = run
        self.after_epoch = after_epoch
        self.checkpoints = checkpoints or Checkpoints(None)
        self.quiet = quiet
        self.rows: list[dict[str, float]] = []
        self.feature_seconds = 0.0

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
        num_finite: int | None = None,
    ) -> None:
        """Logs an epoch of a phase, and prints its line.

        Args:
            phase: The epoch's.
            learning_rate: At the epoch's first step.
            seconds: Of training and validation.
            train_loss: Mean over the training images.
            train_accuracy: Share of the training images.
            val_loss: Mean over the validation images.
            val_accuracy: Share of the validation images.
            num_finite: Steps before the first one whose training loss was not finite; None if unknown.

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
        if not self.quiet:
            number = len(self.seconds_of(phase))
            print(in_words(phase, number, train_loss, val_loss, val_accuracy, seconds), file=sys.stderr, flush=True)
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            where = "" if math.isfinite(train_loss) or num_finite is None else f", step {num_finite + 1}"
            raise TrainingDiverged(
                f"training diverged in epoch {step + 1} of the run{where}: train loss {train_loss}, val loss "
                f"{val_loss}; use a learning_rate below {learning_rate:g}"
            )
        self.after_epoch(self.rows[-1])

    def diverged(self, *, num_finite: int, loss: float, learning_rate: float) -> TrainingDiverged:
        """The error of an epoch under way whose training loss is not finite any more.

        Args:
            num_finite: Steps of the epoch before the first one whose loss was not finite.
            loss: Mean over the epoch so far.
            learning_rate: At the epoch's first step.
        """
        return TrainingDiverged(
            f"training diverged in epoch {len(self.rows) + 1} of the run, step {num_finite + 1}: train loss {loss}; "
            f"use a learning_rate below {learning_rate:g}"
        )

    def checkpoints_of(self, phase: Phase) -> PhaseCheckpoints:
        """Checkpoints within a phase. If it continues an interrupted one, the rows are those of the checkpoint."""
        return PhaseCheckpoints(self.checkpoints, phase.number, self.rows)

    def seconds_of(self, phase: Phase) -> list[float]:
        """Seconds of training and validation for each epoch of a phase."""
        return [row[vocabulary.EPOCH_SECONDS] for row in self.rows if row["phase"] == phase.number]


def in_words(phase: Phase, number: int, train_loss: float, val_loss: float, val_accuracy: float, seconds: float) -> str:
    """An epoch in one line: `epoch 3/30  loss 0.310  val_loss 0.472  val_acc 0.750  4.2 s`.

    Args:
        phase: From the second on, its number is in the line.
        number: The epoch's within the phase, from 1.
        train_loss: Mean over the training images.
        val_loss: Mean over the validation images.
        val_accuracy: Share of the validation images, 0..1.
        seconds: Of training and validation.
    """
    of_phase = f"phase {phase.number}, " if phase.number > 1 else ""
    figures = len(str(phase.max_epochs))
    return (
        f"{of_phase}epoch {number:{figures}}/{phase.max_epochs}  loss {train_loss:.3f}  val_loss {val_loss:.3f}  "
        f"val_acc {val_accuracy:.3f}  {seconds:.3g} s"
    )
