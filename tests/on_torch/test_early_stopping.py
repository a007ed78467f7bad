from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tandem.data.phase_streams import passes_of
from tandem.data.prepare import PreparedData
from tandem.errors import TrainingDiverged
from tandem.on_torch.early_stopping import EarlyStoppingWithBestWeights, on_cpu
from tandem.on_torch.log_epochs import LogEpochs
from tandem.on_torch.networks import Classifier, Pixels
from tandem.on_torch.optimizers import Blocks
from tandem.on_torch.streams import open_streams
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import OptimizerSettings, Settings
from tandem.tracking.curves import Curves
from tests.loss_lists import LOSS_LISTS, START_RATE, LossList
from tests.small_runs import NUM_CLASSES, small_settings
from train_torch import FreezeOrThaw, TrainingSteps, build_early_stopping, freeze_or_thaw

Weights = list[np.ndarray]


def weights_of(network: nn.Module) -> Weights:
    return [value.numpy().copy() for value in network.state_dict().values()]


def same(first: Weights, second: Weights) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


class ScriptedLosses(TrainingSteps):
    """Trains as usual, but reports the validation losses of a list."""

    losses: tuple[float, ...]

    def on_validation_epoch_end(self) -> None:
        self.sums.means()
        val_loss = self.losses[self.current_epoch]
        self.log_dict({"train/loss": 1.0, "train/accuracy": 0.5, "val/loss": val_loss, "val/accuracy": 0.5})


class Snapshots(Callback):
    """Keeps the weights at the end of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[Weights] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        self.epochs.append(weights_of(module.network))


def small_network() -> Classifier:
    """A network with weights and batch-norm statistics that change in each epoch."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 4), nn.BatchNorm1d(4))
    return Classifier(Pixels(8, "unit"), backbone, nn.Linear(4, NUM_CLASSES))


def fit(
    losses: tuple[float, ...], settings: Settings, data: PreparedData, curves: Curves
) -> tuple[Classifier, EarlyStoppingWithBestWeights, list[Weights], int]:
    """Trains with the callbacks of train_phase.

    Returns:
        The network, the early stopping, the weights after each epoch, and the number of epochs.
    """
    phase = Phase(number=1, trainable="all", learning_rate=settings.learning_rate, max_epochs=len(losses))
    network, snapshots, early_stopping = small_network(), Snapshots(), build_early_stopping(settings, phase)
    blocks: Blocks = [[network.backbone]]
    training, validation = open_streams(settings, data, phase)
    steps = ScriptedLosses(network, settings, phase, blocks, passes_of(settings, training.stream))
    steps.losses = losses
    freeze_or_thaw(network, phase, blocks)
    trainer = lightning.Trainer(
        max_epochs=phase.max_epochs,
        callbacks=[snapshots, FreezeOrThaw(phase, blocks), LogEpochs(curves, phase), early_stopping],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(steps, training, validation)
    return network, early_stopping, snapshots.epochs, trainer.current_epoch


def settings_of(case: LossList) -> Settings:
    return small_settings(
        learning_rate=START_RATE,
        optimizer=OptimizerSettings(name="sgd", momentum=0.0),
        early_stopping=case.early_stopping,
        schedule=case.schedule,
    )


@pytest.mark.parametrize("case", LOSS_LISTS, ids=lambda case: case.name)
def test_losses_stop_reduce_and_restore_as_derived_by_hand(case: LossList, data: PreparedData, curves: Curves) -> None:
    torch.manual_seed(0)
    network, early_stopping, snapshots, epochs = fit(case.losses, settings_of(case), data, curves)
    assert epochs == len(snapshots) == len(curves.rows) == case.epochs
    assert early_stopping.best_epoch == case.best_epoch
    assert [row["val/loss"] for row in curves.rows] == list(case.losses[: case.epochs])
    assert [row["epoch/learning_rate"] for row in curves.rows] == pytest.approx(case.expected_rates)
    assert [epoch for epoch, weights in enumerate(snapshots) if same(weights, weights_of(network))] == [case.left_epoch]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_finite_ends_the_run(loss: float, data: PreparedData, curves: Curves) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"diverged in epoch 2 of the run: .* val loss (nan|inf); use a learning"
    ):
        fit((1.0, loss, 0.5), small_settings(), data, curves)
    assert [row["epoch"] for row in curves.rows] == [0, 1]


def test_best_weights_are_kept_in_main_memory() -> None:
    with FakeTensorMode():
        weights = {"weight": torch.zeros(2, device="cuda"), "statistics": torch.zeros(3, dtype=torch.int64)}
        kept = on_cpu(weights)
    assert {name: (value.device.type, value.shape) for name, value in kept.items()} == {
        "weight": ("cpu", (2,)),
        "statistics": ("cpu", (3,)),
    }
    original = torch.ones(2)
    copied = on_cpu({"weight": original})["weight"]
    original.zero_()
    assert copied.tolist() == [1, 1]
