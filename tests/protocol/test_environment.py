from __future__ import annotations

import os
from typing import Any

import pytest

from tandem.protocol import gpus
from tandem.protocol.environment import prepare_environment
from tandem.protocol.settings import AccelerationSettings, Settings
from tests.made_nvml import Nvml


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty environment on a machine with four GPUs; the old one is restored afterwards."""
    monkeypatch.setattr(os, "environ", dict[str, str]())
    monkeypatch.setattr(gpus, "pynvml", Nvml(*["NVIDIA H100"] * 4))


def test_autotune_of_convolutions_is_left_to_the_frameworks() -> None:
    prepare_environment(Settings())
    assert not {"TF_CUDNN_USE_AUTOTUNE", "XLA_FLAGS"} & set(os.environ)


def test_autotune_of_convolutions_can_be_switched_off() -> None:
    os.environ["XLA_FLAGS"] = "--xla_dump_to=folder"
    prepare_environment(Settings(acceleration=AccelerationSettings(cudnn_autotune=False)))
    assert os.environ["TF_CUDNN_USE_AUTOTUNE"] == "0"
    assert os.environ["XLA_FLAGS"].split() == ["--xla_gpu_autotune_level=0", "--xla_dump_to=folder"]


def test_device_cpu_hides_gpus() -> None:
    prepare_environment(Settings(device="cpu", threads=3))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["JAX_PLATFORMS"]) == ("", "cpu")
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_memory_of_a_gpu_is_allocated_as_needed() -> None:
    prepare_environment(Settings())
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_memory_of_a_gpu_is_allocated_at_the_start_if_the_user_says_so() -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
    prepare_environment(Settings())
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


@pytest.mark.parametrize(
    ("num_devices", "given", "visible"),
    [
        (1, None, "0"),
        (2, None, "0,1"),
        (1, "3,2", "3"),
        (2, "GPU-222,GPU-111,GPU-000", "GPU-222,GPU-111"),
        (8, None, "0,1,2,3"),  # an error says later that these are too few
        (1, "", ""),
        ("auto", None, None),
        ("auto", "1,2", "1,2"),
    ],
)
def test_only_the_runs_own_gpus_are_visible(num_devices: Any, given: str | None, visible: str | None) -> None:
    if given is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = given
    prepare_environment(Settings(num_devices=num_devices))
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_processes_of_torchrun_see_all_gpus() -> None:
    os.environ |= {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    prepare_environment(Settings(num_devices=2))
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_machine_without_a_gpu_hides_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "pynvml", Nvml())
    prepare_environment(Settings())
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_deterministic_algorithms_are_chosen_before_the_frameworks_start() -> None:
    os.environ["XLA_FLAGS"] = "--xla_dump_to=folder"
    prepare_environment(Settings(acceleration=AccelerationSettings(deterministic=True)))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert os.environ["TF_CUDNN_USE_AUTOTUNE"] == "0"
    assert set(os.environ["XLA_FLAGS"].split()) == {
        "--xla_gpu_autotune_level=0",
        "--xla_gpu_deterministic_ops=true",
        "--xla_dump_to=folder",
    }
