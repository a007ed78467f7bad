"""Environment variables that have to be set before a framework is imported."""

from __future__ import annotations

import os

from tandem.protocol.gpus import visible_gpus
from tandem.protocol.processes import num_started_processes
from tandem.protocol.settings import Settings

MEMORY_AS_NEEDED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Without these TensorFlow and JAX allocate nearly the whole memory of a GPU at their start."""


def prepare_environment(settings: Settings) -> None:
    """Sets variables that the frameworks read on import. Defaults do not replace values that the user has set."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for name, value in MEMORY_AS_NEEDED.items():
        os.environ.setdefault(name, value)
    if settings.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:
        _hide_other_gpus(settings)
    if settings.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    acceleration = settings.acceleration
    xla_flags = []
    if acceleration.deterministic or not acceleration.cudnn_autotune:
        os.environ.setdefault("TF_CUDNN_USE_AUTOTUNE", "0")
        xla_flags.append("--xla_gpu_autotune_level=0")
    if acceleration.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # NVIDIA's cuBLAS: the same workspace in each call
        xla_flags.append("--xla_gpu_deterministic_ops=true")
    if xla_flags:
        os.environ["XLA_FLAGS"] = " ".join([*xla_flags, os.environ.get("XLA_FLAGS", "")]).strip()


def _hide_other_gpus(settings: Settings) -> None:
    """Makes only the run's own GPUs visible: TensorFlow and JAX would use memory of each of them."""
    # the order of nvidia-smi and NVML; CUDA's own default is the fastest GPU first
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # processes of torchrun and srun choose their GPU by its place among those of the machine
    if settings.num_devices != "auto" and num_started_processes() == 1 and (gpus := visible_gpus()):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[: settings.num_devices])
