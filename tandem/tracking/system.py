"""Hardware of the machine, and samples of its use during a run."""

from __future__ import annotations

import os
import platform
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pynvml

from tandem.protocol.gpus import gpu_handles, gpu_names

MEGABYTE = 1_000_000


def describe_hardware() -> str:
    """Hardware in one line, such as "AMD EPYC 7713, 64 CPUs, 503 GB memory, 2 x NVIDIA A100-SXM4-80GB".

    Its GPUs are those that this process may use, and not all of the machine.
    """
    gigabytes = psutil.virtual_memory().total / 1e9
    parts = [_cpu_model(), f"{os.cpu_count()} CPUs", f"{gigabytes:.0f} GB memory"]
    names = gpu_names()
    for name in dict.fromkeys(names):
        parts.append(f"{names.count(name)} x {name}")
    return ", ".join(parts)


class SystemSampler:
    """Thread that samples the use of CPU, memory and the run's GPUs; the step is the sample's number."""

    def __init__(
        self, log: Callable[[Mapping[str, float], int], None], interval: float, *, first_number: int = 0
    ) -> None:
        """Starts sampling.

        Args:
            log: Called from the sampling thread with a sample's values and number.
            interval: Seconds between two samples.
            first_number: Number of the first sample.
        """
        self._log = log
        self._interval = interval
        self._first_number = first_number
        self._stopping = threading.Event()
        self._gpus = gpu_handles()
        self._process = psutil.Process()
        psutil.cpu_percent()  # the first call starts the measurement
        self._thread = threading.Thread(target=self._sample_until_stopped, name="system-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Takes a last sample, so that even a short run has one, and ends the thread."""
        self._stopping.set()
        self._thread.join()

    def _sample_until_stopped(self) -> None:
        number = self._first_number
        while not self._stopping.wait(self._interval):
            self._log(self._sample(), number)
            number += 1
        self._log(self._sample(), number)

    def _sample(self) -> dict[str, float]:
        values = {
            "system/cpu_percent": psutil.cpu_percent(),
            "system/memory_megabytes": psutil.virtual_memory().used / MEGABYTE,
            "system/process_memory_megabytes": self._process.memory_info().rss / MEGABYTE,
        }
        for index, gpu in enumerate(self._gpus):
            # Some readings are unavailable: power on some laptops, utilisation under MIG.
            readings: dict[str, Callable[[Any], float]] = {
                "percent": lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
                "memory_megabytes": lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used / MEGABYTE,
                "watts": lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            }
            for name, read in readings.items():
                try:
                    values[f"system/gpu_{index}_{name}"] = float(read(gpu))
                except pynvml.NVMLError:
                    continue
        return values


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
