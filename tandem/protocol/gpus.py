"""GPUs that this process may use, as NVIDIA's management library (NVML) sees them; imports no framework."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import pynvml


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as in CUDA_VISIBLE_DEVICES: indices in the order of the PCI bus, or UUIDs.

    Where CUDA_VISIBLE_DEVICES is not set, each MIG instance is a GPU of its own.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        # CUDA ignores what follows an invalid name
        return list(takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), map(str.strip, given.split(","))))
    names: list[str] = []
    for index, card in enumerate(_cards()):
        names += [pynvml.nvmlDeviceGetUUID(instance) for instance in _mig_instances(card)] or [str(index)]
    return names


def gpu_handles() -> list[Any]:
    """NVML's handles of the visible GPUs, cards and MIG instances; those that NVML does not know are left out."""
    cards = _cards()
    found = []
    for name in visible_gpus():
        if name.isdecimal():
            found += cards[int(name) : int(name) + 1]
        else:
            devices = [device for card in cards for device in (card, *_mig_instances(card))]
            # CUDA accepts the first characters of a UUID
            found += [device for device in devices if pynvml.nvmlDeviceGetUUID(device).startswith(name)][:1]
    return found


def gpu_names() -> list[str]:
    """Names of the visible GPUs, such as "NVIDIA A100-SXM4-80GB"."""
    return [pynvml.nvmlDeviceGetName(gpu) for gpu in gpu_handles()]


def gpu_memory_bytes() -> int | None:
    """Memory of the first visible GPU; None if it is unknown."""
    for gpu in gpu_handles():
        with contextlib.suppress(pynvml.NVMLError):
            return int(pynvml.nvmlDeviceGetMemoryInfo(gpu).total)
    return None


def compute_capability() -> tuple[int, int] | None:
    """Compute capability of the first visible GPU, such as (9, 0); None if it is unknown."""
    for gpu in gpu_handles():
        with contextlib.suppress(pynvml.NVMLError):
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
            return major, minor
    return None


def driver_version() -> str:
    """Version of NVIDIA's driver, such as "580.82.07"; "unknown" without one."""
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        return pynvml.nvmlSystemGetDriverVersion()
    return "unknown"


def _cards() -> list[Any]:
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _mig_instances(card: Any) -> Iterator[Any]:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(card)
        if not current:
            return
        count = pynvml.nvmlDeviceGetMaxMigDeviceCount(card)
    except pynvml.NVMLError:  # a card without MIG
        return
    for index in range(count):
        with contextlib.suppress(pynvml.NVMLError):  # a free place
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index)
