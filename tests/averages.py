"""Checks of averaged weights in either framework, on a network with batch norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tandem.data.prepare import PreparedData
from tandem.experiment import Framework, predict_test
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import EarlyStoppingSettings, HeadSettings, OptimizerSettings, Settings
from tandem.tracking.curves import Curves
from tests.oracles import cross_entropy
from tests.small_runs import RecordingRun, small_settings


def settings_of(
    *, max_epochs: int, ema_decay: float | None, restore: Any = "last", regime: Any = "finetune"
) -> Settings:
    """Four steps of SGD per epoch; the batch norm of the head keeps half of its statistics per step."""
    return small_settings(
        regime=regime,
        max_epochs=max_epochs,
        ema_decay=ema_decay,
        learning_rate=0.1,
        batch_norm_momentum=0.5,
        head=HeadSettings(batch_norm=True),
        optimizer=OptimizerSettings(name="sgd", momentum=0.0),
        early_stopping=EarlyStoppingSettings(patience=None, restore=restore),
    )


def train(framework: Framework, settings: Settings, data: PreparedData) -> tuple[Any, Curves]:
    framework.set_up(settings)
    network, curves = framework.build_network(settings, data, None), Curves(RecordingRun(), quiet=True)  # type: ignore[arg-type]
    for phase in phases_of(settings):
        framework.train_phase(network, phase, settings, data, curves)
    return network, curves


def check_batch_norm_is_averaged_like_weights(
    framework: Framework,
    data: PreparedData,
    values_of: Callable[[Any], list[np.ndarray]],
    after_each_step: Callable[[Settings], list[list[np.ndarray]]],
) -> None:
    """Fails unless all weights and statistics are the average of those after each of an epoch's steps.

    Args:
        framework: Of the script, with a small network.
        data: Small.
        values_of: All weights and statistics of a network, as copies.
        after_each_step: Trains with the settings, and returns these values after each step.
    """
    steps = after_each_step(settings_of(max_epochs=2, ema_decay=None))
    assert len(steps) == 8
    network, _ = train(framework, settings_of(max_epochs=2, ema_decay=0.5), data)
    shares = 0.5 ** np.arange(8)[::-1]
    differs = []
    for received, values in zip(values_of(network), zip(*steps, strict=True), strict=True):
        np.testing.assert_allclose(received, np.average(values, axis=0, weights=shares), rtol=0, atol=2e-5)
        differs.append(np.abs(received - values[-1]).max() > 1e-3)
    assert sum(differs) > len(differs) / 2  # biases before batch norm have no gradient


def check_validation_and_best_weights_are_averaged(framework: Framework, data: PreparedData) -> None:
    """Fails unless the logged losses are those of the averages, and the kept weights those of the best epoch."""
    settings = settings_of(max_epochs=3, ema_decay=0.9, restore="best")
    network, curves = train(framework, settings, data)
    rows = data.rows("val")
    logits = framework.predict_batch(_in_inference_mode(network), settings, np.asarray(data.images[rows]))
    loss = cross_entropy(logits, data.labels[rows])
    losses = [row["val/loss"] for row in curves.rows]
    np.testing.assert_allclose(loss, min(losses), rtol=1e-5)
    _, plain = train(framework, settings_of(max_epochs=3, ema_decay=None), data)
    assert [row["train/loss"] for row in curves.rows] == [row["train/loss"] for row in plain.rows], "training differs"
    assert all(abs(row["val/loss"] - loss) > 1e-4 for row, loss in zip(plain.rows, losses, strict=True))


def check_frozen_part_is_unchanged(framework: Framework, data: PreparedData) -> None:
    """Fails unless a frozen backbone keeps its hash, with averages of the head alone."""
    settings = settings_of(max_epochs=2, ema_decay=0.9, regime="two_stage")
    framework.set_up(settings)
    network, curves = framework.build_network(settings, data, None), Curves(RecordingRun(), quiet=True)  # type: ignore[arg-type]
    first, second = (framework.train_phase(network, phase, settings, data, curves) for phase in phases_of(settings))
    assert first.backbone_before == first.backbone_after == second.backbone_before != second.backbone_after
    assert np.ptp(predict_test(framework, network, settings, data).probabilities) > 0


def _in_inference_mode(network: Any) -> Any:
    return network.eval() if hasattr(network, "eval") else network
