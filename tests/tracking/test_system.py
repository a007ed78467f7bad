from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace

import psutil
import pytest

from tandem.protocol import gpus
from tandem.tracking import system
from tandem.tracking.system import SystemSampler, describe_hardware
from tests.made_nvml import Nvml


@pytest.fixture(autouse=True)
def all_gpus_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def pretend(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpus, system):
        monkeypatch.setattr(module, "pynvml", nvml)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=503_400_000_000, used=7_000_000))


def test_hardware_is_one_line_with_equal_gpus_counted(monkeypatch: pytest.MonkeyPatch, memory: None) -> None:
    pretend(Nvml("NVIDIA A100", "NVIDIA T4", "NVIDIA A100"), monkeypatch)
    monkeypatch.setattr(system, "_cpu_model", lambda: "AMD EPYC 7713")
    monkeypatch.setattr(system.os, "cpu_count", lambda: 64)
    assert describe_hardware() == "AMD EPYC 7713, 64 CPUs, 503 GB memory, 2 x NVIDIA A100, 1 x NVIDIA T4"


def test_hardware_without_a_gpu_has_none(monkeypatch: pytest.MonkeyPatch, memory: None) -> None:
    pretend(Nvml(), monkeypatch)
    assert describe_hardware().endswith(" CPUs, 503 GB memory")


def sample(monkeypatch: pytest.MonkeyPatch, nvml: Nvml, seconds: float = 0.0) -> list[tuple[int, Mapping[str, float]]]:
    pretend(nvml, monkeypatch)
    samples: list[tuple[int, Mapping[str, float]]] = []
    sampler = SystemSampler(lambda values, number: samples.append((number, dict(values))), interval=seconds / 4 or 60)
    time.sleep(seconds)
    sampler.stop()
    return samples


def test_sample_has_the_units_in_its_names(monkeypatch: pytest.MonkeyPatch, memory: None) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda: 12.5)
    ((number, values),) = sample(monkeypatch, Nvml("NVIDIA A100", "NVIDIA T4"))
    process = values.pop("system/process_memory_megabytes")  # type: ignore[attr-defined]
    assert process == pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.2)
    assert number == 0
    assert values == {
        "system/cpu_percent": 12.5,
        "system/memory_megabytes": 7.0,
        "system/gpu_0_percent": 50.0,
        "system/gpu_0_memory_megabytes": 3.0,
        "system/gpu_0_watts": 250.5,
        "system/gpu_1_percent": 51.0,
        "system/gpu_1_memory_megabytes": 6.0,
    }


def test_hardware_and_samples_are_of_the_visible_gpu_alone(monkeypatch: pytest.MonkeyPatch, memory: None) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-222")
    ((_, values),) = sample(monkeypatch, Nvml(*["NVIDIA T4"] * 2, "NVIDIA H100", *["NVIDIA T4"] * 5))
    assert describe_hardware().endswith("GB memory, 1 x NVIDIA H100")
    of_gpus = {name: value for name, value in values.items() if "gpu" in name}
    assert of_gpus == {"system/gpu_0_percent": 52, "system/gpu_0_memory_megabytes": 9, "system/gpu_0_watts": 250.5}


def test_samples_are_numbered_until_the_sampler_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = sample(monkeypatch, Nvml(), seconds=0.4)
    assert [number for number, _ in samples] == list(range(len(samples))) and len(samples) >= 3
    count = len(samples)
    time.sleep(0.2)
    assert len(samples) == count
