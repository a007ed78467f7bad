"""The frameworks, and what their scripts accept."""

from __future__ import annotations

import os
from typing import Literal

Framework = Literal["torch", "keras"]

LIBRARIES = {"torch": "PyTorch", "keras": "Keras"}
"""Names of the frameworks for people."""

KERAS_BACKENDS = ("tensorflow", "jax", "torch")
"""Values of KERAS_BACKEND, the default first."""

WEIGHT_FILES = {"torch": (".pth", ".pt", ".safetensors"), "keras": (".h5",)}
"""Endings of weight files, by the framework that reads them."""


def backend_of(framework: str) -> str:
    """The package that computes in a script that this process starts, without importing the framework."""
    return os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0]) if framework == "keras" else "torch"
