from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tandem import on_keras
from tandem.data.prepare import PreparedData
from tandem.experiment import Framework
from tandem.on_keras.time_limit import TimeLimit
from tandem.protocol.settings import Settings
from tests.averages import (
    check_batch_norm_is_averaged_like_weights,
    check_frozen_part_is_unchanged,
    check_validation_and_best_weights_are_averaged,
    train,
)
from tests.on_keras.test_checkpoints import build_small_network
from train_keras import FRAMEWORK


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> Framework:
    monkeypatch.setattr(on_keras, "blocks_of", lambda backbone, entry: [backbone.layers[1:3], backbone.layers[3:]])
    return dataclasses.replace(FRAMEWORK, build_network=build_small_network)


def values_of(network: Any) -> list[np.ndarray]:
    return [*network.backbone.get_weights(), *network.head.get_weights()]


def test_statistics_of_batch_norm_are_averaged_like_weights(
    framework: Framework, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_each_step(settings: Settings) -> list[list[np.ndarray]]:
        steps = []

        def keep(callback: TimeLimit, batch: int, logs: Any) -> None:
            steps.append(values_of(callback.model))

        with monkeypatch.context() as patch:
            patch.setattr(TimeLimit, "on_train_batch_end", keep)
            train(framework, settings, data)
        return steps

    check_batch_norm_is_averaged_like_weights(framework, data, values_of, after_each_step)


def test_validation_and_best_weights_are_averaged(framework: Framework, data: PreparedData) -> None:
    check_validation_and_best_weights_are_averaged(framework, data)


def test_frozen_backbone_is_unchanged_by_averages(framework: Framework, data: PreparedData) -> None:
    check_frozen_part_is_unchanged(framework, data)
