"""The device that a run computes on: the check that it is there, and the line that names it."""

from __future__ import annotations

from tandem.errors import UserError
from tandem.protocol.gpus import driver_version, gpu_names
from tandem.protocol.settings import Settings

_REASONS = {
    "torch": "it may be built without CUDA, or for a newer driver or newer cards than these: update the driver, or "
    "install torch for an older CUDA",
    "tensorflow": "it may be installed without CUDA: pip install 'tensorflow[and-cuda]'",
    "jax": "it may be installed without CUDA: pip install 'jax[cuda13]'",
}
"""Possible reasons why a backend finds no GPU on a machine that has one."""


def check_gpu(settings: Settings, *, has_gpu: bool, backend: str) -> None:
    """Does nothing if the settings can be met.

    Args:
        settings: `device` and `precision`.
        has_gpu: True if the backend finds a GPU.
        backend: torch, tensorflow or jax, for the message.

    Raises:
        UserError: They need a GPU, and there is none.
    """
    if has_gpu:
        return
    why = why_no_gpu(backend)
    if settings.device == "gpu":
        raise UserError(f"device: received 'gpu', but {backend} finds no GPU here; allowed: cpu or auto{why}")
    if settings.precision == "float16":
        raise UserError(
            f"precision: received 'float16', but {backend} finds no GPU here; allowed: float32 or bfloat16{why}"
        )


def device_line(*, uses_gpu: bool, backend: str, version: str) -> str:
    """The line that says what a run computes on and, if the machine has GPUs that it does not use, why that may be.

    Args:
        uses_gpu: True if the run computes on a GPU.
        backend: The package that computes: torch, tensorflow or jax.
        version: Its version.
    """
    if uses_gpu:
        return f"{backend} {version} computes on {_counted(gpu_names()) or 'a GPU'}"
    return f"{backend} {version} computes on the CPU{why_no_gpu(backend)}"


def why_no_gpu(backend: str) -> str:
    """The end of a line: the GPUs that the process may use but the backend does not find; empty without such GPUs.

    `device: cpu` hides all GPUs.
    """
    names = gpu_names()
    if not names:
        return ""
    reason = f": {_REASONS[backend]}" if backend in _REASONS else ""
    found = f"{_counted(names)} with driver {driver_version()}"
    return f". It finds no GPU, but this machine has {found}{reason} (docs/gpu.md)"


def _counted(names: list[str]) -> str:
    return ", ".join(
        f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )
