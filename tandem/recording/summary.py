"""The few lines that a run ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from tandem.rendering.tables import Column, Table, print_table


@dataclass(frozen=True, kw_only=True)
class PhaseResult:
    """What came out of one phase.

    Args:
        number: counted from 1.
        trainable: what was trained, for people: "head", "last 2 blocks" or "all".
        epochs: how many were trained.
        best_epoch: the one with the lowest validation loss, counted from 0 within the phase.
        train_seconds: training and validation, evaluation apart.
        scores: on the test images after the phase, as tandem.evaluation.metrics names them.
    """

    number: int
    trainable: str
    epochs: int
    best_epoch: int
    train_seconds: float
    scores: Mapping[str, float]


def untrained(scores: Mapping[str, float]) -> PhaseResult:
    """What stands for the phases of a network that was not trained."""
    return PhaseResult(number=0, trainable="nothing", epochs=0, best_epoch=0, train_seconds=0.0, scores=scores)


_COLUMNS = (
    Column(key="phase", heading="phase", kind="number"),
    Column(key="trainable", heading="trained"),
    Column(key="epochs", heading="epochs", kind="number"),
    Column(key="best_epoch", heading="best epoch (from 0)", kind="number"),
    Column(key="train_seconds", heading="training", kind="seconds"),
    Column(key="accuracy", heading="test accuracy", kind="score"),
    Column(key="f1_macro", heading="macro F1", kind="score"),
    Column(key="f1_min", heading="lowest F1", kind="score"),
)


def print_summary(
    title: str, phases: Sequence[PhaseResult], where_to_look: Sequence[str], console: Console | None = None
) -> None:
    """Prints one row a phase, then the lines that say where the run can be looked at."""
    rows = tuple(
        (
            phase.number,
            phase.trainable,
            phase.epochs,
            phase.best_epoch,
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
        # Paths and addresses are there to be copied: no colours, no line breaks, no markup.
        console.print(line, markup=False, highlight=False, soft_wrap=True)
