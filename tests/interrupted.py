"""Trains a run that is killed after some of its checkpoints and continued, within one process and without MLflow."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tandem.data.prepare import PreparedData
from tandem.errors import TrainingDiverged
from tandem.experiment import Framework, Progress, predict_test
from tandem.protocol.settings import (
    AugmentationSettings,
    EarlyStoppingSettings,
    HeadSettings,
    OptimizerSettings,
    PhaseSettings,
    ScheduleSettings,
    Settings,
)
from tandem.tracking.checkpoints import Checkpoints
from tests.small_runs import RecordingRun, small_settings

EVERY_STEP = 1e-9  # minutes

# Of four batches per epoch: settings, and numbers of the checkpoints after which the run is killed. In the cached first
# phase of two_stage there is one per epoch but the first, then that of the phase.
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "two stages, dropout, restored best weights": (
        {
            "regime": "two_stage",
            "max_epochs": 3,
            "head": HeadSettings(dropout=0.5),
            "early_stopping": EarlyStoppingSettings(patience=1),
        },
        (2, 6),
    ),
    "uncached frozen phase with augmentation, plateau": (
        {
            "regime": "frozen",
            "max_epochs": 4,
            "augmentation": AugmentationSettings(horizontal_flip=True, crop_padding=1),
            "schedule": ScheduleSettings(name="plateau", patience=1),
            "early_stopping": EarlyStoppingSettings(patience=None, restore="last"),
            "optimizer": OptimizerSettings(name="sgd"),
        },
        (6,),
    ),
    "accumulation with an uneven last step, one cycle, clipping": (
        {
            "regime": "two_stage",
            "max_epochs": 2,
            "batch_size": 8,
            "accumulate": 2,
            "schedule": ScheduleSettings(name="one_cycle"),
            "optimizer": OptimizerSettings(name="adam", clip_norm=0.5),
        },
        (3, 4),
    ),
    "averaged weights and batch norm, accumulation": (
        {
            "regime": "finetune",
            "max_epochs": 3,
            "accumulate": 2,
            "ema_decay": 0.6,
            "head": HeadSettings(batch_norm=True, dropout=0.2),
            "early_stopping": EarlyStoppingSettings(patience=None),
        },
        (2, 3),
    ),
    "gradual phases, cosine with a warm-up, batch norm in the head": (
        {
            "regime": "gradual",
            "phases": [PhaseSettings(trainable="head", max_epochs=2), PhaseSettings(trainable="last", blocks=2)],
            "max_epochs": 2,
            "head": HeadSettings(hidden=[8], batch_norm=True, dropout=0.2),
            "schedule": ScheduleSettings(name="cosine", warmup_epochs=1),
            "optimizer": OptimizerSettings(name="adamw", weight_decay=0.1, layer_decay=0.5),
        },
        (4,),
    ),
}


class Killed(BaseException):
    """The process dies."""


@dataclass(frozen=True)
class Trained:
    """A run at its end."""

    rows: list[dict[str, float]]
    """Of the curves, without seconds."""
    outcomes: list[dict[str, Any]]
    """Of the phases, without seconds."""
    probabilities: np.ndarray
    num_checkpoints: int


def train(
    framework: Framework, settings: Settings, data: PreparedData, folder: Path, *, kill_after: int | None = None
) -> Trained:
    """Trains a run, or goes on with the one in a folder, until it is finished or killed."""
    num_written = 0
    write = Checkpoints._write

    def count(checkpoints: Checkpoints, *arguments: Any) -> None:
        nonlocal num_written
        write(checkpoints, *arguments)
        num_written += 1
        if num_written == kill_after:
            raise Killed

    folder.mkdir(exist_ok=True)
    framework.set_up(settings)
    network = framework.build_network(settings, data, None)
    progress = Progress(framework, network, settings, RecordingRun(folder))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "_write", count)
        for phase in progress.phases_left():
            if not progress.is_trained(phase):
                progress.add_outcome(framework.train_phase(network, phase, settings, data, progress.curves))
            predictions = predict_test(framework, network, settings, data)
    assert progress.curves.checkpoints.problem is None
    return Trained(
        rows=[{name: value for name, value in row.items() if "seconds" not in name} for row in progress.curves.rows],
        outcomes=[
            {name: value for name, value in dataclasses.asdict(outcome).items() if "seconds" not in name}
            for outcome in progress.outcomes
        ],
        probabilities=predictions.probabilities,
        num_checkpoints=num_written,
    )


def check_case(name: str, framework: Framework, data: PreparedData, folder: Path, disturb: Callable[[], None]) -> None:
    """Fails unless a run that is killed again and again is equal to the last bit to one that is not.

    Args:
        name: One of CASES.
        framework: Of a training script.
        data: Small.
        folder: For the run's files.
        disturb: Changes the framework's random numbers, as another process has others.
    """
    changes, kills = CASES[name]
    settings = small_settings(**changes, learning_rate=0.01, checkpoint_minutes=EVERY_STEP)
    whole = train(framework, settings, data, folder / "whole")
    assert whole.num_checkpoints > max(kills)
    assert np.ptp(whole.probabilities, axis=0).max() > 1e-4, "the network does not tell the images apart"
    for number in kills:
        with pytest.raises(Killed):
            train(framework, settings, data, folder / f"killed {number}", kill_after=number)
        disturb()
        continued = train(framework, settings, data, folder / f"killed {number}")
        assert continued.num_checkpoints < whole.num_checkpoints
        assert continued.rows == whole.rows, number
        assert continued.outcomes == whole.outcomes, number
        assert np.array_equal(continued.probabilities, whole.probabilities), number


def check_divergence(framework: Framework, data: PreparedData, folder: Path) -> tuple[Path, Any]:
    """Fails unless a training whose weights explode says where, and keeps those of the epoch before.

    Returns:
        The file of kept weights, and a network that was trained for as many epochs as they were.
    """
    settings = small_settings(
        regime="finetune",
        learning_rate=10.0,
        max_epochs=100,
        # decoupled weight decay: each step multiplies the weights by 1 - 10 * 1
        optimizer=OptimizerSettings(name="adamw", weight_decay=1.0),
        early_stopping=EarlyStoppingSettings(patience=None, restore="last"),
    )
    run, steps = RecordingRun(folder), 4  # per epoch
    framework.set_up(settings)
    network = framework.build_network(settings, data, None)
    progress = Progress(framework, network, settings, run)  # type: ignore[arg-type]
    (phase,) = progress.phases_left()
    with pytest.raises(TrainingDiverged) as caught, progress.keeping_good_weights():
        framework.train_phase(network, phase, settings, data, progress.curves)
    message = str(caught.value)
    found = re.match(r"training diverged in epoch (\d+) of the run, step (\d+): train loss (nan|inf)", message)
    assert found and "\n" not in message, message
    epoch, step = int(found[1]), int(found[2])
    losses = np.array([[values["train/loss"], values["val/loss"]] for _, values in run.logged])
    num_logged = int(np.isfinite(losses).all(axis=1).sum())
    assert 2 <= epoch == num_logged + 1 and 1 <= step <= steps
    assert f"use a learning_rate below 10; kept: the weights of the training up to {num_logged} epochs" in message
    file = Path(message.rpartition("--weights ")[2])
    assert file == folder / "good_weights" / framework.package.BACKBONE_FILE and file.is_file()
    # without the first bad step, nothing else happens: an epoch that ends before it is like any other
    settings = dataclasses.replace(settings, max_epochs=num_logged)
    (folder / "again").mkdir()
    framework.set_up(settings)
    network = framework.build_network(settings, data, None)
    again = Progress(framework, network, settings, RecordingRun(folder / "again"))  # type: ignore[arg-type]
    (phase,) = again.phases_left()
    framework.train_phase(network, phase, settings, data, again.curves)
    return file, network
