from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tandem.tracking import system
from tandem.tracking.system import SystemSampler, describe_hardware


class Nvml:
    """Stand-in for pynvml on a machine with GPUs; the second does not report its power."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, *names: str) -> None:
        self.names = names

    def nvmlInit(self) -> None:
        if not self.names:
            raise self.NVMLError

    def nvmlDeviceGetCount(self) -> int:
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, gpu: int) -> str:
        return self.names[gpu]

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=50 + gpu, memory=99)

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=(gpu + 1) * 3_000_000, total=10**9)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        if gpu:
            raise self.NVMLError
        return 250_500


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=503_400_000_000, used=7_000_000))


def test_hardware_is_one_line_with_equal_gpus_counted(monkeypatch: pytest.MonkeyPatch, memory: None) -> None:
    monkeypatch.setattr(system, "pynvml", Nvml("NVIDIA A100", "NVIDIA T4", "NVIDIA A100"))
    monkeypatch.setattr(system, "_cpu_model", lambda: "AMD EPYC 7713")
    monkeypatch.setattr(system.os, "cpu_count", lambda: 64)
    assert describe_hardware() == "AMD EPYC 7713, 64 CPUs, 503 GB memory, 2 x NVIDIA A100, 1 x NVIDIA T4"


def test_hardware_without_a_gpu_has_none(monkeypatch: pytest.MonkeyPatch, memory: None) -> None:
    monkeypatch.setattr(system, "pynvml", Nvml())
    assert describe_hardware().endswith(" CPUs, 503 GB memory")


def sample(monkeypatch: pytest.MonkeyPatch, nvml: Nvml, seconds: float = 0.0) -> list[tuple[int, Mapping[str, float]]]:
    monkeypatch.setattr(system, "pynvml", nvml)
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


def test_samples_are_numbered_until_the_sampler_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = sample(monkeypatch, Nvml(), seconds=0.4)
    assert [number for number, _ in samples] == list(range(len(samples))) and len(samples) >= 3
    count = len(samples)
    time.sleep(0.2)
    assert len(samples) == count
