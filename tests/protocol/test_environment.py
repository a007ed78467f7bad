from __future__ import annotations

import os

import pytest

from tandem.protocol.environment import prepare_environment
from tandem.protocol.settings import AccelerationSettings, Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty environment; the old one is restored afterwards."""
    monkeypatch.setattr(os, "environ", dict[str, str]())


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
