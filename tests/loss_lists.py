"""Hand-written lists of validation losses, with the results that early stopping and reduce-on-plateau must have.

Both frameworks' callbacks run on every list. The losses are sums of powers of two, so float32 and float64 agree on
which loss is lower by exactly min_delta. Epochs are counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tandem.protocol.settings import EarlyStoppingSettings, ScheduleSettings

START_RATE = 0.5


def stop(patience: int | None, min_delta: float = 0.0, restore: str = "best") -> EarlyStoppingSettings:
    return EarlyStoppingSettings(patience=patience, min_delta=min_delta, restore=restore)  # type: ignore[arg-type]


def plateau(
    patience: int, factor: float = 0.5, min_delta: float = 0.0, min_learning_rate: float = 0.0
) -> ScheduleSettings:
    return ScheduleSettings(
        name="plateau", patience=patience, factor=factor, min_delta=min_delta, min_learning_rate=min_learning_rate
    )


@dataclass(frozen=True, kw_only=True)
class LossList:
    """A list of losses, as long as the epoch limit, and its results."""

    name: str
    losses: tuple[float, ...]
    early_stopping: EarlyStoppingSettings
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    epochs: int
    """Number of trained epochs."""
    best_epoch: int
    left_epoch: int
    """Epoch whose weights the phase keeps."""
    rates: tuple[float, ...] | None = None
    """Learning rate of each trained epoch; None for START_RATE in all of them."""

    @property
    def expected_rates(self) -> tuple[float, ...]:
        return self.rates or (START_RATE,) * self.epochs


LOSS_LISTS = (
    LossList(
        name="always better",
        losses=(1, 0.5, 0.25, 0.125),
        early_stopping=stop(1),
        epochs=4,
        best_epoch=3,
        left_epoch=3,
    ),
    LossList(
        name="better once, then a plateau",
        losses=(1, 0.5, 0.75, 0.625, 0.5625, 0.25),
        early_stopping=stop(3),
        epochs=5,  # 0.75, 0.625 and 0.5625 are the three that are not below 0.5
        best_epoch=1,
        left_epoch=1,
    ),
    LossList(
        name="equal is not better",
        losses=(0.5, 0.5, 0.5, 0.5, 0.5),
        early_stopping=stop(2),
        epochs=3,
        best_epoch=0,
        left_epoch=0,
    ),
    LossList(
        name="never better than the first",
        losses=(0.5, 1, 0.75, 0.25),
        early_stopping=stop(2),
        epochs=3,
        best_epoch=0,
        left_epoch=0,
    ),
    LossList(
        name="patience of one",
        losses=(1, 0.5, 0.5, 0.25),
        early_stopping=stop(1),
        epochs=3,
        best_epoch=1,
        left_epoch=1,
    ),
    LossList(
        name="lower by exactly min_delta is not better",
        losses=(1, 0.75, 0.75, 0.25),
        early_stopping=stop(2, min_delta=0.25),
        epochs=3,
        best_epoch=0,
        left_epoch=0,
    ),
    LossList(
        name="lower by more than min_delta is better",
        losses=(1, 0.734375, 0.5, 0.484375, 0.125),
        early_stopping=stop(2, min_delta=0.25),
        epochs=4,  # 0.484375 is lower than 0.734375 by exactly 0.25
        best_epoch=1,
        left_epoch=1,
    ),
    LossList(
        name="min_delta counts from the best, not from the epoch before",
        losses=(1, 0.875, 0.75, 0.625),
        early_stopping=stop(3, min_delta=0.25),
        epochs=4,
        best_epoch=3,
        left_epoch=3,
    ),
    LossList(
        name="improvement restarts the wait",
        losses=(1, 0.5, 0.75, 0.25, 0.5, 0.5, 0.125),
        early_stopping=stop(2),
        epochs=6,
        best_epoch=3,
        left_epoch=3,
    ),
    LossList(
        name="epoch limit comes first, the best weights are restored",
        losses=(1, 0.5, 0.75, 0.875),
        early_stopping=stop(3),
        epochs=4,
        best_epoch=1,
        left_epoch=1,
    ),
    LossList(
        name="without patience to the epoch limit",
        losses=(0.5, 0.75, 0.25, 0.75, 0.75, 0.75, 0.75),
        early_stopping=stop(None),
        epochs=7,
        best_epoch=2,
        left_epoch=2,
    ),
    LossList(
        name="without patience, the first is the best",
        losses=(0.5, 0.75, 0.75, 0.75),
        early_stopping=stop(None),
        epochs=4,
        best_epoch=0,
        left_epoch=0,
    ),
    LossList(
        name="restore last keeps the last weights of a stop",
        losses=(1, 0.5, 0.75, 0.625, 0.25),
        early_stopping=stop(2, restore="last"),
        epochs=4,
        best_epoch=1,
        left_epoch=3,
    ),
    LossList(
        name="restore last keeps the last weights at the epoch limit",
        losses=(1, 0.5, 0.75),
        early_stopping=stop(None, restore="last"),
        epochs=3,
        best_epoch=1,
        left_epoch=2,
    ),
    LossList(
        name="rate is reduced twice",
        losses=(1, 1, 1, 1, 1, 1),
        early_stopping=stop(None),
        schedule=plateau(2),
        epochs=6,
        best_epoch=0,
        left_epoch=0,
        rates=(0.5, 0.5, 0.5, 0.25, 0.25, 0.125),
    ),
    LossList(
        name="rate is reduced after one epoch",
        losses=(1, 1, 1, 0.5, 0.5),
        early_stopping=stop(None),
        schedule=plateau(1),
        epochs=5,
        best_epoch=3,
        left_epoch=3,
        rates=(0.5, 0.5, 0.25, 0.125, 0.125),
    ),
    LossList(
        name="rate goes no lower than its minimum",
        losses=(1, 1, 1, 1, 1),
        early_stopping=stop(None),
        schedule=plateau(1, factor=0.25, min_learning_rate=0.1875),
        epochs=5,
        best_epoch=0,
        left_epoch=0,
        rates=(0.5, 0.5, 0.1875, 0.1875, 0.1875),
    ),
    LossList(
        name="rate below its minimum is unchanged",
        losses=(1, 1, 1),
        early_stopping=stop(None),
        schedule=plateau(1, min_learning_rate=0.75),
        epochs=3,
        best_epoch=0,
        left_epoch=0,
    ),
    LossList(
        name="improvement restarts the wait for a lower rate",
        losses=(1, 1, 0.5, 0.75, 0.75, 0.75),
        early_stopping=stop(None),
        schedule=plateau(2),
        epochs=6,
        best_epoch=2,
        left_epoch=2,
        rates=(0.5, 0.5, 0.5, 0.5, 0.5, 0.25),
    ),
    LossList(
        name="schedule has a min_delta of its own",
        losses=(1, 0.75, 0.75, 0.5, 0.5),
        early_stopping=stop(None),
        schedule=plateau(2, min_delta=0.25),
        epochs=5,
        best_epoch=3,
        left_epoch=3,
        rates=(0.5, 0.5, 0.5, 0.25, 0.25),
    ),
    LossList(
        name="reduced first, stopped later",
        losses=(1, 1, 1, 1, 1, 0.5),
        early_stopping=stop(4),
        schedule=plateau(2),
        epochs=5,
        best_epoch=0,
        left_epoch=0,
        rates=(0.5, 0.5, 0.5, 0.25, 0.25),
    ),
)
