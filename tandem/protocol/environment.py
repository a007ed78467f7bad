"""Environment variables that the frameworks read: set by the protocol, refused, or recorded (docs/environment.md)."""

from __future__ import annotations

import os
import re

from tandem.errors import UserError
from tandem.protocol.gpus import visible_gpus
from tandem.protocol.processes import num_started_processes
from tandem.protocol.settings import Settings

MEMORY_AS_NEEDED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Without these TensorFlow and JAX allocate nearly the whole memory of a GPU at their start."""

REFUSED = {
    "KERAS_MAX_EPOCHS": "max_epochs sets the number of epochs",
    "KERAS_MAX_STEPS_PER_EPOCH": "an epoch has all training images",
    "NVIDIA_TF32_OVERRIDE": "acceleration.tf32 switches TF32 on and off",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "acceleration.tf32 switches TF32 on and off",
    "JAX_ENABLE_X64": "precision chooses the arithmetic",
    "JAX_DEFAULT_DTYPE_BITS": "precision chooses the arithmetic",
    "XLA_USE_BF16": "precision chooses the arithmetic",
    "XLA_USE_F16": "precision chooses the arithmetic",
}
"""Variables that change what is trained behind the settings' back, with what does the same in sight."""

REFUSED_PREFIX = "PL_TRAINER_"
"""Lightning takes arguments of its Trainer from variables of this name."""

RECORDED_PREFIXES = (
    *("TF_", "TENSORFLOW_", "XLA_", "JAX_", "JAXLIB_", "KERAS_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "PL_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NCCL_", "TRITON_", "LIBTPU_", "PT_"),
    *("ONEDNN_", "DNNL_", "MKL_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "VECLIB_", "BLIS_", "EIGEN_"),
)
"""Beginnings of variables that the frameworks and their libraries read; all that are set are a tag of the run."""

_OFF = ("", "0", "false", "False")


def check_environment() -> None:
    """Raises UserError if a variable is set that changes the training in place of a setting."""
    for name, value in os.environ.items():
        if name in REFUSED and not (name.startswith(("JAX_", "XLA_")) and value in _OFF):
            raise UserError(f"{name}: received {value!r} in the environment, allowed: not set; {REFUSED[name]}")
        if name.startswith(REFUSED_PREFIX):
            raise UserError(f"{name}: received {value!r} in the environment, allowed: not set; settings replace it")


def recorded_environment() -> dict[str, str]:
    """The variables of the frameworks that are set, by name: numbers and speed may depend on them."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(RECORDED_PREFIXES) and not re.search(r"TOKEN|SECRET|PASSWORD|_KEY$", name)
    }


def prepare_environment(settings: Settings) -> None:
    """Sets variables that the frameworks read on import. Defaults do not replace values that the user has set."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow's own default uses these kernels only on CPUs with AVX-512 VNNI or AMX; with AVX2 alone Keras trains
    # MobileNetV2 in half the time with them (docs/environment.md). They sum in another order.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
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
