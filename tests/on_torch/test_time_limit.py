from __future__ import annotations

import dataclasses

import pytest

from tandem import on_torch
from tandem.data.prepare import PreparedData
from tandem.experiment import Framework
from tests.on_torch.test_checkpoints import build_small_network
from tests.time_limits import (
    check_first_epoch_can_be_cut_short,
    check_phase_ends_within_an_epoch,
    check_phase_that_ends_by_itself_is_not_marked,
)
from train_torch import FRAMEWORK


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> Framework:
    monkeypatch.setattr(on_torch, "blocks_of", lambda backbone, entry: [[backbone]])
    return dataclasses.replace(FRAMEWORK, build_network=build_small_network)


def test_time_limit_ends_a_phase_within_an_epoch(framework: Framework, data: PreparedData) -> None:
    check_phase_ends_within_an_epoch(framework, data)


def test_first_epoch_can_be_cut_short(framework: Framework, data: PreparedData) -> None:
    check_first_epoch_can_be_cut_short(framework, data)


def test_phase_that_ends_by_itself_is_not_marked(framework: Framework, data: PreparedData) -> None:
    check_phase_that_ends_by_itself_is_not_marked(framework, data)
