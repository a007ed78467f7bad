"""Environment variables that have to be set before a framework is imported."""

from __future__ import annotations

import os

from tandem.protocol.settings import Settings


def prepare_environment(settings: Settings) -> None:
    """Sets variables that the frameworks read on import. Defaults do not replace values that the user has set."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if settings.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["JAX_PLATFORMS"] = "cpu"
    if settings.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    if not settings.acceleration.cudnn_autotune:
        os.environ.setdefault("TF_CUDNN_USE_AUTOTUNE", "0")
        os.environ["XLA_FLAGS"] = f"--xla_gpu_autotune_level=0 {os.environ.get('XLA_FLAGS', '')}".strip()
