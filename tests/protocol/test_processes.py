from __future__ import annotations

import pytest

from tandem.errors import UserError
from tandem.protocol.frameworks import Framework
from tandem.protocol.parser import read_settings
from tandem.protocol.processes import check_shares, num_started_processes
from tandem.protocol.settings_hash import settings_hash

LAUNCHERS = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(autouse=True)
def started_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAUNCHERS, "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)


def started_by(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 1),
        ({"RANK": "1", "WORLD_SIZE": "4"}, 4),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"SLURM_PROCID": "0"}, 1),  # in sbatch, but not started by srun
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, 2),  # torchrun in srun
        ({"WORLD_SIZE": "2"}, 1),
    ],
)
def test_number_of_processes_is_the_launchers(
    variables: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_by(monkeypatch, **variables)
    assert num_started_processes() == expected


def test_batch_that_cannot_be_split_equally_is_refused() -> None:
    check_shares(32, 4)
    with pytest.raises(UserError, match=r"batch_size: received 30, .* multiple of num_devices, 4, .* \(28 or 32 for"):
        check_shares(30, 4)
    with pytest.raises(UserError, match=r"\(8 for example\)"):
        check_shares(2, 8)


REFUSED: list[tuple[Framework, str, dict[str, str], str]] = [
    ("torch", "--num_devices 3", {}, "batch_size: received 32"),
    ("torch", "--num_devices 0", {}, "num_devices: received 0, allowed: a whole number or auto, at least 1"),
    ("torch", "--num_devices some", {}, "num_devices: received 'some', allowed: a whole number or auto"),
    ("torch", "--num_devices 2 --regime off_the_shelf", {}, "num_devices: received 2, allowed: 1 with regime off"),
    ("torch", "", {"RANK": "0", "WORLD_SIZE": "2"}, "num_devices: received 1, allowed: 2, the number that torchrun"),
    ("torch", "--num_devices auto --seeds [1,2]", {"RANK": "0", "WORLD_SIZE": "2"}, r"seeds: received \[1, 2\]"),
    ("torch", "--num_devices auto --data.split folds", {"RANK": "0", "WORLD_SIZE": "2"}, "data.fold: received None"),
    ("keras", "--num_devices 2", {}, "num_devices: received 2, allowed: 1 with KERAS_BACKEND tensorflow; KERAS_B"),
    ("keras", "--num_devices auto", {"KERAS_BACKEND": "torch"}, "num_devices: received 'auto', allowed: 1 with"),
    ("keras", "", {"RANK": "0", "WORLD_SIZE": "2"}, "num_devices: received 1, allowed: one process of train_keras.py"),
]


@pytest.mark.parametrize(("framework", "words", "variables", "message"), REFUSED)
def test_devices_that_cannot_train_are_refused(
    framework: Framework, words: str, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_by(monkeypatch, **variables)
    with pytest.raises(UserError, match=f"^{message}"):
        read_settings(framework, words.split())


def test_devices_that_can_train_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings("torch", ["--num_devices", "4"]).num_devices == 4
    assert read_settings("torch", ["--num_devices", "auto", "--seeds", "[1,2]"]).num_devices == "auto"
    started_by(monkeypatch, KERAS_BACKEND="jax")
    assert read_settings("keras", ["--num_devices", "4"]).num_devices == 4
    started_by(monkeypatch, RANK="1", WORLD_SIZE="4")
    assert read_settings("torch", ["--num_devices", "4"]).num_devices == 4
    assert read_settings("torch", ["--num_devices", "auto"]).num_devices == "auto"


def test_number_of_devices_does_not_change_the_hash() -> None:
    one, four = (read_settings("torch", ["--num_devices", number]) for number in ("1", "4"))
    assert settings_hash(one) == settings_hash(four)
    assert settings_hash(one) != settings_hash(read_settings("torch", ["--batch_size", "64"]))
