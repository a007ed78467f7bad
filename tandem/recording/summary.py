"""Summary of a run on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from tandem.rendering.tables import Column, Table
from tandem.rendering.terminal import print_table


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """Results of one phase."""

    number: int
    """Counted from 1."""
    trainable: str
    """The part that was trained, for people: "head", "last 2 blocks" or "all"."""
    epochs: int
    """Number of trained epochs."""
    best_epoch: int
    """The epoch with the lowest validation loss, counted from 0 within the phase."""
    train_seconds: float
    """Training and validation, excluding evaluation."""
    scores: Mapping[str, float]
    """On the test images after the phase, under the names of tandem.evaluation.metrics."""


def untrained(scores: Mapping[str, float]) -> PhaseResult:
    """The result of a network that was not trained, in place of those of phases."""
    return PhaseResult(number=0, trainable="nothing", epochs=0, best_epoch=0, train_seconds=0.0, scores=scores)


_COLUMNS = (
    Column(key="phase", heading="phase", kind="number"),
    Column(key="trainable", heading="trained"),
    Column(key="epochs", heading="epochs", kind="number"),
    Column(key="best_epoch", heading="best epoch", kind="number"),
    Column(key="train_seconds", heading="training", kind="seconds"),
    Column(key="accuracy", heading="test accuracy", kind="score"),
    Column(key="f1_macro", heading="macro F1", kind="score"),
    Column(key="f1_min", heading="worst-class F1", kind="score"),
)


def print_summary(
    title: str, phases: Sequence[PhaseResult], where_to_look: Sequence[str], console: Console | None = None
) -> None:
    """Prints one row per phase, then the lines that say where to look at the run."""
    rows = tuple(
        (
            phase.number,
            phase.trainable,
            phase.epochs,
            phase.best_epoch + 1 if phase.epochs else None,
            phase.train_seconds,
            phase.scores["accuracy"],
            phase.scores["f1_macro"],
            phase.scores["f1_min"],
        )
        for phase in phases
    )
    console = console or Console()
    print_table(Table(name="phases", title=title, columns=_COLUMNS, rows=rows), console)
    for line in where_to_look:
        # Without colours, line breaks and markup, so that paths and addresses can be copied.
        console.print(line, markup=False, highlight=False, soft_wrap=True)
