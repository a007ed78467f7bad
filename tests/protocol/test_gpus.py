from __future__ import annotations

import pytest

from tandem.protocol import gpus
from tandem.protocol.gpus import gpu_handles, gpu_memory_bytes, gpu_names, visible_gpus
from tests.made_nvml import Gpu, Nvml

INSTANCES = {place: Gpu(name="NVIDIA A100 MIG 2g.20gb", uuid=f"MIG-{place}a") for place in (0, 2, 3)}
MIG = Gpu(name="NVIDIA A100", uuid="GPU-aaaa", instances=INSTANCES)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with three kinds of GPUs, all of which are visible."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = Gpu(name="NVIDIA T4", uuid="GPU-8f2a11"), MIG, Gpu(name="NVIDIA H100", uuid="GPU-8f2b22")
    monkeypatch.setattr(gpus, "pynvml", Nvml(*cards))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,3", ["2", "3"]),
        ("1,-1,0", ["1"]),
        ("GPU-8f2a, GPU-11", ["GPU-8f2a", "GPU-11"]),
    ],
)
def test_gpus_are_those_of_cuda_visible_devices(
    given: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == expected


def test_each_mig_instance_is_a_gpu() -> None:
    assert visible_gpus() == ["0", "MIG-0a", "MIG-2a", "MIG-3a", "2"]


def test_machine_without_a_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "pynvml", Nvml())
    assert visible_gpus() == gpu_handles() == gpu_names() == []
    assert gpu_memory_bytes() is None


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("2", ["NVIDIA H100"]),
        ("GPU-8f2b,0", ["NVIDIA H100", "NVIDIA T4"]),
        ("MIG-2a", ["NVIDIA A100 MIG 2g.20gb"]),
        ("7,GPU-unknown", []),
        ("", []),
    ],
)
def test_handles_are_those_of_the_visible_gpus(given: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert gpu_names() == names


def test_memory_is_that_of_the_first_visible_gpu() -> None:
    assert gpu_memory_bytes() == 8_000_000_000
