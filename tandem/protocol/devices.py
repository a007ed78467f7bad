"""Checks that the device that the settings need is there."""

from __future__ import annotations

from tandem.errors import UserError
from tandem.protocol.settings import Settings


def check_gpu(settings: Settings, *, has_gpu: bool, backend: str) -> None:
    """Does nothing if the settings can be met.

    Args:
        settings: `device` and `precision`.
        has_gpu: True if the backend finds a GPU.
        backend: torch, tensorflow or jax, for the message.

    Raises:
        UserError: They need a GPU, and there is none.
    """
    if settings.device == "gpu" and not has_gpu:
        raise UserError(f"device: received 'gpu', but {backend} finds no GPU here; allowed: cpu or auto")
    if settings.precision == "float16" and not has_gpu:
        raise UserError(f"precision: received 'float16', but {backend} finds no GPU here; allowed: float32 or bfloat16")
