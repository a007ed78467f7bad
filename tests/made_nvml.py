"""A stand-in for pynvml on a machine with made GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A card, or a MIG instance of one."""

    name: str
    uuid: str
    instances: dict[int, Gpu] = field(default_factory=dict)
    """MIG instances by their place; there are seven places."""
    number: int = 0
    """Determines all readings."""


class Nvml:
    """The functions of pynvml that Tandem calls. Cards with odd numbers do not report their power."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, *gpus: Gpu | str) -> None:
        self.gpus = [
            Gpu(name=gpu, uuid=f"GPU-{number}{number}{number}", number=number) if isinstance(gpu, str) else gpu
            for number, gpu in enumerate(gpus)
        ]

    def nvmlInit(self) -> None:
        if not self.gpus:
            raise self.NVMLError

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.82.07"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        return self.gpus[index]

    def nvmlDeviceGetName(self, gpu: Gpu) -> str:
        return gpu.name

    def nvmlDeviceGetUUID(self, gpu: Gpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetMigMode(self, gpu: Gpu) -> list[int]:
        if "T4" in gpu.name:
            raise self.NVMLError  # a card without MIG
        return [bool(gpu.instances)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: Gpu) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Gpu, index: int) -> Gpu:
        if index not in gpu.instances:
            raise self.NVMLError
        return gpu.instances[index]

    def nvmlDeviceGetCudaComputeCapability(self, gpu: Gpu) -> tuple[int, int]:
        return {"NVIDIA V100": (7, 0), "NVIDIA T4": (7, 5), "NVIDIA H100": (9, 0)}[gpu.name]

    def nvmlDeviceGetUtilizationRates(self, gpu: Gpu) -> Any:
        return SimpleNamespace(gpu=50 + gpu.number, memory=99)

    def nvmlDeviceGetMemoryInfo(self, gpu: Gpu) -> Any:
        return SimpleNamespace(used=(gpu.number + 1) * 3_000_000, total=8_000_000_000)

    def nvmlDeviceGetPowerUsage(self, gpu: Gpu) -> int:
        if gpu.number % 2:
            raise self.NVMLError
        return 250_500
