from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras.callbacks import Callback, EarlyStopping

from tandem.data.prepare import PreparedData
from tandem.errors import TrainingDiverged
from tandem.on_keras.log_epochs import LogEpochs
from tandem.on_keras.networks import Classifier, Pixels
from tandem.on_keras.optimizers import Blocks, build_optimizer, build_schedule
from tandem.on_keras.streams import open_streams
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import OptimizerSettings, Settings
from tandem.tracking.curves import Curves
from tests.loss_lists import LOSS_LISTS, START_RATE, LossList
from tests.small_runs import NUM_CLASSES, small_settings
from train_keras import build_early_stopping, freeze_or_thaw

Weights = list[np.ndarray]


def same(first: Weights, second: Weights) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


class ScriptedLosses(Callback):
    """Reports the validation losses of a list to the callbacks after it."""

    def __init__(self, losses: tuple[float, ...]) -> None:
        super().__init__()
        self.losses = losses

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        logs["val_loss"] = self.losses[epoch]


class Snapshots(Callback):
    """Keeps the weights at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[Weights] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epochs.append(self.model.get_weights())


def small_network() -> Classifier:
    """A network with weights and batch-norm statistics that change in each epoch."""
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
            keras.layers.BatchNormalization(),
        ]
    )
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(NUM_CLASSES)])
    network = Classifier(Pixels(8, "unit"), backbone, head)
    network(np.zeros((1, 8, 8, 3), np.uint8))
    return network


def fit(
    losses: tuple[float, ...], settings: Settings, data: PreparedData, curves: Curves
) -> tuple[Classifier, EarlyStopping, list[Weights], int]:
    """Trains with the callbacks of train_phase.

    Returns:
        The network, the early stopping, the weights after each epoch, and the number of epochs.
    """
    phase = Phase(number=1, trainable="all", learning_rate=settings.learning_rate, max_epochs=len(losses))
    network, snapshots, early_stopping = small_network(), Snapshots(), build_early_stopping(settings, phase)
    blocks: Blocks = [[network.backbone]]
    training, validation = open_streams(settings, data, phase)
    freeze_or_thaw(network, phase, blocks)
    learning_rate, schedule = build_schedule(settings.schedule, phase, len(training))
    network.compile(
        optimizer=build_optimizer(settings.optimizer, learning_rate, blocks),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    history = network.fit(
        training,
        validation_data=validation,
        epochs=phase.max_epochs,
        callbacks=[
            ScriptedLosses(losses),
            snapshots,
            LogEpochs(curves, phase),
            *schedule,
            early_stopping,
        ],
        verbose=0,
    )
    return network, early_stopping, snapshots.epochs, len(history.epoch)


def settings_of(case: LossList) -> Settings:
    return small_settings(
        learning_rate=START_RATE,
        optimizer=OptimizerSettings(name="sgd", momentum=0.0),
        early_stopping=case.early_stopping,
        schedule=case.schedule,
    )


@pytest.mark.parametrize("case", LOSS_LISTS, ids=lambda case: case.name)
def test_losses_stop_reduce_and_restore_as_derived_by_hand(case: LossList, data: PreparedData, curves: Curves) -> None:
    keras.utils.set_random_seed(0)
    network, early_stopping, snapshots, epochs = fit(case.losses, settings_of(case), data, curves)
    assert epochs == len(snapshots) == len(curves.rows) == case.epochs
    assert early_stopping.best_epoch == case.best_epoch
    assert [row["val/loss"] for row in curves.rows] == list(case.losses[: case.epochs])
    assert [row["epoch/learning_rate"] for row in curves.rows] == pytest.approx(case.expected_rates)
    left = network.get_weights()
    assert [epoch for epoch, weights in enumerate(snapshots) if same(weights, left)] == [case.left_epoch]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_finite_ends_the_run(loss: float, data: PreparedData, curves: Curves) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"diverged in epoch 2 of the run: .* val loss (nan|inf); use a learning"
    ):
        fit((1.0, loss, 0.5), small_settings(), data, curves)
    assert [row["epoch"] for row in curves.rows] == [0, 1]
